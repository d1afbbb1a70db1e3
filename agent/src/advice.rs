//! What a person can do about a failure. The library names what is wrong; the cure is added where a person reads it.

use std::borrow::Cow;

use ocpp_bridge::{LinkFault, LinkState, LinkStatus};
use reverse_tunnel::{Destination, Failure, FailureKind, HostKeyFault, Reason, Server, State, Status};

/// The cure for a month whose bytes are used up.
pub const DATA_CAP: &str = "wait for the next month, or raise policy.monthly_bytes and restart the agent";

/// What there is to do about a connection that broke off.
const AGAIN: &str = "nothing: it is tried again by itself";

/// The cure for an attempt to log in to a server that failed.
#[must_use]
pub fn for_failure(kind: FailureKind, destination: &Destination) -> Cow<'static, str> {
    match kind {
        FailureKind::Auth => format!(
            "check the user's name; else authorise this device there, by `ocpp-tunnel keys install {destination}` or with the line of \
             `ocpp-tunnel keys show --authorized-keys`"
        )
        .into(),
        _ => for_server(kind, destination.server()),
    }
}

/// The same where nobody in particular is to be logged in.
#[must_use]
pub fn for_server(kind: FailureKind, server: &Server) -> Cow<'static, str> {
    let text = match kind {
        FailureKind::Key => "mend the device key: `ocpp-tunnel check` says how; it is tried again by itself",
        FailureKind::Dns => "name the server by its address, user@ADDRESS, or mend the device's DNS",
        FailureKind::Tcp => {
            "check this device's network, the address and port, and that the site's firewall lets them out"
        }
        FailureKind::Proxy => {
            "check ssh.proxy, and that the proxy lets connections to this host and port through"
        }
        FailureKind::ProxyAuth => {
            "put user:password for the proxy into the file of ssh.proxy_authorization_file"
        }
        FailureKind::Handshake => "check that an SSH server answers on that port",
        FailureKind::HostKey(fault) => return for_host_key(fault, server),
        FailureKind::Auth => {
            "authorise this device on the server, with the line of `ocpp-tunnel keys show --authorized-keys`"
        }
        FailureKind::Forward => {
            "free the port on the server (ClientAliveInterval of its sshd frees those of dead connections), or let this key have it: permitlisten in its line of authorized_keys, AllowTcpForwarding"
        }
        FailureKind::Lost => AGAIN,
    };
    text.into()
}

fn for_host_key(fault: HostKeyFault, server: &Server) -> Cow<'static, str> {
    match fault {
        HostKeyFault::Changed => format!(
            "ask the server's operator whether its key was changed on purpose; if it was, \
             `ocpp-tunnel host-keys remove {server}` and then `ocpp-tunnel host-keys trust {server}`"
        )
        .into(),
        HostKeyFault::Pinned => {
            "ask the server's operator whether its key was changed on purpose; if it was, replace it in ssh.host_keys"
                .into()
        }
        HostKeyFault::Unknown => format!(
            "compare the fingerprint with the operator's; `ocpp-tunnel host-keys trust {server}`, or pin the key in ssh.host_keys"
        )
        .into(),
        HostKeyFault::Revoked => {
            "give the server another host key; if this one is sound after all, remove the @revoked line".into()
        }
        HostKeyFault::Certificate => format!(
            "let the authority sign the server's key: ssh-keygen -s CA -h -I ID -n {} -V +52w HOST_KEY.pub",
            host(server)
        )
        .into(),
        HostKeyFault::Clock => "set this device's clock; it is tried again by itself".into(),
        HostKeyFault::File => "check ssh.known_hosts_file and its permissions; it is tried again by itself".into(),
    }
}

/// As a certificate names it: without brackets.
fn host(server: &Server) -> String {
    server.host().to_string().trim_matches(['[', ']']).to_owned()
}

