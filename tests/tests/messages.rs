//! Every message that a CSMS may send, and what is told without being asked. The harness holds each frame of ours
//! against the JSON schema of its message, here as in every other story.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

use futures_util::{SinkExt, StreamExt};
use ocpp_tunnel_tests::SHORT;
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::Rig;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Each action that a CSMS may send, with a valid payload and the answer: a status, a code, or `*` for any result.
fn requests() -> Vec<(&'static str, Value, &'static str)> {
    let profile = json!({
        "chargingProfileId": 1, "stackLevel": 0, "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Absolute",
        "chargingSchedule": {
            "chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 16.0}],
        },
    });
    let hash = json!({
        "hashAlgorithm": "SHA256", "issuerNameHash": "00", "issuerKeyHash": "00", "serialNumber": "00",
    });
    let log = json!({"remoteLocation": "ftp://127.0.0.1/"});
    let firmware = json!({
        "location": "https://127.0.0.1/", "retrieveDateTime": "2026-11-21T10:00:00Z",
        "signingCertificate": "x", "signature": "x",
    });
    vec![
        ("ChangeAvailability", json!({"connectorId": 0, "type": "Inoperative"}), "Rejected"),
        ("ChangeAvailability", json!({"connectorId": 0, "type": "Operative"}), "Accepted"),
        ("ChangeConfiguration", json!({"key": "MessageTimeout", "value": "25"}), "Accepted"),
        ("ClearCache", json!({}), "Rejected"),
        (
            "DataTransfer",
            json!({"vendorId": "com.example", "messageId": "m", "data": "d"}),
            "UnknownVendorId",
        ),
        ("GetConfiguration", json!({"key": ["HeartbeatInterval"]}), "*"),
        (
            "RemoteStartTransaction",
            json!({"idTag": "x", "connectorId": 1, "chargingProfile": profile}),
            "Rejected",
        ),
        ("RemoteStopTransaction", json!({"transactionId": 1}), "Rejected"),
        ("UnlockConnector", json!({"connectorId": 1}), "NotSupported"),
        ("TriggerMessage", json!({"requestedMessage": "BootNotification"}), "Rejected"),
        ("TriggerMessage", json!({"requestedMessage": "MeterValues", "connectorId": 1}), "NotImplemented"),
        ("TriggerMessage", json!({"requestedMessage": "StatusNotification", "connectorId": 1}), "Rejected"),
        ("TriggerMessage", json!({"requestedMessage": "Heartbeat"}), "Accepted"),
        ("ExtendedTriggerMessage", json!({"requestedMessage": "BootNotification"}), "Rejected"),
        (
            "ExtendedTriggerMessage",
            json!({"requestedMessage": "SignChargePointCertificate"}),
            "NotImplemented",
        ),
        ("ExtendedTriggerMessage", json!({"requestedMessage": "StatusNotification"}), "Accepted"),
        ("GetDiagnostics", json!({"location": "ftp://127.0.0.1/"}), "*"),
        (
            "UpdateFirmware",
            json!({"location": "http://127.0.0.1/", "retrieveDate": "2026-11-21T10:00:00Z"}),
            "NotSupported",
        ),
        ("GetLocalListVersion", json!({}), "NotSupported"),
        ("SendLocalList", json!({"listVersion": 1, "updateType": "Full"}), "NotSupported"),
        ("CancelReservation", json!({"reservationId": 1}), "NotSupported"),
        (
            "ReserveNow",
            json!({"connectorId": 0, "expiryDate": "2026-11-21T10:00:00Z", "idTag": "x", "reservationId": 1}),
            "NotSupported",
        ),
        ("ClearChargingProfile", json!({"id": 1}), "NotSupported"),
        ("GetCompositeSchedule", json!({"connectorId": 0, "duration": 60}), "NotSupported"),
        ("SetChargingProfile", json!({"connectorId": 0, "csChargingProfiles": profile}), "NotSupported"),
        ("CertificateSigned", json!({"certificateChain": "x"}), "NotSupported"),
        ("DeleteCertificate", json!({"certificateHashData": hash}), "NotSupported"),
        (
            "GetInstalledCertificateIds",
            json!({"certificateType": "CentralSystemRootCertificate"}),
            "NotSupported",
        ),
        ("GetLog", json!({"logType": "SecurityLog", "requestId": 1, "log": log}), "Rejected"),
        (
            "InstallCertificate",
            json!({"certificateType": "CentralSystemRootCertificate", "certificate": "x"}),
            "NotSupported",
        ),
        ("SignedUpdateFirmware", json!({"requestId": 1, "firmware": firmware}), "NotSupported"),
    ]
}

