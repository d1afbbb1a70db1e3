//! How often the news that the network is back is passed on.
//!
//! Changes come in bursts (a link, then addresses, then routes), and a loose plug or a bad modem makes them for ever. So
//! the news waits a moment for what else comes, and is worth a token: a few may follow each other quickly, since DHCP and
//! IPv6 take their time, and after them there is one for each refill. Nothing is lost: news without a token waits for
//! one.

use std::time::Instant;

use crate::limits::{NETWORK_BURST, NETWORK_JITTER, NETWORK_REFILL, NETWORK_SETTLE};

/// A state machine without IO. After each input, ask [`Pacing::poll_timeout`] again.
#[derive(Debug)]
pub(super) struct Pacing {
    rng: fastrand::Rng,
    /// When to pass the news on.
    due: Option<Instant>,
    tokens: u32,
    /// When the next token comes, while some are missing.
    refill: Instant,
}

impl Pacing {
    pub(super) fn new(rng: fastrand::Rng, now: Instant) -> Self {
        Self { rng, due: None, tokens: NETWORK_BURST, refill: now }
    }

    /// When to call [`Self::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Something has appeared. What appears while the news waits is part of it.
    pub(super) fn handle_appeared(&mut self, now: Instant) {
        if self.due.is_some() {
            return;
        }
        self.refill(now);
        let settled = now + NETWORK_SETTLE + NETWORK_JITTER.mul_f64(self.rng.f64());
        self.due = Some(if self.tokens == 0 { settled.max(self.refill) } else { settled });
    }

    /// Is now the time to pass it on?
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.due = None;
        self.refill(now);
        if self.tokens == NETWORK_BURST {
            self.refill = now + NETWORK_REFILL;
        }
        self.tokens = self.tokens.saturating_sub(1);
        true
    }

    fn refill(&mut self, now: Instant) {
        while self.tokens < NETWORK_BURST && self.refill <= now {
            self.tokens += 1;
            self.refill += NETWORK_REFILL;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Feeds a change each `interval` for `length`, and gives when the news was passed on.
    fn told(interval: Duration, length: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut pacing = Pacing::new(fastrand::Rng::with_seed(3), start);
        let (mut now, mut told) = (start, Vec::new());
        let mut next = start;
        while now - start < length {
            now = pacing.poll_timeout().map_or(next, |due| due.min(next));
            if now == next {
                pacing.handle_appeared(now);
                next += interval;
            }
            if pacing.handle_timeout(now) {
                told.push(now - start);
            }
        }
        told
    }

    #[test]
    fn news_waits_a_moment_and_what_comes_meanwhile_is_part_of_it() {
        let start = Instant::now();
        let mut pacing = Pacing::new(fastrand::Rng::with_seed(3), start);
        assert_eq!(pacing.poll_timeout(), None, "nothing happened, nobody wakes up");
        pacing.handle_appeared(start);
        let due = pacing.poll_timeout().unwrap();
        assert!((NETWORK_SETTLE..=NETWORK_SETTLE + NETWORK_JITTER).contains(&(due - start)));
        pacing.handle_appeared(start + NETWORK_SETTLE / 2);
        assert_eq!(pacing.poll_timeout(), Some(due), "it is not put off for ever");
        assert!(!pacing.handle_timeout(start));
        assert!(pacing.handle_timeout(due));
        assert!(!pacing.handle_timeout(due));
        assert_eq!(pacing.poll_timeout(), None);
    }

    #[test]
    fn the_link_its_address_and_its_route_are_each_told_of_in_time() {
        let told = told(Duration::from_secs(3), Duration::from_secs(10));
        let late = told.iter().zip(0..).map(|(told, step)| *told - Duration::from_secs(3) * step);
        assert_eq!(late.filter(|late| *late <= NETWORK_SETTLE + NETWORK_JITTER).count(), 4, "{told:?}");
    }

    #[test]
    fn a_flapping_interface_makes_no_storm() {
        for interval in [Duration::from_millis(10), Duration::from_millis(1700), Duration::from_secs(10)] {
            let hour = Duration::from_secs(3600);
            let told = told(interval, hour);
            let most = NETWORK_BURST as usize + (hour.as_secs() / NETWORK_REFILL.as_secs()) as usize;
            assert!(told.len() <= most, "{} times in an hour, {most} are enough", told.len());
            assert!(told.len() >= most - 2, "{} times in an hour, the network may be back", told.len());
        }
    }

    #[test]
    fn the_last_news_is_told_even_without_a_token() {
        let start = Instant::now();
        let mut pacing = Pacing::new(fastrand::Rng::with_seed(3), start);
        for _ in 0..NETWORK_BURST {
            pacing.handle_appeared(start);
            assert!(pacing.handle_timeout(pacing.poll_timeout().unwrap()));
        }
        pacing.handle_appeared(start + NETWORK_SETTLE * 2);
        let due = pacing.poll_timeout().expect("it waits for a token");
        assert!(
            due > start + NETWORK_REFILL && due <= start + NETWORK_REFILL + NETWORK_SETTLE * 2,
            "{due:?}"
        );
        assert!(pacing.handle_timeout(due));
    }
}
