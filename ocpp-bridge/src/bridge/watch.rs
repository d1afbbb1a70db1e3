//! What the bridge has to know of the controller's own dialogue with its CSMS: whether it is idle, and registered.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::{
    RegistrationStatus,
    charge_point::{BootAnswer, heartbeat_time},
    frame::MessageId,
    limits::{CONTROLLER_CALL_TIMEOUT, MAX_WATCHED_CALLS},
};

/// The controller's CALLs that the CSMS has yet to answer, and what it said to BootNotification.
#[derive(Debug, Default)]
pub(super) struct Watch {
    calls: heapless::Vec<Watched, MAX_WATCHED_CALLS>,
    /// The CSMS's last answer. It outlives connections: a controller doesn't boot again after each.
    registration: Option<RegistrationStatus>,
    /// The CSMS has answered something else, or asked for something, on this connection: it wouldn't, if it hadn't
    /// accepted the controller earlier.
    spoken: bool,
}

#[derive(Debug)]
struct Watched {
    id: MessageId,
    kind: Kind,
    sent: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boot,
    Heartbeat,
    Other,
}

/// What an answer of the CSMS to the controller says that concerns us.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// The answer to BootNotification.
    Boot(BootAnswer),
    /// Its time.
    Time(DateTime<Utc>),
}

// === impl Watch ===

impl Watch {
    /// A connection has begun.
    pub(super) fn begin(&mut self) {
        self.calls.clear();
        self.spoken = false;
    }

    /// The controller has sent a CALL.
    pub(super) fn called(&mut self, now: Instant, id: MessageId, action: &str) {
        if self.calls.is_full() {
            // It sends without waiting for answers, and the oldest one is the least likely to get its own.
            self.calls.remove(0);
        }
        let kind = match action {
            "BootNotification" => Kind::Boot,
            "Heartbeat" => Kind::Heartbeat,
            _ => Kind::Other,
        };
        let _ = self.calls.push(Watched { id, kind, sent: now });
    }

    /// The CSMS has asked for something.
    pub(super) fn asked(&mut self) {
        self.spoken = true;
    }

    /// The CSMS has answered one of the controller's CALLs; without a payload, by a CALLERROR.
    pub(super) fn answered(&mut self, id: &MessageId, payload: Option<&RawValue>) -> Option<Heard> {
        let index = self.calls.iter().position(|call| call.id == *id)?;
        let call = self.calls.remove(index);
        self.spoken |= call.kind != Kind::Boot;
        match call.kind {
            Kind::Boot => {
                let answer = BootAnswer::parse(payload?).ok()?;
                self.registration = Some(answer.status.clone());
                Some(Heard::Boot(answer))
            }
            Kind::Heartbeat => heartbeat_time(payload?).map(Heard::Time),
            Kind::Other => None,
        }
    }

    /// Whether no CALL of the controller waits for its answer. One that has waited for very long never gets it.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.idle_at().is_none_or(|at| at <= now)
    }

    /// When the last of them has waited for too long, if nothing is answered.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.calls.iter().map(|call| call.sent + CONTROLLER_CALL_TIMEOUT).max()
    }

    /// Whether CALLs of our own may be sent (OCPP 1.6 §4.2).
    pub(super) fn may_call(&self) -> bool {
        let booting = self.calls.iter().any(|call| call.kind == Kind::Boot);
        match self.registration {
            _ if booting => false,
            Some(RegistrationStatus::Accepted) => true,
            Some(_) => false,
            None => self.spoken,
        }
    }

    /// Whether the CSMS has sent the controller away for now: nothing may be answered or opened.
    pub(super) fn is_rejected(&self) -> bool {
        self.registration == Some(RegistrationStatus::Rejected)
    }

    /// What the CSMS last said to BootNotification.
    pub(super) fn registration(&self) -> Option<&RegistrationStatus> {
        self.registration.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(text: &str) -> MessageId {
        MessageId::new(text).unwrap()
    }

    fn answer(watch: &mut Watch, name: &str, payload: &str) -> bool {
        watch.answered(&id(name), Some(serde_json::from_str(payload).unwrap())).is_some()
    }

    #[test]
    fn it_is_idle_while_nothing_waits_for_an_answer_or_has_waited_for_long() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        assert!(watch.is_idle(now));
        watch.called(now, id("1"), "Heartbeat");
        watch.called(now + Duration::from_secs(1), id("2"), "MeterValues");
        assert!(!watch.is_idle(now));
        answer(&mut watch, "2", "{}");
        assert!(!watch.is_idle(now));
        answer(&mut watch, "3", "{}");
        assert!(!watch.is_idle(now + CONTROLLER_CALL_TIMEOUT - Duration::from_millis(1)));
        assert!(watch.is_idle(now + CONTROLLER_CALL_TIMEOUT));
        answer(&mut watch, "1", "{}");
        assert!(watch.is_idle(now));
    }

    #[test]
    fn calls_of_ours_wait_for_an_accepted_boot() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        assert!(!watch.may_call());
        for (status, may) in [("Pending", false), ("Rejected", false), ("Accepted", true)] {
            watch.called(now, id("1"), "BootNotification");
            assert!(!watch.may_call(), "it isn't answered yet");
            assert!(answer(&mut watch, "1", &format!(r#"{{"status":"{status}","interval":300}}"#)));
            assert_eq!(watch.may_call(), may, "{status}");
            assert_eq!(watch.is_rejected(), status == "Rejected");
        }
        watch.begin();
        assert!(watch.may_call(), "it doesn't boot again after each connection");
    }

    #[test]
    fn a_controller_that_booted_before_us_is_registered_once_the_csms_speaks_to_it() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        watch.called(now, id("1"), "Heartbeat");
        assert!(!watch.may_call());
        assert!(answer(&mut watch, "1", r#"{"currentTime":"2026-11-22T00:00:00Z"}"#));
        assert!(watch.may_call());
        watch.begin();
        assert!(!watch.may_call());
        watch.asked();
        assert!(watch.may_call());
    }

    #[test]
    fn more_calls_than_it_watches_do_no_harm() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        for number in 0..10 * MAX_WATCHED_CALLS {
            watch.called(now, id(&number.to_string()), "MeterValues");
        }
        assert!(!watch.is_idle(now));
        assert!(watch.is_idle(now + CONTROLLER_CALL_TIMEOUT));
    }
}
