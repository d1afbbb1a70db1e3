//! What is recorded of a tunnel: when it is up and when it isn't, whose key was learned, and what went through it.

use reverse_tunnel::{ConnectionEnd, Destination, End, Event, Events, Forward, Notice, State, Status};

use super::{Audit, Kind, Outcome, Record, Source};
use crate::advice;
use crate::supervisor::TunnelId;

/// Follows one tunnel.
pub(crate) struct TunnelAudit {
    id: TunnelId,
    audit: Audit,
    was_up: bool,
    /// The fingerprint that was recorded as learned.
    learned: Option<String>,
}

impl TunnelAudit {
    pub(crate) fn new(id: TunnelId, audit: Audit) -> Self {
        Self { id, audit, was_up: false, learned: None }
    }

    /// What records this tunnel's connections and keys.
    pub(crate) fn events(&self, server: &Destination) -> Events {
        let (id, audit, server) = (self.id, self.audit.clone(), server.to_string());
        Events::new(move |event| audit.record(of_event(id, &server, &event)))
    }

    pub(crate) fn write(&mut self, notice: &Notice<'_>) {
        let Notice::Changed(status) = notice else { return };
        self.host_key(status);
        let is_up = status.state == State::Up;
        match status.state {
            State::Up if !self.was_up => self.audit.record(self.opened(status)),
            State::Closed(reason) => self.audit.record(self.closed(status, reason.word())),
            _ if self.was_up && !is_up => self.audit.record(self.lost(status)),
            _ => {}
        }
        self.was_up = is_up;
    }

    fn opened(&self, status: &Status) -> Record {
        let mut record = self
            .of(Kind::TunnelOpened, Outcome::Success, status)
            .texts("forwards", status.forwards.iter().map(shown));
        if let Some(peer) = &status.peer {
            record = record.text("address", &peer.to_string());
        }
        match &status.host_key {
            Some(key) => record.text("host_key", &key.fingerprint),
            None => record,
        }
    }

    fn lost(&self, status: &Status) -> Record {
        let record = self.of(Kind::TunnelLost, Outcome::Failure, status);
        match &status.last_error {
            Some(error) => record.text("error", &error.text),
            None => record,
        }
    }

    fn closed(&self, status: &Status, reason: &str) -> Record {
        let error = advice::fatal(status);
        let outcome = if error.is_some() { Outcome::Failure } else { Outcome::Success };
        let record = self.of(Kind::TunnelClosed, outcome, status).text("reason", reason);
        match error {
            Some(error) => record.text("error", &error.text),
            None => record,
        }
    }

    fn host_key(&mut self, status: &Status) {
        let key = status.host_key.as_ref().filter(|key| key.learned);
        let Some(key) = key.filter(|key| self.learned.as_ref() != Some(&key.fingerprint)) else { return };
        let record =
            self.of(Kind::HostKeyLearned, Outcome::Success, status).text("host_key", &key.fingerprint);
        self.audit.record(record);
        self.learned = Some(key.fingerprint.clone());
    }

    fn of(&self, kind: Kind, outcome: Outcome, status: &Status) -> Record {
        of_tunnel(kind, outcome, self.id, &status.destination.to_string())
    }
}

fn of_tunnel(kind: Kind, outcome: Outcome, id: TunnelId, server: &str) -> Record {
    Record::new(kind, Source::Tunnel, outcome).text("tunnel", &id.to_string()).text("server", server)
}

fn of_event(id: TunnelId, server: &str, event: &Event) -> Record {
    let of = |kind, outcome| of_tunnel(kind, outcome, id, server);
    match event {
        Event::Connection(connection) => {
            let (kind, outcome) = match &connection.end {
                end if end.is_refusal() => (Kind::ConnectionRefused, Outcome::Refused),
                End::Complete => (Kind::ConnectionEnded, Outcome::Success),
                _ => (Kind::ConnectionEnded, Outcome::Failure),
            };
            of_connection(of(kind, outcome), connection)
        }
        Event::HostKeysExchanged { learned, forgotten } => of(Kind::HostKeysExchanged, Outcome::Success)
            .number("learned", *learned as u64)
            .number("forgotten", *forgotten as u64),
        Event::DeviceKeyChanged { key, old } => {
            of(Kind::DeviceKeyChanged, Outcome::Success).text("key", key).text("old", old)
        }
    }
}

fn of_connection(record: Record, connection: &ConnectionEnd) -> Record {
    let milliseconds = u64::try_from(connection.lasted.as_millis()).unwrap_or(u64::MAX);
    let record = record
        .text("forward", &shown(&connection.forward))
        .text("from", &connection.originator)
        .traffic(connection.bytes_in, connection.bytes_out)
        .number("milliseconds", milliseconds)
        .text("end", connection.end.word());
    match &connection.end {
        End::Broken(why) | End::Unreachable(why) | End::Forbidden(why) => record.text("why", why),
        _ => record,
    }
}

fn shown(forward: &Forward) -> String {
    format!("{} -> {}", forward.remote, forward.local)
}
