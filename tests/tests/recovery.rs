//! What happens when a part of it goes away, and when it comes back.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::Duration;

use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::{PAGE, Rig};
use ocpp_tunnel_tests::service::exchange;
use ocpp_tunnel_tests::{LONG, SHORT, ports, wait_until};
use serde_json::Value;

#[tokio::test]
async fn the_ssh_server_restarts_and_the_tunnel_comes_back() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.open(2).await;
    rig.echo_returns().await;

    rig.sshd.kill().await;
    wait_until("the agent notices", LONG, async || {
        (rig.agent.tunnel("1").await["state"] != "up").then_some(())
    })
    .await;
    let status = rig.agent.cli(&["status"]).await;
    assert_eq!(status.code, Some(3), "a wanted tunnel isn't up: {status:?}");

    rig.sshd.resume().await;
    rig.agent.tunnel_is("1", "up").await;
    rig.agent.tunnel_is("2", "up").await;
    rig.echo_returns().await;
    assert!(rig.fetch_page().await.ends_with(PAGE));
    assert_eq!(rig.csms.counts().await.connections, 1, "the CSMS saw nothing of it");
}

#[tokio::test]
async fn the_csms_restarts_and_the_tunnel_is_untouched() {
    let mut rig = Rig::start().await;
    rig.open(1).await;

    rig.csms.kill().await;
    rig.agent.link_is("backoff").await;
    assert!(rig.echoes().await);
    rig.csms.resume().await;
    rig.csms.wait_for("connections", 1).await;
    rig.agent.link_is("accepted").await;

    assert!(rig.echoes().await);
    assert_eq!(rig.sshd.connections(), 1, "{}", rig.sshd.log());
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, rig.sshd.destination());
    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    rig.port_is_free(1).await;
}

#[tokio::test]
async fn the_csms_closes_the_connection_and_is_called_again() {
    let mut rig = Rig::start().await;
    rig.csms.drop_connection().await;
    rig.csms.wait_for("connections", 2).await;
    rig.agent.link_is("accepted").await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, "");
}

#[tokio::test]
async fn a_wrong_password_is_tried_again_and_status_says_why() {
    let right = b"correct horse battery";
    let mut rig = {
        let csms = Csms::start(Options::default()).await;
        let mut rig = Rig::unstarted(csms, |setup| setup).await;
        rig.csms.set_password(b"something else").await;
        rig.agent.start().await;
        rig
    };
    let begin = std::time::Instant::now();
    rig.csms.wait_for("refused", 4).await;
    // 100 ms, 200 ms, 400 ms at least lie between four attempts.
    assert!(begin.elapsed() > Duration::from_millis(500), "there is a back-off: {:?}", begin.elapsed());
    assert_eq!(rig.csms.counts().await.connections, 0);

    let link = rig.agent.link_is("backoff").await;
    let error = link["last_error"].as_str().unwrap_or_default();
    assert!(error.contains("credentials") || error.contains("password"), "{link}");
    let words = rig.agent.cli(&["status"]).await;
    assert!(words.stdout.contains(error), "people are told as well: {words:?}");

    rig.csms.set_password(right).await;
    rig.csms.wait_for("boots", 1).await;
    let link = rig.agent.link_is("accepted").await;
    assert_eq!(link["last_error"], Value::Null, "{link}");
}

#[tokio::test]
async fn an_unknown_identity_is_tried_again_and_status_says_why() {
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, |setup| setup.ocpp("identity = 'CP 002/ä'")).await;
    rig.agent.start().await;
    rig.csms.wait_for("refused", 2).await;
    let link = rig.agent.link_is("backoff").await;
    assert!(link["last_error"].as_str().unwrap_or_default().contains("unknown charge point"), "{link}");
}

