//! The link against a small CSMS in the same process, on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod attempt;
mod changing;
mod connecting;
mod csms;
mod living;
mod silence;
mod tls;

use std::{sync::Arc, time::Duration};

use ocpp_bridge::{
    Access, Backoff, BootInfo, ChargePoint, Command, Event, LinkSettings, LinkState, LinkStatus, Registry,
    Settings, Url, link,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The embedder's side of a running link.
struct Agent {
    commands: Option<mpsc::Sender<Command>>,
    events: mpsc::Receiver<Event>,
    status: watch::Receiver<LinkStatus>,
    task: JoinHandle<()>,
}

/// Quick to try again, so that tests are.
fn settings(url: &str) -> LinkSettings {
    let mut settings = LinkSettings::new(vec![Url::parse(url).unwrap()], "RDAM 123".to_owned());
    settings.backoff = Backoff { minimum: Duration::from_millis(20), random: Duration::ZERO, doublings: 0 };
    settings
}

fn charge_point(change: impl FnOnce(&mut Settings)) -> ChargePoint {
    let mut settings = Settings::new(BootInfo {
        vendor: "ACME".to_owned(),
        model: "Box".to_owned(),
        serial_number: None,
        firmware_version: None,
    });
    change(&mut settings);
    let mut registry = Registry::new(0);
    registry.register("InvokeCustomScript1", Access::ReadWrite).unwrap();
    registry.register("InvokeCustomScript1Status", Access::ReadOnly).unwrap();
    ChargePoint::new(settings, registry, fastrand::Rng::new())
}

// === impl Agent ===

impl Agent {
    fn start(settings: LinkSettings) -> Self {
        Self::start_with(settings, charge_point(|_| {}))
    }

    fn start_with(settings: LinkSettings, charge_point: ChargePoint) -> Self {
        let (event_sender, events) = mpsc::channel(1);
        let (commands, command_receiver) = mpsc::channel(8);
        let (status_sender, status) = watch::channel(LinkStatus::default());
        let task =
            tokio::spawn(link::run(settings, charge_point, event_sender, command_receiver, status_sender));
        Self { commands: Some(commands), events, status, task }
    }

    async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("no event").expect("the link has ended")
    }

    async fn command(&self, command: Command) {
        self.commands.as_ref().unwrap().send(command).await.unwrap();
    }

    /// Waits for a status, and returns it.
    async fn until(&mut self, wanted: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        let found = timeout(PATIENCE, self.status.wait_for(|status| wanted(status))).await;
        let found = found.map(|status| status.expect("the link has ended").clone());
        found.unwrap_or_else(|_| panic!("still {:?}", self.status.borrow()))
    }

    async fn until_state(&mut self, state: LinkState) -> LinkStatus {
        self.until(|status| status.state == state).await
    }

    /// Waits for an error that says this.
    async fn until_error(&mut self, part: &str) -> LinkStatus {
        self.until(|status| status.last_error.as_ref().is_some_and(|error| error.contains(part))).await
    }

    /// Shuts down, and says how long that took.
    async fn stop(mut self) -> Duration {
        let start = std::time::Instant::now();
        self.commands = None;
        timeout(PATIENCE, self.task).await.expect("the link doesn't end").unwrap();
        start.elapsed()
    }
}
