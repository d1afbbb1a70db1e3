//! The agent's place in `runtime_dir`: its lock, and the control socket that others find it by.
//!
//! Somebody may empty that directory under a running agent. Then nothing can be asked of it any more, and a second agent
//! can start. So it looks from time to time, and makes both again, unless somebody else has taken the place.

use std::path::PathBuf;

use tokio::task::AbortHandle;

use super::instance::{Instance, Made};
use crate::agent::StartError;
use crate::config::Config;
use crate::control::document::Observed;
use crate::control::server::ControlServer;
use crate::reload::ReloadHandle;
use crate::supervisor::SupervisorHandle;

/// Lock and socket of a running agent.
#[derive(Debug)]
pub struct Place {
    runtime_dir: PathBuf,
    path: PathBuf,
    instance: Instance,
    socket: Made,
    control: AbortHandle,
    observed: Observed,
    supervisor: SupervisorHandle,
    reload: Option<ReloadHandle>,
    /// The log has said that it is lost.
    told: bool,
}

impl Place {
    /// Listens where the lock has been taken. Must be called within the runtime.
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn take(
        config: &Config,
        instance: Instance,
        observed: Observed,
        supervisor: SupervisorHandle,
        reload: Option<ReloadHandle>,
    ) -> Result<Self, StartError> {
        let path = config.control_socket();
        let (control, socket) =
            ControlServer::bind(&path, observed.clone(), supervisor.clone(), reload.clone())
                .map_err(|error| StartError::Control(path.clone(), error))?;
        let control = tokio::spawn(control.run()).abort_handle();
        let runtime_dir = config.runtime_dir.clone();
        Ok(Self { runtime_dir, path, instance, socket, control, observed, supervisor, reload, told: false })
    }

    /// Takes a place again that was lost; true if it did. What keeps it from that is told of once.
    pub fn look_after(&mut self) -> bool {
        if self.instance.is_in_place() && self.socket.is_in_place() {
            return false;
        }
        match self.take_again() {
            Ok(()) => {
                tracing::warn!(runtime_dir = %self.runtime_dir.display(), "runtime-dir-restored");
                self.told = false;
                true
            }
            Err(error) => {
                if !self.told {
                    let runtime_dir = self.runtime_dir.display();
                    let cure = "stop one of two agents, or restart this one";
                    tracing::error!(%runtime_dir, %error, cure, "runtime-dir-lost");
                }
                self.told = true;
                false
            }
        }
    }

    fn take_again(&mut self) -> Result<(), StartError> {
        if !self.instance.is_in_place() {
            self.instance = Instance::acquire(&self.runtime_dir).map_err(StartError::Instance)?;
        }
        let (control, socket) = ControlServer::bind(
            &self.path,
            self.observed.clone(),
            self.supervisor.clone(),
            self.reload.clone(),
        )
        .map_err(|error| StartError::Control(self.path.clone(), error))?;
        self.control.abort();
        self.control = tokio::spawn(control.run()).abort_handle();
        self.socket = socket;
        Ok(())
    }

    /// Answers nobody any more; the next agent may take the place when what this gives is dropped. What another one has put there
    /// stays.
    #[must_use]
    pub fn leave(self) -> Instance {
        self.socket.remove();
        self.control.abort();
        self.instance
    }
}
