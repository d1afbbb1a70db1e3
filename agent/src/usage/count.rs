//! One month's count: when it ends, without IO and without a clock of its own.
//!
//! The wall clock may be unset, jump decades ahead, or be set back; somebody may even move it on purpose to get
//! another month's bytes. So a count begins anew
//!
//! - when a clock that is set shows a *later* month than the count's, but not before the device has been on for
//!   [`MONTH_LEAST`] since the count began;
//! - whatever the clock shows, when the device has been on for [`MONTH_MOST`] since the count began.
//!
//! How long the device was on is measured by the monotonic clock, which nobody can move. So a clock that is moved
//! gives a cap's worth of bytes in any fourteen days at most, one that goes back or is lost gives nothing, and one
//! that was decades ahead for a while is forgotten after a month.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::limits::{MONTH_LEAST, MONTH_MOST};

/// A calendar month in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: i32,
    /// 1 to 12.
    month: u32,
}

/// What the clocks show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock's month, if it has been set.
    pub month: Option<Month>,
    /// How long the device has been on.
    pub uptime: Duration,
    /// What distinguishes this boot from every other.
    pub boot_id: Option<String>,
}

/// The bytes of a month.
#[derive(Debug, PartialEq, Eq)]
pub struct Count {
    bytes: u64,
    /// None until the clock has been set.
    month: Option<Month>,
    /// How long the device has been on since the count began.
    age: Duration,
    seen: Now,
}

/// A count as the file holds it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Record {
    month: Option<String>,
    bytes: u64,
    age_seconds: u64,
    boot_id: Option<String>,
    uptime_seconds: u64,
}

impl Count {
    /// A count that begins now.
    #[must_use]
    pub fn new(now: &Now) -> Self {
        Self { bytes: 0, month: now.month, age: Duration::ZERO, seen: now.clone() }
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Which month's; none until the clock has been set.
    #[must_use]
    pub fn month(&self) -> Option<Month> {
        self.month
    }

    /// Adds what has passed since the last look; true if a new count has begun with this look. What has passed belongs
    /// to the old one then.
    pub fn look(&mut self, now: &Now, passed: u64) -> bool {
        self.bytes = self.bytes.saturating_add(passed);
        self.age = self.age.saturating_add(now.on_since(&self.seen));
        self.seen = now.clone();
        let later = matches!((now.month, self.month), (Some(now), Some(counted)) if now > counted);
        if self.age >= MONTH_MOST || (later && self.age >= MONTH_LEAST) {
            *self = Self::new(now);
            return true;
        }
        self.month = self.month.or(now.month);
        false
    }

    pub(super) fn record(&self) -> Record {
        Record {
            month: self.month.map(|month| month.to_string()),
            bytes: self.bytes,
            age_seconds: self.age.as_secs(),
            boot_id: self.seen.boot_id.clone(),
            uptime_seconds: self.seen.uptime.as_secs(),
        }
    }

    /// `None` for a record that no count has.
    pub(super) fn from_record(record: Record) -> Option<Self> {
        let month = record.month.map(|text| text.parse()).transpose().ok()?;
        let uptime = Duration::from_secs(record.uptime_seconds);
        // What `look` needs to tell how long the device was on since.
        let seen = Now { month, uptime, boot_id: record.boot_id };
        Some(Self { bytes: record.bytes, month, age: Duration::from_secs(record.age_seconds), seen })
    }
}

impl Now {
    /// What the clocks show now.
    #[must_use]
    pub fn read() -> Self {
        Self { month: clock::month(), uptime: clock::uptime(), boot_id: clock::boot_id() }
    }

