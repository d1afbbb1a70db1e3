//! Registration with the CSMS (OCPP 1.6 §4.2): whether it is done, when BootNotification is due, and what
//! the answer to one says. CSMSs are loose with that answer, so it is read leniently.

use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDateTime, Utc};
use rust_ocpp::v1_6::messages::boot_notification::BootNotificationRequest;
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error},
};
use serde_json::value::RawValue;

use super::{BootInfo, payload};
use crate::{
    RegistrationStatus,
    frame::read_string,
    limits::{BOOT_RETRY_MAX, MAX_INTERVAL},
};

/// Where the registration stands. It outlives connections.
#[derive(Debug, Default)]
pub(super) struct Boot {
    /// The CSMS's last answer that counts.
    status: Option<RegistrationStatus>,
    /// When BootNotification is to be sent; `None` once accepted, and while one is under way.
    due: Option<Instant>,
    /// How many in a row had no proper answer.
    failures: u32,
}

/// The answer to a BootNotification.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: RegistrationStatus,
    /// The heartbeat interval or the wait; `None` leaves it to us.
    pub(crate) interval: Option<Duration>,
    /// The CSMS's time, if it can be read.
    pub(crate) time: Option<DateTime<Utc>>,
}

// === impl Boot ===

impl Boot {
    pub(super) fn status(&self) -> Option<&RegistrationStatus> {
        self.status.as_ref()
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.status == Some(RegistrationStatus::Accepted)
    }

    /// Nothing may be sent but the next BootNotification, and nothing answered.
    pub(super) fn is_rejected(&self) -> bool {
        self.status == Some(RegistrationStatus::Rejected)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A wait that the CSMS has asked for goes on through reconnects; otherwise BootNotification is due at
    /// once, unless it has been accepted and isn't wanted `again`.
    pub(super) fn connected(&mut self, now: Instant, again: bool) {
        match self.status {
            Some(RegistrationStatus::Accepted) if !again => {}
            Some(RegistrationStatus::Accepted) | None => {
                self.status = None;
                self.due = Some(now);
            }
            Some(_) => self.due = self.due.or(Some(now)),
        }
    }

    /// Nothing may be sent by ourselves, but what the CSMS triggers may.
    pub(super) fn is_pending(&self) -> bool {
        self.status == Some(RegistrationStatus::Pending)
    }

    /// The CSMS doesn't want to wait for the next try.
    pub(super) fn trigger(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// The registration begins anew, as after a start.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(super) fn sent(&mut self) {
        self.due = None;
    }

    /// The CSMS has decided. `wait` is what it asks for before the next try, if there is to be one.
    pub(super) fn answered(&mut self, now: Instant, status: RegistrationStatus, wait: Option<Duration>) {
        self.due = wait.map(|wait| now + wait);
        self.status = Some(status);
        self.failures = 0;
    }

    /// No answer, or none that says anything: the next try waits twice as long as the one before it.
    pub(super) fn failed(&mut self, now: Instant, first_wait: Duration, rng: &mut fastrand::Rng) -> Duration {
        let base = first_wait.saturating_mul(1 << self.failures.min(16)).min(BOOT_RETRY_MAX.max(first_wait));
        let wait = base + base.mul_f64(rng.f64() / 10.0);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + wait);
        wait
    }
}

// === impl Answer ===

impl Answer {
    /// Reads the payload of a CALLRESULT.
    ///
    /// # Errors
    /// Only if the status can't be read: it alone matters.
    pub(crate) fn parse(payload: &RawValue) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire<'a> {
            #[serde(borrow)]
            status: Option<&'a RawValue>,
            #[serde(borrow)]
            interval: Option<&'a RawValue>,
            #[serde(borrow)]
            current_time: Option<&'a RawValue>,
        }
        let wire: Wire<'_> = payload::object(payload).ok_or("the answer isn't an object")?;
        let status = wire.status.and_then(read_string).ok_or("the answer has no status")?;
        let status = RegistrationStatus::deserialize(IntoDeserializer::<Error>::into_deserializer(&*status))
            .map_err(|_| "the answer's status is none of Accepted, Pending and Rejected")?;
        let interval = wire.interval.and_then(seconds);
        Ok(Self {
            status,
            interval,
            time: wire.current_time.and_then(read_string).and_then(|text| time(&text)),
        })
    }
}

