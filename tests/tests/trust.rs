//! Whom the agent trusts, and what a server that shouldn't be trusted gets to see.

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::asyncssh::AsyncSsh;
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::run;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::service::Service;
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::{LONG, SHORT, ports, wait_until};

/// A rig whose server isn't pinned.
async fn unpinned(policy: &str) -> Rig {
    let csms = Csms::start(Options::default()).await;
    let sshd = Sshd::start().await;
    let (echo, page) = (Service::echo().await, Service::page("").await);
    let remote = [ports::free(), ports::free()];
    let setup = Setup::new()
        .csms(&csms)
        .ssh(policy)
        .allow(&sshd.destination())
        .script(1, remote[0], &echo.address())
        .script(2, remote[1], &page.address());
    let agent = Agent::run(setup).await;
    let mut rig = Rig { agent, csms, sshd, echo, page, remote };
    rig.authorize(&rig.sshd).await;
    rig.csms.wait_for("boots", 1).await;
    rig.agent.link_is("accepted").await;
    rig
}

/// That the server was hung up on before anybody tried to log in.
fn nothing_was_sent(sshd: &Sshd, since: usize) {
    let log = sshd.log();
    let new = &log[since..];
    assert!(new.contains("Connection from "), "it was tried: {new}");
    for trace in
        ["userauth-request", "Accepted publickey", "Failed publickey", "Postponed publickey", "tcpip-forward"]
    {
        assert!(!new.contains(trace), "{trace}: {new}");
    }
}

#[tokio::test]
async fn a_changed_host_key_ends_the_tunnel_and_nothing_is_sent() {
    let mut rig = unpinned("host_key_policy = 'accept-new'").await;
    rig.open(1).await;
    rig.echo_returns().await;

    rig.sshd.kill().await;
    rig.sshd.change_host_key().await;
    let before = rig.sshd.log().len();
    rig.sshd.resume().await;

    let tunnel = rig.agent.tunnel_is("1", "closed").await;
    assert_eq!(tunnel["reason"], "host-key-mismatch", "{tunnel}");
    nothing_was_sent(&rig.sshd, before);
    let connections = rig.sshd.connections();
    tokio::time::sleep(SHORT * 3).await;
    assert_eq!(rig.sshd.connections(), connections, "it isn't tried again");
    let status = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(status.starts_with("closed"), "{status}");

    // The person on site learns the same, as an exit code.
    let before = rig.sshd.log().len();
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(7), "{opened:?}");
    nothing_was_sent(&rig.sshd, before);
}

#[tokio::test]
async fn a_server_with_another_key_than_the_pinned_one_is_refused() {
    let mut rig = Rig::start().await;
    rig.sshd.kill().await;
    rig.sshd.change_host_key().await;
    let before = rig.sshd.log().len();
    rig.sshd.resume().await;

    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    let tunnel = rig.agent.tunnel_is("1", "closed").await;
    assert_eq!(tunnel["reason"], "host-key-mismatch", "{tunnel}");
    nothing_was_sent(&rig.sshd, before);
    // For a pinned host nothing is ever learned.
    let known_hosts = std::fs::read_to_string(rig.agent.state_dir().join("known_hosts")).unwrap_or_default();
    assert!(!known_hosts.contains("127.0.0.1"), "{known_hosts}");
}

#[tokio::test]
async fn a_strict_agent_opens_to_pinned_servers_only() {
    let other = Sshd::start().await;
    let mut rig =
        Rig::with(|setup| setup.ssh("host_key_policy = 'strict'").allow(&other.destination())).await;
    rig.authorize(&other).await;
    rig.open(1).await;
    rig.echo_returns().await;

    let before = other.log().len();
    let opened = rig.agent.cli(&["open", &other.destination(), "--script", "2", "--wait"]).await;
    assert_eq!(opened.code, Some(7), "{opened:?}");
    nothing_was_sent(&other, before);
    assert!(rig.echoes().await);
}

#[tokio::test]
async fn a_new_server_is_remembered_and_recognised_after_a_restart() {
    let mut rig = unpinned("host_key_policy = 'accept-new'").await;
    rig.open(1).await;
    let known_hosts = std::fs::read_to_string(rig.agent.state_dir().join("known_hosts")).unwrap();
    assert!(known_hosts.contains(&rig.sshd.known_hosts_line()), "{known_hosts}");

    assert!(rig.agent.terminate().await.success());
    rig.agent.start().await;
    rig.agent.tunnel_is("1", "up").await;
    let again = std::fs::read_to_string(rig.agent.state_dir().join("known_hosts")).unwrap();
    assert_eq!(known_hosts, again, "nothing is learned twice");
}

#[tokio::test]
async fn a_csms_whose_certificate_nobody_vouches_for_gets_no_password() {
    let (csms, stranger) = (Csms::start(tls()).await, Csms::start(tls()).await);
    let wrong = format!("ca_file = '{}'", stranger.authority().unwrap().root().display());
    let mut rig = Rig::unstarted(csms, |setup| setup.ocpp(&wrong)).await;
    rig.agent.start().await;
    let link = wait_until("status says why", LONG, async || {
        let status = rig.agent.status().await;
        status["ocpp"]["last_error"].is_string().then(|| status["ocpp"].clone())
    })
    .await;
    let error = link["last_error"].as_str().unwrap_or_default().to_lowercase();
    assert!(
        error.contains("certificate") || error.contains("issuer") || error.contains("authority"),
        "{link}"
    );
    let counts = rig.csms.counts().await;
    assert_eq!((counts.connections, counts.refused), (0, 0));
}

