//! Two clocks: the monotonic one that limits run on, and the wall clock that people read, which may be decades off.
//!
//! The standard library's `SystemTime::now` panics on 32-bit musl once the clock is past 2038, which a controller's
//! clock may be on any day. The kernel's 64-bit call doesn't.
//!
//! While the system's clock isn't set, the CSMS's time stands in for it in whatever people read, and nowhere else: whether
//! a certificate is valid, and when a month ends, is never decided by what a peer says.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Datelike, Local, SecondsFormat, Utc};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::usage::count::Month;

/// A wall clock before this was never set: when the program was built, if the build was told so, as `cross/build` does
/// with the time of the commit (<https://reproducible-builds.org/specs/source-date-epoch/>), and 2026-01-01 otherwise, which no release is older than.
pub const EARLIEST: Duration = Duration::from_secs(earliest(option_env!("SOURCE_DATE_EPOCH")));

const FIRST_RELEASE: u64 = 1_767_225_600;

/// What isn't a number, or older, counts as the first release.
const fn earliest(epoch: Option<&str>) -> u64 {
    let Some(epoch) = epoch else { return FIRST_RELEASE };
    match u64::from_str_radix(epoch, 10) {
        Ok(seconds) if seconds > FIRST_RELEASE && seconds < END_OF_TIMES => seconds,
        _ => FIRST_RELEASE,
    }
}

/// The year 2200: a build that says it is from after that has mistaken the unit.
const END_OF_TIMES: u64 = 7_258_118_400;

/// The year 10000, which RFC 3339 can't write.
const END_OF_YEARS: Duration = Duration::from_secs(253_402_300_800);

/// The first second that 32-bit time doesn't have.
const END_OF_32_BITS: Duration = Duration::from_secs(1 << 31);

/// The CSMS's time, and [`uptime`] when it came.
static TOLD: Mutex<Option<Told>> = Mutex::new(None);

#[derive(Debug, Clone, Copy)]
struct Told {
    uptime: Duration,
    since_epoch: Duration,
}

/// The CSMS tells the time. Nonsense is ignored.
pub fn told(time: DateTime<Utc>) {
    let Ok(since_epoch) = SystemTime::from(time).duration_since(SystemTime::UNIX_EPOCH) else { return };
    if (EARLIEST..END_OF_YEARS).contains(&since_epoch) {
        let told = Told { uptime: uptime(), since_epoch };
        *TOLD.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }
}

/// The time for people: the wall clock, or while that isn't set the CSMS's time, if it has told one.
#[must_use]
pub fn for_records() -> SystemTime {
    let told = *TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    SystemTime::UNIX_EPOCH + best(since_epoch(), told, uptime())
}

fn best(system: Duration, told: Option<Told>, uptime: Duration) -> Duration {
    match told {
        Some(told) if system < EARLIEST => told.since_epoch + uptime.saturating_sub(told.uptime),
        _ => system,
    }
}

/// The wall clock, and nothing else.
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + since_epoch()
}

/// Has the wall clock been set?
#[must_use]
pub fn is_set() -> bool {
    since_epoch() >= EARLIEST
}

/// The wall clock's month in UTC, if it has been set.
#[must_use]
pub fn month() -> Option<Month> {
    let now = DateTime::<Utc>::from(now());
    Month::new(now.year(), now.month()).filter(|_| is_set())
}

/// The wall clock as RFC 3164, 4.1.2 wants it: local time without a year. Where the time zone can't be asked, UTC.
#[must_use]
pub fn rfc3164() -> String {
    const FORMAT: &str = "%b %e %H:%M:%S";
    let utc = DateTime::<Utc>::from(for_records());
    // chrono asks `SystemTime::now` when it looks for the zone.
    match since_epoch() < END_OF_32_BITS {
        true => utc.with_timezone(&Local).format(FORMAT).to_string(),
        false => utc.format(FORMAT).to_string(),
    }
}

/// A moment as RFC 3339 in UTC with seconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A moment as RFC 3339 in UTC with milliseconds: what OCPP gets, of which some CSMSs can't read more digits.
#[must_use]
pub fn rfc3339_millis(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Has the wall clock been set? In the word that `status` and the audit records have for it.
#[must_use]
pub fn word() -> &'static str {
    if is_set() { "synced" } else { "unset" }
}

/// A monotonic moment on the wall clock as it stands now, by [`for_records`], so that a later correction of the clock corrects it too.
#[must_use]
pub fn wall(moment: Instant) -> SystemTime {
    let (monotonic, wall) = (Instant::now(), for_records());
    match moment.checked_duration_since(monotonic) {
        Some(ahead) => wall + ahead,
        None => wall - monotonic.duration_since(moment),
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

/// The clock that `Instant` runs on: how long the system has been on.
pub(crate) fn uptime() -> Duration {
    duration(clock_gettime(ClockId::Monotonic))
}

pub(crate) fn since_epoch() -> Duration {
    realtime()
}

/// The standard library's, wherever it doesn't panic: a test can play another time to it (libfaketime).
#[cfg(not(all(target_env = "musl", target_pointer_width = "32")))]
fn realtime() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The kernel's, which knows of times after 2038.
#[cfg(all(target_env = "musl", target_pointer_width = "32"))]
fn realtime() -> Duration {
    duration(clock_gettime(ClockId::Realtime))
}

/// A clock before its epoch counts as at it.
fn duration(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
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
    fn the_csmss_time_stands_in_for_a_clock_that_is_not_set_and_goes_on() {
        let seconds = Duration::from_secs;
        let told = Some(Told { uptime: seconds(100), since_epoch: EARLIEST + seconds(5) });
        assert_eq!(best(seconds(7), told, seconds(160)), EARLIEST + seconds(65));
        assert_eq!(best(seconds(7), None, seconds(160)), seconds(7));
        assert_eq!(best(EARLIEST, told, seconds(160)), EARLIEST, "a clock that is set is believed");
    }

    #[test]
    fn nonsense_that_the_csms_tells_is_ignored() {
        told("1970-01-01T00:00:00Z".parse().unwrap());
        told(DateTime::<Utc>::MIN_UTC);
        told(DateTime::<Utc>::MAX_UTC);
        assert!(TOLD.lock().unwrap().is_none());
        told("2200-11-22T00:00:00Z".parse().unwrap());
        assert!(TOLD.lock().unwrap().is_some());
    }

    #[test]
    fn a_build_that_tells_its_time_raises_the_earliest() {
        assert_eq!(earliest(Some("1798761600")), 1_798_761_600);
        for odd in [None, Some(""), Some("0"), Some("-1"), Some("now"), Some("1798761600000")] {
            assert_eq!(earliest(odd), FIRST_RELEASE, "{odd:?}");
        }
    }

    #[test]
    fn rfc3339_is_utc_in_seconds() {
        let first = SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST_RELEASE);
        assert_eq!(rfc3339(first), "2026-01-01T00:00:00Z");
        assert!(is_set());
    }
}
