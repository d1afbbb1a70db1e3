//! A whole agent: from its configuration to its shutdown.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reverse_tunnel::{
    Clock, DeviceKeys, Events, HostKeyPolicy, HostKeys, Identity, KeyFault, KeyView, Meter, OwnListeners,
    Settings,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, interval_at};

use crate::audit::{self, Audit, Before, Ended, Kind, Outcome, Record, Source};
use crate::clock;
use crate::config::Config;
use crate::control::document::Observed;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::journal::{self, RemoteLog};
use crate::limits::{DESCRIPTORS, PLACE_INTERVAL};
use crate::network;
use crate::proxy::ProxyFileError;
use crate::reload::{self, Reloaded, Reloading};
use crate::service::instance::{Instance, InstanceError, StateLock, make_directory};
use crate::service::notify::{Notifier, Reporter};
use crate::service::place::Place;
use crate::service::privileges::cure_of_writing;
use crate::service::sandbox::Sandbox;
use crate::supervisor::{Supervisor, SupervisorHandle};
use crate::trigger::{self, LinkError, OcppLink};
use crate::upload::{self, Sources};
use crate::usage::Usage;
use crate::wanted::WantedFile;
use crate::way_out::WayOut;

/// What an agent is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The service: it keeps the OCPP link, and what is wanted survives its restart.
    Service,
    /// One tunnel that was asked for while no service runs.
    OneTunnel,
}

impl Purpose {
    /// As records and `status` have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::OneTunnel => "one-tunnel",
        }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    supervisor: SupervisorHandle,
    link: Option<OcppLink>,
    keys: Arc<DeviceKeys>,
    state: StateLock,
    place: Place,
    audit: Audit,
    writer: audit::Writer,
    remote_log: Option<RemoteLog>,
    reloading: Reloading,
    /// None comes to an agent of one tunnel.
    reloads: mpsc::Receiver<reload::Request>,
    /// Asks the service to reload; ends an agent of one tunnel with its terminal.
    hangup: Option<Signal>,
    notifier: Notifier,
    reporter: Reporter,
    look: Interval,
    terminate: Signal,
    interrupt: Signal,
}

/// Why an agent doesn't start.
#[derive(Debug)]
pub enum StartError {
    /// Another one runs, or `runtime_dir` can't be used.
    Instance(InstanceError),
    /// `state_dir` can't be used.
    State(PathBuf, io::Error),
    /// The device key can't be used.
    Key(KeyFault),
    /// The OCPP link can't be set up.
    Link(LinkError),
    /// The way out that the configuration names can't be used.
    WayOut(ProxyFileError),
    /// The control socket can't be made.
    Control(PathBuf, io::Error),
    /// Signals can't be received.
    Signals(io::Error),
}