fn tls() -> Options {
    Options { tls: true, ..Options::default() }
}

#[tokio::test]
async fn the_device_key_is_made_once_for_nobody_else_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let mut rig = Rig::start().await;
    let file = rig.agent.state_dir().join("id_ed25519");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = std::fs::read(&file).unwrap();
    assert!(key.starts_with(b"-----BEGIN OPENSSH PRIVATE KEY-----"));
    rig.agent.terminate().await;
    rig.agent.start().await;
    assert_eq!(key, std::fs::read(&file).unwrap());
}

#[tokio::test]
async fn a_key_that_the_server_does_not_know_is_told_apart_and_works_once_it_does() {
    let mut rig = Rig::start().await;
    rig.sshd.authorize_nobody();
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    wait_until("status says that the server refuses the key", LONG, async || {
        let tunnel = rig.agent.tunnel("1").await;
        let error = tunnel["last_error"].as_str().unwrap_or_default().to_lowercase();
        (tunnel["state"] == "backoff" && error.contains("key")).then_some(())
    })
    .await;
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--script", "2", "--wait"]).await;
    assert_eq!(opened.code, Some(8), "{opened:?}");

    // An operator mends it, and the tunnel comes up by itself.
    rig.authorize(&rig.sshd).await;
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn channels_that_nobody_asked_for_are_refused() {
    let csms = Csms::start(Options::default()).await;
    let (echo, canary) = (Service::echo().await, Service::echo().await);
    let mut server = AsyncSsh::start(canary.port()).await;
    let remote = ports::free();
    let setup = Setup::new().csms(&csms).pin(&server.known_hosts_line()).allow(&server.destination()).script(
        1,
        remote,
        &echo.address(),
    );
    let agent = Agent::run(setup).await;
    let opened = agent.cli(&["open", &server.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");

    let attempts = server.attempts().await;
    assert_eq!(attempts.len(), 12, "{attempts:?}");
    for attempt in &attempts {
        assert_eq!(attempt.accepted, attempt.channel == "forwarded-tcpip, as asked", "{attempt:?}");
    }
    // It is connected to once the channel has been accepted.
    wait_until("the one connection", LONG, async || (echo.connections() > 0).then_some(())).await;
    assert_eq!((canary.connections(), echo.connections()), (0, 1));
    assert_eq!(agent.tunnel("1").await["state"], "up", "the tunnel itself lives through it");
}

#[tokio::test]
async fn a_local_service_that_is_down_is_a_refused_connection_and_not_a_broken_tunnel() {
    let nobody = ports::free();
    let mut rig = Rig::with(|setup| setup.script(3, ports::free(), &format!("127.0.0.1:{nobody}"))).await;
    let text = rig.agent.configuration();
    let remote: u16 =
        text.rsplit("remote = 'localhost:").next().unwrap().split('\'').next().unwrap().parse().unwrap();
    rig.open(3).await;
    let answer = ocpp_tunnel_tests::service::fetch(remote).await;
    assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
    assert_eq!(rig.agent.tunnel("3").await["state"], "up");

    let _late = tokio::net::TcpListener::bind(("127.0.0.1", nobody)).await.unwrap();
    assert!(ports::answers(remote));
    assert_eq!(rig.sshd.logins(), 1);
}

#[tokio::test]
async fn the_authorised_key_can_do_nothing_but_publish_these_ports() {
    let rig = Rig::start().await;
    let line = rig.agent.authorized_keys_line().await;
    for part in [
        "restrict".to_owned(),
        "port-forwarding".to_owned(),
        format!("permitlisten=\"localhost:{}\"", rig.remote[0]),
        format!("permitlisten=\"localhost:{}\"", rig.remote[1]),
        "permitopen=\"localhost:9\"".to_owned(),
    ] {
        assert!(line.contains(&part), "{part} in {line}");
    }

    // The server understands the line and holds the device to it: no other port …
    let other = ports::free();
    let (destination, forward) = (rig.sshd.destination(), format!("{other}:{}", rig.echo.address()));
    let opened = rig.agent.cli(&["open", &destination, "--forward", &forward, "--wait"]).await;
    assert_eq!(opened.code, Some(9), "{opened:?}");
    assert!(!ports::answers(other));

    // … and no way into the server's network for who has stolen the key.
    let known_hosts = rig.agent.directory().join("stolen");
    std::fs::write(&known_hosts, rig.sshd.known_hosts_line()).unwrap();
    let mut ssh = tokio::process::Command::new("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        &format!("UserKnownHostsFile={}", known_hosts.display()),
    ])
    .args(["-W", &rig.echo.address(), "-i"])
    .arg(rig.agent.state_dir().join("id_ed25519"))
    .arg(format!("ssh://{destination}"));
    let output = run(&mut ssh, "hello").await;
    assert!(output.code != Some(0) && output.stdout.is_empty(), "{output:?}");
    assert_eq!(rig.echo.connections(), 0);
}
