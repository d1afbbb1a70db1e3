//! The async driver: keeps a WebSocket to a CSMS up, and moves texts, events and time between it, the
//! charge point and the embedder.
//!
//! It decides when to connect, ping, pause and give up; what is said on the link is the charge point's
//! matter. It runs on any tokio runtime, with one timer.

mod attempt;
mod backoff;
pub(crate) mod connect;
pub(crate) mod connect_error;
mod fault;
mod session;
pub(crate) mod status;
mod url;

use std::{
    future::poll_fn,
    pin::pin,
    time::{Duration, Instant},
};

use http_connect::Proxy;
use serde_json::value::RawValue;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};

pub use self::{
    attempt::{Attempt, AttemptError, attempt, reach},
    backoff::Backoff,
    fault::LinkFault,
    status::{Attempts, LinkState, LinkStatus},
    url::{Url, UrlError},
};
use self::{
    connect::{Connected, Socket, connect, request, subprotocol},
    connect_error::ConnectError,
    session::{Ending, Input, Session},
    status::Publisher,
};
use crate::{
    Call, CallId, ChargePoint, ConfigurationStatus, DataTransferStatus, Event, Full, Outcome,
    RegistrationStatus, Reply, Report, RequestId, UploadAnswer, UploadSubject,
    limits::{MAX_UNANSWERED_CALLS, PING_INTERVAL, PONG_TIMEOUT, PROVEN_AFTER, STABLE_AFTER},
    security::{Credentials, LinkSecurity, TlsSettings},
};

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// The CSMS's URLs, without the identity; tried in turn, the one that worked last first.
    pub urls: Vec<Url>,
    /// Who we are: appended to the URL as one percent-encoded path segment.
    pub identity: String,
    /// For Basic authentication.
    pub credentials: Option<Credentials>,
    /// For `wss://` URLs.
    pub tls: Option<TlsSettings>,
    /// The HTTP proxy on the way to every URL; it resolves their names.
    pub proxy: Option<Proxy>,
    /// How often to ping a silent CSMS, until the key `WebSocketPingInterval` is set. Zero: never.
    pub ping_interval: Duration,
    /// How long after a ping something must arrive, lest the link count as dead.
    pub pong_timeout: Duration,
    /// How long to wait between connections.
    pub backoff: Backoff,
    /// Tells when the network has come back: a wait between connections ends then, so it should not come too often.
    /// Without it, or when its sender is gone, waits last as long as they last.
    pub network: Option<watch::Receiver<()>>,
}

/// What decides where and as whom the link connects, and how it is protected: a part of [`LinkSettings`] that may be
/// replaced while the link runs.
#[derive(Debug, Clone)]
pub struct ConnectionProfile {
    /// See [`LinkSettings::urls`].
    pub urls: Vec<Url>,
    /// See [`LinkSettings::credentials`].
    pub credentials: Option<Credentials>,
    /// See [`LinkSettings::tls`].
    pub tls: Option<TlsSettings>,
}

/// What the embedder tells the link.
#[derive(Debug, Clone)]
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
    /// See [`ChargePoint::answer_transfer`].
    AnswerTransfer {
        /// Which request is answered.
        request: RequestId,
        /// The answer.
        status: DataTransferStatus,
        /// What goes with it.
        data: Option<String>,
    },
    /// See [`ChargePoint::answer_upload`].
    AnswerUpload {
        /// Which request is answered.
        request: RequestId,
        /// What it was about.
        subject: UploadSubject,
        /// The answer.
        answer: UploadAnswer,
    },
    /// See [`ChargePoint::answer_call`].
    AnswerCall {
        /// Which request is answered.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// See [`ChargePoint::set_report`].
    SetReport {
        /// Which one.
        report: Report,
        /// What it says from now on: a JSON object.
        payload: Box<RawValue>,
    },
    /// See [`ChargePoint::call`]. One for which there is no place is lost; while the embedder doesn't take that
    /// event, no other command is looked at.
    Call(Call),
    /// Connect in another way from now on.
    Connect {
        /// How.
        profile: Box<ConnectionProfile>,
        /// Names it in [`LinkStatus::attempts`]; [`LinkSettings`] begins with 0.
        number: u64,
        /// End the connection in good order, after the answers that are due on it, or the wait for the next one, and
        /// connect. Otherwise it waits for the next connection.
        at_once: bool,
    },
}

/// A [`Command::Connect`] that waits to be carried out.
struct Change {
    profile: Box<ConnectionProfile>,
    number: u64,
    at_once: bool,
}

/// What has failed: the try to connect, or the connection.
enum Failure {
    Connect,
    Lost,
}

