//! A bridge with credentials of its own, and one that holds the connection while the controller is down.

use std::time::{Duration, Instant};

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::tls::Authority;
use ocpp_tunnel_tests::wire::{Wire, WireCsms};
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use serde_json::{Value, json};

/// What the old controller shows to the bridge: `CP001` and `secret`.
const DOWNSTREAM: (&str, &str) = ("authorization", "Basic Q1AwMDE6c2VjcmV0");
/// What the CSMS wants: `CP001` and `upstream`.
const UPSTREAM: &str = "Basic Q1AwMDE6dXBzdHJlYW0=";

fn setup(csms: &WireCsms, port: u16) -> Setup {
    Setup::new()
        .ocpp("mode = 'bridge'")
        .ocpp(&format!("url = '{}'", csms.url()))
        .ocpp("identity = 'CP001'")
        .ocpp("report = 'off'")
        .bridge(&format!("listen = '127.0.0.1:{port}'"))
}

/// With the passwords above on both sides.
fn with_passwords(setup: Setup) -> Setup {
    let (down, up) = (setup.file("down", "secret\n"), setup.file("up", "upstream\n"));
    setup
        .ocpp(&format!("authorization_key_file = '{up}'"))
        .bridge(&format!("authorization_key_file = '{down}'"))
}

async fn boot(controller: &mut Wire, upstream: &mut Wire) {
    controller.send(r#"[2,"boot","BootNotification",{}]"#).await;
    upstream
        .serve(&json!({"status": "Accepted", "interval": 300, "currentTime": "2026-11-22T00:00:00Z"}))
        .await;
    controller.text().await;
}

fn change(key: &str, value: &str) -> String {
    json!([2, "c", "ChangeConfiguration", {"key": key, "value": value}]).to_string()
}

#[tokio::test]
async fn an_old_controller_reaches_a_csms_that_wants_tls_and_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let mut csms = WireCsms::start_tls(&authority, false).await;
    csms.answer(|answers| answers.authorization = Some(UPSTREAM.to_owned()));
    let port = ports::free();
    let setup =
        with_passwords(setup(&csms, port)).ocpp(&format!("ca_file = '{}'", authority.root().display()));
    let agent = Agent::run(setup).await;
    for wrong in
        [&[][..], &[("authorization", UPSTREAM)][..], &[("authorization", "Basic Q1AwMDE6c2VjcmV")][..]]
    {
        let (status, fields) = Wire::connect(port, "CP001", wrong).await.unwrap_err();
        assert_eq!(status, 401);
        assert!(fields.contains_key("www-authenticate"));
    }
    assert!(csms.is_idle(), "the CSMS hears nothing of them");
    let mut controller = Wire::connect(port, "CP001", &[DOWNSTREAM]).await.unwrap();
    let mut upstream = csms.next().await;
    assert_eq!(upstream.field("authorization"), Some(UPSTREAM));
    boot(&mut controller, &mut upstream).await;
    assert_eq!(agent.link_is("accepted").await["profile"], 2);
}

#[tokio::test]
async fn an_old_controller_reaches_a_csms_that_wants_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let mut csms = WireCsms::start_tls(&authority, true).await;
    let port = ports::free();
    let setup = setup(&csms, port).bridge("identities = ['CP002']").ocpp("security_profile = 3");
    let down = setup.file("down", "secret");
    let setup = setup
        .bridge(&format!("authorization_key_file = '{down}'"))
        .client_certificate(&authority.client(dir.path(), "CP001"))
        .ocpp(&format!("ca_file = '{}'", authority.root().display()));
    let agent = Agent::run(setup).await;
    assert_eq!(Wire::connect(port, "CP001", &[]).await.unwrap_err().0, 401);
    let mut controller = Wire::connect(port, "CP001", &[DOWNSTREAM]).await.unwrap();
    let mut upstream = csms.next().await;
    assert_eq!(upstream.field("authorization"), None, "the controller's password is for the bridge");
    boot(&mut controller, &mut upstream).await;
    assert_eq!(agent.link_is("accepted").await["profile"], 3);
    // The certificate is CP001's, and speaks for nobody else.
    assert_eq!(Wire::connect(port, "CP002", &[]).await.unwrap_err().0, 502);
}

#[tokio::test]
async fn a_password_that_the_csms_sets_is_the_bridges_and_the_controller_keeps_its_own() {
    let mut csms = WireCsms::start().await;
    csms.answer(|answers| answers.authorization = Some(UPSTREAM.to_owned()));
    let port = ports::free();
    let setup = with_passwords(setup(&csms, port)).ocpp("security_profile = 1");
    let mut agent = Agent::run(setup).await;
    let mut controller = Wire::connect(port, "CP001", &[DOWNSTREAM]).await.unwrap();
    let mut upstream = csms.next().await;
    boot(&mut controller, &mut upstream).await;
    upstream.send(&change("AuthorizationKey", "0123456789abcdef")).await;
    let new = "Basic Q1AwMDE6MDEyMzQ1Njc4OWFiY2RlZg==";
    csms.answer(|answers| answers.authorization = Some(new.to_owned()));
    assert_eq!(upstream.json().await, json!([3, "c", {"status": "Accepted"}]));
    for end in [&mut upstream, &mut controller] {
        assert_eq!(u16::from(end.ended().await.unwrap().code), 1012);
    }
    let mut controller = Wire::connect(port, "CP001", &[DOWNSTREAM]).await.unwrap();
    let mut upstream = csms.next().await;
    assert_eq!(upstream.field("authorization"), Some(new));
    controller.send(r#"[2,"h","Heartbeat",{}]"#).await;
    upstream.serve(&json!({"currentTime": "2026-11-22T00:00:00Z"})).await;
    controller.text().await;
    wait_until("the new password is settled", LONG, async || {
        agent.log().contains("security-change-settled").then_some(())
    })
    .await;
    agent.terminate().await;
    agent.start().await;
    let _controller = Wire::connect(port, "CP001", &[DOWNSTREAM]).await.unwrap();
    assert_eq!(csms.next().await.field("authorization"), Some(new), "also after a restart");
}

#[tokio::test]
async fn controllers_may_connect_by_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let mut csms = WireCsms::start().await;
    let port = ports::free();
    let setup = setup(&csms, port)
        .ocpp("security_profile = 0")
        .bridge(&format!("certificate_file = '{}'", authority.certificate().display()))
        .bridge(&format!("key_file = '{}'", authority.key().display()));
    let agent = Agent::run(setup).await;
    let mut controller = Wire::connect_tls(port, &authority, "CP001").await.unwrap();
    let mut upstream = csms.next().await;
    boot(&mut controller, &mut upstream).await;
    // In plain nobody gets in, and the others stay.
    let mut plain = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET /CP001 HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    upstream.send("still there").await;
    assert_eq!(controller.text().await, "still there");
    assert_eq!(agent.link_is("accepted").await["profile"], 0, "it is the way to the CSMS that counts");
}

