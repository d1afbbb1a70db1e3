//! What passes between a controller and its CSMS, what is ours, and what gets our keys in passing.
//!
//! A state machine without IO, like [`ChargePoint`](crate::ChargePoint), for OCPP 1.6J. Whoever relays shows it each
//! text and does what it says; whatever isn't ours passes byte for byte. It parses no more than a message's type, id
//! and action, and of two actions the keys.
//!
//! Our own CALLs share the one place for an outstanding CALL that the controller has (OCPP-J 1.6 §4.1.1): they wait
//! until it is idle, and a CALL that it makes meanwhile waits for the answer to ours, but not for long.

use std::{collections::VecDeque, time::Instant};

use rust_ocpp::v1_6::{messages::change_configuration::ChangeConfigurationResponse, types::KeyValue};
use serde_json::value::RawValue;

use super::{
    get_configuration::{self, Request},
    relay::Side,
    timing::RoundTrips,
    watch::{Heard, Watch},
};
use crate::{
    ConfigurationStatus, Event, RegistrationStatus,
    charge_point::{Answer, Call, CallId, ChangeConfiguration, Full, Outcome, RequestId},
    configuration::{Access, Change, RegisterError, Registry},
    frame::{Action, Frame, MessageId, ParseError, encode_call},
    limits::{
        CALL_TIMEOUT, HOLD_TIMEOUT, MAX_CALLS, MAX_EVENTS, MAX_GIVEN_UP, MAX_MERGES, MAX_OUTBOX,
        MAX_PENDING_ANSWERS,
    },
    security::LinkSecurity,
};

/// What is to be done with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pass {
    /// It goes to the other side as it is.
    Unchanged,
    /// This goes to the other side in its place.
    Changed(String),
    /// Nothing goes to the other side, or not yet.
    Nothing,
}

/// What stands between one controller and its CSMS.
///
/// After each call, ask [`poll_upstream`](Self::poll_upstream) and [`poll_event`](Self::poll_event) until they have
/// nothing left, and [`poll_timeout`](Self::poll_timeout) for when to come back.
#[derive(Debug)]
pub struct Filter {
    ours: Registry,
    rng: fastrand::Rng,
    watch: Watch,
    times: RoundTrips,
    /// `None` while there is no connection through us.
    session: Option<Session>,
    next_request: u64,
    events: VecDeque<Event>,
}

/// What lives no longer than one connection.
#[derive(Debug)]
struct Session {
    security: LinkSecurity,
    /// Requests for the controller's configuration whose answers get keys of ours; `None`: all of them.
    merges: heapless::Vec<(MessageId, Option<Vec<String>>), MAX_MERGES>,
    /// Requests that the embedder has yet to answer.
    pending: heapless::Vec<(RequestId, MessageId), MAX_PENDING_ANSWERS>,
    /// Texts for the CSMS that don't come from the controller, or come late.
    outbox: VecDeque<String>,
    calls: VecDeque<Call>,
    own: Option<Own>,
    /// Ids of CALLs of ours that were given up: an answer that comes late is none of the controller's.
    given_up: heapless::Vec<MessageId, MAX_GIVEN_UP>,
    held: Option<Held>,
    /// The embedder knows that CALLs may be made.
    told: bool,
}

/// Our outstanding CALL.
#[derive(Debug)]
struct Own {
    id: MessageId,
    call: CallId,
    deadline: Instant,
    /// The controller has waited for it long enough.
    overtaken: bool,
}

/// A CALL of the controller that waits for the answer to ours.
#[derive(Debug)]
struct Held {
    text: String,
    id: MessageId,
    action: Action,
    until: Instant,
}

// === impl Filter ===

impl Filter {
    /// A filter without keys of its own as yet. `rng` makes the ids of our CALLs.
    pub fn new(rng: fastrand::Rng) -> Self {
        Self {
            ours: Registry::without_standard(),
            rng,
            watch: Watch::default(),
            times: RoundTrips::default(),
            session: None,
            next_request: 0,
            events: VecDeque::new(),
        }
    }

    /// Adds a key that the CSMS finds at this controller.
    ///
    /// # Errors
    /// See [`Registry::register`].
    pub fn register(&mut self, name: &str, access: Access) -> Result<(), RegisterError> {
        self.ours.register(name, access)
    }

    // --- inputs ---

    /// Both sides are connected; `security` is that of the connection to the CSMS.
    pub fn begin(&mut self, now: Instant, security: LinkSecurity) {
        self.end();
        self.watch.begin();
        self.times.begin();
        self.session = Some(Session::new(security));
        self.send_due(now);
    }

