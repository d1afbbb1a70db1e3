//! Configuration keys (OCPP 1.6 §5.3, §5.8, §9): which exist, who may change them, and their values.
//!
//! The registry owns the standard's keys with their types, and knows the embedder's by name only: what a
//! value of those means, and whether it is taken, the embedder decides. It keeps nothing on disk.

mod standard;

use std::{borrow::Cow, fmt};

use rust_ocpp::v1_6::{messages::get_configuration::GetConfigurationResponse, types::KeyValue};

use crate::limits::{MAX_CONNECTORS, MAX_KEY_CHARS, MAX_KEYS, MAX_REQUESTED_KEYS, MAX_VALUE_CHARS};
use standard::{STANDARD, Standard};

/// The standard's key for the heartbeat interval, in seconds.
pub const HEARTBEAT_INTERVAL: &str = "HeartbeatInterval";

/// The key for how long an answer to a CALL is waited for, in seconds (OCPP 1.6 edition 2 errata 3.82).
pub const MESSAGE_TIMEOUT: &str = "MessageTimeout";

/// The standard's key for the number of connectors.
pub const NUMBER_OF_CONNECTORS: &str = "NumberOfConnectors";

/// The standard's key for the interval of WebSocket pings, in seconds; 0 switches them off.
pub const WEB_SOCKET_PING_INTERVAL: &str = "WebSocketPingInterval";

/// Who may change an embedder's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The CSMS reads it; a change is answered `Rejected`.
    ReadOnly,
    /// The CSMS reads it, and each change is put to the embedder.
    ReadWrite,
    /// Each change is put to the embedder, and nobody reads it: answers leave its value out, whatever it is set to.
    WriteOnly,
}

/// Why a key can't be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterError {
    /// The name isn't 1 to 50 characters of printable ASCII without a space.
    Name(String),
    /// The key is there already, perhaps in another case, or is one of the standard's.
    Taken(String),
    /// No more than [`MAX_KEYS`] keys fit.
    Full(String),
}

/// The configuration keys of a charge point.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<Entry>,
}

/// What became of a ChangeConfiguration request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// There is no such key.
    Unknown,
    /// The value stays; why.
    Refused(&'static str),
    /// The embedder is to decide about this key.
    Ask { name: String },
    /// The key of the standard has this value already.
    Unchanged,
    /// The value, in the standard's spelling, is in effect.
    Changed { name: &'static str, value: String },
}

#[derive(Debug, Clone)]
struct Entry {
    name: Cow<'static, str>,
    owner: Owner,
    /// `None`: the key is known, but its value is left out of answers.
    value: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy)]
enum Owner {
    Standard(&'static Standard),
    Embedder(Access),
}

// === impl Registry ===

impl Registry {
    /// The standard's keys with their defaults, for a charge point with so many connectors, at most
    /// [`MAX_CONNECTORS`].
    pub fn new(connectors: u32) -> Self {
        let entries = STANDARD
            .iter()
            .map(|key| Entry {
                name: Cow::Borrowed(key.name),
                owner: Owner::Standard(key),
                value: key.default.map(Box::from),
            })
            .collect();
        let mut registry = Self { entries };
        registry.put(NUMBER_OF_CONNECTORS, Some(connectors.min(MAX_CONNECTORS).to_string()));
        registry.put("GetConfigurationMaxKeys", Some(MAX_REQUESTED_KEYS.to_string()));
        registry
    }

    /// No keys as yet: for the bridge, whose controller has the standard's keys.
    pub(crate) fn without_standard() -> Self {
        Self { entries: Vec::new() }
    }

    /// Whether there is no key at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is such a key. Case doesn't matter.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Adds a key of the embedder, without a value as yet.
    ///
    /// # Errors
    /// If the name can't be a key, or is taken, or there are too many.
    pub fn register(&mut self, name: &str, access: Access) -> Result<(), RegisterError> {
        if name.is_empty() || name.len() > MAX_KEY_CHARS || !name.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(RegisterError::Name(name.to_owned()));
        }
        if self.find(name).is_some() {
            return Err(RegisterError::Taken(name.to_owned()));
        }
        if self.entries.len() >= MAX_KEYS {
            return Err(RegisterError::Full(name.to_owned()));
        }
        let name = Cow::Owned(name.to_owned());
        self.entries.push(Entry { name, owner: Owner::Embedder(access), value: None });
        Ok(())
    }

