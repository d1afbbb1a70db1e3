//! One agent at a time, whoever starts it and whatever becomes of `runtime_dir`.
#![allow(clippy::unwrap_used, reason = "helpers outside of test functions")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use ocpp_tunnel_tests::agent::Setup;
use ocpp_tunnel_tests::check::Found;
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::{self, Daemon};
use ocpp_tunnel_tests::rig::{PAGE, Rig};
use ocpp_tunnel_tests::{LONG, SHORT, wait_until};

/// An agent looks after its place every twenty seconds.
const NEXT_LOOK: Duration = Duration::from_secs(60);

/// A rig without an OCPP link and without a running agent, whose key is authorised all the same.
async fn no_agent() -> Rig {
    let csms = Csms::start(Options::default()).await;
    let rig = Rig::unstarted(csms, without_ocpp).await;
    rig.authorize(&rig.sshd).await;
    rig
}

fn without_ocpp(setup: Setup) -> Setup {
    setup.ocpp("mode = 'off'")
}

/// Closes everything, and waits until nobody keeps a tunnel any more.
async fn close_all(rig: &Rig) {
    assert_eq!(rig.agent.cli(&["close", "--all"]).await.code, Some(0));
    wait_until("nothing runs any more", LONG, async || {
        (rig.agent.cli(&["status"]).await.code == Some(10)).then_some(())
    })
    .await;
}

/// The configuration of a second agent, which has the first one's but for this directory.
fn with_another(rig: &Rig, key: &str, directory: &Path) -> PathBuf {
    let line = |directory: &Path| format!("{key} = '{}'", directory.display());
    let (own, another) = (line(directory), line(&rig.agent.directory().join("another")));
    assert!(rig.agent.configuration().contains(&own));
    let path = rig.agent.directory().join("second.toml");
    std::fs::write(&path, rig.agent.configuration().replace(&own, &another)).unwrap();
    path
}

#[tokio::test]
async fn background_opens_at_once_share_one_agent() {
    let rig = no_agent().await;
    let destination = rig.sshd.destination();
    for _ in 0..3 {
        let opens =
            ["1", "2", "1", "2"].map(|script| {
                let (agent, destination) = (&rig.agent, &destination);
                async move {
                    agent.cli(&["open", destination, "--script", script, "--background", "--wait"]).await
                }
            });
        for opened in join_all(opens).await {
            assert_eq!(opened.code, Some(0), "{opened:?}");
        }
        assert!(rig.echoes().await);
        assert!(rig.fetch_page().await.ends_with(PAGE));
        wait_until("one agent is left", LONG, async || {
            (process::living_in(rig.agent.directory()).len() == 1).then_some(())
        })
        .await;
        close_all(&rig).await;
    }
}

#[tokio::test]
async fn foreground_opens_at_once_share_one_agent() {
    let rig = no_agent().await;
    let destination = rig.sshd.destination();
    let mut opens: Vec<Daemon> = (0..4)
        .map(|number| {
            let script = if number % 2 == 0 { "1" } else { "2" };
            let mut command = rig.agent.command(&["open", &destination, "--script", script]);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            Daemon::start(&mut command, &rig.agent.directory().join(format!("log{number}")))
        })
        .collect();
    wait_until("one of them keeps the tunnels", LONG, async || {
        (opens.iter_mut().filter_map(|open| open.is_running().then_some(())).count() == 1).then_some(())
    })
    .await;
    rig.agent.tunnel_is("1", "up").await;
    rig.agent.tunnel_is("2", "up").await;
    rig.echo_returns().await;
    close_all(&rig).await;
    for open in &mut opens {
        let status = open.ended(LONG).await;
        assert_eq!(status.code(), Some(0), "{}", open.log());
    }
}

