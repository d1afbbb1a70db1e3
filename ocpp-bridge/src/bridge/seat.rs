//! One controller's place in the bridge: the one owner of its connection, and of what happens while it has none.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::{sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::http::{HeaderMap, HeaderValue, header::AUTHORIZATION},
};

use super::{
    absent::Absent,
    leg::Leg,
    relay::{Change, Embedded, Finished, Pair, Shutdown},
    status::{ControllerState, Desk},
    upstream::Upstream,
};
use crate::{
    Backoff, Credentials, RegistrationStatus, Url,
    limits::{RESCUE_FAREWELL, STABLE_AFTER},
    link::connect::{Connected, SUBPROTOCOL, Transport, subprotocol},
};

/// A controller's place, for as long as the bridge runs.
pub(super) struct Seat {
    pub(super) embedded: Embedded,
    pub(super) desk: Arc<Desk>,
    pub(super) notices: mpsc::Receiver<Notice>,
    /// Tells that a connection of the controller was asked for, so that the present one may be dead.
    pub(super) doubts: Arc<Notify>,
    pub(super) upstream: watch::Sender<Arc<Upstream>>,
    pub(super) pings: Pings,
    pub(super) rescue: Option<Rescue>,
    /// The bridge holds the connection to the CSMS by itself.
    pub(super) holds: watch::Sender<bool>,
}

/// How silence is noticed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pings {
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Duration,
}

/// When the bridge connects to the CSMS by itself.
#[derive(Debug)]
pub(super) struct Rescue {
    /// How long the controller must have been away.
    pub(super) after: Duration,
    /// How long to wait between connections.
    pub(super) backoff: Backoff,
    /// What is to be shown of the controller: what it showed last when the CSMS let it in. `None`: it isn't known yet.
    pub(super) shown: Option<HeaderMap>,
}

/// What is known of a seat by those who bring connections to it.
#[derive(Debug)]
pub(super) struct SeatHandle {
    pub(super) identity: String,
    /// What the controller must show to us.
    pub(super) expected: Option<Credentials>,
    pub(super) upstream: watch::Receiver<Arc<Upstream>>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) doubts: Arc<Notify>,
    pub(super) holds: watch::Receiver<bool>,
    pub(super) desk: Arc<Desk>,
}

/// News of the controller.
pub(super) enum Notice {
    /// It is there, and wants a connection.
    Arrived,
    /// It has got one.
    Ready(Box<Ready>),
}

/// Both legs of a connection, shaken hands with.
pub(super) struct Ready {
    pub(super) controller: WebSocketStream<Box<dyn Transport>>,
    pub(super) csms: Connected,
    pub(super) url: Url,
    pub(super) authorization: Option<HeaderValue>,
}

// === impl SeatHandle ===

impl SeatHandle {
    /// Says that the controller is there, and waits until the bridge has given way, if it holds the connection.
    pub(super) async fn arrived(&self) {
        self.notify(Notice::Arrived).await;
        // Its present connection may be dead without a word, and the CSMS one that doesn't take a second.
        self.doubts.notify_waiters();
        let mut holds = self.holds.clone();
        // Whoever holds it gives way in this time; a little more, since the wait begins earlier.
        let _ = timeout(2 * RESCUE_FAREWELL, holds.wait_for(|holds| !holds)).await;
    }

    pub(super) async fn notify(&self, notice: Notice) {
        // A seat that is gone means that the bridge ends, and we with it.
        let _ = self.notices.send(notice).await;
    }

    pub(super) fn upstream(&self) -> Arc<Upstream> {
        self.upstream.borrow().clone()
    }
}

// === impl Seat ===

impl Seat {
    /// Serves the controller until the embedder has closed its end of the commands.
    pub(super) async fn run(mut self) {
        let mut next = None;
        loop {
            let served = match next.take() {
                Some(ready) => self.relay(ready).await,
                None => self.wait().await.map(Some),
            };
            match served {
                Ok(ready) => next = ready,
                Err(Shutdown) => return,
            }
        }
    }

    /// Relays a connection to its end. A newer one that ended it is returned.
    async fn relay(&mut self, ready: Box<Ready>) -> Result<Option<Box<Ready>>, Shutdown> {
        let Ready { controller, csms, url, authorization } = *ready;
        let protocol =
            csms.subprotocol.as_ref().map(|chosen| String::from_utf8_lossy(chosen.as_bytes()).into_owned());
        // A CSMS that names no version speaks the one that was there before there was another to name.
        let speaks_ours = protocol.as_deref().is_none_or(|protocol| protocol == SUBPROTOCOL);
        let is_filtered = self.embedded.filter.has_keys() && speaks_ours;
        self.desk.connected(ControllerState::Connected, &url, csms.security, protocol);
        if let Some(rescue) = &mut self.rescue {
            let field = authorization.map(|authorization| (AUTHORIZATION, authorization));
            rescue.shown = Some(field.into_iter().collect());
        }
        let now = now();
        if is_filtered {
            self.embedded.filter.begin(now, csms.security);
        }
        let Pings { interval, timeout } = self.pings;
        let pair = Pair::new(
            Leg::new(controller, "the controller", now, interval, timeout),
            Leg::new(csms.socket, "the CSMS", now, interval, timeout),
            is_filtered,
        );
        let finished = pair.run(&mut self.embedded, &self.desk, &self.doubts, newer(&mut self.notices)).await;
        let newer = self.conclude(finished, "a newer connection of the controller took its place")?;
        Ok(newer.map(|(newer, _)| newer))
    }

