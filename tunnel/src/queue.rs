//! Bytes that wait for a local service, in chunks that are used again.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{CHUNK, SPARE_CHUNKS};

/// Chunks that a tunnel's connections have emptied and share, so that a transfer at full speed needs no new ones.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    fn take(&self) -> Vec<u8> {
        self.list().pop().unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn give(&self, mut chunk: Vec<u8>) {
        let mut list = self.list();
        if list.len() < SPARE_CHUNKS {
            chunk.clear();
            list.push(chunk);
        }
    }

    /// Gives their memory back.
    pub(crate) fn clear(&self) {
        *self.list() = Vec::new();
    }

    fn list(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes, first in, first out. Small pieces share a chunk, so that they take no more memory than their bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    chunks: VecDeque<Vec<u8>>,
    /// How much of the first chunk is gone.
    gone: usize,
    len: usize,
    spares: Arc<Spares>,
}

impl Queue {
    pub(crate) fn new(spares: Arc<Spares>) -> Self {
        Self { chunks: VecDeque::new(), gone: 0, len: 0, spares }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, mut data: &[u8]) {
        self.len += data.len();
        while !data.is_empty() {
            if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK) {
                self.chunks.push_back(self.spares.take());
            }
            let Some(chunk) = self.chunks.back_mut() else { return };
            let (now, later) = data.split_at(data.len().min(CHUNK - chunk.len()));
            chunk.extend_from_slice(now);
            data = later;
        }
    }

    /// The first bytes, in as many pieces as there is room for.
    pub(crate) fn slices<'a, 'b>(&'a self, slices: &'b mut [IoSlice<'a>]) -> &'b [IoSlice<'a>] {
        let mut count = 0;
        let mut gone = self.gone;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk.get(gone..).unwrap_or_default());
            (gone, count) = (0, count + 1);
        }
        slices.get(..count).unwrap_or_default()
    }

    /// Drops so many of the first bytes.
    pub(crate) fn advance(&mut self, mut bytes: usize) {
        self.len = self.len.saturating_sub(bytes);
        while let Some(left) = self.chunks.front().map(|chunk| chunk.len() - self.gone) {
            if bytes < left {
                self.gone += bytes;
                return;
            }
            bytes -= left;
            self.gone = 0;
            if let Some(chunk) = self.chunks.pop_front() {
                self.spares.give(chunk);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.advance(self.len);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while queue.len() > 0 {
            let mut slices = [IoSlice::new(&[]); 3];
            let first: Vec<u8> =
                queue.slices(&mut slices).iter().flat_map(|slice| slice.to_vec()).take(step).collect();
            assert!(!first.is_empty());
            queue.advance(first.len());
            all.extend(first);
        }
        all
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_pieces() {
        for (piece, step) in [(1, 1), (7, 3), (CHUNK, CHUNK), (CHUNK - 1, CHUNK + 1), (3 * CHUNK + 5, 1000)] {
            let mut queue = Queue::new(Arc::default());
            let mut all = Vec::new();
            for number in 0..9_u8 {
                let data: Vec<u8> = (0..piece).map(|at| number.wrapping_add(at as u8)).collect();
                queue.push(&data);
                all.extend(data);
            }
            assert_eq!(queue.len(), all.len());
            assert!(drain(&mut queue, step) == all, "pieces of {piece}, {step} at a time");
        }
    }

    #[test]
    fn small_pieces_share_a_chunk() {
        let mut queue = Queue::new(Arc::default());
        for _ in 0..CHUNK {
            queue.push(b"x");
        }
        assert_eq!(queue.chunks.len(), 1);
    }

    #[test]
    fn chunks_are_used_again_and_few_are_kept() {
        let spares = Arc::new(Spares::default());
        let mut queue = Queue::new(spares.clone());
        queue.push(&vec![0; 20 * CHUNK]);
        drop(queue);
        assert_eq!(spares.list().len(), SPARE_CHUNKS);
        let mut queue = Queue::new(spares.clone());
        queue.push(b"again");
        assert_eq!(spares.list().len(), SPARE_CHUNKS - 1);
        assert_eq!(drain(&mut queue, 100), b"again");
        spares.clear();
        assert_eq!(spares.list().capacity(), 0);
    }
}
