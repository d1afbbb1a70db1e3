//! The charge point as a state machine without IO.
//!
//! It owns the dialogue with the CSMS: boot, heartbeat, configuration, the one outstanding CALL, and the
//! answers. It has no socket, no clock and no runtime: whoever drives it (usually [`crate::link::run`])
//! hands it texts and the time, and sends what it says.

use std::{
    fmt,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::{
    ConfigurationStatus, RegistrationStatus, configuration::Registry, limits, security::LinkSecurity,
};

/// What BootNotification says about this charge point (OCPP 1.6 §6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    /// Who made it: 1 to 20 characters.
    pub vendor: String,
    /// Which model it is: 1 to 20 characters.
    pub model: String,
    /// Its serial number, at most 25 characters.
    pub serial_number: Option<String>,
    /// Its firmware version, at most 50 characters.
    pub firmware_version: Option<String>,
}

/// How a charge point behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What BootNotification says. What is longer than the standard allows is cut.
    pub boot: BootInfo,
    /// Send BootNotification after every reconnect, for CSMSs that want it; otherwise only until it has
    /// been accepted once (OCPP-J 1.6 §5.4).
    pub boot_on_reconnect: bool,
    /// The heartbeat interval where the CSMS leaves the choice to us.
    pub heartbeat_interval: Duration,
    /// The wait before BootNotification is sent again where the CSMS leaves the choice to us, and the first
    /// of the growing waits after one without a proper answer.
    pub boot_retry: Duration,
    /// How long an answer to a CALL of ours is waited for.
    pub call_timeout: Duration,
}

/// Names one ChangeConfiguration request that the embedder is to answer. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// What the embedder gets to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The CSMS wants a key of the embedder changed. To be answered by [`ChargePoint::answer_change`].
    ChangeConfiguration {
        /// To be named in the answer.
        request: RequestId,
        /// The key, as it was registered.
        key: String,
        /// The wanted value: at most 500 characters, otherwise anything.
        value: String,
        /// What protects the link over which the request came.
        security: LinkSecurity,
    },
    /// The CSMS answered BootNotification.
    BootStatus {
        /// Its answer.
        status: RegistrationStatus,
        /// When BootNotification is sent again; `None` once accepted.
        retry_in: Option<Duration>,
    },
    /// The CSMS's time.
    Clock(DateTime<Utc>),
    /// A key of the standard has a new value.
    ConfigurationChanged {
        /// The key, in the standard's spelling.
        key: String,
        /// Its value, in the standard's spelling.
        value: String,
    },
}

/// The charge point side of OCPP 1.6J.
pub struct ChargePoint {
    registry: Registry,
}

// === impl Settings ===

impl Settings {
    /// The defaults of [`limits`], for this charge point.
    pub fn new(boot: BootInfo) -> Self {
        Self {
            boot,
            boot_on_reconnect: false,
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            boot_retry: limits::BOOT_RETRY_MIN,
            call_timeout: limits::CALL_TIMEOUT,
        }
    }
}

// === impl ChargePoint ===

impl ChargePoint {
    /// A charge point that isn't connected yet. `rng` makes the ids of CALLs, and the jitter of waits.
    pub fn new(settings: Settings, registry: Registry, rng: fastrand::Rng) -> Self {
        let _ = (settings, rng);
        Self { registry }
    }

    // --- inputs ---

    /// A connection is up.
    pub fn handle_connected(&mut self, now: Instant, security: LinkSecurity) {
        let _ = (now, security);
    }

    /// The CSMS sent a text.
    pub fn handle_text(&mut self, now: Instant, text: &str) {
        let _ = (now, text);
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, now: Instant) {
        let _ = now;
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// Answers [`Event::ChangeConfiguration`].
    pub fn answer_change(&mut self, request: RequestId, status: ConfigurationStatus) {
        let _ = (request, status);
    }

    /// Sets the value that GetConfiguration shows. `None`: the value is left out.
    pub fn set_value(&mut self, key: &str, value: Option<String>) {
        self.registry.put(key, value);
    }

    // --- outputs ---

    /// The next text to send.
    pub fn poll_transmit(&mut self) -> Option<String> {
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl fmt::Debug for ChargePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChargePoint").finish_non_exhaustive()
    }
}
