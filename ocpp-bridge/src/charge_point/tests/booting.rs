use super::*;

fn boot_status(status: RegistrationStatus, retry_in: Option<u64>) -> Event {
    Event::BootStatus { status, retry_in: retry_in.map(Duration::from_secs) }
}

#[test]
fn boot_notification_is_sent_first_and_alone() {
    let mut world = World::new();
    assert_eq!(world.charge_point.poll_timeout(), None);
    world.connect();
    let boot = world.sent_one();
    assert_eq!(boot[0], 2);
    assert_eq!(
        boot[3],
        json!({"chargePointVendor": "ACME", "chargePointModel": "Box", "firmwareVersion": "1.2"})
    );
}

#[test]
fn accepted_brings_heartbeats_in_the_csmss_interval() {
    let mut world = World::new();
    world.connect();
    world.answer_boot(&json!({"status": "Accepted", "interval": 300, "currentTime": "2026-11-21T10:00:00Z"}));
    let time = "2026-11-21T10:00:00Z".parse().unwrap();
    assert_eq!(world.events(), [boot_status(RegistrationStatus::Accepted, None), Event::Clock(time)]);
    assert_eq!(world.charge_point.boot_status(), Some(RegistrationStatus::Accepted));

    world.pass(299);
    assert!(world.sent().is_empty());
    world.pass(1);
    let heartbeat = world.sent_one();
    assert_eq!((&heartbeat[2], &heartbeat[3]), (&json!("Heartbeat"), &json!({})));

    world.receive(&json!([3, heartbeat[1], {"currentTime": "2026-11-21T10:05:00"}]));
    assert_eq!(world.events(), [Event::Clock("2026-11-21T10:05:00Z".parse().unwrap())]);
    world.pass(300);
    assert_ne!(world.sent_one()[1], heartbeat[1]);
}

#[test]
fn interval_zero_or_nonsense_is_our_choice() {
    for interval in [json!(0), json!(-1), json!(null), json!("x")] {
        let mut world = World::with(|settings| settings.heartbeat_interval = Duration::from_secs(77));
        world.connect();
        world.answer_boot(&json!({"status": "Accepted", "interval": interval}));
        assert_eq!(world.charge_point.heartbeat_interval(), Duration::from_secs(77));
        world.pass(77);
        assert_eq!(world.sent_one()[2], "Heartbeat");
    }
}

#[test]
fn bad_time_does_not_fail_the_boot() {
    let mut world = World::new();
    world.connect();
    world.answer_boot(&json!({"status": "Accepted", "interval": 300.0, "currentTime": "yesterday"}));
    assert_eq!(world.events(), [boot_status(RegistrationStatus::Accepted, None)]);
    assert_eq!(world.charge_point.heartbeat_interval(), Duration::from_secs(300));
}

#[test]
fn pending_answers_requests_and_sends_nothing_but_the_next_boot_notification() {
    let mut world = World::new();
    world.connect();
    world.answer_boot(&json!({"status": "Pending", "interval": 1000}));
    assert_eq!(world.events(), [boot_status(RegistrationStatus::Pending, Some(1000))]);

    world.receive(&json!([2, "1", "GetConfiguration", {"key": ["HeartbeatInterval"]}]));
    assert_eq!(world.sent_one()[0], 3);
    world.change("2", "HeartbeatInterval", "10");
    assert_eq!(world.sent_one()[2], json!({"status": "Accepted"}));
    world.change("3", "InvokeCustomScript1", "ops@example.com");
    world.events().iter().find(|event| matches!(event, Event::ChangeConfiguration { .. })).unwrap();

    world.pass(999);
    assert!(world.sent().is_empty());
    world.pass(1);
    world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    assert_eq!(world.charge_point.boot_status(), Some(RegistrationStatus::Accepted));
}