#[tokio::test]
async fn shims_at_once_share_one_agent() {
    let rig = no_agent().await;
    let destination = rig.sshd.destination();
    let arguments = [&*destination];
    for shim in join_all([1, 2].map(|script| rig.agent.shim(script, &arguments))).await {
        assert_eq!((shim.code, shim.stderr.as_str()), (Some(0), ""), "{shim:?}");
    }
    rig.agent.tunnel_is("1", "up").await;
    rig.agent.tunnel_is("2", "up").await;
    assert_eq!(rig.agent.syslog().count("script-failed"), 0);
    close_all(&rig).await;
}

/// As while another agent starts, and then gives up: it has the lock and answers nobody.
#[tokio::test]
async fn who_comes_second_is_served_even_if_the_first_gives_up() {
    let rig = no_agent().await;
    let destination = rig.sshd.destination();
    std::fs::create_dir_all(rig.agent.runtime_dir()).unwrap();
    let lock = || {
        let path = rig.agent.runtime_dir().join("agent.lock");
        let file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        // An agent that has closed everything holds it until its last record is written.
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap()
    };
    let give_up = async |lock: Flock<std::fs::File>| {
        tokio::time::sleep(SHORT).await;
        drop(lock);
    };

    let open = ["open", &destination, "--background", "--wait"];
    let (opened, ()) = tokio::join!(rig.agent.cli(&open), give_up(lock()));
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert!(rig.echoes().await);
    close_all(&rig).await;

    let arguments = [&*destination];
    let (shim, ()) = tokio::join!(rig.agent.shim(1, &arguments), give_up(lock()));
    assert_eq!((shim.code, shim.stderr.as_str()), (Some(0), ""), "{shim:?}");
    rig.agent.tunnel_is("1", "up").await;
    close_all(&rig).await;

    let mut command = rig.agent.command(&["open", &destination]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let held = lock();
    let mut open = Daemon::start(&mut command, &rig.agent.directory().join("log"));
    give_up(held).await;
    wait_until("the tunnel is up", LONG, async || {
        assert!(open.is_running(), "{}", open.log());
        rig.echoes().await.then_some(())
    })
    .await;
    close_all(&rig).await;
    assert_eq!(open.ended(LONG).await.code(), Some(0), "{}", open.log());
}

#[tokio::test]
async fn an_agent_whose_runtime_dir_was_removed_takes_its_place_again() {
    let mut rig = no_agent().await;
    rig.agent.start().await;
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    std::fs::remove_dir_all(rig.agent.runtime_dir()).unwrap();
    assert_eq!(rig.agent.cli(&["status"]).await.code, Some(10));
    assert!(rig.echoes().await, "the tunnel doesn't need it");

    wait_until("it can be asked again", NEXT_LOOK, async || {
        (rig.agent.cli(&["status"]).await.code == Some(0)).then_some(())
    })
    .await;
    assert_eq!(rig.agent.log().matches("runtime-dir-restored").count(), 1);
    assert_eq!(rig.agent.tunnel("1").await["state"], "up");
    assert_eq!(rig.sshd.logins(), 1);
    let second = rig.agent.cli(&["run"]).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains(&rig.agent.pid().to_string()), "{second:?}");
    // What is wanted is there again for the next start, too.
    wait_until("what is wanted is kept", LONG, async || {
        rig.agent.runtime_dir().join("wanted.json").exists().then_some(())
    })
    .await;
    rig.agent.terminate().await;
    assert!(!rig.agent.runtime_dir().join("control.sock").exists());
}

