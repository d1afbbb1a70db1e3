//! What a person can do about a failure. The library names what is wrong; the cure is added where a person reads it.

use reverse_tunnel::{Failure, FailureKind, Reason, Status};

/// The cure for a month whose bytes are used up.
pub const DATA_CAP: &str = "wait for the next month, or raise policy.monthly_bytes and restart the agent";

/// The cure for an attempt that failed.
#[must_use]
pub fn for_failure(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Dns => "name the server by its address, user@ADDRESS, or mend the device's DNS",
        FailureKind::Tcp => "check the address and port, and that the site's firewall lets them out",
        FailureKind::Handshake => "check that an SSH server answers on that port",
        FailureKind::HostKey => {
            "if the server's key was changed on purpose, mend ssh.host_keys or the server's line in known_hosts"
        }
        FailureKind::Auth => {
            "authorise this device on the server with the line of `ocpp-tunnel keys show --authorized-keys`"
        }
        FailureKind::Forward => {
            "free the port on the server: see permitlisten, AllowTcpForwarding and ClientAliveInterval of its sshd"
        }
        FailureKind::Lost => "it is tried again by itself",
    }
}

/// The failure that a tunnel ended by; none if it ended for another reason, whatever went wrong before.
#[must_use]
pub fn fatal(status: &Status) -> Option<&Failure> {
    let kind = match status.state.reason()? {
        Reason::HostKeyMismatch => FailureKind::HostKey,
        Reason::AuthDenied => FailureKind::Auth,
        Reason::ForwardRefused => FailureKind::Forward,
        _ => return None,
    };
    status.last_error.as_ref().filter(|error| error.kind == kind)
}

/// The cure for a tunnel that ended although somebody wanted it.
#[must_use]
pub fn for_reason(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::HostKeyMismatch => Some(for_failure(FailureKind::HostKey)),
        Reason::AuthDenied => Some(for_failure(FailureKind::Auth)),
        Reason::ForwardRefused => Some(for_failure(FailureKind::Forward)),
        Reason::DataCap => Some(DATA_CAP),
        _ => None,
    }
}