/// What an answer comes to: its status, `*` for a result without one, or its code.
fn outcome(answer: &Value) -> &str {
    match answer[0].as_u64() {
        Some(3) => answer[2]["status"].as_str().unwrap_or("*"),
        Some(4) => answer[2].as_str().unwrap_or_default(),
        _ => panic!("{answer}"),
    }
}

/// A payload without one of its fields, and with something wrong in its place.
fn spoilt(payload: &Value) -> Vec<Value> {
    let mut spoilt = vec![json!([]), json!("x"), json!(7), json!([payload])];
    for field in payload.as_object().into_iter().flat_map(|fields| fields.keys()) {
        let mut without = payload.clone();
        without.as_object_mut().map(|fields| fields.remove(field));
        spoilt.push(without);
        for wrong in [json!(null), json!([]), json!({}), json!(-1.5), json!("x".repeat(600)), json!(true)] {
            let mut with = payload.clone();
            with[field] = wrong;
            spoilt.push(with);
        }
    }
    spoilt
}

#[tokio::test]
async fn every_action_of_a_csms_has_a_defined_answer() {
    let mut rig = Rig::start().await;
    for (action, payload, expected) in requests() {
        let answer = rig.csms.answer_to(action, &payload).await;
        assert_eq!(outcome(&answer), expected, "{action} {payload}: {answer}");
    }
    // Only a charge point sends these.
    for action in [
        "Authorize",
        "BootNotification",
        "DiagnosticsStatusNotification",
        "FirmwareStatusNotification",
        "Heartbeat",
        "LogStatusNotification",
        "MeterValues",
        "SecurityEventNotification",
        "SignCertificate",
        "SignedFirmwareStatusNotification",
        "StartTransaction",
        "StatusNotification",
        "StopTransaction",
    ] {
        let answer = rig.csms.answer_to(action, &json!({})).await;
        assert_eq!(outcome(&answer), "NotSupported", "{action}: {answer}");
    }
}

#[tokio::test]
async fn spoilt_payloads_are_answered_too_and_harm_nothing() {
    let mut rig = Rig::start().await;
    let mut refused = 0;
    for (action, payload, _) in requests().into_iter().chain([("Reset", json!({"type": "Soft"}), "")]) {
        for spoilt in spoilt(&payload) {
            let answer = rig.csms.answer_to(action, &spoilt).await;
            refused += u32::from(outcome(&answer).ends_with("Violation"));
        }
    }
    assert!(refused > 100, "{refused}");
    rig.open(1).await;
    rig.echo_returns().await;
    assert_eq!(rig.csms.counts().await.connections, 1, "the link lived through it");
}

#[tokio::test]
async fn the_status_is_told_after_the_boot_and_on_request() {
    let mut rig = Rig::with(|setup| setup.ocpp("connectors = 2")).await;
    let status = |connector: u32, status: &str| json!({"connectorId": connector, "errorCode": "NoError", "status": status});
    let all = [status(0, "Available"), status(1, "Unavailable"), status(2, "Unavailable")];
    assert_eq!(statuses(&mut rig.csms, 3).await, all);

    let trigger = json!({"requestedMessage": "StatusNotification", "connectorId": 1});
    let answer = rig.csms.answer_to("TriggerMessage", &trigger).await;
    assert_eq!(outcome(&answer), "Accepted");
    assert_eq!(statuses(&mut rig.csms, 4).await[3], all[1]);
    let frames = rig.csms.frames().await;
    let answered = frames.iter().position(|frame| frame.contains(answer[1].as_str().unwrap())).unwrap();
    assert_eq!(answered + 2, frames.len(), "the answer goes first, and nothing else comes: {frames:?}");
}

