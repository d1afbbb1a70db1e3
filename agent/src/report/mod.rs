//! What the CSMS is told of its own accord: how the tunnels are, by DataTransfer, and what has happened, by
//! SecurityEventNotification (OCPP 1.6 security whitepaper, edition 3, 5.23).
//!
//! A state machine without IO: views, events, the state of the link and outcomes go in, one call at a time comes out.
//! Nothing is forgotten before the CSMS has answered it; while there is no link it waits here, within bounds.
//!
//! The two kinds wait apart: [`tunnel_status`] holds the latest state of each tunnel, [`security_events`] the events in
//! their order. A CSMS that doesn't want one of them is asked no more before the next connection.

mod security_event;
mod security_events;
mod tunnel_status;

use std::time::{Instant, SystemTime};

use ocpp_bridge::{Call, CallId, LinkFault, Outcome};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

pub use self::security_event::SecurityEvent;
use self::security_events::SecurityEvents;
use self::tunnel_status::TunnelStatuses;
use crate::limits::{REPORT_PAUSE, REPORT_PAUSE_DOUBLINGS};
use crate::supervisor::View;

/// The vendor id of our DataTransfers.
pub const VENDOR_ID: &str = "org.ocpp-tunnel";

/// The message id of a tunnel's state.
pub const TUNNEL_STATUS: &str = "TunnelStatus";

/// Its calls are numbered below this; from there on they are those of uploads.
const CALLS: u64 = 1 << 63;

/// What others see of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportsView {
    /// Reports that the CSMS hasn't answered yet.
    pub waiting: usize,
    /// Reports that were dropped for want of room since the agent's start.
    pub dropped: u64,
}

/// What is to be told, and how far that has come.
#[derive(Debug)]
pub struct Reports {
    tunnels: TunnelStatuses,
    tunnels_road: Road,
    events: SecurityEvents,
    events_road: Road,
    /// Since when the CSMS takes calls on this connection; none while it doesn't. It stands for the connection.
    link: Option<Instant>,
    /// The one call under way.
    flight: Option<Flight>,
    next_call: u64,
    dropped: u64,
}

/// Whether reports of one kind get through on this connection.
#[derive(Debug, Default)]
struct Road {
    /// The CSMS doesn't want them.
    closed: bool,
    /// Nothing is sent before this.
    paused_until: Option<Instant>,
    /// Calls in a row that came to nothing.
    failures: u32,
    /// Nothing is sent before the CSMS has answered something else: a link on which several calls in a row aren't
    /// answered counts as dead, and reports that a CSMS ignores must not end it.
    needs_life: bool,
}

#[derive(Debug)]
struct Flight {
    id: CallId,
    link: Instant,
    cargo: Cargo,
}

#[derive(Debug)]
enum Cargo {
    Tunnel(tunnel_status::Taken),
    Event(security_events::Taken),
}

/// DataTransfer.conf, as far as it matters (OCPP 1.6 §6.16).
#[derive(Deserialize)]
struct DataTransferAnswer {
    status: String,
}

impl Reports {
    /// Nothing but the start of the agent to tell as yet.
    #[must_use]
    pub fn new(uptime_seconds: u64, now: Instant) -> Self {
        let mut reports = Self {
            tunnels: TunnelStatuses::default(),
            tunnels_road: Road::default(),
            events: SecurityEvents::default(),
            events_road: Road::default(),
            link: None,
            flight: None,
            next_call: 0,
            dropped: 0,
        };
        reports.happened(SecurityEvent::started(uptime_seconds), now);
        reports
    }

    // --- inputs ---

    /// The tunnels are like this now.
    pub fn observe(&mut self, views: &[View], now: Instant) {
        let dropped = self.tunnels.observe(views, now);
        self.dropped += dropped;
    }

    /// This happened then.
    pub fn happened(&mut self, event: SecurityEvent, at: Instant) {
        if !self.events_road.closed {
            self.dropped += self.events.push(event, at);
        }
    }

    /// So many events were missed.
    pub fn missed(&mut self, count: u64, now: Instant) {
        if !self.events_road.closed {
            self.events.add_dropped(count, now);
            self.dropped += count;
        }
    }

    /// The device has another SSH key now, with this fingerprint.
    pub fn new_key(&mut self, fingerprint: &str, now: Instant) {
        self.happened(SecurityEvent::new_key(fingerprint), now);
    }

    /// The CSMS has changed this configuration key, by which the link proves itself.
    pub fn reconfigured(&mut self, key: &str, now: Instant) {
        self.happened(SecurityEvent::reconfigured(key), now);
    }

    /// There is no link because of this.
    pub fn link_fault(&mut self, fault: LinkFault, error: &str, now: Instant) {
        if let Some(event) = SecurityEvent::link_fault(fault, error) {
            self.happened(event, now);
        }
    }

    /// The CSMS has asked for a reset, which begins the link anew.
    pub fn reset(&mut self, hard: bool, now: Instant) {
        self.happened(SecurityEvent::reset(hard), now);
    }

    /// Since when the CSMS takes calls; none while it doesn't. Another moment means another connection.
    pub fn link(&mut self, accepted_since: Option<Instant>) {
        if self.link != accepted_since {
            self.link = accepted_since;
            self.tunnels_road = Road::default();
            self.events_road = Road::default();
        }
    }

