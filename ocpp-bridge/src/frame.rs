//! OCPP-J framing (OCPP-J 1.6 §4): `[2,id,action,payload]`, `[3,id,payload]`,
//! `[4,id,code,description,details]`.
//!
//! Texts come from the network and are hostile until shown otherwise: parsing builds nothing but the id and
//! the action, both bounded, and borrows the payload as JSON text, however deep that is. What a payload means
//! is not known here.

#![expect(
    clippy::result_large_err,
    reason = "an error holds the id to be answered, which is bounded and on the stack"
)]

mod error_code;

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::{Deserializer, Value, value::RawValue};

pub use error_code::ErrorCode;

use crate::limits::{
    MAX_ACTION_BYTES, MAX_ACTION_JSON_BYTES, MAX_DESCRIPTION_CHARS, MAX_ID_BYTES, MAX_ID_CHARS,
    MAX_ID_JSON_BYTES,
};

/// An action's name: bounded, and not necessarily one that anybody knows.
pub type Action = heapless::String<MAX_ACTION_BYTES>;

/// The id that joins an answer to its CALL: at most 36 characters, unique for a sender and a connection.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(heapless::String<MAX_ID_BYTES>);

/// One message of OCPP-J.
#[derive(Debug, Clone)]
pub enum Frame<'a> {
    /// A request.
    Call {
        /// To be repeated in the answer.
        id: MessageId,
        /// What is asked for.
        action: Action,
        /// Its arguments: usually an object; `null` and `{}` both mean none.
        payload: &'a RawValue,
    },
    /// The answer to a request.
    CallResult {
        /// The request's id.
        id: MessageId,
        /// The answer.
        payload: &'a RawValue,
    },
    /// The answer to a request that could not be carried out.
    CallError {
        /// The request's id.
        id: MessageId,
        /// What went wrong.
        code: ErrorCode,
        /// The same for people; may be empty. At most 255 characters are sent or kept.
        description: Cow<'a, str>,
    },
}

/// Why a text isn't a [`Frame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseError {
    /// Nobody can be answered: no array, an unknown message type, or an unreadable id. To be ignored
    /// (OCPP-J 1.6 §4.1.3).
    Unreadable(&'static str),
    /// A CALL whose id could be read: to be answered with this CALLERROR.
    Call {
        /// The id of the CALL.
        id: MessageId,
        /// The code of the answer.
        code: ErrorCode,
        /// What is wrong with the CALL.
        reason: &'static str,
    },
    /// An answer whose id could be read, but nothing else: the CALL that it answers has failed.
    Answer {
        /// The id of the CALL that is answered.
        id: MessageId,
        /// What is wrong with the answer.
        reason: &'static str,
    },
}

// === impl MessageId ===

impl MessageId {
    /// An id of at most 36 characters.
    pub fn new(text: &str) -> Option<Self> {
        if text.chars().count() > MAX_ID_CHARS {
            return None;
        }
        heapless::String::try_from(text).ok().map(Self)
    }