    /// One side is gone, and so is the other. What waited for an answer gets none.
    pub fn end(&mut self) {
        self.lose_calls();
        self.session = None;
    }

    /// The CSMS has sent a text; [`wants_csms`](Self::wants_csms) said that there is room for it.
    pub fn from_csms(&mut self, now: Instant, text: &str) -> Pass {
        let pass = match Frame::parse(text) {
            Ok(Frame::Call { id, action, payload }) => {
                self.times.called(Side::Csms, now, &id);
                self.asked(text, id, &action, payload)
            }
            Ok(Frame::CallResult { id, payload }) => {
                self.times.answered(Side::Csms, now, &id);
                self.answered(&id, Some(payload), || Outcome::of_result(payload))
            }
            Ok(Frame::CallError { id, code, description }) => {
                self.times.answered(Side::Csms, now, &id);
                self.answered(&id, None, || Outcome::error(&code.to_string(), &description))
            }
            Err(ParseError::Answer { id, reason }) => {
                self.answered(&id, None, || Outcome::unreadable(reason))
            }
            Err(ParseError::Call { .. } | ParseError::Unreadable(_)) => Pass::Unchanged,
        };
        self.send_due(now);
        pass
    }

    /// The controller has sent a text; [`wants_controller`](Self::wants_controller) said that there is room for it.
    pub fn from_controller(&mut self, now: Instant, text: &str) -> Pass {
        let Some(session) = &mut self.session else { return Pass::Unchanged };
        match Frame::parse(text) {
            Ok(Frame::Call { id, action, .. }) => {
                if session.own.as_ref().is_some_and(|own| !own.overtaken) {
                    let until = now + HOLD_TIMEOUT;
                    session.held = Some(Held { text: text.to_owned(), id, action, until });
                    return Pass::Nothing;
                }
                self.times.called(Side::Controller, now, &id);
                self.watch.called(now, id, &action);
                Pass::Unchanged
            }
            Ok(Frame::CallResult { id, payload }) => {
                self.times.answered(Side::Controller, now, &id);
                let Some(added) = session.take_merge(&id) else { return Pass::Unchanged };
                let added = entries(&self.ours, added.as_deref().unwrap_or_default());
                get_configuration::answer(text, payload, &added, &self.ours)
                    .map_or(Pass::Unchanged, Pass::Changed)
            }
            Ok(Frame::CallError { id, .. }) | Err(ParseError::Answer { id, .. }) => {
                self.times.answered(Side::Controller, now, &id);
                session.take_merge(&id);
                Pass::Unchanged
            }
            Err(ParseError::Call { .. } | ParseError::Unreadable(_)) => Pass::Unchanged,
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            if session.own.as_ref().is_some_and(|own| own.deadline <= now)
                && let Some(id) = session.give_up()
            {
                self.events.push_back(Event::Called { id, outcome: Outcome::Unanswered });
            }
            if let (Some(own), Some(held)) = (&mut session.own, &session.held) {
                own.overtaken |= held.until <= now;
            }
        }
        self.send_due(now);
    }

    /// Answers [`Event::ChangeConfiguration`]. If the connection that brought the request is gone, or the CSMS has
    /// rejected the controller since, the answer is dropped.
    pub fn answer_change(&mut self, request: RequestId, status: ConfigurationStatus) {
        let rejected = self.watch.is_rejected();
        let Some(session) = &mut self.session else { return };
        let Some(id) = session.take_pending(request) else { return };
        if !rejected {
            session.answer(id, Answer::of(&ChangeConfigurationResponse { status }));
        }
    }

    /// Sets the value that GetConfiguration shows for a key of ours; see [`ChargePoint::set_value`](crate::ChargePoint::set_value).
    pub fn set_value(&mut self, key: &str, value: Option<String>) {
        self.ours.put(key, value);
    }

    /// Asks the CSMS something, as soon as the controller is idle; see [`ChargePoint::call`](crate::ChargePoint::call).
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn call(&mut self, now: Instant, call: Call) -> Result<(), Full> {
        let untaken = self.events.iter().filter(|event| matches!(event, Event::Called { .. })).count();
        if untaken + self.session.as_ref().map_or(0, Session::calls) >= MAX_CALLS {
            return Err(Full);
        }
        match &mut self.session {
            Some(session) if self.watch.may_call() => session.calls.push_back(call),
            _ => self.events.push_back(Event::Called { id: call.id, outcome: Outcome::Lost }),
        }
        self.send_due(now);
        Ok(())
    }

