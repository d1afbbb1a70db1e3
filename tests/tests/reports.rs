//! What the agent tells the CSMS of its own accord: the tunnels' states, and security events.
#![allow(clippy::expect_used, reason = "helpers of tests fail the test")]

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::{LONG, SHORT, wait_until};
use serde_json::{Value, json};

/// Longer than a tunnel's state waits for the next one.
const SETTLED: std::time::Duration = SHORT.saturating_mul(3);

/// The data of every TunnelStatus that came.
async fn states(csms: &mut Csms) -> Vec<Value> {
    let calls = csms.calls("DataTransfer").await;
    let data = |call: &Value| {
        assert_eq!(
            (&call["vendorId"], &call["messageId"]),
            (&json!("org.ocpp-tunnel"), &json!("TunnelStatus"))
        );
        serde_json::from_str(call["data"].as_str().expect("the data is a text")).expect("the text is JSON")
    };
    calls.iter().map(data).collect()
}

/// Waits for so many of them.
async fn states_until(csms: &mut Csms, count: usize) -> Vec<Value> {
    wait_until(&format!("{count} states have been told"), LONG, async || {
        Some(states(csms).await).filter(|states| states.len() >= count)
    })
    .await
}

/// The types of the security events that came, and what they say.
async fn events(csms: &mut Csms) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
    let calls = csms.calls("SecurityEventNotification").await;
    calls.iter().map(|call| (text(&call["type"]), text(&call["techInfo"]))).collect()
}

/// Waits for so many of them.
async fn events_until(csms: &mut Csms, count: usize) -> Vec<(String, String)> {
    wait_until(&format!("{count} security events have been told"), LONG, async || {
        Some(events(csms).await).filter(|events| events.len() >= count)
    })
    .await
}

#[tokio::test]
async fn a_tunnels_state_is_told_when_it_is_up_away_and_closed() {
    let mut rig = Rig::with(|setup| setup.ssh("backoff_minimum = '3s'").ssh("backoff_maximum = '3s'")).await;
    rig.open(1).await;
    let server = rig.sshd.destination();
    let [up] = states_until(&mut rig.csms, 1).await.try_into().unwrap();
    let remote = format!("localhost:{}", rig.remote[0]);
    assert_eq!(
        (&up["slot"], &up["state"], &up["server"], &up["remote"]),
        (&json!(1), &json!("up"), &json!(server), &json!([remote]))
    );
    let tunnel = rig.agent.tunnel("1").await;
    let since = tunnel["since"].as_str().unwrap().trim_end_matches('Z');
    assert!(up["time"].as_str().unwrap().starts_with(since), "{up} {tunnel}");
    assert!(up["reason"].is_null() && up["error"].is_null() && up["learned"].is_null(), "{up}");

    rig.sshd.kill().await;
    let away = states_until(&mut rig.csms, 2).await.remove(1);
    assert_eq!((&away["slot"], &away["state"]), (&json!(1), &json!("backoff")), "{away}");
    assert!(away["error"].is_string(), "{away}");
    rig.sshd.resume().await;
    rig.agent.tunnel_is("1", "up").await;
    // While the server was away the failure may have changed its kind, but nothing is told twice.
    wait_until("the tunnel is said to be up", LONG, async || {
        (states(&mut rig.csms).await.last()?["state"] == "up").then_some(())
    })
    .await;

    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    let closed = wait_until("the tunnel is said to be closed", LONG, async || {
        states(&mut rig.csms).await.pop().filter(|state| state["state"] == "closed")
    })
    .await;
    assert_eq!(
        (&closed["slot"], &closed["reason"], &closed["error"]),
        (&json!(1), &json!("ocpp"), &json!(null))
    );
    tokio::time::sleep(SETTLED).await;
    assert_eq!(states(&mut rig.csms).await.last(), Some(&closed));
    assert_eq!(rig.agent.status().await["ocpp"]["reports"], json!({ "waiting": 0, "dropped": 0 }));
}

