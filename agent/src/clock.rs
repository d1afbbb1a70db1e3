//! Two clocks: the monotonic one that limits run on, and the wall clock that people read, which may be decades off.

use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use nix::time::{ClockId, clock_gettime};

/// No release of this program is older than this, so a wall clock before it was never set: 2026-01-01.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// Has the wall clock been set?
#[must_use]
pub fn is_set() -> bool {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since >= EARLIEST)
}

/// A moment as RFC 3339 in UTC with seconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A monotonic moment on the wall clock as it stands now, so that a later correction of the clock corrects it too.
#[must_use]
pub fn wall(moment: Instant) -> SystemTime {
    let (now, wall_now) = (Instant::now(), SystemTime::now());
    match moment.checked_duration_since(now) {
        Some(ahead) => wall_now + ahead,
        None => wall_now - now.duration_since(moment),
    }
}

/// A monotonic moment in milliseconds since the system started: it means the same to the next process.
#[must_use]
pub fn since_boot(moment: Instant) -> u64 {
    let (now, uptime) = (Instant::now(), uptime());
    let at = match moment.checked_duration_since(now) {
        Some(ahead) => uptime.saturating_add(ahead),
        None => uptime.saturating_sub(now.duration_since(moment)),
    };
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

/// The reverse of [`since_boot`]; `None` for a moment that has passed.
#[must_use]
pub fn from_since_boot(milliseconds: u64) -> Option<Instant> {
    let ahead = Duration::from_millis(milliseconds).checked_sub(uptime())?;
    Instant::now().checked_add(ahead)
}

/// What distinguishes this boot from every other; `None` where the kernel doesn't tell.
#[must_use]
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// The clock that `Instant` runs on.
fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_the_way_through_a_file() {
        let moment = Instant::now() + Duration::from_secs(3600);
        let restored = from_since_boot(since_boot(moment)).unwrap();
        let off = restored.max(moment) - restored.min(moment);
        assert!(off < Duration::from_millis(100), "{off:?}");
        assert_eq!(from_since_boot(since_boot(Instant::now()).saturating_sub(5000)), None);
    }

    #[test]
    fn rfc3339_is_utc_in_seconds() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + EARLIEST), "2026-01-01T00:00:00Z");
        assert!(is_set());
    }
}
