//! What lives no longer than one connection: the frames that wait to be sent, our CALLs, and the requests that
//! the embedder has yet to answer. Ids of an earlier connection are unknown here, so late answers find nothing.

use std::{collections::VecDeque, time::Instant};

use serde_json::value::RawValue;

use super::{
    CallId, RequestId,
    dispatch::Answer,
    outbox::Waiting,
    own::Own,
    trigger::{self, Triggered},
};
use crate::{
    frame::{MessageId, encode_call},
    limits::{MAX_OUTBOX, MAX_PENDING_ANSWERS},
    security::LinkSecurity,
};

/// The one CALL that may wait for its answer (OCPP-J 1.6 §4.1.1).
#[derive(Debug)]
struct Outstanding {
    id: MessageId,
    call: Own,
    since: Instant,
}

/// A frame that waits to be sent: at most one of them is a CALL, the outstanding one.
#[derive(Debug)]
enum Text {
    Call(String),
    Answer(String),
}

/// What the embedder was asked: an answer of another kind is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Change,
    Transfer,
    Log,
    Diagnostics,
    Call,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) security: LinkSecurity,
    pub(super) opened: Instant,
    /// When the last Heartbeat was sent, or when the time for the first one began to run.
    pub(super) last_heartbeat: Instant,
    /// The embedder's CALLs that wait for their turn.
    pub(super) waiting: Waiting,
    /// What the CSMS has triggered, and hasn't been sent yet.
    pub(super) triggered: trigger::Queue,
    /// The CSMS wants a reset: this connection is to end.
    pub(super) is_reset: bool,
    frames: VecDeque<Text>,
    outstanding: Option<Outstanding>,
    /// The CALL that was sent last, until the CSMS has answered it, also after it was given up.
    owed: Option<MessageId>,
    pending: heapless::Vec<(RequestId, Asked, MessageId), MAX_PENDING_ANSWERS>,
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(now: Instant, security: LinkSecurity) -> Self {
        Self {
            security,
            opened: now,
            last_heartbeat: now,
            waiting: Waiting::new(),
            triggered: trigger::Queue::new(),
            is_reset: false,
            frames: VecDeque::new(),
            outstanding: None,
            owed: None,
            pending: heapless::Vec::new(),
        }
    }

    /// Whether there is room for one more answer. Those to pending requests and the one CALL of ours come on
    /// top of the bound.
    pub(super) fn has_room(&self) -> bool {
        self.frames.len() < MAX_OUTBOX
    }

    /// Whether the embedder has as many requests to answer as may be.
    pub(super) fn is_embedder_busy(&self) -> bool {
        self.pending.is_full()
    }

    pub(super) fn next_frame(&mut self) -> Option<String> {
        match self.frames.pop_front()? {
            Text::Answer(text) => Some(text),
            Text::Call(text) => {
                self.owed = self.outstanding.as_ref().map(|outstanding| outstanding.id.clone());
                Some(text)
            }
        }
    }

    /// Whether the CSMS has a CALL of ours to answer.
    pub(super) fn is_owed_answer(&self) -> bool {
        self.owed.is_some()
    }

    /// The CSMS has answered the CALL of this id.
    pub(super) fn settle(&mut self, id: &MessageId) {
        self.owed.take_if(|owed| owed == id);
    }

    /// Nothing may be sent from now on, not even what is waiting to be.
    pub(super) fn silence(&mut self) {
        self.frames.clear();
        self.pending.clear();
        self.triggered.clear();
    }

    // --- our CALLs ---

    /// The next thing that was triggered; of the statuses of several connectors, one.
    pub(super) fn next_triggered(&mut self) -> Option<Triggered> {
        let triggered = self.triggered.pop_front()?;
        if let Triggered::Status { next, last } = triggered
            && next < last
        {
            // Its place has just become free.
            let _ = self.triggered.push_front(Triggered::Status { next: next + 1, last });
        }
        Some(triggered)
    }

    pub(super) fn call(&mut self, now: Instant, id: MessageId, call: Own, action: &str, payload: &RawValue) {
        self.frames.push_back(Text::Call(encode_call(&id, action, payload)));
        self.outstanding = Some(Outstanding { id, call, since: now });
    }

    pub(super) fn is_calling(&self) -> bool {
        self.outstanding.is_some()
    }

    /// How many CALLs of the embedder have come to no end yet.
    pub(super) fn calls(&self) -> usize {
        let outstanding = self.outstanding.as_ref().is_some_and(|it| matches!(it.call, Own::Embedder(_)));
        self.waiting.len() + usize::from(outstanding)
    }

    /// When our outstanding CALL was made.
    pub(super) fn called_at(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|outstanding| outstanding.since)
    }

    /// The CALL that an answer with this id belongs to; it is outstanding no more.
    pub(super) fn take_answered(&mut self, id: &MessageId) -> Option<Own> {
        self.settle(id);
        self.outstanding.take_if(|outstanding| outstanding.id == *id).map(|outstanding| outstanding.call)
    }

    /// The outstanding CALL, which is given up; if it wasn't sent by now, it never will be.
    pub(super) fn give_up(&mut self) -> Option<Own> {
        self.frames.retain(|frame| !matches!(frame, Text::Call(_)));
        self.outstanding.take().map(|outstanding| outstanding.call)
    }

    /// The outstanding CALL if it is the embedder's; it is outstanding no more.
    pub(super) fn take_embedders(&mut self) -> Option<CallId> {
        let Own::Embedder(id) = self.outstanding.as_ref()?.call else { return None };
        self.give_up();
        Some(id)
    }

    // --- the CSMS's CALLs ---

    pub(super) fn answer(&mut self, id: MessageId, answer: Answer) {
        self.frames.push_back(Text::Answer(answer.encode(id)));
    }

    /// Keeps a request until the embedder answers it; [`is_embedder_busy`](Self::is_embedder_busy) was asked
    /// before.
    pub(super) fn keep(&mut self, request: RequestId, asked: Asked, id: MessageId) {
        let _ = self.pending.push((request, asked, id));
    }

    /// The id of a request that was kept; it is kept no more.
    pub(super) fn take_kept(&mut self, request: RequestId, asked: Asked) -> Option<MessageId> {
        let is_it = |kept: &(RequestId, Asked, MessageId)| kept.0 == request && kept.1 == asked;
        let index = self.pending.iter().position(is_it)?;
        Some(self.pending.remove(index).2)
    }
}
