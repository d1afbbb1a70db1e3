//! What a tunnel publishes and where it leads: sockets named after the device, ports that the server chooses, several
//! forwards at once, IPv6, services on other hosts.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::service::{Service, exchange};
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Sends a word over a stream, ends its own side and returns what comes back.
async fn echo_over(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> std::io::Result<String> {
    stream.write_all(b"over there").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The port in what is written as `…localhost:PORT`.
fn port_in(text: &str) -> u16 {
    let digits = text.rsplit_once("localhost:").map_or("", |(_, rest)| rest);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or_else(|why| panic!("no port in {text:?}: {why}"))
}

fn forward(tunnel: &Value, index: usize) -> (String, bool) {
    let forward = &tunnel["forwards"][index];
    (forward["remote"].as_str().unwrap_or_default().to_owned(), forward["listening"] == true)
}

#[tokio::test]
async fn a_socket_on_the_server_named_after_the_device_is_taken_over_by_each_new_session() {
    let csms = Csms::start(Options { identity: "DE*ABC/1".into(), ..Options::default() }).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    rig.sshd.configure("StreamLocalBindUnlink yes").await;
    let sockets = tempfile::tempdir().unwrap();
    std::fs::set_permissions(sockets.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let remote = format!("unix:{}/{{identity}}-ssh.sock", sockets.path().display());
    let text = rig.agent.configuration();
    let changed = text.replace(&format!("'localhost:{}'", rig.remote[0]), &format!("'{remote}'"));
    assert_ne!(text, changed);
    rig.agent.configure(&changed);
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;

    let socket = sockets.path().join("DE%2AABC%2F1-ssh.sock");
    assert_eq!(forward(&rig.agent.tunnel("1").await, 0), (format!("unix:{}", socket.display()), true));
    let answers = async |socket: &Path| match UnixStream::connect(socket).await {
        Ok(stream) => echo_over(stream).await.ok().filter(|answer| answer == "over there"),
        Err(_) => None,
    };
    assert!(answers(&socket).await.is_some());
    assert!(rig.csms.value("InvokeCustomScript1Status").await.contains(&socket.display().to_string()));

    // The session dies without a goodbye and leaves its socket behind.
    rig.agent.kill().await;
    assert!(socket.exists());
    rig.agent.start().await;
    wait_until("the new session serves the socket", LONG, async || answers(&socket).await).await;
}

#[tokio::test]
async fn the_port_that_the_server_chose_is_told_everywhere() {
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    let text = rig.agent.configuration();
    rig.agent.configure(&text.replace(&format!("'localhost:{}'", rig.remote[0]), "'0'"));
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.agent.link_is("accepted").await;
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");

    let port = port_in(&opened.stdout);
    assert_eq!(exchange(port, b"hello").await.unwrap(), b"hello");
    let expected = format!("localhost:{port}");
    assert_eq!(forward(&rig.agent.tunnel("1").await, 0), (expected.clone(), true));
    let status = rig.agent.cli(&["status"]).await;
    assert!(status.stdout.contains(&format!("{expected} -> {}", rig.echo.address())), "{status:?}");
    let value = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(value.contains(&format!(" remote={expected} ")), "{value}");
    let log = rig.agent.log();
    assert!(log.lines().any(|line| line.contains("tunnel-up") && line.contains(&expected)), "{log}");
}

#[tokio::test]
async fn one_tunnel_carries_several_forwards() {
    let rig = Rig::start().await;
    let line = rig.agent.cli(&["keys", "show"]).await.stdout;
    rig.sshd.authorize_nobody();
    rig.sshd.authorize(&line);
    let fixed = ports::free();
    let forwards = [
        format!("{fixed}:{}", rig.echo.address()),
        format!("0:{}", rig.page.address()),
        format!("0:{}", rig.echo.address()),
    ];
    let destination = rig.sshd.destination();
    let mut arguments = vec!["open", &destination, "--wait"];
    for forward in &forwards {
        arguments.extend(["--forward", forward]);
    }
    let opened = rig.agent.cli(&arguments).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let tunnel = rig.agent.tunnel("t1").await;
    let [first, second, third] = [0, 1, 2].map(|index| forward(&tunnel, index));
    assert_eq!(first, (format!("localhost:{fixed}"), true));
    let (page, echo) = (port_in(&second.0), port_in(&third.0));
    assert_ne!(page, echo);
    for port in [fixed, echo] {
        assert_eq!(exchange(port, b"hello").await.unwrap(), b"hello");
    }
    assert!(ocpp_tunnel_tests::service::fetch(page).await.unwrap().contains("Charge controller"));
    assert_eq!(rig.sshd.logins(), 1, "one SSH connection");

    // Two that the server couldn't tell apart are a usage error, with and without an agent.
    let twice = ["open", &destination, "--forward", &forwards[0], "--forward", &forwards[0]];
    let refused = rig.agent.cli(&twice).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("another forward has"), "{refused:?}");
}

#[tokio::test]
async fn a_forward_that_is_refused_holds_up_no_other_and_is_told_apart() {
    let rig = Rig::start().await;
    let line = rig.agent.cli(&["keys", "show"]).await.stdout;
    rig.sshd.authorize_nobody();
    rig.sshd.authorize(&line);
    let (taken, free) = (ports::free(), ports::free());
    let blocker = TcpListener::bind(("127.0.0.1", taken)).await.unwrap();
    let blocker_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, taken)).await.unwrap();
    let (refused, served) =
        (format!("{taken}:{}", rig.echo.address()), format!("{free}:{}", rig.echo.address()));
    let destination = rig.sshd.destination();
    let open = ["open", &destination, "--forward", &refused, "--forward", &served, "--wait"];
    let opened = rig.agent.cli(&open).await;
    assert_eq!(opened.code, Some(9), "it isn't up: {opened:?}");
    assert!(opened.stderr.contains(&format!("localhost:{taken}")), "{opened:?}");

    // The other one serves already, and the state says that not all is well, and what.
    assert_eq!(exchange(free, b"hello").await.unwrap(), b"hello");
    let tunnel = rig.agent.tunnel("t1").await;
    assert_eq!(tunnel["state"], "forwarding", "{tunnel}");
    assert_eq!(forward(&tunnel, 0), (format!("localhost:{taken}"), false));
    assert_eq!(forward(&tunnel, 1), (format!("localhost:{free}"), true));
    assert!(tunnel["last_error"].as_str().unwrap().contains(&taken.to_string()), "{tunnel}");
    let status = rig.agent.cli(&["status"]).await;
    assert_eq!(status.code, Some(3), "{status:?}");
    assert!(status.stdout.contains("(not open yet)"), "{status:?}");

    // As soon as the port is free, it is asked for again on the same connection.
    drop((blocker, blocker_v6));
    rig.agent.tunnel_is("t1", "up").await;
    assert_eq!(exchange(taken, b"hello").await.unwrap(), b"hello");
    assert_eq!(rig.sshd.logins(), 1);
    assert_eq!(rig.agent.log().matches("forward-refused").count(), 1, "it is told once");
}

