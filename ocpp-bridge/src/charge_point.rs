//! The charge point as a state machine without IO.
//!
//! It owns the dialogue with the CSMS: boot, heartbeat, configuration, the one outstanding CALL, and the
//! answers. It has no socket, no clock and no runtime: whoever drives it (usually [`crate::link::run`])
//! hands it texts and the time, and sends what it says.

mod boot;
mod connection;
mod dispatch;
mod event;
mod outbox;
mod own;
mod payload;
mod reset;
mod restore;
mod served;
mod station;
mod transfer;
mod trigger;
mod uploads;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use rust_ocpp::v1_6::messages::change_configuration::ChangeConfigurationResponse;
use serde_json::value::RawValue;

use self::{
    boot::Boot,
    connection::{Asked, Connection},
    own::Failure,
};
pub(crate) use self::{
    boot::{Answer as BootAnswer, heartbeat_time, request as boot_request},
    dispatch::Answer,
    payload::ChangeConfiguration,
};
pub use self::{
    event::{Event, RequestId},
    outbox::{Call, CallId, Full, Outcome},
    served::Reply,
    transfer::Vendor,
    trigger::Report,
};
use crate::{
    ConfigurationStatus, RegistrationStatus,
    configuration::{HEARTBEAT_INTERVAL, MESSAGE_TIMEOUT, Registry, WEB_SOCKET_PING_INTERVAL},
    frame::{Frame, MessageId, ParseError},
    limits::{self, MAX_CALL_TIMEOUT, MAX_EVENTS, MAX_INTERVAL},
    security::LinkSecurity,
};

/// What BootNotification says about this charge point (OCPP 1.6 §6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    /// Who made it: 1 to 20 characters.
    pub vendor: String,
    /// Which model it is: 1 to 20 characters.
    pub model: String,
    /// Its serial number, at most 25 characters.
    pub serial_number: Option<String>,
    /// Its firmware version, at most 50 characters.
    pub firmware_version: Option<String>,
}

/// How a charge point behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What BootNotification says. What is longer than the standard allows is cut.
    pub boot: BootInfo,
    /// Send BootNotification after every reconnect, for CSMSs that want it; otherwise only until it has
    /// been accepted once (OCPP-J 1.6 §5.4).
    pub boot_on_reconnect: bool,
    /// The heartbeat interval where the CSMS leaves the choice to us.
    pub heartbeat_interval: Duration,
    /// The wait before BootNotification is sent again where the CSMS leaves the choice to us, and the first
    /// of the growing waits after one without a proper answer.
    pub boot_retry: Duration,
    /// How long an answer to a CALL of ours is waited for, until the key `MessageTimeout` is set.
    pub call_timeout: Duration,
    /// The DataTransfers of the CSMS that are put to the embedder; others are answered `UnknownVendorId` or
    /// `UnknownMessageId`.
    pub vendors: Vec<Vendor>,
    /// The embedder has logs to upload: GetLog and GetDiagnostics are put to it as [`Event::Upload`]. Otherwise they are
    /// answered `NotSupported`.
    pub uploads: bool,
    /// Actions of the CSMS that the embedder serves in the charge point's place, in the standard's spelling: each CALL is put to it
    /// as [`Event::Call`], whatever its payload. So a device with a vehicle's side answers RemoteStartTransaction or
    /// SetChargingProfile. Leave ChangeConfiguration and GetConfiguration to the charge point, or its keys can't be reached.
    pub actions: Vec<String>,
}

/// The charge point side of OCPP 1.6J.
///
/// Feed it with the `handle_*`, `answer_*` and `set_*` functions and [`call`](Self::call), in the order in which things happen. After any of them, ask
/// [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event) until they have nothing left,
/// and [`poll_timeout`](Self::poll_timeout) for when to come back. While
/// [`wants_text`](Self::wants_text) says no, keep texts back.
#[derive(Debug)]
pub struct ChargePoint {
    settings: Settings,
    registry: Registry,
    rng: fastrand::Rng,
    boot: Boot,
    /// `None` while there is no connection.
    connection: Option<Connection>,
    heartbeat_interval: Duration,
    call_timeout: Duration,
    /// Zero: no pings.
    ping_interval: Duration,
    /// The connector whose status is told next; `None` once all have been since the CSMS accepted us.
    unannounced: Option<u32>,
    /// What can be triggered of the embedder.
    reports: BTreeMap<Report, Box<RawValue>>,
    next_request: u64,
    unanswered_calls: u32,
    events: VecDeque<Event>,
}

// === impl Settings ===

impl Settings {
    /// The defaults of [`limits`], for this charge point.
    pub fn new(boot: BootInfo) -> Self {
        Self {
            boot,
            boot_on_reconnect: false,
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            boot_retry: limits::BOOT_RETRY_MIN,
            call_timeout: limits::CALL_TIMEOUT,
            vendors: Vec::new(),
            uploads: false,
            actions: Vec::new(),
        }
    }
}

