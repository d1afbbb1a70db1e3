//! What stands in for the controller while the bridge holds the connection to the CSMS by itself: it answers every CALL
//! that isn't ours by saying that the controller isn't there, and says nothing of its own.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Sink, Stream};
use tokio_tungstenite::tungstenite::{Message, error::Error};

use crate::{
    charge_point::Answer,
    frame::{ErrorCode, Frame, ParseError},
    limits::MAX_OUTBOX,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Absent {
    answers: VecDeque<String>,
    /// The CSMS has gone, or is told goodbye.
    is_over: bool,
}

impl Stream for Absent {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Who waits here has to hand something over before there is more, and looks again then.
        match self.answers.pop_front() {
            Some(answer) => Poll::Ready(Some(Ok(Message::text(answer)))),
            None if self.is_over => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Sink<Message> for Absent {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Who waits here has to take an answer before there is room, and looks again then.
        if self.answers.len() < MAX_OUTBOX { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.is_over |= matches!(message, Message::Close(_));
        if let Message::Text(text) = message
            && let Ok(Frame::Call { id, .. }) | Err(ParseError::Call { id, .. }) = Frame::parse(&text)
        {
            // OCPP-J 1.6 §4.2.3: the receiver could not process the requested action.
            let answer = Answer::error(ErrorCode::InternalError, "the controller is not connected");
            self.answers.push_back(answer.encode(id));
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}
