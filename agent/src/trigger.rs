//! The OCPP link and what it opens: configuration keys in, supervisor commands out, status keys back.
//!
//! Each slot has its key, the wanted destination, and `…Status`, which tells how its tunnel is. Values are judged here
//! and by the supervisor's policy; the answer says only whether they were accepted, the reason is in `…Status`.

mod endpoint;
mod reporting;
mod status_value;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ocpp_bridge::{
    Command, ConfigurationStatus, ControllerStatus, DataTransferStatus, Event, LinkStatus, Reply, RequestId,
    frame::ErrorCode,
};
use reverse_tunnel::{Destination, DeviceKeys, Identity, KeyView, Reason};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) use self::endpoint::boot_info;
use self::endpoint::{Endpoint, Ends};
use self::reporting::Reporting;
use self::status_value::status_value;
use crate::audit::{self, Audit, Kind, Outcome, Record};
use crate::clock;
use crate::config::{CLIENT_KEY, Config, Ocpp, Slot};
use crate::kept_configuration::KeptConfiguration;
use crate::limits::{LINK_COMMANDS, LINK_EVENTS, OCPP_VALUE_CHARACTERS};
use crate::link_security::{
    AUTHORIZATION_KEY, FileError, Judgement, LinkSecurity, SECURITY_PROFILE, SecurityView,
};
use crate::policy::Refusal;
use crate::proxy::ProxyFileError;
use crate::report::ReportsView;
use crate::supervisor::{OpenRequest, Source, SupervisorHandle, TunnelId, View, What};
use crate::upload::{self, PROTOCOLS_KEY, Uploads};

/// A running link to the CSMS.
#[derive(Debug)]
pub struct OcppLink {
    status: watch::Receiver<LinkStatus>,
    security: watch::Receiver<SecurityView>,
    /// Absent where nothing is reported.
    reports: Option<watch::Receiver<ReportsView>>,
    /// How it goes with each controller, where there is a bridge.
    controllers: Vec<watch::Receiver<ControllerStatus>>,
    /// Where controllers connect.
    listens: Option<SocketAddr>,
    /// Weak, since the link ends when nobody holds the other end any more.
    commands: mpsc::WeakSender<Command>,
    stop: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

/// Why no link can be set up.
#[derive(Debug)]
pub enum LinkError {
    /// A secret or certificate of the configuration can't be used.
    Security(FileError),
    /// The proxy's user and password can't be used.
    Proxy(ProxyFileError),
    /// The configuration's keys clash; [`Config`] has ruled it out.
    Keys(String),
    /// The bridge can't listen there.
    Listen(SocketAddr, io::Error),
}

/// Starts the link.
///
/// # Errors
/// A secret or certificate that the configuration names can't be used; the bridge can't listen.
pub fn start(
    in_force: watch::Receiver<Arc<Config>>,
    ocpp: &Arc<Ocpp>,
    keys: &DeviceKeys,
    supervisor: SupervisorHandle,
    network: watch::Receiver<()>,
    audit: Audit,
    uploads: Uploads,
) -> Result<OcppLink, LinkError> {
    let config = in_force.borrow().clone();
    let (security, profile) =
        LinkSecurity::open(ocpp.clone(), &config.state_dir).map_err(LinkError::Security)?;
    let mut kept = KeptConfiguration::open(&config.state_dir);
    let (event_sender, events) = mpsc::channel(LINK_EVENTS);
    let (commands, command_receiver) = mpsc::channel(LINK_COMMANDS);
    let (status_sender, status) = watch::channel(LinkStatus::default());
    let (stop, stopped) = mpsc::channel(1);
    let settings = endpoint::link_settings(ocpp, profile, network)?;
    let ends = Ends { events: event_sender, commands: command_receiver, status: status_sender };
    let Endpoint { task: link, controllers, listens } = match &ocpp.bridge {
        None => endpoint::charge_point(&config, ocpp, settings, &mut kept, ends)?,
        Some(bridge) => endpoint::bridge(&config, ocpp, bridge, settings, ends)?,
    };
    let view = security.view();
    let (reports_sender, reports) = watch::channel(ReportsView::default());
    let reporting = match ocpp.report {
        true => Reporting::new(supervisor.happenings(), status.clone(), reports_sender),
        false => Reporting::off(),
    };
    let trigger = Trigger {
        security,
        status: status.clone(),
        slots: config.slots.clone(),
        client_key: None,
        fingerprint: None,
        keys: keys.view(),
        key_note: None,
        supervisor,
        audit,
        uploads,
        tells_protocols: ocpp.bridge.is_none(),
        has_credentials: ocpp.has_credentials(),
        config: in_force,
        commands: commands.clone(),
        kept,
        reporting,
        shown: Vec::new(),
    };
    let commands = commands.downgrade();
    let task = tokio::spawn(async move {
        trigger.run(events, stopped).await;
        // It has dropped its end of the commands, which ends the link in its own time.
        let _ = link.await;
    });
    let reports = ocpp.report.then_some(reports);
    Ok(OcppLink { status, security: view, reports, controllers, listens, commands, stop, task })
}

impl OcppLink {
    /// What the link publishes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.clone()
    }

