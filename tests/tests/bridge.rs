//! Between a controller and its CSMS: what passes, what is ours, and what becomes of one side when the other goes.

use std::time::Duration;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::check::check;
use ocpp_tunnel_tests::engine::Engine;
use ocpp_tunnel_tests::wire::{Wire, WireCsms};
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the controller shows, and only the CSMS knows: `CP001` and `secret`.
const PASSWORD: (&str, &str) = ("authorization", "Basic Q1AwMDE6c2VjcmV0");

/// A bridge to a CSMS in the test's hands, and the port that controllers connect to.
async fn bridge(csms: &WireCsms, change: impl FnOnce(Setup) -> Setup) -> (Agent, u16) {
    let port = ports::free();
    let setup = Setup::new()
        .ocpp("mode = 'bridge'")
        .ocpp(&format!("url = '{}'", csms.url()))
        .ocpp("identity = 'CP001'")
        .ocpp("security_profile = 0")
        .ocpp("report = 'off'")
        .policy("minimum_security_profile = 0")
        .bridge(&format!("listen = '127.0.0.1:{port}'"));
    (Agent::run(change(setup)).await, port)
}

/// A controller that got through, and its connection at the CSMS.
async fn connected(csms: &mut WireCsms, port: u16) -> (Wire, Wire) {
    csms.let_in(port, "CP001", &[PASSWORD]).await
}

/// Both, after an accepted boot.
async fn booted(csms: &mut WireCsms, port: u16) -> (Wire, Wire) {
    let (mut controller, mut upstream) = connected(csms, port).await;
    boot(&mut controller, &mut upstream, "Accepted").await;
    (controller, upstream)
}

async fn boot(controller: &mut Wire, upstream: &mut Wire, status: &str) {
    controller
        .send(r#"[2,"boot","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]"#)
        .await;
    upstream.text().await;
    let answer =
        json!([3, "boot", {"status": status, "interval": 300, "currentTime": "2026-11-22T00:00:00Z"}]);
    upstream.send(&answer.to_string()).await;
    assert_eq!(controller.json().await, answer);
}

/// What `status` says of a controller, once it is as wanted.
async fn shown(agent: &Agent, identity: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("the status of {identity} is as wanted"), LONG, async || {
        let status = agent.status().await;
        let controllers = status["ocpp"]["controllers"].as_array().cloned().unwrap_or_default();
        controllers.into_iter().find(|controller| controller["identity"] == identity && is_it(controller))
    })
    .await
}

// --- rule 1 ---

#[tokio::test]
async fn each_controller_has_one_connection_upstream_under_its_own_name() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup.bridge("identities = ['CP 002']")).await;
    let (_first, upstream) = connected(&mut csms, port).await;
    assert_eq!(upstream.path, "/ocpp/CP001");
    let mut second = Wire::connect(port, "CP%20002", &[]).await.unwrap();
    let mut upstream = csms.next().await;
    assert_eq!(upstream.path, "/ocpp/CP%20002");
    second.send("from the second").await;
    assert_eq!(upstream.text().await, "from the second");
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup).await;
    for path in ["CP002", "cp001", "CP001/", "ocpp/CP001", ""] {
        let (status, _) = Wire::connect(port, path, &[]).await.unwrap_err();
        assert_eq!(status, 404, "{path}");
    }
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    plain.write_all(b"GET /CP001 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(csms.is_idle(), "and the CSMS hears nothing of it");
}

#[tokio::test]
async fn a_newer_connection_of_a_controller_takes_the_place_of_the_older() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup).await;
    let (mut old, mut old_upstream) = booted(&mut csms, port).await;
    let (mut new, mut new_upstream) = connected(&mut csms, port).await;
    for end in [&mut old, &mut old_upstream] {
        assert_eq!(u16::from(end.ended().await.unwrap().code), 1001);
    }
    new.send("still there").await;
    assert_eq!(new_upstream.text().await, "still there");

    // Who isn't let in takes nobody's place.
    csms.answer(|answers| answers.authorization = Some(PASSWORD.1.to_owned()));
    assert_eq!(Wire::connect(port, "CP001", &[]).await.unwrap_err().0, 401);
    new_upstream.send("and there").await;
    assert_eq!(new.text().await, "and there");
}

// --- rule 2 ---

