//! What lives no longer than one connection: the outbox, our outstanding CALL, and the requests that the
//! embedder has yet to answer. Ids of an earlier connection are unknown here, so late answers find nothing.

use std::{collections::VecDeque, time::Instant};

use serde_json::value::RawValue;

use super::{RequestId, dispatch::Answer};
use crate::{
    frame::{Action, Frame, MessageId},
    limits::{MAX_OUTBOX, MAX_PENDING_ANSWERS},
    security::LinkSecurity,
};

/// The CALLs that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    BootNotification,
    Heartbeat,
}

/// The one CALL that may wait for its answer (OCPP-J 1.6 §4.1.1).
#[derive(Debug)]
struct Outstanding {
    id: MessageId,
    call: Own,
    deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) security: LinkSecurity,
    /// When the last Heartbeat was sent, or when the time for the first one began to run.
    pub(super) last_heartbeat: Instant,
    outbox: VecDeque<String>,
    outstanding: Option<Outstanding>,
    pending: heapless::Vec<(RequestId, MessageId), MAX_PENDING_ANSWERS>,
}

// === impl Own ===

impl Own {
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::BootNotification => "BootNotification",
            Self::Heartbeat => "Heartbeat",
        }
    }
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(now: Instant, security: LinkSecurity) -> Self {
        Self {
            security,
            last_heartbeat: now,
            outbox: VecDeque::new(),
            outstanding: None,
            pending: heapless::Vec::new(),
        }
    }

    /// Whether there is room for one more answer. Those to pending requests and the one CALL of ours come on
    /// top of the outbox's bound.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < MAX_OUTBOX
    }

    /// Whether the embedder has as many requests to answer as may be.
    pub(super) fn is_embedder_busy(&self) -> bool {
        self.pending.is_full()
    }

    pub(super) fn next_frame(&mut self) -> Option<String> {
        self.outbox.pop_front()
    }

    /// Nothing may be sent from now on, not even what is waiting to be.
    pub(super) fn silence(&mut self) {
        self.outbox.clear();
        self.pending.clear();
    }

    // --- our CALL ---

    pub(super) fn call(&mut self, id: MessageId, call: Own, payload: &RawValue, deadline: Instant) {
        let action = Action::try_from(call.action()).unwrap_or_default();
        self.outbox.push_back(Frame::Call { id: id.clone(), action, payload }.encode());
        self.outstanding = Some(Outstanding { id, call, deadline });
    }

    /// When our outstanding CALL, if there is one, counts as unanswered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|outstanding| outstanding.deadline)
    }

    /// The CALL that an answer with this id belongs to; it is outstanding no more.
    pub(super) fn take_answered(&mut self, id: &MessageId) -> Option<Own> {
        self.outstanding.take_if(|outstanding| outstanding.id == *id).map(|outstanding| outstanding.call)
    }

    /// The CALL that has waited too long; it is outstanding no more.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Own> {
        self.outstanding
            .take_if(|outstanding| outstanding.deadline <= now)
            .map(|outstanding| outstanding.call)
    }

    // --- the CSMS's CALLs ---

    pub(super) fn answer(&mut self, id: MessageId, answer: Answer) {
        let text = match answer {
            Answer::Result(payload) => Frame::CallResult { id, payload: &payload }.encode(),
            Answer::Error(refusal) => {
                Frame::CallError { id, code: refusal.code, description: refusal.reason.into() }.encode()
            }
        };
        self.outbox.push_back(text);
    }

    /// Keeps a request until the embedder answers it; [`is_embedder_busy`](Self::is_embedder_busy) was asked
    /// before.
    pub(super) fn keep(&mut self, request: RequestId, id: MessageId) {
        let _ = self.pending.push((request, id));
    }

    /// The id of a request that was kept; it is kept no more.
    pub(super) fn take_kept(&mut self, request: RequestId) -> Option<MessageId> {
        let index = self.pending.iter().position(|(kept, _)| *kept == request)?;
        Some(self.pending.remove(index).1)
    }
}