    /// What the link proves itself with, and what becomes of changes to that.
    #[must_use]
    pub fn security(&self) -> watch::Receiver<SecurityView> {
        self.security.clone()
    }

    /// What waits to be reported to the CSMS, if anything is.
    #[must_use]
    pub fn reports(&self) -> Option<watch::Receiver<ReportsView>> {
        self.reports.clone()
    }

    /// How it goes with each controller; none where there is no bridge.
    #[must_use]
    pub fn controllers(&self) -> Vec<watch::Receiver<ControllerStatus>> {
        self.controllers.clone()
    }

    /// Where controllers connect, where there is a bridge.
    #[must_use]
    pub fn listens(&self) -> Option<SocketAddr> {
        self.listens
    }

    /// The way to the charge point, while there is one. It has to be given up for the link to end.
    #[must_use]
    pub fn commands(&self) -> Option<mpsc::Sender<Command>> {
        self.commands.upgrade()
    }

    /// Says goodbye to the CSMS.
    pub async fn stop(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

fn status_key(slot: &Slot) -> String {
    format!("{}Status", slot.key)
}

/// The public key's line, unless there is none, or OCPP has no room for it: a key that was cut would authorise nobody.
fn client_key_value(identity: &Identity) -> Option<String> {
    Some(identity.public_line()).filter(|line| line.chars().count() <= OCPP_VALUE_CHARACTERS)
}

/// Where the value of the public key stays empty although there is one.
const NO_ROOM: &str = "SSHClientKey has no room for this device's public key";

struct Trigger {
    security: LinkSecurity,
    status: watch::Receiver<LinkStatus>,
    slots: Vec<Slot>,
    client_key: Option<String>,
    /// Of the key that is shown, or that there is no room for.
    fingerprint: Option<String>,
    keys: watch::Receiver<KeyView>,
    /// What the CSMS has to know of the device's key besides; for each status.
    key_note: Option<String>,
    supervisor: SupervisorHandle,
    audit: Audit,
    uploads: Uploads,
    /// The value of [`PROTOCOLS_KEY`] is ours to tell.
    tells_protocols: bool,
    /// The link's credentials are ours, and not a controller's.
    has_credentials: bool,
    /// For the value of [`PROTOCOLS_KEY`], which a reload may change.
    config: watch::Receiver<Arc<Config>>,
    commands: mpsc::Sender<Command>,
    kept: KeptConfiguration,
    reporting: Reporting,
    /// What the CSMS can read, so that only what changed is passed on.
    shown: Vec<(String, Option<String>)>,
}

impl Trigger {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, mut stopped: mpsc::Receiver<()>) {
        self.serve(&mut events, &mut stopped).await;
        // What the CSMS was told to be in effect is kept, even if the agent stops at that moment.
        while let Ok(event) = events.try_recv() {
            if let Event::ConfigurationChanged { key, value } = event {
                self.kept.keep(key, value, now());
            }
        }
        self.kept.settle(now());
    }

    async fn serve(&mut self, events: &mut mpsc::Receiver<Event>, stopped: &mut mpsc::Receiver<()>) {
        let mut views = self.supervisor.views();
        self.show_protocols().await;
        self.show_client_key().await;
        self.carry_on_security().await;
        self.look(&mut views).await;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::ChangeConfiguration { request, key, value, security }) => {
                        let status = self.change(&key, &value, security.profile()).await;
                        self.look(&mut views).await;
                        self.answer(request, status).await;
                        self.carry_on_security().await;
                    }
                    Some(Event::Upload { request, wanted, security }) => {
                        self.uploads.ask(request, wanted, security.profile());
                    }
                    Some(Event::Called { id, outcome }) if upload::is_ours(id) => {
                        self.uploads.called(id, outcome);
                    }
                    Some(Event::ConfigurationChanged { key, value }) => {
                        tracing::info!(key, value, "configuration-changed");
                        let source = audit::Source::Ocpp { profile: self.status.borrow().profile };
                        self.record_change(source, Outcome::Success, &key, Some(&value));
                        self.kept.keep(key, value, now());
                    }
                    // None of both was registered; what isn't answered would wait for ever.
                    Some(Event::Call { request, .. }) => {
                        let (code, description) = (ErrorCode::NotSupported, String::new());
                        let reply = Reply::Error { code, description };
                        let _ = self.commands.send(Command::AnswerCall { request, reply }).await;
                    }
                    Some(Event::DataTransfer { request, .. }) => {
                        let status = DataTransferStatus::UnknownVendorId;
                        let answer = Command::AnswerTransfer { request, status, data: None };
                        let _ = self.commands.send(answer).await;
                    }
                    // The link begins anew by itself; tunnels stay.
                    Some(Event::Reset { hard }) => {
                        tracing::info!(hard, "reset-requested");
                        self.reporting.reset(hard);
                    }
                    Some(Event::Called { id, outcome }) => self.reporting.called(id, &outcome),
                    Some(Event::Clock(time)) => {
                        clock::told(time);
                        self.reporting.heard();
                    }
                    Some(Event::BootStatus { .. }) => {}
                    None => return,
                },
                Ok(()) = views.changed() => self.look(&mut views).await,
                Ok(()) = self.status.changed() => {
                    let status = self.status.borrow_and_update().clone();
                    self.security.observe(&status);
                    self.carry_on_security().await;
                }
                Ok(()) = self.keys.changed() => {
                    let before = self.fingerprint.clone();
                    self.show_client_key().await;
                    self.look(&mut views).await;
                    if let Some(fingerprint) = self.fingerprint.as_ref().filter(|_| self.fingerprint != before) {
                        self.reporting.new_key(fingerprint);
                    }
                }
                Ok(()) = self.config.changed() => self.show_protocols().await,
                () = self.reporting.wait() => {}
                () = until(self.kept.due()) => self.kept.write_if_due(now()),
                _ = stopped.recv() => return,
            }
            if let Some(call) = self.reporting.next_call() {
                let _ = self.commands.send(Command::Call(call)).await;
            }
        }
    }

    /// A secret has no value here.
    fn record_change(&self, source: audit::Source, outcome: Outcome, key: &str, value: Option<&str>) {
        let security = [AUTHORIZATION_KEY, SECURITY_PROFILE].contains(&key);
        let kind = if security { Kind::LinkSecurityChanged } else { Kind::ConfigurationChanged };
        let record = Record::new(kind, source, outcome).text("key", key);
        self.audit.record(match value {
            Some(value) => record.text("value", value),
            None => record,
        });
    }

    /// Shows how the tunnels are now, to the CSMS if it asks, and to those who report it.
    async fn look(&mut self, views: &mut watch::Receiver<Vec<View>>) {
        let views = views.borrow_and_update().clone();
        self.show_slots(&views).await;
        self.reporting.observe(&views);
    }

    async fn show_protocols(&mut self) {
        if !self.tells_protocols {
            return;
        }
        let protocols = upload::protocols(&self.config.borrow_and_update().policy.allow_uploads);
        self.show(PROTOCOLS_KEY, Some(protocols)).await;
    }

    /// While the device changes its key this is the new one: servers know the other one already.
    async fn show_client_key(&mut self) {
        let KeyView { key, fault } = self.keys.borrow_and_update().clone();
        self.fingerprint = key.as_ref().map(Identity::fingerprint);
        self.client_key = key.as_ref().and_then(client_key_value);
        self.key_note = match (&key, &self.client_key) {
            (None, _) => fault.map(|fault| fault.text),
            (Some(_), None) => Some(NO_ROOM.into()),
            (Some(_), Some(_)) => None,
        };
        self.show(CLIENT_KEY, self.client_key.clone()).await;
    }

    /// Tells the link what its security settings have come to, and the CSMS which profile that is.
    async fn carry_on_security(&mut self) {
        if self.has_credentials {
            self.show(SECURITY_PROFILE, Some(self.security.profile_value())).await;
        }
        if let Some(command) = self.security.take_command() {
            let _ = self.commands.send(command).await;
        }
    }

    async fn change(&mut self, key: &str, value: &str, profile: u8) -> ConfigurationStatus {
        if let Some(judgement) = self.security.change(key, value, now()) {
            let (status, outcome) = match judgement {
                Judgement::Unchanged => return ConfigurationStatus::Accepted,
                Judgement::Changed => (ConfigurationStatus::Accepted, Outcome::Success),
                Judgement::Rejected => (ConfigurationStatus::Rejected, Outcome::Refused),
            };
            let shown = key.eq_ignore_ascii_case(SECURITY_PROFILE).then_some(value);
            self.record_change(Source::Ocpp { profile }.into(), outcome, key, shown);
            if judgement == Judgement::Changed {
                self.reporting.reconfigured(key);
            }
            return status;
        }
        let Some(slot) = self.slots.iter().find(|slot| slot.key.eq_ignore_ascii_case(key)) else {
            return ConfigurationStatus::NotSupported;
        };
        let source = Source::Ocpp { profile };
        let wish = value.trim_matches(' ');
        if wish.is_empty() || wish.eq_ignore_ascii_case("close") {
            self.supervisor.close(Some(TunnelId::Slot(slot.number)), Reason::Ocpp, source).await;
            return ConfigurationStatus::Accepted;
        }
        let destination: Destination = match value.parse() {
            Ok(destination) => destination,
            Err(error) => {
                log_not_invoked();
                self.supervisor.refuse(slot.number, Refusal::Malformed(error), source).await;
                return ConfigurationStatus::Rejected;
            }
        };
        let request = OpenRequest {
            what: What::Script(slot.number),
            destination: Some(destination),
            lifetime: None,
            source,
        };
        match self.supervisor.open(request).await {
            Ok(_) => ConfigurationStatus::Accepted,
            Err(_) => ConfigurationStatus::Rejected,
        }
    }

    async fn show_slots(&mut self, views: &[View]) {
        for slot in self.slots.clone() {
            let view = views.iter().find(|view| view.id == TunnelId::Slot(slot.number));
            let wanted = view.and_then(|view| view.wanted.as_ref());
            self.show(&slot.key, Some(wanted.map(ToString::to_string).unwrap_or_default())).await;
            let status = view.map(|view| status_value(view, self.key_note.as_deref()));
            self.show(&status_key(&slot), status).await;
        }
    }

    async fn show(&mut self, key: &str, value: Option<String>) {
        match self.shown.iter_mut().find(|(shown, _)| shown == key) {
            Some((_, shown)) if *shown == value => return,
            Some((_, shown)) => shown.clone_from(&value),
            None => self.shown.push((key.to_owned(), value.clone())),
        }
        let _ = self.commands.send(Command::SetValue { key: key.to_owned(), value }).await;
    }

    async fn answer(&self, request: RequestId, status: ConfigurationStatus) {
        let _ = self.commands.send(Command::AnswerChange { request, status }).await;
    }
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until then; without a time for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// The line that the vendor's scripts wrote for a parameter that did not pass their filter.
pub(crate) fn log_not_invoked() {
    tracing::warn!("Ebee custom script not invoked: Argument does not match user@domain");
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Security(error) => error.fmt(f),
            Self::Proxy(error) => error.fmt(f),
            Self::Keys(error) => f.write_str(error),
            Self::Listen(address, error) => write!(f, "the bridge can't listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for LinkError {}
