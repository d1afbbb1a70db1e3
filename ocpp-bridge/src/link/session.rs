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

use super::{connect::Socket, now};
use crate::{
    ChargePoint,
    limits::{ANSWER_GRACE, CLOSE_TIMEOUT, MAX_QUOTED_CHARS, TCP_USER_TIMEOUT},
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
    /// Since when the kernel takes nothing more of what we write.
    stuck: Option<Instant>,
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

const STUCK: &str = "the connection broke: nothing that was sent arrived any more";

// === impl Session ===

impl Session {
    pub(super) fn new(socket: Socket, now: Instant, pong_timeout: Duration) -> Self {
        Self {
            socket,
            pong_timeout,
            heard: now,
            pinged: None,
            ping_waits: false,
            excused: false,
            stuck: None,
        }
    }

    /// Writes what the charge point has to send, and reads if that has room for what comes.
    ///
    /// Safe to drop and call again: nothing is lost.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, charge_point: &mut ChargePoint) -> Poll<Input> {
        match self.poll_write(cx, charge_point) {
            Poll::Ready(Err(error)) => return Poll::Ready(Input::Ended(Ending::of_error(&error))),
            Poll::Ready(Ok(())) => self.stuck = None,
            Poll::Pending => self.stuck = self.stuck.or_else(|| Some(now())),
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

    /// Pings at once, whatever the interval: something else says that the CSMS may be gone.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.pinged.is_none() {
            self.pinged = Some(now);
            self.ping_waits = true;
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(super) fn poll_timeout(&self, ping_interval: Option<Duration>) -> Option<Instant> {
        let stuck = self.stuck.map(|since| since + TCP_USER_TIMEOUT);
        [self.silence_ends(ping_interval), stuck].into_iter().flatten().min()
    }

    /// When a CSMS that stays silent is to be pinged, or given up.
    fn silence_ends(&self, ping_interval: Option<Duration>) -> Option<Instant> {
        match self.pinged {
            Some(_) if self.excused => None,
            Some(pinged) => Some(pinged + self.pong_timeout),
            None => ping_interval.map(|interval| self.heard + interval),
        }
    }

    /// Pings a CSMS that has been silent, and gives up one that stays so, or that talks and takes nothing: the kernel would
    /// leave that alone for as long as the other side's says that it is full.
    pub(super) fn handle_timeout(&mut self, now: Instant, ping_interval: Option<Duration>) -> Option<Ending> {
        if self.stuck.is_some_and(|since| since + TCP_USER_TIMEOUT <= now) {
            return Some(Ending::lost(STUCK));
        }
        if self.silence_ends(ping_interval).is_none_or(|due| due > now) {
            return None;
        }
        if self.pinged.is_some() {
            let seconds = self.pong_timeout.as_secs_f32();
            return Some(Ending::lost(format!("the CSMS didn't answer a ping in {seconds} s")));
        }
        self.doubt(now);
        None
    }

    async fn take_owed_answer(&mut self, charge_point: &mut ChargePoint) {
        while charge_point.is_owed_answer() {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => charge_point.settle(&text),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
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
                    // A CSMS that can't send its answer any more may end the session on the spot, and never read what
                    // we said last: Python's `ocpp` does.
                    let _ = timeout(ANSWER_GRACE, self.take_owed_answer(charge_point)).await;
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

    /// The CSMS has left so many CALLs in a row unanswered.
    pub(super) fn unanswered(calls: u32) -> Self {
        let reason = match calls {
            1 => "the CSMS left our last message unanswered".to_owned(),
            calls => format!("the CSMS left {calls} of our messages in a row unanswered"),
        };
        Self::refused(reason, CloseCode::Protocol)
    }

    fn of_close(frame: Option<CloseFrame>) -> Self {
        let reason = match frame {
            None => "the CSMS closed the connection".to_owned(),
            Some(frame) => {
                let mut reason = format!("the CSMS closed the connection: {}", u16::from(frame.code));
                if let Some(meaning) = meaning(frame.code) {
                    reason.push(' ');
                    reason.push_str(meaning);
                }
                if !frame.reason.is_empty() {
                    let said: String = frame.reason.chars().take(MAX_QUOTED_CHARS).collect();
                    reason.push_str(&format!(", {said:?}"));
                }
                reason
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
            Error::Io(error) if error.kind() == ErrorKind::TimedOut => Self::lost(STUCK),
            Error::Io(error) => Self::lost(format!("the connection broke: {error}")),
            error => Self::lost(error.to_string()),
        }
    }
}

/// What a close code says (RFC 6455 §7.4.1, and IANA's registry for those from 1012 on).
fn meaning(code: CloseCode) -> Option<&'static str> {
    Some(match code {
        CloseCode::Normal => "(done)",
        CloseCode::Away => "(it goes away)",
        CloseCode::Protocol => "(protocol error)",
        CloseCode::Unsupported => "(unsupported data)",
        CloseCode::Invalid => "(invalid data)",
        CloseCode::Policy => "(against its policy)",
        CloseCode::Size => "(message too big)",
        CloseCode::Error => "(internal error)",
        CloseCode::Restart => "(service restart)",
        CloseCode::Again => "(try again later)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(code: u16, reason: &str) -> String {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        Ending::of_close(Some(frame)).reason.into_owned()
    }

    #[test]
    fn close_codes_are_told_apart_and_named() {
        let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999];
        for code in codes {
            let text = words(code, "");
            assert!(text.starts_with(&format!("the CSMS closed the connection: {code}")), "{text}");
            assert_eq!(text.ends_with(')'), code < 3000, "{text}");
        }
        assert_eq!(words(1012, ""), "the CSMS closed the connection: 1012 (service restart)");
        assert_eq!(words(4000, "other device"), "the CSMS closed the connection: 4000, \"other device\"");
    }

    #[test]
    fn a_reason_is_cut_and_can_not_write_on_a_terminal() {
        let text = words(1008, &format!("\u{1b}[2J\n{}", "x".repeat(110)));
        assert!(text.contains(r#"(against its policy), "\u{1b}[2J\nxxx"#), "{text}");
        assert!(text.len() < 160 && !text.chars().any(char::is_control), "{text}");
    }
}
