//! One connection for who only wants to know whether it can be made: a look at each step, and goodbye.

use std::fmt;

use tokio::time::timeout;

use super::{LinkFault, LinkSettings, Url, connect::Connected, connect_error::ConnectError, try_to_connect};
use crate::{limits::CLOSE_TIMEOUT, security::LinkSecurity};

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptError {
    /// What sort of thing it was.
    pub fault: AttemptFault,
    /// What happened, in words that name the step.
    pub text: String,
}

/// The sorts of things that may be wrong. Each has another cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptFault {
    /// The name has no address.
    Dns,
    /// Nobody answers, or not in time; the proxy included.
    Network,
    /// TLS: a certificate, or the versions.
    Tls,
    /// The CSMS refused the credentials: HTTP status 401 or 403.
    Credentials,
    /// The CSMS knows no such charge point, or the path is wrong: HTTP status 404.
    Unknown,
    /// What answers doesn't speak OCPP 1.6J over WebSocket.
    Protocol,
}

/// Connects to one of the CSMS's URLs as [`run`](super::run) does, up to the WebSocket with OCPP's subprotocol, and closes it.
/// No message of OCPP is sent, so that the CSMS doesn't take it for a start of the charge point. Mind that a CSMS may
/// end another connection of the same identity for it.
///
/// # Errors
/// There is no connection; see [`AttemptError`].
pub async fn attempt(url: &Url, settings: &LinkSettings) -> Result<LinkSecurity, AttemptError> {
    let connected = try_to_connect(url, settings)
        .await
        .map_err(|error| AttemptError { fault: AttemptFault::of(&error), text: error.to_string() })?;
    let Connected { mut socket, security, .. } = connected;
    // Whether it says goodbye as well makes no difference.
    let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
    Ok(security)
}

impl AttemptFault {
    fn of(error: &ConnectError) -> Self {
        match (error, error.fault()) {
            (ConnectError::Dns { .. } | ConnectError::NoAddress { .. }, _) => Self::Dns,
            (_, Some(LinkFault::Credentials)) => Self::Credentials,
            (ConnectError::Http(answer), _) if answer.status() == 404 => Self::Unknown,
            (ConnectError::Tls { .. } | ConnectError::NoTlsSettings | ConnectError::ServerName { .. }, _) => {
                Self::Tls
            }
            (ConnectError::Timeout { step: "DNS", .. }, _) => Self::Dns,
            (
                ConnectError::Tcp { .. }
                | ConnectError::Timeout { .. }
                | ConnectError::Proxy(_)
                | ConnectError::ProxySpeaks { .. },
                _,
            ) => Self::Network,
            _ => Self::Protocol,
        }
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for AttemptError {}
