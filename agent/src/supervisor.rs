//! The one owner of all tunnels. Everyone else sends it a command and watches what it publishes.
//!
//! What is wanted ([`Wanted`]) is kept apart from what is ([`Status`]): the first changes by commands and time, the
//! second by what the network does. A tunnel that ends by itself is no longer wanted.

mod handle;
mod reconfigure;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reverse_tunnel::{Destination, Forward, Plan, Reason, Remote, Settings, Status, Traffic, TunnelHandle};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use self::handle::SupervisorHandle;
pub use self::words::{OpenRequest, Origin, Source, TunnelId, View, What};
use crate::audit::{self, Audit, Kind, Outcome, Record, TunnelAudit};
use crate::config::{Config, Slot};
use crate::happening::{Happened, Happenings};
use crate::limits::{AD_HOC_TUNNELS, CLOSED_SHOWN, DISABLE_FILE_INTERVAL, SHUTDOWN, SUPERVISOR_COMMANDS};
use crate::policy::{Policy, Rate, Refusal};
use crate::tunnel_log::TunnelLog;
use crate::usage::Usage;
use crate::wanted::{Wanted, WantedFile};
use crate::way_out::WayOut;

enum Command {
    Open(OpenRequest, oneshot::Sender<Result<TunnelId, Refusal>>),
    Refuse { slot: u8, refusal: Refusal, source: Source },
    Close { id: Option<TunnelId>, reason: Reason, source: Source, closed: oneshot::Sender<Vec<TunnelId>> },
    Keep,
    Reconfigure { config: Arc<Config>, way_out: WayOut, done: oneshot::Sender<()> },
    Answer(oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}

/// The owner of all tunnels.
pub struct Supervisor {
    policy: Arc<Policy>,
    settings: Settings,
    way_out: WayOut,
    file: Option<WantedFile>,
    entries: BTreeMap<TunnelId, Entry>,
    next_ad_hoc: u32,
    opens: Rate,
    usage: Usage,
    audit: Audit,
    changed: Arc<Notify>,
    commands: mpsc::Receiver<Command>,
    views: watch::Sender<Vec<View>>,
    happenings: Happenings,
}

struct Entry {
    key: Option<String>,
    forwards: Vec<Forward>,
    wanted: Option<Wanted>,
    running: Option<TunnelHandle>,
    status: Option<watch::Receiver<Option<Status>>>,
    traffic: Option<Arc<Traffic>>,
    refusal: Option<String>,
}

impl Supervisor {
    /// A supervisor of these slots, and the way to it. What `file` still wants is started by [`Self::run`].
    #[must_use]
    pub fn new(
        slots: &[Slot],
        policy: Arc<Policy>,
        settings: Settings,
        way_out: WayOut,
        file: Option<WantedFile>,
        usage: Usage,
        audit: Audit,
    ) -> (Self, SupervisorHandle) {
        let (command_sender, commands) = mpsc::channel(SUPERVISOR_COMMANDS);
        let entry = |slot: &Slot| Entry::new(Some(slot.key.clone()), vec![slot.forward.clone()]);
        let entries = slots.iter().map(|slot| (TunnelId::Slot(slot.number), entry(slot))).collect();
        let (views, view_receiver) = watch::channel(Vec::new());
        let usage_receiver = usage.view();
        let happenings = Happenings::default();
        let supervisor = Self {
            policy,
            settings,
            way_out,
            file,
            entries,
            next_ad_hoc: 1,
            opens: Rate::default(),
            usage,
            audit,
            changed: Arc::new(Notify::new()),
            commands,
            views,
            happenings: happenings.clone(),
        };
        supervisor.publish();
        let handle = SupervisorHandle {
            commands: command_sender,
            views: view_receiver,
            usage: usage_receiver,
            happenings,
        };
        (supervisor, handle)
    }

