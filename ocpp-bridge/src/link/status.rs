//! What the link publishes about itself.

use std::{fmt, time::SystemTime};

use crate::RegistrationStatus;

/// Where the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Resolving, connecting, or shaking hands.
    Connecting,
    /// Connected; the CSMS hasn't answered BootNotification.
    Booting,
    /// Connected and accepted.
    Accepted,
    /// Connected; the CSMS answered BootNotification with `Pending`.
    Pending,
    /// Connected; the CSMS answered BootNotification with `Rejected`.
    Rejected,
    /// Waiting before the next connection.
    Backoff,
}

/// What the link publishes about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkStatus {
    /// Where it stands.
    pub state: LinkState,
    /// The URL in use, without the identity.
    pub url: String,
    /// The security profile that the live link fulfils; `None` while there is none.
    pub profile: Option<u8>,
    /// Since when `state` is what it is, by the wall clock.
    pub since: SystemTime,
    /// Why the last connection failed or ended. Stays until the CSMS accepts us again.
    pub last_error: Option<String>,
    /// The CSMS's last answer to BootNotification.
    pub boot: Option<RegistrationStatus>,
}

// === impl LinkState ===

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connecting => "connecting",
            Self::Booting => "booting",
            Self::Accepted => "accepted",
            Self::Pending => "pending",
            Self::Rejected => "rejected",
            Self::Backoff => "backoff",
        })
    }
}

// === impl LinkStatus ===

impl Default for LinkStatus {
    fn default() -> Self {
        Self {
            state: LinkState::Connecting,
            url: String::new(),
            profile: None,
            since: SystemTime::now(),
            last_error: None,
            boot: None,
        }
    }
}
