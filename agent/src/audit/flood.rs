//! Whoever reaches a published port, or the CSMS, can cause records as fast as they like, and so push out of the files
//! what they don't want to be read there, or wear out the flash. So each kind of record has a token bucket for what was done, and
//! another for what was not, lest a flood of refusals hide the one success; what finds it empty is counted, and the sum is
//! written now and then.

use std::collections::BTreeMap;
use std::time::Instant;

use super::record::Kind;
use crate::limits::{
    AUDIT_BURST, AUDIT_BURST_BYTES, AUDIT_CONNECTION_BURST, AUDIT_REFILL, AUDIT_SUM_INTERVAL,
};

/// The buckets and the sums. It decides without a clock of its own.
#[derive(Debug)]
pub(super) struct Flood {
    /// Bytes that all files together may take: no kind may fill a large part of them at once.
    most: u64,
    /// By kind, and whether it came to something.
    kinds: BTreeMap<(Kind, bool), Bucket>,
    sums_since: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
    sum: Sum,
}

/// Records that have none of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Flood {
    pub(super) fn new(most: u64) -> Self {
        Self { most, kinds: BTreeMap::new(), sums_since: None }
    }

    /// May this be a record of its own? Otherwise it is counted.
    pub(super) fn admit(
        &mut self,
        kind: Kind,
        success: bool,
        (bytes_in, bytes_out): (u64, u64),
        now: Instant,
    ) -> bool {
        let Some(burst) = burst(kind, self.most) else { return true };
        let full = Bucket { tokens: burst, refilled: now, sum: Sum::default() };
        let bucket = self.kinds.entry((kind, success)).or_insert(full);
        bucket.refill(burst, now);
        if let Some(left) = bucket.tokens.checked_sub(1) {
            bucket.tokens = left;
            return true;
        }
        let sum = &mut bucket.sum;
        sum.count += 1;
        sum.bytes_in = sum.bytes_in.saturating_add(bytes_in);
        sum.bytes_out = sum.bytes_out.saturating_add(bytes_out);
        self.sums_since.get_or_insert(now);
        false
    }

    /// When the sums are to be written; none if there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        self.sums_since.map(|since| since + AUDIT_SUM_INTERVAL)
    }

    /// The sums, which begin anew.
    pub(super) fn take(&mut self) -> Vec<(Kind, Sum)> {
        self.sums_since = None;
        let sums = self.kinds.iter_mut().map(|((kind, _), bucket)| (*kind, std::mem::take(&mut bucket.sum)));
        sums.filter(|(_, sum)| sum.count > 0).collect()
    }
}

impl Bucket {
    fn refill(&mut self, burst: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_secs() / AUDIT_REFILL.as_secs();
        let tokens = u32::try_from(passed).unwrap_or(u32::MAX);
        self.refilled += AUDIT_REFILL * tokens;
        self.tokens = self.tokens.saturating_add(tokens).min(burst);
    }
}

/// So many at once; none for what nobody outside can cause at will.
fn burst(kind: Kind, most: u64) -> Option<u32> {
    let wanted = match kind {
        Kind::AgentStarted | Kind::AgentStopped | Kind::RecordsLost | Kind::RecordsSummed => return None,
        Kind::ConnectionEnded => AUDIT_CONNECTION_BURST,
        _ => AUDIT_BURST,
    };
    Some(u32::try_from(most / AUDIT_BURST_BYTES).map_or(wanted, |room| wanted.min(room)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MOST: u64 = 1024 * 1024;
    const FLOOD: Kind = Kind::TunnelRefused;

    fn admitted(flood: &mut Flood, times: u32, now: Instant) -> u32 {
        (0..times).map(|_| u32::from(flood.admit(FLOOD, false, (1, 2), now))).sum()
    }

    #[test]
    fn a_flood_is_summed_up_and_nothing_else_suffers() {
        let (mut flood, now) = (Flood::new(MOST), Instant::now());
        assert_eq!(admitted(&mut flood, 1000, now), AUDIT_BURST);
        assert!(flood.admit(Kind::TunnelOpened, true, (0, 0), now), "another kind");
        assert!(flood.admit(FLOOD, true, (0, 0), now), "another end");
        assert_eq!(flood.due(), Some(now + AUDIT_SUM_INTERVAL));
        let count = u64::from(1000 - AUDIT_BURST);
        assert_eq!(flood.take(), [(FLOOD, Sum { count, bytes_in: count, bytes_out: 2 * count })]);
        assert_eq!((flood.take(), flood.due()), (vec![], None));
    }

    #[test]
    fn a_bucket_fills_slowly_and_never_above_its_burst() {
        let (mut flood, start) = (Flood::new(MOST), Instant::now());
        admitted(&mut flood, 1000, start);
        let moment = Duration::from_secs(1);
        assert_eq!(admitted(&mut flood, 5, start + AUDIT_REFILL - moment), 0);
        assert_eq!(admitted(&mut flood, 5, start + AUDIT_REFILL * 2 + moment), 2);
        assert_eq!(admitted(&mut flood, 5, start + AUDIT_REFILL * 3), 1, "no time is lost");
        assert_eq!(admitted(&mut flood, 1000, start + Duration::from_secs(365 * 24 * 3600)), AUDIT_BURST);
    }

    #[test]
    fn where_there_is_little_room_a_flood_gets_little_of_it() {
        let now = Instant::now();
        let connections = |most| {
            let mut flood = Flood::new(most);
            (0..5000).filter(|_| flood.admit(Kind::ConnectionEnded, true, (0, 0), now)).count()
        };
        assert_eq!([64 * 1024, MOST, 64 * MOST].map(connections), [40, 655, 1000]);
    }

    #[test]
    fn an_agents_start_is_always_told() {
        let (mut flood, now) = (Flood::new(MOST), Instant::now());
        assert!((0..10_000).all(|_| flood.admit(Kind::AgentStarted, true, (0, 0), now)));
    }
}