/// What a user who may only read can lock, nothing waits for.
#[tokio::test]
async fn nobody_elses_lock_stops_the_agent() {
    let mut rig = no_agent().await;
    rig.agent.start().await;
    for directory in [rig.agent.state_dir(), rig.agent.runtime_dir()] {
        let mode = std::fs::metadata(directory.join("agent.lock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "who can't open it can't lock it");
    }
    let directory = std::fs::File::open(rig.agent.state_dir()).unwrap();
    let lock = Flock::lock(directory, FlockArg::LockExclusive).unwrap();
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert_eq!(rig.agent.cli(&["status"]).await.code, Some(0));
    wait_until("the log tells of it", LONG, async || {
        rig.agent.log().contains("key-rotation-held-up").then_some(())
    })
    .await;
    let rotate = rig.agent.cli(&["keys", "rotate"]).await;
    assert!(rotate.code == Some(11) && rotate.stderr.contains("lslocks"), "{rotate:?}");
    drop(lock);
    assert_eq!(rig.agent.cli(&["keys", "rotate"]).await.code, Some(0));
}

#[tokio::test]
async fn no_core_file_gets_the_keys() {
    let mut rig = no_agent().await;
    rig.agent.start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", rig.agent.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

#[tokio::test]
async fn two_agents_do_not_share_a_state_dir() {
    let mut rig = no_agent().await;
    rig.agent.start().await;
    let path = with_another(&rig, "runtime_dir", &rig.agent.runtime_dir());
    let second = process::run(rig.agent.binary().arg("--config").arg(&path).arg("run"), "").await;
    assert_eq!(second.code, Some(1), "{second:?}");
    let told = format!(
        "another agent, process {}, uses state_dir {}",
        rig.agent.pid(),
        rig.agent.state_dir().display()
    );
    assert!(second.stderr.contains(&told) && second.stderr.contains("a state_dir of its own"), "{second:?}");
    let check =
        process::run(rig.agent.binary().arg("--config").arg(&path).args(["check", "--json"]), "").await;
    let found = Found::of(&check);
    found.fails("agent", "uses state_dir", "--config");
    assert_eq!(found.code, Some(10), "{found:#?}");
    // Nor if the first one's lock is gone.
    std::fs::remove_dir_all(rig.agent.runtime_dir()).unwrap();
    let third = rig.agent.cli(&["run"]).await;
    assert!(third.code == Some(1), "{third:?}");
    // Who has ended leaves it to the next one.
    rig.agent.terminate().await;
    let mut command = rig.agent.binary();
    command.arg("--config").arg(&path).arg("run").stdin(Stdio::null()).stdout(Stdio::null());
    let mut next = Daemon::start(&mut command, &rig.agent.directory().join("next"));
    wait_until("the next one runs", LONG, async || next.log().contains("agent-started").then_some(())).await;
    next.signal(Signal::SIGTERM);
    next.ended(LONG).await;
}

#[tokio::test]
async fn an_agent_whose_place_was_taken_says_so_and_leaves_it_alone() {
    let mut rig = no_agent().await;
    rig.agent.start().await;
    let path = with_another(&rig, "state_dir", &rig.agent.state_dir());
    let mut second = loop {
        let _ = std::fs::remove_dir_all(rig.agent.runtime_dir());
        let mut command = rig.agent.binary();
        command.arg("--config").arg(&path).arg("run");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut second = Daemon::start(&mut command, &rig.agent.directory().join("second"));
        let started = wait_until("the second agent runs or has ended", LONG, async || {
            let answers = rig.agent.cli(&["status"]).await.code == Some(0);
            (answers || !second.is_running()).then(|| second.is_running())
        })
        .await;
        // Unless the first one has just looked after its place.
        if started && rig.agent.status().await["agent"]["pid"] == second.pid() {
            break second;
        }
    };
    wait_until("the first one says so", NEXT_LOOK, async || {
        rig.agent.log().contains("runtime-dir-lost").then_some(())
    })
    .await;
    let named = rig
        .agent
        .log()
        .lines()
        .any(|line| line.contains("runtime-dir-lost") && line.contains(&second.pid().to_string()));
    assert!(named, "{}", rig.agent.log());

    rig.agent.terminate().await;
    let status = rig.agent.status().await;
    assert_eq!(status["agent"]["pid"], second.pid(), "the second one's socket is still there");
    assert_eq!(rig.agent.cli(&["run"]).await.code, Some(1), "and so is its lock");
    assert_eq!(rig.agent.log().matches("runtime-dir-lost").count(), 1);
    second.signal(Signal::SIGTERM);
    second.ended(LONG).await;
    assert!(!rig.agent.runtime_dir().join("control.sock").exists());
}
