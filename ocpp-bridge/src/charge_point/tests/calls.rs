use super::*;

#[test]
fn calls_are_served_while_ours_is_outstanding() {
    let mut world = World::accepted();
    world.pass(300);
    let heartbeat = world.sent_one();
    world.receive(&json!([2, "a", "GetConfiguration", {"key": ["NumberOfConnectors"]}]));
    world.receive(&json!([2, "b", "ClearCache", {}]));
    let sent = world.sent();
    assert_eq!((&sent[0][1], &sent[1][1]), (&json!("a"), &json!("b")));
    world.receive(&json!([3, heartbeat[1], {"currentTime": "2026-11-21T10:05:00Z"}]));
    assert_eq!(world.events().len(), 1);
}

#[test]
fn the_same_id_from_both_sides_crosses_without_harm() {
    let mut world = World::accepted();
    world.pass(300);
    let ours = world.sent_one();
    world.receive(&json!([2, ours[1], "GetConfiguration", {"key": ["NumberOfConnectors"]}]));
    let answer = world.sent_one();
    assert_eq!((&answer[0], &answer[1]), (&json!(3), &ours[1]));
    world.receive(&json!([3, ours[1], {"currentTime": "2026-11-21T10:05:00Z"}]));
    assert!(matches!(world.events().as_slice(), [Event::Clock(_)]));
}

