//! The log for a client of the control socket, piece by piece.
//!
//! Nothing is kept for a client but its position: one that reads too slowly is told how many lines were overwritten before
//! it came to them, and one that takes nothing at all is dropped.

use std::io;

use tokio::net::unix::OwnedWriteHalf;
use tokio::time::timeout;

use super::protocol::{Answer, write_answer};
use crate::journal::ring::{self, Piece};
use crate::limits::LOG_WRITE_TIMEOUT;

/// Sends the last `lines` lines, or all that are kept, and then, if it is followed, every new one.
pub(super) async fn send(
    writer: &mut OwnedWriteHalf,
    follow: bool,
    lines: Option<usize>,
) -> io::Result<Answer> {
    let mut position = ring::position(lines);
    loop {
        let Piece { missed, text } = ring::read(&mut position);
        if !text.is_empty() {
            let answer = Answer::Log { missed, text };
            if timeout(LOG_WRITE_TIMEOUT, write_answer(writer, &answer)).await.is_err() {
                let unsent = ring::lines_behind(position);
                tracing::warn!(unsent, "log-reader-dropped");
                return Err(io::ErrorKind::TimedOut.into());
            }
        } else if follow {
            ring::written(position).await;
        } else {
            return Ok(Answer::Done);
        }
    }
}