/// The time in a Heartbeat's answer, if there is one.
pub(crate) fn heartbeat_time(payload: &RawValue) -> Option<DateTime<Utc>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire<'a> {
        #[serde(borrow)]
        current_time: Option<&'a RawValue>,
    }
    time(&read_string(payload::object::<Wire<'_>>(payload)?.current_time?)?)
}

/// A positive number of seconds, written as `300`, `300.0` or `"300"`, rounded up and bounded.
fn seconds(element: &RawValue) -> Option<Duration> {
    let number: f64 = element.get().trim_matches('"').parse().ok()?;
    let seconds = number.ceil();
    if seconds >= 1.0 {
        Some(Duration::try_from_secs_f64(seconds).map_or(MAX_INTERVAL, |interval| interval.min(MAX_INTERVAL)))
    } else {
        None
    }
}

/// A time with a zone (`Z`, `+01:00`, `+0100`) or without one, which then means UTC.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .map(|time| time.to_utc())
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc()))
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map(|time| time.and_utc()))
        .ok()
}

/// What BootNotification says, cut to what the standard allows.
pub(crate) fn request(info: &BootInfo) -> BootNotificationRequest {
    let cut = |text: &str, characters: usize| text.chars().take(characters).collect::<String>();
    let cut_optional = |text: &Option<String>, characters| {
        text.as_deref().filter(|text| !text.is_empty()).map(|text| cut(text, characters))
    };
    BootNotificationRequest {
        charge_point_vendor: cut(&info.vendor, 20),
        charge_point_model: cut(&info.model, 20),
        charge_point_serial_number: cut_optional(&info.serial_number, 25),
        firmware_version: cut_optional(&info.firmware_version, 50),
        ..BootNotificationRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<Answer, &'static str> {
        Answer::parse(serde_json::from_str(text).unwrap())
    }

    fn interval(text: &str) -> Option<u64> {
        let text = format!(r#"{{"status":"Accepted","interval":{text}}}"#);
        answer(&text).unwrap().interval.map(|interval| interval.as_secs())
    }

    fn time(text: &str) -> Option<String> {
        let text = format!(r#"{{"status":"Accepted","currentTime":{text}}}"#);
        answer(&text).unwrap().time.map(|time| time.to_rfc3339())
    }

    #[test]
    fn intervals_of_all_kinds_are_read() {
        for text in ["300", "300.0", "3e2", "299.5", "\"300\""] {
            assert_eq!(interval(text), Some(300), "{text}");
        }
        for text in ["0", "-1", "-1.5", "null", "\"soon\"", "[300]", "{}", "true", "\"NaN\"", "\"-inf\""] {
            assert_eq!(interval(text), None, "{text}");
        }
        assert_eq!(interval("0.2"), Some(1));
        for text in ["99999999999999999999999", "1e999", "\"inf\""] {
            assert_eq!(interval(text), Some(MAX_INTERVAL.as_secs()), "{text}");
        }
    }

    #[test]
    fn times_of_all_kinds_are_read_and_bad_ones_do_not_matter() {
        for text in [
            "2026-11-21T10:00:00Z",
            "2026-11-21T10:00:00.000Z",
            "2026-11-21T11:00:00+01:00",
            "2026-11-21T11:00:00+0100",
            "2026-11-21T10:00:00",
            "2026-11-21 10:00:00.0",
        ] {
            assert_eq!(time(&format!("{text:?}")).as_deref(), Some("2026-11-21T10:00:00+00:00"), "{text}");
        }
        for text in ["null", "\"\"", "\"now\"", "1700000000", "{}", "\"2026-13-41T10:00:00Z\""] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_status_is_needed() {
        let pending = Answer { status: RegistrationStatus::Pending, interval: None, time: None };
        assert_eq!(answer(r#"{"status":"Pending","surplus":[[]]}"#), Ok(pending));
        for text in ["{}", "null", "[]", "[\"Accepted\"]", "7", r#"{"status":null}"#, r#"{"status":"Maybe"}"#]
        {
            assert!(answer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let info = BootInfo {
            vendor: "é".repeat(30),
            model: "m".to_owned(),
            serial_number: Some(String::new()),
            firmware_version: Some("f".repeat(60)),
        };
        let request = request(&info);
        assert_eq!(request.charge_point_vendor, "é".repeat(20));
        assert_eq!(request.charge_point_serial_number, None);
        assert_eq!(request.firmware_version, Some("f".repeat(50)));
    }
}
