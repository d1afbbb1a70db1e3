//! The same dialogue with CSMSs of two makers, since each reads the standard in its own way: Python's `ocpp`, and
//! JavaScript's `ocpp-rpc` in its strict mode, which validates every message of both sides.

use ocpp_tunnel_tests::agent::Setup;
use ocpp_tunnel_tests::csms::{Csms, Library, Options};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::{LONG, SHORT, wait_until};
use serde_json::{Value, json};

const BOTH: [Library; 2] = [Library::Ocpp, Library::OcppRpc];

async fn rig(options: Options) -> Rig {
    let csms = Csms::start(options).await;
    let mut rig = Rig::unstarted(csms, |setup: Setup| setup).await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig
}

/// The requests of the charge point, by action.
async fn requests(csms: &mut Csms) -> Vec<(String, Value)> {
    let frames = csms.frames().await;
    let parsed = frames.iter().map(|text| serde_json::from_str::<Value>(text).unwrap_or_default());
    let calls = parsed.filter(|frame| frame[0] == 2);
    calls.map(|frame| (frame[2].as_str().unwrap_or_default().to_owned(), frame[3].clone())).collect()
}

fn statuses(requests: Vec<(String, Value)>) -> Vec<(String, Value)> {
    requests.into_iter().filter(|(action, _)| action == "StatusNotification").collect()
}

#[tokio::test]
async fn it_boots_first_and_then_sends_heartbeats_as_often_as_it_is_told() {
    for library in BOTH {
        let mut rig = rig(Options { library, interval: 1, ..Options::default() }).await;
        rig.csms.wait_for("heartbeats", 2).await;
        let link = rig.agent.link_is("accepted").await;
        assert_eq!(link["profile"], 1, "{library:?}");
        let requests = requests(&mut rig.csms).await;
        assert_eq!(requests[0].0, "BootNotification", "{library:?}: {requests:?}");
        assert!(requests[0].1["chargePointVendor"].is_string(), "{library:?}: {requests:?}");
        assert_eq!(rig.csms.counts().await.boots, 1, "{library:?}");
    }
}

#[tokio::test]
async fn pending_sends_nothing_and_answers_and_acceptance_follows() {
    for library in BOTH {
        let mut rig = rig(Options { library, boot: "Pending", interval: 1, ..Options::default() }).await;
        rig.csms.wait_for("boots", 1).await;
        assert_eq!(rig.csms.value("NumberOfConnectors").await, "0", "{library:?}");
        assert_eq!(rig.csms.change("ResetRetries", "2").await, "Accepted", "{library:?}");
        rig.csms.answer_boot("Accepted", 300).await;
        rig.agent.link_is("accepted").await;
        let requests = requests(&mut rig.csms).await;
        let until = requests.iter().rposition(|(action, _)| action == "BootNotification").unwrap();
        assert!(until >= 1, "{library:?}: {requests:?}");
        assert!(requests[..until].iter().all(|(action, _)| action == "BootNotification"), "{requests:?}");
    }
}

#[tokio::test]
async fn a_trigger_opens_a_tunnel_that_its_keys_tell_of_and_an_empty_value_closes_it() {
    for library in BOTH {
        let mut rig = rig(Options { library, ..Options::default() }).await;
        rig.agent.link_is("accepted").await;
        rig.open(1).await;
        rig.echo_returns().await;

        assert_eq!(rig.csms.value("invokecustomscript1").await, rig.sshd.destination(), "{library:?}");
        let status = rig.csms.value("InvokeCustomScript1Status").await;
        assert!(status.starts_with("up "), "{library:?}: {status}");
        let some = rig.csms.get(&["NoSuchKey", "HeartbeatInterval"]).await;
        assert_eq!(some["unknown_key"], json!(["NoSuchKey"]), "{library:?}");
        assert_eq!(some["configuration_key"][0]["value"], "300", "{library:?}");
        let all = rig.csms.get(&[]).await;
        assert!(
            all["configuration_key"].as_array().is_some_and(|keys| keys.len() >= 22),
            "{library:?}: {all}"
        );

        assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted", "{library:?}");
        rig.port_is_free(1).await;
    }
}

