//! TriggerMessage and ExtendedTriggerMessage.

use super::*;
use crate::limits::MAX_TRIGGERED;

/// Sends a trigger, and returns the status of its answer and what was sent with or after it.
fn trigger(world: &mut World, action: &str, payload: Value) -> (String, Vec<Value>) {
    world.receive(&json!([2, "t", action, payload]));
    let mut sent = world.sent();
    assert_eq!((&sent[0][0], &sent[0][1]), (&json!(3), &json!("t")), "the answer goes first: {sent:?}");
    let status = sent.remove(0)[2]["status"].as_str().unwrap().to_owned();
    (status, sent)
}

fn message(name: &str) -> Value {
    json!({"requestedMessage": name})
}

#[test]
fn heartbeat_is_sent_after_the_answer_and_the_next_waits_from_then() {
    for action in ["TriggerMessage", "ExtendedTriggerMessage"] {
        let mut world = World::accepted();
        world.pass(200);
        let (status, sent) = trigger(&mut world, action, message("Heartbeat"));
        assert_eq!((status.as_str(), &sent[0][2]), ("Accepted", &json!("Heartbeat")));
        world.receive(&json!([3, sent[0][1], {"currentTime": "2026-11-21T10:05:00Z"}]));
        assert!(matches!(world.events().as_slice(), [Event::Clock(_)]));
        world.pass(299);
        assert!(world.sent().is_empty());
        world.pass(1);
        assert_eq!(world.sent_one()[2], "Heartbeat");
    }
}

#[test]
fn status_of_one_connector_or_of_all_is_sent() {
    let mut world = World::with_connectors(2, |_| {});
    world.connect();
    world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    let mut asked = |connector: Option<i64>| {
        let mut payload = message("StatusNotification");
        if let Some(connector) = connector {
            payload["connectorId"] = json!(connector);
        }
        let (status, mut sent) = trigger(&mut world, "TriggerMessage", payload);
        let mut connectors = Vec::new();
        while let [call] = sent.as_slice() {
            assert_eq!(call[2], "StatusNotification");
            connectors.push(call[3]["connectorId"].as_i64().unwrap());
            world.receive(&json!([3, call[1], {}]));
            sent = world.sent();
        }
        (status, connectors)
    };
    assert_eq!(asked(None), ("Accepted".to_owned(), vec![0, 1, 2]));
    for connector in 0..=2 {
        assert_eq!(asked(Some(connector)), ("Accepted".to_owned(), vec![connector]));
    }
    for connector in [3, -1, i64::MAX] {
        assert_eq!(asked(Some(connector)), ("Rejected".to_owned(), vec![]));
    }
}

#[test]
fn boot_notification_is_rejected_once_accepted() {
    let mut world = World::accepted();
    for action in ["TriggerMessage", "ExtendedTriggerMessage"] {
        assert_eq!(trigger(&mut world, action, message("BootNotification")), ("Rejected".to_owned(), vec![]));
    }
}

#[test]
fn pending_sends_what_is_triggered() {
    let mut world = World::new();
    world.connect();
    world.answer_boot(&json!({"status": "Pending", "interval": 1000}));
    let (status, sent) = trigger(&mut world, "TriggerMessage", message("StatusNotification"));
    assert_eq!((status.as_str(), &sent[0][2]), ("Accepted", &json!("StatusNotification")));
    world.receive(&json!([3, sent[0][1], {}]));
    let (_, sent) = trigger(&mut world, "TriggerMessage", message("Heartbeat"));
    world.receive(&json!([3, sent[0][1], {}]));
    assert!(world.sent().is_empty());

    let (status, sent) = trigger(&mut world, "TriggerMessage", message("BootNotification"));
    assert_eq!((status.as_str(), &sent[0][2]), ("Accepted", &json!("BootNotification")));
    world.receive(&json!([3, sent[0][1], {"status": "Accepted", "interval": 300}]));
    world.answer_announcements();
    assert!(world.sent().is_empty());
}

#[test]
fn before_the_first_answer_to_boot_notification_triggers_wait_for_it() {
    let mut world = World::new();
    world.connect();
    let boot = world.boot_id();
    for name in ["Heartbeat", "BootNotification"] {
        assert_eq!(trigger(&mut world, "TriggerMessage", message(name)), ("Accepted".to_owned(), vec![]));
    }
    world.receive(&json!([3, boot, {"status": "Rejected", "interval": 600}]));
    world.pass(599);
    assert!(world.sent().is_empty());
    world.pass(1);
    world.boot_id();
}

#[test]
fn unknown_messages_and_those_with_nothing_to_say_are_not_implemented() {
    let mut world = World::accepted();
    for (action, names) in [
        (
            "TriggerMessage",
            [
                "MeterValues",
                "DiagnosticsStatusNotification",
                "FirmwareStatusNotification",
                "LogStatusNotification",
                "heartbeat",
                "",
            ],
        ),
        (
            "ExtendedTriggerMessage",
            [
                "MeterValues",
                "LogStatusNotification",
                "FirmwareStatusNotification",
                "SignChargePointCertificate",
                "DiagnosticsStatusNotification",
                "Nonsense",
            ],
        ),
    ] {
        for name in names {
            let answered = trigger(&mut world, action, message(name));
            assert_eq!(answered, ("NotImplemented".to_owned(), vec![]), "{action} {name}");
        }
    }
}

#[test]
fn reports_of_the_embedder_are_sent_as_they_are_then() {
    for (report, action) in [
        (Report::DiagnosticsStatus, "TriggerMessage"),
        (Report::FirmwareStatus, "TriggerMessage"),
        (Report::LogStatus, "ExtendedTriggerMessage"),
        (Report::FirmwareStatus, "ExtendedTriggerMessage"),
    ] {
        let mut world = World::accepted();
        let say = |world: &mut World, text: &str| {
            world.charge_point.set_report(report, serde_json::from_str(text).unwrap());
        };
        say(&mut world, r#"{"status":"Idle"}"#);
        world.call(1).unwrap();
        let call = world.sent_one();
        assert_eq!(trigger(&mut world, action, message(report.action())), ("Accepted".to_owned(), vec![]));
        say(&mut world, r#"{"status":"Uploading"}"#);
        world.receive(&json!([3, call[1], {}]));
        let sent = world.sent_one();
        assert_eq!((&sent[2], &sent[3]), (&json!(report.action()), &json!({"status": "Uploading"})));
    }
}

#[test]
fn triggers_are_bounded_and_end_with_the_connection() {
    let mut world = World::accepted();
    world.call(1).unwrap();
    world.sent();
    for _ in 0..MAX_TRIGGERED {
        assert_eq!(trigger(&mut world, "TriggerMessage", message("Heartbeat")).0, "Accepted");
    }
    assert_eq!(trigger(&mut world, "TriggerMessage", message("Heartbeat")).0, "Rejected");
    world.disconnect();
    world.connect();
    assert!(world.sent().is_empty());
}
