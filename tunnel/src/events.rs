//! What happens in tunnels and isn't part of their status: forwarded connections that are over, keys that have changed.
//!
//! Whoever keeps records gives the [`Settings`](crate::Settings) something to call. It is called at the end of a
//! connection, never for a packet, and on the runtime's thread: it must be quick and never wait.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::forward::Forward;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A forwarded connection is over, or was refused.
    Connection(ConnectionEnd),
    /// The server proved the host keys that it had announced, and they became what is known of it.
    HostKeysExchanged {
        /// Keys that were learned.
        learned: usize,
        /// Keys that were forgotten.
        forgotten: usize,
    },
    /// The device's new key has taken the old one's place, since no server needs that any more.
    DeviceKeyChanged {
        /// The new key's fingerprint.
        key: String,
        /// The old key's fingerprint.
        old: String,
    },
}

/// A forwarded connection that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEnd {
    /// Where it came in and where it led.
    pub forward: Forward,
    /// Who connected, as the server tells it: `address:port`, at most [`ORIGINATOR_CHARACTERS`] characters of any kind;
    /// empty for a Unix socket.
    ///
    /// [`ORIGINATOR_CHARACTERS`]: crate::limits::ORIGINATOR_CHARACTERS
    pub originator: String,
    /// Bytes that the local service took.
    pub bytes_in: u64,
    /// Bytes that the local service sent.
    pub bytes_out: u64,
    /// From the channel's opening to its end.
    pub lasted: Duration,
    /// How it ended.
    pub end: End,
}

/// How a forwarded connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides have said all that they wanted to.
    Complete,
    /// One side broke it off; why, in words.
    Broken(String),
    /// It was reset, because its local service took nothing while others waited.
    Stalled,
    /// It was dropped: its client had left, and its local service hung.
    Hanging,
    /// The SSH connection ended under it.
    TunnelEnded,
    /// It was refused, because as many were open as there may be.
    RefusedFull,
    /// It was refused, because the local service can't be reached; why, in words.
    Unreachable(String),
    /// It was refused, because its local service is one of our own; why, in words.
    Forbidden(String),
}

impl End {
    /// Was it refused before it began?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::RefusedFull | Self::Unreachable(_) | Self::Forbidden(_))
    }

    /// One word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Broken(_) => "broken",
            Self::Stalled => "stalled",
            Self::Hanging => "hanging",
            Self::TunnelEnded => "tunnel-ended",
            Self::RefusedFull => "full",
            Self::Unreachable(_) => "unreachable",
            Self::Forbidden(_) => "forbidden",
        }
    }
}

/// Whom to tell.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// Calls `listener` for each event.
    pub fn new(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

/// Nobody listens.
impl Default for Events {
    fn default() -> Self {
        Self::new(drop)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