#[tokio::test]
async fn values_are_accepted_rejected_or_unknown_alike() {
    for library in BOTH {
        let mut rig = rig(Options { library, ..Options::default() }).await;
        rig.agent.link_is("accepted").await;
        for (key, value, status) in [
            ("HeartbeatInterval", "60", "Accepted"),
            ("HeartbeatInterval", "soon", "Rejected"),
            ("NumberOfConnectors", "2", "Rejected"),
            ("InvokeCustomScript1", "nobody@elsewhere.example", "Rejected"),
            ("NoSuchKey", "1", "NotSupported"),
        ] {
            assert_eq!(rig.csms.change(key, value).await, status, "{library:?}: {key} = {value}");
        }
        assert_eq!(rig.csms.value("HeartbeatInterval").await, "60", "{library:?}");
        tokio::time::sleep(SHORT).await;
        assert_eq!(rig.sshd.connections(), 0, "{library:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_the_right_one_is_enough_to_come_back() {
    for (library, tls) in BOTH.into_iter().flat_map(|library| [(library, false), (library, true)]) {
        let mut rig = rig(Options { library, tls, ..Options::default() }).await;
        let profile = if tls { 2 } else { 1 };
        assert_eq!(rig.agent.link_is("accepted").await["profile"], profile, "{library:?}");

        rig.csms.set_password(b"another").await;
        rig.csms.drop_connection().await;
        rig.csms.wait_for("refused", 2).await;
        let words = wait_until("status names the credentials", LONG, async || {
            let status = rig.agent.cli(&["status"]).await;
            status.stdout.contains("401").then_some(status.stdout)
        })
        .await;
        assert!(!words.contains("horse"), "{library:?}: {words}");

        rig.csms.set_password(b"correct horse battery").await;
        rig.csms.wait_for("connections", 2).await;
        rig.agent.link_is("accepted").await;
    }
}

#[tokio::test]
async fn certificates_of_both_sides_make_profile_3() {
    for library in BOTH {
        let options =
            Options { library, tls: true, password: None, client_certificates: true, ..Options::default() };
        let mut rig = rig(options).await;
        assert_eq!(rig.agent.link_is("accepted").await["profile"], 3, "{library:?}");
        assert_eq!(rig.csms.value("SecurityProfile").await, "3", "{library:?}");
        rig.open(1).await;
        rig.echo_returns().await;
    }
}

#[tokio::test]
async fn a_new_authorization_key_is_used_from_then_on() {
    for library in BOTH {
        let mut rig = rig(Options { library, tls: true, ..Options::default() }).await;
        rig.agent.link_is("accepted").await;
        let (value, bytes) = ("000102030405060708090a0b0c0d0e0f", (0..16).collect::<Vec<u8>>());
        rig.csms.set_password(&bytes).await;
        assert_eq!(rig.csms.change("AuthorizationKey", value).await, "Accepted", "{library:?}");
        rig.csms.wait_for("connections", 2).await;
        rig.agent.link_is("accepted").await;
        let key = rig.csms.key("AuthorizationKey").await;
        assert!(key.as_ref().is_some_and(|key| key["value"].is_null()), "{library:?}: {key:?}");
    }
}

#[tokio::test]
async fn an_unknown_charge_point_goes_on_asking_and_is_taken_once_it_is_known() {
    for library in BOTH {
        let csms = Csms::start(Options { library, identity: "DE*ABC 1".into(), ..Options::default() }).await;
        let mut rig = Rig::unstarted(csms, |setup| setup.ocpp("identity = 'DE*ABC 2'")).await;
        rig.agent.start().await;
        rig.csms.wait_for("refused", 2).await;
        let configuration = rig.agent.configuration().replace("DE*ABC 2", "DE*ABC 1");
        rig.agent.terminate().await;
        rig.agent.configure(&configuration);
        rig.agent.start().await;
        rig.agent.link_is("accepted").await;
    }
}

/// `ocpp-rpc` validates each of these answers.
#[tokio::test]
async fn every_message_that_a_csms_sends_has_its_answer() {
    let requests = [
        ("ChangeAvailability", json!({"connector_id": 0, "type": "Inoperative"}), "Rejected"),
        ("ClearCache", json!({}), "Rejected"),
        ("DataTransfer", json!({"vendor_id": "com.example", "data": "x"}), "UnknownVendorId"),
        ("RemoteStartTransaction", json!({"id_tag": "ABC"}), "Rejected"),
        ("RemoteStopTransaction", json!({"transaction_id": 1}), "Rejected"),
        ("UnlockConnector", json!({"connector_id": 1}), "NotSupported"),
        ("TriggerMessage", json!({"requested_message": "MeterValues"}), "NotImplemented"),
        (
            "ExtendedTriggerMessage",
            json!({"requested_message": "SignChargePointCertificate"}),
            "NotImplemented",
        ),
    ];
    let of_other_profiles = [
        ("CancelReservation", json!({"reservation_id": 1})),
        ("ClearChargingProfile", json!({})),
        ("GetCompositeSchedule", json!({"connector_id": 1, "duration": 60})),
        ("GetLocalListVersion", json!({})),
        ("SendLocalList", json!({"list_version": 1, "update_type": "Full"})),
        (
            "UpdateFirmware",
            json!({"location": "https://example.com/", "retrieve_date": "2026-01-01T00:00:00Z"}),
        ),
    ];
    for library in BOTH {
        let mut rig = rig(Options { library, ..Options::default() }).await;
        rig.agent.link_is("accepted").await;
        for (action, payload, status) in &requests {
            let answer = rig.csms.call(action, payload.clone()).await;
            assert_eq!(answer["answer"]["status"], *status, "{library:?}: {action}: {answer}");
        }
        // OCPP-J 1.6 errata 3.7.
        for (action, payload) in &of_other_profiles {
            let answer = rig.csms.call(action, payload.clone()).await;
            assert_eq!(answer["error"]["code"], "NotSupported", "{library:?}: {action}: {answer}");
        }
        let unknown = rig.csms.raw(r#"[2,"17","MakeCoffee",{}]"#, SHORT).await;
        assert!(unknown[0].starts_with(r#"[4,"17","NotImplemented","#), "{library:?}: {unknown:?}");
        assert_eq!(rig.csms.counts().await.connections, 1, "{library:?}: the link lived through it");
    }
}

#[tokio::test]
async fn what_is_triggered_follows_the_answer() {
    for library in BOTH {
        let mut rig = rig(Options { library, ..Options::default() }).await;
        rig.agent.link_is("accepted").await;
        let before = rig.csms.counts().await;
        for action in ["TriggerMessage", "ExtendedTriggerMessage"] {
            let heartbeat = rig.csms.call(action, json!({"requested_message": "Heartbeat"})).await;
            assert_eq!(heartbeat["answer"]["status"], "Accepted", "{library:?}: {action}: {heartbeat}");
            // Accepted by now, so that there is nothing to boot for (OCPP 1.6 errata 3.35).
            let boot = rig.csms.call(action, json!({"requested_message": "BootNotification"})).await;
            assert_eq!(boot["answer"]["status"], "Rejected", "{library:?}: {action}: {boot}");
        }
        let after = rig.csms.wait_for("heartbeats", before.heartbeats + 2).await;
        assert_eq!(after.boots, before.boots, "{library:?}");

        let told = statuses(requests(&mut rig.csms).await).len();
        let status = json!({"requested_message": "StatusNotification", "connector_id": 0});
        let answer = rig.csms.call("TriggerMessage", status).await;
        assert_eq!(answer["answer"]["status"], "Accepted", "{library:?}: {answer}");
        let told_again = wait_until("the status is told again", LONG, async || {
            let statuses = statuses(requests(&mut rig.csms).await);
            (statuses.len() > told).then_some(statuses)
        })
        .await;
        assert_eq!(told_again[told].1["connectorId"], 0, "{library:?}: {told_again:?}");
        let missing = json!({"requested_message": "StatusNotification", "connector_id": 7});
        let answer = rig.csms.call("TriggerMessage", missing).await;
        assert_eq!(answer["answer"]["status"], "Rejected", "{library:?}: {answer}");
    }
}

#[tokio::test]
async fn a_reset_begins_the_link_anew_and_leaves_the_tunnel_open() {
    for library in BOTH {
        let mut rig = rig(Options { library, ..Options::default() }).await;
        rig.agent.link_is("accepted").await;
        rig.open(1).await;
        for (kind, boots) in [("Soft", 2), ("Hard", 3)] {
            // Python's session ends with its first answer that the closed connection doesn't take, and then it
            // hasn't read ours: the last request after a boot has to be done with, which it is once a later one is.
            wait_until("the statuses are told", LONG, async || {
                let told = statuses(requests(&mut rig.csms).await).len() as u64;
                (told >= boots - 1).then_some(())
            })
            .await;
            assert_eq!(rig.csms.value("NumberOfConnectors").await, "0", "{library:?}");
            let answer = rig.csms.call("Reset", json!({ "type": kind })).await;
            assert_eq!(answer["answer"]["status"], "Accepted", "{library:?}: {kind}: {answer}");
            let counts = rig.csms.wait_for("boots", boots).await;
            assert_eq!(counts.connections, boots, "{library:?}: {kind}");
        }
        rig.echo_returns().await;
        assert_eq!(rig.sshd.connections(), 1, "{library:?}");
    }
}

/// The harness itself: a charge point that breaks the standard makes its test fail.
#[tokio::test]
#[should_panic(expected = "frames that don't fit")]
async fn a_charge_point_that_breaks_the_standard_fails_its_test() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let options = Options { library: Library::OcppRpc, password: None, ..Options::default() };
    let mut csms = Csms::start(options).await;
    let mut request = format!("{}/CP001", csms.url()).into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "ocpp1.6".parse().unwrap());
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", csms.port())).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let without_model = r#"[2,"1","BootNotification",{"chargePointVendor":"A"}]"#;
    socket.send(without_model.into()).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    assert!(answer.to_text().unwrap().starts_with(r#"[4,"1","#), "{answer}");
    csms.wait_for("BootNotification", 1).await;
}