/// The payloads of the statuses that were told, once there are so many.
async fn statuses(csms: &mut Csms, count: u64) -> Vec<Value> {
    csms.wait_for("statuses", count).await;
    let frames = csms.frames().await;
    let frames = frames.iter().map(|frame| serde_json::from_str::<Value>(frame).expect("frames are JSON"));
    frames.filter(|frame| frame[2] == "StatusNotification").map(|frame| frame[3].clone()).collect()
}

#[tokio::test]
async fn a_reset_makes_the_link_anew_and_leaves_tunnels_alone() {
    for kind in ["Hard", "Soft"] {
        let mut rig = Rig::start().await;
        rig.open(1).await;
        let answer = rig.csms.answer_to("Reset", &json!({"type": kind})).await;
        assert_eq!(outcome(&answer), "Accepted");
        rig.csms.wait_for("boots", 2).await;
        let link = rig.agent.link_is("accepted").await;
        assert_eq!(link["last_error"], json!(null), "what was asked for is no error");
        rig.echo_returns().await;
        assert_eq!(rig.sshd.connections(), 1, "the tunnel stayed");
    }
}

/// TC_002: while the CSMS hasn't decided, it reads, changes and triggers, and nothing comes unasked.
#[tokio::test]
async fn pending_serves_the_csms_and_sends_only_what_it_triggers() {
    let options = Options { boot: "Pending", interval: 3600, ..Options::default() };
    let csms = Csms::start(options).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    rig.agent.start().await;
    rig.csms.wait_for("boots", 1).await;
    rig.agent.link_is("pending").await;

    assert_eq!(rig.csms.value("MessageTimeout").await, "30");
    assert_eq!(rig.csms.change("MessageTimeout", "20").await, "Accepted");
    for (message, status) in [("StatusNotification", "Accepted"), ("MeterValues", "NotImplemented")] {
        let answer = rig.csms.answer_to("TriggerMessage", &json!({"requestedMessage": message})).await;
        assert_eq!(outcome(&answer), status);
    }
    statuses(&mut rig.csms, 1).await;
    tokio::time::sleep(SHORT).await;
    assert_eq!(statuses(&mut rig.csms, 1).await.len(), 1);
    assert_eq!(rig.csms.counts().await.boots, 1);

    rig.csms.answer_boot("Accepted", 300).await;
    let trigger = json!({"requestedMessage": "BootNotification"});
    let answer = rig.csms.answer_to("TriggerMessage", &trigger).await;
    assert_eq!(outcome(&answer), "Accepted");
    rig.csms.wait_for("boots", 2).await;
    rig.agent.link_is("accepted").await;
}

#[tokio::test]
#[should_panic(expected = "frames that don't fit")]
async fn a_frame_that_does_not_fit_its_schema_fails_its_story() {
    let csms = Csms::start(Options { password: None, ..Options::default() }).await;
    let mut request = format!("{}/CP001", csms.url()).into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "ocpp1.6".parse().unwrap());
    let tcp = TcpStream::connect(("127.0.0.1", csms.port())).await.unwrap();
    let (mut socket, _) = client_async(request, tcp).await.unwrap();
    let wrong = r#"[2,"1","StatusNotification",{"connectorId":0,"errorCode":"NoError","status":"Asleep"}]"#;
    socket.send(Message::text(wrong)).await.unwrap();
    socket.next().await.unwrap().unwrap();
}
