//! GetLog and GetDiagnostics: the CSMS asks for a file, and it arrives where it may go, or nowhere.

use std::time::Duration;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::log_server::{LogServer, Reply};
use ocpp_tunnel_tests::{LONG, SHORT, wait_until};
use serde_json::{Value, json};

/// A CSMS over TLS, and an agent that may upload to these places.
async fn start(allowed: impl FnOnce(&Csms) -> Vec<String>) -> (Csms, Agent) {
    let csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let allowed = allowed(&csms);
    connect(csms, |setup| setup.policy(&format!("allow_uploads = {allowed:?}"))).await
}

async fn connect(mut csms: Csms, change: impl FnOnce(Setup) -> Setup) -> (Csms, Agent) {
    let agent = Agent::run(change(Setup::new().csms(&csms))).await;
    csms.wait_for("boots", 1).await;
    agent.link_is("accepted").await;
    (csms, agent)
}

/// The same, with one server over TLS that the agent may upload to.
async fn with_server() -> (Csms, Agent, LogServer) {
    let csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let server = LogServer::beside(&csms).await;
    let allowed = format!("allow_uploads = ['{}']", server.url());
    let (csms, agent) = connect(csms, |setup| setup.policy(&allowed)).await;
    (csms, agent, server)
}

fn log_request(request_id: i64, location: &str) -> Value {
    json!({ "log_type": "SecurityLog", "request_id": request_id, "log": { "remote_location": location } })
}

/// Sends GetLog with one more try after a second, and returns its answer.
async fn get_log(csms: &mut Csms, request_id: i64, location: &str) -> Value {
    let mut request = log_request(request_id, location);
    request["log_type"] = "DiagnosticsLog".into();
    request["retries"] = 1.into();
    request["retry_interval"] = 1.into();
    csms.call("GetLog", request).await["answer"].take()
}

/// Waits until the CSMS was told just this.
async fn is_told(csms: &mut Csms, agent: &Agent, expected: &[(&str, Option<i64>)]) {
    let expected: Vec<(String, Option<i64>)> =
        expected.iter().map(|(status, id)| ((*status).to_owned(), *id)).collect();
    let all = wait_until(&format!("the CSMS is told {expected:?}"), LONG * 3, async || {
        Some(csms.upload_statuses().await).filter(|told| told.len() >= expected.len())
    })
    .await;
    assert_eq!(all, expected);
    // The CSMS checks what it is told against the standard's schemas, and answers a CALLERROR.
    assert!(!agent.log().contains("upload-notice-refused"), "{}", agent.log());
}