#[tokio::test]
async fn security_events_tell_who_opened_what_and_what_was_refused() {
    let mut rig = Rig::start().await;
    let server = rig.sshd.destination();
    rig.open(1).await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", "evil@203.0.113.66").await, "Rejected");
    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    let closed = rig.agent.tunnel_ends("1").await;
    assert_eq!(closed.as_deref(), Some("ocpp"));

    let events = events_until(&mut rig.csms, 4).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["StartupOfTheDevice", "TunnelOpened", "TunnelRefused", "TunnelClosed"]);
    let texts: Vec<&str> = events.iter().map(|(_, text)| text.as_str()).collect();
    assert!(texts[0].starts_with(&format!("agent={} uptime=", env!("CARGO_PKG_VERSION"))), "{events:?}");
    assert_eq!(texts[1], format!("slot=1 by=ocpp server={server} remote=localhost:{}", rig.remote[0]));
    assert!(texts[2].starts_with("slot=1 by=ocpp/profile-1 why=") && texts[2].contains("evil@203.0.113.66"));
    assert_eq!(texts[3], format!("slot=1 reason=ocpp server={server}"));

    let open = rig.agent.cli(&["open", &server, "--script", "2", "--wait"]).await;
    assert_eq!(open.code, Some(0), "{open:?}");
    let events = events_until(&mut rig.csms, 5).await;
    assert!(events[4].1.starts_with("slot=2 by=local "), "{events:?}");
}

/// The server isn't pinned here: its first key is learned.
#[tokio::test]
async fn a_learned_host_key_and_a_changed_one_are_told() {
    let mut rig = Rig::with(Setup::pin_nothing).await;
    rig.open(1).await;
    let server = rig.sshd.destination();
    let fingerprint = rig.sshd.host_key().fingerprint().await;
    let [up] = states_until(&mut rig.csms, 1).await.try_into().unwrap();
    assert_eq!((&up["state"], &up["learned"]), (&json!("up"), &json!(fingerprint)));

    rig.sshd.kill().await;
    rig.sshd.change_host_key().await;
    rig.sshd.resume().await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("host-key-mismatch"));
    let closed = wait_until("the tunnel is said to be closed", LONG, async || {
        states(&mut rig.csms).await.pop().filter(|state| state["state"] == "closed")
    })
    .await;
    assert_eq!(closed["reason"], "host-key-mismatch");
    assert!(closed["error"].as_str().is_some_and(|error| error.contains("SHA256:")), "{closed}");
    let events = events_until(&mut rig.csms, 5).await;
    let kinds: Vec<&str> = events.iter().skip(1).map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["TunnelHostKeyLearned", "TunnelOpened", "TunnelHostKeyMismatch", "TunnelClosed"]);
    assert_eq!(events[1].1, format!("slot=1 server={server} fingerprint={fingerprint}"));
    assert!(events[3].1.starts_with(&format!("slot=1 server={server} error=")), "{events:?}");
}

#[tokio::test]
async fn a_csms_that_does_not_know_us_gets_no_more_states_on_this_connection_and_one_on_the_next() {
    let mut rig = Rig::start().await;
    rig.csms.answer_with("DataTransfer", "UnknownVendorId").await;
    rig.open(1).await;
    states_until(&mut rig.csms, 1).await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    rig.agent.tunnel_ends("1").await;
    rig.open(2).await;
    events_until(&mut rig.csms, 4).await;
    tokio::time::sleep(SETTLED).await;
    assert_eq!(states(&mut rig.csms).await.len(), 1, "nothing more on this connection");

    rig.csms.drop_connection().await;
    rig.csms.wait_for("connections", 2).await;
    states_until(&mut rig.csms, 2).await;
    tokio::time::sleep(SETTLED).await;
    let told = states(&mut rig.csms).await;
    assert_eq!(told.len(), 2, "asked once more, and refused again: {told:?}");
    assert_eq!((&told[1]["slot"], &told[1]["state"]), (&json!(1), &json!("closed")));

    rig.csms.answer_with("DataTransfer", "Accepted").await;
    rig.csms.drop_connection().await;
    let told = states_until(&mut rig.csms, 3).await;
    assert_eq!((&told[2]["slot"], &told[2]["state"]), (&json!(2), &json!("up")));
}