    /// The CSMS has answered something else, a Heartbeat mostly.
    pub fn heard(&mut self) {
        self.tunnels_road.needs_life = false;
        self.events_road.needs_life = false;
    }

    /// What became of a call, if it is one of ours.
    pub fn called(&mut self, id: CallId, outcome: &Outcome, now: Instant) {
        let Some(flight) = self.flight.take_if(|flight| flight.id == id) else { return };
        // What an earlier connection has come to says nothing about this one.
        let same_link = self.link == Some(flight.link);
        if matches!(outcome, Outcome::Result(_) | Outcome::Error { .. }) {
            self.heard();
        }
        match flight.cargo {
            Cargo::Tunnel(taken) => {
                match outcome {
                    Outcome::Result(payload) if is_accepted(payload) => self.tunnels_road.answered(),
                    Outcome::Result(_) | Outcome::Error { .. } => self.tunnels_road.close(same_link),
                    Outcome::Unanswered | Outcome::Lost => return self.tunnels_road.pause(same_link, now),
                }
                self.tunnels.told(taken, now);
            }
            Cargo::Event(taken) => match outcome {
                Outcome::Error { code, .. } if is_unsupported(code) => {
                    self.events_road.close(same_link);
                    self.events.clear();
                }
                // Another error is about this event: the next one may do better, and this one no better the next time.
                Outcome::Result(_) | Outcome::Error { .. } => {
                    self.events_road.answered();
                    self.events.answered(taken);
                }
                Outcome::Unanswered | Outcome::Lost => {
                    self.events.put_back(taken);
                    self.events_road.pause(same_link, now);
                }
            },
        }
    }

    // --- outputs ---

    /// The next call, if there is one to make now; `wall` says when a moment was.
    pub fn poll_call(&mut self, now: Instant, wall: impl Fn(Instant) -> SystemTime) -> Option<Call> {
        let link = self.link.filter(|_| self.flight.is_none())?;
        let of_tunnel = self.tunnel_due().filter(|(due, _)| *due <= now).map(|(_, at)| at);
        let of_event = self.event_due().filter(|(due, _)| *due <= now).map(|(_, at)| at);
        let tunnel_first = match (of_tunnel, of_event) {
            (Some(tunnel), Some(event)) => tunnel < event,
            (tunnel, _) => tunnel.is_some(),
        };
        let (cargo, action, payload) = if tunnel_first {
            let (taken, data) = self.tunnels.take(wall)?;
            let payload = json!({ "vendorId": VENDOR_ID, "messageId": TUNNEL_STATUS, "data": data });
            (Cargo::Tunnel(taken), "DataTransfer", payload)
        } else {
            of_event?;
            let (taken, payload) = self.events.take(wall)?;
            (Cargo::Event(taken), "SecurityEventNotification", payload)
        };
        let id = CallId(self.next_call);
        self.next_call = (self.next_call + 1) % CALLS;
        self.flight = Some(Flight { id, link, cargo });
        Some(Call { id, action, payload: raw(&payload) })
    }

    /// When [`Self::poll_call`] will have something; none: not before something else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.link.filter(|_| self.flight.is_none())?;
        [self.tunnel_due(), self.event_due()].into_iter().flatten().map(|(due, _)| due).min()
    }

    /// What others see of it.
    #[must_use]
    pub fn view(&self) -> ReportsView {
        ReportsView { waiting: self.tunnels.waiting() + self.events.waiting(), dropped: self.dropped }
    }

    /// When the first report of a tunnel is due, and when that came about.
    fn tunnel_due(&self) -> Option<(Instant, Instant)> {
        let (due, at) = self.tunnels.due()?;
        Some((self.tunnels_road.open_from(due)?, at))
    }

    /// When the first event is due, and when it happened.
    fn event_due(&self) -> Option<(Instant, Instant)> {
        let at = self.events.first_at()?;
        Some((self.events_road.open_from(at)?, at))
    }
}

impl Road {
    /// When something that is due then may be sent; none: not on this connection, or not before the CSMS is heard.
    fn open_from(&self, due: Instant) -> Option<Instant> {
        (!self.closed && !self.needs_life).then(|| self.paused_until.map_or(due, |paused| paused.max(due)))
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.paused_until = None;
    }

    fn close(&mut self, same_link: bool) {
        self.closed |= same_link;
    }

    /// Some CSMSs never answer what they don't know, and each call keeps others waiting until it has timed out.
    fn pause(&mut self, same_link: bool, now: Instant) {
        if same_link {
            self.paused_until = Some(now + REPORT_PAUSE * (1 << self.failures.min(REPORT_PAUSE_DOUBLINGS)));
            self.failures = self.failures.saturating_add(1);
            self.needs_life = true;
        }
    }
}

fn is_accepted(payload: &RawValue) -> bool {
    serde_json::from_str(payload.get()).is_ok_and(|answer: DataTransferAnswer| answer.status == "Accepted")
}

/// OCPP-J 1.6 §4.2.3.
fn is_unsupported(code: &str) -> bool {
    matches!(code, "NotImplemented" | "NotSupported")
}

/// A value can always be written; if one couldn't, the CSMS would refuse the empty payload.
fn raw(payload: &Value) -> Box<RawValue> {
    to_raw_value(payload).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