#[tokio::test]
async fn diagnostics_arrive_with_status_configuration_and_log_and_without_a_secret() {
    let (mut csms, agent, server) = with_server().await;
    let location = format!("{}/in/?signature=hunter2", server.url());
    let answer = csms.call("GetDiagnostics", json!({ "location": location })).await;
    let name = answer["answer"]["file_name"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    assert!(name.starts_with("CP001-diagnostics-") && name.ends_with("Z.txt"), "{name}");
    is_told(&mut csms, &agent, &[("Uploading", None), ("Uploaded", None)]).await;

    let received = server.received();
    assert_eq!(received.len(), 1);
    assert_eq!(
        (received[0].method.as_str(), &received[0].target),
        ("PUT", &format!("/in/{name}?signature=hunter2"))
    );
    let body = &received[0].body;
    for part in [
        "\"schema\": 1",
        "\"state\": \"accepted\"",
        "[policy]",
        "allow_uploads",
        "ocpp-connected",
        "system up: ",
    ] {
        assert!(body.contains(part), "{part} in {body}");
    }
    let key = std::fs::read_to_string(agent.state_dir().join("id_ed25519")).unwrap();
    for secret in ["correct horse battery", "hunter2", key.lines().nth(1).unwrap()] {
        assert!(!body.contains(secret), "{secret} in {body}");
        assert!(!agent.log().contains(secret), "{secret} is logged");
        assert!(!agent.syslog().lines().join("\n").contains(secret), "{secret} is in syslog");
    }
}

#[tokio::test]
async fn a_security_log_holds_the_audit_records_of_the_period() {
    let csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let server = LogServer::beside(&csms).await;
    let setup = Setup::new().csms(&csms).policy(&format!("allow_uploads = ['{}']", server.url()));
    let records = [
        r#"{"seq":1,"time":"2026-01-01T00:00:00Z","event":"old"}"#,
        r#"{"seq":2,"time":"2026-01-02T00:00:00Z","event":"wanted"}"#,
        r#"{"seq":3,"time":"2026-01-03T00:00:00Z","event":"new"}"#,
    ];
    let audit = setup.directory().join("state/audit");
    std::fs::create_dir_all(&audit).unwrap();
    std::fs::write(audit.join("000000000001.jsonl"), records.join("\n") + "\n").unwrap();
    let mut csms = csms;
    let agent = Agent::run(setup).await;
    csms.wait_for("boots", 1).await;
    agent.link_is("accepted").await;

    let mut request = log_request(7, &format!("{}/presigned?X-Signature=a%2Fb%3D", server.url()));
    request["log"]["oldest_timestamp"] = "2026-01-01T12:00:00Z".into();
    request["log"]["latest_timestamp"] = "2026-01-02T12:00:00+01:00".into();
    let answer = csms.call("GetLog", request).await;
    assert_eq!(answer["answer"]["status"], "Accepted", "{answer}");
    assert!(answer["answer"]["filename"].as_str().unwrap().starts_with("CP001-security-"), "{answer}");
    is_told(&mut csms, &agent, &[("Uploading", Some(7)), ("Uploaded", Some(7))]).await;
    let received = server.received();
    assert_eq!(received[0].target, "/presigned?X-Signature=a%2Fb%3D");
    assert_eq!(received[0].body, records[1].to_owned() + "\n");

    assert_eq!(csms.change("InvokeCustomScript1", "somebody@elsewhere.example").await, "Rejected");
    assert_eq!(get_log(&mut csms, 8, "https://elsewhere.example/?hunter2").await["status"], "Rejected");
    wait_until("the refusals are recorded", LONG, async || {
        agent.cli(&["audit"]).await.stdout.contains("upload-refused").then_some(())
    })
    .await;
    csms.call("GetLog", log_request(9, server.url())).await;
    let body = server.wait_for(2).await[1].body.clone();
    let of_type = |kind: &str| {
        let mut records = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.find(|record| record["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {body}"))
    };
    assert_eq!(of_type("tunnel-refused")["source"]["profile"], 2);
    assert_eq!(
        of_type("upload-refused")["why"],
        "https://elsewhere.example is not an allowed place for uploads"
    );
    assert_eq!(of_type("upload-begun")["log"], "SecurityLog");
    assert_eq!(of_type("upload-ended")["status"], "Uploaded");
    assert!(body.starts_with(records[0]) && !body.contains("hunter2"), "{body}");
}

#[tokio::test]
async fn a_place_that_is_not_listed_is_refused_and_nothing_connects_to_it() {
    let listed = LogServer::http().await;
    let other = LogServer::http().await;
    let (mut csms, agent) = start(|_| vec![listed.url().to_owned()]).await;
    assert_eq!(get_log(&mut csms, 1, &format!("{}/x?sig=hunter2", other.url())).await["status"], "Rejected");
    let trick = other.url().replace("http://", &format!("{}@", listed.url()));
    assert_eq!(get_log(&mut csms, 2, &trick).await["status"], "Rejected");
    let answer = csms.call("GetDiagnostics", json!({ "location": other.url() })).await;
    assert_eq!(answer, json!({ "answer": {} }));
    is_told(
        &mut csms,
        &agent,
        &[("PermissionDenied", Some(1)), ("PermissionDenied", Some(2)), ("UploadFailed", None)],
    )
    .await;
    tokio::time::sleep(SHORT).await;
    assert_eq!((listed.connections(), other.connections()), (0, 0));
    assert!(agent.log().contains("upload-refused") && !agent.log().contains("hunter2"), "{}", agent.log());
}

#[tokio::test]
async fn by_default_only_the_csms_itself_gets_files_and_only_over_tls() {
    let csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let tls = LogServer::beside(&csms).await;
    let plain = LogServer::http().await;
    let own = format!("https://127.0.0.1:{}/logs", csms.port());
    let (mut csms, agent) = connect(csms, |setup| setup).await;
    for url in [tls.url(), plain.url(), &own.replace("https", "http"), "https://localhost/"] {
        assert_eq!(get_log(&mut csms, 1, url).await["status"], "Rejected", "{url}");
    }
    assert_eq!((tls.connections(), plain.connections()), (0, 0));
    assert_eq!(csms.value("SupportedFileTransferProtocols").await, "HTTPS");
    // A WebSocket server doesn't take a PUT, but it was asked.
    assert_eq!(get_log(&mut csms, 2, &own).await["status"], "Accepted");
    wait_until("the CSMS is asked to take the file", LONG, async || {
        csms.upload_statuses().await.contains(&("Uploading".into(), Some(2))).then_some(())
    })
    .await;
    drop(agent);
}

#[tokio::test]
async fn protocols_that_are_not_spoken_are_refused_in_those_words() {
    let (mut csms, agent) = start(|_| vec!["https://*".into()]).await;
    assert_eq!(get_log(&mut csms, 1, "ftp://user:hunter2@ftp.example.com/").await["status"], "Rejected");
    assert_eq!(get_log(&mut csms, 2, "file:///etc/shadow").await["status"], "Rejected");
    assert_eq!(get_log(&mut csms, 3, "https://[::ffff:127.0.0.1]/").await["status"], "Rejected");
    is_told(
        &mut csms,
        &agent,
        &[
            ("NotSupportedOperation", Some(1)),
            ("NotSupportedOperation", Some(2)),
            ("PermissionDenied", Some(3)),
        ],
    )
    .await;
    assert!(agent.log().contains("ftp:// isn't spoken here"), "{}", agent.log());
    assert!(!agent.log().contains("hunter2"), "{}", agent.log());
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = LogServer::http().await;
    let server = LogServer::http().await;
    let allowed = vec![server.url().to_owned(), elsewhere.url().to_owned()];
    let (mut csms, agent) = start(|_| allowed).await;
    for (id, status) in [(1, 302), (2, 307), (3, 308)] {
        server.then(Reply::Redirect(status, format!("{}/x", elsewhere.url())));
        assert_eq!(get_log(&mut csms, id, server.url()).await["status"], "Accepted");
        let expected: Vec<_> =
            (1..=id).flat_map(|id| [("Uploading", Some(id)), ("UploadFailure", Some(id))]).collect();
        is_told(&mut csms, &agent, &expected).await;
    }
    assert_eq!((server.connections(), elsewhere.connections()), (3, 0));
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    let (mut csms, agent, server) = with_server().await;
    server.then(Reply::Status(503));
    get_log(&mut csms, 1, server.url()).await;
    is_told(&mut csms, &agent, &[("Uploading", Some(1)), ("Uploaded", Some(1))]).await;
    let received = server.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].body, received[1].body, "every try sends the same file");

    for reply in [Reply::Status(500), Reply::Close] {
        server.then(reply);
    }
    get_log(&mut csms, 2, server.url()).await;
    server.wait_for(4).await;
    server.then(Reply::Status(413));
    let mut expected = vec![
        ("Uploading", Some(1)),
        ("Uploaded", Some(1)),
        ("Uploading", Some(2)),
        ("UploadFailure", Some(2)),
    ];
    is_told(&mut csms, &agent, &expected).await;
    get_log(&mut csms, 3, server.url()).await;
    expected.extend([("Uploading", Some(3)), ("UploadFailure", Some(3))]);
    is_told(&mut csms, &agent, &expected).await;
    server.then(Reply::Status(403));
    get_log(&mut csms, 4, server.url()).await;
    expected.extend([("Uploading", Some(4)), ("PermissionDenied", Some(4))]);
    is_told(&mut csms, &agent, &expected).await;
    assert_eq!(server.received().len(), 6, "413 and 403 are the last word");
}

