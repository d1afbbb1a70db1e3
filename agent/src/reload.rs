//! The configuration of a running agent, and how it changes: by SIGHUP and by `config reload`.
//!
//! What a file says is taken up as far as that costs no tunnel; the rest waits for a restart, and is told until then. After a reload no
//! more is open than after a restart: what the policy doesn't allow any more closes. A configuration with a mistake changes
//! nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reverse_tunnel::HostKeys;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::agent::host_keys;
use crate::audit::{Audit, Kind, Outcome, Record, Source};
use crate::config::{Config, Effect, effect_of};
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::journal;
use crate::last_configuration::LastConfiguration;
use crate::limits::RELOADS;
use crate::supervisor::SupervisorHandle;
use crate::way_out::WayOut;

/// What came of a reload: keys of the configuration, `section.name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reloaded {
    /// Those that have changed, and are in force.
    pub applied: Vec<String>,
    /// Those that tunnels will have which are opened from now on.
    pub next_tunnel: Vec<String>,
    /// Those that are still as they were, until the agent is started anew.
    pub restart: Vec<String>,
}

/// What others see of the configuration.
#[derive(Clone, Debug)]
pub struct ConfigurationView {
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
    /// Since when it is in force.
    pub since: Instant,
    /// Keys that are written differently now, and wait for a restart.
    pub restart: Vec<String>,
    /// What is wrong with the files as they are now, if the last reload failed.
    pub error: Option<String>,
}

/// A request for a reload, and the way for its answer.
pub(crate) type Request = (Source, oneshot::Sender<Result<Reloaded, Problem>>);

/// The way to whoever reloads.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<Request>);

/// Makes the way, whose other end is the agent's.
pub(crate) fn channel() -> (ReloadHandle, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(RELOADS);
    (ReloadHandle(sender), receiver)
}

impl ReloadHandle {
    /// Asks for a reload, and waits for what came of it.
    ///
    /// # Errors
    /// The files have a mistake, or the agent stops.
    pub async fn reload(&self, source: Source) -> Result<Reloaded, Problem> {
        let (answer, answered) = oneshot::channel();
        let stopping = || Problem::new(Exit::NoAgent, "the agent is stopping", "start it again");
        self.0.send((source, answer)).await.map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// Who keeps the configuration of a running agent.
#[derive(Debug)]
pub(crate) struct Reloading {
    in_force: watch::Sender<Arc<Config>>,
    host_keys: watch::Sender<Arc<HostKeys>>,
    view: watch::Sender<ConfigurationView>,
    audit: Audit,
    /// An agent of one tunnel has none: it takes nothing up.
    last: Option<Mutex<LastConfiguration>>,
}

impl Reloading {
    /// Begins with this one; a service also records how it differs from that of its last run.
    pub(crate) fn new(config: &Config, audit: Audit, service: bool) -> Self {
        let last = service.then(|| Mutex::new(LastConfiguration::open(&config.state_dir, config, &audit)));
        let view = ConfigurationView {
            files: config.files.clone(),
            since: Instant::now(),
            restart: Vec::new(),
            error: None,
        };
        Self {
            host_keys: watch::Sender::new(Arc::new(host_keys(config))),
            in_force: watch::Sender::new(Arc::new(config.clone())),
            view: watch::Sender::new(view),
            audit,
            last,
        }
    }

    /// The configuration that is in force.
    pub(crate) fn in_force(&self) -> watch::Receiver<Arc<Config>> {
        self.in_force.subscribe()
    }

    /// Whom it trusts.
    pub(crate) fn host_keys(&self) -> watch::Receiver<Arc<HostKeys>> {
        self.host_keys.subscribe()
    }

    /// What others see of it.
    pub(crate) fn view(&self) -> watch::Receiver<ConfigurationView> {
        self.view.subscribe()
    }

    /// Reads the files again, and takes up what can be.
    ///
    /// # Errors
    /// They have a mistake, or name a file that can't be used. Everything is as it was then.
    pub(crate) async fn reload(
        &self,
        source: Source,
        supervisor: &SupervisorHandle,
    ) -> Result<Reloaded, Problem> {
        match self.read() {
            Ok((new, config, way_out)) => Ok(self.take_up(&new, config, way_out, source, supervisor).await),
            Err(error) => {
                tracing::error!(%error, in_force = "as before", "configuration-invalid");
                let record = Record::new(Kind::ConfigurationInvalid, source, Outcome::Failure);
                self.audit.record(record.text("error", &error));
                self.view.send_modify(|view| view.error = Some(error.clone()));
                let cure = "mend it; what was in force before still is";
                Err(Problem::new(Exit::Config, error, cure))
            }
        }
    }

    /// The configuration as it is written now, what of it can be in force now, and the way out that belongs to that.
    fn read(&self) -> Result<(Config, Config, WayOut), String> {
        let old = self.in_force.borrow().clone();
        let path = old.files.first().cloned().unwrap_or_default();
        let new = Config::load(&path).map_err(|error| error.to_string())?;
        let config = old.with_changes_of(&new).map_err(|error| error.to_string())?;
        let way_out = WayOut::new(&config.ssh).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((new, config, way_out))
    }

    async fn take_up(
        &self,
        new: &Config,
        config: Config,
        way_out: WayOut,
        source: Source,
        supervisor: &SupervisorHandle,
    ) -> Reloaded {
        let old = self.in_force.borrow().clone();
        let waiting = self.view.borrow().restart.clone();
        let mut reloaded = Reloaded::default();
        for key in old.differences(new) {
            let (list, word) = match effect_of(&key) {
                Effect::AtOnce => (&mut reloaded.applied, "at-once"),
                Effect::NextTunnel => (&mut reloaded.next_tunnel, "next-tunnel"),
                Effect::Restart => (&mut reloaded.restart, "restart"),
            };
            if !waiting.contains(&key) {
                let record = Record::new(Kind::ConfigurationReloaded, source, Outcome::Success)
                    .text("key", &key)
                    .text("value", &new.shown_value(&key))
                    .text("effect", word);
                self.audit.record(record);
            }
            list.push(key);
        }
        if let Some(last) = &self.last {
            last.lock().unwrap_or_else(PoisonError::into_inner).keep(new);
        }
        let config = Arc::new(config);
        journal::change(&config.log);
        self.host_keys.send_replace(Arc::new(host_keys(&config)));
        self.in_force.send_replace(config.clone());
        supervisor.reconfigure(config.clone(), way_out).await;
        self.view.send_replace(ConfigurationView {
            files: config.files.clone(),
            since: Instant::now(),
            restart: reloaded.restart.clone(),
            error: None,
        });
        let words = |keys: &[String]| keys.join(" ");
        tracing::info!(
            applied = words(&reloaded.applied),
            next_tunnel = words(&reloaded.next_tunnel),
            restart = words(&reloaded.restart),
            "configuration-reloaded"
        );
        reloaded
    }
}
