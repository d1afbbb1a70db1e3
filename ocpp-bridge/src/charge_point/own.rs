//! Our own side of the dialogue: which CALL is made next, when, and what its answer means.
//!
//! One CALL at a time (OCPP-J 1.6 §4.1.1): BootNotification first, then Heartbeat, then what the embedder asks for.

use std::time::Instant;

use rust_ocpp::v1_6::messages::heart_beat::HeartbeatRequest;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{CallId, ChargePoint, Connection, Event, Outcome, boot, whole_seconds};
use crate::{
    RegistrationStatus,
    configuration::HEARTBEAT_INTERVAL,
    frame::{ErrorCode, MessageId},
    limits::MAX_QUOTED_CHARS,
};

/// The CALLs that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    BootNotification,
    Heartbeat,
    /// One of the embedder's.
    Embedder(CallId),
}

/// Why a CALL of ours has failed.
pub(super) enum Failure<'a> {
    /// The CSMS answered CALLERROR.
    Refused { code: ErrorCode, description: &'a str },
    /// Its answer makes no sense; why.
    Unreadable(&'static str),
    /// It didn't answer in time.
    Unanswered,
}

impl ChargePoint {
    /// The CALLs to be made and when, the more urgent first. Of those that are due the first is made.
    fn agenda(&self, connection: &Connection) -> impl Iterator<Item = (Own, Instant)> + use<> {
        let boot = self.boot.due().map(|due| (Own::BootNotification, due));
        let heartbeat = (Own::Heartbeat, connection.last_heartbeat + self.heartbeat_interval);
        let heartbeat = Some(heartbeat).filter(|_| self.boot.is_accepted());
        // Those have been due since they were asked for.
        let embedders = connection.waiting.front().map(|call| (Own::Embedder(call.id), connection.opened));
        [boot, heartbeat, embedders].into_iter().flatten()
    }

    /// When the next CALL is to be made, if none is outstanding.
    pub(super) fn next_due(&self, connection: &Connection) -> Option<Instant> {
        self.agenda(connection).map(|(_, due)| due).min()
    }

    /// Makes the next CALL if one is due and none is outstanding.
    pub(super) fn send_due(&mut self, now: Instant) {
        let Some(connection) = self.connection.as_ref().filter(|connection| !connection.is_calling()) else {
            return;
        };
        let Some((call, _)) = self.agenda(connection).find(|(_, due)| *due <= now) else { return };
        let id = self.new_id();
        let Some(connection) = &mut self.connection else { return };
        let (action, payload) = match call {
            Own::BootNotification => {
                self.boot.sent();
                ("BootNotification", raw(&boot::request(&self.settings.boot)))
            }
            Own::Heartbeat => {
                connection.last_heartbeat = now;
                ("Heartbeat", raw(&HeartbeatRequest {}))
            }
            Own::Embedder(_) => match connection.waiting.pop_front() {
                Some(call) => (call.action, call.payload),
                None => return,
            },
        };
        connection.call(now, id, call, action, &payload);
    }

    pub(super) fn handle_result(&mut self, now: Instant, id: &MessageId, payload: &RawValue) {
        match self.connection.as_mut().and_then(|connection| connection.take_answered(id)) {
            Some(Own::BootNotification) => match boot::Answer::parse(payload) {
                Ok(answer) => self.handle_boot(now, answer),
                Err(reason) => self.call_failed(now, Own::BootNotification, &Failure::Unreadable(reason)),
            },
            Some(Own::Heartbeat) => {
                if let Some(time) = boot::heartbeat_time(payload) {
                    self.raise(Event::Clock(time));
                }
            }
            Some(Own::Embedder(id)) => self.called(id, Outcome::of_result(payload)),
            None => tracing::debug!(?id, "ocpp-answer-unexpected"),
        }
    }

    pub(super) fn handle_failure(&mut self, now: Instant, id: &MessageId, failure: &Failure<'_>) {
        match self.connection.as_mut().and_then(|connection| connection.take_answered(id)) {
            Some(call) => self.call_failed(now, call, failure),
            None => tracing::debug!(?id, "ocpp-answer-unexpected"),
        }
    }

    pub(super) fn call_failed(&mut self, now: Instant, call: Own, failure: &Failure<'_>) {
        match call {
            Own::BootNotification => {
                let wait = self.boot.failed(now, self.settings.boot_retry, &mut self.rng);
                let (reason, retry_in) = (failure.reason(), wait.as_secs());
                tracing::warn!(reason, retry_in, "ocpp-boot-unanswered");
            }
            Own::Heartbeat => {
                tracing::warn!(action = "Heartbeat", reason = failure.reason(), "ocpp-call-failed");
            }
            Own::Embedder(id) => self.called(id, failure.outcome()),
        }
    }

    /// OCPP 1.6 §4.2.
    fn handle_boot(&mut self, now: Instant, answer: boot::Answer) {
        let boot::Answer { status, interval, time } = answer;
        let retry_in = match status {
            RegistrationStatus::Accepted => None,
            RegistrationStatus::Pending | RegistrationStatus::Rejected => {
                Some(interval.unwrap_or(self.settings.boot_retry))
            }
        };
        tracing::info!(?status, interval = interval.map(|interval| interval.as_secs()), "ocpp-boot");
        self.boot.answered(now, status.clone(), retry_in);
        if let Some(connection) = &mut self.connection {
            connection.last_heartbeat = now;
        }
        if status != RegistrationStatus::Accepted {
            self.lose_calls();
        }
        if status == RegistrationStatus::Rejected {
            self.silence();
        }
        if let Some(interval) = interval.filter(|_| status == RegistrationStatus::Accepted) {
            self.heartbeat_interval = interval;
            self.registry.put(HEARTBEAT_INTERVAL, Some(whole_seconds(interval)));
        }
        self.raise(Event::BootStatus { status, retry_in });
        if let Some(time) = time {
            self.raise(Event::Clock(time));
        }
    }

    /// When our outstanding CALL, if there is one, counts as unanswered.
    pub(super) fn call_deadline(&self) -> Option<Instant> {
        self.connection.as_ref()?.called_at().map(|at| at + self.call_timeout)
    }

    /// The time that the answer to our outstanding CALL has may have passed.
    pub(super) fn expire_call(&mut self, now: Instant) {
        if self.call_deadline().is_some_and(|deadline| deadline <= now)
            && let Some(call) = self.connection.as_mut().and_then(Connection::take_expired)
        {
            self.call_failed(now, call, &Failure::Unanswered);
        }
    }
}

impl Failure<'_> {
    fn reason(&self) -> String {
        match self {
            Self::Refused { code, description } => {
                let description: String = description.chars().take(MAX_QUOTED_CHARS).collect();
                format!("the CSMS answered {code}: {description:?}")
            }
            Self::Unreadable(reason) => (*reason).to_owned(),
            Self::Unanswered => "the CSMS didn't answer in time".to_owned(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Refused { code, description } => Outcome::error(code.as_wire(), description),
            Self::Unreadable(reason) => Outcome::unreadable(reason),
            Self::Unanswered => Outcome::Unanswered,
        }
    }
}

/// The payload of a CALL of ours. Our types can always be written; if one couldn't, the CSMS would refuse
/// the empty payload, and the CALL count as failed.
fn raw(payload: &impl Serialize) -> Box<RawValue> {
    to_raw_value(payload).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