#[tokio::test]
async fn the_csms_sees_what_the_controller_shows_and_the_controller_what_the_csms_chose() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup).await;
    let fields = [PASSWORD, ("x-vendor", "ACME"), ("sec-websocket-protocol", "ocpp2.0.1, ocpp1.6")];
    let controller = Wire::connect(port, "CP001", &fields).await.unwrap();
    let upstream = csms.next().await;
    for (name, value) in fields {
        assert_eq!(upstream.field(name), Some(value));
    }
    assert_eq!(upstream.field("host"), Some(csms.url()["ws://".len()..].trim_end_matches("/ocpp")));
    assert_eq!(controller.field("sec-websocket-protocol"), Some("ocpp1.6"));
}

#[tokio::test]
async fn the_csmss_refusals_are_the_controllers() {
    let csms = WireCsms::start().await;
    let (agent, port) = bridge(&csms, |setup| setup).await;
    for (status, retry_after) in
        [(401, None), (403, None), (404, None), (429, Some(7)), (500, None), (503, Some(60))]
    {
        csms.answer(|answers| answers.refuse = Some((status, retry_after)));
        let (seen, fields) = Wire::connect(port, "CP001", &[PASSWORD]).await.unwrap_err();
        assert_eq!(seen, status);
        let wait = fields.get("retry-after").map(|value| value.to_str().unwrap().parse::<u32>().unwrap());
        assert_eq!(wait, retry_after, "{status}");
    }
    let controller = shown(&agent, "CP001", |controller| controller["state"] == "waiting").await;
    assert!(controller["last_error"].as_str().unwrap().contains("HTTP 503"), "{controller}");
    // A redirection, which OCPP doesn't follow, and a CSMS that isn't there.
    csms.answer(|answers| answers.refuse = Some((302, None)));
    assert_eq!(Wire::connect(port, "CP001", &[]).await.unwrap_err().0, 502);
    drop(csms);
    assert_eq!(Wire::connect(port, "CP001", &[]).await.unwrap_err().0, 502);
}

#[tokio::test]
async fn several_urls_are_tried_and_what_a_csms_says_counts_for_more_than_one_that_is_not_there() {
    let mut csms = WireCsms::start().await;
    let (url, dead) = (csms.url().to_owned(), format!("ws://127.0.0.1:{}/ocpp", ports::free()));
    for urls in [[&dead, &url], [&url, &dead]] {
        let (_agent, port) = bridge(&csms, |setup| setup.ocpp(&format!("url = {urls:?}"))).await;
        csms.answer(|answers| answers.refuse = Some((404, None)));
        assert_eq!(Wire::connect(port, "CP001", &[]).await.unwrap_err().0, 404);
        csms.answer(|answers| answers.refuse = None);
        booted(&mut csms, port).await;
    }
}

#[tokio::test]
async fn the_controller_is_answered_when_the_csms_has_answered_and_may_leave_before() {
    let mut csms = WireCsms::start().await;
    let (agent, port) = bridge(&csms, |setup| setup).await;
    csms.answer(|answers| answers.delay = LONG);
    let mut impatient = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = "GET /CP001 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    impatient.write_all(request.as_bytes()).await.unwrap();
    shown(&agent, "CP001", |controller| controller["state"] == "connecting").await;
    drop(impatient);
    shown(&agent, "CP001", |controller| controller["state"] == "waiting").await;
    csms.answer(|answers| answers.delay = Duration::ZERO);
    booted(&mut csms, port).await;
}

#[tokio::test]
async fn a_csms_that_chooses_no_subprotocol_is_passed_on_as_it_is() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup).await;
    csms.answer(|answers| answers.subprotocol = None);
    // tungstenite wants a choice where it has offered something.
    let controller = Wire::connect(port, "CP001", &[("sec-websocket-protocol", "")]).await.unwrap();
    assert_eq!(
        (controller.field("sec-websocket-protocol"), csms.next().await.path.as_str()),
        (None, "/ocpp/CP001")
    );
    let mut strict = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = "GET /CP001 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: ocpp1.6\r\n\r\n";
    strict.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 300];
    let read = strict.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 ") && !answer.contains("protocol:"), "{answer}");
}