    /// The value of a key, if the key is known and has one. Case doesn't matter.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.entries.get(self.find(key)?)?.value.as_deref()
    }

    /// How many connectors there are; 0 is none of them.
    pub(crate) fn connectors(&self) -> u32 {
        let value = self.value(NUMBER_OF_CONNECTORS).and_then(|value| value.parse::<u32>().ok());
        value.unwrap_or_default().min(MAX_CONNECTORS)
    }

    /// Sets the value of any key, read-only ones included, without asking anybody.
    ///
    /// `None`, and a value of more than 500 characters, leave the value out of answers. An unknown key is
    /// ignored, and so is a value that a key of the standard can't have.
    pub(crate) fn put(&mut self, key: &str, value: Option<String>) {
        let Some(entry) = self.find(key).and_then(|index| self.entries.get_mut(index)) else {
            tracing::warn!(key, "ocpp-key-unknown");
            return;
        };
        let value = match (value, entry.owner) {
            (Some(value), Owner::Standard(standard)) => match standard.kind.normalise(&value) {
                Ok(value) => Some(value),
                Err(reason) => {
                    tracing::warn!(key = &*entry.name, reason, "ocpp-value-ignored");
                    return;
                }
            },
            (value, _) => value,
        };
        let value = value.filter(|_| !matches!(entry.owner, Owner::Embedder(Access::WriteOnly)));
        let characters = value.as_deref().map_or(0, |value| value.chars().count());
        if characters > MAX_VALUE_CHARS {
            tracing::warn!(key = &*entry.name, characters, "ocpp-value-left-out");
            entry.value = None;
            return;
        }
        entry.value = value.map(String::into_boxed_str);
    }

    /// Judges a ChangeConfiguration request, and carries it out where the key is the standard's.
    pub(crate) fn change(&mut self, key: &str, value: &str) -> Change {
        let Some(entry) = self.find(key).and_then(|index| self.entries.get_mut(index)) else {
            return Change::Unknown;
        };
        if entry.readonly() {
            return Change::Refused("the key is read-only");
        }
        if !fits(value) {
            return Change::Refused("the value has more than 500 characters");
        }
        let Owner::Standard(standard) = entry.owner else {
            return Change::Ask { name: entry.name.clone().into_owned() };
        };
        match standard.kind.normalise(value) {
            Ok(value) if entry.value.as_deref() == Some(&value) => Change::Unchanged,
            Ok(value) => {
                entry.value = Some(value.as_str().into());
                Change::Changed { name: standard.name, value }
            }
            Err(reason) => Change::Refused(reason),
        }
    }

    /// Answers GetConfiguration: all keys if none is named.
    pub(crate) fn get(&self, requested: &[impl AsRef<str>]) -> GetConfigurationResponse {
        if requested.is_empty() {
            let all = self.entries.iter().map(Entry::key_value).collect();
            return GetConfigurationResponse { configuration_key: Some(all), unknown_key: None };
        }
        let mut known = Vec::new();
        let mut unknown: Vec<String> = Vec::new();
        for key in requested.iter().map(AsRef::as_ref) {
            match self.find(key).and_then(|index| self.entries.get(index)) {
                Some(entry) if known.iter().any(|seen: &KeyValue| seen.key == entry.name) => {}
                Some(entry) => known.push(entry.key_value()),
                None if unknown.iter().any(|seen| seen.eq_ignore_ascii_case(key)) => {}
                None => unknown.push(key.to_owned()),
            }
        }
        let unknown_key = Some(unknown).filter(|unknown| !unknown.is_empty());
        GetConfigurationResponse { configuration_key: Some(known), unknown_key }
    }

    /// Where a key stands. `CiString`: without regard to case; names are ASCII.
    fn find(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.name.eq_ignore_ascii_case(key))
    }
}

fn fits(value: &str) -> bool {
    value.chars().count() <= MAX_VALUE_CHARS
}

// === impl Entry ===

impl Entry {
    fn readonly(&self) -> bool {
        match self.owner {
            Owner::Standard(standard) => standard.readonly,
            Owner::Embedder(access) => access == Access::ReadOnly,
        }
    }

    fn key_value(&self) -> KeyValue {
        KeyValue {
            key: self.name.clone().into_owned(),
            readonly: self.readonly(),
            value: self.value.as_deref().map(str::to_owned),
        }
    }
}

// === impl RegisterError ===

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => {
                write!(
                    f,
                    "{name:?} can't be a configuration key: 1 to {MAX_KEY_CHARS} printable ASCII characters"
                )
            }
            Self::Taken(name) => write!(f, "the configuration key {name:?} is taken"),
            Self::Full(name) => write!(f, "{name:?} doesn't fit: {MAX_KEYS} configuration keys are the most"),
        }
    }
}

impl std::error::Error for RegisterError {}

#[cfg(test)]
mod tests;
