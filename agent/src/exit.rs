//! Exit codes of the command line. Scripts rely on the numbers.

use std::process::ExitCode;

use reverse_tunnel::{FailureKind, Reason};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked.
    Ok = 0,
    /// It failed in a way that has no code of its own.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A wanted tunnel is not up.
    NotUp = 3,
    /// No such tunnel, script or connection.
    NotFound = 4,
    /// The policy refuses it.
    Refused = 5,
    /// DNS or TCP.
    Network = 6,
    /// The server's host key.
    HostKey = 7,
    /// The server refused our key.
    Auth = 8,
    /// The server refused to listen.
    Forward = 9,
    /// No agent answers.
    NoAgent = 10,
    /// It took too long.
    Timeout = 11,
    /// The configuration is wrong.
    Config = 78,
}

impl Exit {
    /// The code for a number that came over the control socket.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        const ALL: [Exit; 13] = [
            Exit::Ok,
            Exit::Error,
            Exit::Usage,
            Exit::NotUp,
            Exit::NotFound,
            Exit::Refused,
            Exit::Network,
            Exit::HostKey,
            Exit::Auth,
            Exit::Forward,
            Exit::NoAgent,
            Exit::Timeout,
            Exit::Config,
        ];
        ALL.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Exit::Error)
    }

    /// The code for a tunnel that ended.
    #[must_use]
    pub fn for_reason(reason: Reason) -> Self {
        match reason {
            Reason::HostKeyMismatch => Self::HostKey,
            Reason::AuthDenied => Self::Auth,
            Reason::ForwardRefused => Self::Forward,
            Reason::Policy | Reason::DataCap => Self::Refused,
            _ => Self::Ok,
        }
    }

    /// The code for an attempt that failed.
    #[must_use]
    pub fn for_failure(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Key => Self::Config,
            FailureKind::Dns | FailureKind::Tcp | FailureKind::Proxy | FailureKind::ProxyAuth => {
                Self::Network
            }
            FailureKind::HostKey(_) => Self::HostKey,
            FailureKind::Auth => Self::Auth,
            FailureKind::Forward => Self::Forward,
            FailureKind::Handshake | FailureKind::Lost => Self::Error,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
