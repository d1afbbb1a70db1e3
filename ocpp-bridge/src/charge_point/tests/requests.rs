//! What the CSMS may ask for, each with its answer.

use super::*;
use crate::{DataTransferStatus, Vendor};

fn status(world: &mut World, action: &str, payload: Value) -> String {
    world.receive(&json!([2, "1", action, payload]));
    let answer = world.sent_one();
    assert_eq!((&answer[0], &answer[1]), (&json!(3), &json!("1")), "{action}: {answer}");
    answer[2]["status"].as_str().unwrap().to_owned()
}

#[test]
fn availability_stays_as_it_is() {
    let mut world = World::accepted();
    let ask = |world: &mut World, connector: i32, kind: &str| {
        status(world, "ChangeAvailability", json!({"connectorId": connector, "type": kind}))
    };
    assert_eq!(ask(&mut world, 0, "Inoperative"), "Rejected");
    assert_eq!(ask(&mut world, 0, "Operative"), "Accepted", "it is so already");
    for connector in [1, -1, i32::MAX] {
        assert_eq!(ask(&mut world, connector, "Operative"), "Rejected");
        assert_eq!(ask(&mut world, connector, "Inoperative"), "Rejected");
    }

    let mut world = World::with_connectors(1, |_| {});
    world.connect();
    world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    assert_eq!(ask(&mut world, 0, "Inoperative"), "Rejected");
    assert_eq!(ask(&mut world, 0, "Operative"), "Rejected", "its connector isn't");
    assert_eq!(ask(&mut world, 1, "Operative"), "Rejected");
    assert_eq!(ask(&mut world, 1, "Inoperative"), "Accepted", "it is so already");
}

#[test]
fn what_needs_a_vehicle_side_is_refused_by_status() {
    let mut world = World::accepted();
    for (action, payload, answer) in [
        ("ClearCache", json!({}), "Rejected"),
        ("ClearCache", json!(null), "Rejected"),
        ("RemoteStartTransaction", json!({"idTag": "12345678901234567890", "connectorId": 1}), "Rejected"),
        ("RemoteStartTransaction", json!({"idTag": "", "chargingProfile": {"any": []}}), "Rejected"),
        ("RemoteStopTransaction", json!({"transactionId": 7}), "Rejected"),
        ("UnlockConnector", json!({"connectorId": 1}), "NotSupported"),
        ("DataTransfer", json!({"vendorId": "com.example"}), "UnknownVendorId"),
    ] {
        assert_eq!(status(&mut world, action, payload.clone()), answer, "{action} {payload}");
    }
    assert!(world.events().is_empty());
}

