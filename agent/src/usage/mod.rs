//! What the tunnels have carried this month, and the cap on it.
//!
//! Counted is the payload of forwarded connections, both ways (see [`Meter`]). A month is a calendar month in UTC, by
//! a rule that a clock which jumps can't abuse: see [`count`]. The count is kept in `state_dir`, so that it survives
//! restarts and power cuts; it is written rarely, so that it doesn't wear out the flash.
//!
//! Nothing here polls: the meter rings at the first byte after a write and at each amount that people are told of.

pub mod count;
mod file;

use std::path::Path;
use std::sync::Arc;

use reverse_tunnel::Meter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::count::{Count, Month, Now};
use self::file::UsageFile;
use crate::limits::{USAGE_KEEP_INTERVAL, USAGE_LOOK_INTERVAL, USAGE_WRITE_DELAY};
use crate::policy::Refusal;
use crate::{advice, bytes};

/// Percentages of the cap that the log tells of; the last one ends everything.
const LEVELS: [u8; 3] = [80, 95, 100];

/// The month's count, its cap and its file.
#[derive(Debug)]
pub struct Usage {
    cap: Option<u64>,
    meter: Arc<Meter>,
    /// What the meter showed when `count` was brought up to date.
    read: u64,
    count: Count,
    file: UsageFile,
    /// The highest of [`LEVELS`] that has been told of; 0: none.
    told: u8,
    kept_at: Instant,
    kept_bytes: u64,
    /// When to write what has passed since; none while nothing has.
    write_at: Option<Instant>,
    look_at: Instant,
    view: watch::Sender<UsageView>,
}

/// What others see of it.
#[derive(Clone, Debug)]
pub struct UsageView {
    /// The month that is counted; none until the clock has been set.
    pub month: Option<Month>,
    /// The cap in bytes.
    pub cap: Option<u64>,
    counted: u64,
    read: u64,
    meter: Arc<Meter>,
}

impl Usage {
    /// The count that `state_dir` holds, or a new one. `cap` is in bytes; the meter must be new.
    #[must_use]
    pub fn open(state_dir: &Path, cap: Option<u64>, meter: Arc<Meter>) -> Self {
        let file = UsageFile::in_directory(state_dir);
        let now = Now::read();
        let count = file.load(&now).unwrap_or_else(|| Count::new(&now));
        let at = Instant::now();
        let view = UsageView { month: count.month(), cap, counted: count.bytes(), read: 0, meter };
        let mut usage = Self {
            cap,
            meter: view.meter.clone(),
            read: 0,
            told: level(count.bytes(), cap),
            kept_at: at,
            kept_bytes: count.bytes(),
            count,
            file,
            write_at: None,
            look_at: at,
            view: watch::Sender::new(view),
        };
        usage.look();
        usage
    }

    /// Caps the month at so many bytes from now on; [`Self::check`] tells what follows.
    pub fn set_cap(&mut self, cap: Option<u64>) {
        if self.cap != cap {
            self.cap = cap;
            // A level that was told of means another amount now.
            self.told = 0;
            self.look();
        }
    }

    /// What others see of it. The month's turn may show an hour late there, and never when something is opened.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<UsageView> {
        self.view.subscribe()
    }

    /// Waits until [`Self::look`] is due.
    pub async fn due(&self) {
        let at = self.write_at.map_or(self.look_at, |at| at.min(self.look_at));
        tokio::select! {
            () = self.meter.alarm() => {}
            () = sleep_until(at) => {}
        }
    }

    /// Brings the count up to date, tells of what it has come to, and writes it down if that is due.
    pub fn look(&mut self) {
        let shown = self.meter.bytes();
        let before = (self.count.month(), self.count.bytes());
        if self.count.look(&Now::read(), shown - self.read) {
            tracing::info!(last_month = before.1, "month-began");
            self.told = 0;
        }
        self.read = shown;
        self.tell();

        let now = Instant::now();
        let changed = self.count.bytes() != self.kept_bytes;
        if changed && self.write_at.is_none() {
            self.write_at = Some(now + USAGE_WRITE_DELAY);
        }
        let due = match self.write_at {
            Some(at) => at <= now,
            // Only the days.
            None => {
                self.count.bytes() > 0 && now.saturating_duration_since(self.kept_at) >= USAGE_KEEP_INTERVAL
            }
        };
        if due {
            self.keep();
        }
        self.look_at = now + USAGE_LOOK_INTERVAL;
        self.set_alarm();
        self.view.send_replace(UsageView {
            month: self.count.month(),
            cap: self.cap,
            counted: self.count.bytes(),
            read: self.read,
            meter: self.meter.clone(),
        });
    }

    /// May anything more pass this month? As of the last [`Self::look`].
    ///
    /// # Errors
    /// [`Refusal::DataCap`].
    pub fn check(&self) -> Result<(), Refusal> {
        match self.cap {
            Some(cap) if self.count.bytes() >= cap => Err(Refusal::DataCap { cap }),
            _ => Ok(()),
        }
    }

    /// Writes down what isn't yet: a tunnel has closed, or the agent stops.
    pub fn settle(&mut self) {
        self.look();
        if self.count.bytes() != self.kept_bytes {
            self.keep();
            self.set_alarm();
        }
    }

    fn tell(&mut self) {
        let Some(cap) = self.cap else { return };
        let now = level(self.count.bytes(), self.cap);
        if now <= self.told {
            return;
        }
        self.told = now;
        let (used, cap) = (bytes::words(self.count.bytes()), bytes::words(cap));
        if now == 100 {
            tracing::error!(used, cap, cure = advice::DATA_CAP, "data-cap-reached");
        } else {
            tracing::warn!(percent = now, used, cap, "data-cap-near");
        }
    }

    fn keep(&mut self) {
        self.file.save(&self.count);
        // Also when it failed: a full disk is tried again when there is more to write.
        self.kept_at = Instant::now();
        self.kept_bytes = self.count.bytes();
        self.write_at = None;
    }

    /// At the next byte if none has passed since the last write, or else at the next level. At the cap nothing passes any
    /// more, whenever we come round to closing the tunnels.
    fn set_alarm(&self) {
        let room = match (self.write_at, self.cap) {
            (None, _) => 1,
            (Some(_), None) => u64::MAX,
            (Some(_), Some(cap)) => {
                let next = LEVELS.iter().map(|level| amount(cap, *level)).find(|at| *at > self.count.bytes());
                next.map_or(u64::MAX, |at| at - self.count.bytes())
            }
        };
        self.meter.set_alarm(self.read.saturating_add(room));
        let left = self.cap.map_or(u64::MAX, |cap| cap.saturating_sub(self.count.bytes()));
        self.meter.set_limit(self.read.saturating_add(left));
    }
}

