//! The self-check: every step that can fail is made to fail, with and without a running agent.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use ocpp_tunnel::limits::OPEN_WAIT;
use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::bad_csms::{BadCsms, Step};
use ocpp_tunnel_tests::check::{Found, check};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::dropbear::Dropbear;
use ocpp_tunnel_tests::network::Network;
use ocpp_tunnel_tests::process::run;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::service::{Service, exchange};
use ocpp_tunnel_tests::sshd::{ACCOUNT, Sshd};
use ocpp_tunnel_tests::tls::Fault;
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::net::TcpListener;
use tokio::process::Command;

/// A controller without OCPP, whose key is there, that publishes a service which answers.
async fn controller(change: impl FnOnce(Setup) -> Setup) -> (Agent, Service) {
    let echo = Service::echo().await;
    let setup = Setup::new()
        .ocpp("mode = 'off'")
        .script(1, ports::free(), &echo.address())
        .policy("disable_file = '/nonexistent/disabled'");
    let agent = Agent::new(change(setup));
    assert_eq!(agent.cli(&["keys", "show"]).await.code, Some(0));
    (agent, echo)
}

const AFTER_TCP: [&str; 6] = ["banner", "host-key", "login", "forward", "reach", "keepalive"];

#[tokio::test]
async fn with_a_running_agent_everything_is_looked_at_and_nothing_is_disturbed() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let before = rig.csms.counts().await;
    // The only exact entry of the allow-list is meant.
    let found = check(&rig.agent, &[]).await;
    assert_eq!(found.code, Some(0), "{found:#?}");
    assert_eq!(found.document["server"], *rig.sshd.destination());
    for step in [
        "agent", "clock", "policy", "key", "name", "tcp", "banner", "host-key", "login", "forward", "ocpp",
        "local",
    ] {
        found.is_well(step);
    }
    let forwards = found.lines("forward");
    assert_eq!(
        forwards[0]["text"],
        format!("localhost:{} is held by our own tunnel 1, which is running", rig.remote[0])
    );
    assert!(forwards[1]["text"].as_str().unwrap().contains(&rig.remote[1].to_string()), "{found:#?}");
    rig.open(2).await;
    let all_held = check(&rig.agent, &[]).await;
    let reach = all_held.lines("reach")[0]["text"].as_str().unwrap();
    assert!(reach.contains("the running tunnel has the ports"), "{all_held:#?}");
    let closed = rig.agent.cli(&["close", "2"]).await;
    assert_eq!(closed.code, Some(0), "{closed:?}");
    assert!(found.lines("banner")[0]["text"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH"), "{found:#?}");
    assert!(found.lines("ocpp")[0]["text"].as_str().unwrap().contains("accepted"), "{found:#?}");

    rig.agent.drop_in("50.toml", "[policy]\nmax_duration = '1h'\n[log]\naudit_bytes = '128KiB'\n");
    let unread = check(&rig.agent, &[]).await;
    let lines = unread.lines("agent");
    let text = lines[1]["text"].as_str().unwrap();
    assert!(text.starts_with("log.audit_bytes, policy.max_duration: written otherwise"), "{unread:#?}");
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    let waits = check(&rig.agent, &[]).await;
    let lines = waits.lines("agent");
    assert_eq!(
        (lines.len(), lines[1]["text"].as_str().unwrap()),
        (2, "log.audit_bytes: in force after a restart of the agent")
    );
    std::fs::remove_file(rig.agent.config_path().with_file_name("config.d").join("50.toml")).unwrap();
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    assert_eq!(check(&rig.agent, &[]).await.lines("agent").len(), 1);

    assert!(rig.echoes().await, "the tunnel is as it was");
    let after = rig.csms.counts().await;
    assert_eq!((after.connections, after.boots), (before.connections, before.boots), "and so is the link");
    rig.port_is_free(2).await;
    assert_eq!(rig.agent.record("server-checked").await["result"], "success");
    // What it asked for and gave back can be had at once.
    rig.open(2).await;
}

#[tokio::test]
async fn without_an_agent_it_looks_by_itself_also_whether_the_csms_accepts_it() {
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, Setup::pin_nothing).await;
    rig.authorize(&rig.sshd).await;
    let found = check(&rig.agent, &[&rig.sshd.destination()]).await;
    assert_eq!(found.code, Some(0), "{found:#?}");
    for step in ["agent", "host-key", "login", "forward", "local"] {
        found.is_well(step);
    }
    assert!(found.lines("host-key")[0]["text"].as_str().unwrap().contains("first time"), "{found:#?}");
    assert!(!rig.agent.known_hosts().exists(), "nothing is learned");
    found.is_well("ocpp");
    let ocpp = found.lines("ocpp");
    assert!(ocpp[0]["text"].as_str().unwrap().contains("security profile 1"), "{found:#?}");
    assert!(ocpp[1]["text"].as_str().unwrap().contains("accepts this charge point"), "{found:#?}");
    let counts = rig.csms.counts().await;
    assert_eq!((counts.connections, counts.boots), (1, 1));
    assert!(!rig.agent.runtime_dir().exists(), "no trace of an agent");
    for number in [1, 2] {
        rig.port_is_free(number).await;
    }
}

#[tokio::test]
async fn people_get_a_line_a_step_with_its_time_and_a_sign_of_life_on_a_terminal() {
    let (agent, _echo) = controller(|setup| setup).await;
    let nobody = format!("{ACCOUNT}@127.0.0.1:{}", ports::free());
    let plain = agent.cli(&["check", &nobody]).await;
    assert_eq!(plain.code, Some(6), "{plain:?}");
    assert!(!plain.stdout.contains('\x1b') && plain.stderr.is_empty(), "{plain:?}");
    let tcp = plain.stdout.lines().position(|line| line.starts_with("FAIL  tcp  ")).unwrap();
    let lines: Vec<&str> = plain.stdout.lines().collect();
    assert!(lines[tcp].ends_with(" ms)") || lines[tcp].ends_with(" s)"), "{plain:?}");
    assert!(lines[tcp + 1].starts_with("      try: "), "{plain:?}");
    assert!(
        plain.stdout.contains("\n--    not looked at, because there is no connection: banner, host-key, login, forward, reach, keepalive\n"),
        "{plain:?}"
    );
    assert!(plain.stdout.contains("\nok    clock "), "{plain:?}");

    let terminal = agent.dialogue(&["check", &nobody], &[]).await;
    assert_eq!(terminal.code, Some(6), "{terminal:?}");
    assert!(terminal.stdout.contains("\r\x1b[K... tcp\r\x1b[K\x1b[31mFAIL\x1b[0m  tcp "), "{terminal:?}");
    let mut command = Command::new("script");
    let check = agent.command(&["check", &nobody]);
    let words = std::iter::once(check.as_std().get_program()).chain(check.as_std().get_args());
    let line: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    command.env("NO_COLOR", "1").args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    let grey = run(&mut command, "").await;
    assert!(grey.stdout.contains("FAIL  tcp ") && !grey.stdout.contains("\x1b[3"), "{grey:?}");
}

#[tokio::test]
async fn what_is_wrong_on_the_device_is_found_without_a_server() {
    let (agent, echo) = controller(|setup| setup).await;
    let found = check(&agent, &[]).await;
    assert_eq!(found.code, Some(0), "{found:#?}");
    found.skips(&["name", "tcp", "login", "forward"], "no server was named");
    found.skips(&["ocpp"], "\"off\"");

    // A local service that isn't there.
    drop(echo);
    let found = check(&agent, &[]).await;
    assert_eq!(found.code, Some(1));
    found.fails("local", "doesn't answer", "start the service");

    // A key that others may read: whatever comes after counts less.
    let key = agent.state_dir().join("id_ed25519");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let found = check(&agent, &[&format!("{ACCOUNT}@127.0.0.1:{}", ports::free())]).await;
    assert_eq!(found.code, Some(78));
    found.fails("key", "others may read", &format!("chmod 600 {}", key.display()));
    found.fails("tcp", "connection refused", "");

    // None at all: a check makes none.
    std::fs::remove_file(&key).unwrap();
    let found = check(&agent, &[]).await;
    assert_eq!(found.code, Some(78));
    found.fails("key", "no device key yet", "keys show");
    assert!(!key.exists());

    // A directory that can't be used, and a configuration that can't be read.
    let good = agent.configuration();
    agent.configure(&good.replace("runtime_dir = '", "runtime_dir = '/proc/1/comm"));
    let found = check(&agent, &[]).await;
    assert_eq!(found.code, Some(78));
    found.fails("configuration", "runtime_dir", "");
    agent.configure(&good.replace("[policy]", "[policies]"));
    let found = check(&agent, &[]).await;
    assert_eq!(found.code, Some(78));
    found.fails("configuration", "policies", "");
    found.skips(&["clock", "key", "tcp", "login", "ocpp", "local"], "there is no configuration");
    assert_eq!(agent.cli(&["check", "nonsense"]).await.code, Some(2));
}

#[tokio::test]
async fn while_everything_is_disabled_the_check_opens_nothing_either() {
    let sshd = Sshd::start().await;
    let disabled = tempfile::NamedTempFile::new().unwrap();
    let line = format!("disable_file = '{}'", disabled.path().display());
    let (agent, _echo) = controller(|setup| setup.pin(&sshd.known_hosts_line()).policy(&line)).await;
    sshd.authorize(&agent.authorized_keys_line().await);
    let found = check(&agent, &[&sshd.destination()]).await;
    assert_eq!(found.code, Some(5));
    found.fails("policy", "disabled", &format!("remove {}", disabled.path().display()));
    found.is_well("login");
    found.skips(&["forward", "reach"], "the policy");
    assert!(!sshd.log().contains("tcpip-forward"), "{}", sshd.log());
}

/// In a network namespace without any interface, so that nobody out there is asked for the name.
#[tokio::test]
async fn a_name_without_an_answer_is_6_and_what_needs_it_is_not_looked_at() {
    let (agent, _echo) = controller(|setup| {
        setup
            .ocpp("mode = 'direct'")
            .ocpp("url = 'ws://csms.example.com'")
            .ocpp("identity = 'CP001'")
            .ocpp("security_profile = 0")
    })
    .await;
    let command = agent.command(&["check", "--json", "support@controller.example.com"]);
    let mut unshare = Command::new("unshare");
    unshare.arg("--net").arg(command.as_std().get_program()).args(command.as_std().get_args());
    let found = Found::of(&run(&mut unshare, "").await);
    assert_eq!(found.code, Some(6));
    found.fails("name", "DNS can't resolve controller.example.com", "by its address");
    found.skips(&["tcp"], "no address");
    found.skips(&AFTER_TCP, "no address");
    found.fails("ocpp", "DNS: csms.example.com can't be resolved", "DNS");
}

#[tokio::test]
async fn a_closed_port_is_6_and_the_ports_that_firewalls_let_out_are_tried() {
    let network = Network::new();
    let (agent, _echo) = controller(|setup| {
        let runner = network.runner(setup.directory());
        setup.runner(runner)
    })
    .await;
    let destination = format!("{ACCOUNT}@{}:{}", network.address(), ports::free());
    let found = check(&agent, &[&destination]).await;
    assert_eq!(found.code, Some(6));
    found.fails("tcp", "ports 80 and 443 don't answer there either", "firewall");
    found.skips(&AFTER_TCP, "there is no connection");

    let https = TcpListener::bind((network.address(), 443)).await.unwrap();
    let found = check(&agent, &[&destination]).await;
    let cure = format!("ssh.alternative_ports = [\"{}:443\"]", network.address());
    found.fails("tcp", "but it answers on 443", &cure);
    let _http = TcpListener::bind((network.address(), 80)).await.unwrap();
    check(&agent, &[&destination]).await.fails("tcp", "but it answers on 80 and 443", &cure);
    drop(https);
    check(&agent, &[&destination]).await.fails("tcp", "but it answers on 80", &cure);
}

#[tokio::test]
async fn what_is_no_ssh_server_is_told_from_one() {
    let (agent, _echo) = controller(|setup| setup).await;
    // One that says something else, one that closes, and one that says nothing.
    for (script, text) in [
        (vec![Step::Bytes(b"220 ftp.example.com ready\r\n".to_vec())], "doesn't answer as an SSH server"),
        (vec![], "closed the connection without a word"),
        (vec![Step::Hang], "hasn't said in 10 s"),
    ] {
        let server = BadCsms::start(script).await;
        let port = server.url().replace("ws://127.0.0.1:", "").replace("/ocpp", "");
        let found = check(&agent, &[&format!("{ACCOUNT}@127.0.0.1:{port}")]).await;
        assert_eq!(found.code, Some(1), "{found:#?}");
        found.is_well("tcp");
        found.fails("banner", text, "an SSH server answers on that port");
        found.skips(&["host-key", "login", "forward", "reach"], "no SSH server answers");
    }
}

#[tokio::test]
async fn a_host_key_that_changed_or_is_not_known_where_it_must_be_is_7() {
    let (sshd, other) = (Sshd::start().await, Sshd::start().await);
    let (agent, _echo) = controller(|setup| setup).await;
    let wrong = other.host_key().known_hosts_line(sshd.port());
    agent.write_known_hosts(&format!("{wrong}\n"));
    let found = check(&agent, &[&sshd.destination()]).await;
    assert_eq!(found.code, Some(7));
    found.fails("host-key", &other.host_key().fingerprint().await, "host-keys remove");
    found.skips(&["login", "forward", "reach"], "the server isn't trusted");
    assert_eq!(std::fs::read_to_string(agent.known_hosts()).unwrap(), format!("{wrong}\n"));

    let (agent, _echo) = controller(|setup| setup.ssh("host_key_policy = 'strict'")).await;
    let found = check(&agent, &[&sshd.destination()]).await;
    assert_eq!(found.code, Some(7));
    found.fails("host-key", "strict", "host-keys trust");
    assert!(!sshd.log().contains("userauth-request"), "{}", sshd.log());
}

#[tokio::test]
async fn a_key_that_the_server_does_not_know_is_8_and_a_port_that_it_refuses_is_9() {
    let sshd = Sshd::start().await;
    let (agent, _echo) = controller(|setup| setup.pin(&sshd.known_hosts_line())).await;
    let found = check(&agent, &[&sshd.destination()]).await;
    assert_eq!(found.code, Some(8));
    found.fails("login", "refused the key SHA256:", "keys install");
    found.skips(&["forward", "reach"], "didn't let us in");
    assert_eq!(agent.record("server-checked").await["result"], "failure");

    let key = agent.cli(&["keys", "show"]).await.stdout;
    sshd.authorize(&format!("restrict,port-forwarding,permitlisten=\"localhost:1\" {key}"));
    let found = check(&agent, &[&sshd.destination()]).await;
    assert_eq!(found.code, Some(9));
    found.fails("forward", "refused to listen", "permitlisten");
}

/// sshd leaves the file of a socket behind, so that a tunnel's next one may be refused.
#[tokio::test]
async fn a_socket_on_the_server_is_tried_beside_its_place_and_a_port_of_its_choice_is_asked_for() {
    let sshd = Sshd::start_with("StreamLocalBindUnlink yes\n").await;
    let socket = sshd.authorized_keys().with_file_name("cp.sock");
    let (agent, echo) = controller(|setup| setup.pin(&sshd.known_hosts_line())).await;
    let slot = |number: u8, remote: &str| {
        format!(
            "[[script]]\nkey = 'InvokeCustomScript{number}'\nremote = '{remote}'\nlocal = '{}'\n",
            echo.address()
        )
    };
    let text = agent.configuration();
    let (before, log) = (text.split("[[script]]").next().unwrap(), text.split("[log]").nth(1).unwrap());
    let slots = slot(1, &format!("unix:{}", socket.display())) + &slot(2, "localhost:0");
    agent.configure(&format!("{before}{slots}\n[log]{log}"));
    sshd.authorize(&agent.cli(&["keys", "show"]).await.stdout);
    // As often as somebody likes.
    for _ in 0..2 {
        let found = check(&agent, &[&sshd.destination()]).await;
        assert_eq!(found.code, Some(0), "{found:#?}");
        found.is_well("forward");
        let forwards = found.lines("forward");
        assert!(forwards[0]["text"].as_str().unwrap().contains("cp.sock.check, twice"), "{found:#?}");
        assert!(!forwards[1]["text"].as_str().unwrap().contains(":0,"), "the port that it chose: {found:#?}");
    }
    assert!(!socket.exists(), "the tunnel's own place is as it was");

    let mut sshd = Sshd::start_with("StreamLocalBindUnlink no\n").await;
    let socket = sshd.authorized_keys().with_file_name("cp.sock");
    let slots = slot(1, &format!("unix:{}", socket.display()));
    let pin = format!("host_keys = ['{}']", sshd.known_hosts_line());
    let pinned = before.lines().find(|line| line.starts_with("host_keys")).unwrap();
    agent.configure(&format!("{}{slots}\n[log]{log}", before.replace(pinned, &pin)));
    sshd.authorize(&agent.cli(&["keys", "show"]).await.stdout);
    let found = check(&agent, &[&sshd.destination()]).await;
    assert_eq!(found.code, Some(9), "{found:#?}");
    found.fails("forward", "a second time", "StreamLocalBindUnlink yes");
    assert!(!socket.exists(), "the tunnel's own place is as it was");
    let again = check(&agent, &[&sshd.destination()]).await;
    again.fails("forward", "refused to listen on unix:", "StreamLocalBindUnlink yes");

    std::fs::remove_file(socket.with_extension("sock.check")).unwrap();
    sshd.configure("AllowStreamLocalForwarding no").await;
    let found = check(&agent, &[&sshd.destination()]).await;
    found.fails("forward", "refused to listen on unix:", "AllowStreamLocalForwarding");
}

#[tokio::test]
async fn dropbear_is_checked_like_openssh() {
    let dropbear = Dropbear::start().await;
    let (agent, _echo) = controller(|setup| setup.pin(&dropbear.known_hosts_line())).await;
    dropbear.authorize(&agent.cli(&["keys", "show", "--authorized-keys", "--dropbear"]).await.stdout);
    let found = check(&agent, &[&dropbear.destination()]).await;
    assert_eq!(found.code, Some(0), "{found:#?}");
    assert!(found.lines("banner")[0]["text"].as_str().unwrap().starts_with("SSH-2.0-dropbear"), "{found:#?}");
    found.is_well("forward");
}

#[tokio::test]
async fn a_port_that_is_open_to_everybody_by_the_servers_settings_is_9() {
    let network = Network::new();
    let mut sshd = Sshd::start_at(network.address().into(), "").await;
    // In that network the local service would have to be there too; nobody is let through to it anyway.
    let (agent, _echo) = controller(|setup| {
        let runner = network.runner(setup.directory());
        setup.pin(&sshd.known_hosts_line()).runner(runner)
    })
    .await;
    sshd.authorize(&agent.authorized_keys_line().await);
    let found = check(&agent, &[&sshd.destination()]).await;
    found.is_well("forward");
    found.is_well("reach");
    assert!(found.lines("reach")[0]["text"].as_str().unwrap().contains("not open to others"), "{found:#?}");

    sshd.configure("GatewayPorts yes").await;
    let found = check(&agent, &[&sshd.destination()]).await;
    assert_eq!(found.code, Some(9), "{found:#?}");
    found.is_well("forward");
    found.fails("reach", "open to everybody", "GatewayPorts");

    // A port for everybody is one that the settings must allow.
    let text = agent.configuration();
    agent.configure(&text.replace("remote = 'localhost:", "remote = '*:"));
    sshd.authorize_nobody();
    sshd.authorize(&agent.cli(&["keys", "show"]).await.stdout);
    check(&agent, &[&sshd.destination()]).await.is_well("reach");
}

async fn check_csms(url: &str) -> Found {
    let line = format!("url = '{url}'");
    let (agent, _echo) = controller(|setup| {
        setup.ocpp("mode = 'direct'").ocpp(&line).ocpp("identity = 'CP001'").ocpp("security_profile = 0")
    })
    .await;
    check(&agent, &[]).await
}

#[tokio::test]
async fn what_keeps_the_ocpp_link_from_coming_about_is_named_with_its_step() {
    let answer =
        |text: &str| vec![Step::Request, Step::Bytes(format!("HTTP/1.1 {text}\r\n\r\n").into_bytes())];
    for (script, code, text, cure) in [
        (answer("401 Unauthorized"), 8, "HTTP 401", "ocpp.authorization_key_file"),
        (answer("403 Forbidden"), 8, "HTTP 403", "ocpp.identity"),
        (answer("404 Not Found"), 1, "HTTP 404", "the CSMS knows this ocpp.identity"),
        (answer("200 OK"), 1, "HTTP 200", "OCPP 1.6J"),
        (vec![Step::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())], 1, "doesn't speak HTTP", "OCPP 1.6J"),
    ] {
        let csms = BadCsms::start(script).await;
        let found = check_csms(&csms.url()).await;
        assert_eq!(found.code, Some(code), "{found:#?}");
        found.fails("ocpp", text, cure);
        assert_eq!(csms.connections(), 1, "one try is enough");
    }
    let found = check_csms(&format!("ws://127.0.0.1:{}/ocpp", ports::free())).await;
    assert_eq!(found.code, Some(6), "{found:#?}");
    found.fails("ocpp", "TCP: no connection", "firewall");
    // Behind wss:// something that speaks no TLS.
    let plain = BadCsms::start(vec![Step::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]).await;
    let found = check_csms(&plain.tls_url()).await;
    assert_eq!(found.code, Some(1), "{found:#?}");
    found.fails("ocpp", "TLS: ", "ocpp.ca_file");
}

