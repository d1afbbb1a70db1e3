//! The command line, as scripts and people use it: output, exit codes, with and without a running agent.

use std::os::unix::net::UnixListener;
use std::process::Stdio;

use nix::sys::signal::Signal;
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::{Daemon, run};
use ocpp_tunnel_tests::rig::{PAGE, Rig};
use ocpp_tunnel_tests::{LONG, SHORT, ports, wait_until};
use serde_json::Value;
use tokio::process::Command;

/// A rig without a CSMS that anybody talks to and without a running agent, whose key is authorised all the same.
async fn no_agent() -> Rig {
    let csms = Csms::start(Options::default()).await;
    let rig = Rig::unstarted(csms, |setup| setup).await;
    rig.authorize(&rig.sshd).await;
    rig
}

#[tokio::test]
async fn status_has_the_fields_that_scripts_rely_on() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let output = rig.agent.cli(&["status", "--json"]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let status: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(status["schema"], 1);
    for (part, names) in [
        ("/agent", &["version", "since"][..]),
        ("/ocpp", &["mode", "state", "url", "profile", "since", "last_error"]),
        (
            "/tunnels/0",
            &[
                "id",
                "slot",
                "state",
                "reason",
                "server",
                "forwards",
                "since",
                "expires",
                "connections",
                "bytes_in",
                "bytes_out",
                "retry_at",
                "last_error",
            ],
        ),
        ("/month", &["name", "bytes", "cap"]),
        ("/tunnels/0/forwards/0", &["remote", "local"]),
    ] {
        let object = status.pointer(part).and_then(Value::as_object);
        let object = object.unwrap_or_else(|| panic!("no {part} in {status}"));
        for name in names {
            assert!(object.contains_key(*name), "{part} has no {name:?}: {status}");
        }
    }
    assert!(status["clock"] == "synced" || status["clock"] == "unset", "{status}");
    assert_eq!((&status["ocpp"]["mode"], &status["ocpp"]["profile"]), (&"direct".into(), &1.into()));
    assert!(status["ocpp"]["url"].as_str().unwrap().starts_with(&rig.csms.url()), "{status}");
    assert!(!output.stdout.contains("battery"), "no secrets");

    let words = rig.agent.cli(&["status"]).await;
    assert_eq!(words.code, Some(0));
    assert!(words.stdout.contains(&rig.sshd.destination()) && words.stdout.contains("up"), "{words:?}");
    assert!(!words.stdout.contains('\u{1b}'), "colours are for terminals: {words:?}");
}

