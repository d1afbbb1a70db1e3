//! What all tunnels of a device carry together, an alarm at an amount of it, and a limit.
//!
//! Nobody has to look at the meter again and again: whoever passes the amount rings.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Payload bytes of forwarded connections, both ways, since it was made.
///
/// What comes from the server counts when it arrives, whether or not a local service takes it, and what local services
/// send counts when it has been handed to the SSH connection. SSH's own bytes don't count.
#[derive(Debug)]
pub struct Meter {
    bytes: AtomicU64,
    alarm_at: AtomicU64,
    alarm: Notify,
    limit: AtomicU64,
    lifted: Notify,
}

impl Meter {
    /// What it shows.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Rings once when it shows `bytes`, in the place of any earlier alarm; at once if it does already. `u64::MAX` is
    /// never.
    pub fn set_alarm(&self, bytes: u64) {
        self.alarm_at.store(bytes, Ordering::Relaxed);
        if self.bytes() >= bytes {
            self.alarm.notify_one();
        }
    }

    /// Waits for the alarm. It may ring once too often, when it had rung already as it was set anew.
    pub async fn alarm(&self) {
        self.alarm.notified().await;
    }

    /// Once it shows `bytes`, nothing more passes until the limit is raised. `u64::MAX` is none.
    ///
    /// The limit is what holds an amount to the packet. Whoever hears the alarm comes late: a connection at full speed has
    /// carried megabytes by then, and its goodbye stands behind more.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.lifted.notify_waiters();
    }

    /// May more pass now?
    pub(crate) fn has_room(&self) -> bool {
        self.bytes() < self.limit.load(Ordering::Relaxed)
    }

    /// Waits until more may pass.
    pub(crate) async fn room(&self) {
        loop {
            let lifted = self.lifted.notified();
            if self.has_room() {
                return;
            }
            lifted.await;
        }
    }

    /// So many bytes have passed.
    pub fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let at = self.alarm_at.load(Ordering::Relaxed);
        if before < at && before + bytes as u64 >= at {
            self.alarm.notify_one();
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            alarm_at: AtomicU64::new(u64::MAX),
            alarm: Notify::new(),
            limit: AtomicU64::new(u64::MAX),
            lifted: Notify::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn rings(meter: &Meter) -> bool {
        timeout(Duration::from_millis(1), meter.alarm()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_once_when_the_amount_has_passed() {
        let meter = Meter::default();
        meter.add(90);
        assert!(!rings(&meter).await);
        meter.set_alarm(100);
        meter.add(9);
        assert!(!rings(&meter).await);
        meter.add(5);
        assert!(rings(&meter).await);
        meter.add(5);
        assert!(!rings(&meter).await);
        assert_eq!(meter.bytes(), 109);
        meter.set_alarm(50);
        assert!(rings(&meter).await, "it has passed already");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_passes_at_its_limit_until_it_is_raised() {
        let meter = Meter::default();
        let has_room = async || timeout(Duration::from_millis(1), meter.room()).await.is_ok();
        meter.set_limit(100);
        meter.add(99);
        assert!(has_room().await);
        meter.add(1);
        assert!(!has_room().await);
        let raise = async {
            meter.set_limit(100);
            tokio::task::yield_now().await;
            meter.set_limit(101);
        };
        timeout(Duration::from_millis(1), async { tokio::join!(meter.room(), raise) }).await.unwrap();
    }
}
