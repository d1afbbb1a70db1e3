//! How tunnels get out of a site: a server's other ports, its other addresses, an HTTP proxy, and a network that returns.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::network::Network;
use ocpp_tunnel_tests::proxy::{HttpProxy, Rules};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::service::{Service, exchange};
use ocpp_tunnel_tests::sshd::{ACCOUNT, Sshd};
use ocpp_tunnel_tests::{LONG, SHORT, ports, process, wait_until};
use serde_json::Value;
use tokio::net::TcpListener;

/// An agent without OCPP that publishes `local` at `remote` by script 1.
fn setup(remote: u16, local: &str) -> Setup {
    Setup::new().ocpp("mode = 'off'").script(1, remote, local)
}

async fn start(setup: Setup, sshd: &Sshd) -> Agent {
    let agent = Agent::run(setup).await;
    sshd.authorize(&agent.authorized_keys_line().await);
    agent
}

async fn open(agent: &Agent, destination: &str) {
    let output = agent.cli(&["open", destination]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
}

async fn fails_with(agent: &Agent, part: &str) -> Value {
    wait_until(&format!("the error {part:?}"), LONG, async || {
        let tunnel = agent.tunnel("1").await;
        tunnel["last_error"].as_str().is_some_and(|error| error.contains(part)).then_some(tunnel)
    })
    .await
}

/// Something that isn't SSH: it closes every connection, and counts them.
async fn closing_port() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            drop(stream);
        }
    });
    (port, count)
}

#[tokio::test]
async fn a_port_that_leads_nowhere_is_replaced_by_another_one_of_the_server() {
    let sshd = Sshd::start().await;
    let echo = Service::echo().await;
    let remote = ports::free();
    let (own, tried) = closing_port().await;
    let setup = setup(remote, &echo.address())
        .ssh(&format!("alternative_ports = ['*.example.com:443', '127.0.0.1:{}']", sshd.port()));
    let mut agent = start(setup.pin(&sshd.host_key().known_hosts_line(own)), &sshd).await;

    open(&agent, &format!("{ACCOUNT}@127.0.0.1:{own}")).await;
    let tunnel = agent.tunnel_is("1", "up").await;
    assert_eq!(tunnel["server"], format!("{ACCOUNT}@127.0.0.1:{own}"), "what was asked for");
    assert_eq!(tunnel["address"], format!("127.0.0.1:{}", sshd.port()), "what is really used");
    assert_eq!(tunnel["proxy"], Value::Null);
    let shown = agent.cli(&["status"]).await.stdout;
    assert!(shown.contains(&format!("     at 127.0.0.1:{}\n", sshd.port())), "{shown}");
    assert_eq!(exchange(remote, b"hello").await.unwrap(), b"hello");
    assert_eq!(tried.load(Ordering::Relaxed), 1);

    // What worked last is tried first the next time.
    process::children_of(sshd.pid()).into_iter().for_each(process::kill_tree);
    wait_until("the agent is back", LONG, async || (sshd.logins() == 2).then_some(())).await;
    agent.tunnel_is("1", "up").await;
    assert_eq!(tried.load(Ordering::Relaxed), 1, "the own port is not tried before");
    agent.terminate().await;
}

#[tokio::test]
async fn another_port_must_show_the_key_of_the_destination_that_was_asked_for() {
    let (sshd, other) = (Sshd::start().await, Sshd::start().await);
    let (own, _) = closing_port().await;
    let destination = format!("{ACCOUNT}@127.0.0.1:{own}");
    let setup = setup(ports::free(), "127.0.0.1:9")
        .ssh(&format!("alternative_ports = ['*:{}']", sshd.port()))
        // The key of that port under its own name is worth nothing here.
        .pin(&sshd.known_hosts_line())
        .pin(&other.host_key().known_hosts_line(own));
    let agent = start(setup, &sshd).await;
    open(&agent, &destination).await;
    assert_eq!(agent.tunnel_ends("1").await.as_deref(), Some("host-key-mismatch"));
    assert_eq!(sshd.logins(), 0);
}

#[tokio::test]
async fn a_key_that_is_learned_on_another_port_is_learned_for_the_destination() {
    let sshd = Sshd::start().await;
    let (own, _) = closing_port().await;
    let setup =
        setup(ports::free(), "127.0.0.1:9").ssh(&format!("alternative_ports = ['*:{}']", sshd.port()));
    let agent = start(setup, &sshd).await;
    open(&agent, &format!("{ACCOUNT}@127.0.0.1:{own}")).await;
    agent.tunnel_is("1", "up").await;
    let known = std::fs::read_to_string(agent.state_dir().join("known_hosts")).unwrap();
    assert!(known.starts_with(&format!("[127.0.0.1]:{own} ")) && known.lines().count() == 1, "{known}");
}

#[tokio::test]
async fn an_alternative_port_is_no_allowed_destination() {
    let mut rig = Rig::with(|setup| setup.ssh("alternative_ports = ['*:2222']")).await;
    let asked = format!("{ACCOUNT}@127.0.0.1:2222");
    assert_eq!(rig.csms.change("InvokeCustomScript1", &asked).await, "Rejected");
    rig.open(1).await;
}

