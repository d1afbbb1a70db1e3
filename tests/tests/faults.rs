//! Peers and networks that die, hang or forget, at every stage: noticed in time, told truthfully, and nothing is left over.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]
#![allow(clippy::print_stdout, reason = "what was measured, for who asks with --nocapture or sees it fail")]

use std::time::Duration;

use nix::sys::signal::Signal;
use ocpp_tunnel_tests::engine::Engine;
use ocpp_tunnel_tests::halting::Halting;
use ocpp_tunnel_tests::network::Network;
use ocpp_tunnel_tests::process::signal_tree;
use ocpp_tunnel_tests::service::{Manner, Service, behave, round_trip};
use ocpp_tunnel_tests::sshd::{ACCOUNT, Sshd};
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// `keepalive_interval × keepalive_max` of these stories, and two seconds.
const NOTICED: Duration = Duration::from_secs(3 + 2);
/// What a busy machine needs to show it.
const SHOWN: Duration = Duration::from_millis(500);

async fn impatient_in_network() -> Engine {
    Engine::in_network(|setup| setup.ssh("keepalive_interval = '1s'").ssh("keepalive_max = 3")).await
}

/// Waits for the loss of a tunnel that is up, which may not take longer than promised.
async fn is_noticed_in_time(engine: &Engine) {
    let began = Instant::now();
    engine.notices(NOTICED + SHOWN).await;
    println!("noticed after {:?}", began.elapsed());
    let tunnel = engine.tunnel().await;
    assert!(tunnel["last_error"].is_string(), "{tunnel}");
}

/// What it is, how it begins, how it ends.
type Cut = (&'static str, fn(&Network), fn(&Network));

#[tokio::test]
async fn a_pulled_cable_and_lost_packets_and_a_forgetful_nat_are_noticed_in_time() {
    let engine = impatient_in_network().await;
    let network = engine.network.as_ref().unwrap();
    engine.open().await;
    let cuts: [Cut; 3] = [
        ("a pulled cable", Network::pull, Network::plug),
        ("lost packets", Network::drop_packets, Network::pass),
        ("a forgetful NAT", Network::forget, Network::pass),
    ];
    for (what, cut, mend) in cuts {
        assert!(engine.works().await, "before {what}");
        cut(network);
        is_noticed_in_time(&engine).await;
        mend(network);
        engine.comes_back().await;
        wait_until("it says so", LONG, async || (engine.tunnel().await["state"] == "up").then_some(())).await;
    }
}

#[tokio::test]
async fn a_dead_peer_is_noticed_in_time_while_the_agent_writes() {
    let engine = impatient_in_network().await;
    let network = engine.network.as_ref().unwrap();
    engine.open().await;
    let sent = async || engine.tunnel().await["bytes_out"].as_u64().unwrap();
    for frozen in [false, true] {
        let before = sent().await;
        let mut flood = behave(engine.remote, Manner::Flood).await.unwrap();
        let flowing = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            let mut all = 0;
            while let Ok(Ok(read @ 1..)) = timeout(LONG, flood.read(&mut buffer)).await {
                all += read;
            }
            all
        });
        wait_until("much is flowing", LONG, async || (sent().await > before + 10_000_000).then_some(()))
            .await;
        let sessions = engine.sshd.sessions();
        if frozen {
            // Its kernel still acknowledges what we send, until no more fits.
            sessions.iter().for_each(|pid| signal_tree(*pid, Signal::SIGSTOP));
        } else {
            network.drop_packets();
        }
        is_noticed_in_time(&engine).await;
        network.pass();
        sessions.iter().for_each(|pid| signal_tree(*pid, Signal::SIGKILL));
        engine.comes_back().await;
        assert!(flowing.await.unwrap() > 1_000_000);
    }
}

