//! What the link publishes about itself.

use std::{fmt, time::Instant};

use tokio::sync::watch;

use super::{LinkFault, Url};
use crate::{RegistrationStatus, security::LinkSecurity};

/// Where the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// A bridge's: no controller is connected to it.
    Waiting,
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
    /// Since when `state` is what it is.
    pub since: Instant,
    /// Why the last connection failed or ended, or that the CSMS doesn't answer on this one. Stays until the CSMS accepts
    /// us again.
    pub last_error: Option<String>,
    /// The CSMS's last answer to BootNotification.
    pub boot: Option<RegistrationStatus>,
    /// What the last try to connect failed by; none once there is a connection.
    pub fault: Option<LinkFault>,
    /// How the connections with the present profile went.
    pub attempts: Attempts,
}

/// How the connections with one [`ConnectionProfile`](super::ConnectionProfile) went. For one profile the numbers only
/// grow, so who looks seldom misses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempts {
    /// The profile's number: see [`Command::Connect`](super::Command::Connect).
    pub profile: u64,
    /// How often all URLs were tried in vain, or a connection ended before it had proved good.
    pub failed: u32,
    /// How often of these the CSMS refused us: by HTTP status 401, 403 or 404, or by such an end.
    pub refused: u32,
    /// The security profile that the first connection fulfilled which proved good: the CSMS said something on it, or let it
    /// live for 10 s. `None` before.
    pub proven: Option<u8>,
}

/// Keeps a [`LinkStatus`] up to date, and tells whoever watches when something has changed.
#[derive(Debug)]
pub(crate) struct Publisher(watch::Sender<LinkStatus>);

// === impl LinkState ===

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
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
            since: Instant::now(),
            last_error: None,
            boot: None,
            attempts: Attempts::default(),
            fault: None,
        }
    }
}

// === impl Publisher ===

impl Publisher {
    pub(crate) fn new(sender: watch::Sender<LinkStatus>) -> Self {
        Self(sender)
    }

    pub(crate) fn connecting(&self, url: &Url) {
        self.change(|status| {
            status.state = LinkState::Connecting;
            status.url = url.to_string();
        });
    }

    pub(crate) fn connected(&self, security: LinkSecurity) {
        self.change(|status| {
            status.state = LinkState::Booting;
            status.profile = Some(security.profile());
            status.fault = None;
        });
    }

    pub(crate) fn profile_changed(&self, number: u64) {
        self.change(|status| status.attempts = Attempts { profile: number, ..Attempts::default() });
    }

    /// The CSMS couldn't be reached, or refused us.
    pub(crate) fn attempt_failed(&self, refused: bool) {
        self.change(|status| {
            status.attempts.failed = status.attempts.failed.saturating_add(1);
            status.attempts.refused = status.attempts.refused.saturating_add(u32::from(refused));
        });
    }

    pub(crate) fn proven(&self) {
        self.change(|status| status.attempts.proven = status.attempts.proven.or(status.profile));
    }

    pub(crate) fn disconnected(&self) {
        self.change(|status| status.profile = None);
    }

    /// What the CSMS last answered to BootNotification; only while there is a connection.
    pub(crate) fn booted(&self, boot: Option<RegistrationStatus>) {
        self.change(|status| {
            status.state = match boot {
                None => LinkState::Booting,
                Some(RegistrationStatus::Accepted) => LinkState::Accepted,
                Some(RegistrationStatus::Pending) => LinkState::Pending,
                Some(RegistrationStatus::Rejected) => LinkState::Rejected,
            };
            if status.state == LinkState::Accepted {
                status.last_error = None;
            }
            status.boot = boot;
        });
    }

    pub(crate) fn fault(&self, fault: Option<LinkFault>) {
        self.change(|status| status.fault = fault);
    }

    pub(crate) fn failed(&self, reason: String) {
        self.change(|status| status.last_error = Some(reason));
    }

    pub(crate) fn state(&self, state: LinkState) {
        self.change(|status| status.state = state);
    }

    fn change(&self, change: impl FnOnce(&mut LinkStatus)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            if status.state != before.state {
                status.since = Instant::now();
            }
            *status != before
        });
    }
}
