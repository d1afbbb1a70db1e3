//! The memory that a tunnel's slow connections may take, and who pays when it is spent.
//!
//! russh grants the server a new window as soon as data arrives, whether or not the local service has taken it, and
//! offers no call to do otherwise. So what a slow service hasn't taken yet waits here. Once the budget is spent,
//! everybody waits, because the SSH connection isn't read any further. Then those who hold it have to take at least
//! [`PROGRESS`] bytes every [`STALLED`]; the one that holds most of those that don't is reset, which frees its share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::limits::{PROGRESS, STALLED};
use crate::queue::Spares;

/// The budget of one tunnel's connection.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    room: Semaphore,
    spares: Arc<Spares>,
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
    /// When [`PROGRESS`] bytes or all that waited had been taken, or when the queue began to fill.
    since: Instant,
    /// What was taken since then.
    taken: usize,
    /// It is to be reset.
    condemned: bool,
}

/// What the other connections' tasks get to take what their services have room for, before anybody is judged: after a reset,
/// and when this task comes late, since then they all may have. A process that was stopped finds everybody without progress.
const GRACE: Duration = Duration::from_millis(50);

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            bytes,
            room: Semaphore::new(bytes),
            spares: Arc::default(),
            members: Mutex::default(),
        })
    }

    /// A share for one more connection.
    pub(crate) fn join(self: &Arc<Self>) -> Share {
        let progress = Progress { queued: 0, since: now(), taken: 0, condemned: false };
        let member = Arc::new(Member { progress: Mutex::new(progress), reset: Notify::new() });
        self.members().push(member.clone());
        Share { budget: self.clone(), member }
    }

    /// Resets a connection that has made no progress for too long; gives the time to look again.
    ///
    /// Only one that holds half of its fair share or more: a service that leaves a few bytes waiting isn't what the others
    /// wait for. Once the budget is spent, there always is one that does.
    fn reset_stalled(&self) -> Instant {
        let now = now();
        let members = self.members();
        let share = self.bytes / (2 * members.len().max(1));
        let mut next = now + STALLED;
        let mut worst: Option<(usize, &Arc<Member>)> = None;
        for member in members.iter() {
            let progress = member.progress();
            if progress.queued < share || progress.condemned {
                continue;
            }
            let due = progress.since + STALLED;
            if due > now {
                next = next.min(due);
            } else if worst.is_none_or(|(queued, _)| queued < progress.queued) {
                worst = Some((progress.queued, member));
            }
        }
        if let Some((_, member)) = worst {
            member.progress().condemned = true;
            member.reset.notify_one();
            next = next.min(now + GRACE);
        }
        next
    }

    fn members(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes room for so many bytes, at most the whole budget; waits while it is spent.
    pub(crate) async fn take(&self, bytes: usize) {
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = match self.budget.room.try_acquire_many(cost) {
            Ok(permit) => Some(permit),
            Err(_) => self.wait_for(cost).await,
        };
        if let Some(permit) = permit {
            permit.forget();
            let mut progress = self.member.progress();
            if progress.queued == 0 {
                progress.begin();
            }
            progress.queued += bytes;
        }
    }

    async fn wait_for(&self, cost: u32) -> Option<SemaphorePermit<'_>> {
        let mut room = std::pin::pin!(self.budget.room.acquire_many(cost));
        let mut look = now() + GRACE;
        loop {
            tokio::select! {
                permit = &mut room => return permit.ok(),
                () = tokio::time::sleep_until(look.into()) => {}
            }
            let is_late = now() > look + GRACE;
            look = if is_late { now() + GRACE } else { self.budget.reset_stalled() };
        }
    }

    /// The local service has taken so much, which makes room.
    pub(crate) fn taken(&self, bytes: usize) {
        let mut progress = self.member.progress();
        let bytes = bytes.min(progress.queued);
        progress.queued -= bytes;
        progress.taken += bytes;
        if progress.taken >= PROGRESS || progress.queued == 0 {
            progress.begin();
        }
        self.budget.room.add_permits(bytes);
    }

    /// Nothing waits for the local service any more.
    pub(crate) fn give_back(&self) {
        let queued = std::mem::take(&mut self.member.progress().queued);
        self.budget.room.add_permits(queued);
    }

    /// When the local service made progress last.
    pub(crate) fn progressed(&self) -> Instant {
        self.member.progress().since
    }

    /// Chunks that this tunnel's connections may use again.
    pub(crate) fn spares(&self) -> Arc<Spares> {
        self.budget.spares.clone()
    }

    /// Waits until this connection has to go, for the others' sake.
    pub(crate) async fn reset(&self) {
        self.member.reset.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
        let mut members = self.budget.members();
        members.retain(|member| !Arc::ptr_eq(member, &self.member));
        if members.is_empty() {
            self.budget.spares.clear();
        }
    }
}

