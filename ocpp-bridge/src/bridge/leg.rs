//! One of the two WebSockets of a relayed connection: what is queued for it, its pings, and what passed.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    Message,
    error::{CapacityError, Error, ProtocolError},
    protocol::CloseFrame,
};

use crate::limits::{CLOSE_TIMEOUT, MAX_QUOTED_CHARS};

/// A WebSocket: tokio-tungstenite's, on whatever transport.
pub(super) trait Socket:
    Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send + Unpin
{
}
impl<T: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send + Unpin> Socket for T {}

/// What a leg has carried, since it was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegFigures {
    /// When it was connected.
    pub since: Instant,
    /// Messages that came over it.
    pub frames_in: u64,
    /// Their payload, in bytes.
    pub bytes_in: u64,
    /// Messages that were sent over it.
    pub frames_out: u64,
    /// Their payload, in bytes.
    pub bytes_out: u64,
    /// When the last message came.
    pub last_frame: Option<Instant>,
    /// How long its other end took to answer the last CALL.
    pub round_trip: Option<Duration>,
}

/// One leg.
pub(super) struct Leg<S> {
    socket: S,
    /// Who is at its other end, for people.
    peer: &'static str,
    queue: VecDeque<Message>,
    /// The kernel has no room for what was handed over.
    is_blocked: bool,
    pub(super) figures: LegFigures,
    ping_interval: Option<Duration>,
    pong_timeout: Duration,
    /// When the peer last gave a sign of life.
    heard: Instant,
    /// When a ping was sent that nothing has followed yet.
    pinged: Option<Instant>,
}

/// How a leg ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// For people.
    pub(super) reason: String,
    pub(super) farewell: Farewell,
}

/// What the peer said at the end, which the other side is to hear as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nothing: the connection broke.
    Nothing,
    /// A close frame, perhaps without a code.
    Close(Option<CloseFrame>),
}

// === impl Leg ===

impl<S: Socket> Leg<S> {
    pub(super) fn new(
        socket: S,
        peer: &'static str,
        now: Instant,
        ping_interval: Option<Duration>,
        pong_timeout: Duration,
    ) -> Self {
        let figures = LegFigures {
            since: now,
            frames_in: 0,
            bytes_in: 0,
            frames_out: 0,
            bytes_out: 0,
            last_frame: None,
            round_trip: None,
        };
        Self {
            socket,
            peer,
            queue: VecDeque::new(),
            is_blocked: false,
            figures,
            ping_interval,
            pong_timeout,
            heard: now,
            pinged: None,
        }
    }

    /// Whether all that was queued has been written. While it hasn't, nothing is read for this leg but for the rest of a
    /// batch, so that whoever sends to it is slowed down.
    pub(super) fn has_room(&self) -> bool {
        self.queue.is_empty() && !self.is_blocked
    }

    pub(super) fn queue(&mut self, message: Message) {
        self.figures.frames_out += 1;
        self.figures.bytes_out += message.len() as u64;
        self.queue.push_back(message);
    }

