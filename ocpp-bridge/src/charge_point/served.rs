//! Actions that the embedder serves in the charge point's place: what a device with a vehicle's side has to answer itself.

use serde_json::value::RawValue;

use super::{
    ChargePoint, Event, RequestId,
    connection::Asked,
    dispatch::{Answer, Served},
    payload::Refusal,
};
use crate::{
    frame::{ErrorCode, MessageId},
    limits::MAX_DESCRIPTION_CHARS,
};

/// The embedder's answer to [`Event::Call`].
#[derive(Debug, Clone)]
pub enum Reply {
    /// A CALLRESULT with this payload, a JSON object that is as the standard wants it: it is sent as it is.
    Result(Box<RawValue>),
    /// A CALLERROR.
    Error {
        /// Its code (OCPP-J 1.6 §4.2.3).
        code: ErrorCode,
        /// The same for people; cut after 255 characters.
        description: String,
    },
}

/// Puts a CALL to the embedder, if its action is one of those. `None`: it isn't.
pub(super) fn by_embedder(
    charge_point: &mut ChargePoint,
    id: &MessageId,
    action: &str,
    payload: &RawValue,
) -> Option<Served> {
    if !charge_point.settings.actions.iter().any(|served| served == action) {
        return None;
    }
    if let Some((request, security)) = charge_point.ask(id, Asked::Call) {
        let (action, payload) = (action.to_owned(), payload.get().to_owned());
        charge_point.raise(Event::Call { request, action, payload, security });
    }
    Some(Ok(None))
}

impl ChargePoint {
    /// Answers [`Event::Call`], as [`answer_change`](Self::answer_change) does ChangeConfiguration.
    pub fn answer_call(&mut self, request: RequestId, reply: Reply) {
        let answer = match reply {
            Reply::Result(payload) => Answer::Result(payload),
            Reply::Error { code, description } => {
                let reason: String = description.chars().take(MAX_DESCRIPTION_CHARS).collect();
                Answer::Error(Refusal { code, reason: reason.into() })
            }
        };
        self.answer_asked(request, Asked::Call, answer);
    }
}