#[tokio::test]
async fn every_address_of_a_name_is_tried_and_the_name_is_resolved_anew() {
    let sshd = Sshd::start().await;
    let setup = setup(ports::free(), "127.0.0.1:9");
    let etc = setup.directory().join("names");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("hosts"), "127.0.0.2 gw.test\n127.0.0.3 gw.test\n").unwrap();
    let runner = script(
        setup.directory(),
        "with-names",
        &format!(
            "exec unshare --mount --propagation private sh {}/peers/private.sh {} '' \"$@\"",
            env!("CARGO_MANIFEST_DIR"),
            etc.display()
        ),
    );
    let agent = start(setup.runner(runner), &sshd).await;
    open(&agent, &format!("{ACCOUNT}@gw.test:{}", sshd.port())).await;
    // The first address fails before the last, and the last error is told.
    fails_with(&agent, "no TCP connection to 127.0.0.").await;
    assert_eq!(sshd.connections(), 0);

    // Written in place, since the agent's namespace shows this very file.
    std::fs::write(etc.join("hosts"), "127.0.0.2 gw.test\n127.0.0.3 gw.test\n127.0.0.1 gw.test\n").unwrap();
    let tunnel = agent.tunnel_is("1", "up").await;
    assert_eq!(tunnel["address"], format!("127.0.0.1:{}", sshd.port()));
}

#[tokio::test]
async fn a_tunnel_goes_through_a_proxy_that_resolves_the_name() {
    let sshd = Sshd::start().await;
    let echo = Service::echo().await;
    let remote = ports::free();
    let proxy = HttpProxy::start(Rules::default()).await;
    let agent = start(setup(remote, &echo.address()).ssh(&format!("proxy = '{}'", proxy.url())), &sshd).await;
    // No resolver knows this name.
    open(&agent, &format!("{ACCOUNT}@gateway.invalid:{}", sshd.port())).await;
    let tunnel = agent.tunnel_is("1", "up").await;
    assert_eq!(tunnel["address"], format!("gateway.invalid:{}", sshd.port()));
    assert_eq!(tunnel["proxy"], proxy.address());
    assert_eq!(exchange(remote, b"hello").await.unwrap(), b"hello");
    let request = proxy.requests().concat();
    assert!(
        request.starts_with(&format!("CONNECT gateway.invalid:{} HTTP/1.1\r\n", sshd.port())),
        "{request}"
    );
    let known = std::fs::read_to_string(agent.state_dir().join("known_hosts")).unwrap();
    assert!(known.starts_with(&format!("[gateway.invalid]:{} ", sshd.port())), "{known}");
    let shown = agent.cli(&["status"]).await.stdout;
    assert!(shown.contains(&format!("through the proxy {}", proxy.address())), "{shown}");
    // People look at the server's keys the same way.
    let scanned = agent.cli(&["host-keys", "scan", &format!("gateway.invalid:{}", sshd.port())]).await;
    assert!(scanned.code == Some(0) && scanned.stdout.contains("trusted"), "{scanned:?}");
}

#[tokio::test]
async fn a_proxys_password_stands_in_a_file_and_is_never_shown() {
    let sshd = Sshd::start().await;
    let rules = Rules { credentials: Some("c2l0ZTpPcGVuIHNlc2FtZQ==".into()), ..Rules::default() };
    let proxy = HttpProxy::start(rules).await;
    let setup = setup(ports::free(), "127.0.0.1:9").ssh(&format!("proxy = '{}'", proxy.url()));
    let file = setup.directory().join("proxy-password");
    std::fs::write(&file, "site:wrong\n").unwrap();
    let setup = setup.ssh(&format!("proxy_authorization_file = '{}'", file.display()));
    let mut agent = start(setup, &sshd).await;
    let destination = sshd.destination();
    open(&agent, &destination).await;
    fails_with(&agent, "doesn't take our user and password (407)").await;
    let waiting = agent.cli(&["open", &destination, "--wait", "--for", "2s"]).await;
    assert!(waiting.stderr.contains("ssh.proxy_authorization_file"), "{waiting:?}");

    std::fs::write(&file, "site:Open sesame\n").unwrap();
    agent.terminate().await;
    agent.start().await;
    open(&agent, &destination).await;
    agent.tunnel_is("1", "up").await;
    let shown = agent.cli(&["config", "show"]).await.stdout;
    assert!(shown.contains("proxy-password") && !shown.contains("sesame"), "{shown}");
    assert!(!agent.log().contains("sesame") && !agent.log().contains("c2l0ZTp"), "{}", agent.log());

    std::fs::write(&file, "no colon").unwrap();
    let checked = agent.cli(&["config", "check"]).await;
    assert_eq!(checked.code, Some(78), "{checked:?}");
    assert!(checked.stderr.contains("does not hold one line user:password"), "{checked:?}");
}