#[tokio::test]
async fn ipv6_is_listened_on_and_led_to() {
    let mut rig = Rig::start().await;
    rig.sshd.configure("GatewayPorts clientspecified").await;
    let line = rig.agent.cli(&["keys", "show"]).await.stdout;
    rig.sshd.authorize_nobody();
    rig.sshd.authorize(&line);
    let service = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let local = service.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = service.accept().await?;
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await?;
        to.shutdown().await
    });
    let remote = ports::free();
    let forwarded = format!("[::1]:{remote}:{local}");
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--forward", &forwarded, "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert!(opened.stdout.contains(&format!("[::1]:{remote} -> {local}")), "{opened:?}");
    assert!(!ports::answers(remote), "the server doesn't listen on 127.0.0.1");
    let stream = TcpStream::connect((Ipv6Addr::LOCALHOST, remote)).await.unwrap();
    assert_eq!(echo_over(stream).await.unwrap(), "over there");
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_name_leads_to_whichever_of_its_addresses_answers() {
    // "localhost" is ::1 and 127.0.0.1; nothing listens on ::1.
    let rig = Rig::start().await;
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(("localhost", rig.echo.port())).await.unwrap().collect();
    let line = rig.agent.cli(&["keys", "show"]).await.stdout;
    rig.sshd.authorize_nobody();
    rig.sshd.authorize(&line);
    let remote = ports::free();
    let forwarded = format!("{remote}:localhost:{}", rig.echo.port());
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--forward", &forwarded, "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert_eq!(exchange(remote, b"hello").await.unwrap(), b"hello", "{addresses:?}");
}

#[tokio::test]
async fn a_service_on_another_host_of_the_site_is_published() {
    let rig = Rig::start().await;
    let line = rig.agent.cli(&["keys", "show"]).await.stdout;
    rig.sshd.authorize_nobody();
    rig.sshd.authorize(&line);
    // Any address of 127.0.0.0/8 but the usual one stands for the other host.
    let other_host = TcpListener::bind("127.77.0.1:0").await.unwrap();
    let local = other_host.local_addr().unwrap();
    let remote = ports::free();
    let forwarded = format!("{remote}:{local}");
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--forward", &forwarded, "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let client = TcpStream::connect(("127.0.0.1", remote)).await.unwrap();
    let (mut arrived, from) = other_host.accept().await.unwrap();
    assert!(from.ip().is_loopback());
    arrived.write_all(b"from the other host").await.unwrap();
    drop(arrived);
    let mut said = String::new();
    let mut client = client;
    client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "from the other host");
}

#[tokio::test]
async fn a_key_for_sockets_alone_may_listen_on_no_port() {
    let csms = Csms::start(Options::default()).await;
    let sshd = ocpp_tunnel_tests::sshd::Sshd::start().await;
    let echo = Service::echo().await;
    let setup = Setup::new().csms(&csms).pin(&sshd.known_hosts_line()).script(1, 1, &echo.address());
    let mut agent = Agent::new(setup);
    let text = agent.configuration();
    agent.configure(&text.replace("'localhost:1'", "'unix:/nonexistent/x.sock'"));
    sshd.authorize(&agent.authorized_keys_line().await);
    agent.start().await;
    let port = ports::free();
    let forwarded = format!("{port}:{}", echo.address());
    let opened = agent.cli(&["open", &sshd.destination(), "--forward", &forwarded, "--wait"]).await;
    assert_eq!(opened.code, Some(9), "{opened:?}");
    assert!(!ports::answers(port));
}
