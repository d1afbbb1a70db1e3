//! What the supervisor is asked with, and what it tells.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use reverse_tunnel::{Destination, Forward, Status, Traffic};
use serde::{Deserialize, Serialize};

use crate::service::privileges::caller;

/// What people call a tunnel: its slot's number, or `t1`, `t2`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TunnelId {
    /// The tunnel of this slot.
    Slot(u8),
    /// One with forwards of its own.
    AdHoc(u32),
}

/// Who wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The CSMS, over a link that fulfils this security profile.
    Ocpp {
        /// 0 to 3.
        profile: u8,
    },
    /// A process on this device.
    Local {
        /// Its user.
        uid: u32,
        /// Its process.
        pid: i32,
    },
}

/// Who wanted a tunnel, as far as it matters after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The CSMS.
    Ocpp,
    /// A process on this device.
    Local,
}

/// What is to be opened.
#[derive(Clone, Debug)]
pub enum What {
    /// This slot's forward.
    Script(u8),
    /// These forwards.
    Forwards(Vec<Forward>),
}

/// A request to open a tunnel.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// What to publish.
    pub what: What,
    /// Where; the only exact entry of the allow-list if absent.
    pub destination: Option<Destination>,
    /// For how long; as long as allowed if absent.
    pub lifetime: Option<Duration>,
    /// Who asks.
    pub source: Source,
}

/// What others see of a tunnel.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name.
    pub id: TunnelId,
    /// The slot's OCPP key.
    pub key: Option<String>,
    /// Where it would go, while it is wanted.
    pub wanted: Option<Destination>,
    /// How it is; none for a slot that was never opened.
    pub status: Option<Status>,
    /// What it would publish.
    pub forwards: Vec<Forward>,
    /// Its counters.
    pub traffic: Option<Arc<Traffic>>,
    /// Why the last request for it was refused, since the last one that wasn't.
    pub refusal: Option<String>,
}

impl Source {
    /// Who started this process.
    #[must_use]
    pub fn this_process() -> Self {
        Self::Local { uid: caller().as_raw(), pid: std::process::id().cast_signed() }
    }

    /// What of it is kept.
    pub(super) fn origin(self) -> Origin {
        match self {
            Self::Ocpp { .. } => Origin::Ocpp,
            Self::Local { .. } => Origin::Local,
        }
    }
}

impl TunnelId {
    /// Is it a slot's?
    #[must_use]
    pub fn is_slot(self) -> bool {
        matches!(self, Self::Slot(_))
    }
}

impl View {
    /// Is this what its owner wants? A tunnel that nobody wants always is.
    #[must_use]
    pub fn is_as_wanted(&self) -> bool {
        self.wanted.is_none() || self.is_up()
    }

    /// Are all its forwards open?
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.state == reverse_tunnel::State::Up)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ocpp { profile } => write!(f, "ocpp/profile-{profile}"),
            Self::Local { uid, pid } => write!(f, "uid-{uid}/pid-{pid}"),
        }
    }
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(number) => number.fmt(f),
            Self::AdHoc(number) => write!(f, "t{number}"),
        }
    }
}

impl FromStr for TunnelId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = match text.strip_prefix('t') {
            Some(number) => number.parse().ok().map(Self::AdHoc),
            None => text.parse().ok().map(Self::Slot),
        };
        id.ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            let more = if shown.len() < text.len() { "..." } else { "" };
            format!("{shown:?}{more} is no tunnel's name; they are called 1, 2, ... and t1, t2, ...")
        })
    }
}
