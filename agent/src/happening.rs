//! What happens to tunnels, one by one: the supervisor tells, whoever reports it listens.
//!
//! [`crate::supervisor::View`]s show how everything is now; here nothing that lasted only a moment is missed.

use std::time::Instant;

use reverse_tunnel::{Destination, Reason};
use tokio::sync::broadcast;

use crate::limits::HAPPENINGS;
use crate::supervisor::{Origin, Source, TunnelId};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// A tunnel is up for the first time since it was asked for.
    Opened {
        /// Its name.
        id: TunnelId,
        /// Where it goes.
        server: Destination,
        /// What the server listens for.
        remotes: Vec<String>,
        /// Who asked for it.
        origin: Origin,
    },
    /// A tunnel has ended, whether it was up or not.
    Closed {
        /// Its name.
        id: TunnelId,
        /// Where it went.
        server: Destination,
        /// Why.
        reason: Reason,
        /// What went wrong, if that ended it.
        error: Option<String>,
    },
    /// A request for a tunnel was refused.
    Refused {
        /// Its name, where it would have had one.
        id: Option<TunnelId>,
        /// Why.
        why: String,
        /// Who asked.
        source: Source,
    },
    /// A server showed another host key than the trusted one.
    HostKeyMismatch {
        /// The tunnel.
        id: TunnelId,
        /// Where it went.
        server: Destination,
        /// What is wrong with the key.
        error: String,
    },
    /// A server's host key was learned.
    HostKeyLearned {
        /// The tunnel.
        id: TunnelId,
        /// Where it goes.
        server: Destination,
        /// The key.
        fingerprint: String,
    },
}

/// Where to tell what has happened. Nobody is waited for; a listener that is late learns how much it has missed.
#[derive(Clone, Debug)]
pub struct Happenings(broadcast::Sender<(Instant, Happened)>);

impl Happenings {
    /// Tells it to those who listen.
    pub fn tell(&self, happened: Happened) {
        // An error only says that nobody listens.
        let _ = self.0.send((tokio::time::Instant::now().into_std(), happened));
    }

    /// Everything from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<(Instant, Happened)> {
        self.0.subscribe()
    }
}

impl Default for Happenings {
    fn default() -> Self {
        Self(broadcast::Sender::new(HAPPENINGS))
    }
}