#[tokio::test]
async fn open_and_close_do_what_a_trigger_does() {
    let mut rig = Rig::start().await;
    let destination = rig.sshd.destination();
    // Without --script it is script 1, without a destination the only exact entry of the allow-list.
    let opened = rig.agent.cli(&["open", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    rig.echo_returns().await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, destination);
    let opened = rig.agent.cli(&["open", &destination, "--script", "2", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert!(rig.fetch_page().await.ends_with(PAGE));

    assert_eq!(rig.agent.cli(&["close", "1"]).await.code, Some(0));
    rig.port_is_free(1).await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("user"));
    assert!(rig.fetch_page().await.ends_with(PAGE));
    assert_eq!(rig.agent.cli(&["close", "--all"]).await.code, Some(0));
    rig.port_is_free(2).await;
    assert_eq!(rig.csms.value("InvokeCustomScript2").await, "");
    assert_eq!(rig.agent.cli(&["status"]).await.code, Some(0), "none is wanted");
}

#[tokio::test]
async fn a_wait_is_shown_on_a_terminal_and_nowhere_else() {
    let rig = Rig::start().await;
    let shown = rig.agent.dialogue(&["open", "--wait"], &[]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("\r\x1b[K... waiting for the tunnel\r\x1b[Ktunnel 1 "), "{shown:?}");
    let silent = rig.agent.cli(&["open", "--wait"]).await;
    assert_eq!((silent.code, silent.stderr.as_str()), (Some(0), ""), "{silent:?}");
}

#[tokio::test]
async fn a_forward_of_its_own_gets_an_id_of_its_own() {
    let rig = Rig::start().await;
    // The authorised line allows the scripts' ports only.
    let key = rig.agent.cli(&["keys", "show"]).await.stdout;
    rig.sshd.authorize_nobody();
    rig.sshd.authorize(&key);
    let (first, second) = (ports::free(), ports::free());
    let forwards =
        [format!("{first}:{}", rig.echo.address()), format!("localhost:{second}:{}", rig.page.address())];
    let destination = rig.sshd.destination();
    let opened = rig
        .agent
        .cli(&["open", &destination, "--forward", &forwards[0], "--forward", &forwards[1], "--wait"])
        .await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let tunnel = rig.agent.tunnel_is("t1", "up").await;
    assert_eq!(tunnel["forwards"].as_array().map(Vec::len), Some(2), "{tunnel}");
    assert_eq!(rig.sshd.logins(), 1, "one connection a tunnel");
    assert_eq!(ocpp_tunnel_tests::service::exchange(first, b"ping").await.unwrap(), b"ping");
    assert!(ocpp_tunnel_tests::service::fetch(second).await.unwrap().ends_with(PAGE));

    // A port that this device has there itself isn't asked for: the server would only say that it is taken.
    let again = rig.agent.cli(&["open", &destination, "--forward", &forwards[1], "--wait"]).await;
    assert_eq!(again.code, Some(9), "{again:?}");
    assert!(
        again.stderr.contains(&format!("localhost:{second} of that server is tunnel t1's already")),
        "{again:?}"
    );
    assert!(again.stderr.contains("`ocpp-tunnel close t1`"), "{again:?}");
    let chosen = ["open", &destination, "--forward", &format!("0:{}", rig.echo.address()), "--wait"];
    let opened = rig.agent.cli(&chosen).await;
    assert_eq!(opened.code, Some(0), "the server chooses one: {opened:?}");
    assert_eq!(rig.agent.cli(&["close", "t2"]).await.code, Some(0));

    assert_eq!(rig.agent.cli(&["close", "t1"]).await.code, Some(0));
    for port in [first, second] {
        wait_until("the port is free", LONG, async || ports::is_free(port).then_some(())).await;
    }
}

/// Whoever has followed the cure and asks again is told what came of that, and not what was wrong before.
#[tokio::test]
async fn who_asks_again_is_told_of_the_new_attempt() {
    let rig = Rig::start().await;
    let key = rig.agent.cli(&["keys", "show"]).await.stdout;
    for _ in 0..5 {
        rig.sshd.authorize_nobody();
        let refused = rig.agent.cli(&["open", "--wait"]).await;
        assert_eq!(refused.code, Some(8), "{refused:?}");
        let cure = format!("`ocpp-tunnel keys install {}`", rig.sshd.destination());
        assert!(refused.stderr.contains(&cure), "{refused:?}");
        rig.sshd.authorize(&key);
        let opened = rig.agent.cli(&["open", "--wait"]).await;
        assert_eq!(opened.code, Some(0), "{opened:?}");
        assert_eq!(rig.agent.cli(&["close", "1"]).await.code, Some(0));
        rig.agent.tunnel_ends("1").await;
    }
}

#[tokio::test]
async fn exit_codes_tell_what_went_wrong() {
    let mut rig = Rig::start().await;
    let destination = rig.sshd.destination();
    let nobody = format!("support@127.0.0.1:{}", ports::free());
    let too_long = format!("support@{}", "a".repeat(500));
    let cases: &[(&[&str], i32)] = &[
        (&["status"], 0),
        (&["frobnicate"], 2),
        (&[], 2),
        (&["open", "nonsense"], 2),
        (&["open", "support@127.0.0.1. -oProxyCommand=id"], 2),
        (&["open", "support@[fe80::1%eth0]"], 2),
        (&["open", &too_long], 2),
        (&["open", &destination, "--for", "soon"], 2),
        (&["open", &destination, "--script", "one"], 2),
        (&["logs", "-n", "some"], 2),
        (&["open", &destination, "--forward", "nonsense"], 2),
        (&["open", &destination, "--script", "1", "--forward", "1:127.0.0.1:2"], 2),
        (&["open", &destination, "--script", "3"], 4),
        (&["close", "7"], 4),
        (&["close", "t9"], 4),
        (&["open", &destination, "--for", "9h"], 5),
        (&["open", &nobody, "--script", "2", "--wait"], 6),
        (&["config", "check"], 0),
        (&["config", "show"], 0),
        (&["keys", "show"], 0),
        (&["--help"], 0),
        (&["help"], 0),
        (&["help", "keys", "rotate"], 0),
        (&["--version"], 0),
    ];
    for (arguments, code) in cases {
        let output = rig.agent.cli(arguments).await;
        assert_eq!(output.code, Some(*code), "{arguments:?}: {output:?}");
        let silent = output.stderr.trim().is_empty();
        assert!(*code == 0 || !silent, "{arguments:?}: a failure is explained on standard error");
        assert!(!output.stderr.contains("panicked"), "{arguments:?}: {output:?}");
    }

    rig.agent.terminate().await;
    for arguments in [&["status"][..], &["status", "--json"], &["close", "1"], &["close", "--all"]] {
        let output = rig.agent.cli(arguments).await;
        assert_eq!(output.code, Some(10), "{arguments:?}: {output:?}");
        assert!(!output.stderr.trim().is_empty(), "{arguments:?}: {output:?}");
    }
}

#[tokio::test]
async fn a_refused_forward_has_an_exit_code_of_its_own() {
    let rig = Rig::start().await;
    rig.sshd.authorize_nobody();
    let key = rig.agent.cli(&["keys", "show"]).await.stdout;
    rig.sshd.authorize(&format!("restrict,port-forwarding,permitlisten=\"localhost:1\" {key}"));
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(9), "{opened:?}");
    assert!(rig.sshd.logins() >= 1);
}

/// A malformed destination is found before any file is read.
#[tokio::test]
async fn a_malformed_destination_is_a_usage_error_even_without_a_configuration() {
    let rig = no_agent().await;
    let mut command = rig.agent.binary();
    command.args(["--config", "/nonexistent/config.toml", "open", "$(reboot)@host"]);
    let output = run(&mut command, "").await;
    assert_eq!(output.code, Some(2), "{output:?}");
    let mut command = rig.agent.binary();
    command.args(["status", "--config", "/nonexistent/config.toml"]);
    let output = run(&mut command, "").await;
    assert_eq!(output.code, Some(78), "--config goes after the command as well: {output:?}");
    assert!(output.stderr.contains("/nonexistent/config.toml"), "{output:?}");
}

#[tokio::test]
async fn a_second_agent_exits_1_and_names_the_first() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let second = rig.agent.cli(&["run"]).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains(&rig.agent.pid().to_string()), "{second:?}");
    assert!(rig.echoes().await);
    assert_eq!(rig.agent.cli(&["status"]).await.code, Some(0));
    assert_eq!(rig.csms.counts().await.connections, 1);
}