#[tokio::test]
async fn an_identity_with_a_space_finds_its_way() {
    let csms = Csms::start(Options { identity: "RDAM 123".into(), ..Options::default() }).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    rig.agent.start().await;
    rig.csms.wait_for("boots", 1).await;
    rig.agent.link_is("accepted").await;
}

#[tokio::test]
async fn sigterm_leaves_no_port_held_and_exits_0() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.open(2).await;

    let status = rig.agent.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", rig.agent.log());
    rig.port_is_free(1).await;
    rig.port_is_free(2).await;
    assert!(!rig.agent.runtime_dir().join("control.sock").exists(), "the socket is cleaned up");
    let none = rig.agent.cli(&["status"]).await;
    assert_eq!(none.code, Some(10), "{none:?}");
    assert!(rig.sshd.log().contains("Received disconnect from 127.0.0.1"), "{}", rig.sshd.log());
}

#[tokio::test]
async fn what_was_wanted_is_back_after_sigkill() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let expires = rig.agent.tunnel("1").await["expires"].clone();
    rig.agent.kill().await;
    rig.port_is_free(1).await;

    rig.agent.start().await;
    let tunnel = rig.agent.tunnel_is("1", "up").await;
    assert_eq!(tunnel["server"], rig.sshd.destination());
    rig.echo_returns().await;
    let (before, after) = (seconds(&expires), seconds(&tunnel["expires"]));
    assert!(before.abs_diff(after) <= 2, "its time limit runs on: {expires}, {}", tunnel["expires"]);
    assert!(!ports::answers(rig.remote[1]), "nothing else was wanted");
}

#[tokio::test]
async fn what_was_wanted_is_back_after_a_restart_and_what_was_closed_is_not() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.open(2).await;
    assert_eq!(rig.csms.change("InvokeCustomScript2", "").await, "Accepted");
    rig.port_is_free(2).await;

    assert!(rig.agent.terminate().await.success());
    rig.agent.start().await;
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
    tokio::time::sleep(SHORT).await;
    assert!(!ports::answers(rig.remote[1]));
}

#[tokio::test]
async fn a_reboot_forgets_what_was_wanted() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.agent.kill().await;
    rig.port_is_free(1).await;

    let file = rig.agent.runtime_dir().join("wanted.json");
    let mut wanted: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(wanted["boot_id"].is_string(), "{wanted}");
    wanted["boot_id"] = "00000000-0000-4000-8000-000000000000".into();
    std::fs::write(&file, wanted.to_string()).unwrap();

    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    tokio::time::sleep(SHORT).await;
    assert!(!ports::answers(rig.remote[0]));
    assert_eq!(rig.sshd.connections(), 1);
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, "");
}

#[tokio::test]
async fn a_damaged_file_of_wanted_tunnels_does_not_keep_the_agent_down() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.agent.kill().await;
    std::fs::write(rig.agent.runtime_dir().join("wanted.json"), b"{\"boot_id\": \xff").unwrap();
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
}