    /// How long the device has certainly been on since then: what it was before it was restarted isn't known.
    fn on_since(&self, before: &Self) -> Duration {
        match (&self.boot_id, &before.boot_id) {
            (Some(now), Some(before)) if now != before => self.uptime,
            _ => self.uptime.saturating_sub(before.uptime),
        }
    }
}

impl Month {
    /// `None` if there is no such month.
    #[must_use]
    pub fn new(year: i32, month: u32) -> Option<Self> {
        ((1970..=9999).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (year, month) = text.split_once('-').ok_or(())?;
        Self::new(year.parse().map_err(|_| ())?, month.parse().map_err(|_| ())?).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    /// A device's clocks.
    struct Clocks {
        now: Now,
    }

    impl Clocks {
        fn new(month: &str) -> Self {
            Self { now: Now { month: month.parse().ok(), uptime: Duration::ZERO, boot_id: Some("a".into()) } }
        }

        fn days(&mut self, days: u64) -> &mut Self {
            self.now.uptime += Duration::from_secs(days * DAY);
            self
        }

        /// What is no month is a clock that isn't set.
        fn show(&mut self, month: &str) -> &Now {
            self.now.month = month.parse().ok();
            &self.now
        }

        fn reboot(&mut self, id: &str) -> &mut Self {
            self.now.uptime = Duration::from_secs(60);
            self.now.boot_id = Some(id.into());
            self
        }
    }

    /// As after a restart of the agent.
    fn restarted(count: &Count) -> Count {
        let text = serde_json::to_string(&count.record()).unwrap();
        Count::from_record(serde_json::from_str(&text).unwrap()).unwrap()
    }

    fn month(text: &str) -> Option<Month> {
        text.parse().ok()
    }

    #[test]
    fn a_new_month_begins_a_new_count() {
        let mut clocks = Clocks::new("2026-11");
        let mut count = Count::new(&clocks.now);
        assert!(!count.look(clocks.days(15).show("2026-11"), 5));
        assert!(!count.look(clocks.days(14).show("2026-11"), 6));
        assert_eq!((count.bytes(), count.month()), (11, month("2026-11")));
        assert!(count.look(clocks.days(1).show("2026-12"), 7), "what has passed until now is November's");
        assert_eq!((count.bytes(), count.month()), (0, month("2026-12")));
    }

    #[test]
    fn a_clock_that_runs_ahead_gives_nothing_for_a_fortnight() {
        let mut clocks = Clocks::new("2026-11");
        let mut count = Count::new(&clocks.now);
        count.look(&clocks.now, 5);
        for year in 2027..2060 {
            assert!(!count.look(clocks.show(&format!("{year}-01")), 0), "{year}");
        }
        assert!(!count.look(clocks.days(13).show("2050-01"), 0));
        assert!(count.look(clocks.days(1).show("2050-01"), 0), "it may be true after all");
        // And when it was not, the month goes on by the days.
        count.look(clocks.show("2026-12"), 5);
        assert!(!count.look(clocks.days(31).show("2027-01"), 0));
        assert!(count.look(clocks.days(1).show("2027-01"), 0));
        assert_eq!((count.bytes(), count.month()), (0, month("2027-01")));
    }

    #[test]
    fn a_clock_that_goes_back_or_is_lost_gives_nothing() {
        let mut clocks = Clocks::new("2026-11");
        let mut count = Count::new(&clocks.now);
        count.look(&clocks.now, 5);
        for shown in ["2026-10", "never", "2026-01", "2026-11"] {
            assert!(!count.look(clocks.days(6).show(shown), 0), "{shown}");
            assert_eq!((count.bytes(), count.month()), (5, month("2026-11")));
        }
        assert!(count.look(clocks.days(1).show("2026-12"), 0));
    }

    #[test]
    fn without_a_clock_a_month_is_thirty_two_days() {
        let mut clocks = Clocks::new("never");
        let mut count = Count::new(&clocks.now);
        assert!(!count.look(clocks.days(31).show("never"), 5));
        assert_eq!((count.bytes(), count.month()), (5, None));
        assert!(count.look(clocks.days(1).show("never"), 0));
    }

    #[test]
    fn a_clock_that_is_set_at_last_names_the_month_and_keeps_the_count() {
        let mut clocks = Clocks::new("never");
        let mut count = Count::new(&clocks.now);
        count.look(clocks.days(20).show("never"), 5);
        assert!(!count.look(clocks.show("2026-11"), 0));
        assert_eq!((count.bytes(), count.month()), (5, month("2026-11")));
        assert!(count.look(clocks.days(1).show("2026-12"), 0));
    }

    #[test]
    fn the_days_are_counted_over_restarts_and_reboots() {
        let mut clocks = Clocks::new("2026-11");
        let mut count = Count::new(&clocks.now);
        count.look(clocks.days(4).show("2026-11"), 5);
        count = restarted(&count);
        assert!(
            !count.look(clocks.days(6).show("2026-12"), 0),
            "ten days, the agent was off for six of them"
        );
        count = restarted(&count);
        clocks.reboot("b").days(3);
        assert!(!count.look(clocks.show("2026-12"), 0), "thirteen, three of them in the next boot");
        assert_eq!(count.bytes(), 5);
        assert!(count.look(clocks.days(1).show("2026-12"), 0));
    }

    #[test]
    fn an_agent_that_is_restarted_again_and_again_gains_no_days() {
        for id in [Some("a".to_owned()), None] {
            let mut clocks = Clocks::new("2026-11");
            clocks.now.boot_id = id;
            clocks.days(10);
            let mut count = Count::new(&clocks.now);
            for _ in 0..10 {
                count = restarted(&count);
                assert!(!count.look(clocks.show("2026-12"), 1));
            }
            assert_eq!(count.bytes(), 10);
        }
    }

    #[test]
    fn months_that_there_are_not_are_refused() {
        for text in ["", "2026", "2026-13", "2026-00", "1969-12", "99999-01", "x-1", "2026-1-1"] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
        assert_eq!(month("2026-02").map(|month| month.to_string()).as_deref(), Some("2026-02"));
    }
}