/// The cure for an attempt to get to the CSMS that failed.
#[must_use]
pub fn for_link_fault(fault: LinkFault) -> &'static str {
    match fault {
        LinkFault::Dns => "mend the device's DNS, or check the name in ocpp.url",
        LinkFault::Network => "check ocpp.url and ocpp.proxy, and that the site's firewall lets them out",
        LinkFault::Certificate | LinkFault::Tls => {
            "check ocpp.ca_file, the name in ocpp.url and the clock, and the CSMS's certificate"
        }
        LinkFault::TlsVersion => "have TLS 1.2 or 1.3 switched on at the CSMS",
        LinkFault::Credentials => {
            "check ocpp.identity and ocpp.authorization_key_file with the CSMS's operator"
        }
        LinkFault::Unknown => "check the path in ocpp.url, and that the CSMS knows this ocpp.identity",
        LinkFault::Unavailable => "ask the CSMS's operator if it stays so; it is tried again by itself",
        LinkFault::Protocol => {
            "check that ocpp.url leads to a CSMS for OCPP 1.6J, and not to something before it"
        }
    }
}

/// The cure for a link that isn't well; none for one that is, or whose trouble is only that it is young.
#[must_use]
pub fn for_link(status: &LinkStatus) -> Option<&'static str> {
    match (status.state, status.fault) {
        (LinkState::Accepted, _) => None,
        (LinkState::Pending | LinkState::Rejected, _) => {
            Some("ask the CSMS's operator to accept this charge point; it is asked again by itself")
        }
        (_, Some(fault)) => Some(for_link_fault(fault)),
        (LinkState::Booting, None) => status
            .last_error
            .as_ref()
            .map(|_| "ask the CSMS's operator if it stays so; it is tried again by itself"),
        (_, None) => status.last_error.as_ref().map(|_| AGAIN),
    }
}

/// The cure for a tunnel that is wanted and not up, or that ended although it was.
#[must_use]
pub fn for_tunnel(status: &Status) -> Option<Cow<'static, str>> {
    match status.state {
        State::Closed(_) => for_end(status),
        State::Up => None,
        _ => status.last_error.as_ref().map(|error| for_failure(error.kind, &status.destination)),
    }
}

/// The failure that a tunnel ended by; none if it ended for another reason, whatever went wrong before.
#[must_use]
pub fn fatal(status: &Status) -> Option<&Failure> {
    let reason = status.state.reason()?;
    status.last_error.as_ref().filter(|error| {
        matches!(
            (reason, error.kind),
            (Reason::HostKeyMismatch, FailureKind::HostKey(_))
                | (Reason::AuthDenied, FailureKind::Auth)
                | (Reason::ForwardRefused, FailureKind::Forward)
        )
    })
}

/// The cure for a tunnel that ended although somebody wanted it.
#[must_use]
pub fn for_end(status: &Status) -> Option<Cow<'static, str>> {
    match status.state.reason()? {
        Reason::DataCap => Some(DATA_CAP.into()),
        _ => fatal(status).map(|error| for_failure(error.kind, &status.destination)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_not_well_has_a_cure_and_one_that_is_has_none() {
        let link = |state, fault, error: Option<&str>| {
            let last_error = error.map(str::to_owned);
            for_link(&LinkStatus { state, fault, last_error, ..LinkStatus::default() })
        };
        assert_eq!(link(LinkState::Accepted, None, None), None);
        assert_eq!(link(LinkState::Connecting, None, None), None);
        assert_eq!(link(LinkState::Booting, None, None), None);
        assert!(
            link(LinkState::Booting, None, Some("unanswered")).is_some_and(|cure| cure.contains("operator"))
        );
        assert!(
            link(LinkState::Pending, None, None)
                .is_some_and(|cure| cure.contains("accept this charge point"))
        );
        assert!(
            link(LinkState::Backoff, Some(LinkFault::Credentials), Some("401"))
                .is_some_and(|cure| cure.contains("authorization_key_file"))
        );
        assert_eq!(link(LinkState::Backoff, None, Some("it closed")), Some(AGAIN));
    }
}
