//! The driver of one tunnel: it carries out the state machine's actions on real sockets and reports what came of them.
//!
//! At any time there is at most one step under way (a future) and at most one session; giving a step up is dropping
//! it. Everything that people see goes through the observer, which is told of each change before the next step begins.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::connect::{Connection, connect, resolve};
use crate::destination::Destination;
use crate::device_keys::DeviceKeys;
use crate::events::{Event, Events};
use crate::failure::{Failure, FailureKind};
use crate::forward::Forward;
use crate::host_keys::{HostKeys, Trusted};
use crate::limits::LEAST_BUFFER_BYTES;
use crate::local_service::OwnListeners;
use crate::meter::Meter;
use crate::route::Peer;
use crate::ssh::{Session, SessionSettings};
use crate::state::{Action, Input, Plan, Reason, State, Timing, Tunnel};
use crate::traffic::Traffic;

/// What all tunnels of a device share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whom the servers know us as.
    pub keys: Arc<DeviceKeys>,
    /// Which servers we trust; each connection takes what there is when it begins.
    pub host_keys: watch::Receiver<Arc<HostKeys>>,
    /// Intervals and bounds; a tunnel keeps those that it began with.
    pub tuning: Tuning,
    /// Shows what all tunnels with these settings carry.
    pub meter: Arc<Meter>,
    /// Where this process listens itself, and no forward leads to.
    pub own_listeners: OwnListeners,
    /// Tells when the network has come back, so that nobody waits for nothing; not more often than a try may be made.
    pub network: watch::Receiver<()>,
    /// Hears of forwarded connections and of keys.
    pub events: Events,
}

/// Intervals and bounds of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Silence after which the server is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// So many intervals of silence make a dead peer; at least 1.
    pub keepalive_max: u32,
    /// Upper bound of the first wait after a failure.
    pub backoff_minimum: Duration,
    /// Upper bound of every wait.
    pub backoff_maximum: Duration,
    /// A tunnel without a forwarded connection for this long closes; zero: never.
    pub idle_timeout: Duration,
    /// Forwarded connections that may be open at once in one tunnel.
    pub max_connections: usize,
    /// Bytes that a tunnel's local services may leave waiting; at least [`LEAST_BUFFER_BYTES`].
    ///
    /// [`LEAST_BUFFER_BYTES`]: crate::limits::LEAST_BUFFER_BYTES
    pub buffer_bytes: usize,
}

/// What is known of a tunnel at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// Since when it stands there.
    pub since: Instant,
    /// Where it goes.
    pub destination: Destination,
    /// What it publishes; a port that the server chose stands in place of 0 while it listens.
    pub forwards: Vec<Forward>,
    /// Which of them the server listens for, a place for each.
    pub listening: Vec<bool>,
    /// When it ends by itself.
    pub expires: Option<Instant>,
    /// The next try, while it waits for one.
    pub retry_at: Option<Instant>,
    /// What went wrong last; none once it is up.
    pub last_error: Option<Failure>,
    /// The server's key, once verified.
    pub host_key: Option<Trusted>,
    /// Who is at the other end of the connection, while there is one or it is being made.
    pub peer: Option<Peer>,
}