impl Agent {
    /// Starts an agent; it is the only one of its `runtime_dir` and its `state_dir` from then on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: &Config, sandbox: Sandbox, purpose: Purpose) -> Result<Self, StartError> {
        let instance = Instance::acquire(&config.runtime_dir).map_err(StartError::Instance)?;
        raise_descriptor_limit();
        // Before anything can end us: who asks us to stop is always heard.
        let terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
        let service = purpose == Purpose::Service;
        let hangup = service.then(|| signal(SignalKind::hangup())).transpose();
        let hangup = hangup.map_err(StartError::Signals)?;
        let notifier = if service { Notifier::from_environment() } else { Notifier::default() };
        let remote_log = journal::start_remote(&config.log);
        make_state_directory(config)?;
        let state = StateLock::take(&config.state_dir).map_err(StartError::Instance)?;
        let keys = Arc::new(device_keys(config)?);
        if !service {
            usable(&keys)?;
        }
        let (audit, writer, before) =
            Audit::start(audit::directory(&config.state_dir), config.log.audit_bytes);
        record_start(&audit, purpose, before);
        let reloading = Reloading::new(config, audit.clone(), service);
        let file = service.then(|| WantedFile::in_directory(&config.runtime_dir));
        let network = network::watch();
        let settings = tunnel_settings(config, keys.clone(), reloading.host_keys(), network.clone());
        let own_listeners = settings.own_listeners.clone();
        let way_out = WayOut::new(&config.ssh).map_err(StartError::WayOut)?;
        let usage = Usage::open(&config.state_dir, config.policy.monthly_bytes, settings.meter.clone());
        let policy = Arc::new(config.policy.clone());
        let (supervisor, handle) =
            Supervisor::new(&config.slots, policy, settings, way_out, file, usage, audit.clone());
        let (uploads, upload_requests) = upload::channel();
        let link = match &config.ocpp {
            Some(ocpp) if service => {
                let audit = audit.clone();
                let started = trigger::start(
                    reloading.in_force(),
                    ocpp,
                    &keys,
                    handle.clone(),
                    network,
                    audit,
                    uploads,
                );
                Some(started.map_err(StartError::Link)?)
            }
            _ => None,
        };
        if let Some(address) = link.as_ref().and_then(OcppLink::listens) {
            own_listeners.add(address);
        }
        let mode = match &config.ocpp {
            Some(ocpp) if service && ocpp.bridge.is_some() => "bridge",
            Some(_) if service => "direct",
            _ => "off",
        };
        let observed = Observed {
            purpose,
            started: Instant::now().into_std(),
            mode,
            configuration: reloading.view(),
            sandbox,
            ocpp: link.as_ref().map(OcppLink::status),
            security: link.as_ref().map(OcppLink::security),
            reports: link.as_ref().and_then(OcppLink::reports),
            controllers: link.as_ref().map(OcppLink::controllers).unwrap_or_default(),
            views: handle.views(),
            usage: handle.usage(),
            keys: keys.clone(),
            audit: audit.health(),
            remote_log: remote_log.as_ref().map(RemoteLog::view),
        };
        if let (Some(ocpp), Some(link)) = (&config.ocpp, &link)
            && ocpp.bridge.is_none()
            && let Some(commands) = link.commands()
        {
            let (config, sources) =
                (reloading.in_force(), Sources::new(reloading.in_force(), observed.clone()));
            upload::spawn(upload_requests, config, ocpp, sources, audit.clone(), commands, link.status());
        }
        let (reload, reloads) = reload::channel();
        let reload = service.then_some(reload);
        let place = Place::take(config, instance, observed, handle.clone(), reload)?;
        tokio::spawn(supervisor.run());
        let version = env!("CARGO_PKG_VERSION");
        let key = keys.view().borrow().key.as_ref().map(Identity::fingerprint);
        tracing::info!(version, key = key.as_deref().unwrap_or("none"), "agent-started");
        let look = interval_at(Instant::now() + PLACE_INTERVAL, PLACE_INTERVAL);
        notifier.ready();
        let reporter = notifier.report(&handle, link.as_ref().map(OcppLink::status));
        Ok(Self {
            supervisor: handle,
            link,
            keys,
            state,
            place,
            audit,
            writer,
            remote_log,
            reloading,
            reloads,
            hangup,
            notifier,
            reporter,
            look,
            terminate,
            interrupt,
        })
    }

    /// The way to its supervisor.
    #[must_use]
    pub fn supervisor(&self) -> &SupervisorHandle {
        &self.supervisor
    }

    /// Waits until somebody wants it to stop: SIGTERM or SIGINT. Meanwhile it looks after its place in `runtime_dir`, and the
    /// service reloads its configuration.
    pub async fn asked_to_stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = hung_up(&mut self.hangup) => {
                    // What is wrong is in the log and in `status`.
                    let _ = self.reload(Source::Configuration).await;
                }
                Some((source, answer)) = self.reloads.recv() => {
                    let _ = answer.send(self.reload(source).await);
                }
                _ = self.look.tick() => {
                    self.look_for_key();
                    if self.place.look_after() {
                        self.supervisor.keep();
                    }
                }
            }
        }
    }

    /// A key's file that couldn't be used may have been mended, or can be made now.
    fn look_for_key(&self) {
        if self.keys.fault().is_some() {
            self.keys.refresh();
        }
        if self.keys.take_made()
            && let Some(key) = &self.keys.view().borrow().key
        {
            self.audit.record(key_made(Source::Agent, key));
        }
    }

    async fn reload(&self, source: Source) -> Result<Reloaded, Problem> {
        self.notifier.reloading();
        let reloaded = self.reloading.reload(source, &self.supervisor).await;
        self.notifier.ready();
        reloaded
    }

    /// Closes every tunnel and the link.
    pub async fn stop(self) {
        tracing::info!("agent-stopping");
        drop(self.reporter);
        self.notifier.stopping();
        let unlink = async {
            if let Some(link) = self.link {
                link.stop().await;
            }
        };
        tokio::join!(self.supervisor.shut_down(), unlink);
        let instance = self.place.leave();
        self.audit.record(Record::new(Kind::AgentStopped, Source::Agent, Outcome::Success));
        self.writer.stop().await;
        // The next agent may begin: all that is kept for it is kept.
        drop((self.state, instance));
        tracing::info!("agent-stopped");
        if let Some(remote_log) = self.remote_log {
            remote_log.stop().await;
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// The first record of a run, which tells how the one before ended.
fn record_start(audit: &Audit, purpose: Purpose, before: io::Result<Before>) {
    let record = Record::new(Kind::AgentStarted, Source::Agent, Outcome::Success)
        .text("version", env!("CARGO_PKG_VERSION"))
        .text("purpose", purpose.word())
        .number("pid", std::process::id().into())
        .text("boot", &clock::boot_id().unwrap_or_default());
    audit.record(match before {
        Ok(before) => {
            let ended = match before.ended {
                Ended::Stopped => "stopped",
                Ended::CutShort => "cut-short",
                Ended::Unknown => "unknown",
            };
            record.text("run_before", ended).number("seq_before", before.last)
        }
        Err(error) => record.text("run_before", "unreadable").text("error", &error.to_string()),
    });
}

/// Each forwarded connection takes a descriptor, and the usual soft limit of 1024 would let whoever reaches a published
/// port lock out the control socket.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "descriptor-limit-not-raised");
    }
}

