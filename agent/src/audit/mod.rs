//! The audit records: who asked for what, what became of it, and what went through. As JSON lines below `state_dir`, in
//! files with a cap on them.
//!
//! Whoever has something to record hands it to [`Audit`] and goes on. One task writes, on a thread that may wait for the
//! disk. What can't be written stays in a queue with a bound, and then is counted; a disk that is full or read-only stops
//! nothing else. It is told of once in the log, and in `status` for as long as it lasts.
//!
//! - `record`: one record, and the kinds that there are;
//! - `flood`: too many of one kind are summed up;
//! - `store`: the files, and what a power cut may leave of them;
//! - `read`, `lines`: reading them, without an agent;
//! - `tunnel`: what is recorded of a tunnel.

mod flood;
mod lines;
mod read;
mod record;
mod store;
mod tunnel;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

use self::flood::Flood;
use self::store::{Entry, Store};
use crate::config::Config;
use crate::limits::{AUDIT_BATCH, AUDIT_QUEUE, AUDIT_RETRY, AUDIT_STOP, AUDIT_SYNC_DELAY};

pub use self::lines::Lines;
pub use self::read::{Part, directory, next_line, parts, read_all};
pub use self::record::{Category, Kind, Outcome, Record, Source};
pub use self::store::{Before, Ended};
pub(crate) use self::tunnel::TunnelAudit;

/// The way to the records. Recording never waits.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Shared>);

/// How the records fare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why they can't be written just now.
    pub error: Option<String>,
    /// Records that were lost since the agent's start.
    pub lost: u64,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
    health: watch::Sender<Health>,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Entry>,
    /// Records that found no room since the last one that did.
    lost: u64,
    flood: Flood,
    stopping: bool,
}

/// The task that writes.
#[derive(Debug)]
pub struct Writer {
    audit: Audit,
    task: JoinHandle<()>,
}

/// Writes one record now, for a command that changes keys, beside the agent or without one.
///
/// # Errors
/// The files can't be written. What was done stays done.
pub fn write_now(config: &Config, record: Record) -> io::Result<()> {
    let mut store = Store::new(directory(&config.state_dir), config.log.audit_bytes);
    let (_, result) = store.append(&[Entry { lost: 0, record }]);
    result.and_then(|()| store.sync())
}

