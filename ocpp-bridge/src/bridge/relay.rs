//! Moves what two legs bring from one to the other, until either ends.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Instant,
};

use tokio::{sync::mpsc, time::sleep_until};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{
    filter::{Filter, Pass},
    leg::{Ending, Leg, Socket},
};
use crate::{Command, Event};

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
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
}

/// The embedder has closed its end of the commands.
#[derive(Debug)]
pub(super) struct Shutdown;

/// Two connected legs.
pub(super) struct Pair<D, U> {
    pub(super) controller: Leg<D>,
    pub(super) csms: Leg<U>,
    /// Which one is read first next time, so that neither starves the other.
    turn: bool,
}

/// What the embedder does.
enum Turn<'a> {
    Command(Option<Command>),
    /// It has room for an event, or is gone.
    Room(Option<mpsc::Permit<'a, Event>>),
}

// === impl Embedded ===

impl Embedded {
    /// Serves the embedder while something else happens, and nothing is relayed.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Shutdown> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                turn = turn(&mut self.commands, &self.events, self.filter.has_event()) => {
                    act(turn, &mut self.filter)?;
                }
            }
        }
    }
}

/// Waits for the embedder to do something. Safe to drop.
async fn turn<'a>(
    commands: &mut mpsc::Receiver<Command>,
    events: &'a mpsc::Sender<Event>,
    has_event: bool,
) -> Turn<'a> {
    tokio::select! {
        command = commands.recv() => Turn::Command(command),
        permit = events.reserve(), if has_event => Turn::Room(permit.ok()),
    }
}

fn act(turn: Turn<'_>, filter: &mut Filter) -> Result<(), Shutdown> {
    match turn {
        Turn::Command(None) => return Err(Shutdown),
        Turn::Command(Some(Command::SetValue { key, value })) => filter.set_value(&key, value),
        Turn::Command(Some(Command::AnswerChange { request, status })) => {
            filter.answer_change(request, status);
        }
        Turn::Command(Some(Command::Call(call))) => {
            let id = call.id;
            if filter.call(now(), call).is_err() {
                tracing::debug!(id = id.0, "bridge-call-without-place");
            }
        }
        // No event of a filter wants any of these.
        Turn::Command(Some(
            Command::AnswerTransfer { .. }
            | Command::AnswerUpload { .. }
            | Command::SetReport { .. }
            | Command::Connect { .. },
        )) => tracing::debug!("bridge-command-ignored"),
        Turn::Room(permit) => {
            if let (Some(event), Some(permit)) = (filter.poll_event(), permit) {
                permit.send(event);
            }
        }
    }
    Ok(())
}

/// Waits for the embedder, if there is one.
async fn maybe_turn<'a>(
    channels: Option<(&mut mpsc::Receiver<Command>, &'a mpsc::Sender<Event>)>,
    has_event: bool,
) -> Turn<'a> {
    match channels {
        Some((commands, events)) => turn(commands, events, has_event).await,
        None => std::future::pending().await,
    }
}

// === impl Pair ===

impl<D: Socket, U: Socket> Pair<D, U> {
    pub(super) fn new(controller: Leg<D>, csms: Leg<U>) -> Self {
        Self { controller, csms, turn: false }
    }

    /// Relays until one side ends, which the other is told. Without `embedded`, everything passes.
    pub(super) async fn run(
        mut self,
        mut embedded: Option<&mut Embedded>,
    ) -> Result<(Side, String), Shutdown> {
        loop {
            let (mut filter, channels) = match &mut embedded {
                Some(embedded) => {
                    (Some(&mut embedded.filter), Some((&mut embedded.commands, &embedded.events)))
                }
                None => (None, None),
            };
            let read = [self.reads_controller(filter.as_deref()), self.reads_csms(filter.as_deref())];
            let filter_due = filter.as_ref().and_then(|filter| filter.poll_timeout());
            let due = [self.controller.poll_timeout(read[0]), self.csms.poll_timeout(read[1]), filter_due];
            let due = due.into_iter().flatten().min();
            let has_event = filter.as_ref().is_some_and(|filter| filter.has_event());

            let ended = tokio::select! {
                moved = poll_fn(|cx| self.poll_move(cx, filter.as_deref_mut())) => moved.err(),
                turn = maybe_turn(channels, has_event) => {
                    if let Some(filter) = filter {
                        act(turn, filter)?;
                    }
                    None
                }
                () = sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => {
                    let now = now();
                    if let Some(filter) = filter {
                        filter.handle_timeout(now);
                    }
                    self.handle_timeout(now, read).err()
                }
            };
            if let Some((side, ending)) = ended {
                let Self { controller, csms, .. } = self;
                let farewell = ending.farewell;
                tokio::join!(
                    controller.close(farewell.clone(), side == Side::Controller),
                    csms.close(farewell, side == Side::Csms),
                );
                return Ok((side, ending.reason));
            }
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

    /// Writes what is queued, and moves one message. Ready when the state has changed.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        mut filter: Option<&mut Filter>,
    ) -> Poll<Result<(), (Side, Ending)>> {
        // Ours goes before what the controller sends next.
        while let Some(text) = filter.as_mut().and_then(|filter| filter.poll_upstream()) {
            self.csms.queue(Message::text(text));
        }
        let waited = [self.controller.has_room(), self.csms.has_room()];
        if let Poll::Ready(Err(ending)) = self.controller.poll_write(cx) {
            return Poll::Ready(Err((Side::Controller, ending)));
        }
        if let Poll::Ready(Err(ending)) = self.csms.poll_write(cx) {
            return Poll::Ready(Err((Side::Csms, ending)));
        }
        if waited != [self.controller.has_room(), self.csms.has_room()] {
            // Legs are read again, so that their silence counts: the timer has to know.
            return Poll::Ready(Ok(()));
        }
        self.turn = !self.turn;
        let sides = if self.turn { [Side::Controller, Side::Csms] } else { [Side::Csms, Side::Controller] };
        for side in sides {
            let read = match side {
                Side::Controller if self.reads_controller(filter.as_deref()) => {
                    self.controller.poll_read(cx, now())
                }
                Side::Csms if self.reads_csms(filter.as_deref()) => self.csms.poll_read(cx, now()),
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

    fn pass(&mut self, from: Side, message: Message, filter: Option<&mut Filter>) {
        let pass = match (&message, filter) {
            (Message::Text(text), Some(filter)) => match from {
                Side::Controller => filter.from_controller(now(), text),
                Side::Csms => filter.from_csms(now(), text),
            },
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
