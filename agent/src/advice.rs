//! What a person can do about a failure. The library names what is wrong; the cure is added where a person reads it.

use std::borrow::Cow;

use reverse_tunnel::{Failure, FailureKind, HostKeyFault, Reason, Server, Status};

/// The cure for a month whose bytes are used up.
pub const DATA_CAP: &str = "wait for the next month, or raise policy.monthly_bytes and restart the agent";

/// The cure for an attempt to get to a server that failed.
#[must_use]
pub fn for_failure(kind: FailureKind, server: &Server) -> Cow<'static, str> {
    let text = match kind {
        FailureKind::Dns => "name the server by its address, user@ADDRESS, or mend the device's DNS",
        FailureKind::Tcp => "check the address and port, and that the site's firewall lets them out",
        FailureKind::Proxy => {
            "check ssh.proxy, and that the proxy lets connections to this host and port through"
        }
        FailureKind::ProxyAuth => {
            "put user:password for the proxy into the file of ssh.proxy_authorization_file"
        }
        FailureKind::Handshake => "check that an SSH server answers on that port",
        FailureKind::HostKey(fault) => return for_host_key(fault, server),
        FailureKind::Auth => {
            "authorise this device on the server, by `ocpp-tunnel keys install user@host` or with the line of `ocpp-tunnel keys show --authorized-keys`"
        }
        FailureKind::Forward => {
            "free the port on the server: see permitlisten, AllowTcpForwarding and ClientAliveInterval of its sshd"
        }
        FailureKind::Lost => "it is tried again by itself",
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
        _ => fatal(status).map(|error| for_failure(error.kind, status.destination.server())),
    }
}