impl Audit {
    /// Keeps records in `directory`, in at most `most` bytes. Also gives what the last run has left there, if that can
    /// be read. Must be called within the runtime.
    pub fn start(directory: PathBuf, most: u64) -> (Self, Writer, io::Result<Before>) {
        let mut store = Store::new(directory, most);
        let before = store.before();
        let audit = Self(Arc::new(Shared {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                lost: 0,
                flood: Flood::new(most),
                stopping: false,
            }),
            changed: Notify::new(),
            health: watch::Sender::new(Health::default()),
        }));
        let task = tokio::spawn(write(audit.clone(), store));
        (audit.clone(), Writer { audit, task }, before)
    }

    /// Records something.
    pub fn record(&self, record: Record) {
        let mut queue = self.queue();
        if !queue.flood.admit(record.kind(), record.is_success(), record.bytes(), Instant::now().into_std()) {
            // The writer may have to learn when the sum is due.
            return self.0.changed.notify_one();
        }
        if queue.waiting.len() >= AUDIT_QUEUE {
            queue.lost += 1;
            return self.0.health.send_modify(|health| health.lost += 1);
        }
        self.tell_lost(&mut queue);
        queue.waiting.push_back(Entry { lost: 0, record });
        self.0.changed.notify_one();
    }

    /// How the records fare.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.health.subscribe()
    }

    /// The records that are to be written next. Sums that are due are among them, or, at the end, all of them.
    fn next_batch(&self) -> Vec<Entry> {
        let mut queue = self.queue();
        let due = queue.flood.due().is_some_and(|due| queue.stopping || due <= Instant::now().into_std());
        if due && queue.waiting.len() < AUDIT_QUEUE {
            for (kind, sum) in queue.flood.take() {
                let record = Record::new(Kind::RecordsSummed, Source::Agent, Outcome::Success)
                    .text("of", kind.word())
                    .number("count", sum.count)
                    .traffic(sum.bytes_in, sum.bytes_out);
                queue.waiting.push_back(Entry { lost: 0, record });
            }
        }
        if queue.waiting.is_empty() {
            self.tell_lost(&mut queue);
        }
        let length = queue.waiting.len().min(AUDIT_BATCH);
        queue.waiting.drain(..length).collect()
    }

    fn tell_lost(&self, queue: &mut Queue) {
        let lost = std::mem::take(&mut queue.lost);
        if lost == 0 {
            return;
        }
        let error = self.0.health.borrow().error.clone();
        let record = Record::new(Kind::RecordsLost, Source::Agent, Outcome::Failure)
            .number("lost", lost)
            .text("why", error.as_deref().unwrap_or("they could not be written fast enough"));
        queue.waiting.push_back(Entry { lost, record });
    }

    /// What could not be written goes back to its place.
    fn give_back(&self, entries: Vec<Entry>) {
        let mut queue = self.queue();
        for entry in entries.into_iter().rev() {
            queue.waiting.push_front(entry);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes what is still waiting, within [`AUDIT_STOP`].
    pub async fn stop(self) {
        self.audit.queue().stopping = true;
        self.audit.0.changed.notify_one();
        if timeout(AUDIT_STOP, self.task).await.is_err() {
            tracing::warn!("audit-cut-short");
        }
    }
}

/// Writes what is recorded, until [`Writer::stop`].
async fn write(audit: Audit, mut store: Store) {
    let mut sync_at = None;
    loop {
        let batch = audit.next_batch();
        let stopping = audit.queue().stopping;
        let result;
        if !batch.is_empty() {
            let matters = batch.iter().any(|entry| entry.record.kind() != Kind::ConnectionEnded);
            let work = move || {
                let (written, result) = store.append(&batch);
                let unwritten = batch.into_iter().skip(written).collect();
                (store, unwritten, result)
            };
            // It only fails with the runtime.
            let Ok(done) = spawn_blocking(work).await else { return };
            let unwritten;
            (store, unwritten, result) = done;
            audit.give_back(unwritten);
            if matters {
                sync_at.get_or_insert_with(|| Instant::now() + AUDIT_SYNC_DELAY);
            }
        } else if sync_at.is_some_and(|at| stopping || at <= Instant::now()) {
            sync_at = None;
            let work = move || {
                let result = store.sync();
                (store, result)
            };
            let Ok(done) = spawn_blocking(work).await else { return };
            (store, result) = done;
        } else if stopping {
            return;
        } else {
            let sums_due = audit.queue().flood.due().map(Instant::from_std);
            let due = sync_at.into_iter().chain(sums_due).min();
            tokio::select! {
                () = audit.0.changed.notified() => {}
                () = until(due) => {}
            }
            continue;
        }
        if audit.tell(&result) {
            continue;
        }
        if stopping {
            return tracing::warn!(records = audit.queue().waiting.len(), "audit-records-lost");
        }
        let again = Instant::now() + AUDIT_RETRY;
        while !audit.queue().stopping && Instant::now() < again {
            tokio::select! {
                () = audit.0.changed.notified() => {}
                () = sleep_until(again) => {}
            }
        }
    }
}

impl Audit {
    /// Tells the log and `status` whether writing works; the log only when that has changed. Gives whether it does.
    fn tell(&self, result: &io::Result<()>) -> bool {
        let error = result.as_ref().err().map(ToString::to_string);
        let was_well = self.0.health.borrow().error.is_none();
        match &error {
            Some(error) if was_well => {
                let cure = "make room in state_dir, or make it writable; records wait in memory meanwhile";
                tracing::error!(%error, cure, "audit-not-written");
            }
            None if !was_well => {
                let lost = self.0.health.borrow().lost;
                tracing::info!(lost, "audit-written-again");
            }
            _ => {}
        }
        let is_well = error.is_none();
        if !is_well || !was_well {
            // After the loss was told of with its reason.
            if is_well {
                let mut queue = self.queue();
                self.tell_lost(&mut queue);
            }
            self.0.health.send_modify(|health| health.error = error);
        }
        is_well
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    fn start(directory: &tempfile::TempDir) -> (Audit, Writer) {
        let (audit, writer, before) = Audit::start(directory.path().join("audit"), 1 << 20);
        before.unwrap();
        (audit, writer)
    }

    fn record(kind: Kind) -> Record {
        Record::new(kind, Source::Agent, Outcome::Success)
    }

    fn read(directory: &tempfile::TempDir) -> Vec<Value> {
        let all = read_all(&directory.path().join("audit"), usize::MAX).unwrap();
        String::from_utf8(all).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_is_recorded_is_written_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (audit, writer) = start(&directory);
        for _ in 0..100 {
            audit.record(record(Kind::TunnelOpened));
        }
        writer.stop().await;
        let records = read(&directory);
        assert_eq!(records.len(), 100);
        assert!(records.iter().zip(1u64..).all(|(record, number)| record["seq"] == number));
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_fails_loses_only_what_memory_has_no_room_for_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join("audit");
        let (audit, writer) = start(&directory);
        fs::write(&in_the_way, "").unwrap();
        let mut health = audit.health();
        audit.record(record(Kind::AgentStarted));
        let error = health.wait_for(|health| health.error.is_some()).await.unwrap().error.clone().unwrap();
        for _ in 0..AUDIT_QUEUE + 9 {
            audit.record(record(Kind::AgentStarted));
        }
        assert_eq!(health.borrow().lost, 10);
        fs::remove_file(&in_the_way).unwrap();
        health.wait_for(|health| health.error.is_none()).await.unwrap();
        audit.record(record(Kind::AgentStopped));
        writer.stop().await;

        let records = read(&directory);
        assert_eq!(records.len(), AUDIT_QUEUE + 2);
        let lost = records.iter().position(|record| record["type"] == "records-lost").unwrap();
        assert_eq!(lost, AUDIT_QUEUE, "where they would have been");
        assert_eq!(records[lost]["lost"], 10);
        assert_eq!(records[lost]["why"], error);
        assert_eq!(records[lost]["seq"].as_u64(), records[lost - 1]["seq"].as_u64().map(|seq| seq + 11));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_summed_up_in_time_and_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (audit, writer) = start(&directory);
        let connections = async |count: u64| {
            for number in 0..count {
                audit.record(record(Kind::ConnectionEnded).traffic(1, 2));
                if number % 100 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        connections(1500).await;
        tokio::time::sleep(Duration::from_secs(601)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let records = read(&directory);
        let sum = records.last().unwrap();
        assert_eq!((&sum["type"], &sum["of"]), (&"records-summed".into(), &"connection-ended".into()));
        assert_eq!(
            (&sum["count"], &sum["bytes_in"], &sum["bytes_out"]),
            (&845.into(), &845.into(), &1690.into())
        );
        assert_eq!(records.len(), 656);
        connections(20).await;
        writer.stop().await;
        let records = read(&directory);
        assert_eq!(records.last().unwrap()["count"], 10, "the bucket had ten tokens again");
    }
}
