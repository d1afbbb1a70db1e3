//! Moves what two legs bring from one to the other, until either ends.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::sleep_until,
};
use tokio_tungstenite::tungstenite::{
    Message, Utf8Bytes,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{
    filter::{Filter, Pass},
    leg::{Ending, Farewell, Leg, Socket},
    status::Desk,
    timing::RoundTrips,
};
use crate::{
    CallId, Command, ConnectionProfile, Event, Full, Outcome, RegistrationStatus,
    limits::{MAX_BATCH, PROVEN_AFTER},
};

/// The two sides of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Controller,
    Csms,
}

/// A filter, and whoever answers for the keys in it.
#[derive(Debug)]
pub(super) struct Embedded {
    pub(super) filter: Filter,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    /// A CALL of the embedder that had no place, until it has been told.
    surplus: Option<CallId>,
    /// What connections are to be made with from now on.
    change: Option<Change>,
}

/// A [`Command::Connect`] that waits to be carried out.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) profile: Box<ConnectionProfile>,
    pub(super) number: u64,
    at_once: bool,
}

/// The embedder has closed its end of the commands.
#[derive(Debug)]
pub(super) struct Shutdown;

/// Two connected legs.
pub(super) struct Pair<D, U> {
    pub(super) controller: Leg<D>,
    pub(super) csms: Leg<U>,
    /// Texts go through the embedder's filter.
    is_filtered: bool,
    /// How long answers take, where there is no filter that knows.
    times: RoundTrips,
    /// When the connection counts as good although the CSMS has said nothing on it; `None` once it does.
    unproven: Option<Instant>,
    /// Which one is read first next time, so that neither starves the other.
    turn: bool,
}

/// How relaying came to its end.
#[derive(Debug)]
pub(super) enum Finished<T> {
    /// One side has ended it, and the other is told meanwhile. `unproven`: it was the CSMS, before it counted as good.
    Ended { reason: String, unproven: bool },
    /// What was to interrupt it has come. Both sides are told meanwhile.
    Interrupted(T, JoinHandle<()>),
    /// The embedder wants it made anew, in another way. Both sides are told meanwhile.
    Changed,
}

/// What the embedder does.
enum Turn<'a> {
    Command(Option<Command>),
    /// It has room for an event, or is gone.
    Room(Option<mpsc::Permit<'a, Event>>),
}

// === impl Side ===

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Controller => Self::Csms,
            Self::Csms => Self::Controller,
        }
    }
}

// === impl Embedded ===

impl Embedded {
    pub(super) fn new(
        filter: Filter,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self { filter, commands, events, surplus: None, change: None }
    }

    /// Serves the embedder while something else happens, and nothing is relayed. `None`: it has another way to connect,
    /// which [`take_change`](Self::take_change) has.
    pub(super) async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Shutdown> {
        let mut work = pin!(work);
        while self.change.is_none() {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                turn = turn(&mut self.commands, &self.events, self.surplus.is_some(), self.filter.has_event()) => {
                    act(turn, &mut self.filter, &mut self.surplus, &mut self.change)?;
                }
            }
        }
        Ok(None)
    }

    /// How to connect from now on, if that was asked for.
    pub(super) fn take_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    fn is_change_urgent(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.at_once)
    }
}

/// Waits for the embedder to do something. Safe to drop.
async fn turn<'a>(
    commands: &mut mpsc::Receiver<Command>,
    events: &'a mpsc::Sender<Event>,
    has_surplus: bool,
    has_event: bool,
) -> Turn<'a> {
    tokio::select! {
        command = commands.recv(), if !has_surplus => Turn::Command(command),
        permit = events.reserve(), if has_surplus || has_event => Turn::Room(permit.ok()),
    }
}