/// What the observer is told.
#[derive(Debug)]
pub enum Notice<'a> {
    /// Something in the status changed.
    Changed(&'a Status),
    /// The tunnel ends in ten minutes.
    EndsSoon(&'a Status),
}

/// A running tunnel. Dropping it ends the tunnel without a goodbye.
#[derive(Debug)]
pub struct TunnelHandle {
    wish: watch::Sender<Wish>,
    task: JoinHandle<()>,
    traffic: Arc<Traffic>,
}

/// What its owner wants of a running tunnel. Only the latest counts, so nothing is ever lost in a queue.
#[derive(Clone, Copy, Debug)]
struct Wish {
    expires: Option<Instant>,
    close: Option<Reason>,
}

/// Starts a tunnel. It waits for `predecessor` to end first, so that a tunnel that takes another's place also finds
/// its ports free. The observer hears where it stands before this returns.
pub fn spawn(
    plan: Plan,
    settings: Settings,
    predecessor: Option<JoinHandle<()>>,
    observer: impl FnMut(Notice<'_>) + Send + 'static,
) -> TunnelHandle {
    let (wish, receiver) = watch::channel(Wish { expires: plan.expires, close: None });
    let traffic = Arc::new(Traffic::new(settings.meter.clone()));
    let mut driver = Driver::new(plan, settings, receiver, traffic.clone(), predecessor, Box::new(observer));
    driver.begin();
    TunnelHandle { wish, task: tokio::spawn(driver.run()), traffic }
}

impl TunnelHandle {
    /// Closes the tunnel; the observer hears when it is done. The first reason stays.
    pub fn close(&self, reason: Reason) {
        self.wish.send_modify(|wish| wish.close = wish.close.or(Some(reason)));
    }

    /// The same tunnel is asked for again: its end moves, and if it waits, it tries at once.
    pub fn again(&self, expires: Option<Instant>) {
        self.wish.send_modify(|wish| wish.expires = expires);
    }

    /// Its byte and connection counters.
    #[must_use]
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Gives the task, to wait for its end.
    #[must_use]
    pub fn into_task(self) -> JoinHandle<()> {
        self.task
    }
}

type Step = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What came of a step.
enum Done {
    Resolved(Result<Vec<SocketAddr>, Failure>),
    Connected(Result<Connection, Failure>),
    Verified(Result<Session, Failure>),
    Authenticated(Session, Result<String, Failure>),
    Listening(Session, Result<u16, Failure>),
}

struct Driver {
    tunnel: Tunnel,
    settings: Settings,
    session_settings: Arc<SessionSettings>,
    wish: watch::Receiver<Wish>,
    network: watch::Receiver<()>,
    traffic: Arc<Traffic>,
    observer: Box<dyn FnMut(Notice<'_>) + Send>,
    told: Option<Status>,
    /// The tunnel whose place this one takes, until it has ended.
    predecessor: Option<JoinHandle<()>>,
    step: Option<Step>,
    connection: Option<Connection>,
    session: Option<Session>,
    host_key: Option<Trusted>,
    /// The fingerprint of our key that the server took, until the tunnel is up.
    key_taken: Option<String>,
}

impl Driver {
    fn new(
        plan: Plan,
        settings: Settings,
        wish: watch::Receiver<Wish>,
        traffic: Arc<Traffic>,
        predecessor: Option<JoinHandle<()>>,
        observer: Box<dyn FnMut(Notice<'_>) + Send>,
    ) -> Self {
        let tuning = settings.tuning;
        let session_settings = Arc::new(SessionSettings {
            destination: plan.destination.clone(),
            host_keys: settings.host_keys.borrow().clone(),
            keepalive_interval: tuning.keepalive_interval,
            keepalive_max: tuning.keepalive_max,
            max_connections: tuning.max_connections,
            buffer_bytes: tuning.buffer_bytes.max(LEAST_BUFFER_BYTES),
            own_listeners: settings.own_listeners.clone(),
            traffic: traffic.clone(),
            events: settings.events.clone(),
        });
        let timing = Timing {
            backoff_minimum: tuning.backoff_minimum,
            backoff_maximum: tuning.backoff_maximum,
            dead_after: tuning.keepalive_interval * tuning.keepalive_max.max(1),
            idle_timeout: tuning.idle_timeout,
        };
        let tunnel = Tunnel::new(plan, timing, fastrand::Rng::new(), Instant::now());
        let mut network = settings.network.clone();
        network.mark_unchanged();
        Self {
            tunnel,
            settings,
            session_settings,
            wish,
            network,
            traffic,
            observer,
            told: None,
            predecessor,
            step: None,
            connection: None,
            session: None,
            host_key: None,
            key_taken: None,
        }
    }

    fn begin(&mut self) {
        self.take(if self.predecessor.is_some() { Input::Wait } else { Input::Start });
    }

    async fn run(mut self) {
        loop {
            while let Some(action) = self.tunnel.poll_action() {
                self.act(action).await;
            }
            if self.has_closed() {
                // Its ports may still be its predecessor's.
                turn(&mut self.predecessor).await;
                // Only now are they free.
                return self.tell();
            }
            let input = self.next_input().await;
            self.take(input);
        }
    }

    fn take(&mut self, input: Input) {
        self.tunnel.handle(Instant::now(), input);
        if !self.has_closed() {
            self.tell();
        }
        if self.tunnel.state() == State::Up
            && let Some(fingerprint) = self.key_taken.take()
        {
            let changed = self.settings.keys.established(&self.session_settings.destination, &fingerprint);
            if let Some((key, old)) = changed {
                self.settings.events.tell(Event::DeviceKeyChanged { key, old });
            }
        }
    }

    fn has_closed(&self) -> bool {
        self.tunnel.state().reason().is_some()
    }

    async fn next_input(&mut self) -> Input {
        let timeout = self.tunnel.poll_timeout().map(tokio::time::Instant::from_std);
        tokio::select! {
            () = turn(&mut self.predecessor), if self.tunnel.state() == State::Waiting => Input::Start,
            done = run_step(&mut self.step) => {
                self.step = None;
                self.finish(done)
            }
            failure = session_lost(&mut self.session) => {
                self.session = None;
                Input::Failed(failure)
            }
            () = self.traffic.changed() => Input::Connections(self.traffic.connections()),
            () = sleep_until(timeout) => Input::Timeout,
            () = changed(&mut self.network) => Input::Network,
            changed = self.wish.changed() => {
                let Wish { expires, close } = *self.wish.borrow_and_update();
                match (changed, close) {
                    (Ok(()), None) => Input::Again { expires },
                    (Ok(()), Some(reason)) => Input::Close(reason),
                    // Nobody is left who could want this tunnel.
                    (Err(_), _) => Input::Close(Reason::Shutdown),
                }
            }
        }
    }

    async fn act(&mut self, action: Action) {
        let destination = &self.session_settings.destination;
        let step: Step = match action {
            Action::Resolve => {
                // Without a key there is nothing to bother the server with.
                if let Some(failure) = no_key(&self.settings.keys) {
                    self.step = Some(Box::pin(async { Done::Resolved(Err(failure)) }));
                    return;
                }
                let (server, route) = (destination.server().clone(), self.tunnel.plan().route.clone());
                Box::pin(async move { Done::Resolved(resolve(&server, &route).await) })
            }
            Action::Connect(way) => {
                let dead_after =
                    self.settings.tuning.keepalive_interval * self.settings.tuning.keepalive_max.max(1);
                let (host, route) = (destination.host().clone(), self.tunnel.plan().route.clone());
                Box::pin(async move { Done::Connected(connect(&host, way, &route, dead_after).await) })
            }
            Action::Verify => {
                let Some(connection) = self.connection.take() else { return };
                // Whom to trust may have changed since the last connection.
                let host_keys = self.settings.host_keys.borrow().clone();
                let settings = Arc::new(SessionSettings { host_keys, ..(*self.session_settings).clone() });
                Box::pin(async move { Done::Verified(Session::verify(connection, settings).await) })
            }
            Action::Authenticate => {
                let Some(mut session) = self.session.take() else { return };
                let (user, identities) = (destination.user().to_owned(), self.settings.keys.offered());
                Box::pin(async move {
                    let result = session.authenticate(&user, &identities).await;
                    Done::Authenticated(session, result)
                })
            }
            Action::Listen(index) => {
                let Some(mut session) = self.session.take() else { return };
                let Some(forward) = self.tunnel.plan().forwards.get(index).cloned() else { return };
                Box::pin(async move {
                    let result = session.listen(&forward).await;
                    Done::Listening(session, result)
                })
            }
            Action::Disconnect => {
                self.step = None;
                self.connection = None;
                if let Some(session) = self.session.take() {
                    session.disconnect().await;
                }
                return;
            }
            Action::Announce => {
                let status = self.status();
                return (self.observer)(Notice::EndsSoon(&status));
            }
        };
        self.step = Some(step);
    }

    fn finish(&mut self, done: Done) -> Input {
        let result = match done {
            Done::Resolved(result) => result.map(Input::Resolved),
            Done::Connected(result) => result.map(|connection| {
                self.connection = Some(connection);
                Input::Connected
            }),
            Done::Verified(result) => result.map(|session| {
                self.host_key = Some(session.trusted().clone());
                self.session = Some(session);
                Input::Verified
            }),
            Done::Authenticated(session, result) => {
                self.session = Some(session);
                result.map(|fingerprint| {
                    self.key_taken = Some(fingerprint);
                    Input::Authenticated
                })
            }
            Done::Listening(session, result) => {
                self.session = Some(session);
                result.map(|port| Input::Listening { port })
            }
        };
        result.unwrap_or_else(Input::Failed)
    }

    fn tell(&mut self) {
        let status = self.status();
        if self.told.as_ref() != Some(&status) {
            (self.observer)(Notice::Changed(&status));
            self.told = Some(status);
        }
    }

    fn status(&self) -> Status {
        let plan = self.tunnel.plan();
        let forwards = plan.forwards.iter().zip(self.tunnel.ports()).map(|(forward, port)| Forward {
            remote: port.map_or_else(|| forward.remote.clone(), |port| forward.remote.with_port(port)),
            local: forward.local.clone(),
        });
        Status {
            state: self.tunnel.state(),
            since: self.tunnel.since(),
            destination: plan.destination.clone(),
            forwards: forwards.collect(),
            listening: self.tunnel.ports().iter().map(Option::is_some).collect(),
            expires: plan.expires,
            retry_at: self.tunnel.retry_at(),
            last_error: self.tunnel.last_error().cloned(),
            host_key: self.host_key.clone(),
            peer: self.tunnel.peer(),
        }
    }
}

/// Why no login can be tried, if that is so.
fn no_key(keys: &DeviceKeys) -> Option<Failure> {
    let none = keys.offered().is_empty();
    none.then(|| keys.fault()).flatten().map(|fault| Failure::new(FailureKind::Key, fault.text))
}

/// Waits until the tunnel before this one, if there is one, has ended.
async fn turn(predecessor: &mut Option<JoinHandle<()>>) {
    if let Some(task) = predecessor {
        // It only fails if that tunnel panicked, and then it is over as well.
        let _ = task.await;
        *predecessor = None;
    }
}

async fn run_step(step: &mut Option<Step>) -> Done {
    match step {
        Some(step) => step.await,
        None => std::future::pending().await,
    }
}

async fn session_lost(session: &mut Option<Session>) -> Failure {
    match session {
        Some(session) => session.lost().await,
        None => std::future::pending().await,
    }
}

/// Waits for news of the network; where none can come, for ever.
async fn changed(network: &mut watch::Receiver<()>) {
    if network.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