#[tokio::test]
async fn a_proxy_that_forbids_a_port_is_asked_for_the_next_one() {
    let sshd = Sshd::start().await;
    let own = ports::free();
    let proxy = HttpProxy::start(Rules { only_port: Some(443), ..Rules::default() }).await;
    let setup = setup(ports::free(), "127.0.0.1:9").ssh(&format!("proxy = '{}'", proxy.url()));
    let setup = setup.ssh(&format!("alternative_ports = ['gateway.invalid:{}']", sshd.port()));
    let agent = start(setup, &sshd).await;
    open(&agent, &format!("{ACCOUNT}@gateway.invalid:{own}")).await;
    let tunnel = fails_with(&agent, "forbids connections to gateway.invalid:").await;
    assert!(tunnel["last_error"].as_str().unwrap().contains(&proxy.address()), "{tunnel}");

    proxy.change(Rules { only_port: Some(sshd.port()), ..Rules::default() });
    let tunnel = agent.tunnel_is("1", "up").await;
    assert_eq!(tunnel["address"], format!("gateway.invalid:{}", sshd.port()));
    assert!(
        proxy
            .requests()
            .iter()
            .any(|request| request.starts_with(&format!("CONNECT gateway.invalid:{own} ")))
    );
}

#[tokio::test]
async fn a_proxy_that_never_answers_is_given_up() {
    let sshd = Sshd::start().await;
    let proxy = HttpProxy::start(Rules { silent: true, ..Rules::default() }).await;
    let setup = setup(ports::free(), "127.0.0.1:9")
        .ssh(&format!("proxy = '{}'", proxy.url()))
        // It bounds each step.
        .ssh("keepalive_interval = '500ms'")
        .ssh("keepalive_max = 2");
    let agent = start(setup, &sshd).await;
    open(&agent, &sshd.destination()).await;
    let tunnel = fails_with(&agent, "in 1 s").await;
    let error = tunnel["last_error"].as_str().unwrap();
    let expected =
        format!("no connection to 127.0.0.1:{} through the proxy {}", sshd.port(), proxy.address());
    assert!(error.starts_with(&expected), "{error}");
    proxy.change(Rules::default());
    agent.tunnel_is("1", "up").await;
}

/// A program that runs what follows it; `line` is shell.
fn script(directory: &Path, name: &str, line: &str) -> PathBuf {
    let path = directory.join(name);
    process::write_program(&path, &format!("#!/bin/sh\n{line}\n"));
    path
}

#[tokio::test]
async fn a_cable_that_is_plugged_in_again_ends_every_wait() {
    let network = Network::new();
    let port = ports::free();
    let listen = format!("ListenAddress {}:{port}\n", network.address());
    let sshd = Sshd::start_with(&listen).await;
    let csms = TcpListener::bind((network.address(), 0)).await.unwrap();
    let url = format!("ws://{}/ocpp", csms.local_addr().unwrap());
    let setup = Setup::new()
        .ocpp(&format!("url = '{url}'"))
        .ocpp("identity = 'CP001'")
        .ocpp("security_profile = 0")
        // So long that no wait ends by itself, whatever the jitter makes of it.
        .ocpp("backoff_minimum = '300d'")
        .ssh("backoff_minimum = '300d'")
        .ssh("backoff_maximum = '300d'")
        .script(1, ports::free(), "127.0.0.1:9");
    let runner = network.runner(setup.directory());
    network.pull();
    let agent = start(setup.runner(runner), &sshd).await;
    open(&agent, &format!("{ACCOUNT}@{}:{port}", network.address())).await;
    agent.tunnel_is("1", "backoff").await;
    agent.link_is("backoff").await;
    tokio::time::sleep(SHORT).await;
    assert_eq!(agent.tunnel("1").await["state"], "backoff", "it waits for something");

    let plugged = Instant::now();
    network.plug();
    let link = tokio::time::timeout(LONG, csms.accept()).await;
    let linked = plugged.elapsed();
    agent.tunnel_is("1", "up").await;
    let up = plugged.elapsed();
    assert!(link.is_ok() && linked < Duration::from_secs(3), "the link tried after {linked:?}");
    assert!(up < Duration::from_secs(3), "the tunnel was up after {up:?}");
}

#[tokio::test]
async fn a_flapping_cable_makes_no_storm() {
    let network = Network::new();
    let setup = Setup::new()
        .ocpp("mode = 'off'")
        .ssh("backoff_minimum = '300d'")
        .ssh("backoff_maximum = '300d'")
        .script(1, ports::free(), "127.0.0.1:9");
    let runner = network.runner(setup.directory());
    let agent = Agent::run(setup.runner(runner)).await;
    // Nobody listens there.
    open(&agent, &format!("{ACCOUNT}@{}:{}", network.address(), ports::free())).await;
    agent.tunnel_is("1", "backoff").await;
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        network.pull();
        tokio::time::sleep(Duration::from_millis(100)).await;
        network.plug();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let returned = agent.log().matches("network-returned").count();
    assert!((1..=4).contains(&returned), "{returned} times in 12 s");
}