fn act(
    turn: Turn<'_>,
    filter: &mut Filter,
    surplus: &mut Option<CallId>,
    change: &mut Option<Change>,
) -> Result<(), Shutdown> {
    match turn {
        Turn::Command(None) => return Err(Shutdown),
        Turn::Command(Some(Command::SetValue { key, value })) => filter.set_value(&key, value),
        Turn::Command(Some(Command::AnswerChange { request, status })) => {
            filter.answer_change(request, status);
        }
        Turn::Command(Some(Command::Call(call))) => {
            let id = call.id;
            *surplus = filter.call(now(), call).err().map(|Full| id);
        }
        Turn::Command(Some(Command::Connect { profile, number, at_once })) => {
            *change = Some(Change { profile, number, at_once });
        }
        // No event of a filter wants any of these.
        Turn::Command(Some(
            Command::AnswerTransfer { .. }
            | Command::AnswerUpload { .. }
            | Command::AnswerCall { .. }
            | Command::SetReport { .. },
        )) => tracing::debug!("bridge-command-ignored"),
        Turn::Room(permit) => {
            let lost = surplus.take().map(|id| Event::Called { id, outcome: Outcome::Lost });
            if let (Some(event), Some(permit)) = (lost.or_else(|| filter.poll_event()), permit) {
                permit.send(event);
            }
        }
    }
    Ok(())
}

// === impl Pair ===

impl<D: Socket + 'static, U: Socket + 'static> Pair<D, U> {
    /// Texts go through the embedder's filter, or else everything passes.
    pub(super) fn new(controller: Leg<D>, csms: Leg<U>, is_filtered: bool) -> Self {
        let unproven = Some(now() + PROVEN_AFTER);
        Self { controller, csms, is_filtered, times: RoundTrips::default(), unproven, turn: false }
    }

    /// Relays until one side ends, which the other is told, or something else is more important. `doubts` tells that the
    /// controller may be gone.
    pub(super) async fn run<T>(
        mut self,
        embedded: &mut Embedded,
        desk: &Desk,
        doubts: &Notify,
        interruption: impl Future<Output = T>,
    ) -> Result<Finished<T>, Shutdown> {
        let mut interruption = pin!(interruption);
        let mut boot = None;
        loop {
            if embedded.is_change_urgent() {
                // Not waited for: the controller may come back at once, and is to find what it was sent away for.
                tokio::spawn(self.farewell(&mut embedded.filter, CloseCode::Restart, ""));
                return Ok(Finished::Changed);
            }
            self.publish(&embedded.filter, desk, &mut boot);
            let filter = self.is_filtered.then_some(&embedded.filter);
            let read = [self.reads_controller(filter), self.reads_csms(filter)];
            let due = [
                self.controller.poll_timeout(read[0]),
                self.csms.poll_timeout(read[1]),
                filter.and_then(Filter::poll_timeout),
                self.unproven,
            ];
            let due = due.into_iter().flatten().min();
            let has_event = embedded.filter.has_event();
            let Embedded { filter, commands, events, surplus, change } = &mut *embedded;

            let ended = tokio::select! {
                moved = poll_fn(|cx| self.poll_move(cx, filter)) => moved.err(),
                turn = turn(commands, events, surplus.is_some(), has_event) => {
                    if act(turn, filter, surplus, change).is_err() {
                        self.farewell(filter, CloseCode::Away, "").await;
                        return Err(Shutdown);
                    }
                    None
                }
                () = doubts.notified() => {
                    self.controller.doubt(now());
                    None
                }
                cause = &mut interruption => {
                    let closing = self.farewell(filter, CloseCode::Away, "another connection takes over");
                    return Ok(Finished::Interrupted(cause, tokio::spawn(closing)));
                }
                () = sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => {
                    let now = now();
                    self.unproven.take_if(|due| *due <= now).is_some().then(|| desk.proven());
                    filter.handle_timeout(now);
                    self.handle_timeout(now, read).err()
                }
            };
            if let Some((by, Ending { reason, farewell })) = ended {
                let unproven = self.unproven.is_some() && by == Side::Csms;
                let Self { controller, csms, .. } = self;
                // Not waited for: a controller that comes back at once is to be served at once.
                tokio::spawn(async move {
                    tokio::join!(
                        controller.close(farewell.clone(), by == Side::Controller),
                        csms.close(farewell, by == Side::Csms),
                    );
                });
                return Ok(Finished::Ended { reason, unproven });
            }
        }
    }

    /// Shows how much has passed, and what became of the controller's registration.
    fn publish(&mut self, filter: &Filter, desk: &Desk, shown: &mut Option<RegistrationStatus>) {
        let times = if self.is_filtered { filter.round_trips() } else { &self.times };
        self.controller.figures.round_trip = times.last(Side::Controller);
        self.csms.figures.round_trip = times.last(Side::Csms);
        desk.figures(self.controller.figures, self.csms.figures);
        if self.csms.figures.frames_in > 0 && self.unproven.take().is_some() {
            desk.proven();
        }
        let boot = filter.registration().filter(|_| self.is_filtered);
        if boot.is_some() && *shown != boot {
            desk.booted(boot.clone());
            *shown = boot;
        }
    }