#[tokio::test]
async fn later_versions_pass_untouched_and_without_our_keys() {
    for version in ["ocpp2.0.1", "ocpp2.1"] {
        let mut csms = WireCsms::start().await;
        csms.answer(|answers| answers.subprotocol = Some(version));
        let (agent, port) = bridge(&csms, |setup| setup).await;
        let offer = format!("{version}, ocpp1.6");
        let mut controller =
            Wire::connect(port, "CP001", &[("sec-websocket-protocol", &offer)]).await.unwrap();
        let mut upstream = csms.next().await;
        let call = r#"[2,"1","ChangeConfiguration",{"key":"InvokeCustomScript1","value":"close"}]"#;
        for text in
            [call, r#"[2,"2","GetConfiguration",{"key":["InvokeCustomScript1"]}]"#, "[6,\"3\",\"X\",{}]"]
        {
            upstream.send(text).await;
            assert_eq!(controller.text().await, text);
        }
        let controller = shown(&agent, "CP001", |controller| controller["state"] == "connected").await;
        assert_eq!(controller["subprotocol"], version);
    }
}

// --- rule 3 ---

#[tokio::test]
async fn either_sides_end_is_the_others_with_its_code() {
    let mut csms = WireCsms::start().await;
    let (agent, port) = bridge(&csms, |setup| setup).await;
    for code in [1000, 1001, 1008, 1012, 4001] {
        let (mut controller, mut upstream) = booted(&mut csms, port).await;
        upstream.close(code, "the CSMS's reason").await;
        let frame = controller.ended().await.unwrap();
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (code, "the CSMS's reason"));
        let (mut controller, mut upstream) = booted(&mut csms, port).await;
        controller.close(code, "the controller's").await;
        let frame = upstream.ended().await.unwrap();
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (code, "the controller's"));
    }
    let controller = shown(&agent, "CP001", |controller| controller["state"] == "waiting").await;
    assert_eq!(
        controller["last_closed"]["reason"],
        "the controller closed the connection: 4001 \"the controller's\""
    );
}

#[tokio::test]
async fn either_sides_loss_is_the_others() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup).await;
    let (mut controller, upstream) = booted(&mut csms, port).await;
    drop(upstream);
    assert_eq!(controller.ended().await, None);
    let (controller, mut upstream) = booted(&mut csms, port).await;
    drop(controller);
    assert_eq!(upstream.ended().await, None);
    booted(&mut csms, port).await;
}

// --- rule 4 ---

#[tokio::test]
async fn texts_pass_byte_for_byte_both_ways() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup).await;
    let (mut controller, mut upstream) = booted(&mut csms, port).await;
    let long = format!(r#"[2,"l","DataTransfer",{{"vendorId":"v","data":"{}"}}]"#, "ü".repeat(100_000));
    let texts = [
        " [ 2 , \"\\u0031\" ,\n\"Heartbeat\" , { } ] ",
        r#"[2,"2","MeterValues",{"v":1.50,"w":1E5,"v":"twice"}]"#,
        "no JSON at all \u{1f50c}",
        "",
        &long,
        r#"[3,"nobody asked",{"configurationKey":[ ]}]"#,
    ];
    for text in texts {
        controller.send(text).await;
        assert_eq!(upstream.text().await, text);
        upstream.send(text).await;
        assert_eq!(controller.text().await, text);
    }
}

// --- rules 5 and 6 ---

