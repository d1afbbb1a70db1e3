//! The way to the supervisor, for everyone else.

use std::sync::Arc;

use reverse_tunnel::Reason;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Command, OpenRequest, Source, TunnelId, View};
use crate::config::Config;
use crate::happening::Happenings;
use crate::policy::Refusal;
use crate::usage::UsageView;
use crate::way_out::WayOut;

/// The way to the supervisor. It is gone when the agent stops; what is asked of it then is refused.
#[derive(Clone, Debug)]
pub struct SupervisorHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) views: watch::Receiver<Vec<View>>,
    pub(super) usage: watch::Receiver<UsageView>,
    pub(super) happenings: Happenings,
}

impl SupervisorHandle {
    /// Asks for a tunnel.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn open(&self, request: OpenRequest) -> Result<TunnelId, Refusal> {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Open(request, answer)).await.is_err() {
            return Err(Refusal::ShuttingDown);
        }
        answered.await.unwrap_or(Err(Refusal::ShuttingDown))
    }

    /// Records a request for a slot that was refused before it could become one.
    pub async fn refuse(&self, slot: u8, refusal: Refusal, source: Source) {
        let _ = self.commands.send(Command::Refuse { slot, refusal, source }).await;
    }

    /// Closes one tunnel, or all, and gives those that were open. It doesn't wait for them.
    pub async fn close(&self, id: Option<TunnelId>, reason: Reason, source: Source) -> Vec<TunnelId> {
        let (closed, result) = oneshot::channel();
        let _ = self.commands.send(Command::Close { id, reason, source, closed }).await;
        result.await.unwrap_or_default()
    }

    /// Writes down what is wanted once more: `runtime_dir` was emptied.
    pub fn keep(&self) {
        // A supervisor that has too much to do writes it down soon anyway.
        let _ = self.commands.try_send(Command::Keep);
    }

    /// Hands on what of another configuration is the supervisor's, and waits until it is in force.
    pub async fn reconfigure(&self, config: Arc<Config>, way_out: WayOut) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(Command::Reconfigure { config, way_out, done }).await.is_ok() {
            let _ = finished.await;
        }
    }

    /// Waits for a sign of life; false when the supervisor has ended.
    pub async fn answers(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Answer(answer)).await.is_ok() && answered.await.is_ok()
    }

    /// Closes everything for good, within [`SHUTDOWN`](crate::limits::SHUTDOWN).
    pub async fn shut_down(&self) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = finished.await;
        }
    }

    /// What the supervisor publishes.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Vec<View>> {
        self.views.clone()
    }

    /// Where the supervisor tells what happens.
    #[must_use]
    pub fn happenings(&self) -> &Happenings {
        &self.happenings
    }

    /// What the tunnels have carried this month.
    #[must_use]
    pub fn usage(&self) -> watch::Receiver<UsageView> {
        self.usage.clone()
    }
}