#[tokio::test]
async fn a_csms_with_a_certificate_of_another_name_is_told_from_a_sound_one() {
    for (fault, code) in [(Fault::None, 0), (Fault::OtherName, 1)] {
        let csms = Csms::start(Options { tls: true, fault, ..Options::default() }).await;
        let (agent, _echo) = controller(|setup| setup.ocpp("mode = 'direct'").csms(&csms)).await;
        let found = check(&agent, &[]).await;
        assert_eq!(found.code, Some(code), "{found:#?}");
        match code {
            0 => assert!(
                found.lines("ocpp")[0]["text"].as_str().unwrap().contains("security profile 2"),
                "{found:#?}"
            ),
            _ => found.fails("ocpp", "TLS: ", "ocpp.ca_file"),
        }
    }
}

#[tokio::test]
async fn without_an_agent_the_csmss_answer_to_bootnotification_is_told() {
    for (answer, told) in [("Pending", "pending"), ("Rejected", "rejected")] {
        let csms = Csms::start(Options { boot: answer, ..Options::default() }).await;
        let (agent, _echo) = controller(|setup| setup.ocpp("mode = 'direct'").csms(&csms)).await;
        let found = check(&agent, &[]).await;
        assert_eq!(found.code, Some(1), "{found:#?}");
        found.fails("ocpp", &format!("BootNotification with {told}"), "accept this charge point");
        assert_eq!(found.lines("ocpp")[0]["result"], "ok", "the connection itself is well: {found:#?}");
    }
}