/// A server that falls silent after any of its messages, from none to its answer to the forward request.
#[tokio::test]
async fn a_server_that_falls_silent_is_noticed_in_time_at_every_stage_of_the_handshake() {
    let engine = Engine::start(|setup| {
        setup.ssh("keepalive_interval = '1s'").ssh("keepalive_max = 3").ssh("host_key_policy = 'accept-new'")
    })
    .await;
    let whole = bytes_of_a_handshake(&engine).await;
    // The banner has some 40 bytes and KEXINIT more than a thousand; the last messages have less than a hundred each.
    let stages = [0, 10, 45, 700, whole - 500, whole - 200, whole - 90, whole - 10];
    let mut relays = Vec::new();
    for limit in stages {
        let relay = Halting::silent_after(engine.sshd.port(), limit).await;
        let id = open_by(&engine, relay.port()).await;
        relays.push((relay, id, limit));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut open: Vec<usize> = (0..relays.len()).collect();
    while !open.is_empty() {
        let status = engine.agent.status().await;
        open.retain(|index| {
            let (relay, id, limit) = &relays[*index];
            let tunnels = status["tunnels"].as_array().unwrap();
            let tunnel = tunnels.iter().find(|tunnel| tunnel["id"] == **id).unwrap();
            if tunnel["last_error"].is_string() {
                println!("after {limit} bytes: {}", tunnel["last_error"]);
                return false;
            }
            seen.insert(tunnel["state"].as_str().unwrap().to_owned());
            assert_ne!(tunnel["state"], "up", "after {limit} bytes of {whole}");
            let silent = relay.silent_since().map(|since| since.elapsed()).unwrap_or_default();
            assert!(silent < NOTICED + SHOWN, "after {limit} bytes, in silence for {silent:?}: {tunnel}");
            true
        });
        sleep(Duration::from_millis(50)).await;
    }
    println!("seen: {seen:?}");
    for state in ["verifying", "authenticating", "forwarding"] {
        assert!(seen.contains(state), "{state} is among {seen:?}");
    }
}

/// Opens a tunnel of its own through a relay in front of the server; gives its id.
async fn open_by(engine: &Engine, port: u16) -> String {
    let forward = format!("{}:{}", ports::free(), engine.service.address());
    let destination = format!("{ACCOUNT}@127.0.0.1:{port}");
    let opened = engine.agent.cli(&["open", &destination, "--forward", &forward]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let status = engine.agent.status().await;
    let tunnels = status["tunnels"].as_array().unwrap();
    let tunnel = tunnels.iter().find(|tunnel| tunnel["server"] == destination.as_str());
    tunnel.unwrap()["id"].as_str().unwrap().to_owned()
}

/// How many bytes the server sends until a tunnel is up.
async fn bytes_of_a_handshake(engine: &Engine) -> u64 {
    let relay = Halting::silent_after(engine.sshd.port(), u64::MAX).await;
    let id = open_by(engine, relay.port()).await;
    engine.agent.tunnel_is(&id, "up").await;
    let passed = relay.passed();
    engine.agent.cli(&["close", &id]).await;
    passed
}

#[tokio::test]
async fn fifty_failed_attempts_leave_no_descriptor_behind() {
    let engine = Engine::start(|setup| {
        setup
            .ssh("keepalive_interval = '100ms'")
            .ssh("keepalive_max = 3")
            .ssh("backoff_maximum = '200ms'")
            .ssh("host_key_policy = 'accept-new'")
    })
    .await;
    let whole = bytes_of_a_handshake(&engine).await;
    let before = engine.figures();
    let server = engine.sshd.port();
    let mut relays = Vec::new();
    for limit in [0, 700, whole - 200, whole - 10] {
        relays.push(Halting::silent_after(server, limit).await);
        relays.push(Halting::hangs_up_after(server, limit).await);
    }
    for relay in &relays {
        open_by(&engine, relay.port()).await;
    }
    wait_until("fifty attempts have failed", LONG * 2, async || {
        let attempts: usize = relays.iter().map(Halting::connections).sum();
        (attempts > 50 + relays.len() && relays.iter().all(|relay| relay.connections() > 3)).then_some(())
    })
    .await;
    let closed = engine.agent.cli(&["close", "--all"]).await;
    assert_eq!(closed.code, Some(0), "{closed:?}");
    engine.has_descriptors(before.descriptors).await;
    let after = engine.figures();
    println!("before {before:?}, after {after:?}");
    assert!(after.grown_kib(&before) < 4096, "{before:?}, {after:?}");
}

#[tokio::test]
async fn a_port_that_our_own_dead_session_holds_is_asked_for_until_the_server_frees_it() {
    let engine = Engine::start(|setup| setup.ssh("keepalive_interval = '1s'").ssh("keepalive_max = 2")).await;
    engine.open().await;
    // The process that serves us hangs with our port, and the one that accepts doesn't.
    let dead = engine.sshd.sessions();
    dead.iter().for_each(|pid| signal_tree(*pid, Signal::SIGSTOP));
    engine.notices(LONG).await;
    let refused = wait_until("the port is refused", LONG, async || {
        let tunnel = engine.tunnel().await;
        (tunnel["state"] == "forwarding" && tunnel["retry_at"].is_string()).then_some(tunnel)
    })
    .await;
    assert!(refused["last_error"].as_str().unwrap().contains("refused to listen"), "{refused}");
    engine.agent.syslog().line_with("forward-refused").await;
    let logins = engine.sshd.logins();
    let asked = || engine.sshd.log().matches("Address already in use").count();
    let before = asked();
    wait_until("it asks again", LONG, async || (asked() > before).then_some(())).await;
    assert_eq!(engine.sshd.logins(), logins, "on the same connection");
    assert_eq!(engine.agent.cli(&["status"]).await.code, Some(3));

    dead.into_iter().for_each(|pid| signal_tree(pid, Signal::SIGKILL));
    engine.agent.tunnel_is("1", "up").await;
    assert_eq!(engine.sshd.logins(), logins);
    assert!(engine.works().await);
}

#[tokio::test]
#[ignore = "soak: two minutes"]
async fn a_port_that_stays_held_ends_the_tunnel_after_two_minutes_with_advice_for_the_server() {
    let engine = Engine::start(|setup| setup).await;
    let holder = std::net::TcpListener::bind(("127.0.0.1", engine.remote)).unwrap();
    let holder6 = std::net::TcpListener::bind(("::1", engine.remote));
    let opened = engine.agent.cli(&["open", &engine.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(9), "{opened:?}");
    assert!(opened.stderr.contains("ClientAliveInterval"), "{opened:?}");
    let began = Instant::now();
    let closed = wait_until("it gives up", Duration::from_secs(150), async || {
        let tunnel = engine.tunnel().await;
        (tunnel["state"] == "closed").then_some(tunnel)
    })
    .await;
    assert!(began.elapsed() > Duration::from_secs(110), "{:?}", began.elapsed());
    assert_eq!(closed["reason"], "forward-refused", "{closed}");
    assert!(engine.agent.log().contains("ClientAliveInterval"), "the log has the cure");
    drop((holder, holder6));
}

#[tokio::test]
async fn a_tunnel_that_waits_for_the_one_before_it_is_not_called_idle() {
    let engine = Engine::start(|setup| setup).await;
    let other = Sshd::start().await;
    engine.open().await;
    // Its goodbye takes the two seconds that it is given.
    engine.sshd.freeze();
    let opened = engine.agent.cli(&["open", &other.destination(), "--script", "1"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let tunnel = engine.tunnel().await;
    assert_eq!(tunnel["state"], "connecting", "{tunnel}");
    assert_eq!(tunnel["server"], other.destination(), "{tunnel}");
    assert_eq!(engine.agent.cli(&["status"]).await.code, Some(3), "what is wanted isn't up");

    let began = Instant::now();
    let closed = engine.agent.cli(&["close", "1"]).await;
    assert_eq!(closed.code, Some(0), "{closed:?}");
    let tunnel = engine.tunnel().await;
    assert_eq!((&tunnel["state"], &tunnel["reason"]), (&"closed".into(), &"user".into()), "{tunnel}");
    println!("closed after {:?}", began.elapsed());
    assert_eq!(other.connections(), 0, "it was closed before its turn");
    // The goodbye has been sent, and waits for the server to wake up.
    engine.sshd.thaw();
    wait_until("the port is free", LONG, async || ports::is_free(engine.remote).then_some(())).await;
}

#[tokio::test]
async fn a_tunnel_that_nobody_uses_closes_after_its_idle_timeout() {
    let engine = Engine::start(|setup| setup.policy("idle_timeout = '2s'")).await;
    engine.open().await;
    let mut stream = behave(engine.remote, Manner::Echo).await.unwrap();
    round_trip(&mut stream).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    round_trip(&mut stream).await.expect("a silent connection is a connection");
    assert_eq!(engine.tunnel().await["state"], "up");
    drop(stream);
    let began = Instant::now();
    assert_eq!(engine.agent.tunnel_ends("1").await.as_deref(), Some("idle"));
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    wait_until("the port is free", LONG, async || ports::is_free(engine.remote).then_some(())).await;
    assert_eq!(engine.agent.cli(&["status"]).await.code, Some(0), "nothing is wanted any more");
}

#[tokio::test]
async fn a_server_with_an_ipv6_address_is_reached() {
    let sshd = Sshd::start_at(std::net::Ipv6Addr::LOCALHOST.into(), "").await;
    assert!(sshd.destination().starts_with("support@[::1]:"), "{}", sshd.destination());
    let engine = Engine::with(sshd, Service::wayward().await, None, |setup| setup).await;
    engine.open().await;
    assert!(engine.works().await);
    assert_eq!(engine.tunnel().await["server"], engine.sshd.destination());
}

#[tokio::test]
async fn a_syslog_that_restarts_is_found_again_and_told_what_it_missed() {
    let mut engine = Engine::start(|setup| setup).await;
    engine.open().await;
    engine.agent.syslog().line_with("tunnel-up").await;
    engine
        .agent
        .restart_syslog(async |agent| {
            assert_eq!(agent.cli(&["close", "1"]).await.code, Some(0));
        })
        .await;
    engine.open().await;
    let syslog = engine.agent.syslog();
    syslog.line_with("tunnel-up").await;
    syslog.line_with("log-dropped lines=").await;
    assert_eq!(syslog.count("tunnel-close-requested"), 0, "that was in between");
    assert!(engine.agent.log().contains("tunnel-close-requested"), "the other log has it");
}

#[tokio::test]
#[ignore = "soak: a minute"]
async fn open_that_waits_too_long_exits_11_and_the_tunnel_goes_on() {
    let engine = Engine::start(|setup| setup).await;
    // The kernel accepts, and nobody answers; with 60 s x 3 the agent has more patience than the command line.
    engine.sshd.freeze();
    let mut open = engine.agent.command(&["open", &engine.sshd.destination(), "--wait"]);
    let output = timeout(LONG * 3, open.output()).await.expect("it gives up").unwrap();
    assert_eq!(output.status.code(), Some(11), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("verifying") && words.contains("keeps trying"), "{words}");
    engine.sshd.thaw();
    engine.comes_back().await;
}

#[tokio::test]
async fn a_service_learns_that_the_tunnel_broke_off_and_does_not_take_it_for_the_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap().to_string();
    let engine = Engine::start(|setup| setup).await;
    let remote = ports::free();
    let forward = format!("{remote}:{local}");
    let opened =
        engine.agent.cli(&["open", &engine.sshd.destination(), "--forward", &forward, "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let mut client = TcpStream::connect(("127.0.0.1", remote)).await.unwrap();
    let (mut service, _) = listener.accept().await.unwrap();
    client.write_all(b"half of it").await.unwrap();
    service.read_exact(&mut [0; 10]).await.unwrap();
    engine.sshd.kill_sessions();
    let end = timeout(LONG, service.read(&mut [0; 8])).await.expect("it hears of it");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