    /// Hands what is queued to the WebSocket layer, which gathers a little before it writes; ready when nothing is queued.
    pub(super) fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        let fed = self.poll_feed_inner(cx);
        fed.map_err(|error| self.broken(&error))
    }

    /// Has all of it written; ready when it is.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        let flushed = match self.poll_feed_inner(cx) {
            Poll::Ready(Ok(())) => self.socket.poll_flush_unpin(cx),
            other => other,
        };
        self.is_blocked = flushed.is_pending();
        flushed.map_err(|error| self.broken(&error))
    }

    fn poll_feed_inner(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.queue.is_empty() {
            ready!(self.socket.poll_ready_unpin(cx))?;
            if let Some(message) = self.queue.pop_front() {
                self.socket.start_send_unpin(message)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next message that is for the other side.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<Message, Ending>> {
        loop {
            let message = ready!(self.socket.poll_next_unpin(cx));
            (self.heard, self.pinged) = (now, None);
            return Poll::Ready(match message {
                None => Err(self.lost("closed the connection")),
                Some(Err(error)) => Err(self.broken(&error)),
                Some(Ok(Message::Close(frame))) => Err(self.closed(frame)),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(message)) => {
                    self.figures.frames_in += 1;
                    self.figures.bytes_in += message.len() as u64;
                    self.figures.last_frame = Some(now);
                    Ok(message)
                }
            });
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). While nobody reads this leg, its silence says nothing.
    pub(super) fn poll_timeout(&self, is_read: bool) -> Option<Instant> {
        match self.pinged {
            Some(pinged) => Some(pinged + self.pong_timeout).filter(|_| is_read),
            None => self.ping_interval.map(|interval| self.heard + interval),
        }
    }

    /// Pings a peer that has been silent, and gives up one that stays so.
    pub(super) fn handle_timeout(&mut self, now: Instant, is_read: bool) -> Result<(), Ending> {
        if self.poll_timeout(is_read).is_none_or(|due| due > now) {
            return Ok(());
        }
        if self.pinged.is_some() {
            let seconds = self.pong_timeout.as_secs_f32();
            return Err(self.lost(&format!("didn't answer a ping in {seconds} s")));
        }
        self.doubt(now);
        Ok(())
    }

    /// Pings the peer at once, however short its silence: something else says that it may be gone.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.pinged.is_none() {
            self.pinged = Some(now);
            self.queue.push_back(Message::Ping(Default::default()));
        }
    }

    /// Ends this leg as the other one ended, or answers the end that the peer of this one has announced; as far as it plays
    /// along, and not for long.
    pub(super) async fn close(mut self, farewell: Farewell, is_own: bool) {
        let closing = async {
            match farewell {
                Farewell::Nothing if is_own => return Ok(()),
                // What came before the other side broke still arrives.
                Farewell::Nothing => return self.write_queued().await,
                // The WebSocket layer has the reply ready.
                Farewell::Close(_) if is_own => self.socket.flush().await?,
                Farewell::Close(frame) => {
                    self.write_queued().await?;
                    self.socket.send(Message::Close(frame)).await?;
                }
            }
            while let Some(message) = self.socket.next().await {
                message?;
            }
            Ok::<(), Error>(())
        };
        if let Ok(Err(error)) = timeout(CLOSE_TIMEOUT, closing).await {
            tracing::debug!(peer = self.peer, %error, "bridge-close-incomplete");
        }
    }

    async fn write_queued(&mut self) -> Result<(), Error> {
        for message in std::mem::take(&mut self.queue) {
            self.socket.feed(message).await?;
        }
        self.socket.flush().await
    }

    fn lost(&self, what: &str) -> Ending {
        Ending { reason: format!("{} {what}", self.peer), farewell: Farewell::Nothing }
    }

    fn broken(&self, error: &Error) -> Ending {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                self.lost("closed the connection without saying why")
            }
            Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                self.lost(&format!("sent a message of {size} bytes, more than {max_size}"))
            }
            error => Ending {
                reason: format!("the connection to {} broke: {error}", self.peer),
                farewell: Farewell::Nothing,
            },
        }
    }

    fn closed(&self, frame: Option<CloseFrame>) -> Ending {
        let said = match &frame {
            None => String::new(),
            Some(frame) if frame.reason.is_empty() => format!(": {}", u16::from(frame.code)),
            Some(frame) => {
                let said: String = frame.reason.chars().take(MAX_QUOTED_CHARS).collect();
                format!(": {} {said:?}", u16::from(frame.code))
            }
        };
        // Some codes only stand for what is no frame at all (RFC 6455 §7.4.1).
        let frame = frame.filter(|frame| frame.code.is_allowed());
        Ending {
            reason: format!("{} closed the connection{said}", self.peer),
            farewell: Farewell::Close(frame),
        }
    }
}
