//! Triggers over OCPP: the CSMS asks, tunnels open, move and close.

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::{PAGE, Rig};
use ocpp_tunnel_tests::service::{Service, fetch};
use ocpp_tunnel_tests::ssh::Person;
use ocpp_tunnel_tests::sshd::{ACCOUNT, Sshd};
use ocpp_tunnel_tests::{LONG, SHORT, ports, wait_until};
use serde_json::json;

/// With the default ports and the defaults of every policy, so that the link has to be TLS with a password.
#[tokio::test]
async fn a_trigger_opens_1111_and_a_person_logs_in_to_the_controller_through_it() {
    let mut csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let (server, controller) = (Sshd::start().await, Sshd::start().await);
    let page = Service::page(PAGE).await;
    assert!(ports::is_free(1111) && ports::is_free(1112), "this story needs the ports 1111 and 1112");
    let setup = Setup::new()
        .csms(&csms)
        .pin(&server.known_hosts_line())
        .allow(&server.destination())
        .script(1, 1111, &controller.address())
        .script(2, 1112, &page.address());
    let agent = Agent::run(setup).await;
    server.authorize(&agent.authorized_keys_line().await);
    csms.wait_for("boots", 1).await;
    let link = agent.link_is("accepted").await;
    assert_eq!(link["profile"], 2);

    assert_eq!(csms.change("InvokeCustomScript1", &server.destination()).await, "Accepted");
    agent.tunnel_is("1", "up").await;
    let person = Person::new().await;
    controller.authorize(&person.public_line());
    let login = person.runs("echo logged in as $(id -un)", ACCOUNT, 1111, controller.host_key()).await;
    assert_eq!(login.stdout.trim(), format!("logged in as {ACCOUNT}"), "{login:?}");

    assert_eq!(csms.change("InvokeCustomScript2", &server.destination()).await, "Accepted");
    agent.tunnel_is("2", "up").await;
    assert!(fetch(1112).await.unwrap().ends_with(PAGE));

    // Each over a connection of its own, so that a busy one can't hold up the other.
    assert_eq!(server.logins(), 2);
    let status = agent.cli(&["status"]).await;
    assert_eq!(status.code, Some(0), "{status:?}");
}

#[tokio::test]
async fn status_and_configuration_keys_tell_what_is_open() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, "");
    rig.open(1).await;
    rig.echo_returns().await;

    let tunnel = rig.agent.tunnel("1").await;
    assert_eq!(tunnel["state"], "up");
    assert_eq!(tunnel["server"], rig.sshd.destination());
    assert_eq!(tunnel["forwards"][0]["remote"], format!("localhost:{}", rig.remote[0]));
    assert_eq!(tunnel["forwards"][0]["local"], rig.echo.address());
    assert!(tunnel["since"].is_string() && tunnel["expires"].is_string(), "{tunnel}");
    assert_eq!(tunnel["reason"], json!(null));
    wait_until("the bytes are counted", LONG, async || {
        let tunnel = rig.agent.tunnel("1").await;
        (tunnel["bytes_in"] == 14 && tunnel["bytes_out"] == 14).then_some(())
    })
    .await;

    assert_eq!(rig.csms.value("InvokeCustomScript1").await, rig.sshd.destination());
    assert_eq!(rig.csms.value("invokecustomscript2").await, "");
    let status = rig.csms.value("InvokeCustomScript1Status").await;
    assert_eq!(status.split(' ').next(), Some("up"), "{status}");
    assert!(status.contains(&format!("server={}", rig.sshd.destination())), "{status}");
    assert!(status.contains(&format!("remote=localhost:{}", rig.remote[0])), "{status}");
    assert!(status.contains(" since=") && status.contains(" expires="), "{status}");
    assert!(status.chars().count() <= 500);
}

#[tokio::test]
async fn script_2_serves_a_page_and_script_1_is_untouched_by_it() {
    let mut rig = Rig::start().await;
    rig.open(2).await;
    let answer = rig.fetch_page().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(PAGE), "{answer}");
    assert_eq!(rig.page.connections(), 1);
    assert!(!ports::answers(rig.remote[0]), "nobody asked for script 1");
}

#[tokio::test]
async fn keys_are_matched_without_regard_to_case() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.csms.change("invokecustomscript1", &rig.sshd.destination()).await, "Accepted");
    rig.agent.tunnel_is("1", "up").await;
    assert_eq!(rig.csms.change("INVOKECUSTOMSCRIPT1", "").await, "Accepted");
    rig.port_is_free(1).await;
}