    /// Says goodbye to both sides, after what is due to them.
    fn farewell(
        mut self,
        filter: &mut Filter,
        code: CloseCode,
        reason: &'static str,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.take_ours(filter);
        let farewell = Farewell::Close(Some(CloseFrame { code, reason: reason.into() }));
        let Self { controller, csms, .. } = self;
        async {
            tokio::join!(controller.close(farewell.clone(), false), csms.close(farewell, false));
        }
    }

    /// Ours goes before what the controller sends next.
    fn take_ours(&mut self, filter: &mut Filter) {
        while let Some(text) = filter.poll_upstream() {
            self.csms.queue(Message::text(text));
        }
    }

    fn handle_timeout(&mut self, now: Instant, read: [bool; 2]) -> Result<(), (Side, Ending)> {
        self.controller.handle_timeout(now, read[0]).map_err(|ending| (Side::Controller, ending))?;
        self.csms.handle_timeout(now, read[1]).map_err(|ending| (Side::Csms, ending))
    }

    fn reads_controller(&self, filter: Option<&Filter>) -> bool {
        self.csms.has_room() && filter.is_none_or(Filter::wants_controller)
    }

    fn reads_csms(&self, filter: Option<&Filter>) -> bool {
        self.controller.has_room() && filter.is_none_or(Filter::wants_csms)
    }

    /// Moves the messages that are there already, a batch of them at most, and has them written. Ready when the state has
    /// changed.
    fn poll_move(&mut self, cx: &mut Context<'_>, filter: &mut Filter) -> Poll<Result<(), (Side, Ending)>> {
        let waited = [self.controller.has_room(), self.csms.has_room()];
        let mut moved = false;
        for _ in 0..MAX_BATCH {
            match self.poll_step(cx, filter) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(ended)) => return Poll::Ready(Err(ended)),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(ending)) = self.controller.poll_flush(cx) {
            return Poll::Ready(Err((Side::Controller, ending)));
        }
        if let Poll::Ready(Err(ending)) = self.csms.poll_flush(cx) {
            return Poll::Ready(Err((Side::Csms, ending)));
        }
        // Legs that are read again: their silence counts from now on, and the timer has to know.
        let changed = moved || waited != [self.controller.has_room(), self.csms.has_room()];
        if changed { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Hands over what is queued, and moves one message.
    fn poll_step(&mut self, cx: &mut Context<'_>, filter: &mut Filter) -> Poll<Result<(), (Side, Ending)>> {
        self.take_ours(filter);
        if let Poll::Ready(Err(ending)) = self.controller.poll_feed(cx) {
            return Poll::Ready(Err((Side::Controller, ending)));
        }
        if let Poll::Ready(Err(ending)) = self.csms.poll_feed(cx) {
            return Poll::Ready(Err((Side::Csms, ending)));
        }
        self.turn = !self.turn;
        let sides = if self.turn { [Side::Controller, Side::Csms] } else { [Side::Csms, Side::Controller] };
        for side in sides {
            let judge = self.is_filtered.then_some(&*filter);
            let read = match side {
                Side::Controller if self.reads_controller(judge) => self.controller.poll_read(cx, now()),
                Side::Csms if self.reads_csms(judge) => self.csms.poll_read(cx, now()),
                _ => Poll::Pending,
            };
            if let Poll::Ready(read) = read {
                return Poll::Ready(
                    read.map(|message| self.pass(side, message, filter)).map_err(|ending| (side, ending)),
                );
            }
        }
        Poll::Pending
    }

    fn pass(&mut self, from: Side, message: Message, filter: &mut Filter) {
        let now = now();
        let pass = match &message {
            Message::Text(text) if !self.is_filtered => {
                self.times.passed(from, now, text);
                Pass::Unchanged
            }
            Message::Text(text) if from == Side::Controller => filter.from_controller(now, text),
            Message::Text(text) => filter.from_csms(now, text),
            _ => Pass::Unchanged,
        };
        let message = match pass {
            Pass::Unchanged => message,
            Pass::Changed(text) => Message::Text(Utf8Bytes::from(text)),
            Pass::Nothing => return,
        };
        match from {
            Side::Controller => self.csms.queue(message),
            Side::Csms => self.controller.queue(message),
        }
    }
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
