//! What one event may take of the log. Whoever makes the agent say something, such as a CSMS that sends nonsense, could
//! otherwise push all else out of the lines in memory, which diagnostics are made of, and fill syslog and the collector.
//!
//! So each place in the code that logs has a token bucket; what finds it empty is counted, and the count is told. Whoever
//! asks for `debug` wants everything, so that is not bound.

use std::collections::HashMap;
use std::time::Instant;

use tracing::Level;
use tracing::callsite::Identifier;

use crate::limits::{LOG_BURST, LOG_LEFT_OUT_INTERVAL, LOG_REFILL};

/// The buckets. It decides without a clock of its own.
#[derive(Debug, Default)]
pub(super) struct Flood {
    buckets: HashMap<Identifier, Bucket>,
    /// Since when something has been left out that nobody was told of.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
    /// The event's name, and how many of its lines were left out.
    left_out: Option<(String, u64)>,
}

impl Flood {
    /// May this event have a line? `name` is its name.
    pub(super) fn admit(&mut self, place: Identifier, level: Level, name: &str, now: Instant) -> bool {
        if level > Level::INFO {
            return true;
        }
        let full = Bucket { tokens: LOG_BURST, refilled: now, left_out: None };
        let bucket = self.buckets.entry(place).or_insert(full);
        bucket.refill(now);
        if let Some(left) = bucket.tokens.checked_sub(1) {
            bucket.tokens = left;
            return true;
        }
        bucket.left_out.get_or_insert_with(|| (name.to_owned(), 0)).1 += 1;
        self.since.get_or_insert(now);
        false
    }

    /// What to tell of before the next line: names, and how many of their lines were left out. Empty most of the time.
    pub(super) fn left_out(&mut self, now: Instant) -> Vec<(String, u64)> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) < LOG_LEFT_OUT_INTERVAL) {
            return Vec::new();
        }
        self.since = None;
        self.buckets.values_mut().filter_map(|bucket| bucket.left_out.take()).collect()
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_secs() / LOG_REFILL.as_secs();
        let new = u32::try_from(passed).unwrap_or(u32::MAX);
        if new == 0 {
            return;
        }
        self.tokens = self.tokens.saturating_add(new).min(LOG_BURST);
        self.refilled = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::Callsite;
    use tracing::field::FieldSet;
    use tracing::metadata::Kind;
    use tracing::subscriber::Interest;

    use super::*;

    /// A place in the code, of which only the address matters.
    struct Place(tracing::Metadata<'static>);

    impl Callsite for Place {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &tracing::Metadata<'_> {
            &self.0
        }
    }

    macro_rules! place {
        () => {{
            static PLACE: Place = Place(tracing::Metadata::new(
                "",
                "",
                Level::WARN,
                None,
                None,
                None,
                FieldSet::new(&[], Identifier(&PLACE)),
                Kind::EVENT,
            ));
            Identifier(&PLACE)
        }};
    }

    #[test]
    fn a_flood_is_counted_and_nothing_else_suffers() {
        let (mut flood, start) = (Flood::default(), Instant::now());
        let (noisy, other) = (place!(), place!());
        let admitted = |flood: &mut Flood, times: u32, now| {
            (0..times).map(|_| u32::from(flood.admit(noisy.clone(), Level::WARN, "noise", now))).sum::<u32>()
        };
        assert_eq!(admitted(&mut flood, 1000, start), LOG_BURST);
        assert!(flood.admit(other, Level::ERROR, "news", start), "another event");
        assert!(flood.admit(noisy.clone(), Level::DEBUG, "noise", start), "whoever asked for it gets it");
        assert_eq!(flood.left_out(start), [], "not for each of them");
        let later = start + LOG_LEFT_OUT_INTERVAL;
        assert_eq!(flood.left_out(later), [("noise".to_owned(), u64::from(1000 - LOG_BURST))]);
        assert_eq!(flood.left_out(later + LOG_LEFT_OUT_INTERVAL), [], "told once");

        let refilled = u32::try_from(LOG_LEFT_OUT_INTERVAL.as_secs() / LOG_REFILL.as_secs()).unwrap();
        assert_eq!(admitted(&mut flood, 1000, later), refilled);
        assert_eq!(admitted(&mut flood, 1000, later + Duration::from_secs(24 * 3600)), LOG_BURST);
    }
}