#[tokio::test]
async fn another_destination_replaces_the_first() {
    let other = Sshd::start().await;
    let mut rig = Rig::with(|setup| setup.pin(&other.known_hosts_line()).allow(&other.destination())).await;
    rig.authorize(&other).await;
    rig.open(1).await;

    assert_eq!(rig.csms.change("InvokeCustomScript1", &other.destination()).await, "Accepted");
    wait_until("the tunnel is at the other server", LONG, async || {
        let tunnel = rig.agent.tunnel("1").await;
        (tunnel["state"] == "up" && tunnel["server"] == other.destination()).then_some(())
    })
    .await;
    rig.echo_returns().await;
    assert_eq!((rig.sshd.logins(), other.logins()), (1, 1));
    wait_until("the first server saw the connection end", LONG, async || {
        rig.sshd.log().contains("Disconnected from user").then_some(())
    })
    .await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, other.destination());
}

#[tokio::test]
async fn the_same_destination_keeps_the_connection_and_starts_the_time_limit_anew() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let before = rig.agent.tunnel("1").await;
    // Times in status are whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;

    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    let after = wait_until("the time limit starts anew", LONG, async || {
        let tunnel = rig.agent.tunnel("1").await;
        (tunnel["expires"].as_str() > before["expires"].as_str()).then_some(tunnel)
    })
    .await;
    assert_eq!(after["state"], "up");
    assert_eq!(after["since"], before["since"]);
    assert_eq!(rig.sshd.connections(), 1, "{}", rig.sshd.log());
    rig.echo_returns().await;
}

#[tokio::test]
async fn a_repeated_trigger_during_back_off_tries_at_once() {
    let mut rig =
        Rig::with(|setup| setup.ssh("backoff_minimum = '10m'").ssh("backoff_maximum = '15m'")).await;
    rig.sshd.kill().await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    // With full jitter a first pause may be short, but five in a row are not.
    rig.agent.tunnel_is("1", "backoff").await;
    rig.sshd.resume().await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    rig.agent.tunnel_is("1", "up").await;
}

#[tokio::test]
async fn an_empty_value_closes() {
    closes_with("").await;
}

#[tokio::test]
async fn the_value_close_closes() {
    closes_with("close").await;
}

async fn closes_with(value: &str) {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.open(2).await;
    rig.echo_returns().await;

    assert_eq!(rig.csms.change("InvokeCustomScript1", value).await, "Accepted");
    rig.port_is_free(1).await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("ocpp"));
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, "");
    assert!(rig.fetch_page().await.ends_with(PAGE), "the other tunnel stays");

    // Once more, with nothing there to close.
    assert_eq!(rig.csms.change("InvokeCustomScript1", value).await, "Accepted");
    rig.open(1).await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn spaces_around_a_destination_are_no_mistake() {
    let mut rig = Rig::start().await;
    let padded = format!("  {} ", rig.sshd.destination());
    assert_eq!(rig.csms.change("InvokeCustomScript1", &padded).await, "Accepted");
    rig.agent.tunnel_is("1", "up").await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, rig.sshd.destination());
}

#[tokio::test]
async fn read_only_keys_are_rejected_and_unknown_ones_not_supported() {
    let mut rig = Rig::start().await;
    for key in
        ["InvokeCustomScript1Status", "invokecustomscript2status", "SSHClientKey", "NumberOfConnectors"]
    {
        assert_eq!(rig.csms.change(key, "1").await, "Rejected", "{key}");
    }
    for key in ["InvokeCustomScript3", "InvokeCustomScript11", "NoSuchKey"] {
        assert_eq!(rig.csms.change(key, &rig.sshd.destination()).await, "NotSupported", "{key}");
    }
    tokio::time::sleep(SHORT).await;
    assert_eq!(rig.sshd.connections(), 0);
}