#[test]
fn pipelined_changes_are_all_asked_and_answered_in_any_order() {
    let mut world = World::accepted();
    world.change("1", "InvokeCustomScript1", "a@x");
    world.change("2", "InvokeCustomScript1", "b@x");
    let requests: Vec<RequestId> = world
        .events()
        .into_iter()
        .map(|event| match event {
            Event::ChangeConfiguration { request, .. } => request,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(world.sent().is_empty());
    world.charge_point.answer_change(requests[1], ConfigurationStatus::Rejected);
    world.charge_point.answer_change(requests[0], ConfigurationStatus::Accepted);
    world.charge_point.answer_change(requests[0], ConfigurationStatus::Accepted);
    assert_eq!(
        world.sent(),
        [json!([3, "2", {"status": "Rejected"}]), json!([3, "1", {"status": "Accepted"}])]
    );
}

#[test]
fn the_same_id_again_is_a_request_of_its_own() {
    let mut world = World::accepted();
    for _ in 0..2 {
        world.receive(&json!([2, "1", "ClearCache", {}]));
        assert_eq!(world.sent_one()[1], "1");
    }
    world.disconnect();
    world.connect();
    world.receive(&json!([2, "1", "ClearCache", {}]));
    assert_eq!(world.sent_one()[1], "1");
}

#[test]
fn answer_to_a_request_of_an_earlier_connection_is_dropped() {
    let mut world = World::accepted();
    world.change("1", "InvokeCustomScript1", "a@x");
    let (old, _) = world.asked();
    world.disconnect();
    world.charge_point.answer_change(old, ConfigurationStatus::Accepted);
    world.connect();
    world.change("1", "InvokeCustomScript1", "b@x");
    let (new, _) = world.asked();
    assert_ne!(old, new);
    world.charge_point.answer_change(old, ConfigurationStatus::Accepted);
    assert!(world.sent().is_empty());
    world.charge_point.answer_change(new, ConfigurationStatus::Rejected);
    assert_eq!(world.sent(), [json!([3, "1", {"status": "Rejected"}])]);
}

#[test]
fn wrong_ids_and_giant_ids_are_ignored() {
    let mut world = World::accepted();
    world.pass(300);
    let heartbeat = world.sent_one();
    world.receive(&json!([3, "somebody else's", {"currentTime": "2026-11-21T10:05:00Z"}]));
    world.receive(&json!([4, "somebody else's", "GenericError", "", {}]));
    world.receive(&json!([2, "x".repeat(37), "ClearCache", {}]));
    world.receive(&json!([2, "x".repeat(200_000), "ClearCache", {}]));
    world.receive(&json!([2, 7, "ClearCache", {}]));
    world.receive(&json!([5, "1", "ClearCache", {}]));
    world.receive_text("not json");
    assert!(world.events().is_empty());
    assert!(world.sent().is_empty());
    world.receive(&json!([3, heartbeat[1], {"currentTime": "2026-11-21T10:05:00Z"}]));
    assert_eq!(world.events().len(), 1, "the CALL is still outstanding");
    world.receive(&json!([3, heartbeat[1], {"currentTime": "2026-11-21T10:05:00Z"}]));
    assert!(world.events().is_empty(), "a second answer to the same CALL is nobody's");
}

#[test]
fn unanswered_heartbeat_gives_way_to_the_next() {
    let mut world = World::accepted();
    world.change("1", "HeartbeatInterval", "10");
    world.sent();
    world.events();
    world.pass(10);
    let first = world.sent_one();
    world.pass(29);
    assert!(world.sent().is_empty(), "one CALL at a time");
    world.pass(1);
    assert_ne!(world.sent_one()[1], first[1]);
}

#[test]
fn known_actions_are_not_supported_and_unknown_ones_not_implemented() {
    let mut world = World::accepted();
    let code = |world: &mut World, action: &str| {
        world.receive(&json!([2, "1", action, {}]));
        world.sent_one()[2].as_str().unwrap().to_owned()
    };
    for action in [
        "Authorize",
        "BootNotification",
        "CancelReservation",
        "ClearChargingProfile",
        "DiagnosticsStatusNotification",
        "FirmwareStatusNotification",
        "GetCompositeSchedule",
        "GetLocalListVersion",
        "Heartbeat",
        "MeterValues",
        "ReserveNow",
        "SendLocalList",
        "SetChargingProfile",
        "StartTransaction",
        "StatusNotification",
        "StopTransaction",
        "UpdateFirmware",
        "CertificateSigned",
        "DeleteCertificate",
        "GetInstalledCertificateIds",
        "InstallCertificate",
        "LogStatusNotification",
        "SecurityEventNotification",
        "SignCertificate",
        "SignedFirmwareStatusNotification",
        "SignedUpdateFirmware",
    ] {
        assert_eq!(code(&mut world, action), "NotSupported", "{action}");
    }
    for action in ["", "reset", "GetVariables", "Reset ", "ÄChangeConfiguration"] {
        assert_eq!(code(&mut world, action), "NotImplemented", "{action}");
    }
}

#[test]
fn broken_calls_are_answered_with_the_exact_code() {
    let mut world = World::accepted();
    for (text, code) in [
        (r#"[2,"1","ChangeConfiguration"]"#, "FormationViolation"),
        (r#"[2,"1","ChangeConfiguration",{"key":}]"#, "FormationViolation"),
        (r#"[2,"1","ChangeConfiguration",[]]"#, "FormationViolation"),
        (r#"[2,"1","ChangeConfiguration",{}]"#, "OccurenceConstraintViolation"),
        (r#"[2,"1","ChangeConfiguration",{"key":"HeartbeatInterval"}]"#, "OccurenceConstraintViolation"),
        (
            r#"[2,"1","ChangeConfiguration",{"key":"HeartbeatInterval","value":60}]"#,
            "TypeConstraintViolation",
        ),
        (r#"[2,"1","GetConfiguration",{"key":"HeartbeatInterval"}]"#, "TypeConstraintViolation"),
    ] {
        world.receive_text(text);
        let answer = world.sent_one();
        assert_eq!((&answer[0], &answer[2], &answer[4]), (&json!(4), &json!(code), &json!({})), "{text}");
        assert!(answer[3].is_string());
    }
}

#[test]
fn text_is_not_wanted_while_there_is_no_room() {
    let mut world = World::new();
    assert!(!world.charge_point.wants_text(), "there is no connection");
    let mut world_ = World::accepted();
    world = std::mem::replace(&mut world_, world);
    for id in 0..limits::MAX_PENDING_ANSWERS {
        assert!(world.charge_point.wants_text());
        world.change(&id.to_string(), "InvokeCustomScript1", "a@x");
    }
    assert!(!world.charge_point.wants_text());
    world.change("surplus", "InvokeCustomScript1", "a@x");
    let events = world.events();
    assert_eq!(events.len(), limits::MAX_PENDING_ANSWERS);
    let Event::ChangeConfiguration { request, .. } = events[0] else { panic!("{events:?}") };
    world.charge_point.answer_change(request, ConfigurationStatus::Accepted);
    assert!(world.charge_point.wants_text());

    world.sent();
    for id in 0..limits::MAX_OUTBOX {
        assert!(world.charge_point.wants_text());
        world.receive(&json!([2, id.to_string(), "ClearCache", {}]));
    }
    assert!(!world.charge_point.wants_text());
    assert_eq!(world.sent().len(), limits::MAX_OUTBOX);
    assert!(world.charge_point.wants_text());
}

#[test]
fn events_that_nobody_takes_stop_the_reading() {
    let mut world = World::accepted();
    for round in 0..100 {
        if !world.charge_point.wants_text() {
            break;
        }
        world.change("1", "HeartbeatInterval", &(round + 10).to_string());
        world.sent();
    }
    assert!(!world.charge_point.wants_text());
    assert!(world.events().len() <= MAX_EVENTS);
    assert!(world.charge_point.wants_text());
}

#[test]
fn ids_are_uuids_and_never_the_same() {
    let mut world = World::new();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..1000 {
        world.connect();
        let id = world.boot_id();
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4);
        assert!(ids.insert(id));
        world.disconnect();
    }
}

#[test]
fn frames_that_nobody_takes_do_not_pile_up() {
    let mut world = World::accepted();
    // 333 Heartbeats, the last of them 10 s ago.
    world.pass(333 * 300 + 10);
    assert_eq!(world.sent_one()[2], "Heartbeat", "one that wasn't sent in time never is");
    world.call(1).unwrap();
    world.pass(1000);
    assert_eq!(world.events(), [Event::Called { id: CallId(1), outcome: Outcome::Unanswered }]);
    assert!(world.sent().is_empty());
}
