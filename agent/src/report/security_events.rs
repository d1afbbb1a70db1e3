//! Security events that the CSMS hasn't answered yet, in their order.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime};

use serde_json::Value;

use super::security_event::SecurityEvent;
use crate::limits::REPORT_EVENTS;

#[derive(Debug)]
struct Waiting {
    event: SecurityEvent,
    /// When it happened first.
    at: Instant,
    /// How often it happened in a row.
    times: u32,
}

/// Events that had no room.
#[derive(Debug)]
struct Dropped {
    /// When the last of them happened.
    at: Instant,
    count: u64,
}

/// The event that was taken to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The oldest one.
    First,
    /// That so many were dropped.
    Dropped(u64),
}

/// The events that wait.
#[derive(Debug, Default)]
pub(super) struct SecurityEvents {
    waiting: VecDeque<Waiting>,
    /// What was dropped since the CSMS was last told of it; they all came before those that wait.
    dropped: Option<Dropped>,
    /// The oldest one is under way, and stays until it is answered.
    taken: bool,
}

impl SecurityEvents {
    /// One more has happened. One that is like the last is counted there. Gives how many were dropped for it.
    pub(super) fn push(&mut self, event: SecurityEvent, at: Instant) -> u64 {
        let under_way = usize::from(self.taken);
        if let Some(last) = self.waiting.iter_mut().skip(under_way).last().filter(|last| last.event == event)
        {
            last.times = last.times.saturating_add(1);
            return 0;
        }
        let mut dropped = 0;
        if self.waiting.len() >= REPORT_EVENTS
            && let Some(oldest) = self.waiting.remove(under_way)
        {
            dropped = u64::from(oldest.times);
            self.add_dropped(dropped, oldest.at);
        }
        self.waiting.push_back(Waiting { event, at, times: 1 });
        dropped
    }

    /// So many were dropped before they came here.
    pub(super) fn add_dropped(&mut self, count: u64, at: Instant) {
        let before = self.dropped.as_ref().map_or(0, |dropped| dropped.count);
        self.dropped = Some(Dropped { at, count: before.saturating_add(count) });
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the first one that waits happened.
    pub(super) fn first_at(&self) -> Option<Instant> {
        self.dropped.as_ref().map(|dropped| dropped.at).or(self.waiting.front().map(|first| first.at))
    }

    /// The payload of the first one.
    pub(super) fn take(&mut self, wall: impl Fn(Instant) -> SystemTime) -> Option<(Taken, Value)> {
        if let Some(dropped) = &self.dropped {
            let payload = SecurityEvent::dropped(dropped.count).payload(wall(dropped.at), 1);
            return Some((Taken::Dropped(dropped.count), payload));
        }
        let first = self.waiting.front()?;
        self.taken = true;
        Some((Taken::First, first.event.payload(wall(first.at), first.times)))
    }

    /// What was taken has been answered.
    pub(super) fn answered(&mut self, taken: Taken) {
        match taken {
            Taken::First => {
                self.taken = false;
                self.waiting.pop_front();
            }
            Taken::Dropped(count) => {
                self.dropped = self
                    .dropped
                    .take()
                    .filter(|dropped| dropped.count > count)
                    .map(|dropped| Dropped { count: dropped.count - count, ..dropped });
            }
        }
    }

    /// What was taken comes first again.
    pub(super) fn put_back(&mut self, taken: Taken) {
        if taken == Taken::First {
            self.taken = false;
        }
    }

    /// Nobody wants them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