    /// Serves until it is told to shut down, or until nobody is left who could tell it anything.
    pub async fn run(mut self) {
        self.restore();
        let mut disable_check = tokio::time::interval(DISABLE_FILE_INTERVAL);
        disable_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let anything_wanted = self.entries.values().any(|entry| entry.wanted.is_some());
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Open(request, answer)) => {
                        let result = self.open(request);
                        self.publish();
                        let _ = answer.send(result);
                    }
                    Some(Command::Refuse { slot, refusal, source }) => {
                        self.refuse(Some(TunnelId::Slot(slot)), &refusal, source);
                    }
                    Some(Command::Close { id, reason, source, closed }) => {
                        let were_open = self.close(id, reason, source);
                        self.publish();
                        let _ = closed.send(were_open);
                    }
                    Some(Command::Keep) => self.save(),
                    Some(Command::Reconfigure { config, way_out, done }) => {
                        self.reconfigure(&config, way_out);
                        self.publish();
                        let _ = done.send(());
                    }
                    Some(Command::Answer(answer)) => {
                        let _ = answer.send(());
                        // Nothing has changed.
                        continue;
                    }
                    Some(Command::Shutdown(done)) => {
                        self.shut_down().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.shut_down().await,
                },
                () = self.changed.notified() => self.reap(),
                _ = disable_check.tick(), if anything_wanted => self.check_disabled(),
                () = self.usage.due() => self.check_usage(),
            }
            self.publish();
        }
    }

    fn open(&mut self, request: OpenRequest) -> Result<TunnelId, Refusal> {
        let slot = match request.what {
            What::Script(number) => Some(TunnelId::Slot(number)),
            What::Forwards(_) => None,
        };
        let source = request.source;
        self.admit(request).inspect_err(|refusal| self.refuse(slot, refusal, source))
    }

    fn admit(&mut self, request: OpenRequest) -> Result<TunnelId, Refusal> {
        let now = Instant::now();
        if let What::Script(number) = request.what
            && !self.entries.contains_key(&TunnelId::Slot(number))
        {
            return Err(Refusal::NoSuchScript(number));
        }
        let destination =
            request.destination.or_else(|| self.policy.only_destination()).ok_or(Refusal::NoDestination)?;
        match request.source {
            Source::Ocpp { profile } => self.policy.check_remote(&destination, profile)?,
            Source::Local { .. } => self.policy.check_enabled()?,
        }
        let lifetime = self.policy.lifetime(request.lifetime)?;
        let expires = now + lifetime;
        // The month may have turned since.
        self.usage.look();
        self.usage.check()?;
        let origin = request.source.origin();

        if let Some(id) = self.find_same(&request.what, &destination) {
            if id.is_slot() {
                log_invocation(&destination);
            }
            tracing::info!(slot = %id, server = %destination, source = %request.source, "tunnel-extended");
            self.record(Kind::TunnelExtended, request.source, Outcome::Success, |record| {
                of_request(record, id, &destination, lifetime)
            });
            self.extend(id, expires, origin);
            return Ok(id);
        }
        if origin == Origin::Ocpp {
            let limit = self.policy.opens_per_hour;
            self.opens.check(limit, now).map_err(|again_in| Refusal::TooMany { limit, again_in })?;
            self.opens.record(now);
        }
        let (id, forwards) = match request.what {
            What::Forwards(forwards) => {
                self.check_free(None, &forwards, &destination)?;
                (self.new_ad_hoc(&forwards)?, forwards)
            }
            What::Script(number) => {
                let id = TunnelId::Slot(number);
                let forwards = self.entries.get(&id).map(|entry| entry.forwards.clone()).unwrap_or_default();
                // What is open on site mustn't make the CSMS's be rejected.
                if origin == Origin::Local {
                    self.check_free(Some(id), &forwards, &destination)?;
                }
                log_invocation(&destination);
                (id, forwards)
            }
        };
        tracing::info!(slot = %id, server = %destination, source = %request.source, "tunnel-requested");
        self.record(Kind::TunnelRequested, request.source, Outcome::Success, |record| {
            of_request(record, id, &destination, lifetime)
        });
        self.start(Wanted { id, destination, forwards, expires, origin });
        self.save();
        Ok(id)
    }

    /// The wanted tunnel that publishes the same at the same destination.
    fn find_same(&self, what: &What, destination: &Destination) -> Option<TunnelId> {
        let same = self.entries.iter().find(|(id, entry)| {
            let same_forwards = match what {
                What::Script(number) => **id == TunnelId::Slot(*number),
                What::Forwards(forwards) => !id.is_slot() && entry.forwards == *forwards,
            };
            same_forwards && entry.wanted.as_ref().is_some_and(|wanted| wanted.destination == *destination)
        });
        same.map(|(id, _)| *id)
    }

    /// Its time starts anew, and nothing reconnects.
    fn extend(&mut self, id: TunnelId, expires: Instant, origin: Origin) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (Some(wanted), Some(running)) = (&mut entry.wanted, &entry.running) else { return };
        wanted.expires = expires;
        wanted.origin = origin;
        entry.refusal = None;
        running.again(Some(expires));
        self.save();
    }

    /// Of what we have there ourselves, the server would only say that it is taken.
    fn check_free(
        &self,
        own: Option<TunnelId>,
        forwards: &[Forward],
        destination: &Destination,
    ) -> Result<(), Refusal> {
        let is_same = |a: &Remote, b: &Remote| a == b && !matches!(a, Remote::Tcp { port: 0, .. });
        let there = self.entries.iter().filter_map(|(id, entry)| Some((id, entry.wanted.as_ref()?)));
        let there = there.filter(|(id, _)| Some(**id) != own);
        for (id, wanted) in there.filter(|(_, wanted)| wanted.destination.server() == destination.server()) {
            let mut ours = wanted.forwards.iter();
            if let Some(held) =
                ours.find(|ours| forwards.iter().any(|new| is_same(&ours.remote, &new.remote)))
            {
                return Err(Refusal::Held { remote: held.remote.clone(), by: *id });
            }
        }
        Ok(())
    }

    fn new_ad_hoc(&mut self, forwards: &[Forward]) -> Result<TunnelId, Refusal> {
        let ad_hoc = |id: &TunnelId| !id.is_slot();
        let open = self.entries.iter().filter(|(id, entry)| ad_hoc(id) && entry.wanted.is_some()).count();
        if open >= AD_HOC_TUNNELS {
            return Err(Refusal::TooManyTunnels(AD_HOC_TUNNELS));
        }
        let closed: Vec<TunnelId> = self
            .entries
            .iter()
            .filter(|(id, entry)| ad_hoc(id) && entry.wanted.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in closed.iter().rev().skip(CLOSED_SHOWN - 1) {
            self.entries.remove(id);
        }
        let id = TunnelId::AdHoc(self.next_ad_hoc);
        self.next_ad_hoc = self.next_ad_hoc.wrapping_add(1).max(1);
        self.entries.insert(id, Entry::new(None, forwards.to_vec()));
        Ok(id)
    }

    /// Starts a tunnel, in the place of the one that its entry may have.
    fn start(&mut self, wanted: Wanted) {
        let Some(entry) = self.entries.get_mut(&wanted.id) else { return };
        let predecessor: Option<JoinHandle<()>> = entry.running.take().map(|running| {
            running.close(Reason::Replaced);
            running.into_task()
        });
        let plan = Plan {
            destination: wanted.destination.clone(),
            route: self.way_out.route(wanted.destination.host()),
            forwards: wanted.forwards.clone(),
            expires: Some(wanted.expires),
        };
        let (sender, status) = watch::channel(None);
        let changed = self.changed.clone();
        let happenings = self.happenings.clone();
        let mut log = TunnelLog::new(wanted.id, entry.key.is_some(), wanted.origin, happenings);
        let mut audit = TunnelAudit::new(wanted.id, self.audit.clone());
        let settings = Settings { events: audit.events(&wanted.destination), ..self.settings.clone() };
        let running = reverse_tunnel::spawn(plan, settings, predecessor, move |notice| {
            log.write(&notice);
            audit.write(&notice);
            if let reverse_tunnel::Notice::Changed(status) = notice {
                sender.send_replace(Some(status.clone()));
                changed.notify_one();
            }
        });
        entry.traffic = Some(running.traffic().clone());
        entry.running = Some(running);
        entry.status = Some(status);
        entry.refusal = None;
        entry.wanted = Some(wanted);
    }

    /// Closes one tunnel, or all; gives those that were open.
    fn close(&mut self, id: Option<TunnelId>, reason: Reason, source: Source) -> Vec<TunnelId> {
        let chosen = self.entries.iter_mut().filter(|(other, _)| id.is_none_or(|id| id == **other));
        let mut closed = Vec::new();
        for (id, entry) in chosen {
            if let Some(running) = &entry.running {
                running.close(reason);
                closed.push(*id);
                tracing::info!(slot = %id, %source, "tunnel-close-requested");
                let record = Record::new(Kind::TunnelCloseRequested, source.into(), Outcome::Success);
                self.audit.record(record.text("tunnel", &id.to_string()));
            }
            entry.wanted = None;
            entry.refusal = None;
        }
        self.save();
        closed
    }

    fn refuse(&mut self, id: Option<TunnelId>, refusal: &Refusal, source: Source) {
        let cure = refusal.cure();
        match id {
            Some(id) => tracing::warn!(slot = %id, %source, why = %refusal, %cure, "tunnel-refused"),
            None => tracing::warn!(%source, why = %refusal, %cure, "tunnel-refused"),
        }
        self.happenings.tell(Happened::Refused { id, why: refusal.to_string(), source });
        self.record(Kind::TunnelRefused, source, Outcome::Refused, |record| {
            let record = match id {
                Some(id) => record.text("tunnel", &id.to_string()),
                None => record,
            };
            record.text("why", &refusal.to_string())
        });
        if let Some(entry) = id.and_then(|id| self.entries.get_mut(&id)) {
            entry.refusal = Some(refusal.to_string());
        }
    }

    /// Forgets the tunnels that have ended. One that was extended when it had begun to end starts anew.
    fn reap(&mut self) {
        let mut ended = false;
        let mut extended_too_late = Vec::new();
        for entry in self.entries.values_mut().filter(|entry| entry.running.is_some()) {
            let Some(status) = entry.status().filter(|status| status.state.reason().is_some()) else {
                continue;
            };
            entry.running = None;
            let wanted = entry.wanted.take();
            extended_too_late.extend(wanted.filter(|wanted| status.expires != Some(wanted.expires)));
            ended = true;
        }
        if !ended {
            return;
        }
        for wanted in extended_too_late {
            self.start(wanted);
        }
        self.save();
        self.usage.settle();
    }

    fn check_disabled(&mut self) {
        if !self.policy.is_disabled() {
            return;
        }
        tracing::warn!(file = %self.policy.disable_file.display(), "remote-access-disabled");
        self.record(Kind::AccessDisabled, audit::Source::Configuration, Outcome::Success, |record| {
            record.text("file", &self.policy.disable_file.to_string_lossy())
        });
        self.end_all(Reason::Policy);
    }

    fn check_usage(&mut self) {
        self.usage.look();
        if self.usage.check().is_err() && self.entries.values().any(|entry| entry.wanted.is_some()) {
            self.record(Kind::DataCapReached, audit::Source::Agent, Outcome::Success, |record| record);
            self.end_all(Reason::DataCap);
        }
    }

    /// Nothing is wanted any more.
    fn end_all(&mut self, reason: Reason) {
        for entry in self.entries.values_mut() {
            entry.wanted = None;
            if let Some(running) = &entry.running {
                running.close(reason);
            }
        }
        self.save();
    }

    /// Starts what was wanted before the restart, as far as it still may be.
    fn restore(&mut self) {
        let Some(file) = &self.file else { return };
        for mut wanted in file.load() {
            let allowed =
                self.policy.check_enabled().and(self.usage.check()).and_then(|()| match wanted.origin {
                    Origin::Ocpp => self.policy.check_allowed(&wanted.destination),
                    Origin::Local => Ok(()),
                });
            if let Err(refusal) = allowed {
                tracing::warn!(slot = %wanted.id, server = %wanted.destination, why = %refusal, "tunnel-not-restored");
                self.record(Kind::TunnelNotRestored, audit::Source::Agent, Outcome::Refused, |record| {
                    record
                        .text("tunnel", &wanted.id.to_string())
                        .text("server", &wanted.destination.to_string())
                        .text("why", &refusal.to_string())
                });
                continue;
            }
            match (wanted.id, self.entries.get(&wanted.id)) {
                // The configuration may publish something else there now.
                (TunnelId::Slot(_), Some(entry)) => wanted.forwards.clone_from(&entry.forwards),
                (TunnelId::Slot(_), None) => continue,
                (TunnelId::AdHoc(number), _) => {
                    self.next_ad_hoc = self.next_ad_hoc.max(number.saturating_add(1));
                    self.entries.insert(wanted.id, Entry::new(None, wanted.forwards.clone()));
                }
            }
            // The configuration may allow less time now.
            wanted.expires = wanted.expires.min(Instant::now() + self.policy.max_duration);
            tracing::info!(slot = %wanted.id, server = %wanted.destination, "tunnel-restored");
            self.record(Kind::TunnelRestored, audit::Source::Agent, Outcome::Success, |record| {
                let left = wanted.expires.saturating_duration_since(Instant::now());
                of_request(record, wanted.id, &wanted.destination, left)
            });
            self.start(wanted);
        }
        self.save();
        self.publish();
    }

    /// Closes everything and leaves what is wanted to the next start.
    async fn shut_down(&mut self) {
        let mut tasks = Vec::new();
        for entry in self.entries.values_mut() {
            if let Some(running) = entry.running.take() {
                running.close(Reason::Shutdown);
                tasks.push(running.into_task());
            }
        }
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(SHUTDOWN, all).await.is_err() {
            tracing::warn!("shutdown-cut-short");
        }
        self.usage.settle();
        self.publish();
    }

    fn record(
        &self,
        kind: Kind,
        source: impl Into<audit::Source>,
        outcome: Outcome,
        more: impl FnOnce(Record) -> Record,
    ) {
        self.audit.record(more(Record::new(kind, source.into(), outcome)));
    }

    fn save(&self) {
        let Some(file) = &self.file else { return };
        let wanted = self.entries.values().filter_map(|entry| entry.wanted.clone());
        if let Err(error) = file.save(wanted) {
            // The tunnels are not at stake, only their return after a restart.
            tracing::warn!(%error, "wanted-tunnels-not-kept");
        }
    }

    fn publish(&self) {
        self.views.send_replace(self.entries.iter().map(|(id, entry)| entry.view(*id)).collect());
    }
}

fn of_request(record: Record, id: TunnelId, server: &Destination, lifetime: Duration) -> Record {
    record
        .text("tunnel", &id.to_string())
        .text("server", &server.to_string())
        .number("lifetime", lifetime.as_secs())
}

/// The line that the vendor's scripts wrote for a parameter that passed their filter.
fn log_invocation(destination: &Destination) {
    tracing::info!("Ebee custom script invoked with parameter {destination}");
}

impl Entry {
    fn new(key: Option<String>, forwards: Vec<Forward>) -> Self {
        Self { key, forwards, wanted: None, running: None, status: None, traffic: None, refusal: None }
    }

    fn status(&self) -> Option<Status> {
        self.status.as_ref().and_then(|status| status.borrow().clone())
    }

    fn view(&self, id: TunnelId) -> View {
        View {
            id,
            key: self.key.clone(),
            wanted: self.wanted.as_ref().map(|wanted| wanted.destination.clone()),
            status: self.status(),
            forwards: self.forwards.clone(),
            traffic: self.traffic.clone(),
            refusal: self.refusal.clone(),
        }
    }
}