#[tokio::test]
async fn get_configuration_lists_our_keys_beside_the_standard_ones() {
    let mut rig = Rig::start().await;
    let all = rig.csms.get(&[]).await;
    let entry = |name: &str| {
        let entries = all["configuration_key"].as_array().into_iter().flatten();
        entries
            .into_iter()
            .find(|entry| entry["key"] == name)
            .unwrap_or_else(|| panic!("{name} isn't in {all}"))
    };
    for name in ["InvokeCustomScript1", "InvokeCustomScript2", "HeartbeatInterval", "WebSocketPingInterval"] {
        assert_eq!(entry(name)["readonly"], false, "{name}");
    }
    for name in
        ["InvokeCustomScript1Status", "InvokeCustomScript2Status", "SSHClientKey", "NumberOfConnectors"]
    {
        assert_eq!(entry(name)["readonly"], true, "{name}");
    }

    let some = rig.csms.get(&["sshclientkey", "NoSuchKey"]).await;
    assert_eq!(some["unknown_key"], json!(["NoSuchKey"]));
    let keys_show = rig.agent.cli(&["keys", "show"]).await;
    assert_eq!(keys_show.code, Some(0), "{keys_show:?}");
    assert!(keys_show.stdout.starts_with("ssh-ed25519 AAAA"), "{keys_show:?}");
    assert_eq!(some["configuration_key"][0]["value"], keys_show.stdout.trim_end());
    assert_eq!(entry("SSHClientKey")["value"], keys_show.stdout.trim_end());
}

#[tokio::test]
async fn actions_that_we_do_not_have_are_told_apart_from_unknown_ones() {
    let mut rig = Rig::start().await;
    let known = rig.csms.call("GetLocalListVersion", json!({})).await;
    assert_eq!(known["error"]["code"], "NotSupported", "{known}");
    let unknown = rig.csms.raw(r#"[2,"17","MakeCoffee",{}]"#, SHORT).await;
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    let error: serde_json::Value = serde_json::from_str(&unknown[0]).unwrap();
    assert_eq!((&error[0], &error[1], &error[2]), (&json!(4), &json!("17"), &json!("NotImplemented")));
    assert!(error[3].is_string() && error[4].is_object(), "{error}");
}

#[tokio::test]
async fn frames_that_make_no_sense_harm_nothing() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let long_id = "x".repeat(37);
    let deep = format!(r#"[2,"9","GetConfiguration",{}{}]"#, "[".repeat(5000), "]".repeat(5000));
    for text in [
        "",
        "{}",
        "[]",
        "[9,1]",
        r#"[2,5,"GetConfiguration",{}]"#,
        &format!(r#"[2,"{long_id}","GetConfiguration",{{}}]"#),
        r#"[3,"never asked",{}]"#,
        &deep,
    ] {
        let answers = rig.csms.raw(text, std::time::Duration::from_millis(100)).await;
        assert!(answers.iter().all(|answer| answer.starts_with("[4,")), "{text:.60}: {answers:?}");
    }
    let formation = rig.csms.raw(r#"[2,"21","ChangeConfiguration",{"key":7}]"#, SHORT).await;
    assert!(formation.iter().any(|answer| answer.starts_with(r#"[4,"21""#)), "{formation:?}");
    rig.echo_returns().await;
    assert_eq!(rig.csms.counts().await.connections, 1, "the link lived through it");
}

#[tokio::test]
async fn the_vendors_lines_and_short_syslog_messages_are_written() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let destination = rig.sshd.destination();
    let syslog = rig.agent.syslog();
    syslog.line_with(&format!("Ebee custom script invoked with parameter {destination}")).await;
    syslog.line_with("Ebee custom script invocation completed").await;
    let up = syslog.line_with("tunnel-up ").await;
    assert!(up.contains("slot=1") && up.contains(&format!("server={destination}")), "{up}");

    let evil = format!("support@host$(reboot)\n\u{1b}[31m{}", "x".repeat(300));
    assert_eq!(rig.csms.change("InvokeCustomScript1", &evil).await, "Rejected");
    let syslog = rig.agent.syslog();
    syslog.line_with("Ebee custom script not invoked: Argument does not match user@domain").await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    rig.port_is_free(1).await;

    for line in rig.agent.syslog().lines() {
        assert!(line.len() < 200, "{} bytes: {line}", line.len());
        assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "not escaped: {line:?}");
        // RFC 3164: facility daemon (3), a time, the tag.
        let priority: u8 =
            line.strip_prefix('<').and_then(|rest| rest.split('>').next()?.parse().ok()).unwrap();
        assert_eq!(priority / 8, 3, "{line}");
        assert!(line.contains(" ocpp-tunnel"), "{line}");
        assert!(!line.contains("$(reboot)"), "what can't be parsed isn't repeated as a parameter: {line}");
    }
}