/// The embedder has closed its end of the commands.
struct Shutdown;

struct Driver {
    settings: LinkSettings,
    charge_point: ChargePoint,
    events: mpsc::Sender<Event>,
    commands: mpsc::Receiver<Command>,
    publisher: Publisher,
    rng: fastrand::Rng,
    /// A CALL of the embedder that had no place, until it has been told.
    surplus: Option<CallId>,
    /// How to connect from the next connection on.
    change: Option<Change>,
    /// When a connection counts as good although the CSMS has said nothing on it; `None` once it does, and without one.
    unproven: Option<Instant>,
    /// The index of the URL that worked last.
    last_good: usize,
    /// What was logged last about each URL, so that a thousand equal failures make one line.
    logged: Vec<Option<String>>,
    /// Before when each URL is not to be tried, because its CSMS said so.
    not_before: Vec<Option<Instant>>,
}

/// Keeps the link up until `commands` is closed; then ends the connection in good order, which takes two
/// seconds at most.
///
/// `events` may be slow: while it is full, the CSMS has to wait, and nothing else. `status` always shows the
/// latest state. Every event that wants an answer is to be answered, even if by a refusal, with the command of its kind
/// ([`Command::AnswerChange`], [`Command::AnswerTransfer`], [`Command::AnswerUpload`], [`Command::AnswerCall`]): while
/// [`MAX_PENDING_ANSWERS`](crate::limits::MAX_PENDING_ANSWERS) wait, nothing is read from the CSMS.
pub async fn run(
    settings: LinkSettings,
    mut charge_point: ChargePoint,
    events: mpsc::Sender<Event>,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<LinkStatus>,
) {
    charge_point.offer_ping_interval(settings.ping_interval);
    let publisher = Publisher::new(status);
    let rng = fastrand::Rng::new();
    let (logged, not_before) = (vec![None; settings.urls.len()], vec![None; settings.urls.len()]);
    let mut driver = Driver {
        settings,
        charge_point,
        events,
        commands,
        publisher,
        rng,
        surplus: None,
        change: None,
        unproven: None,
        last_good: 0,
        logged,
        not_before,
    };
    let Err(Shutdown) = driver.run().await;
}

// === impl LinkSettings ===

impl LinkSettings {
    /// The defaults of [`limits`](crate::limits), without credentials and TLS.
    pub fn new(urls: Vec<Url>, identity: String) -> Self {
        Self {
            urls,
            identity,
            credentials: None,
            tls: None,
            proxy: None,
            ping_interval: PING_INTERVAL,
            pong_timeout: PONG_TIMEOUT,
            backoff: Backoff::default(),
            network: None,
        }
    }
}

// === impl Driver ===

impl Driver {
    async fn run(&mut self) -> Result<std::convert::Infallible, Shutdown> {
        let mut failures = 0;
        let mut network = self.settings.network.take();
        loop {
            self.carry_out_change();
            // What changes while a connection is tried makes the next try worth it.
            if let Some(network) = &mut network {
                network.mark_unchanged();
            }
            if let Some((socket, security)) = self.connect_any().await?
                && self.stay(socket, security).await?
            {
                failures = 0;
            }
            if self.is_change_urgent() {
                continue;
            }
            let delay = self.settings.backoff.delay(failures, &mut self.rng);
            failures = failures.saturating_add(1);
            tracing::debug!(seconds = delay.as_secs(), "ocpp-backoff");
            self.publisher.state(LinkState::Backoff);
            let (mut rest, welcome) = (pin!(sleep(delay)), self.welcome());
            let wait = async {
                // No news of the network makes a CSMS less busy.
                sleep_until(welcome.into()).await;
                tokio::select! {
                    () = &mut rest => {}
                    () = changed(&mut network) => tracing::debug!("ocpp-backoff-cut-short"),
                }
            };
            self.meanwhile(wait).await?;
        }
    }

    /// Connects in another way from now on, if that was asked for.
    fn carry_out_change(&mut self) {
        let Some(Change { profile, number, .. }) = self.change.take() else { return };
        let ConnectionProfile { urls, credentials, tls } = *profile;
        self.logged = vec![None; urls.len()];
        self.not_before = vec![None; urls.len()];
        self.last_good = 0;
        self.settings = LinkSettings { urls, credentials, tls, ..self.settings.clone() };
        self.publisher.profile_changed(number);
    }

