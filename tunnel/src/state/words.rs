//! The words for states and reasons: in `status`, over OCPP and in the log. Scripts rely on them.

use std::fmt;

use super::{Reason, State};

impl State {
    /// The word in `status`, over OCPP and in the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Resolving => "resolving",
            Self::Waiting | Self::Connecting => "connecting",
            Self::Verifying => "verifying",
            Self::Authenticating => "authenticating",
            Self::Forwarding => "forwarding",
            Self::Up => "up",
            Self::Backoff => "backoff",
            Self::Closed(_) => "closed",
        }
    }

    /// Why it ended, if it did.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Closed(reason) => Some(reason),
            _ => None,
        }
    }
}

impl Reason {
    /// The word in `status`, over OCPP and in the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Ocpp => "ocpp",
            Self::Support => "support",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
            Self::Policy => "policy",
            Self::HostKeyMismatch => "host-key-mismatch",
            Self::AuthDenied => "auth-denied",
            Self::ForwardRefused => "forward-refused",
            Self::Replaced => "replaced",
            Self::DataCap => "data-cap",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