    /// A fresh UUID: never the same twice on a connection (OCPP-J 1.6 §4.1.4).
    pub(crate) fn random(rng: &mut fastrand::Rng) -> Self {
        let mut bytes = [0; 16];
        rng.fill(&mut bytes);
        let mut buffer = uuid::Uuid::encode_buffer();
        let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
        // It has 36 characters.
        Self(heapless::String::try_from(&*uuid.hyphenated().encode_lower(&mut buffer)).unwrap_or_default())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

// === impl Frame ===

impl<'a> Frame<'a> {
    /// Parses one text.
    ///
    /// A payload is JSON, but anything: its meaning is the business of whoever knows the action. Elements
    /// that the standard doesn't have are refused in a CALL and ignored in an answer.
    ///
    /// # Errors
    /// See [`ParseError`]: each variant is to be treated in its own way.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        let mut elements = Elements::default();
        let mut deserializer = Deserializer::from_str(text);
        let complete = (&mut elements).deserialize(&mut deserializer).is_ok() && deserializer.end().is_ok();

        let [kind, id, rest @ ..] = elements.found.as_slice() else {
            return Err(ParseError::Unreadable("the text isn't an array of a message type and an id"));
        };
        let id = read_id(id)?;
        match kind.get() {
            "2" if !complete => Err(formation(id, "the CALL isn't complete JSON")),
            "2" if elements.surplus => Err(formation(id, "the CALL has more than four elements")),
            "2" => parse_call(id, rest),
            "3" | "4" if !complete => {
                Err(ParseError::Answer { id, reason: "the answer isn't complete JSON" })
            }
            "3" => parse_result(id, rest),
            "4" => Ok(parse_error(id, rest)),
            _ => Err(ParseError::Unreadable("the message type isn't 2, 3 or 4")),
        }
    }

    /// Writes the text that [`parse`](Self::parse) reads.
    pub fn encode(&self) -> String {
        match self {
            Self::Call { id, action, payload } => encode_call(id, action, payload),
            Self::CallResult { id, payload } => format!("[3,{},{payload}]", quoted(id.as_str())),
            Self::CallError { id, code, description } => {
                let description: String = description.chars().take(MAX_DESCRIPTION_CHARS).collect();
                format!("[4,{},\"{code}\",{},{{}}]", quoted(id.as_str()), quoted(&description))
            }
        }
    }
}

/// Writes a CALL of ours, whose action is of any length.
pub(crate) fn encode_call(id: &MessageId, action: &str, payload: &RawValue) -> String {
    format!("[2,{},{},{payload}]", quoted(id.as_str()), quoted(action))
}

fn formation(id: MessageId, reason: &'static str) -> ParseError {
    ParseError::Call { id, code: ErrorCode::FormationViolation, reason }
}

fn read_id(element: &RawValue) -> Result<MessageId, ParseError> {
    if element.get().len() > MAX_ID_JSON_BYTES {
        return Err(ParseError::Unreadable("the id has more than 36 characters"));
    }
    let text: Cow<'_, str> = read_string(element).ok_or(ParseError::Unreadable("the id isn't a string"))?;
    MessageId::new(&text).ok_or(ParseError::Unreadable("the id has more than 36 characters"))
}

fn parse_call<'a>(id: MessageId, rest: &[&'a RawValue]) -> Result<Frame<'a>, ParseError> {
    let &[action, payload] = rest else {
        return Err(formation(id, "the CALL hasn't four elements"));
    };
    let unknown =
        |id| ParseError::Call { id, code: ErrorCode::NotImplemented, reason: "the action is unknown" };
    if action.get().len() > MAX_ACTION_JSON_BYTES {
        return Err(unknown(id));
    }
    let Some(action) = read_string(action) else {
        return Err(formation(id, "the action isn't a string"));
    };
    let Ok(action) = Action::try_from(&*action) else {
        return Err(unknown(id));
    };
    Ok(Frame::Call { id, action, payload })
}

fn parse_result<'a>(id: MessageId, rest: &[&'a RawValue]) -> Result<Frame<'a>, ParseError> {
    let &[payload, ..] = rest else {
        return Err(ParseError::Answer { id, reason: "the CALLRESULT has no payload" });
    };
    Ok(Frame::CallResult { id, payload })
}

/// A CALLERROR says enough by its type and id: whatever is missing or odd behind them is made up for.
fn parse_error<'a>(id: MessageId, rest: &[&'a RawValue]) -> Frame<'a> {
    let code = rest.first().and_then(|element| read_string(element));
    let code = code.map_or(ErrorCode::GenericError, |code| ErrorCode::from_wire(&code));
    let description = rest.get(1).and_then(|element| read_string(element)).unwrap_or_default();
    let description = match description.char_indices().nth(MAX_DESCRIPTION_CHARS) {
        None => description,
        Some((end, _)) => Cow::Owned(description.get(..end).unwrap_or_default().to_owned()),
    };
    Frame::CallError { id, code, description }
}

/// The string that a JSON text is, borrowed where nothing in it is escaped.
pub(crate) fn read_string(element: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str(element.get()).ok().map(|Text(text)| text)
}

/// A string as JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

// === impl Elements ===

/// The elements of a message, as far as they could be read: a message that breaks off still shows its id.
#[derive(Default)]
struct Elements<'a> {
    found: heapless::Vec<&'a RawValue, 4>,
    /// There are more elements than a CALL has.
    surplus: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Elements<'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Elements<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            self.surplus |= self.found.push(element).is_err();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
