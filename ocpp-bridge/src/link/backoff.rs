//! How long to wait between connections (OCPP 2.0.1 part 4 §5.3; 1.6 has no numbers).

use std::time::Duration;

use crate::limits::{BACKOFF_DOUBLINGS, BACKOFF_MINIMUM, BACKOFF_RANDOM};

/// The waits between tries to connect: `minimum`, doubled with each try up to `doublings` times, and each
/// time a fresh random part on top, so that a thousand chargers don't come back in the same second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait, without its random part.
    pub minimum: Duration,
    /// The greatest random part.
    pub random: Duration,
    /// How often the wait is doubled; then it stays.
    pub doublings: u32,
}

// === impl Backoff ===

impl Backoff {
    /// The wait after so many failures in a row, the first being 0.
    pub fn delay(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = failures.min(self.doublings).min(31);
        self.minimum.saturating_mul(1 << doublings).saturating_add(self.random.mul_f64(rng.f64()))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { minimum: BACKOFF_MINIMUM, random: BACKOFF_RANDOM, doublings: BACKOFF_DOUBLINGS }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn doubles_five_times_and_then_stays_with_fresh_jitter() {
        let backoff = Backoff::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for (failures, base) in
            [(0, 10), (1, 20), (2, 40), (3, 80), (4, 160), (5, 320), (6, 320), (u32::MAX, 320)]
        {
            let delay = backoff.delay(failures, &mut rng);
            let base = Duration::from_secs(base);
            assert!((base..=base + Duration::from_secs(15)).contains(&delay), "{failures}: {delay:?}");
        }
        assert_ne!(backoff.delay(9, &mut rng), backoff.delay(9, &mut rng));
    }

    #[test]
    fn absurd_settings_do_not_overflow() {
        let backoff = Backoff { minimum: Duration::MAX, random: Duration::ZERO, doublings: u32::MAX };
        assert_eq!(backoff.delay(u32::MAX, &mut fastrand::Rng::with_seed(1)), Duration::MAX);
    }
}
