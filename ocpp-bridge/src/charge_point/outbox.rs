//! CALLs of the embedder: which wait, which is under way, and what becomes of each.
//!
//! Every CALL that is taken gets exactly one [`Event::Called`]. Its place is taken from then until the embedder
//! takes that event, so that the events of a lost connection always have room: at most [`MAX_CALLS`] of them.

use std::{collections::VecDeque, fmt, time::Instant};

use serde_json::value::RawValue;

use super::{ChargePoint, Event};
use crate::limits::{MAX_CALLS, MAX_DESCRIPTION_CHARS, MAX_RESULT_BYTES};

/// Names a CALL that the embedder asked for. Chosen by the embedder, and only ever handed back to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// A CALL of the embedder's, for the CSMS.
#[derive(Debug, Clone)]
pub struct Call {
    /// To be named in [`Event::Called`].
    pub id: CallId,
    /// The action, in the standard's spelling.
    pub action: &'static str,
    /// Its payload, a JSON object that is as the standard wants it: it is sent as it is.
    pub payload: Box<RawValue>,
}

/// What became of a CALL of the embedder.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The CSMS's CALLRESULT: its payload, at most [`MAX_RESULT_BYTES`] of JSON, otherwise anything.
    Result(Box<RawValue>),
    /// The CSMS's CALLERROR, or an answer that couldn't be read, which counts as a `GenericError`.
    Error {
        /// One of the standard's codes (OCPP-J 1.6 §4.2.3).
        code: String,
        /// The same for people: at most 255 characters, may be empty.
        description: String,
    },
    /// The CSMS didn't answer within `MessageTimeout`. It may have carried the CALL out all the same.
    Unanswered,
    /// It wasn't sent, or not answered before the connection ended: there was no connection, or the CSMS hasn't
    /// accepted us, or does so no more, or (by [`Command::Call`](crate::Command::Call) only) there was no place.
    Lost,
}

/// [`MAX_CALLS`] CALLs of the embedder wait for their answer, or for the embedder to take their events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The embedder's CALLs that wait for their turn.
pub(super) type Waiting = VecDeque<Call>;

// === impl ChargePoint ===

impl ChargePoint {
    /// Asks the CSMS something. [`Event::Called`] tells what became of it, exactly once.
    ///
    /// CALLs are sent in their order and one at a time (OCPP-J 1.6 §4.1.1), after the charge point's own, and only
    /// while the CSMS has accepted us: otherwise they are [`Outcome::Lost`] at once. None outlives its connection.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn call(&mut self, now: Instant, call: Call) -> Result<(), Full> {
        if self.untaken_outcomes() + self.connection.as_ref().map_or(0, |connection| connection.calls())
            >= MAX_CALLS
        {
            return Err(Full);
        }
        // Acceptance ends with the connection or by a reset. Both lose what waits; nothing else has to.
        match &mut self.connection {
            Some(connection) if self.boot.is_accepted() => connection.waiting.push_back(call),
            _ => self.called(call.id, Outcome::Lost),
        }
        self.send_due(now);
        Ok(())
    }

    /// The embedder's CALLs of this connection have come to nothing.
    pub(super) fn lose_calls(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let outstanding = connection.take_embedders();
        let waiting = std::mem::take(&mut connection.waiting);
        for id in outstanding.into_iter().chain(waiting.into_iter().map(|call| call.id)) {
            self.called(id, Outcome::Lost);
        }
    }

    /// [`call`](Self::call) has kept a place for the event.
    pub(super) fn called(&mut self, id: CallId, outcome: Outcome) {
        tracing::debug!(id = id.0, %outcome, "ocpp-called");
        self.events.push_back(Event::Called { id, outcome });
    }

    /// How many outcomes the embedder has yet to take.
    pub(super) fn untaken_outcomes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Called { .. })).count()
    }
}

// === impl Outcome ===

impl Outcome {
    pub(crate) fn of_result(payload: &RawValue) -> Self {
        if payload.get().len() > MAX_RESULT_BYTES {
            return Self::unreadable("the answer is too long");
        }
        Self::Result(payload.to_owned())
    }

    pub(crate) fn unreadable(reason: &str) -> Self {
        Self::error("GenericError", reason)
    }

    pub(crate) fn error(code: &str, description: &str) -> Self {
        let description = description.chars().take(MAX_DESCRIPTION_CHARS).collect();
        Self::Error { code: code.to_owned(), description }
    }
}

/// For the log.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Result(_) => f.write_str("answered"),
            Self::Error { code, .. } => f.write_str(code),
            Self::Unanswered => f.write_str("unanswered"),
            Self::Lost => f.write_str("lost"),
        }
    }
}

impl PartialEq for Outcome {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Result(one), Self::Result(another)) => one.get() == another.get(),
            (
                Self::Error { code, description },
                Self::Error { code: other_code, description: other_description },
            ) => code == other_code && description == other_description,
            (Self::Unanswered, Self::Unanswered) | (Self::Lost, Self::Lost) => true,
            _ => false,
        }
    }
}

// === impl Call ===

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.action == other.action && self.payload.get() == other.payload.get()
    }
}

// === impl Full ===

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAX_CALLS} calls wait for their answers")
    }
}

impl std::error::Error for Full {}
