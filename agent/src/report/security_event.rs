//! Security events: what kinds there are, and how each is worded (OCPP 1.6 security whitepaper, edition 3, 5.23 and 7).

use std::fmt::Write;
use std::time::SystemTime;

use ocpp_bridge::LinkFault;
use serde_json::json;

use crate::clock;
use crate::happening::Happened;
use crate::journal::{escape, value};
use crate::limits::TECH_INFO_CHARACTERS;
use crate::supervisor::{Origin, TunnelId};

/// The kinds of events: the standard's names where they fit, and ours for remote access, which it has no names for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The agent has started.
    StartupOfTheDevice,
    /// The CSMS has asked for a reset.
    ResetOrReboot,
    /// The CSMS's certificate wasn't good.
    InvalidCentralSystemCertificate,
    /// The CSMS spoke no version of TLS that we do.
    InvalidTlsVersion,
    /// The CSMS refused our credentials.
    FailedToAuthenticateAtCentralSystem,
    /// A tunnel is up for the first time since it was asked for.
    TunnelOpened,
    /// A tunnel has ended.
    TunnelClosed,
    /// A request for a tunnel was refused.
    TunnelRefused,
    /// A server showed another host key than the trusted one.
    TunnelHostKeyMismatch,
    /// A server's host key was learned.
    TunnelHostKeyLearned,
    /// The device's SSH key has changed, or what the OCPP link proves itself with.
    ReconfigurationOfSecurityParameters,
    /// Events before this one were dropped.
    SecurityEventsDropped,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityEvent {
    kind: Kind,
    /// Printable ASCII.
    text: String,
}

impl Kind {
    /// The event's `type`: at most 50 characters.
    fn word(self) -> &'static str {
        match self {
            Self::StartupOfTheDevice => "StartupOfTheDevice",
            Self::ResetOrReboot => "ResetOrReboot",
            Self::InvalidCentralSystemCertificate => "InvalidCentralSystemCertificate",
            Self::InvalidTlsVersion => "InvalidTLSVersion",
            Self::FailedToAuthenticateAtCentralSystem => "FailedToAuthenticateAtCentralSystem",
            Self::TunnelOpened => "TunnelOpened",
            Self::TunnelClosed => "TunnelClosed",
            Self::TunnelRefused => "TunnelRefused",
            Self::TunnelHostKeyMismatch => "TunnelHostKeyMismatch",
            Self::TunnelHostKeyLearned => "TunnelHostKeyLearned",
            Self::ReconfigurationOfSecurityParameters => "ReconfigurationOfSecurityParameters",
            Self::SecurityEventsDropped => "SecurityEventsDropped",
        }
    }
}

impl SecurityEvent {
    /// The agent has started. The device's uptime tells a restart of the agent from one of the device.
    pub(super) fn started(uptime_seconds: u64) -> Self {
        let fields =
            [("agent", env!("CARGO_PKG_VERSION").to_owned()), ("uptime", uptime_seconds.to_string())];
        Self::new(Kind::StartupOfTheDevice, fields)
    }

    /// There was no link because of this; none where that is nobody's doing (security whitepaper, 7).
    pub(super) fn link_fault(fault: LinkFault, error: &str) -> Option<Self> {
        let kind = match fault {
            LinkFault::Certificate => Kind::InvalidCentralSystemCertificate,
            LinkFault::TlsVersion => Kind::InvalidTlsVersion,
            LinkFault::Credentials => Kind::FailedToAuthenticateAtCentralSystem,
            LinkFault::Dns
            | LinkFault::Network
            | LinkFault::Tls
            | LinkFault::Unknown
            | LinkFault::Unavailable
            | LinkFault::Protocol => return None,
        };
        Some(Self::new(kind, [("error", error.to_owned())]))
    }

    /// The CSMS has asked for a reset.
    pub(super) fn reset(hard: bool) -> Self {
        let kind = if hard { "hard" } else { "soft" };
        Self::new(Kind::ResetOrReboot, [("reset", kind.to_owned())])
    }

    /// The device's SSH key has changed to this one.
    pub(super) fn new_key(fingerprint: &str) -> Self {
        Self::new(Kind::ReconfigurationOfSecurityParameters, [("sshKey", fingerprint.to_owned())])
    }

    /// The CSMS has changed this configuration key. The value is no text to send about.
    pub(super) fn reconfigured(key: &str) -> Self {
        Self::new(Kind::ReconfigurationOfSecurityParameters, [("key", key.to_owned())])
    }

    /// So many events before were dropped.
    pub(super) fn dropped(count: u64) -> Self {
        Self::new(Kind::SecurityEventsDropped, [("count", count.to_string())])
    }

    fn new(kind: Kind, fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let mut text = String::new();
        for (name, field) in fields {
            let space = if text.is_empty() { "" } else { " " };
            // Writing to a string doesn't fail.
            let _ = write!(text, "{space}{name}={}", value(&field));
        }
        Self { kind, text }
    }