impl Member {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn begin(&mut self) {
        (self.since, self.taken) = (now(), 0);
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
        let budget = Budget::new(1000);
        let share = budget.join();
        let began = Instant::now();
        share.take(1000).await;
        share.taken(1000);
        share.take(1000).await;
        assert!(began.elapsed() < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_stalls_is_reset_and_the_others_go_on() {
        let budget = Budget::new(2000);
        let (stalled, active) = (budget.join(), budget.join());
        stalled.take(2000).await;
        let waiting = async {
            let began = now();
            active.take(1000).await;
            now() - began
        };
        let stalls = async {
            stalled.reset().await;
            stalled.give_back();
        };
        let (waited, ()) = tokio::join!(waiting, stalls);
        assert_eq!(waited, STALLED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_only_slow_is_left_alone() {
        let budget = Budget::new(3 * PROGRESS);
        let slow = budget.join();
        slow.take(3 * PROGRESS).await;
        let drain = async {
            for _ in 0..3 {
                sleep(STALLED - Duration::from_millis(1)).await;
                slow.taken(PROGRESS);
            }
        };
        let fill = async {
            let other = budget.join();
            other.take(3 * PROGRESS).await;
        };
        let reset = timeout(STALLED * 10, slow.reset());
        let (reset, ..) = tokio::join!(reset, drain, fill);
        assert!(reset.is_err(), "it was reset");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_next_to_nothing_is_reset() {
        let budget = Budget::new(3 * PROGRESS);
        let (slow, other) = (budget.join(), budget.join());
        slow.take(3 * PROGRESS).await;
        let drain = async {
            loop {
                sleep(Duration::from_millis(500)).await;
                slow.taken(PROGRESS / 8);
            }
        };
        let reset = async {
            slow.reset().await;
            slow.give_back();
        };
        let began = now();
        let stalls = async { tokio::join!(other.take(3 * PROGRESS), reset) };
        tokio::select! {
            _ = stalls => {}
            () = drain => {}
        }
        assert_eq!(now() - began, STALLED);
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_holds_much_is_reset_and_the_largest_first() {
        let budget = Budget::new(1000);
        let (paused, stalled, larger, active) = (budget.join(), budget.join(), budget.join(), budget.join());
        paused.take(100).await;
        stalled.take(300).await;
        larger.take(600).await;
        let resets = async {
            larger.reset().await;
            let first = now();
            larger.give_back();
            stalled.reset().await;
            stalled.give_back();
            (first, now())
        };
        let fill = async {
            active.take(900).await;
        };
        let began = now();
        let (never, (first, second), ()) = tokio::join!(timeout(STALLED * 10, paused.reset()), resets, fill);
        assert!(never.is_err(), "a hundred bytes are in nobody's way");
        assert_eq!(first - began, STALLED);
        assert!(second - first <= GRACE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_blames_nobody_for_it() {
        let budget = Budget::new(1000);
        let (held, other) = (budget.join(), budget.join());
        held.take(1000).await;
        // Stopped before it waits, and again meanwhile.
        tokio::time::advance(STALLED * 2).await;
        let waiting = async {
            other.take(1000).await;
            now()
        };
        let serve = async {
            sleep(GRACE / 2).await;
            tokio::time::advance(STALLED * 2).await;
            sleep(GRACE / 2).await;
            held.taken(1000);
        };
        let reset = timeout(STALLED * 10, held.reset());
        let (reset, ..) = tokio::join!(reset, waiting, serve);
        assert!(reset.is_err(), "it was reset");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_connection_held_when_it_ended_is_free_again() {
        let budget = Budget::new(1000);
        let share = budget.join();
        share.take(1000).await;
        drop(share);
        let share = budget.join();
        share.take(1000).await;
        share.give_back();
        share.give_back();
        assert_eq!(budget.room.available_permits(), 1000);
    }
}
