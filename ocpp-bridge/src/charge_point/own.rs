//! Our own side of the dialogue: which CALL is made next, when, and what its answer means.
//!
//! One CALL at a time (OCPP-J 1.6 §4.1.1). The order: BootNotification; what the CSMS has triggered; after each
//! acceptance the status of every connector; Heartbeat; what the embedder asks for.

use std::time::Instant;

use rust_ocpp::v1_6::{
    messages::{heart_beat::HeartbeatRequest, status_notification::StatusNotificationRequest},
    types::{ChargePointErrorCode, ChargePointStatus},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Call, CallId, ChargePoint, Connection, Event, Outcome, boot, trigger::Triggered, whole_seconds};
use crate::{
    RegistrationStatus,
    configuration::HEARTBEAT_INTERVAL,
    frame::{ErrorCode, MessageId},
    limits::MAX_QUOTED_CHARS,
};

/// The CALLs that we make, as far as their answers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    BootNotification,
    Heartbeat,
    /// The status of this connector, after the CSMS has accepted us.
    Announcement {
        connector: u32,
    },
    /// Something that was triggered; its answer says nothing.
    Notification {
        action: &'static str,
    },
    /// One of the embedder's.
    Embedder(CallId),
}

/// What may be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    BootNotification,
    Triggered,
    Announcement { connector: u32 },
    Heartbeat,
    Embedder,
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
    fn agenda(&self, connection: &Connection) -> impl Iterator<Item = (Next, Instant)> + use<> {
        let accepted = self.boot.is_accepted();
        // Whatever is not for a time has been due since it was asked for.
        let at_once = |call| (call, connection.opened);
        let boot = self.boot.due().map(|due| (Next::BootNotification, due));
        let is_triggered = !connection.triggered.is_empty() && (accepted || self.boot.is_pending());
        let triggered = is_triggered.then(|| at_once(Next::Triggered));
        let announcement = self.unannounced.map(|connector| at_once(Next::Announcement { connector }));
        let heartbeat = (Next::Heartbeat, connection.last_heartbeat + self.heartbeat_interval);
        let embedders = connection.waiting.front().map(|_| at_once(Next::Embedder));
        let only_accepted = [announcement, Some(heartbeat), embedders].map(|call| call.filter(|_| accepted));
        [boot, triggered].into_iter().chain(only_accepted).flatten()
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
        let Some((next, _)) = self.agenda(connection).find(|(_, due)| *due <= now) else { return };
        let id = self.new_id();
        let Some(connection) = &mut self.connection else { return };
        let (own, action, payload) = match next {
            Next::BootNotification => {
                self.boot.sent();
                (Own::BootNotification, "BootNotification", raw(&boot::request(&self.settings.boot)))
            }
            Next::Triggered => match connection.next_triggered() {
                Some(Triggered::Heartbeat) => heartbeat(connection, now),
                Some(Triggered::Status { next: connector, .. }) => {
                    let action = "StatusNotification";
                    (Own::Notification { action }, action, status(connector))
                }
                Some(Triggered::Report(report)) => {
                    // It was there when it was triggered, and none is ever taken away.
                    let payload = self.reports.get(&report).cloned().unwrap_or_default();
                    (Own::Notification { action: report.action() }, report.action(), payload)
                }
                None => return,
            },
            Next::Announcement { connector } => {
                (Own::Announcement { connector }, "StatusNotification", status(connector))
            }
            Next::Heartbeat => heartbeat(connection, now),
            Next::Embedder => match connection.waiting.pop_front() {
                Some(Call { id, action, payload }) => (Own::Embedder(id), action, payload),
                None => return,
            },
        };
        connection.call(now, id, own, action, &payload);
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
            Some(Own::Announcement { connector }) => self.announced(connector),
            Some(Own::Notification { .. }) => {}
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
            Own::Heartbeat => log_failure("Heartbeat", failure),
            Own::Announcement { connector } => {
                log_failure("StatusNotification", failure);
                self.announced(connector);
            }
            Own::Notification { action } => log_failure(action, failure),
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
        if status == RegistrationStatus::Rejected {
            self.silence();
        }
        if let Some(interval) = interval.filter(|_| status == RegistrationStatus::Accepted) {
            self.heartbeat_interval = interval;
            self.registry.put(HEARTBEAT_INTERVAL, Some(whole_seconds(interval)));
        }
        if status == RegistrationStatus::Accepted {
            self.unannounced = Some(0);
        }
        self.raise(Event::BootStatus { status, retry_in });
        if let Some(time) = time {
            self.raise(Event::Clock(time));
        }
    }

    /// The CSMS knows the status of a connector, or doesn't want to.
    fn announced(&mut self, connector: u32) {
        if self.unannounced == Some(connector) {
            self.unannounced = Some(connector + 1).filter(|next| *next <= self.registry.connectors());
        }
    }

    /// When our outstanding CALL, if there is one, counts as unanswered.
    pub(super) fn call_deadline(&self) -> Option<Instant> {
        self.connection.as_ref()?.called_at().map(|at| at + self.call_timeout)
    }

    /// The time that the answer to our outstanding CALL has may have passed.
    pub(super) fn expire_call(&mut self, now: Instant) {
        if self.call_deadline().is_some_and(|deadline| deadline <= now)
            && let Some(call) = self.connection.as_mut().and_then(Connection::give_up)
        {
            // While the embedder keeps us from reading, the answer may be there.
            if !self.is_embedder_busy() {
                self.unanswered_calls = self.unanswered_calls.saturating_add(1);
            }
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

fn heartbeat(connection: &mut Connection, now: Instant) -> (Own, &'static str, Box<RawValue>) {
    connection.last_heartbeat = now;
    (Own::Heartbeat, "Heartbeat", raw(&HeartbeatRequest {}))
}

/// StatusNotification (OCPP 1.6 §4.9). Connector 0, the agent itself, is there whenever it can say so. Connectors that
/// the configuration declares aren't served by it: nothing can be started there, so they are `Unavailable`. Without a
/// timestamp the CSMS takes the time of receipt, which is right, and the clock here may not be.
fn status(connector: u32) -> Box<RawValue> {
    raw(&StatusNotificationRequest {
        connector_id: connector,
        error_code: ChargePointErrorCode::NoError,
        status: match connector {
            0 => ChargePointStatus::Available,
            _ => ChargePointStatus::Unavailable,
        },
        ..StatusNotificationRequest::default()
    })
}

fn log_failure(action: &str, failure: &Failure<'_>) {
    tracing::warn!(action, reason = failure.reason(), "ocpp-call-failed");
}

/// The payload of a CALL of ours. Our types can always be written; if one couldn't, the CSMS would refuse
/// the empty payload, and the CALL count as failed.
fn raw(payload: &impl Serialize) -> Box<RawValue> {
    to_raw_value(payload).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
