//! One connection for who only wants to know whether it can be made: a look at each step, and goodbye.

use std::fmt;

use tokio::time::timeout;

use super::{LinkFault, LinkSettings, Url, connect::Connected, try_to_connect};
use crate::{limits::CLOSE_TIMEOUT, security::LinkSecurity};

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptError {
    /// What sort of thing it was.
    pub fault: LinkFault,
    /// What happened, in words that name the step.
    pub text: String,
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
        .map_err(|error| AttemptError { fault: error.fault(), text: error.to_string() })?;
    let Connected { mut socket, security, .. } = connected;
    // Whether it says goodbye as well makes no difference.
    let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
    Ok(security)
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for AttemptError {}