    // --- outputs ---

    /// The next text for the CSMS besides what passes.
    pub fn poll_upstream(&mut self) -> Option<String> {
        self.session.as_mut()?.outbox.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether [`poll_event`](Self::poll_event) has something.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None`: not before something else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let own = session.own.as_ref().map(|own| own.deadline);
        let held = session.held.as_ref().map(|held| held.until);
        let waits = !session.calls.is_empty() && session.own.is_none() && self.watch.may_call();
        let idle = waits.then(|| self.watch.idle_at()).flatten();
        [own, held, idle].into_iter().flatten().min()
    }

    /// Whether there is room for what another text of the CSMS may bring.
    pub fn wants_csms(&self) -> bool {
        // One text brings three events at most: BootStatus and Clock, or what may be called now, and an outcome, which
        // has its place.
        self.events.len() + 3 <= MAX_EVENTS + MAX_CALLS
            && self
                .session
                .as_ref()
                .is_some_and(|session| !session.pending.is_full() && session.outbox.len() < MAX_OUTBOX)
    }

    /// Whether there is room for another text of the controller.
    pub fn wants_controller(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.held.is_none() && session.outbox.len() < MAX_OUTBOX)
    }

    /// What the CSMS last answered to the controller's BootNotification. `Accepted` without one where it must have
    /// accepted the controller before we were there; `None` if neither is known.
    pub fn registration(&self) -> Option<RegistrationStatus> {
        let accepted = self.session.is_some() && self.watch.may_call();
        self.watch.registration().cloned().or(accepted.then_some(RegistrationStatus::Accepted))
    }

    /// Whether it has keys of its own to offer.
    pub(super) fn has_keys(&self) -> bool {
        !self.ours.is_empty()
    }

    /// How long the two sides took to answer.
    pub(super) fn round_trips(&self) -> &RoundTrips {
        &self.times
    }

    // --- the CSMS's CALLs ---

    fn asked(&mut self, text: &str, id: MessageId, action: &str, payload: &RawValue) -> Pass {
        self.watch.asked();
        let Some(session) = self.session.as_mut().filter(|_| !self.watch.is_rejected()) else {
            return Pass::Unchanged;
        };
        match action {
            "GetConfiguration" => match get_configuration::request(text, payload, &self.ours) {
                Request::NotOurs => Pass::Unchanged,
                Request::All => {
                    session.merge(id, None);
                    Pass::Unchanged
                }
                Request::Ours(keys) => {
                    session.answer(id, Answer::of(&self.ours.get(&keys)));
                    Pass::Nothing
                }
                Request::Mixed { text, ours } => {
                    session.merge(id, Some(ours));
                    Pass::Changed(text)
                }
            },
            "ChangeConfiguration" => self.change(id, payload),
            _ => Pass::Unchanged,
        }
    }

    fn change(&mut self, id: MessageId, payload: &RawValue) -> Pass {
        let (Ok(request), Some(session)) = (ChangeConfiguration::parse(payload), &mut self.session) else {
            return Pass::Unchanged;
        };
        let status = match self.ours.change(&request.key, &request.value) {
            Change::Unknown => return Pass::Unchanged,
            Change::Refused(reason) => {
                tracing::info!(key = &*request.key, reason, "ocpp-change-rejected");
                ConfigurationStatus::Rejected
            }
            Change::Unchanged | Change::Changed { .. } => ConfigurationStatus::Accepted,
            Change::Ask { name } => {
                let request_id = RequestId(self.next_request);
                self.next_request += 1;
                let _ = session.pending.push((request_id, id));
                self.events.push_back(Event::ChangeConfiguration {
                    request: request_id,
                    key: name,
                    value: request.value.into_owned(),
                    security: session.security,
                });
                return Pass::Nothing;
            }
        };
        session.answer(id, Answer::of(&ChangeConfigurationResponse { status }));
        Pass::Nothing
    }

    // --- answers of the CSMS ---

    fn lose_calls(&mut self) {
        let Some(session) = &mut self.session else { return };
        let own = session.give_up();
        let calls = own.into_iter().chain(session.calls.drain(..).map(|call| call.id));
        self.events.extend(calls.map(|id| Event::Called { id, outcome: Outcome::Lost }));
    }

    fn answered(
        &mut self,
        id: &MessageId,
        payload: Option<&RawValue>,
        outcome: impl FnOnce() -> Outcome,
    ) -> Pass {
        let Some(session) = &mut self.session else { return Pass::Unchanged };
        if let Some(own) = session.own.take_if(|own| own.id == *id) {
            self.events.push_back(Event::Called { id: own.call, outcome: outcome() });
            return Pass::Nothing;
        }
        if session.given_up.contains(id) {
            return Pass::Nothing;
        }
        match self.watch.answered(id, payload) {
            Some(Heard::Boot(answer)) => {
                let accepted = answer.status == RegistrationStatus::Accepted;
                if answer.status == RegistrationStatus::Rejected {
                    session.pending.clear();
                    self.events.retain(|event| !matches!(event, Event::ChangeConfiguration { .. }));
                }
                session.told = accepted;
                if !accepted {
                    self.lose_calls();
                }
                let retry_in = answer.interval.filter(|_| !accepted);
                self.events.push_back(Event::BootStatus { status: answer.status, retry_in });
                self.events.extend(answer.time.map(Event::Clock));
            }
            Some(Heard::Time(time)) => self.events.push_back(Event::Clock(time)),
            None => {}
        }
        Pass::Unchanged
    }

    // --- our CALLs ---

    /// Sends on what was held, and then a CALL of ours if it is time for one.
    fn send_due(&mut self, now: Instant) {
        let Some(session) = &mut self.session else { return };
        if session.own.as_ref().is_none_or(|own| own.overtaken)
            && let Some(held) = session.held.take()
        {
            self.times.called(Side::Controller, now, &held.id);
            self.watch.called(now, held.id, &held.action);
            session.outbox.push_back(held.text);
        }
        if !self.watch.may_call() {
            return;
        }
        if !std::mem::replace(&mut session.told, true) {
            let status = RegistrationStatus::Accepted;
            self.events.push_back(Event::BootStatus { status, retry_in: None });
        }
        if session.own.is_some() || !self.watch.is_idle(now) {
            return;
        }
        let Some(call) = session.calls.pop_front() else { return };
        let id = MessageId::random(&mut self.rng);
        self.times.called(Side::Controller, now, &id);
        session.outbox.push_back(encode_call(&id, call.action, &call.payload));
        let deadline = now + CALL_TIMEOUT;
        session.own = Some(Own { id, call: call.id, deadline, overtaken: false });
    }
}

/// Our keys as GetConfiguration shows them: all, or those that were named.
fn entries(ours: &Registry, named: &[String]) -> Vec<KeyValue> {
    ours.get(named).configuration_key.unwrap_or_default()
}

// === impl Session ===

impl Session {
    fn new(security: LinkSecurity) -> Self {
        Self {
            security,
            merges: heapless::Vec::new(),
            pending: heapless::Vec::new(),
            outbox: VecDeque::new(),
            calls: VecDeque::new(),
            own: None,
            given_up: heapless::Vec::new(),
            held: None,
            told: false,
        }
    }

    /// The answer to this request gets keys of ours. A controller that never answers lets the oldest go.
    fn merge(&mut self, id: MessageId, named: Option<Vec<String>>) {
        self.take_merge(&id);
        if self.merges.is_full() {
            self.merges.remove(0);
        }
        let _ = self.merges.push((id, named));
    }

    #[expect(clippy::option_option, reason = "whether there is one, and which keys it names, if any")]
    fn take_merge(&mut self, id: &MessageId) -> Option<Option<Vec<String>>> {
        let index = self.merges.iter().position(|(merge, _)| merge == id)?;
        Some(self.merges.remove(index).1)
    }

    fn take_pending(&mut self, request: RequestId) -> Option<MessageId> {
        let index = self.pending.iter().position(|(pending, _)| *pending == request)?;
        Some(self.pending.remove(index).1)
    }

    /// Our outstanding CALL, if there is one, is outstanding no more.
    fn give_up(&mut self) -> Option<CallId> {
        let own = self.own.take()?;
        if self.given_up.is_full() {
            self.given_up.remove(0);
        }
        let _ = self.given_up.push(own.id);
        Some(own.call)
    }

    fn answer(&mut self, id: MessageId, answer: Answer) {
        self.outbox.push_back(answer.encode(id));
    }

    /// How many CALLs of ours are waiting or unanswered.
    fn calls(&self) -> usize {
        self.calls.len() + usize::from(self.own.is_some())
    }
}

#[cfg(test)]
mod tests;
