//! How the tunnels are, as far as the CSMS hasn't been told yet.
//!
//! Only the latest state of a tunnel waits: whoever wants to know how it is has no use for how it was. States on the
//! way (resolving, connecting, ...) are told only where the CSMS would otherwise believe that the tunnel is up.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use reverse_tunnel::{Destination, FailureKind, Reason, State, Status};
use serde::Serialize;

use super::security_event::bounded;
use crate::limits::{REPORT_ERROR_CHARACTERS, REPORT_SETTLE, REPORT_TUNNELS};
use crate::supervisor::{TunnelId, View};
use crate::{advice, clock};

/// What of a tunnel's status is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Summary {
    phase: Phase,
    state: State,
    server: Destination,
    remotes: Vec<String>,
    error: Option<String>,
    /// The fingerprint of the server's key, if it was learned just now.
    learned: Option<String>,
}

/// States that mean the same to the CSMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    OnTheWay,
    Up,
    /// It is tried again.
    Failing(FailureKind),
    Closed(Reason),
}

/// What the CSMS reads. Its programmers rely on the names.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    server: String,
    remote: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learned: Option<&'a str>,
    time: String,
}

#[derive(Debug)]
struct Tunnel {
    latest: Summary,
    /// When it came to that.
    at: Instant,
    told: Option<Summary>,
    /// Since when there is news; none while there isn't.
    untold_since: Option<Instant>,
}

/// A status that was taken to be told.
#[derive(Debug)]
pub(super) struct Taken {
    id: TunnelId,
    summary: Summary,
}

/// The tunnels that the CSMS knows of, or will.
#[derive(Debug, Default)]
pub(super) struct TunnelStatuses(BTreeMap<TunnelId, Tunnel>);

impl TunnelStatuses {
    /// Takes up how the tunnels are now. Gives how many of those that are gone were dropped untold.
    pub(super) fn observe(&mut self, views: &[View], now: Instant) -> u64 {
        for view in views {
            if let Some((summary, status)) =
                view.status.as_ref().and_then(|status| Some((Summary::of(status)?, status)))
            {
                self.see(view.id, summary, status.since.min(now), now);
            }
        }
        self.0.retain(|id, tunnel| tunnel.untold_since.is_some() || views.iter().any(|view| view.id == *id));
        let mut dropped = 0;
        while self.0.len() > REPORT_TUNNELS {
            let gone = |id: &TunnelId| !views.iter().any(|view| view.id == *id);
            let oldest = self.0.iter().filter(|(id, _)| gone(id)).min_by_key(|(_, tunnel)| tunnel.at);
            let Some(id) = oldest.map(|(id, _)| *id) else { break };
            self.0.remove(&id);
            dropped += 1;
        }
        dropped
    }

    fn see(&mut self, id: TunnelId, summary: Summary, at: Instant, now: Instant) {
        let Some(tunnel) = self.0.get_mut(&id) else {
            if summary.phase != Phase::OnTheWay {
                self.0.insert(id, Tunnel { latest: summary, at, told: None, untold_since: Some(now) });
            }
            return;
        };
        if !summary.is_news_after(&tunnel.latest) {
            return;
        }
        (tunnel.latest, tunnel.at) = (summary, at);
        tunnel.judge(now);
    }

    /// How many have news.
    pub(super) fn waiting(&self) -> usize {
        self.0.values().filter(|tunnel| tunnel.untold_since.is_some()).count()
    }

    /// The news that comes first, and from when on it may be told: a moment later, since the next may be about to follow.
    fn first(&self) -> Option<(TunnelId, &Tunnel, Instant)> {
        let news = self
            .0
            .iter()
            .filter_map(|(id, tunnel)| Some((*id, tunnel, tunnel.untold_since? + REPORT_SETTLE)));
        news.min_by_key(|(_, tunnel, _)| tunnel.at)
    }

    /// When the first news may be told, and when that came about.
    pub(super) fn due(&self) -> Option<(Instant, Instant)> {
        self.first().map(|(_, tunnel, due)| (due, tunnel.at))
    }

    /// The first news and its text.
    pub(super) fn take(&self, wall: impl Fn(Instant) -> SystemTime) -> Option<(Taken, String)> {
        let (id, tunnel, _) = self.first()?;
        let text = tunnel.latest.text(id, wall(tunnel.at));
        Some((Taken { id, summary: tunnel.latest.clone() }, text))
    }

    /// The CSMS has been told.
    pub(super) fn told(&mut self, taken: Taken, now: Instant) {
        if let Some(tunnel) = self.0.get_mut(&taken.id) {
            tunnel.told = Some(taken.summary);
            tunnel.judge(now);
        }
    }
}

impl Tunnel {
    /// Is there news? What came back to what was told is none.
    fn judge(&mut self, now: Instant) {
        match self.told.as_ref().is_none_or(|told| self.latest.is_news_after(told)) {
            true => {
                self.untold_since.get_or_insert(now);
            }
            false => self.untold_since = None,
        }
    }
}

impl Summary {
    fn of(status: &Status) -> Option<Self> {
        let error = match status.state {
            // A tunnel that was closed while it waited didn't end by what it had failed by.
            State::Closed(_) => advice::fatal(status),
            _ => status.last_error.as_ref(),
        };
        let phase = match status.state {
            State::Idle => return None,
            State::Up => Phase::Up,
            State::Closed(reason) => Phase::Closed(reason),
            State::Backoff => Phase::Failing(error.map_or(FailureKind::Lost, |error| error.kind)),
            // The server doesn't let us listen, and is asked again for a while.
            State::Forwarding if error.is_some_and(|error| error.kind == FailureKind::Forward) => {
                Phase::Failing(FailureKind::Forward)
            }
            _ => Phase::OnTheWay,
        };
        Some(Self {
            phase,
            state: status.state,
            server: status.destination.clone(),
            remotes: status.forwards.iter().map(|forward| forward.remote.to_string()).collect(),
            error: error.map(|error| bounded(&error.text, REPORT_ERROR_CHARACTERS)),
            learned: status.host_key.as_ref().filter(|key| key.learned).map(|key| key.fingerprint.clone()),
        })
    }

    fn is_news_after(&self, before: &Self) -> bool {
        if self.phase == Phase::OnTheWay {
            return before.phase == Phase::Up;
        }
        self.phase != before.phase
            || self.server != before.server
            || (self.phase == Phase::Up && self.remotes != before.remotes)
            || (self.learned.is_some() && self.learned != before.learned)
    }

    /// The `data` of a DataTransfer.
    fn text(&self, id: TunnelId, at: SystemTime) -> String {
        let (slot, id) = match id {
            TunnelId::Slot(number) => (Some(number), None),
            TunnelId::AdHoc(_) => (None, Some(id.to_string())),
        };
        let data = Data {
            slot,
            id,
            state: self.state.word(),
            reason: self.state.reason().map(Reason::word),
            server: self.server.to_string(),
            remote: &self.remotes,
            error: self.error.as_deref(),
            learned: self.learned.as_deref(),
            time: clock::rfc3339_millis(at),
        };
        // Texts and numbers can always be written.
        serde_json::to_string(&data).unwrap_or_default()
    }
}
