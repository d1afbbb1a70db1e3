//! The tunnel as a state machine without IO: inputs and a `now` go in, actions come out.
//!
//! It decides what to try next, for how long, and when to give up. It knows no socket, no clock and no runtime; the
//! driver in `task.rs` carries out its [`Action`]s one at a time and reports each one's outcome as an [`Input`].
//! After every input, call [`Tunnel::poll_action`] until it is empty and [`Tunnel::poll_timeout`] once.

mod words;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::destination::Destination;
use crate::failure::{Failure, FailureKind};
use crate::forward::Forward;
use crate::limits::{CONNECT_TIMEOUT, FORWARD_RETRY, NOTICE, PATIENCE, RESOLVE_TIMEOUT, SETTLED};
use crate::route::{Peer, Route, Way};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub destination: Destination,
    /// How to get there.
    pub route: Route,
    /// What to publish there; at least one.
    pub forwards: Vec<Forward>,
    /// When it ends by itself.
    pub expires: Option<Instant>,
}

/// How patient a tunnel is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Upper bound of the first wait after a failure.
    pub backoff_minimum: Duration,
    /// Upper bound of every wait.
    pub backoff_maximum: Duration,
    /// A peer that is silent for this long is dead; it bounds each step of the handshake as well.
    pub dead_after: Duration,
    /// A tunnel without a forwarded connection for this long closes; zero: never.
    pub idle_timeout: Duration,
}

/// Where a tunnel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing has been tried yet.
    Idle,
    /// The tunnel whose place it takes is saying goodbye, and still holds its ports.
    ///
    /// Its word is `connecting`: it is wanted, on its way, and not up.
    Waiting,
    /// The name is being looked up.
    Resolving,
    /// TCP.
    Connecting,
    /// SSH version, key exchange and host key.
    Verifying,
    /// Our key is being offered.
    Authenticating,
    /// The server is being asked to listen.
    Forwarding,
    /// Every forward is open.
    Up,
    /// Waiting for the next try.
    Backoff,
    /// Ended for good.
    Closed(Reason),
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Closed on this device.
    User,
    /// Closed by the CSMS.
    Ocpp,
    /// Its support session ended.
    Support,
    /// Its time was over.
    Expired,
    /// Nobody used it.
    Idle,
    /// The agent stopped.
    Shutdown,
    /// The policy forbids it now.
    Policy,
    /// The server's host key isn't the trusted one.
    HostKeyMismatch,
    /// The server would not take our key.
    AuthDenied,
    /// The server would not let us listen.
    ForwardRefused,
    /// Its slot moved to another destination.
    Replaced,
    /// The month's bytes are used up.
    DataCap,
}

/// What happened. `Wait` comes at most once, before `Start`, which comes once; the others answer the last [`Action`], or come from outside.
#[derive(Debug)]
pub enum Input {
    /// Another tunnel has to end first.
    Wait,
    /// Begin.
    Start,
    /// Somebody wants it closed.
    Close(Reason),
    /// The same tunnel was asked for again: its end moves, and a waiting one tries at once.
    Again {
        /// The new end.
        expires: Option<Instant>,
    },
    /// The network came back, or another one: a try may succeed that failed before.
    Network,
    /// The name has these addresses, in the resolver's order.
    Resolved(Vec<SocketAddr>),
    /// TCP is connected.
    Connected,
    /// The server proved that it holds a host key that we trust.
    Verified,
    /// The server took our key.
    Authenticated,
    /// The server listens; the port is its choice where it was asked to choose.
    Listening {
        /// The chosen or fixed port; 0 for a Unix socket.
        port: u16,
    },
    /// The step failed, or the connection went away.
    Failed(Failure),
    /// So many forwarded connections are open now.
    Connections(usize),
    /// The time of [`Tunnel::poll_timeout`] has come.
    Timeout,
}

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look up the destination's host, or the proxy's.
    Resolve,
    /// Connect this way.
    Connect(Way),
    /// Exchange versions and keys, and check the host key.
    Verify,
    /// Offer our key.
    Authenticate,
    /// Ask for the forward of this index.
    Listen(usize),
    /// Drop whatever step or connection there is.
    Disconnect,
    /// Tell people that the tunnel ends in ten minutes.
    Announce,
}