#[test]
fn rejected_is_silent_until_the_interval_is_over() {
    let mut world = World::new();
    world.connect();
    world.answer_boot(&json!({"status": "Rejected", "interval": 600}));
    assert_eq!(world.events(), [boot_status(RegistrationStatus::Rejected, Some(600))]);

    world.receive(&json!([2, "1", "GetConfiguration", {}]));
    world.receive(&json!([2, "2", "Nonsense", {}]));
    world.change("3", "InvokeCustomScript1", "ops@example.com");
    world.change("4", "HeartbeatInterval", "10");
    world.receive_text(r#"[2,"5","Reset""#);
    world.pass(599);
    assert!(world.sent().is_empty());
    assert!(world.events().is_empty());
    assert_ne!(world.charge_point.heartbeat_interval(), Duration::from_secs(10));

    world.pass(1);
    let id = world.boot_id();
    world.change("6", "InvokeCustomScript1", "ops@example.com");
    assert!(world.sent().is_empty(), "the CSMS hasn't taken its Rejected back yet");
    world.receive(&json!([3, id, {"status": "Accepted", "interval": 300}]));
    world.answer_announcements();
    world.change("7", "HeartbeatInterval", "10");
    assert_eq!(world.sent_one()[1], "7");
}

#[test]
fn rejected_takes_back_answers_that_were_not_sent() {
    let mut world = World::new();
    world.connect();
    let id = world.boot_id();
    world.change("1", "InvokeCustomScript1", "ops@example.com");
    let (request, _) = world.asked();
    world.receive(&json!([2, "2", "GetConfiguration", {}]));
    world.receive(&json!([3, id, {"status": "Rejected", "interval": 600}]));
    world.charge_point.answer_change(request, ConfigurationStatus::Accepted);
    assert!(world.sent().is_empty());
}

#[test]
fn rejected_takes_back_requests_that_the_embedder_has_not_seen() {
    let mut world = World::new();
    world.connect();
    let id = world.boot_id();
    world.change("1", "InvokeCustomScript1", "ops@example.com");
    world.receive(&json!([3, id, {"status": "Rejected", "interval": 600}]));
    assert_eq!(world.events(), [boot_status(RegistrationStatus::Rejected, Some(600))]);
}

#[test]
fn wait_of_a_rejection_goes_on_through_reconnects() {
    let mut world = World::new();
    world.connect();
    world.answer_boot(&json!({"status": "Rejected", "interval": 600}));
    world.disconnect();
    assert_eq!(world.charge_point.poll_timeout(), None);
    world.pass(100);
    world.connect();
    world.change("1", "HeartbeatInterval", "10");
    world.pass(499);
    assert!(world.sent().is_empty());
    world.pass(1);
    world.boot_id();
}

#[test]
fn boot_notification_lost_with_its_connection_is_sent_on_the_next() {
    let mut world = World::new();
    world.connect();
    let first = world.boot_id();
    world.disconnect();
    world.connect();
    let second = world.boot_id();
    assert_ne!(first, second);

    world.receive(&json!([3, first, {"status": "Accepted", "interval": 300}]));
    assert_eq!(
        world.charge_point.boot_status(),
        None,
        "an answer of an earlier connection counts for nothing"
    );

    world.receive(&json!([3, second, {"status": "Pending", "interval": 5}]));
    world.pass(5);
    world.boot_id();
    world.disconnect();
    world.connect();
    world.boot_id();
}

#[test]
fn pending_with_interval_zero_does_not_flood() {
    let mut world = World::new();
    world.connect();
    world.answer_boot(&json!({"status": "Pending", "interval": 0}));
    world.pass(59);
    assert!(world.sent().is_empty());
    world.pass(1);
    world.boot_id();
}

#[test]
fn unanswered_boot_notification_is_sent_again_after_growing_waits() {
    let mut world = World::new();
    world.connect();
    world.boot_id();
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = world.now;
        while world.charge_point.poll_timeout().is_some_and(|due| due <= before + Duration::from_secs(2000)) {
            world.pass(1);
            if !world.sent().is_empty() {
                break;
            }
        }
        waits.push((world.now - before).as_secs());
    }
    // 30 s for the answer, then 60 s doubling to 900 s, with up to a tenth more.
    for (wait, base) in waits.iter().zip([60, 120, 240, 480, 900, 900, 900, 900]) {
        assert!((30 + base..=32 + base + base / 10).contains(wait), "{waits:?}");
    }
}