#[test]
fn wrong_payloads_are_refused_with_the_exact_code() {
    let mut world = World::accepted();
    for (action, payload, code) in [
        ("ChangeAvailability", json!({"connectorId": 0}), "OccurenceConstraintViolation"),
        ("ChangeAvailability", json!({"type": "Operative"}), "OccurenceConstraintViolation"),
        ("ChangeAvailability", json!({"connectorId": "0", "type": "Operative"}), "TypeConstraintViolation"),
        ("ChangeAvailability", json!({"connectorId": 0.5, "type": "Operative"}), "TypeConstraintViolation"),
        ("ChangeAvailability", json!({"connectorId": 0, "type": "operative"}), "PropertyConstraintViolation"),
        ("ChangeAvailability", json!({"connectorId": 0, "type": 1}), "TypeConstraintViolation"),
        ("ClearCache", json!([]), "FormationViolation"),
        ("RemoteStartTransaction", json!({}), "OccurenceConstraintViolation"),
        ("RemoteStartTransaction", json!({"idTag": "x".repeat(21)}), "PropertyConstraintViolation"),
        ("RemoteStartTransaction", json!({"idTag": "x", "connectorId": "1"}), "TypeConstraintViolation"),
        ("RemoteStartTransaction", json!({"idTag": "x", "chargingProfile": 1}), "TypeConstraintViolation"),
        ("RemoteStopTransaction", json!({"transactionId": null}), "OccurenceConstraintViolation"),
        ("RemoteStopTransaction", json!({"transactionId": true}), "TypeConstraintViolation"),
        ("UnlockConnector", json!({}), "OccurenceConstraintViolation"),
        ("Reset", json!({}), "OccurenceConstraintViolation"),
        ("Reset", json!({"type": "soft"}), "PropertyConstraintViolation"),
        ("Reset", json!({"type": ["Soft"]}), "TypeConstraintViolation"),
        ("Reset", json!("Soft"), "FormationViolation"),
        ("DataTransfer", json!({}), "OccurenceConstraintViolation"),
        ("DataTransfer", json!({"vendorId": "x".repeat(256)}), "PropertyConstraintViolation"),
        (
            "DataTransfer",
            json!({"vendorId": "x", "messageId": "x".repeat(51)}),
            "PropertyConstraintViolation",
        ),
        ("DataTransfer", json!({"vendorId": "x", "data": {}}), "TypeConstraintViolation"),
        ("DataTransfer", json!({"vendorId": "x", "data": "x".repeat(16385)}), "PropertyConstraintViolation"),
        ("TriggerMessage", json!({}), "OccurenceConstraintViolation"),
        ("TriggerMessage", json!({"requestedMessage": 1}), "TypeConstraintViolation"),
        (
            "TriggerMessage",
            json!({"requestedMessage": "Heartbeat", "connectorId": "1"}),
            "TypeConstraintViolation",
        ),
        ("ExtendedTriggerMessage", json!(7), "FormationViolation"),
        ("ExtendedTriggerMessage", json!({"connectorId": 1}), "OccurenceConstraintViolation"),
    ] {
        world.receive(&json!([2, "1", action, payload]));
        let answer = world.sent_one();
        assert_eq!((&answer[0], &answer[2]), (&json!(4), &json!(code)), "{action} {payload}: {answer}");
        assert!(answer[3].as_str().unwrap().len() > 10);
    }
    assert!(world.events().is_empty());
    world.receive_text(r#"[2,"1","Reset",{"type":"Soft","type":"Soft"}]"#);
    assert_eq!(world.sent_one()[2], "FormationViolation");
}

#[test]
fn registered_data_transfers_are_put_to_the_embedder() {
    let messages = vec!["Ping".to_owned(), String::new()];
    let vendor = Vendor { id: "org.example".to_owned(), messages };
    let mut world = World::with(|settings| settings.vendors = vec![vendor]);
    world.connect();
    world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    world.events();
    let unknown = json!({"vendorId": "org.example", "messageId": "Pong"});
    assert_eq!(status(&mut world, "DataTransfer", unknown), "UnknownMessageId");

    for (payload, message, content) in [
        (json!({"vendorId": "Org.Example", "messageId": "PING", "data": "é"}), Some("PING"), Some("é")),
        (json!({"vendorId": "org.example"}), None, None),
    ] {
        world.receive(&json!([2, "7", "DataTransfer", payload]));
        let events = world.events();
        let [Event::DataTransfer { request, message_id, data, security, .. }] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!((message_id.as_deref(), data.as_deref(), *security), (message, content, SECURE));
        world.charge_point.answer_change(*request, ConfigurationStatus::Accepted);
        assert!(world.sent().is_empty(), "an answer to something else");
        world.charge_point.answer_transfer(*request, DataTransferStatus::Accepted, Some("ok".to_owned()));
        assert_eq!(world.sent(), [json!([3, "7", {"status": "Accepted", "data": "ok"}])]);
    }
}

#[test]
fn actions_that_the_embedder_serves_are_put_to_it() {
    let actions =
        vec!["RemoteStartTransaction".to_owned(), "UnlockConnector".to_owned(), "OfTomorrow".to_owned()];
    let mut world = World::with(|settings| settings.actions = actions);
    world.connect();
    world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    world.events();
    world.receive(&json!([2, "1", "RemoteStopTransaction", {"transactionId": 1}]));
    assert_eq!(world.sent(), [json!([3, "1", {"status": "Rejected"}])], "the others are the charge point's");

    for (action, reply, answer) in [
        (
            "RemoteStartTransaction",
            Reply::Result(serde_json::from_str(r#"{"status":"Accepted"}"#).unwrap()),
            json!([3, "7", {"status": "Accepted"}]),
        ),
        (
            "OfTomorrow",
            Reply::Error { code: crate::frame::ErrorCode::InternalError, description: "x".repeat(300) },
            json!([4, "7", "InternalError", "x".repeat(255), {}]),
        ),
    ] {
        world.receive_text(&format!(r#"[2,"7","{action}",{{ "idTag" : "é" }}]"#));
        let events = world.events();
        let [Event::Call { request, action: called, payload, security }] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!((called.as_str(), payload.as_str(), *security), (action, r#"{ "idTag" : "é" }"#, SECURE));
        assert!(world.sent().is_empty(), "the embedder decides");
        world.charge_point.answer_change(*request, ConfigurationStatus::Accepted);
        assert!(world.sent().is_empty(), "an answer to something else");
        world.charge_point.answer_call(*request, reply.clone());
        assert_eq!(world.sent(), [answer]);
        world.charge_point.answer_call(*request, reply);
        assert!(world.sent().is_empty(), "once");
    }
}

#[test]
fn reset_ends_the_connection_after_its_answer_and_registers_anew() {
    for kind in ["Hard", "Soft"] {
        let mut world = World::accepted();
        world.call(1).unwrap();
        world.call(2).unwrap();
        world.sent();
        world.receive(&json!([2, "r", "Reset", {"type": kind}]));
        assert!(world.charge_point.is_resetting() && !world.charge_point.wants_text());
        assert_eq!(world.sent(), [json!([3, "r", {"status": "Accepted"}])]);
        let lost = |number| Event::Called { id: CallId(number), outcome: Outcome::Lost };
        assert_eq!(world.events(), [lost(1), lost(2), Event::Reset { hard: kind == "Hard" }]);

        world.receive(&json!([2, "s", "ClearCache", {}]));
        world.pass(1000);
        assert!(world.sent().is_empty(), "nothing more is said");
        world.disconnect();
        assert!(!world.charge_point.is_resetting());
        world.connect();
        world.answer_boot(&json!({"status": "Accepted", "interval": 300}));
    }
}