/// A 101 that accepts no subprotocol.
#[tokio::test]
async fn a_websocket_that_speaks_no_ocpp_is_told_from_a_csms() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ocpp", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // It accepts, and ignores what was asked for.
            let _ = tokio_tungstenite::accept_async(stream).await;
        }
    });
    let found = check_csms(&url).await;
    serving.abort();
    assert_eq!(found.code, Some(1), "{found:#?}");
    found.fails("ocpp", "subprotocol", "OCPP 1.6J");
}

#[tokio::test]
async fn the_agents_own_link_is_told_as_it_is() {
    let csms = Csms::start(Options { boot: "Rejected", ..Options::default() }).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    rig.agent.start().await;
    rig.agent.link_is("rejected").await;
    let found = check(&rig.agent, &[]).await;
    found.fails("ocpp", "rejected", "accept this charge point");
    assert_eq!(rig.csms.counts().await.connections, 1);

    rig.csms.kill().await;
    let cure = "check ocpp.url and ocpp.proxy";
    wait_until("nobody answers any more", LONG, async || {
        let status = rig.agent.status().await;
        status["ocpp"]["cure"].as_str().is_some_and(|told| told.starts_with(cure)).then_some(())
    })
    .await;
    let found = check(&rig.agent, &[]).await;
    found.fails("ocpp", "the agent's link to ws://", cure);
}