#[tokio::test]
async fn our_keys_are_answered_here_and_shown_among_the_controllers() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup).await;
    let (mut controller, mut upstream) = booted(&mut csms, port).await;

    let change =
        json!([2, "c", "ChangeConfiguration", {"key": "invokecustomscript1", "value": "nobody@nowhere"}]);
    upstream.send(&change.to_string()).await;
    assert_eq!(upstream.json().await, json!([3, "c", {"status": "Rejected"}]), "it isn't on the list");
    let theirs =
        json!([2, "d", "ChangeConfiguration", {"key": "HeartbeatInterval", "value": "60"}]).to_string();
    upstream.send(&theirs).await;
    assert_eq!(controller.text().await, theirs, "and the controller has heard nothing of ours");

    upstream.send(r#"[2,"o","GetConfiguration",{"key":["InvokeCustomScript1Status"]}]"#).await;
    let only = upstream.json().await;
    assert_eq!(only[2]["configurationKey"][0]["key"], "InvokeCustomScript1Status");

    upstream.send(r#"[2,"m","GetConfiguration",{"key":["A","InvokeCustomScript1"]}]"#).await;
    assert_eq!(controller.text().await, r#"[2,"m","GetConfiguration",{"key":["A"]}]"#);
    controller.send(r#"[3,"m",{"configurationKey":[{"key":"A","readonly":true,"value":"1.0"}]}]"#).await;
    let ours = r#"{"key":"InvokeCustomScript1","readonly":false,"value":""}"#;
    let mixed =
        format!(r#"[3,"m",{{"configurationKey":[{{"key":"A","readonly":true,"value":"1.0"}},{ours}]}}]"#);
    assert_eq!(upstream.text().await, mixed);

    upstream.send(r#"[2,"a","GetConfiguration",{}]"#).await;
    assert_eq!(controller.text().await, r#"[2,"a","GetConfiguration",{}]"#);
    let max = json!({"key": "GetConfigurationMaxKeys", "readonly": true, "value": "10"});
    controller.send(&json!([3, "a", {"configurationKey": [max]}]).to_string()).await;
    let all = upstream.json().await;
    let keys: Vec<&str> = all[2]["configurationKey"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "GetConfigurationMaxKeys",
            "InvokeCustomScript1",
            "InvokeCustomScript1Status",
            "InvokeCustomScript2",
            "InvokeCustomScript2Status",
            "SSHClientKey"
        ],
        "the controller's credentials are its own"
    );
}

#[tokio::test]
async fn other_controllers_keep_their_keys_to_themselves() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup.bridge("identities = ['CP002']")).await;
    let mut controller = Wire::connect(port, "CP002", &[]).await.unwrap();
    let mut upstream = csms.next().await;
    let call = r#"[2,"1","ChangeConfiguration",{"key":"InvokeCustomScript1","value":""}]"#;
    upstream.send(call).await;
    assert_eq!(controller.text().await, call);
}

// --- rule 7 ---

#[tokio::test]
async fn what_we_report_waits_until_the_controller_is_idle_and_its_answer_is_ours() {
    let mut csms = WireCsms::start().await;
    let (_agent, port) = bridge(&csms, |setup| setup.ocpp("report = 'auto'")).await;
    let (mut controller, mut upstream) = connected(&mut csms, port).await;
    controller.send(r#"[2,"h","Heartbeat",{}]"#).await;
    upstream.text().await;
    upstream.send(r#"[2,"q","Reset",{"type":"Soft"}]"#).await;
    controller.text().await;
    assert!(upstream.is_silent(Duration::from_millis(500)).await, "the controller waits for its heartbeat");
    upstream.send(r#"[3,"h",{"currentTime":"2026-11-22T00:00:00Z"}]"#).await;
    controller.text().await;
    let ours = upstream.json().await;
    assert_eq!((&ours[0], &ours[2]), (&json!(2), &json!("SecurityEventNotification")));
    assert_eq!(ours[1].as_str().unwrap().len(), 36, "a UUID");
    controller.send(r#"[2,"n","MeterValues",{}]"#).await;
    assert!(upstream.is_silent(Duration::from_millis(500)).await, "it has to wait for our answer");
    upstream.send(&json!([3, ours[1], {}]).to_string()).await;
    assert_eq!(upstream.text().await, r#"[2,"n","MeterValues",{}]"#);
    upstream.send(r#"[3,"n",{}]"#).await;
    assert_eq!(controller.text().await, r#"[3,"n",{}]"#, "and has heard nothing of ours");
}

// --- rule 8 ---

#[tokio::test]
async fn while_the_csms_has_rejected_the_controller_nothing_of_ours_happens() {
    let mut csms = WireCsms::start().await;
    let (agent, port) = bridge(&csms, |setup| setup.ocpp("report = 'auto'").allow("*@*:*")).await;
    let (mut controller, mut upstream) = connected(&mut csms, port).await;
    boot(&mut controller, &mut upstream, "Rejected").await;
    let change =
        json!([2, "1", "ChangeConfiguration", {"key": "InvokeCustomScript1", "value": "a@127.0.0.1:1"}])
            .to_string();
    upstream.send(&change).await;
    assert_eq!(controller.text().await, change, "what to make of it is the controller's matter");
    assert_eq!(agent.link_is("rejected").await["mode"], "bridge");

    boot(&mut controller, &mut upstream, "Pending").await;
    agent.link_is("pending").await;
    upstream.send(&change).await;
    assert_eq!(
        upstream.json().await,
        json!([3, "1", {"status": "Accepted"}]),
        "it may ask while it is pending"
    );
    assert!(upstream.is_silent(Duration::from_millis(300)).await, "and we say nothing of our own");

    boot(&mut controller, &mut upstream, "Accepted").await;
    agent.link_is("accepted").await;
    assert_eq!(upstream.json().await[0], 2);
}

#[tokio::test]
async fn a_controller_whose_password_the_csms_changes_comes_back_with_it() {
    let mut csms = WireCsms::start().await;
    csms.answer(|answers| answers.authorization = Some(PASSWORD.1.to_owned()));
    let (_agent, port) = bridge(&csms, |setup| setup).await;
    let (mut controller, mut upstream) = booted(&mut csms, port).await;
    let change =
        json!([2, "k", "ChangeConfiguration", {"key": "AuthorizationKey", "value": "0123456789abcdef"}])
            .to_string();
    upstream.send(&change).await;
    assert_eq!(controller.text().await, change);
    controller.send(r#"[3,"k",{"status":"Accepted"}]"#).await;
    upstream.text().await;
    controller.close(1000, "").await;
    upstream.ended().await;
    let new = "Basic Q1AwMDE6MDEyMzQ1Njc4OWFiY2RlZg==";
    csms.answer(|answers| answers.authorization = Some(new.to_owned()));
    assert_eq!(Wire::connect(port, "CP001", &[PASSWORD]).await.unwrap_err().0, 401);
    Wire::connect(port, "CP001", &[("authorization", new)]).await.unwrap();
    assert_eq!(csms.next().await.field("authorization"), Some(new));
}

// --- what is told, and what is kept away ---

#[tokio::test]
async fn status_shows_both_legs() {
    let mut csms = WireCsms::start().await;
    let (agent, port) = bridge(&csms, |setup| setup.bridge("identities = ['CP002']")).await;
    let idle = shown(&agent, "CP002", |_| true).await;
    assert_eq!(
        (&idle["state"], &idle["csms"], &idle["url"]),
        (&json!("waiting"), &Value::Null, &Value::Null)
    );
    assert_eq!(agent.link_is("waiting").await["profile"], Value::Null);

    let (mut controller, _upstream) = booted(&mut csms, port).await;
    let status = shown(&agent, "CP001", |controller| controller["state"] == "connected").await;
    assert_eq!((status["url"].as_str(), status["subprotocol"].as_str()), (Some(csms.url()), Some("ocpp1.6")));
    let (down, up) = (&status["controller"], &status["csms"]);
    assert_eq!((&down["frames_in"], &up["frames_out"]), (&json!(1), &json!(1)), "{status}");
    assert_eq!((&down["bytes_out"], &up["frames_in"]), (&up["bytes_in"], &json!(1)), "{status}");
    assert!(up["round_trip_ms"].is_u64() && down["round_trip_ms"].is_null(), "{status}");
    assert!(up["last_frame"].is_string() && up["since"].is_string(), "{status}");
    assert_eq!(agent.link_is("accepted").await["profile"], 1, "the controller has shown a password");

    let people = agent.cli(&["status"]).await.stdout;
    assert!(people.contains("CP001 connected since "), "{people}");
    controller.close(1000, "").await;
    let status = shown(&agent, "CP001", |controller| controller["state"] == "waiting").await;
    assert_eq!(status["last_closed"]["reason"], "the controller closed the connection: 1000");
    assert_eq!(status["csms"], Value::Null);
}

#[tokio::test]
async fn the_check_tells_how_both_legs_are_and_touches_neither() {
    let mut csms = WireCsms::start().await;
    let (mut agent, port) = bridge(&csms, |setup| setup).await;
    assert_eq!(agent.cli(&["keys", "show"]).await.code, Some(0));
    let away = check(&agent, &[]).await;
    away.fails("ocpp", "the controller CP001 isn't connected", &format!("127.0.0.1:{port}"));
    let way = away.lines("ocpp")[1];
    assert_eq!(way["result"], "ok", "{away:#?}");
    assert!(
        way["text"].as_str().unwrap().contains(&format!("{} can be reached: TCP to", csms.url())),
        "{way}"
    );
    let (mut controller, mut upstream) = booted(&mut csms, port).await;
    let found = check(&agent, &[]).await;
    found.is_well("ocpp");
    assert_eq!(found.lines("ocpp").len(), 2, "{found:#?}");
    assert!(csms.is_idle(), "no connection was made for it");
    controller.send("still there").await;
    assert_eq!(upstream.text().await, "still there");

    agent.terminate().await;
    let alone = check(&agent, &[]).await;
    alone.is_well("ocpp");
    assert_eq!(alone.lines("ocpp").len(), 2, "{alone:#?}");
    assert!(csms.is_idle(), "it was asked for nothing");
    let _taken = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    check(&agent, &[]).await.fails("ocpp", "couldn't listen", "bridge.listen");
}

#[tokio::test]
async fn the_live_link_decides_whether_a_trigger_is_secure_enough() {
    let mut csms = WireCsms::start().await;
    let setup = |setup: Setup| setup.policy("minimum_security_profile = 1").allow("*@*:*");
    let (_agent, port) = bridge(&csms, setup).await;
    let change =
        json!([2, "1", "ChangeConfiguration", {"key": "InvokeCustomScript1", "value": "a@127.0.0.1:1"}])
            .to_string();
    for (fields, expected) in [(&[][..], "Rejected"), (&[PASSWORD][..], "Accepted")] {
        let _controller = Wire::connect(port, "CP001", fields).await.unwrap();
        let mut upstream = csms.next().await;
        upstream.send(&change).await;
        assert_eq!(upstream.json().await[2]["status"], expected);
    }
}

#[tokio::test]
async fn a_tunnel_never_leads_to_the_bridge() {
    let port = ports::free();
    let csms = WireCsms::start().await;
    let engine = Engine::start(|setup| {
        setup
            .ocpp("mode = 'bridge'")
            .ocpp(&format!("url = '{}'", csms.url()))
            .ocpp("identity = 'CP001'")
            .ocpp("security_profile = 0")
            .bridge(&format!("listen = '127.0.0.1:{port}'"))
            .script(2, ports::free(), &format!("127.0.0.1:{port}"))
    })
    .await;
    let opened = engine.agent.cli(&["open", &engine.sshd.destination(), "--script", "2", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let tunnel = engine.agent.tunnel("2").await;
    let remote: u16 =
        tunnel["forwards"][0]["remote"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let mut through = TcpStream::connect(("127.0.0.1", remote)).await.unwrap();
    let _ = through.write_all(b"GET /CP001 HTTP/1.1\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = through.read_to_end(&mut answer).await;
    assert_eq!(answer, b"", "nobody answers");
    assert!(engine.agent.log().contains("local-service-forbidden"), "{}", engine.agent.log());
}

// --- the agent's own life ---

#[tokio::test]
async fn when_the_agent_stops_both_sides_are_told_and_a_restarted_one_takes_them_back() {
    let mut csms = WireCsms::start().await;
    let (mut agent, port) = bridge(&csms, |setup| setup).await;
    let (mut controller, mut upstream) = booted(&mut csms, port).await;
    let (ended, ()) = tokio::join!(agent.terminate(), async {
        for end in [&mut controller, &mut upstream] {
            assert_eq!(u16::from(end.ended().await.unwrap().code), 1001);
        }
    });
    assert!(ended.success());
    agent.start().await;
    let (mut controller, mut upstream) = connected(&mut csms, port).await;
    agent.kill().await;
    for end in [&mut controller, &mut upstream] {
        assert_eq!(end.ended().await, None, "a crash");
    }
    agent.start().await;
    booted(&mut csms, port).await;
}

#[tokio::test]
async fn a_place_that_is_taken_is_told_with_the_cure() {
    let csms = WireCsms::start().await;
    let (first, port) = bridge(&csms, |setup| setup).await;
    let second = Agent::new(
        Setup::new()
            .ocpp("mode = 'bridge'")
            .ocpp(&format!("url = '{}'", csms.url()))
            .ocpp("identity = 'CP001'")
            .ocpp("security_profile = 0")
            .bridge(&format!("listen = '127.0.0.1:{port}'")),
    );
    let output = second.cli(&["run"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(&format!("the bridge can't listen on 127.0.0.1:{port}: ")), "{output:?}");
    assert!(output.stderr.contains("set another bridge.listen"), "{output:?}");
    drop(first);
}
