//! The wall clock: certificates are judged by it, and nothing else is that a tunnel needs.

use std::time::{Duration, SystemTime};

use crate::clock::{EARLIEST, rfc3339, since_epoch};
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) async fn look() -> Result<((), String), Problem> {
    judge(since_epoch(), EARLIEST).map(|text| ((), text))
}

/// Both are times since the epoch.
fn judge(now: Duration, built: Duration) -> Result<String, Problem> {
    let [shown, earliest] = [now, built].map(|time| rfc3339(SystemTime::UNIX_EPOCH + time));
    if now >= built {
        return Ok(format!("{shown}, which is after this program was built ({earliest} or later)"));
    }
    let text =
        format!("it says {shown}, which is before this program was built ({earliest}): it was never set");
    let cure = "set it, by NTP or by `date -u -s`; until then certificates can't be judged, and times in records are wrong";
    Err(Problem::new(Exit::Error, text, cure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_build_was_never_set() {
        let built = Duration::from_secs(1_800_000_000);
        for never_set in [Duration::ZERO, Duration::from_secs(86_400 * 7), built - Duration::from_secs(1)] {
            let problem = judge(never_set, built).unwrap_err();
            assert!(problem.text.contains("never set") && problem.cure.contains("NTP"), "{problem:?}");
        }
        assert!(judge(Duration::ZERO, built).unwrap_err().text.contains("1970-01-01T00:00:00Z"));
        assert!(judge(built, built).is_ok());
    }
}