// === impl ChargePoint ===

impl ChargePoint {
    /// A charge point that isn't connected yet. `rng` makes the ids of CALLs, and the jitter of waits.
    ///
    /// Times of `settings` above [`MAX_INTERVAL`] ([`MAX_CALL_TIMEOUT`]) are taken as that.
    pub fn new(mut settings: Settings, registry: Registry, rng: fastrand::Rng) -> Self {
        settings.boot_retry = settings.boot_retry.min(MAX_INTERVAL);
        let call_timeout = settings.call_timeout.min(MAX_CALL_TIMEOUT);
        let heartbeat_interval = settings.heartbeat_interval.clamp(Duration::from_secs(1), MAX_INTERVAL);
        let mut charge_point = Self {
            settings,
            registry,
            rng,
            boot: Boot::default(),
            connection: None,
            heartbeat_interval,
            call_timeout,
            ping_interval: Duration::ZERO,
            unannounced: None,
            reports: BTreeMap::new(),
            next_request: 0,
            unanswered_calls: 0,
            events: VecDeque::new(),
        };
        charge_point.registry.put(HEARTBEAT_INTERVAL, Some(whole_seconds(heartbeat_interval)));
        charge_point.registry.put(MESSAGE_TIMEOUT, Some(whole_seconds(call_timeout)));
        charge_point
    }

    // --- inputs ---

    /// A connection is up, protected in this way. It is a new one: what waited on an earlier one is dropped.
    pub fn handle_connected(&mut self, now: Instant, security: LinkSecurity) {
        self.lose_calls();
        self.connection = Some(Connection::new(now, security));
        self.unanswered_calls = 0;
        self.boot.connected(now, self.settings.boot_on_reconnect);
        self.send_due(now);
    }

    /// The CSMS sent a text.
    ///
    /// While [`wants_text`](Self::wants_text) says no there is no room for its consequences, and it is dropped.
    pub fn handle_text(&mut self, now: Instant, text: &str) {
        if !self.wants_text() {
            tracing::warn!(bytes = text.len(), "ocpp-text-dropped");
            return;
        }
        self.unanswered_calls = 0;
        match Frame::parse(text) {
            Ok(Frame::Call { id, action, payload }) => self.handle_call(id, &action, payload),
            Ok(Frame::CallResult { id, payload }) => self.handle_result(now, &id, payload),
            Ok(Frame::CallError { id, code, description }) => {
                self.handle_failure(now, &id, &Failure::Refused { code, description: &description });
            }
            Err(ParseError::Call { id, code, reason }) => self.answer(id, Answer::error(code, reason)),
            Err(ParseError::Answer { id, reason }) => {
                self.handle_failure(now, &id, &Failure::Unreadable(reason));
            }
            Err(ParseError::Unreadable(reason)) => {
                tracing::warn!(reason, bytes = text.len(), "ocpp-message-ignored");
            }
        }
        self.send_due(now);
    }

    /// Looks at a text only for whether it is the answer that [`is_owed_answer`](Self::is_owed_answer) waits for.
    pub(crate) fn settle(&mut self, text: &str) {
        if let Ok(Frame::CallResult { id, .. } | Frame::CallError { id, .. })
        | Err(ParseError::Answer { id, .. }) = Frame::parse(text)
            && let Some(connection) = &mut self.connection
        {
            connection.settle(&id);
        }
    }

    /// The connection is gone: answers that were due on it are dropped, and the embedder's CALLs are lost.
    pub fn handle_disconnected(&mut self, _now: Instant) {
        self.lose_calls();
        self.connection = None;
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_call(now);
        self.send_due(now);
    }

    /// Answers [`Event::ChangeConfiguration`].
    ///
    /// If the connection that brought the request is gone, or the CSMS has rejected us since, the answer is
    /// dropped.
    pub fn answer_change(&mut self, request: RequestId, status: ConfigurationStatus) {
        self.answer_asked(request, Asked::Change, Answer::of(&ChangeConfigurationResponse { status }));
    }

    /// Sets the value that GetConfiguration shows for a key, the standard's and read-only ones included.
    ///
    /// `None`, or more than 500 characters, leave the value out. Unknown keys, and values that a key of the
    /// standard can't have, are ignored with a warning. No event comes of it.
    pub fn set_value(&mut self, key: &str, value: Option<String>) {
        self.registry.put(key, value);
        for applied in [HEARTBEAT_INTERVAL, MESSAGE_TIMEOUT, WEB_SOCKET_PING_INTERVAL] {
            if applied.eq_ignore_ascii_case(key) {
                self.apply(applied);
            }
        }
    }

    /// Sets the ping interval unless the key `WebSocketPingInterval` has a value by now.
    pub(crate) fn offer_ping_interval(&mut self, interval: Duration) {
        if self.registry.value(WEB_SOCKET_PING_INTERVAL).is_none() {
            self.ping_interval = interval.min(MAX_INTERVAL);
            self.registry.put(WEB_SOCKET_PING_INTERVAL, Some(whole_seconds(self.ping_interval)));
        }
    }