    fn is_change_urgent(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.at_once)
    }

    /// When the first URL may be tried again.
    fn welcome(&self) -> Instant {
        let now = now();
        self.not_before.iter().map(|until| until.unwrap_or(now)).min().unwrap_or(now)
    }

    /// Tries every URL once that may be tried. `None`: no luck, or no use any more.
    async fn connect_any(&mut self) -> Result<Option<(Socket, LinkSecurity)>, Shutdown> {
        let (first, urls) = (self.last_good, self.settings.urls.len());
        let mut refused = false;
        for index in (0..urls).map(|step| (first + step) % urls) {
            let Some(url) = self.settings.urls.get(index).cloned() else { continue };
            if self.not_before.get(index).is_some_and(|until| until.is_some_and(|until| until > now())) {
                continue;
            }
            self.publisher.connecting(&url);
            let settings = self.settings.clone();
            let Some(outcome) = self.meanwhile(try_to_connect(&url, &settings)).await? else {
                return Ok(None);
            };
            match outcome {
                Ok(Connected { socket, security, .. }) => {
                    tracing::info!(%url, profile = security.profile(), "ocpp-connected");
                    self.last_good = index;
                    return Ok(Some((socket, security)));
                }
                Err(error) => {
                    refused |= error.is_refusal();
                    // With a random part, lest all charge points that were sent away come back together.
                    let random = self.settings.backoff.random.mul_f64(self.rng.f64());
                    if let Some(not_before) = self.not_before.get_mut(index) {
                        *not_before = error
                            .retry_after()
                            .and_then(|wait| now().checked_add(wait.saturating_add(random)));
                    }
                    self.publisher.fault(Some(error.fault()));
                    self.failed(Failure::Connect, index, error.gist(), error.to_string());
                }
            }
        }
        self.publisher.attempt_failed(refused);
        Ok(None)
    }

    /// Serves a connection to its end. Whether it was a good one.
    async fn stay(&mut self, socket: Socket, security: LinkSecurity) -> Result<bool, Shutdown> {
        let opened = now();
        let mut session = Session::new(socket, opened, self.settings.pong_timeout);
        self.charge_point.handle_connected(opened, security);
        let accepted_before = self.is_accepted();
        self.publisher.connected(security);
        self.unproven = Some(opened + PROVEN_AFTER);

        let served = self.serve(&mut session).await;
        let ending = served.as_ref().unwrap_or(&Ending::SHUTDOWN);
        session.close(ending, &mut self.charge_point).await;
        let was_reset = self.charge_point.is_resetting();
        self.charge_point.handle_disconnected(now());
        self.publisher.disconnected();
        let ending = served?;
        let unproven = self.unproven.take().is_some();
        if was_reset {
            return Ok(true);
        }
        if self.is_change_urgent() {
            return Ok(false);
        }
        let reason = ending.reason.into_owned();
        self.failed(Failure::Lost, self.last_good, reason.clone(), reason);
        if unproven {
            self.publisher.attempt_failed(true);
        }
        // A CSMS that is there and doesn't answer won't do so if it is connected to at once.
        let lasted =
            now() >= opened + STABLE_AFTER && self.charge_point.unanswered_calls() < MAX_UNANSWERED_CALLS;
        Ok(lasted || (self.is_accepted() && !accepted_before))
    }

    async fn serve(&mut self, session: &mut Session) -> Result<Ending, Shutdown> {
        loop {
            if self.is_change_urgent() {
                return Ok(Ending::CHANGE);
            }
            self.show_boot();
            if self.charge_point.is_resetting() {
                return Ok(Ending::RESET);
            }
            session.set_excused(self.charge_point.is_embedder_busy(), now());
            let ping_interval = self.charge_point.ping_interval();
            let due = [self.charge_point.poll_timeout(), session.poll_timeout(ping_interval), self.unproven];
            let due = due.into_iter().flatten().min();
            let timer = sleep_until(due.unwrap_or_else(now).into());

            tokio::select! {
                input = poll_fn(|cx| session.poll(cx, &mut self.charge_point)) => {
                    session.heard(now());
                    match input {
                        Input::Text(text) => {
                            prove(&mut self.unproven, &self.publisher);
                            self.charge_point.handle_text(now(), &text);
                        }
                        Input::Life => {}
                        Input::Ended(ending) => return Ok(ending),
                    }
                }
                command = self.commands.recv(), if self.surplus.is_none() => {
                    self.surplus = obey(command, &mut self.charge_point, &mut self.change)?;
                }
                permit = self.events.reserve(), if self.surplus.is_some() || self.charge_point.has_event() => {
                    deliver(permit, &mut self.surplus, &mut self.charge_point);
                }
                () = timer, if due.is_some() => {
                    if self.unproven.is_some_and(|due| due <= now()) {
                        prove(&mut self.unproven, &self.publisher);
                    }
                    let unanswered = self.charge_point.unanswered_calls();
                    self.charge_point.handle_timeout(now());
                    if self.charge_point.unanswered_calls() > unanswered {
                        if unanswered + 1 >= MAX_UNANSWERED_CALLS {
                            return Ok(Ending::unanswered(unanswered + 1));
                        }
                        // Who looks now should see why it isn't accepted; a link that is accepted goes on as if nothing were.
                        if !self.is_accepted() {
                            self.publisher.failed(Ending::unanswered(unanswered + 1).reason.into_owned());
                        }
                        session.doubt(now());
                    }
                    if let Some(ending) = session.handle_timeout(now(), ping_interval) {
                        return Ok(ending);
                    }
                }
            }
        }
    }

    /// Does something while there is no connection, and serves the embedder meanwhile. `None`: the embedder has another
    /// way to connect, which makes this one pointless.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Shutdown> {
        let mut work = pin!(work);
        while !self.is_change_urgent() {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                command = self.commands.recv(), if self.surplus.is_none() => {
                    self.surplus = obey(command, &mut self.charge_point, &mut self.change)?;
                }
                permit = self.events.reserve(), if self.surplus.is_some() || self.charge_point.has_event() => {
                    deliver(permit, &mut self.surplus, &mut self.charge_point);
                }
            }
        }
        Ok(None)
    }

    fn is_accepted(&self) -> bool {
        self.charge_point.boot_status() == Some(RegistrationStatus::Accepted)
    }

    fn show_boot(&mut self) {
        let boot = self.charge_point.boot_status();
        if boot == Some(RegistrationStatus::Accepted) {
            self.logged.fill(None);
        }
        self.publisher.booted(boot);
    }

    /// Shows why there is no connection, and logs it unless its gist is that of the last thing logged about this URL.
    fn failed(&mut self, failure: Failure, index: usize, gist: String, reason: String) {
        if let (Some(url), Some(logged)) = (self.settings.urls.get(index), self.logged.get_mut(index))
            && logged.as_ref() != Some(&gist)
        {
            match failure {
                Failure::Connect => tracing::warn!(%url, reason, "ocpp-connect-failed"),
                Failure::Lost => tracing::warn!(%url, reason, "ocpp-lost"),
            }
            *logged = Some(gist);
        }
        self.publisher.failed(reason);
    }
}