/// A tunnel's state machine.
#[derive(Debug)]
pub struct Tunnel {
    plan: Plan,
    timing: Timing,
    rng: fastrand::Rng,
    state: State,
    since: Instant,
    /// When the current step, wait or pause ends.
    deadline: Option<Instant>,
    announce_at: Option<Instant>,
    idle_since: Option<Instant>,
    connections: usize,
    /// What is left to try.
    ways: VecDeque<Way>,
    way: Option<Way>,
    last_good: Option<Way>,
    ports: Vec<Option<u16>>,
    /// The forward that the server is being asked for.
    asked: usize,
    /// Those that were refused are asked for again at `deadline`.
    refused: bool,
    /// The kind of refusal that we are being patient with, and since when.
    patience: Option<(FailureKind, Instant)>,
    failures: u32,
    last_error: Option<Failure>,
    actions: VecDeque<Action>,
}

impl Tunnel {
    /// A tunnel that does nothing until [`Input::Start`]. The generator is for the back-off's jitter.
    #[must_use]
    pub fn new(plan: Plan, timing: Timing, rng: fastrand::Rng, now: Instant) -> Self {
        let ports = vec![None; plan.forwards.len()];
        let mut tunnel = Self {
            plan,
            timing,
            rng,
            state: State::Idle,
            since: now,
            deadline: None,
            announce_at: None,
            idle_since: None,
            connections: 0,
            ways: VecDeque::new(),
            way: None,
            last_good: None,
            ports,
            asked: 0,
            refused: false,
            patience: None,
            failures: 0,
            last_error: None,
            actions: VecDeque::new(),
        };
        tunnel.schedule_announcement(now);
        tunnel
    }

    // --- getters ---