// --- rescue ---

/// A bridge that holds the connection a second after the controller has gone.
async fn rescuing(csms: &WireCsms) -> (Agent, u16) {
    let port = ports::free();
    let setup = setup(csms, port)
        .ocpp("security_profile = 1")
        .policy("minimum_security_profile = 1")
        .allow("*@*:*")
        .bridge("rescue_after = '1s'");
    (Agent::run(setup).await, port)
}

#[tokio::test]
async fn while_the_controller_is_down_the_bridge_holds_the_connection_and_answers_for_our_keys_alone() {
    let mut csms = WireCsms::start().await;
    csms.answer(|answers| answers.authorization = Some(UPSTREAM.to_owned()));
    let (agent, port) = rescuing(&csms).await;
    let mut controller = Wire::connect(port, "CP001", &[("authorization", UPSTREAM)]).await.unwrap();
    boot(&mut controller, &mut csms.next().await).await;
    drop(controller);

    let mut upstream = csms.next().await;
    assert_eq!(upstream.path, "/ocpp/CP001");
    assert_eq!(upstream.field("authorization"), Some(UPSTREAM), "what the controller showed last");
    assert_eq!(upstream.field("sec-websocket-protocol"), Some("ocpp1.6"));
    upstream.send(&change("InvokeCustomScript1", "a@127.0.0.1:1")).await;
    assert_eq!(upstream.json().await, json!([3, "c", {"status": "Accepted"}]));
    upstream.send(r#"[2,"g","GetConfiguration",{"key":["InvokeCustomScript1"]}]"#).await;
    assert_eq!(upstream.json().await[2]["configurationKey"][0]["value"], "a@127.0.0.1:1");
    for call in [
        r#"[2,"1","Reset",{"type":"Hard"}]"#,
        r#"[2,"1","GetConfiguration",{}]"#,
        r#"[2,"1","ChangeConfiguration",{"key":"HeartbeatInterval","value":"1"}]"#,
    ] {
        upstream.send(call).await;
        let answer = upstream.json().await;
        assert_eq!((&answer[0], &answer[1], &answer[2]), (&json!(4), &json!("1"), &json!("InternalError")));
        assert_eq!(answer[3], "the controller is not connected");
    }
    assert!(
        upstream.is_silent(Duration::from_secs(1)).await,
        "it boots as nobody and says nothing of its own"
    );
    let status = agent.status().await;
    let shown = &status["ocpp"]["controllers"][0];
    assert_eq!((&shown["state"], &shown["controller"]), (&json!("rescue"), &Value::Null));
    assert!(shown["csms"]["frames_in"].as_u64() > Some(4), "{shown}");
}

#[tokio::test]
async fn the_bridge_gives_way_within_a_second_when_the_controller_returns() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = rescuing(&csms).await;
    let mut controller = Wire::connect(port, "CP001", &[DOWNSTREAM]).await.unwrap();
    boot(&mut controller, &mut csms.next().await).await;
    drop(controller);
    let mut held = csms.next().await;
    let began = Instant::now();
    let (controller, code) = tokio::join!(Wire::connect(port, "CP001", &[DOWNSTREAM]), async {
        let code = held.ended().await.map(|frame| u16::from(frame.code));
        assert!(csms.is_idle(), "the old connection ends before the new one is made");
        code
    });
    assert_eq!(code, Some(1001));
    let (mut controller, mut upstream) = (controller.unwrap(), csms.next().await);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    controller.send("I am back").await;
    assert_eq!(upstream.text().await, "I am back");

    // Also where the CSMS doesn't take part in the goodbye.
    drop(controller);
    upstream.ended().await;
    let _silent = csms.next().await;
    let began = Instant::now();
    Wire::connect(port, "CP001", &[DOWNSTREAM]).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_is_held_for_a_controller_whose_password_isnt_known_or_that_the_csms_sent_away() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = rescuing(&csms).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(csms.is_idle(), "nobody has shown a password yet");
    let mut controller = Wire::connect(port, "CP001", &[DOWNSTREAM]).await.unwrap();
    let mut upstream = csms.next().await;
    controller.send(r#"[2,"boot","BootNotification",{}]"#).await;
    upstream.serve(&json!({"status": "Rejected", "interval": 60})).await;
    controller.text().await;
    drop(controller);
    upstream.ended().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(csms.is_idle(), "it has been sent away");
}