#[tokio::test]
async fn a_stale_socket_is_no_obstacle() {
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    let runtime_dir = rig.agent.runtime_dir();
    std::fs::create_dir_all(&runtime_dir).unwrap();
    drop(UnixListener::bind(runtime_dir.join("control.sock")).unwrap());
    let status = rig.agent.cli(&["status"]).await;
    assert_eq!(status.code, Some(10), "{status:?}");
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;

    rig.agent.kill().await;
    assert!(runtime_dir.join("control.sock").exists());
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
}

#[tokio::test]
async fn the_control_socket_is_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::start().await;
    let mode = |name: &str| {
        std::fs::metadata(rig.agent.runtime_dir().join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("control.sock"), 0o660);
    assert_eq!(mode("."), 0o750);
}

#[tokio::test]
async fn open_without_an_agent_runs_the_tunnel_in_the_foreground() {
    let rig = no_agent().await;
    let mut command = rig.agent.command(&["open", &rig.sshd.destination()]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut open = Daemon::start(&mut command, &rig.agent.directory().join("log"));
    wait_until("the tunnel is up", LONG, async || {
        assert!(open.is_running(), "{}", open.log());
        rig.echoes().await.then_some(())
    })
    .await;
    // The same lock and the same socket as a service's.
    assert_eq!(rig.agent.tunnel("1").await["state"], "up");
    assert_eq!(rig.agent.cli(&["status"]).await.code, Some(0));
    let second = rig.agent.cli(&["run"]).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains(&open.pid().to_string()), "{second:?}");

    assert_eq!(rig.agent.cli(&["close", "1"]).await.code, Some(0));
    let status = open.ended(LONG).await;
    assert_eq!(status.code(), Some(0), "{}", open.log());
    rig.port_is_free(1).await;
    assert_eq!(rig.agent.cli(&["status"]).await.code, Some(10));
}

