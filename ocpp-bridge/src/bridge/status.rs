//! What the bridge publishes of each controller.

use std::{fmt, sync::Mutex, time::Instant};

use tokio::sync::watch;

use super::leg::LegFigures;
use crate::{
    LinkState, LinkStatus, RegistrationStatus, Url,
    link::{connect_error::ConnectError, status::Publisher},
    security::LinkSecurity,
};

/// Where the bridge stands with one controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerState {
    /// The controller isn't connected.
    Waiting,
    /// The controller has asked for a connection, and the CSMS is being connected to.
    Connecting,
    /// Both legs are up.
    Connected,
    /// The controller isn't connected, and the bridge holds the connection to the CSMS by itself.
    Rescue,
}

/// What the bridge publishes of one controller. Who looks sees the present figures; who waits for a change is woken when
/// anything else changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerStatus {
    /// Who it is.
    pub identity: String,
    /// Where the bridge stands with it.
    pub state: ControllerState,
    /// Since when `state` is what it is.
    pub since: Instant,
    /// The URL of its CSMS that was used last, without the identity; empty before the first try.
    pub url: String,
    /// The WebSocket subprotocol that the CSMS chose, while there is a connection and if it chose any.
    pub subprotocol: Option<String>,
    /// The leg to the controller, while it is up.
    pub controller: Option<LegFigures>,
    /// The leg to the CSMS, while it is up.
    pub csms: Option<LegFigures>,
    /// When both legs were last closed, and why.
    pub last_closed: Option<(Instant, String)>,
    /// Why the last try to connect failed; none once one has succeeded.
    pub last_error: Option<String>,
}

/// Where everything that serves one controller publishes how it goes.
#[derive(Debug)]
pub(super) struct Desk {
    board: watch::Sender<ControllerStatus>,
    /// For the one controller that the embedder's keys belong to.
    link: Option<Publisher>,
    /// What was logged last, so that a thousand equal failures make one line.
    logged: Mutex<Option<String>>,
}

// === impl ControllerState ===

impl fmt::Display for ControllerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Rescue => "rescue",
        })
    }
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(identity: &str, link: Option<watch::Sender<LinkStatus>>) -> Self {
        let board = watch::Sender::new(ControllerStatus {
            identity: identity.to_owned(),
            state: ControllerState::Waiting,
            since: Instant::now(),
            url: String::new(),
            subprotocol: None,
            controller: None,
            csms: None,
            last_closed: None,
            last_error: None,
        });
        let link = link.map(Publisher::new);
        if let Some(link) = &link {
            link.state(LinkState::Waiting);
        }
        Self { board, link, logged: Mutex::new(None) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<ControllerStatus> {
        self.board.subscribe()
    }

    /// Whether both legs are up, or the bridge holds the one.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.board.borrow().state, ControllerState::Connected | ControllerState::Rescue)
    }

    /// A connection to the CSMS is tried. While there is one already that is no news.
    pub(super) fn connecting(&self, url: &Url) {
        if !self.is_connected() {
            self.change(ControllerState::Connecting, |status| status.url = url.to_string());
            self.publish(|link| link.connecting(url));
        }
    }

    /// It failed.
    pub(super) fn failed(&self, url: &Url, error: &ConnectError) {
        let reason = error.to_string();
        let identity = &*self.board.borrow().identity.clone();
        if self.is_new(&reason) {
            tracing::warn!(identity, %url, reason, "bridge-connect-failed");
        }
        if !self.is_connected() {
            self.change(ControllerState::Waiting, |status| status.last_error = Some(reason.clone()));
            self.publish(|link| {
                link.state(LinkState::Waiting);
                link.fault(Some(error.fault()));
                link.failed(reason);
            });
        }
    }

    /// Every URL was tried in vain; whether the CSMS refused the credentials or the identity.
    pub(super) fn attempt_failed(&self, refused: bool) {
        self.publish(|link| link.attempt_failed(refused));
    }

    /// Nobody is connected, and nothing is tried.
    pub(super) fn waiting(&self) {
        if !self.is_connected() {
            self.change(ControllerState::Waiting, |_| {});
            self.publish(|link| link.state(LinkState::Waiting));
        }
    }

    /// Both legs are up; or, in a rescue, one.
    pub(super) fn connected(
        &self,
        state: ControllerState,
        url: &Url,
        security: LinkSecurity,
        protocol: Option<String>,
    ) {
        let identity = &*self.board.borrow().identity.clone();
        let profile = security.profile();
        tracing::info!(identity, %url, profile, %state, "bridge-connected");
        *self.logged() = None;
        self.change(state, |status| {
            status.url = url.to_string();
            status.subprotocol = protocol;
            status.last_error = None;
        });
        self.publish(|link| {
            link.connecting(url);
            link.connected(security);
        });
    }

    /// How much has passed. It happens with each message, and wakes nobody.
    pub(super) fn figures(&self, controller: LegFigures, csms: LegFigures) {
        self.board.send_if_modified(|status| {
            let is_there = status.state != ControllerState::Rescue;
            (status.controller, status.csms) = (is_there.then_some(controller), Some(csms));
            false
        });
    }

    /// The CSMS has let the connection live.
    pub(super) fn proven(&self) {
        self.publish(Publisher::proven);
    }

    /// What the CSMS last answered to BootNotification, on this connection or an earlier one.
    pub(super) fn booted(&self, boot: Option<RegistrationStatus>) {
        self.publish(|link| link.booted(boot));
    }

    /// The connection has ended; whether before it had proved good.
    pub(super) fn ended(&self, reason: &str, unproven: bool) {
        let identity = &*self.board.borrow().identity.clone();
        if self.is_new(reason) {
            tracing::info!(identity, reason, "bridge-closed");
        }
        self.change(ControllerState::Waiting, |status| {
            (status.controller, status.csms, status.subprotocol) = (None, None, None);
            status.last_closed = Some((now(), reason.to_owned()));
        });
        self.publish(|link| {
            link.disconnected();
            link.state(LinkState::Waiting);
            link.failed(reason.to_owned());
            if unproven {
                link.attempt_failed(true);
            }
        });
    }

    /// Connections are made with this profile from now on.
    pub(super) fn profile_changed(&self, number: u64) {
        self.publish(|link| link.profile_changed(number));
    }

    fn publish(&self, publish: impl FnOnce(&Publisher)) {
        if let Some(link) = &self.link {
            publish(link);
        }
    }

    fn change(&self, state: ControllerState, change: impl FnOnce(&mut ControllerStatus)) {
        self.board.send_if_modified(|status| {
            let before = status.clone();
            status.state = state;
            change(status);
            if before.state != state {
                status.since = now();
            }
            before != *status
        });
    }

    fn is_new(&self, reason: &str) -> bool {
        let mut logged = self.logged();
        let is_new = logged.as_deref() != Some(reason);
        *logged = Some(reason.to_owned());
        is_new
    }

    fn logged(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.logged.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