async fn try_to_connect(url: &Url, settings: &LinkSettings) -> Result<Connected, ConnectError> {
    let request = request(url, &settings.identity, subprotocol(), settings.credentials.as_ref())?;
    connect(url, settings.tls.as_ref(), settings.proxy.as_ref(), request).await
}

/// The CSMS doesn't only let us in, it lets us stay.
fn prove(unproven: &mut Option<Instant>, publisher: &Publisher) {
    if unproven.take().is_some() {
        publisher.proven();
    }
}

/// Waits for news of the network; where none can come, for ever.
async fn changed(network: &mut Option<watch::Receiver<()>>) {
    let heard = match network {
        Some(network) => network.changed().await.is_ok(),
        None => false,
    };
    if !heard {
        std::future::pending::<()>().await;
    }
}

/// Carries a command out. A CALL for which there is no place is handed back.
fn obey(
    command: Option<Command>,
    charge_point: &mut ChargePoint,
    change: &mut Option<Change>,
) -> Result<Option<CallId>, Shutdown> {
    match command.ok_or(Shutdown)? {
        Command::SetValue { key, value } => charge_point.set_value(&key, value),
        Command::AnswerChange { request, status } => charge_point.answer_change(request, status),
        Command::AnswerTransfer { request, status, data } => {
            charge_point.answer_transfer(request, status, data);
        }
        Command::AnswerUpload { request, subject, answer } => {
            charge_point.answer_upload(request, subject, answer);
        }
        Command::AnswerCall { request, reply } => charge_point.answer_call(request, reply),
        Command::SetReport { report, payload } => charge_point.set_report(report, payload),
        Command::Call(call) => {
            let id = call.id;
            return Ok(charge_point.call(now(), call).err().map(|Full| id));
        }
        Command::Connect { profile, number, at_once } => *change = Some(Change { profile, number, at_once }),
    }
    Ok(None)
}

/// Hands one event to the embedder, if that still listens.
fn deliver(
    permit: Result<mpsc::Permit<'_, Event>, mpsc::error::SendError<()>>,
    surplus: &mut Option<CallId>,
    charge_point: &mut ChargePoint,
) {
    let lost = surplus.take().map(|id| Event::Called { id, outcome: Outcome::Lost });
    if let (Some(event), Ok(permit)) = (lost.or_else(|| charge_point.poll_event()), permit) {
        permit.send(event);
    }
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