    /// The payload of a SecurityEventNotification for this event, which happened so many times from `at` on.
    pub(super) fn payload(&self, at: SystemTime, times: u32) -> serde_json::Value {
        let mut text = self.text.clone();
        let times = if times > 1 { format!(" times={times}") } else { String::new() };
        cut(&mut text, TECH_INFO_CHARACTERS - times.len());
        json!({
            "type": self.kind.word(),
            "timestamp": clock::rfc3339_millis(at),
            "techInfo": text + &times,
        })
    }
}

impl From<Happened> for SecurityEvent {
    fn from(happened: Happened) -> Self {
        let slot = |id: TunnelId| ("slot", id.to_string());
        match happened {
            Happened::Opened { id, server, remotes, origin } => {
                let by = match origin {
                    Origin::Ocpp => "ocpp",
                    Origin::Local => "local",
                };
                let fields = [slot(id), ("by", by.to_owned()), ("server", server.to_string())];
                let remotes = remotes.into_iter().map(|remote| ("remote", remote));
                Self::new(Kind::TunnelOpened, fields.into_iter().chain(remotes))
            }
            Happened::Closed { id, server, reason, error } => {
                let fields = [slot(id), ("reason", reason.to_string()), ("server", server.to_string())];
                let error = error.map(|error| ("error", error));
                Self::new(Kind::TunnelClosed, fields.into_iter().chain(error))
            }
            Happened::Refused { id, why, source } => {
                let fields = [("by", source.to_string()), ("why", why)];
                Self::new(Kind::TunnelRefused, id.map(slot).into_iter().chain(fields))
            }
            Happened::HostKeyMismatch { id, server, error } => {
                let fields = [slot(id), ("server", server.to_string()), ("error", error)];
                Self::new(Kind::TunnelHostKeyMismatch, fields)
            }
            Happened::HostKeyLearned { id, server, fingerprint } => {
                let fields = [slot(id), ("server", server.to_string()), ("fingerprint", fingerprint)];
                Self::new(Kind::TunnelHostKeyLearned, fields)
            }
        }
    }
}

/// Printable ASCII of at most so many characters; what is longer ends with dots.
pub(super) fn bounded(text: &str, characters: usize) -> String {
    let mut text = escape(text);
    cut(&mut text, characters);
    text
}

/// The text is ASCII, so a cut splits no character.
fn cut(text: &mut String, characters: usize) {
    if text.len() > characters {
        text.truncate(characters.saturating_sub(3));
        text.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reverse_tunnel::Reason;

    use super::*;
    use crate::supervisor::Source;

    fn payload(event: impl Into<SecurityEvent>) -> (String, String) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        let payload = event.into().payload(at, 1);
        assert_eq!(payload["timestamp"], "2027-01-15T08:00:00.123Z");
        let text = |name: &str| payload[name].as_str().unwrap().to_owned();
        (text("type"), text("techInfo"))
    }

    #[test]
    fn each_event_says_what_happened_to_what() {
        let server = || "ops@gw:2222".parse().unwrap();
        let id = TunnelId::Slot(1);
        for (event, expected) in [
            (
                Happened::Opened {
                    id,
                    server: server(),
                    remotes: vec!["localhost:1111".into(), "localhost:1112".into()],
                    origin: Origin::Ocpp,
                },
                (
                    "TunnelOpened",
                    "slot=1 by=ocpp server=ops@gw:2222 remote=localhost:1111 remote=localhost:1112",
                ),
            ),
            (
                Happened::Closed {
                    id: TunnelId::AdHoc(3),
                    server: server(),
                    reason: Reason::Expired,
                    error: None,
                },
                ("TunnelClosed", "slot=t3 reason=expired server=ops@gw:2222"),
            ),
            (
                Happened::Refused { id: Some(id), why: "no '@'".into(), source: Source::Ocpp { profile: 2 } },
                ("TunnelRefused", "slot=1 by=ocpp/profile-2 why=\"no '@'\""),
            ),
            (
                Happened::HostKeyMismatch { id, server: server(), error: "another key\n".into() },
                ("TunnelHostKeyMismatch", "slot=1 server=ops@gw:2222 error=\"another key\\n\""),
            ),
            (
                Happened::HostKeyLearned { id, server: server(), fingerprint: "SHA256:abc".into() },
                ("TunnelHostKeyLearned", "slot=1 server=ops@gw:2222 fingerprint=SHA256:abc"),
            ),
        ] {
            let (kind, text) = payload(event);
            assert_eq!((kind.as_str(), text.as_str()), expected);
        }
    }

    #[test]
    fn nothing_is_longer_than_the_standard_allows() {
        let server = format!("{}@{}", "u".repeat(32), vec!["h".repeat(60); 4].join(".")).parse().unwrap();
        let event = SecurityEvent::from(Happened::Closed {
            id: TunnelId::AdHoc(u32::MAX),
            server,
            reason: Reason::HostKeyMismatch,
            error: Some("\u{1f50c}".repeat(300)),
        });
        for times in [1, 2, u32::MAX] {
            let payload = event.payload(SystemTime::UNIX_EPOCH, times);
            let text = payload["techInfo"].as_str().unwrap();
            assert_eq!(text.chars().count(), 255);
            assert_eq!(text.ends_with(&format!("... times={times}")), times > 1, "{text}");
            assert!(payload["type"].as_str().unwrap().len() <= 50);
        }
    }
}