#[tokio::test]
async fn a_tunnel_waits_for_a_server_that_is_down_and_comes_up_with_it() {
    let mut rig = Rig::start().await;
    rig.sshd.kill().await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    let tunnel = wait_until("the agent waits", LONG, async || {
        let tunnel = rig.agent.tunnel("1").await;
        (tunnel["state"] == "backoff" && tunnel["retry_at"].is_string()).then_some(tunnel)
    })
    .await;
    assert!(tunnel["last_error"].is_string(), "{tunnel}");
    rig.sshd.resume().await;
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_noticed_and_the_tunnel_comes_back() {
    let mut rig = Rig::with(|setup| setup.ssh("keepalive_interval = '1s'").ssh("keepalive_max = 2")).await;
    rig.open(1).await;
    rig.sshd.freeze();
    wait_until("the agent notices", LONG, async || {
        (rig.agent.tunnel("1").await["state"] != "up").then_some(())
    })
    .await;
    rig.sshd.thaw();
    // The server still holds the port for the dead session, until its own keepalive ends that.
    let up = wait_until("the tunnel is back", LONG * 3, async || {
        let tunnel = rig.agent.tunnel("1").await;
        (tunnel["state"] == "up").then_some(tunnel)
    })
    .await;
    assert_eq!(up["server"], rig.sshd.destination());
    rig.echo_returns().await;
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_does_not_hold_the_tunnel_up() {
    let mut rig = Rig::with(|setup| setup.ssh("keepalive_interval = '1s'").ssh("keepalive_max = 2")).await;
    // The kernel goes on accepting connections for it.
    rig.sshd.freeze();
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    rig.agent.tunnel_is("1", "backoff").await;
    rig.sshd.thaw();
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn a_csms_that_falls_silent_is_noticed() {
    let mut rig = Rig::with(|setup| setup.ocpp("ping_interval = '1s'")).await;
    rig.open(1).await;
    rig.csms.freeze();
    wait_until("the agent gives the link up", LONG * 2, async || {
        (rig.agent.status().await["ocpp"]["state"] != "accepted").then_some(())
    })
    .await;
    assert!(rig.echoes().await);
    rig.csms.thaw();
    rig.csms.wait_for("connections", 2).await;
    rig.agent.link_is("accepted").await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, rig.sshd.destination());
}

#[tokio::test]
async fn heartbeats_keep_the_interval_that_the_csms_wants() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.csms.counts().await.heartbeats, 0);
    assert_eq!(rig.csms.change("HeartbeatInterval", "1").await, "Accepted");
    rig.csms.wait_for("heartbeats", 2).await;
    assert_eq!(rig.csms.counts().await.connections, 1);
}

#[tokio::test]
async fn a_port_that_somebody_else_holds_is_asked_for_until_it_is_free() {
    let mut rig = Rig::start().await;
    let holder = std::net::TcpListener::bind(("127.0.0.1", rig.remote[0])).unwrap();
    let holder6 = std::net::TcpListener::bind(("::1", rig.remote[0]));
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    wait_until("the agent has asked for the port", LONG, async || {
        rig.sshd.log().contains("Address already in use").then_some(())
    })
    .await;
    assert_ne!(rig.agent.tunnel("1").await["state"], "up");
    drop((holder, holder6));
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn big_things_pass_both_ways_unharmed() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let sent = numbers();
    let received =
        tokio::time::timeout(LONG, exchange(rig.remote[0], &sent)).await.expect("in time").unwrap();
    assert!(received == sent, "{} of {} bytes came back, or other ones", received.len(), sent.len());
}

/// Three megabytes, more than the windows and buffers on the way hold.
fn numbers() -> Vec<u8> {
    (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

#[tokio::test]
async fn a_connection_that_stalls_holds_up_no_other() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    // Written to, and never read from.
    let stalled = tokio::net::TcpStream::connect(("127.0.0.1", rig.remote[0])).await.unwrap();
    let chunk = vec![7; 1 << 20];
    let mut blocked = false;
    for _ in 0..64 {
        let write = write_some(&stalled, &chunk);
        if tokio::time::timeout(Duration::from_millis(300), write).await.is_err() {
            blocked = true;
            break;
        }
    }
    assert!(blocked, "64 MB without a reader: somebody keeps them in memory");

    let sent = numbers();
    let received = tokio::time::timeout(LONG, exchange(rig.remote[0], &sent)).await;
    assert!(received.expect("the other connection isn't held up").unwrap() == sent);
}

async fn write_some(stream: &tokio::net::TcpStream, bytes: &[u8]) {
    let mut written = 0;
    while written < bytes.len() {
        stream.writable().await.unwrap();
        match stream.try_write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// An RFC 3339 time as seconds of its day, near enough for a difference of seconds.
fn seconds(time: &Value) -> u32 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let clock = text.split('T').nth(1).unwrap().get(..8).unwrap();
    clock.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u32>().unwrap())
}