#[tokio::test]
async fn open_in_the_foreground_ends_with_sigterm_and_leaves_nothing_behind() {
    let rig = no_agent().await;
    let mut command = rig.agent.command(&["open", &rig.sshd.destination(), "--script", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut open = Daemon::start(&mut command, &rig.agent.directory().join("log"));
    wait_until("the tunnel is up", LONG, async || ports::answers(rig.remote[1]).then_some(())).await;
    assert!(rig.fetch_page().await.ends_with(PAGE));
    open.signal(Signal::SIGTERM);
    open.ended(LONG).await;
    rig.port_is_free(2).await;
}

#[tokio::test]
async fn open_without_an_agent_goes_to_the_background_on_request() {
    let rig = no_agent().await;
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--background", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
    // A second one is a command to the first.
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--script", "2", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert!(rig.fetch_page().await.ends_with(PAGE));

    assert_eq!(rig.agent.cli(&["close", "--all"]).await.code, Some(0));
    rig.port_is_free(1).await;
    rig.port_is_free(2).await;
    wait_until("nothing runs any more", LONG, async || {
        (rig.agent.cli(&["status"]).await.code == Some(10)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn open_without_an_agent_says_what_went_wrong() {
    let rig = no_agent().await;
    let nobody = format!("support@127.0.0.1:{}", ports::free());
    let opened = rig.agent.cli(&["open", &nobody, "--background", "--wait"]).await;
    assert_eq!(opened.code, Some(6), "{opened:?}");
    // It goes on trying, or has ended; what is left can be closed.
    rig.agent.cli(&["close", "--all"]).await;
    wait_until("nothing runs any more", LONG, async || {
        (rig.agent.cli(&["status"]).await.code == Some(10)).then_some(())
    })
    .await;
}

/// In a network namespace without any interface, so that nobody out there is asked for the name.
#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_told_apart() {
    let rig = no_agent().await;
    let open = rig.agent.command(&["open", "support@controller.example.com", "--background", "--wait"]);
    let mut command = Command::new("unshare");
    command.arg("--net").arg(open.as_std().get_program()).args(open.as_std().get_args());
    let output = run(&mut command, "").await;
    assert_eq!(output.code, Some(6), "{output:?}");
    assert!(output.stderr.contains("DNS") && output.stderr.contains("controller.example.com"), "{output:?}");
}

#[tokio::test]
async fn mistakes_in_the_configuration_are_named_with_their_place() {
    let rig = no_agent().await;
    let good = rig.agent.configuration();
    let path = rig.agent.config_path();
    let cases = [
        ("state_dir = ", "colour = 'blue'\nstate_dir = ", "colour"),
        ("[policy]\n", "[policy]\nmax_connections = 'many'\n", "many"),
        ("[policy]\n", "[policy]\nmax_duration = 'long'\n", "max_duration"),
        ("allow_destinations = [", "allow_destinations = ['support@ho st', ", "ho st"),
        ("security_profile = 1", "security_profile = 'two'", "two"),
        ("remote = 'localhost:", "remote = 'localhost:x", "localhost:x"),
        ("key = 'InvokeCustomScript1'", "key = 'HeartbeatInterval'", "HeartbeatInterval"),
        ("key = 'InvokeCustomScript2'", "key = 'invokecustomscript1'", "nvoke"),
        ("url = 'ws://", "url = 'http://", "http"),
        ("host_keys = [", "host_keys = ['nonsense', ", "nonsense"),
        ("[log]\n", "[log]\nlevel = \n", ""),
        ("[log]\n", "[logs]\n", "logs"),
        ("[log]\n", "[console]\n[log]\n", "console"),
        ("state_dir = '", "state_dir = 'state", "state"),
    ];
    for (old, new, named) in cases {
        let bad = good.replacen(old, new, 1);
        assert_ne!(bad, good, "{old} is in the configuration");
        rig.agent.configure(&bad);
        let checked = rig.agent.cli(&["config", "check"]).await;
        assert_eq!(checked.code, Some(78), "{new}: {checked:?}");
        let place = format!("{}:", path.display());
        let rest = checked.stderr.split_once(&place).unwrap_or_else(|| panic!("{new}: {checked:?}")).1;
        let mut numbers = rest.splitn(3, ':');
        let line: usize = numbers.next().unwrap().parse().unwrap_or_else(|_| panic!("{new}: {checked:?}"));
        let column: usize = numbers.next().unwrap().parse().unwrap_or_else(|_| panic!("{new}: {checked:?}"));
        let text = bad.lines().nth(line - 1).unwrap_or_default();
        assert!(
            text.contains(new.trim_end().lines().last().unwrap().trim()) || text.contains(named),
            "{new}: {text}"
        );
        assert!(column >= 1 && column <= text.len() + 1, "{new}: {checked:?}");
        assert!(rest.contains(named), "{new}: {checked:?}");
        let run = rig.agent.cli(&["run"]).await;
        assert_eq!(run.code, Some(78), "{new}: {run:?}");
    }

    // What only a look at the disk tells.
    std::fs::write(rig.agent.directory().join("file"), "").unwrap();
    let state_dir = rig.agent.state_dir().display().to_string();
    rig.agent.configure(&good.replace(&state_dir, &format!("{}/file", rig.agent.directory().display())));
    let checked = rig.agent.cli(&["config", "check"]).await;
    assert_eq!(checked.code, Some(78), "{checked:?}");
    assert!(
        checked.stderr.contains(":1:13: state_dir") && checked.stderr.contains("not a directory"),
        "{checked:?}"
    );

    let without_url: String =
        good.lines().filter(|line| !line.starts_with("url =")).flat_map(|l| [l, "\n"]).collect();
    rig.agent.configure(&without_url);
    let checked = rig.agent.cli(&["config", "check"]).await;
    assert_eq!(checked.code, Some(78), "{checked:?}");
    assert!(checked.stderr.contains("url"), "{checked:?}");
}

#[tokio::test]
async fn config_show_prints_the_defaults_and_no_secrets() {
    let rig = no_agent().await;
    let shown = rig.agent.cli(&["config", "show"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for part in
        ["keepalive_interval", "opens_per_hour", "allow_destinations", &rig.sshd.destination(), "CP001"]
    {
        assert!(shown.stdout.contains(part), "{part} in {}", shown.stdout);
    }
    assert!(!shown.stdout.contains("battery") && !shown.stdout.contains("PRIVATE KEY"), "{}", shown.stdout);
}

#[tokio::test]
async fn keys_show_needs_no_agent_and_always_shows_the_same_key() {
    let rig = no_agent().await;
    let first = rig.agent.cli(&["keys", "show"]).await;
    let second = rig.agent.cli(&["keys", "show"]).await;
    assert_eq!((first.code, &first.stdout), (Some(0), &second.stdout), "{first:?}");
    let line = rig.agent.cli(&["keys", "show", "--authorized-keys"]).await.stdout;
    assert_eq!(line.lines().count(), 1);
    let key = first.stdout.split(' ').nth(1).unwrap().trim_end();
    assert!(line.contains(key), "{line}");
}

#[tokio::test]
async fn what_was_typed_neither_steers_the_terminal_nor_floods_it() {
    let rig = no_agent().await;
    let long = "x".repeat(100_000);
    for arguments in [
        &["\u{1b}[2Jx"][..],
        &["open", "a\u{1b}[31m@b"],
        &["audit", "--type", "\u{9b}31m"],
        &["close", "\u{1b}]0;owned\u{7}"],
        &[&long],
        &["open", &long],
        &["close", &long],
    ] {
        let output = rig.agent.cli(arguments).await;
        assert_eq!(output.code, Some(2), "{arguments:.100?}: {output:.300?}");
        assert!(output.stderr.len() < 2000, "{arguments:.100?}: {} bytes", output.stderr.len());
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!output.stderr.contains(steers), "{arguments:.100?}: {:?}", output.stderr);
    }
}

#[tokio::test]
async fn output_that_is_lost_is_told_and_one_that_nobody_reads_is_not() {
    let rig = no_agent().await;
    for (command, code) in [("keys show", 1), ("config show", 1), ("config check", 1)] {
        let words: Vec<&str> = command.split(' ').collect();
        let line = rig.agent.line(&words);
        let full = run(Command::new("sh").args(["-c", &format!("{line} >/dev/full")]), "").await;
        assert_eq!(full.code, Some(code), "{command}: {full:?}");
        assert!(full.stderr.contains("can't write to standard output: No space left"), "{command}: {full:?}");
    }
    let line = format!("{} | true; echo ${{PIPESTATUS[0]}}", rig.agent.line(&["config", "show"]));
    let unread = run(Command::new("bash").args(["-c", &line]), "").await;
    assert_eq!((unread.stdout.as_str(), unread.stderr.as_str()), ("0\n", ""), "{unread:?}");
}

#[tokio::test]
async fn close_without_an_agent_and_nonsense_on_the_socket_harm_nothing() {
    let rig = Rig::start().await;
    let mut socket =
        tokio::net::UnixStream::connect(rig.agent.runtime_dir().join("control.sock")).await.unwrap();
    let noise = vec![b'x'; 1 << 20];
    // The agent may hang up in the middle of it.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, &noise).await;
    let silent = tokio::net::UnixStream::connect(rig.agent.runtime_dir().join("control.sock")).await.unwrap();
    tokio::time::sleep(SHORT).await;
    assert_eq!(rig.agent.cli(&["status"]).await.code, Some(0));
    drop((socket, silent));
}