#[test]
fn refused_or_senseless_answers_count_as_none() {
    for answer in [
        r#"[4,"ID","InternalError","",{}]"#,
        r#"[4,"ID"]"#,
        r#"[3,"ID",{}]"#,
        r#"[3,"ID",null]"#,
        r#"[3,"ID",{"status":"Maybe"}]"#,
        r#"[3,"ID",{"status":"#,
        r#"[3,"ID"]"#,
    ] {
        let mut world = World::new();
        world.connect();
        let id = world.boot_id();
        world.receive_text(&answer.replace("ID", &id));
        assert_eq!(world.charge_point.boot_status(), None, "{answer}");
        assert!(world.events().is_empty());
        world.pass(59);
        assert!(world.sent().is_empty(), "{answer}");
        world.pass(8);
        world.boot_id();
    }
}

#[test]
fn late_answer_to_an_abandoned_call_is_ignored() {
    let mut world = World::new();
    world.connect();
    let id = world.boot_id();
    world.pass(31);
    world.receive(&json!([3, id, {"status": "Accepted", "interval": 300}]));
    assert_eq!(world.charge_point.boot_status(), None);
}

#[test]
fn accepted_charge_point_reconnects_without_boot_notification() {
    let mut world = World::accepted();
    world.disconnect();
    assert_eq!(world.charge_point.poll_timeout(), None);
    world.pass(1000);
    world.connect();
    assert!(world.sent().is_empty());
    assert_eq!(world.charge_point.boot_status(), Some(RegistrationStatus::Accepted));
    world.pass(300);
    assert_eq!(world.sent_one()[2], "Heartbeat");
}

#[test]
fn boot_on_reconnect_registers_anew_each_time() {
    let mut world = World::with(|settings| settings.boot_on_reconnect = true);
    world.connect();
    world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    world.disconnect();
    world.connect();
    assert_eq!(world.charge_point.boot_status(), None);
    world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    world.pass(300);
    assert_eq!(world.sent_one()[2], "Heartbeat");
}

#[test]
fn statuses_are_told_after_each_acceptance_and_only_then() {
    let mut world = World::with_connectors(2, |settings| settings.boot_on_reconnect = true);
    world.connect();
    let id = world.boot_id();
    world.receive(&json!([3, id, {"status": "Accepted", "interval": 300}]));
    for (connector, status) in [(0, "Available"), (1, "Unavailable"), (2, "Unavailable")] {
        let sent = world.sent_one();
        assert_eq!(sent[2], "StatusNotification");
        assert_eq!(sent[3], json!({"connectorId": connector, "errorCode": "NoError", "status": status}));
        world.receive(&json!([3, sent[1], {}]));
    }
    assert!(world.sent().is_empty());
    world.disconnect();
    world.connect();
    world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    assert!(world.sent().is_empty());

    let mut world = World::accepted();
    world.disconnect();
    world.connect();
    assert!(world.sent().is_empty(), "the CSMS knows it from before");
}

#[test]
fn status_lost_with_its_connection_is_told_on_the_next() {
    let mut world = World::with_connectors(1, |_| {});
    world.connect();
    let id = world.boot_id();
    world.receive(&json!([3, id, {"status": "Accepted", "interval": 300}]));
    let first = world.sent_one();
    world.receive(&json!([3, first[1], {}]));
    assert_eq!(world.sent_one()[3]["connectorId"], 1);
    world.disconnect();
    world.connect();
    let again = world.sent_one();
    assert_eq!(again[3]["connectorId"], 1);
    world.receive(&json!([4, again[1], "NotSupported", "", {}]));
    assert!(world.sent().is_empty(), "a CSMS that doesn't want it isn't asked again");
}

#[test]
fn what_waits_goes_out_in_the_order_of_its_importance() {
    let mut world = World::new();
    world.connect();
    let boot = world.boot_id();
    world.receive(&json!([2, "t", "TriggerMessage", {"requestedMessage": "Heartbeat"}]));
    assert_eq!(world.sent_one()[1], "t");
    world.receive(&json!([3, boot, {"status": "Accepted", "interval": 300}]));
    world.call(1).unwrap();
    let mut order = Vec::new();
    loop {
        let sent = world.sent();
        let [call] = sent.as_slice() else { break };
        order.push(call[2].as_str().unwrap().to_owned());
        world.receive(&json!([3, call[1], {}]));
    }
    assert_eq!(order, ["Heartbeat", "StatusNotification", "DataTransfer"]);
}
