//! Connecting to the CSMS in the name of a controller.

use std::sync::atomic::{AtomicUsize, Ordering};

use http_connect::Proxy;
use tokio_tungstenite::tungstenite::{
    error::SubProtocolError,
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
    },
};

use super::status::Desk;
use crate::{
    ConnectionProfile, Url,
    link::{
        connect::{Connected, connect, request},
        connect_error::ConnectError,
    },
};

/// How the CSMS is connected to for one controller.
#[derive(Debug)]
pub(super) struct Upstream {
    identity: String,
    profile: ConnectionProfile,
    proxy: Option<Proxy>,
    /// What the controller shows is for the CSMS, and not for us.
    passes_credentials: bool,
    /// The index of the URL that worked last.
    last_good: AtomicUsize,
}

/// What a controller is answered that can't be connected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<std::time::Duration>,
}

// === impl Upstream ===

impl Upstream {
    pub(super) fn new(
        identity: String,
        profile: ConnectionProfile,
        proxy: Option<Proxy>,
        passes_credentials: bool,
    ) -> Self {
        Self { identity, profile, proxy, passes_credentials, last_good: AtomicUsize::new(0) }
    }

    /// The same with another profile.
    pub(super) fn with_profile(&self, profile: ConnectionProfile) -> Self {
        Self::new(self.identity.clone(), profile, self.proxy.clone(), self.passes_credentials)
    }

    /// Tries every URL once, the one that worked last first, with these header fields of the controller's request.
    pub(super) async fn connect(
        &self,
        mut fields: HeaderMap,
        desk: &Desk,
    ) -> Result<(Connected, Url), Failure> {
        if !self.passes_credentials {
            fields.remove(AUTHORIZATION);
        }
        let ConnectionProfile { urls, credentials, tls } = &self.profile;
        let first = self.last_good.load(Ordering::Relaxed);
        let (mut refused, mut failure) = (false, None);
        for index in (0..urls.len()).map(|step| (first + step) % urls.len()) {
            let Some(url) = urls.get(index) else { continue };
            desk.connecting(url);
            let offer = async |fields| {
                let request = request(url, &self.identity, fields, credentials.as_ref())?;
                connect(url, tls.as_ref(), self.proxy.as_ref(), request).await
            };
            let tried = match offer(fields.clone()).await {
                // Some choose none and speak OCPP 1.6 all the same, and some controllers don't mind. tungstenite does, unless
                // nothing was offered.
                Err(ConnectError::Subprotocol(SubProtocolError::NoSubProtocol)) => {
                    let mut fields = fields.clone();
                    fields.remove(SEC_WEBSOCKET_PROTOCOL);
                    offer(fields).await
                }
                tried => tried,
            };
            match tried {
                Ok(connected) => {
                    self.last_good.store(index, Ordering::Relaxed);
                    return Ok((connected, url.clone()));
                }
                Err(error) => {
                    refused |= error.is_refusal();
                    desk.failed(url, &error);
                    // What a CSMS has said tells the controller more than that another one isn't there.
                    let new = Failure::of(&error);
                    failure = failure.filter(|_| error.http_status().is_none()).or(Some(new));
                }
            }
        }
        desk.attempt_failed(refused);
        Err(failure.unwrap_or(Failure { status: StatusCode::BAD_GATEWAY, retry_after: None }))
    }
}

// === impl Failure ===

impl Failure {
    fn of(error: &ConnectError) -> Self {
        let status = match error {
            ConnectError::Timeout { .. } => Some(StatusCode::GATEWAY_TIMEOUT),
            error => error.http_status().and_then(|status| StatusCode::from_u16(status).ok()),
        };
        // A redirection leads where OCPP doesn't follow, and a 101 or 200 would say that all is well.
        let status = status.filter(|status| status.is_client_error() || status.is_server_error());
        Self { status: status.unwrap_or(StatusCode::BAD_GATEWAY), retry_after: error.retry_after() }
    }
}