#[tokio::test]
async fn root_leaves_no_file_of_its_own_behind() {
    let sshd = Sshd::start().await;
    let (agent, _echo) = controller(|setup| setup.pin(&sshd.known_hosts_line())).await;
    sshd.authorize(&agent.authorized_keys_line().await);
    let owned = |path: &Path| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap());
    let output = run(Command::new("chown").args(["-R", "61234:61234"]).arg(agent.state_dir()), "").await;
    assert_eq!(output.code, Some(0), "{output:?}");
    std::fs::set_permissions(agent.directory(), PermissionsExt::from_mode(0o777)).unwrap();
    let found = check(&agent, &[&sshd.destination()]).await;
    assert_eq!(found.code, Some(0), "{found:#?}");
    let audit = agent.state_dir().join("audit");
    wait_until("a record is written", LONG, async || audit.is_dir().then_some(())).await;
    for file in std::fs::read_dir(&audit).unwrap() {
        assert_eq!(owned(&file.unwrap().path()), 61_234);
    }
}

#[tokio::test]
async fn an_agent_that_does_not_answer_fails_its_step_and_its_link_is_left_alone() {
    let mut rig = Rig::start().await;
    rig.agent.signal(Signal::SIGSTOP);
    let found = check(&rig.agent, &[]).await;
    // However long it would have waited for the tunnel; and nothing is opened later.
    let began = std::time::Instant::now();
    let opened = rig.agent.cli(&["open", "--wait"]).await;
    assert!(opened.code == Some(11) && began.elapsed() < OPEN_WAIT, "{opened:?}");
    rig.agent.signal(Signal::SIGCONT);
    assert_eq!(rig.agent.tunnel("1").await["state"], "idle");
    assert_eq!(found.code, Some(11), "{found:#?}");
    found.fails("agent", "", "");
    found.skips(&["ocpp"], "a second connection would end its own");
    found.is_well("login");
    assert_eq!(rig.csms.counts().await.connections, 1);
}

#[tokio::test]
async fn a_month_that_is_used_up_is_5_and_nothing_is_opened() {
    let mut rig = Rig::with(|setup| setup.policy("monthly_bytes = 20")).await;
    rig.open(1).await;
    let _ = exchange(rig.remote[0], &[7; 100]).await;
    rig.agent.tunnel_ends("1").await;
    let found = check(&rig.agent, &[]).await;
    assert_eq!(found.code, Some(5), "{found:#?}");
    found.fails("policy", "month's bytes are used up", "policy.monthly_bytes");
    found.skips(&["forward"], "the policy");
}
