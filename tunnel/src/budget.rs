//! The memory that a tunnel's slow connections may take, and who pays when it is spent.
//!
//! russh grants the server a new window as soon as data arrives, whether or not the local service has taken it, and
//! offers no call to do otherwise. So what a slow service hasn't taken yet waits here. Once the budget is spent,
//! everybody waits, because the SSH connection isn't read any further; and a connection that has got nothing rid of
//! for [`STALLED`] by then is reset, which frees its share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::limits::{QUEUED_OVERHEAD, STALLED};

/// The budget of one tunnel's connection.
#[derive(Debug)]
pub(crate) struct Budget {
    room: Arc<Semaphore>,
    members: Mutex<Vec<Arc<Member>>>,
}

/// A forwarded connection's share.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    member: Arc<Member>,
}

#[derive(Debug)]
struct Member {
    progress: Mutex<Progress>,
    reset: Notify,
}

#[derive(Debug)]
struct Progress {
    queued: usize,
    /// When something was taken last, or when the queue began to fill.
    since: Instant,
}

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { room, members: Mutex::default() })
    }

    /// A share for one more connection.
    pub(crate) fn join(self: &Arc<Self>) -> Share {
        let progress = Progress { queued: 0, since: now() };
        let member = Arc::new(Member { progress: Mutex::new(progress), reset: Notify::new() });
        self.members().push(member.clone());
        Share { budget: self.clone(), member }
    }

    /// Resets the connections that have made no progress for too long; gives the time to look again.
    fn reset_stalled(&self) -> Instant {
        let now = now();
        let mut next = now + STALLED;
        for member in self.members().iter() {
            let progress = member.progress();
            if progress.queued == 0 {
                continue;
            }
            let due = progress.since + STALLED;
            if due <= now {
                member.reset.notify_one();
            } else {
                next = next.min(due);
            }
        }
        next
    }

    fn members(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Room for a piece of this size; waits while the budget is spent.
    pub(crate) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let cost = u32::try_from(bytes.saturating_add(QUEUED_OVERHEAD)).ok()?;
        let room = &self.budget.room;
        let permit = match room.clone().try_acquire_many_owned(cost) {
            Ok(permit) => permit,
            Err(_) => self.wait_for(cost).await?,
        };
        let mut progress = self.member.progress();
        if progress.queued == 0 {
            progress.since = now();
        }
        progress.queued += bytes;
        Some(permit)
    }

    async fn wait_for(&self, cost: u32) -> Option<OwnedSemaphorePermit> {
        let mut room = std::pin::pin!(self.budget.room.clone().acquire_many_owned(cost));
        loop {
            let look_again = self.budget.reset_stalled();
            tokio::select! {
                permit = &mut room => return permit.ok(),
                () = tokio::time::sleep_until(look_again.into()) => {}
            }
        }
    }

    /// The local service has taken so much.
    pub(crate) fn taken(&self, bytes: usize) {
        let mut progress = self.member.progress();
        progress.queued = progress.queued.saturating_sub(bytes);
        progress.since = now();
    }

    /// Waits until this connection has to go, for the others' sake.
    pub(crate) async fn reset(&self) {
        self.member.reset.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.members().retain(|member| !Arc::ptr_eq(member, &self.member));
    }
}

impl Member {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_while_there_is_room() {
        let budget = Budget::new(1000 + QUEUED_OVERHEAD);
        let share = budget.join();
        let began = Instant::now();
        let permit = share.take(1000).await.unwrap();
        drop(permit);
        drop(share.take(1000).await.unwrap());
        assert!(began.elapsed() < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_stalls_is_reset_and_the_others_go_on() {
        let budget = Budget::new(2000 + 3 * QUEUED_OVERHEAD);
        let (stalled, active) = (budget.join(), budget.join());
        let held = stalled.take(2000).await.unwrap();
        let waiting = async {
            let began = now();
            drop(active.take(1000).await.unwrap());
            now() - began
        };
        let stalls = async {
            stalled.reset().await;
            drop(held);
        };
        let (waited, ()) = tokio::join!(waiting, stalls);
        assert_eq!(waited, STALLED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_only_slow_is_left_alone() {
        let budget = Budget::new(3000 + 4 * QUEUED_OVERHEAD);
        let slow = budget.join();
        let mut held: Vec<_> = Vec::new();
        for _ in 0..3 {
            held.push(slow.take(1000).await.unwrap());
        }
        let drain = async {
            while let Some(permit) = held.pop() {
                sleep(STALLED - Duration::from_millis(1)).await;
                slow.taken(1000);
                drop(permit);
            }
        };
        let fill = async {
            let other = budget.join();
            drop(other.take(3000).await.unwrap());
        };
        let reset = timeout(STALLED * 10, slow.reset());
        let (reset, ..) = tokio::join!(reset, drain, fill);
        assert!(reset.is_err(), "it was reset");
    }

    #[tokio::test(start_paused = true)]
    async fn small_pieces_cost_what_they_take() {
        let budget = Budget::new(100 * (1 + QUEUED_OVERHEAD));
        let share = budget.join();
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(share.take(1).await.unwrap());
        }
        assert!(timeout(Duration::from_secs(1), share.take(1)).await.is_err());
    }
}
