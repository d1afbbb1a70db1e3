//! The charge point in virtual time, with the test as the CSMS.

mod booting;
mod calls;
mod keys;
mod outbox;
mod properties;
mod requests;
mod triggers;
mod unanswered;
mod uploads;

use serde_json::{Value, json};

use super::*;
use crate::Access;

const SECURE: LinkSecurity = LinkSecurity { tls: true, credentials: true, client_certificate: false };

/// A charge point, the time, and what a CSMS would do with it.
struct World {
    charge_point: ChargePoint,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_connectors(0, change)
    }

    fn with_connectors(connectors: u32, change: impl FnOnce(&mut Settings)) -> Self {
        let boot = BootInfo {
            vendor: "ACME".to_owned(),
            model: "Box".to_owned(),
            serial_number: None,
            firmware_version: Some("1.2".to_owned()),
        };
        let mut settings = Settings::new(boot);
        settings.uploads = true;
        change(&mut settings);
        let mut registry = Registry::new(connectors);
        registry.register("InvokeCustomScript1", Access::ReadWrite).unwrap();
        registry.register("InvokeCustomScript1Status", Access::ReadOnly).unwrap();
        let charge_point = ChargePoint::new(settings, registry, fastrand::Rng::with_seed(7));
        Self { charge_point, now: Instant::now() }
    }

    /// Connected and accepted, with nothing left to send.
    fn accepted() -> Self {
        let mut world = Self::new();
        world.connect();
        world.answer_boot(
            &json!({"status": "Accepted", "interval": 300, "currentTime": "2026-11-21T10:00:00Z"}),
        );
        world.events();
        world
    }

    fn connect(&mut self) {
        self.charge_point.handle_connected(self.now, SECURE);
    }

    fn disconnect(&mut self) {
        self.charge_point.handle_disconnected(self.now);
    }

    fn receive(&mut self, message: &Value) {
        self.receive_text(&message.to_string());
    }

    fn receive_text(&mut self, text: &str) {
        self.charge_point.handle_text(self.now, text);
    }

    /// Lets time pass, calling on time.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.charge_point.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.charge_point.handle_timeout(self.now);
            let next = self.charge_point.poll_timeout();
            assert!(next.is_none_or(|next| next > due), "a timeout that stays is a busy loop");
        }
        self.now = end;
        self.charge_point.handle_timeout(self.now);
    }

    fn sent(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.charge_point.poll_transmit())
            .map(|text| serde_json::from_str(&text).unwrap())
            .collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.charge_point.poll_event()).collect()
    }

    /// The one thing that was sent.
    fn sent_one(&mut self) -> Value {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent[0].clone()
    }

    /// The id of the BootNotification that must have been sent, alone.
    fn boot_id(&mut self) -> String {
        let boot = self.sent_one();
        assert_eq!(boot[2], "BootNotification", "{boot}");
        boot[1].as_str().unwrap().to_owned()
    }

    /// Answers BootNotification, and the statuses that follow an acceptance.
    fn answer_boot(&mut self, payload: &Value) {
        let id = self.boot_id();
        self.receive(&json!([3, id, payload]));
        if payload["status"] == "Accepted" {
            self.answer_announcements();
        }
    }

    fn answer_announcements(&mut self) {
        for connector in 0..=self.charge_point.registry.connectors() {
            let status = self.sent_one();
            assert_eq!(
                (&status[2], &status[3]["connectorId"]),
                (&json!("StatusNotification"), &json!(connector))
            );
            self.receive(&json!([3, status[1], {}]));
        }
    }

    fn change(&mut self, id: &str, key: &str, value: &str) {
        self.receive(&json!([2, id, "ChangeConfiguration", {"key": key, "value": value}]));
    }

    /// The embedder asks for a CALL with this number.
    fn call(&mut self, number: u64) -> Result<(), Full> {
        let payload = serde_json::value::to_raw_value(&json!({"number": number})).unwrap();
        self.charge_point.call(self.now, Call { id: CallId(number), action: "DataTransfer", payload })
    }

    /// What became of the embedder's CALLs since it was last asked; other events are dropped.
    fn outcomes(&mut self) -> Vec<(u64, Outcome)> {
        let outcome = |event| match event {
            Event::Called { id, outcome } => Some((id.0, outcome)),
            _ => None,
        };
        self.events().into_iter().filter_map(outcome).collect()
    }

    /// The request that the embedder was asked about, and the wanted value.
    fn asked(&mut self) -> (RequestId, String) {
        match self.events().as_slice() {
            [Event::ChangeConfiguration { request, value, .. }] => (*request, value.clone()),
            events => panic!("{events:?}"),
        }
    }
}