    /// Shows how a connection ended. What interrupted it is returned, and the goodbyes that are still being said.
    fn conclude<T>(
        &mut self,
        finished: Result<Finished<T>, Shutdown>,
        interrupted: &str,
    ) -> Result<Option<(T, JoinHandle<()>)>, Shutdown> {
        self.embedded.filter.end();
        let (reason, unproven, outcome) = match finished {
            Ok(Finished::Ended { reason, unproven }) => (reason.into(), unproven, Ok(None)),
            Ok(Finished::Interrupted(cause, closing)) => {
                (Cow::Borrowed(interrupted), false, Ok(Some((cause, closing))))
            }
            Ok(Finished::Changed) => (Cow::Borrowed("made anew with other credentials"), false, Ok(None)),
            Err(Shutdown) => (Cow::Borrowed("the bridge stops"), false, Err(Shutdown)),
        };
        self.desk.ended(&reason, unproven);
        outcome
    }

    /// Waits for the controller, and holds the connection to the CSMS meanwhile if it takes long.
    async fn wait(&mut self) -> Result<Box<Ready>, Shutdown> {
        let mut failures = 0;
        let mut due = self.rescue.as_ref().map(|rescue| now() + rescue.after);
        loop {
            self.carry_out_change();
            let notices = &mut self.notices;
            let event = self.embedded.meanwhile(async {
                tokio::select! {
                    notice = notice(notices) => Some(notice),
                    () = until(due) => None,
                }
            });
            let notice = match event.await? {
                None => continue,
                Some(Some(notice)) => Some(notice),
                Some(None) => {
                    let began = now();
                    self.holds.send_replace(true);
                    let held = self.hold().await;
                    self.holds.send_replace(false);
                    failures = if now() >= began + STABLE_AFTER { 0 } else { failures };
                    due = self
                        .rescue
                        .as_ref()
                        .map(|rescue| now() + rescue.backoff.delay(failures, &mut fastrand::Rng::new()));
                    failures = failures.saturating_add(1);
                    held?
                }
            };
            match notice {
                Some(Notice::Ready(ready)) => return Ok(ready),
                // It isn't down, whatever comes of it.
                Some(Notice::Arrived) => {
                    failures = 0;
                    due = self.rescue.as_ref().map(|rescue| now() + rescue.after);
                }
                None => {}
            }
        }
    }

    /// Holds a connection to the CSMS without the controller, until that comes back or the connection ends.
    async fn hold(&mut self) -> Result<Option<Notice>, Shutdown> {
        let Some(fields) = self.own_fields() else { return Ok(None) };
        let upstream = self.upstream.borrow().clone();
        let (notices, desk) = (&mut self.notices, &*self.desk);
        let connected = self.embedded.meanwhile(async {
            tokio::select! {
                connected = upstream.connect(fields, desk) => Ok(connected.ok()),
                notice = notice(notices) => Err(notice),
            }
        });
        let (csms, url) = match connected.await? {
            Some(Ok(Some(connected))) => connected,
            Some(Ok(None)) => return Ok(None),
            Some(Err(notice)) => return Ok(Some(notice)),
            // Another way to connect.
            None => return Ok(None),
        };
        self.desk.connected(ControllerState::Rescue, &url, csms.security, Some(SUBPROTOCOL.to_owned()));
        let now = now();
        self.embedded.filter.begin(now, csms.security);
        let Pings { interval, timeout: pong } = self.pings;
        let pair = Pair::new(
            Leg::new(Absent::default(), "the bridge", now, None, pong),
            Leg::new(csms.socket, "the CSMS", now, interval, pong),
            true,
        );
        let finished =
            pair.run(&mut self.embedded, &self.desk, &self.doubts, notice(&mut self.notices)).await;
        let Some((notice, closing)) = self.conclude(finished, "the controller is back")? else {
            return Ok(None);
        };
        // The CSMS is to know that it is gone before the controller's own connection is made.
        let _ = timeout(RESCUE_FAREWELL, closing).await;
        Ok(Some(notice))
    }

    /// The header fields to connect with by ourselves. `None`: the CSMS has sent the controller away, or we don't have its
    /// credentials.
    fn own_fields(&self) -> Option<HeaderMap> {
        if self.embedded.filter.registration() == Some(RegistrationStatus::Rejected) {
            return None;
        }
        let mut fields = subprotocol();
        // What isn't to be passed on, the upstream leaves out.
        fields.extend(self.rescue.as_ref()?.shown.clone()?);
        Some(fields)
    }

    fn carry_out_change(&mut self) {
        let Some(Change { profile, number, .. }) = self.embedded.take_change() else { return };
        let upstream = self.upstream.borrow().with_profile(*profile);
        self.upstream.send_replace(Arc::new(upstream));
        self.desk.profile_changed(number);
    }
}

/// The next connection of the controller.
async fn newer(notices: &mut mpsc::Receiver<Notice>) -> Box<Ready> {
    loop {
        if let Notice::Ready(ready) = notice(notices).await {
            return ready;
        }
    }
}

async fn notice(notices: &mut mpsc::Receiver<Notice>) -> Notice {
    match notices.recv().await {
        Some(notice) => notice,
        // Nobody is let in any more: the bridge ends.
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
