//! The transparent proxy between controllers and their CSMS.
//!
//! A controller connects here as it would to its CSMS, and we connect there as that controller. Whatever either says goes
//! to the other as it is, but for the embedder's configuration keys, which one of the controllers gets in passing.
//!
//! - `door`: a controller's request; `admission`: its way in; `upstream`: the connection to the CSMS in its name;
//! - `seat`: a controller's place, the owner of its connection; `relay` and `leg`: a connection that is up;
//! - `filter` (with `watch`, `get_configuration` and `splice`): what passes and what is ours, without IO;
//! - `absent`: who stands in for a controller that is down; `timing` and `status`: what is told of all that.

mod absent;
mod admission;
mod door;
mod filter;
mod get_configuration;
mod leg;
mod relay;
mod seat;
mod splice;
mod status;
mod timing;
mod upstream;
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio_tungstenite::tungstenite::http::HeaderMap;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch as channel},
    task::JoinSet,
    time::sleep,
};

use self::{
    admission::Reception,
    relay::Embedded,
    seat::{Pings, Rescue, Seat, SeatHandle},
    status::Desk,
    upstream::Upstream,
};
pub use self::{
    filter::{Filter, Pass},
    leg::LegFigures,
    status::{ControllerState, ControllerStatus},
};
use crate::{
    Command, ConnectionProfile, Credentials, Event, LinkSettings, LinkStatus,
    limits::{ACCEPT_PAUSE, MAX_ADMISSIONS, MAX_CONTROLLERS},
    security::ServerTls,
};

/// How a bridge is to be.
#[derive(Debug, Clone)]
pub struct BridgeSettings {
    /// How the CSMS is reached. Its identity is that of the controller which gets the embedder's keys; its credentials and
    /// client certificate are for that controller alone.
    pub link: LinkSettings,
    /// What that controller must show to the bridge. Then what it shows isn't passed on, and the CSMS sees the credentials
    /// of `link`, if any; without it, the CSMS sees what the controller shows.
    pub expected: Option<Credentials>,
    /// The identities of the other controllers. Everything of theirs passes. What is more than [`MAX_CONTROLLERS`] in all
    /// isn't served.
    pub others: Vec<String>,
    /// TLS towards the controllers; without it they connect in plain.
    pub tls: Option<ServerTls>,
    /// When the bridge connects to the CSMS by itself. `None`: never.
    pub rescue: Option<RescueSettings>,
}

/// When the bridge connects to the CSMS without the controller that gets the keys.
#[derive(Debug, Clone, Copy)]
pub struct RescueSettings {
    /// How long the controller must be away.
    pub after: Duration,
    /// The CSMS wants no credentials of the controller. Otherwise, where the bridge has none of its own, it uses what the
    /// controller showed last, and doesn't connect before that has shown something.
    pub without_credentials: bool,
}

/// A bridge.
pub struct Bridge {
    reception: Reception,
    seats: Vec<Seat>,
    /// What ends the seats that have no embedder.
    stops: Vec<mpsc::Sender<Command>>,
}

// === impl Bridge ===

impl Bridge {
    /// A bridge that doesn't serve anybody yet. `status` shows the connection to the CSMS of the controller that gets the
    /// filter's keys, and `commands` and `events` are for these, as in [`link::run`](crate::link::run).
    pub fn new(
        settings: BridgeSettings,
        filter: Filter,
        events: mpsc::Sender<Event>,
        commands: mpsc::Receiver<Command>,
        status: channel::Sender<LinkStatus>,
    ) -> Self {
        let BridgeSettings { link, expected, mut others, tls, rescue } = settings;
        others.truncate(MAX_CONTROLLERS - 1);
        let mut bridge = Self { reception: Reception::new(tls), seats: Vec::new(), stops: Vec::new() };
        let pings = Pings {
            interval: Some(link.ping_interval).filter(|interval| !interval.is_zero()),
            timeout: link.pong_timeout,
        };
        let profile = ConnectionProfile { urls: link.urls, credentials: link.credentials, tls: link.tls };
        let plain = ConnectionProfile {
            urls: profile.urls.clone(),
            credentials: None,
            tls: profile.tls.clone().map(crate::TlsSettings::without_client_certificate),
        };
        let upstream = |identity: &str, profile, passes| {
            Upstream::new(identity.to_owned(), profile, link.proxy.clone(), passes)
        };
        let own = upstream(&link.identity, profile, expected.is_none());
        let desk = Desk::new(&link.identity, Some(status));
        let (mut handle, mut seat) =
            place(&link.identity, own, desk, Embedded::new(filter, commands, events), pings);
        seat.rescue = rescue.map(|rescue| Rescue {
            after: rescue.after,
            backoff: link.backoff,
            shown: (rescue.without_credentials || expected.is_some()).then(HeaderMap::new),
        });
        handle.expected = expected;
        bridge.reception.seats.push(handle);
        bridge.seats.push(seat);
        for identity in others {
            let (stop, commands) = mpsc::channel(1);
            // Without keys there is nothing to tell.
            let (events, _) = mpsc::channel(1);
            let embedded = Embedded::new(Filter::new(fastrand::Rng::new()), commands, events);
            let own = upstream(&identity, plain.clone(), true);
            let (handle, seat) = place(&identity, own, Desk::new(&identity, None), embedded, pings);
            bridge.reception.seats.push(handle);
            bridge.seats.push(seat);
            bridge.stops.push(stop);
        }
        bridge
    }

    /// What is told of each controller, the one that gets the keys first.
    pub fn controllers(&self) -> Vec<channel::Receiver<ControllerStatus>> {
        self.reception.seats.iter().map(|seat| seat.desk.watch()).collect()
    }

    /// Serves controllers until the embedder has closed its end of the commands; then ends all connections in good
    /// order, which takes two seconds at most.
    pub async fn run(self, listener: TcpListener) {
        let reception = Arc::new(self.reception);
        let mut running = JoinSet::new();
        for seat in self.seats {
            running.spawn(seat.run());
        }
        let mut admissions = JoinSet::new();
        loop {
            tokio::select! {
                (tcp, peer) = accept(&listener), if admissions.len() < MAX_ADMISSIONS => {
                    admissions.spawn(Arc::clone(&reception).admit(tcp, peer));
                }
                Some(_) = admissions.join_next() => {}
                // Only the embedder ends a seat.
                _ = running.join_next() => break,
            }
        }
        drop((listener, admissions, self.stops));
        while running.join_next().await.is_some() {}
    }
}

/// A controller's place, and how connections are brought to it.
fn place(
    identity: &str,
    upstream: Upstream,
    desk: Desk,
    embedded: Embedded,
    pings: Pings,
) -> (SeatHandle, Seat) {
    let desk = Arc::new(desk);
    let (upstream, upstream_receiver) = channel::channel(Arc::new(upstream));
    let (notices, notice_receiver) = mpsc::channel(1);
    let (holds, holds_receiver) = channel::channel(false);
    let doubts = Arc::new(Notify::new());
    let handle = SeatHandle {
        identity: identity.to_owned(),
        expected: None,
        upstream: upstream_receiver,
        notices,
        doubts: Arc::clone(&doubts),
        holds: holds_receiver,
        desk: Arc::clone(&desk),
    };
    let seat =
        Seat { embedded, desk, notices: notice_receiver, doubts, upstream, pings, rescue: None, holds };
    (handle, seat)
}

/// What must hold for a request, whatever it is; for [`crate::fuzzing`].
#[cfg(any(test, fuzzing))]
pub(crate) fn hold_request(bytes: &[u8]) {
    door::hold(bytes);
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "bridge-accept-failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
