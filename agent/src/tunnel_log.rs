//! What the log says of a tunnel: a line for each change that people care about. Those that somebody far away wants to
//! know are told of as [`Happened`], too.

use reverse_tunnel::{Failure, FailureKind, Notice, Reason, State, Status};

use crate::advice;
use crate::happening::{Happened, Happenings};
use crate::supervisor::{Origin, TunnelId};

/// Follows one tunnel.
pub(crate) struct TunnelLog {
    id: TunnelId,
    /// It was triggered: the vendor's line tells when the trigger has done its work.
    of_slot: bool,
    origin: Origin,
    happenings: Happenings,
    has_been_up: bool,
    last: Option<Status>,
}

impl TunnelLog {
    pub(crate) fn new(id: TunnelId, of_slot: bool, origin: Origin, happenings: Happenings) -> Self {
        Self { id, of_slot, origin, happenings, has_been_up: false, last: None }
    }

    pub(crate) fn write(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::Changed(status) => {
                self.changed(status);
                self.last = Some((*status).clone());
            }
            Notice::EndsSoon(status) => {
                tracing::warn!(slot = %self.id, server = %status.destination, "tunnel-ends-in-ten-minutes");
            }
        }
    }

    fn changed(&mut self, status: &Status) {
        let (slot, server) = (self.id, &status.destination);
        self.host_key(status);
        let entered = self.last.as_ref().is_none_or(|last| last.state != status.state);
        let error = status.last_error.as_ref();
        match status.state {
            State::Up if entered => {
                let peer = status.peer.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::debug!(%slot, %server, peer, "tunnel-reached");
                for forward in &status.forwards {
                    tracing::info!(%slot, %server, remote = %forward.remote, local = %forward.local, "tunnel-up");
                }
                if self.of_slot && !self.has_been_up {
                    tracing::info!("Ebee custom script invocation completed");
                }
                if !self.has_been_up {
                    self.happenings.tell(Happened::Opened {
                        id: slot,
                        server: server.clone(),
                        remotes: status.forwards.iter().map(|forward| forward.remote.to_string()).collect(),
                        origin: self.origin,
                    });
                }
                self.has_been_up = true;
            }
            State::Backoff if entered => {
                let retry_in = status.retry_at.map(|at| at.saturating_duration_since(status.since).as_secs());
                if let Some(error) = error {
                    tracing::warn!(%slot, %server, %error, retry_in, "tunnel-down");
                }
            }
            State::Forwarding => {
                // Once for each forward that is refused, not for each time that it is asked for again.
                let before = self.last.as_ref().and_then(|last| last.last_error.as_ref());
                let news = |error: &&Failure| error.kind == FailureKind::Forward && Some(*error) != before;
                if let Some(error) = error.filter(news) {
                    tracing::warn!(%slot, %server, %error, "forward-refused");
                }
            }
            State::Closed(reason) => self.closed(status, reason),
            state if entered => tracing::debug!(%slot, %server, "tunnel-{state}"),
            _ => {}
        }
    }

    fn host_key(&self, status: &Status) {
        let before = self.last.as_ref().and_then(|last| last.host_key.as_ref());
        if let Some(key) = status.host_key.as_ref().filter(|key| key.learned && Some(*key) != before) {
            tracing::warn!(slot = %self.id, server = %status.destination, fingerprint = key.fingerprint, "host-key-learned");
            self.happenings.tell(Happened::HostKeyLearned {
                id: self.id,
                server: status.destination.clone(),
                fingerprint: key.fingerprint.clone(),
            });
        }
    }

    fn closed(&self, status: &Status, reason: Reason) {
        let (slot, server) = (self.id, &status.destination);
        let error = advice::fatal(status).map(ToString::to_string);
        if let (Reason::HostKeyMismatch, Some(error)) = (reason, error.clone()) {
            self.happenings.tell(Happened::HostKeyMismatch { id: slot, server: server.clone(), error });
        }
        self.happenings.tell(Happened::Closed { id: slot, server: server.clone(), reason, error });
        match (advice::for_end(status), advice::fatal(status)) {
            (Some(cure), Some(error)) => {
                tracing::error!(%slot, %server, %reason, %error, %cure, "tunnel-closed");
            }
            _ => tracing::info!(%slot, %server, %reason, "tunnel-closed"),
        }
    }
}
