//! One live WebSocket: reading and writing at once, pings and their deadline, and the end.

use std::{
    borrow::Cow,
    io::ErrorKind,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    Message, Utf8Bytes,
    error::{CapacityError, Error, ProtocolError},
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::connect::Socket;
use crate::{
    ChargePoint,
    limits::{CLOSE_TIMEOUT, MAX_QUOTED_CHARS},
};

/// One live WebSocket.
pub(super) struct Session {
    socket: Socket,
    pong_timeout: Duration,
    /// When the CSMS last gave a sign of life.
    heard: Instant,
    /// When a ping was sent that nothing has followed yet.
    pinged: Option<Instant>,
    /// The ping is still to be written.
    ping_waits: bool,
    /// The embedder keeps us from reading, so silence says nothing about the CSMS.
    excused: bool,
}

/// What the socket brought.
pub(super) enum Input {
    /// A message for the charge point.
    Text(Utf8Bytes),
    /// A ping, a pong: a sign of life.
    Life,
    /// The end.
    Ended(Ending),
}

/// How a connection ends.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) reason: Cow<'static, str>,
    farewell: Farewell,
}

/// What is left to say.
#[derive(Debug, Clone, Copy)]
enum Farewell {
    /// There is nobody to say it to.
    Nothing,
    /// The CSMS has said its own, and the WebSocket layer has the reply ready.
    Reply,
    /// A close frame of ours, with this code.
    Close(CloseCode),
}

// === impl Session ===

impl Session {
    pub(super) fn new(socket: Socket, now: Instant, pong_timeout: Duration) -> Self {
        Self { socket, pong_timeout, heard: now, pinged: None, ping_waits: false, excused: false }
    }

    /// Writes what the charge point has to send, and reads if that has room for what comes.
    ///
    /// Safe to drop and call again: nothing is lost.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, charge_point: &mut ChargePoint) -> Poll<Input> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx, charge_point) {
            return Poll::Ready(Input::Ended(Ending::of_error(&error)));
        }
        // Asked after writing, which makes room: nobody would wake us to ask again.
        if !charge_point.wants_text() {
            return Poll::Pending;
        }
        let input = match ready!(self.socket.poll_next_unpin(cx)) {
            None => Input::Ended(Ending::lost("the CSMS closed the connection")),
            Some(Err(error)) => Input::Ended(Ending::of_error(&error)),
            Some(Ok(Message::Text(text))) => Input::Text(text),
            Some(Ok(Message::Close(frame))) => Input::Ended(Ending::of_close(frame)),
            Some(Ok(Message::Binary(_))) => {
                Input::Ended(Ending::refused("the CSMS sent a binary message", CloseCode::Unsupported))
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Input::Life,
        };
        Poll::Ready(input)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        charge_point: &mut ChargePoint,
    ) -> Poll<Result<(), Error>> {
        loop {
            ready!(self.socket.poll_ready_unpin(cx))?;
            if std::mem::take(&mut self.ping_waits) {
                self.socket.start_send_unpin(Message::Ping(Default::default()))?;
            } else if let Some(text) = charge_point.poll_transmit() {
                self.socket.start_send_unpin(Message::text(text))?;
            } else {
                return self.socket.poll_flush_unpin(cx);
            }
        }
    }

    /// The CSMS gave a sign of life.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// Whether the embedder keeps us from reading. Meanwhile the CSMS isn't blamed for silence, and its time
    /// for a pong begins anew afterwards.
    pub(super) fn set_excused(&mut self, excused: bool, now: Instant) {
        if self.excused && !excused {
            self.pinged = self.pinged.map(|_| now);
        }
        self.excused = excused;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(super) fn poll_timeout(&self, ping_interval: Option<Duration>) -> Option<Instant> {
        match self.pinged {
            Some(_) if self.excused => None,
            Some(pinged) => Some(pinged + self.pong_timeout),
            None => ping_interval.map(|interval| self.heard + interval),
        }
    }

    /// Pings a CSMS that has been silent, and gives up one that stays so.
    pub(super) fn handle_timeout(&mut self, now: Instant, ping_interval: Option<Duration>) -> Option<Ending> {
        if self.poll_timeout(ping_interval).is_none_or(|due| due > now) {
            return None;
        }
        if self.pinged.is_some() {
            let seconds = self.pong_timeout.as_secs_f32();
            return Some(Ending::lost(format!("the CSMS didn't answer a ping in {seconds} s")));
        }
        self.pinged = Some(now);
        self.ping_waits = true;
        None
    }

    /// Ends the connection in good order, as far as the CSMS plays along, and not for long.
    pub(super) async fn close(mut self, ending: &Ending, charge_point: &mut ChargePoint) {
        let closing = async {
            match ending.farewell {
                Farewell::Nothing => return Ok(()),
                Farewell::Reply => self.socket.flush().await?,
                Farewell::Close(code) => {
                    while let Some(text) = charge_point.poll_transmit() {
                        self.socket.send(Message::text(text)).await?;
                    }
                    self.socket.close(Some(CloseFrame { code, reason: Utf8Bytes::default() })).await?;
                }
            }
            while let Some(message) = self.socket.next().await {
                message?;
            }
            Ok::<(), Error>(())
        };
        if let Ok(Err(error)) = timeout(CLOSE_TIMEOUT, closing).await {
            tracing::debug!(%error, "ocpp-close-incomplete");
        }
    }
}

// === impl Ending ===

impl Ending {
    /// We end the connection because we are told to.
    pub(super) const SHUTDOWN: Self =
        Self { reason: Cow::Borrowed("shutdown"), farewell: Farewell::Close(CloseCode::Away) };

    /// The CSMS has asked for a reset.
    pub(super) const RESET: Self =
        Self { reason: Cow::Borrowed("reset"), farewell: Farewell::Close(CloseCode::Away) };

    /// We end the connection to make it anew in another way (1012: Service Restart).
    pub(super) const CHANGE: Self = Self {
        reason: Cow::Borrowed("made anew in another way"),
        farewell: Farewell::Close(CloseCode::Restart),
    };

    fn lost(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), farewell: Farewell::Nothing }
    }

    fn refused(reason: impl Into<Cow<'static, str>>, code: CloseCode) -> Self {
        Self { reason: reason.into(), farewell: Farewell::Close(code) }
    }

    fn of_close(frame: Option<CloseFrame>) -> Self {
        let reason = match frame {
            None => "the CSMS closed the connection".to_owned(),
            Some(frame) if frame.reason.is_empty() => {
                format!("the CSMS closed the connection: {}", u16::from(frame.code))
            }
            Some(frame) => {
                let said: String = frame.reason.chars().take(MAX_QUOTED_CHARS).collect();
                format!("the CSMS closed the connection: {} {said:?}", u16::from(frame.code))
            }
        };
        Self { reason: reason.into(), farewell: Farewell::Reply }
    }

    fn of_error(error: &Error) -> Self {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                Self::refused("the CSMS sent a message that is too long", CloseCode::Size)
            }
            Error::Utf8(_) => Self::refused("the CSMS sent a text that isn't UTF-8", CloseCode::Invalid),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::lost("the CSMS dropped the connection")
            }
            Error::Protocol(error) => Self::refused(format!("WebSocket: {error}"), CloseCode::Protocol),
            Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Self::lost("the CSMS dropped the connection")
            }
            Error::Io(error) => Self::lost(format!("the connection broke: {error}")),
            error => Self::lost(error.to_string()),
        }
    }
}