#[tokio::test]
async fn a_csms_without_security_events_is_asked_once_a_connection() {
    for code in ["NotSupported", "NotImplemented"] {
        let mut csms = Csms::start(Options::default()).await;
        csms.answer_with("SecurityEventNotification", code).await;
        let mut rig = Rig::unstarted(csms, |setup| setup).await;
        rig.agent.start().await;
        rig.authorize(&rig.sshd).await;
        events_until(&mut rig.csms, 1).await;
        rig.open(1).await;
        states_until(&mut rig.csms, 1).await;
        assert_eq!(events(&mut rig.csms).await.len(), 1, "{code}");

        rig.csms.drop_connection().await;
        rig.csms.wait_for("connections", 2).await;
        rig.agent.link_is("accepted").await;
        rig.csms.answer_with("SecurityEventNotification", "").await;
        assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
        let events = events_until(&mut rig.csms, 2).await;
        assert_eq!(events[1].0, "TunnelClosed", "{events:?}");
    }
}

#[tokio::test]
async fn what_happened_while_the_csms_was_away_is_told_afterwards_in_order() {
    let mut rig = Rig::start().await;
    events_until(&mut rig.csms, 1).await;
    rig.csms.kill().await;
    rig.agent.link_is("backoff").await;
    let server = rig.sshd.destination();
    for script in ["1", "2"] {
        let open = rig.agent.cli(&["open", &server, "--script", script, "--wait"]).await;
        assert_eq!(open.code, Some(0), "{open:?}");
    }
    assert_eq!(rig.agent.cli(&["close", "1"]).await.code, Some(0));
    rig.agent.tunnel_ends("1").await;
    let waiting = wait_until("all of it waits", LONG, async || {
        Some(rig.agent.status().await["ocpp"]["reports"].take()).filter(|reports| reports["waiting"] == 5)
    })
    .await;
    assert_eq!(waiting["dropped"], 0);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;

    let back = chrono::Utc::now();
    rig.csms.resume().await;
    let events = events_until(&mut rig.csms, 3).await;
    let told: Vec<(&str, &str)> =
        events.iter().map(|(kind, text)| (kind.as_str(), text.split(' ').next().unwrap())).collect();
    assert_eq!(told, [("TunnelOpened", "slot=1"), ("TunnelOpened", "slot=2"), ("TunnelClosed", "slot=1")]);
    let states = states_until(&mut rig.csms, 2).await;
    let told: Vec<(&Value, &Value)> = states.iter().map(|state| (&state["slot"], &state["state"])).collect();
    assert_eq!(told, [(&json!(2), &json!("up")), (&json!(1), &json!("closed"))], "only the latest of each");

    let calls = rig.csms.calls("SecurityEventNotification").await;
    let times = calls.iter().map(|call| &call["timestamp"]).chain(states.iter().map(|state| &state["time"]));
    let times: Vec<chrono::DateTime<chrono::Utc>> =
        times.map(|time| time.as_str().unwrap().parse().unwrap()).collect();
    assert!(times[..3].is_sorted() && times[3..].is_sorted(), "{times:?}");
    assert!(times.iter().all(|time| *time < back - chrono::TimeDelta::seconds(1)), "{times:?} {back}");
    wait_until("nothing waits any more", LONG, async || {
        (rig.agent.status().await["ocpp"]["reports"]["waiting"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_csms_that_has_not_accepted_us_is_told_nothing_before_it_has() {
    let csms = Csms::start(Options { boot: "Pending", interval: 1, ..Options::default() }).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    let open = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(open.code, Some(0), "{open:?}");
    let boots = rig.csms.counts().await.boots;
    rig.csms.wait_for("boots", boots + 2).await;
    assert_eq!((events(&mut rig.csms).await, states(&mut rig.csms).await), (vec![], vec![]));

    rig.csms.answer_boot("Accepted", 300).await;
    let events = events_until(&mut rig.csms, 2).await;
    assert_eq!((events[0].0.as_str(), events[1].0.as_str()), ("StartupOfTheDevice", "TunnelOpened"));
    states_until(&mut rig.csms, 1).await;
}

#[tokio::test]
async fn a_reset_and_a_new_device_key_are_security_events() {
    let mut rig = Rig::start().await;
    events_until(&mut rig.csms, 1).await;
    let answer = rig.csms.call("Reset", json!({ "type": "Soft" })).await;
    assert_eq!(answer["answer"]["status"], "Accepted", "{answer}");
    rig.csms.wait_for("boots", 2).await;
    let told = events_until(&mut rig.csms, 2).await;
    assert_eq!(told[1], ("ResetOrReboot".to_owned(), "reset=soft".to_owned()));

    let rotate = rig.agent.cli(&["keys", "rotate"]).await;
    assert_eq!(rotate.code, Some(0), "{rotate:?}");
    // A running agent looks at its keys when it logs in.
    rig.open(1).await;
    let told = events_until(&mut rig.csms, 3).await;
    let key = told.iter().find(|(kind, _)| kind == "ReconfigurationOfSecurityParameters");
    assert!(key.is_some_and(|(_, text)| text.starts_with("sshKey=SHA256:")), "{told:?}");

    let new_key = "a new password of ours";
    assert_eq!(rig.csms.change("AuthorizationKey", new_key).await, "Accepted");
    let told = ("ReconfigurationOfSecurityParameters".to_owned(), "key=AuthorizationKey".to_owned());
    wait_until("the change is told", LONG, async || {
        events(&mut rig.csms).await.contains(&told).then_some(())
    })
    .await;
    assert!(!rig.csms.frames().await.concat().contains(new_key), "and the key isn't");
}

#[tokio::test]
async fn a_false_csms_and_a_wrong_password_are_told_to_the_right_one() {
    // Neither knows the other's authority.
    let mut csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let false_csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let urls = format!("url = ['{}', '{}']", false_csms.url(), csms.url());
    let agent = Agent::run(Setup::new().csms(&csms).ocpp(&urls)).await;
    let events = events_until(&mut csms, 2).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["StartupOfTheDevice", "InvalidCentralSystemCertificate"]);
    assert!(events[1].1.contains("the CSMS's certificate"), "{events:?}");

    let password = csms.options().password.clone().expect("it has one");
    csms.set_password(b"another password").await;
    csms.drop_connection().await;
    csms.wait_for("refused", 3).await;
    csms.set_password(&password).await;
    agent.link_is("accepted").await;
    let events = events_until(&mut csms, 4).await;
    tokio::time::sleep(SETTLED).await;
    let mut kinds: Vec<String> = events.into_iter().skip(2).map(|(kind, _)| kind).collect();
    kinds.sort_unstable();
    // Each once, though both were tried three times.
    assert_eq!(kinds, ["FailedToAuthenticateAtCentralSystem", "InvalidCentralSystemCertificate"]);
}

#[tokio::test]
async fn nothing_is_told_where_reports_are_off() {
    let mut rig = Rig::with(|setup| setup.ocpp("report = 'off'")).await;
    rig.open(1).await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    rig.agent.tunnel_ends("1").await;
    tokio::time::sleep(SETTLED).await;
    assert_eq!((events(&mut rig.csms).await, states(&mut rig.csms).await), (vec![], vec![]));
    assert_eq!(rig.agent.status().await["ocpp"]["reports"], json!(null));
}