impl UsageView {
    /// Bytes of this month until now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.counted.saturating_add(self.meter.bytes().saturating_sub(self.read))
    }
}

/// The highest level that has been reached.
fn level(bytes: u64, cap: Option<u64>) -> u8 {
    let Some(cap) = cap else { return 0 };
    LEVELS.into_iter().rev().find(|level| bytes >= amount(cap, *level)).unwrap_or(0)
}

/// So many percent of the cap, rounded up.
fn amount(cap: u64, percent: u8) -> u64 {
    let bytes = (u128::from(cap) * u128::from(percent)).div_ceil(100);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A device that is left alone for so long.
    async fn pass(usage: &mut Usage, time: Duration) {
        let looks = async {
            loop {
                usage.due().await;
                usage.look();
            }
        };
        let _ = tokio::time::timeout(time, looks).await;
    }

    fn open(directory: &tempfile::TempDir, cap: Option<u64>) -> Usage {
        Usage::open(directory.path(), cap, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn the_flash_is_written_five_minutes_after_the_first_byte_and_not_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("usage.json");
        let mut usage = open(&directory, None);
        pass(&mut usage, Duration::from_secs(3 * 24 * 3600)).await;
        usage.settle();
        assert!(!file.exists(), "nothing has passed");

        usage.meter.add(10);
        pass(&mut usage, USAGE_WRITE_DELAY - Duration::from_secs(1)).await;
        usage.meter.add(5);
        assert!(!file.exists());
        assert_eq!(usage.view().borrow().bytes(), 15, "people see it at once");
        pass(&mut usage, Duration::from_secs(2)).await;
        assert_eq!(open(&directory, None).count.bytes(), 15);

        usage.meter.add(1);
        pass(&mut usage, Duration::from_secs(1)).await;
        assert_eq!(open(&directory, None).count.bytes(), 15, "a power cut forgets what is not written yet");
        usage.settle();
        assert_eq!(open(&directory, None).count.bytes(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn the_days_are_written_down_once_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("usage.json");
        let mut usage = open(&directory, None);
        usage.meter.add(1);
        pass(&mut usage, USAGE_WRITE_DELAY + Duration::from_secs(1)).await;
        std::fs::remove_file(&file).unwrap();
        pass(&mut usage, USAGE_KEEP_INTERVAL - USAGE_LOOK_INTERVAL).await;
        assert!(!file.exists());
        pass(&mut usage, USAGE_LOOK_INTERVAL * 2).await;
        assert!(file.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn each_level_is_noticed_without_waiting_and_the_cap_holds_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut usage = open(&directory, Some(100));
        for (bytes, told) in [(79, 0), (1, 80), (14, 80), (1, 95), (4, 95), (1, 100)] {
            assert_eq!(usage.check(), Ok(()));
            usage.meter.add(bytes);
            pass(&mut usage, Duration::from_millis(1)).await;
            assert_eq!(usage.told, told);
        }
        assert_eq!(usage.check(), Err(Refusal::DataCap { cap: 100 }));
        usage.settle();
        let again = open(&directory, Some(100));
        assert_eq!((again.check(), again.told), (Err(Refusal::DataCap { cap: 100 }), 100));
        assert_eq!(open(&directory, Some(101)).check(), Ok(()));
        assert_eq!(open(&directory, None).check(), Ok(()));
    }

    #[test]
    fn levels_are_reached_by_the_byte() {
        for (bytes, expected) in
            [(0, 0), (79, 0), (80, 80), (94, 80), (95, 95), (99, 95), (100, 100), (101, 100)]
        {
            assert_eq!(level(bytes, Some(100)), expected, "{bytes}");
        }
        assert_eq!(level(u64::MAX, None), 0);
        assert_eq!(amount(1, 80), 1);
        assert_eq!(amount(u64::MAX, 100), u64::MAX);
    }
}
