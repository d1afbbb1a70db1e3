//! One connection for who only wants to know whether it can be made and what the CSMS makes of us: a look at each step, and
//! goodbye.

use std::{fmt, net::SocketAddr};

use futures_util::{SinkExt, StreamExt};
use rust_ocpp::v1_6::types::RegistrationStatus;
use serde_json::value::to_raw_value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{
    LinkFault, LinkSettings, Url,
    connect::{self, Connected, Socket},
    connect_error::ConnectError,
    try_to_connect,
};
use crate::{
    BootInfo,
    charge_point::{BootAnswer, boot_request},
    frame::{ErrorCode, Frame, MessageId, ParseError, encode_call},
    limits::{CALL_TIMEOUT, CLOSE_TIMEOUT},
    security::LinkSecurity,
};

/// A connection that came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// How it was secured.
    pub security: LinkSecurity,
    /// The CSMS's answer to BootNotification; or why there is none, in words.
    pub registration: Result<RegistrationStatus, String>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptError {
    /// What sort of thing it was.
    pub fault: LinkFault,
    /// What happened, in words that name the step.
    pub text: String,
}

/// Connects to one of the CSMS's URLs as [`run`](super::run) does, sends BootNotification, and closes the connection when
/// that is answered, after [`CALL_TIMEOUT`] at the latest. Whatever the CSMS asks for meanwhile is answered by an error, since
/// nobody is there to do it. Mind that a CSMS may end another connection of the same identity for this one.
///
/// # Errors
/// There is no connection; see [`AttemptError`].
pub async fn attempt(url: &Url, settings: &LinkSettings, boot: &BootInfo) -> Result<Attempt, AttemptError> {
    let connected = try_to_connect(url, settings).await?;
    let Connected { mut socket, security, .. } = connected;
    let registration = match timeout(CALL_TIMEOUT, register(&mut socket, boot)).await {
        Ok(registration) => registration,
        Err(_) => Err(format!("it hasn't answered BootNotification in {} s", CALL_TIMEOUT.as_secs())),
    };
    // Whether it says goodbye as well makes no difference.
    let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
    Ok(Attempt { security, registration })
}

/// Finds out whether one of the CSMS's URLs can be reached: its name or the proxy's, TCP, the proxy, TLS. The CSMS is asked for
/// nothing, so that no other connection of this identity is disturbed. Gives the address that was connected to: the CSMS's, or the
/// proxy's.
///
/// # Errors
/// It can't be reached; see [`AttemptError`].
pub async fn reach(url: &Url, settings: &LinkSettings) -> Result<SocketAddr, AttemptError> {
    Ok(connect::reach(url, settings.tls.as_ref(), settings.proxy.as_ref()).await?)
}

async fn register(socket: &mut Socket, boot: &BootInfo) -> Result<RegistrationStatus, String> {
    let broken = |error: Error| format!("the connection broke before BootNotification was answered: {error}");
    let ours = MessageId::random(&mut fastrand::Rng::new());
    let payload = to_raw_value(&boot_request(boot))
        .map_err(|error| format!("BootNotification can't be written: {error}"))?;
    let call = encode_call(&ours, "BootNotification", &payload);
    socket.send(Message::text(call)).await.map_err(broken)?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.map_err(broken)? else { continue };
        let refused = match Frame::parse(&text) {
            Ok(Frame::CallResult { id, payload }) if id == ours => {
                let answer = BootAnswer::parse(payload);
                return answer.map(|answer| answer.status).map_err(str::to_owned);
            }
            Ok(Frame::CallError { id, code, description }) if id == ours => {
                return Err(format!("it answered BootNotification with the error {code}: {description}"));
            }
            Err(ParseError::Answer { id, reason }) if id == ours => return Err(reason.into()),
            Ok(Frame::Call { id, .. }) => (id, ErrorCode::GenericError, "this is only a check of the link"),
            Err(ParseError::Call { id, code, reason }) => (id, code, reason),
            _ => continue,
        };
        let (id, code, description) = refused;
        let answer = Frame::CallError { id, code, description: description.into() };
        socket.send(Message::text(answer.encode())).await.map_err(broken)?;
    }
    Err("it closed the connection instead of answering BootNotification".into())
}

impl From<ConnectError> for AttemptError {
    fn from(error: ConnectError) -> Self {
        Self { fault: error.fault(), text: error.to_string() }
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for AttemptError {}