    // --- outputs ---

    /// The next text to send.
    pub fn poll_transmit(&mut self) -> Option<String> {
        self.connection.as_mut()?.next_frame()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None`: not before something else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let connection = self.connection.as_ref()?;
        self.call_deadline().or_else(|| self.next_due(connection))
    }

    // --- getters ---

    /// Whether there is room for what another text may bring.
    pub fn wants_text(&self) -> bool {
        !self.is_embedder_busy()
            && !self.is_resetting()
            && self.connection.as_ref().is_some_and(Connection::has_room)
    }

    /// Whether the CSMS has a CALL of ours to answer, even one that was given up.
    pub(crate) fn is_owed_answer(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_owed_answer)
    }

    /// Whether it is the embedder that keeps us from taking texts: it has events to take, or changes to answer.
    pub fn is_embedder_busy(&self) -> bool {
        // One text brings two events at most, BootStatus and Clock, besides outcomes of the embedder's CALLs,
        // which have places of their own.
        self.events.len() - self.untaken_outcomes() + 2 > MAX_EVENTS
            || self.connection.as_ref().is_some_and(Connection::is_embedder_busy)
    }

    /// Whether [`poll_event`](Self::poll_event) has something.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// The CSMS's last answer to BootNotification; `None` before the first.
    pub fn boot_status(&self) -> Option<RegistrationStatus> {
        self.boot.status().cloned()
    }

    /// How many CALLs of ours in a row the CSMS has left unanswered, without a text of its own in between.
    pub fn unanswered_calls(&self) -> u32 {
        self.unanswered_calls
    }

    /// How often a silent CSMS is to be pinged; `None`: never.
    pub fn ping_interval(&self) -> Option<Duration> {
        Some(self.ping_interval).filter(|interval| !interval.is_zero())
    }

    /// How often a Heartbeat is sent.
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat_interval
    }

    // --- the CSMS's CALLs ---

    fn handle_call(&mut self, id: MessageId, action: &str, payload: &RawValue) {
        if self.boot.is_rejected() {
            tracing::debug!(action, "ocpp-call-ignored-while-rejected");
            return;
        }
        tracing::debug!(action, "ocpp-call");
        match dispatch::serve(self, &id, action, payload) {
            Ok(Some(answer)) => self.answer(id, answer),
            Ok(None) => {}
            Err(refusal) => self.answer(id, Answer::Error(refusal)),
        }
    }

    /// Keeps a request for the embedder. [`wants_text`](Self::wants_text) has kept a place for it.
    fn ask(&mut self, id: &MessageId, asked: Asked) -> Option<(RequestId, LinkSecurity)> {
        let connection = self.connection.as_mut()?;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        connection.keep(request, asked, id.clone());
        Some((request, connection.security))
    }

    /// The embedder's answer; dropped if nobody waits for it any more.
    fn answer_asked(&mut self, request: RequestId, asked: Asked, answer: Answer) {
        match self.connection.as_mut().and_then(|connection| connection.take_kept(request, asked)) {
            Some(id) => self.answer(id, answer),
            None => tracing::debug!("ocpp-answer-dropped"),
        }
    }

    fn answer(&mut self, id: MessageId, answer: Answer) {
        if self.boot.is_rejected() {
            return;
        }
        if let Some(connection) = &mut self.connection {
            connection.answer(id, answer);
        }
    }

    /// Nothing may be sent or opened from now on, not even what was asked for before.
    fn silence(&mut self) {
        self.events.retain(|event| !event.is_request());
        if let Some(connection) = &mut self.connection {
            connection.silence();
        }
    }

    // --- helpers ---

    /// Puts the value of a key of the standard into effect.
    fn apply(&mut self, key: &str) {
        let seconds = self.registry.value(key).and_then(|value| value.parse().ok()).map(Duration::from_secs);
        match key {
            HEARTBEAT_INTERVAL => self.heartbeat_interval = seconds.unwrap_or(self.heartbeat_interval),
            MESSAGE_TIMEOUT => self.call_timeout = seconds.unwrap_or(self.call_timeout),
            WEB_SOCKET_PING_INTERVAL => self.ping_interval = seconds.unwrap_or(self.ping_interval),
            _ => {}
        }
    }

    /// [`wants_text`](Self::wants_text) keeps room for every event that a text can bring.
    fn raise(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// A fresh UUID: never the same twice on a connection (OCPP-J 1.6 §4.1.4).
    fn new_id(&mut self) -> MessageId {
        MessageId::random(&mut self.rng)
    }
}

fn whole_seconds(interval: Duration) -> String {
    let seconds = interval.as_secs() + u64::from(interval.subsec_nanos() > 0);
    seconds.to_string()
}

#[cfg(test)]
mod tests;
