//! The last 64 KB of the log, in memory: for `ocpp-tunnel logs` and for a CSMS that asks for the log. The flash isn't
//! written for it.
//!
//! Lines stand one behind the other in one buffer. A reader holds a position in the stream of all that was ever written;
//! when it falls behind the buffer it is told how many lines it has missed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::{LOG_CHUNK_BYTES, LOG_LINE_BYTES, LOG_RING_BYTES};

static RING: Mutex<Ring> = Mutex::new(Ring::new());
static WRITTEN: Notify = Notify::const_new();

/// Whole lines, the oldest first, each with its final newline.
struct Ring {
    bytes: VecDeque<u8>,
    start: Position,
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it.
    byte: u64,
    /// Lines before it.
    line: u64,
}

/// What a reader hasn't seen yet, or as much of it as is given at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Lines that were overwritten before this reader came to them.
    pub missed: u64,
    /// Whole lines of printable ASCII; empty if there is nothing new.
    pub text: String,
}

/// The lines that are kept, the oldest first.
#[must_use]
pub fn snapshot() -> Vec<u8> {
    ring().bytes.iter().copied().collect()
}

/// Keeps a line, and wakes those that follow.
pub(super) fn push(line: &str) {
    ring().push(line);
    WRITTEN.notify_waiters();
}

/// Where the last `lines` lines begin; with none, where all that is kept does.
#[must_use]
pub fn position(lines: Option<usize>) -> Position {
    ring().position(lines)
}

/// What stands at `position`, which moves behind it.
#[must_use]
pub fn read(position: &mut Position) -> Piece {
    ring().read(position)
}

/// Waits until there is something to read at `position`.
pub async fn written(position: Position) {
    loop {
        let mut written = std::pin::pin!(WRITTEN.notified());
        // From here on no line is missed.
        written.as_mut().enable();
        if ring().end() > position.byte {
            return;
        }
        written.await;
    }
}

/// How many lines were written behind `position`.
#[must_use]
pub fn lines_behind(position: Position) -> u64 {
    let ring = ring();
    let kept = ring.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    (ring.start.line + kept).saturating_sub(position.line)
}

fn ring() -> MutexGuard<'static, Ring> {
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ring {
    const fn new() -> Self {
        Self { bytes: VecDeque::new(), start: Position { byte: 0, line: 0 } }
    }

    fn end(&self) -> u64 {
        self.start.byte + self.bytes.len() as u64
    }

    /// A line is printable ASCII, so that a cut splits no character.
    fn push(&mut self, line: &str) {
        let line = &line.as_bytes()[..line.len().min(LOG_LINE_BYTES)];
        while self.bytes.len() + line.len() + 1 > LOG_RING_BYTES {
            self.drop_oldest();
        }
        self.bytes.extend(line);
        self.bytes.push_back(b'\n');
    }

    fn drop_oldest(&mut self) {
        let end = self.bytes.iter().position(|byte| *byte == b'\n').map_or(self.bytes.len(), |at| at + 1);
        self.bytes.drain(..end);
        self.start.byte += end as u64;
        self.start.line += 1;
    }

    fn position(&self, lines: Option<usize>) -> Position {
        let all = self.bytes.iter().filter(|byte| **byte == b'\n').count();
        let skipped = lines.map_or(0, |lines| all.saturating_sub(lines));
        let mut ends = self.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let offset = match skipped {
            0 => 0,
            skipped => ends.nth(skipped - 1).map_or(0, |(at, _)| at + 1),
        };
        Position { byte: self.start.byte + offset as u64, line: self.start.line + skipped as u64 }
    }

    fn read(&self, position: &mut Position) -> Piece {
        let missed = self.start.line.saturating_sub(position.line);
        if missed > 0 {
            *position = self.start;
        }
        let offset = usize::try_from(position.byte - self.start.byte).unwrap_or(usize::MAX);
        let unread = self.bytes.iter().copied().skip(offset).take(LOG_CHUNK_BYTES);
        let mut text: Vec<u8> = unread.collect();
        // A line's bound is below the chunk's, so there is always a whole one.
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        position.byte += text.len() as u64;
        position.line += text.iter().filter(|byte| **byte == b'\n').count() as u64;
        Piece { missed, text: String::from_utf8_lossy(&text).into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(lines: impl IntoIterator<Item = usize>) -> Ring {
        let mut ring = Ring::new();
        for number in lines {
            ring.push(&format!("line {number}"));
        }
        ring
    }

    /// All that there is from a position on.
    fn rest(ring: &Ring, mut position: Position) -> (u64, String) {
        let (mut missed, mut text) = (0, String::new());
        loop {
            let piece = ring.read(&mut position);
            if piece == Piece::default() {
                return (missed, text);
            }
            missed += piece.missed;
            text += &piece.text;
        }
    }

    #[test]
    fn the_last_lines_are_found() {
        let ring = ring(1..=3);
        let last = |lines| rest(&ring, ring.position(lines)).1;
        assert_eq!(last(None), "line 1\nline 2\nline 3\n");
        assert_eq!(last(Some(2)), "line 2\nline 3\n");
        assert_eq!(last(Some(9)), "line 1\nline 2\nline 3\n");
        assert_eq!(last(Some(0)), "");
    }

    #[test]
    fn a_reader_that_falls_behind_is_told_how_many_lines_it_missed() {
        let mut ring = ring(0..1);
        let position = ring.position(None);
        let lines = 20_000;
        for number in 1..lines {
            ring.push(&format!("line {number}"));
        }
        assert!(ring.bytes.len() <= LOG_RING_BYTES && ring.bytes.len() > LOG_RING_BYTES - 20);
        let (missed, text) = rest(&ring, position);
        assert!(text.starts_with(&format!("line {missed}\n")), "{missed}: {text:.40}");
        assert!(text.ends_with(&format!("line {}\n", lines - 1)));
        assert_eq!(missed + text.lines().count() as u64, lines);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_is_written_is_read_once_and_in_order_or_counted(
            steps in proptest::collection::vec((0usize..6000, any::<bool>()), 1..60)
        ) {
            let mut ring = Ring::new();
            let mut position = ring.position(None);
            let (mut written, mut seen) = (0u64, 0u64);
            for (length, look) in steps {
                ring.push(&format!("{written} {}", "x".repeat(length)));
                written += 1;
                prop_assert!(ring.bytes.len() <= LOG_RING_BYTES);
                if !look {
                    continue;
                }
                let (missed, text) = rest(&ring, position);
                seen += missed;
                for line in text.lines() {
                    let number = line.split(" ").next().unwrap_or_default();
                    prop_assert_eq!(number, seen.to_string());
                    seen += 1;
                }
                prop_assert_eq!(seen, written);
                position = ring.position(Some(0));
            }
        }
    }
}