/// Reads the device's keys, or makes the first one. Whether one can be used, [`usable`] tells.
///
/// # Errors
/// `state_dir` can't be made.
pub fn device_keys(config: &Config) -> Result<DeviceKeys, StartError> {
    make_state_directory(config)?;
    let comment = config.identity.as_deref().unwrap_or("ocpp-tunnel");
    let keys = DeviceKeys::open(&config.ssh.identity_file, comment);
    if keys.take_made()
        && let Some(key) = &keys.view().borrow().key
        && let Err(error) = audit::write_now(config, key_made(Source::this_process(), key))
    {
        tracing::warn!(%error, "audit-not-written");
    }
    Ok(keys)
}

/// The key that servers have to authorise, for what makes no sense without one.
///
/// # Errors
/// The device key can't be used.
pub fn usable(keys: &DeviceKeys) -> Result<Identity, StartError> {
    let KeyView { key, fault } = keys.view().borrow().clone();
    match (key, fault) {
        (Some(key), None) => Ok(key),
        (_, fault) => Err(StartError::Key(fault.unwrap_or_default())),
    }
}

fn key_made(source: Source, key: &Identity) -> Record {
    Record::new(Kind::DeviceKeyMade, source, Outcome::Success).text("key", &key.fingerprint())
}

/// Makes `state_dir` where it doesn't exist.
///
/// # Errors
/// It can't be made.
pub fn make_state_directory(config: &Config) -> Result<(), StartError> {
    match make_directory(&config.state_dir) {
        Ok(_) => Ok(()),
        Err(error) => Err(StartError::State(config.state_dir.clone(), error)),
    }
}

/// Whom the configuration trusts.
#[must_use]
pub fn host_keys(config: &Config) -> HostKeys {
    host_keys_by(config, config.ssh.host_key_policy)
}

/// Whom it would trust by another policy: where a person is asked about a server that nothing is known of.
#[must_use]
pub fn host_keys_by(config: &Config, policy: HostKeyPolicy) -> HostKeys {
    let ssh = &config.ssh;
    let clock = Clock { now: clock::now, is_set: clock::is_set };
    HostKeys::new(ssh.host_keys.clone(), ssh.known_hosts_file.clone(), policy, clock)
}

fn tunnel_settings(
    config: &Config,
    keys: Arc<DeviceKeys>,
    host_keys: watch::Receiver<Arc<HostKeys>>,
    network: watch::Receiver<()>,
) -> Settings {
    Settings {
        keys,
        host_keys,
        tuning: config.tuning(),
        meter: Arc::new(Meter::default()),
        own_listeners: OwnListeners::default(),
        network,
        events: Events::default(),
    }
}

impl StartError {
    /// Was another process the agent already?
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Instance(InstanceError::Running { .. }))
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Link(LinkError::Listen(..)) => Exit::Error,
            Self::Link(_) | Self::WayOut(_) | Self::Key(_) => Exit::Config,
            _ => Exit::Error,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::Instance(InstanceError::Running { .. }) => "see `ocpp-tunnel status`".into(),
            Self::Instance(InstanceError::State { .. }) => {
                "wait half a minute, if it is to be this one's: it takes its runtime_dir again; or else give each a state_dir of its own"
                    .into()
            }
            Self::Instance(InstanceError::Directory(path, _)) | Self::State(path, _) => {
                match std::fs::metadata(path) {
                    Ok(found) if found.is_dir() => cure_of_writing(path, found.uid()),
                    _ => format!("make {} a directory that this user may write to, or run as root", path.display()),
                }
            }
            Self::Key(fault) => fault.cure.clone(),
            Self::Link(LinkError::Listen(..)) => {
                "end the program that listens there (`ss -ltnp` shows it), or set another bridge.listen"
                    .into()
            }
            Self::Link(_) | Self::WayOut(_) => {
                "mend the configuration; `ocpp-tunnel config check` tests it".into()
            }
            Self::Control(..) | Self::Signals(_) => "check runtime_dir".into(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(error) => error.fmt(f),
            Self::State(path, error) => write!(f, "can't use state_dir {}: {error}", path.display()),
            Self::Key(fault) => fault.fmt(f),
            Self::Link(error) => error.fmt(f),
            Self::WayOut(error) => error.fmt(f),
            Self::Control(path, error) => write!(f, "can't listen on {}: {error}", path.display()),
            Self::Signals(error) => write!(f, "can't receive signals: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