#[tokio::test]
async fn a_server_without_put_gets_a_post() {
    let (mut csms, agent, server) = with_server().await;
    server.then(Reply::Status(405));
    get_log(&mut csms, 1, &format!("{}/logs", server.url())).await;
    is_told(&mut csms, &agent, &[("Uploading", Some(1)), ("Uploaded", Some(1))]).await;
    let received = server.received();
    let methods: Vec<&str> = received.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["PUT", "POST"]);
    assert_eq!(received[0].body, received[1].body);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time_and_tried_again() {
    let (mut csms, agent, server) = with_server().await;
    server.then(Reply::Silence);
    get_log(&mut csms, 1, server.url()).await;
    server.wait_for(1).await;
    server.wait_for(2).await;
    is_told(&mut csms, &agent, &[("Uploading", Some(1)), ("Uploaded", Some(1))]).await;
    assert!(agent.log().contains("the server's answer: nothing happened in 30 s"), "{}", agent.log());
}

#[tokio::test]
async fn a_second_request_cancels_the_first() {
    let (mut csms, agent, server) = with_server().await;
    server.then(Reply::Silence);
    assert_eq!(get_log(&mut csms, 1, server.url()).await["status"], "Accepted");
    server.wait_for(1).await;
    // One that is refused changes nothing.
    assert_eq!(get_log(&mut csms, 2, "https://127.0.0.1:1/").await["status"], "Rejected");
    let second = get_log(&mut csms, 3, server.url()).await;
    assert_eq!(second["status"], "AcceptedCanceled", "{second}");
    assert!(second["filename"].is_string(), "{second}");
    is_told(
        &mut csms,
        &agent,
        &[
            ("Uploading", Some(1)),
            ("PermissionDenied", Some(2)),
            ("UploadFailure", Some(1)),
            ("Uploading", Some(3)),
            ("Uploaded", Some(3)),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_triggered_status_tells_what_is_being_uploaded() {
    let (mut csms, agent, server) = with_server().await;
    server.then(Reply::Silence);
    let idle =
        csms.call("ExtendedTriggerMessage", json!({ "requested_message": "LogStatusNotification" })).await;
    assert_eq!(idle["answer"]["status"], "Accepted", "{idle}");
    is_told(&mut csms, &agent, &[("Idle", None)]).await;
    get_log(&mut csms, 9, server.url()).await;
    server.wait_for(1).await;
    is_told(&mut csms, &agent, &[("Idle", None), ("Uploading", Some(9))]).await;
    csms.call("ExtendedTriggerMessage", json!({ "requested_message": "LogStatusNotification" })).await;
    csms.call("TriggerMessage", json!({ "requested_message": "DiagnosticsStatusNotification" })).await;
    is_told(
        &mut csms,
        &agent,
        &[("Idle", None), ("Uploading", Some(9)), ("Uploading", Some(9)), ("Idle", None)],
    )
    .await;
}

#[tokio::test]
async fn more_uploads_in_an_hour_than_a_sim_card_can_bear_are_refused() {
    let (mut csms, agent, server) = with_server().await;
    for id in 0..20 {
        assert_ne!(get_log(&mut csms, id, server.url()).await["status"], "Rejected", "{id}");
    }
    // What it is told of those comes first, and a refusal only where there is room.
    wait_until("the CSMS is told of the last", LONG, async || {
        csms.upload_statuses().await.contains(&("Uploaded".into(), Some(19))).then_some(())
    })
    .await;
    assert_eq!(get_log(&mut csms, 20, server.url()).await["status"], "Rejected");
    wait_until("the CSMS is told", LONG, async || {
        csms.upload_statuses().await.contains(&("UploadFailure".into(), Some(20))).then_some(())
    })
    .await;
    assert!(agent.log().contains("20 uploads were begun in an hour"), "{}", agent.log());
}

#[tokio::test]
async fn an_upload_outlives_the_link_and_its_end_is_told_afterwards() {
    let (mut csms, agent, server) = with_server().await;
    server.then(Reply::Status(503));
    let mut request = log_request(5, server.url());
    request["retries"] = 1.into();
    request["retry_interval"] = 3.into();
    assert_eq!(csms.call("GetLog", request).await["answer"]["status"], "Accepted");
    server.wait_for(1).await;
    is_told(&mut csms, &agent, &[("Uploading", Some(5))]).await;
    // Once it has answered this, the agent has the CSMS's answer to that; otherwise it would tell it again.
    csms.get(&["HeartbeatInterval"]).await;
    csms.kill().await;
    server.wait_for(2).await;
    tokio::time::sleep(SHORT).await;
    // A new process, which has been told nothing yet.
    csms.resume().await;
    is_told(&mut csms, &agent, &[("Uploaded", Some(5))]).await;
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let stranger = tempfile::tempdir().unwrap();
    let server = LogServer::https(&ocpp_tunnel_tests::tls::Authority::new(stranger.path())).await;
    let allowed = vec![server.url().to_owned()];
    let (mut csms, agent) = start(|_| allowed).await;
    get_log(&mut csms, 1, server.url()).await;
    is_told(&mut csms, &agent, &[("Uploading", Some(1)), ("UploadFailure", Some(1))]).await;
    assert_eq!((server.connections(), server.received().len()), (2, 0));
}

#[tokio::test]
async fn an_agent_that_stops_waits_for_no_server() {
    let (mut csms, mut agent, server) = with_server().await;
    server.then(Reply::Silence);
    get_log(&mut csms, 1, server.url()).await;
    server.wait_for(1).await;
    let began = std::time::Instant::now();
    assert!(agent.terminate().await.success());
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}