    /// What is wanted.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it stands there.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The next try, while it waits for one.
    #[must_use]
    pub fn retry_at(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.state == State::Backoff || self.refused)
    }

    /// What went wrong last. It stays until the tunnel is up.
    #[must_use]
    pub fn last_error(&self) -> Option<&Failure> {
        self.last_error.as_ref()
    }

    /// The ports that the server listens on, a place for each forward; `None` where it doesn't.
    #[must_use]
    pub fn ports(&self) -> &[Option<u16>] {
        &self.ports
    }

    /// Who is, or is about to be, at the other end of the connection.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.way.map(|way| self.plan.route.peer(self.plan.destination.host(), way))
    }

    // --- outputs ---

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call with [`Input::Timeout`] if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.state, State::Closed(_)) {
            return None;
        }
        [self.deadline, self.plan.expires, self.announce_at, self.idle_deadline()].into_iter().flatten().min()
    }

    // --- inputs ---

    /// Takes what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match (self.state, input) {
            (State::Closed(_), _) => {}
            (State::Idle, Input::Wait) => self.enter(now, State::Waiting, None),
            (State::Idle | State::Waiting, Input::Start) => self.attempt(now),
            (_, Input::Close(reason)) => self.close(now, reason),
            (_, Input::Again { expires }) => self.again(now, expires),
            (_, Input::Connections(open)) => self.count_connections(now, open),
            (_, Input::Timeout) => self.timeout(now),
            (_, Input::Network) => self.network_changed(now),
            (State::Resolving, Input::Resolved(addresses)) => self.resolved(now, addresses),
            (State::Connecting, Input::Connected) => {
                self.enter(now, State::Verifying, Some(self.timing.dead_after));
                self.actions.push_back(Action::Verify);
            }
            (State::Verifying, Input::Verified) => {
                self.last_good = self.way;
                self.enter(now, State::Authenticating, Some(self.timing.dead_after));
                self.actions.push_back(Action::Authenticate);
            }
            (State::Authenticating, Input::Authenticated) => {
                self.enter(now, State::Forwarding, None);
                self.ports.fill(None);
                self.listen_from(now, 0);
            }
            (State::Forwarding, Input::Listening { port }) => self.listening(now, port),
            (State::Idle | State::Waiting | State::Backoff, Input::Failed(_)) => {}
            (_, Input::Failed(failure)) => self.failed(now, failure),
            // An answer to a step that was given up meanwhile.
            (
                _,
                Input::Wait
                | Input::Start
                | Input::Resolved(_)
                | Input::Connected
                | Input::Verified
                | Input::Authenticated
                | Input::Listening { .. },
            ) => {}
        }
    }

    fn attempt(&mut self, now: Instant) {
        self.enter(now, State::Resolving, Some(RESOLVE_TIMEOUT));
        self.actions.push_back(Action::Resolve);
    }

    fn resolved(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        let (route, destination) = (&self.plan.route, &self.plan.destination);
        self.ways = route.ways(destination.port(), &addresses, self.last_good).into();
        if !self.connect_next(now) {
            let (kind, name) = self.resolved_name();
            self.failed(now, Failure::new(kind, format!("DNS knows no address for {name}")));
        }
    }

    /// Whose addresses are looked up, and what it counts as if there are none.
    fn resolved_name(&self) -> (FailureKind, String) {
        match &self.plan.route.proxy {
            Some(proxy) => (FailureKind::Proxy, format!("the proxy {}", proxy.host())),
            None => (FailureKind::Dns, self.plan.destination.host().to_string()),
        }
    }

    /// Goes on to the next way; false if there is none.
    fn connect_next(&mut self, now: Instant) -> bool {
        let Some(way) = self.ways.pop_front() else { return false };
        self.way = Some(way);
        self.enter(now, State::Connecting, Some(CONNECT_TIMEOUT.min(self.timing.dead_after)));
        self.actions.push_back(Action::Connect(way));
        true
    }

    /// Asks for the next forward, from this index on, that isn't open yet. One that was refused holds up no other: it is asked
    /// for again when all have been, after a pause.
    fn listen_from(&mut self, now: Instant, index: usize) {
        self.refused = false;
        let missing =
            |from: usize| (from..self.ports.len()).find(|index| self.ports.get(*index) == Some(&None));
        if let Some(next) = missing(index) {
            self.asked = next;
            self.deadline = Some(now + self.timing.dead_after);
            self.actions.push_back(Action::Listen(next));
        } else if missing(0).is_some() {
            self.refused = true;
            self.deadline = Some(now + FORWARD_RETRY.min(self.patience_left(now)));
        } else {
            self.last_error = None;
            self.patience = None;
            self.enter(now, State::Up, None);
            self.idle_since = Some(now).filter(|_| self.connections == 0);
        }
    }

    fn listening(&mut self, now: Instant, port: u16) {
        if let Some(place) = self.ports.get_mut(self.asked) {
            *place = Some(port);
        }
        self.listen_from(now, self.asked + 1);
    }

    fn failed(&mut self, now: Instant, failure: Failure) {
        let kind = failure.kind;
        self.last_error = Some(failure);
        let patience = self.be_patient(now, kind);
        match kind {
            FailureKind::HostKey(fault) if fault.is_final() => self.close(now, Reason::HostKeyMismatch),
            FailureKind::Auth if patience.is_zero() => self.close(now, Reason::AuthDenied),
            FailureKind::Forward if patience.is_zero() => self.close(now, Reason::ForwardRefused),
            FailureKind::Forward => self.listen_from(now, self.asked + 1),
            FailureKind::Tcp
            | FailureKind::Proxy
            | FailureKind::ProxyAuth
            | FailureKind::Handshake
            | FailureKind::HostKey(_)
                if matches!(self.state, State::Connecting | State::Verifying) =>
            {
                self.actions.push_back(Action::Disconnect);
                if !self.connect_next(now) {
                    self.back_off(now, patience);
                }
            }
            _ => self.back_off(now, patience),
        }
    }

    /// How much longer refusals of this kind are tried again. A failure of another kind starts the time anew.
    fn be_patient(&mut self, now: Instant, kind: FailureKind) -> Duration {
        if !matches!(kind, FailureKind::Auth | FailureKind::Forward) {
            self.patience = None;
            return Duration::MAX;
        }
        if self.patience.is_none_or(|(before, _)| before != kind) {
            self.patience = Some((kind, now));
        }
        self.patience_left(now)
    }

    fn patience_left(&self, now: Instant) -> Duration {
        let since = self.patience.map_or(now, |(_, since)| since);
        PATIENCE.saturating_sub(now.saturating_duration_since(since))
    }

    /// Waits with full jitter; `at_most` brings the last try of a refusal's two minutes forward.
    fn back_off(&mut self, now: Instant, at_most: Duration) {
        if self.state == State::Up && now.saturating_duration_since(self.since) >= SETTLED {
            self.failures = 0;
        }
        let doubled = self.timing.backoff_minimum.saturating_mul(1 << self.failures.min(16));
        let bound = doubled.min(self.timing.backoff_maximum);
        let wait = bound.mul_f64(self.rng.f64()).min(at_most);
        self.failures = self.failures.saturating_add(1);
        self.ways.clear();
        self.actions.push_back(Action::Disconnect);
        self.enter(now, State::Backoff, Some(wait));
    }

    fn again(&mut self, now: Instant, expires: Option<Instant>) {
        self.plan.expires = expires;
        self.schedule_announcement(now);
        if self.state == State::Backoff {
            self.attempt(now);
        } else if self.refused {
            self.listen_from(now, 0);
        }
    }

    /// A wait ends at once; so does a step that may be talking to a network that is gone. A connection that stands is left
    /// alone: its keepalive tells whether it survived. How often this comes is the caller's matter.
    fn network_changed(&mut self, now: Instant) {
        if matches!(self.state, State::Resolving | State::Connecting) {
            self.actions.push_back(Action::Disconnect);
        }
        if matches!(self.state, State::Backoff | State::Resolving | State::Connecting) {
            self.attempt(now);
        }
    }

    fn timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.plan.expires) {
            return self.close(now, Reason::Expired);
        }
        if due(self.idle_deadline()) {
            return self.close(now, Reason::Idle);
        }
        if due(self.announce_at) {
            self.announce_at = None;
            self.actions.push_back(Action::Announce);
        }
        if !due(self.deadline) {
            return;
        }
        match self.state {
            State::Backoff => self.attempt(now),
            State::Forwarding if self.refused => self.listen_from(now, 0),
            _ => self.failed(now, self.step_timed_out(now)),
        }
    }

    fn step_timed_out(&self, now: Instant) -> Failure {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        let peer = self.peer().map(|peer| peer.to_string()).unwrap_or_default();
        let (kind, what) = match self.state {
            State::Resolving => {
                let (kind, name) = self.resolved_name();
                (kind, format!("DNS gave no answer for {name}"))
            }
            State::Connecting if self.plan.route.proxy.is_some() => {
                (FailureKind::Proxy, format!("no connection to {peer}"))
            }
            State::Connecting => (FailureKind::Tcp, format!("no TCP connection to {peer}")),
            State::Verifying => {
                (FailureKind::Handshake, format!("{peer} did not finish the SSH key exchange"))
            }
            _ => (FailureKind::Lost, format!("{peer} stopped answering")),
        };
        Failure::new(kind, format!("{what} in {seconds} s"))
    }

    fn count_connections(&mut self, now: Instant, open: usize) {
        self.connections = open;
        self.idle_since = Some(now).filter(|_| open == 0);
    }

    fn close(&mut self, now: Instant, reason: Reason) {
        self.actions.push_back(Action::Disconnect);
        self.enter(now, State::Closed(reason), None);
    }

    fn enter(&mut self, now: Instant, state: State, limit: Option<Duration>) {
        self.state = state;
        self.since = now;
        self.deadline = limit.map(|limit| now + limit);
        self.refused = false;
        if !matches!(state, State::Forwarding | State::Up) {
            self.ports.fill(None);
        }
        if matches!(state, State::Resolving | State::Backoff | State::Closed(_)) {
            self.way = None;
        }
    }

    fn idle_deadline(&self) -> Option<Instant> {
        if self.state != State::Up || self.timing.idle_timeout.is_zero() {
            return None;
        }
        self.idle_since.map(|since| since.max(self.since) + self.timing.idle_timeout)
    }

    fn schedule_announcement(&mut self, now: Instant) {
        let notice = self.plan.expires.and_then(|expires| expires.checked_sub(NOTICE));
        self.announce_at = notice.filter(|at| *at > now);
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
