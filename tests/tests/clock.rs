//! A clock that was never set, as a controller without a battery has it, and one that is set while the agent runs. Played by
//! libfaketime; the monotonic clock is the real one.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ocpp_tunnel_tests::agent::Setup;
use ocpp_tunnel_tests::check::check;
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::write_program;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::tls::Fault;
use ocpp_tunnel_tests::{LONG, wait_until};

/// Where Debian has it, whatever the machine.
fn library() -> PathBuf {
    let directories = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let files = directories.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    files.into_iter().find(|file| file.exists()).unwrap_or_else(|| panic!("Debian's libfaketime isn't here"))
}

/// Plays the time in this file to the agent and to its commands; a change of the file holds at once.
fn at(setup: Setup, time: &str) -> (Setup, PathBuf) {
    let file = setup.directory().join("faketime");
    std::fs::write(&file, time).unwrap();
    let runner = setup.directory().join("at-time");
    let script = format!(
        "#!/bin/sh\nexport LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\nexec \"$@\"\n",
        library().display(),
        file.display()
    );
    write_program(&runner, &script);
    (setup.runner(runner), file)
}

/// A few seconds after power came.
const NEVER_SET: &str = "@1970-01-01 00:00:20";

async fn rig(options: Options, change: impl FnOnce(Setup) -> Setup) -> (Rig, PathBuf) {
    let csms = Csms::start(options).await;
    let (setup, file) = at(Setup::new(), NEVER_SET);
    let mut rig = Rig::unstarted_with(setup, csms, change).await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    (rig, file)
}

#[tokio::test]
async fn with_a_clock_that_was_never_set_tunnels_open_and_everybody_is_told() {
    // The CSMS's certificate is judged by the build's time.
    let options = Options { tls: true, ..Options::default() };
    let (mut rig, _) = rig(options, |setup| setup.policy("max_duration = '6s'")).await;
    rig.agent.link_is("accepted").await;
    assert!(rig.agent.log().contains("ocpp-certificate-taken-without-clock"));
    let began = Instant::now();
    rig.open(1).await;
    assert!(rig.echoes().await);
    let status = rig.agent.status().await;
    assert_eq!(status["clock"], "unset", "{status}");
    let people = rig.agent.cli(&["status"]).await;
    assert!(people.stdout.contains("\nclock not set: times below are not to be trusted"), "{people:?}");
    let found = check(&rig.agent, &[]).await;
    assert_eq!(found.code, Some(1), "{found:#?}");
    found.fails("clock", "1970-01-01T00:0", "NTP");
    for step in ["key", "host-key", "login", "forward", "ocpp"] {
        found.is_well(step);
    }
    // Times are the CSMS's once it has told one, and are marked all the same.
    let record = rig.agent.record("tunnel-opened").await;
    assert_eq!(record["clock"], "unset", "{record}");
    assert!(record["time"].as_str().unwrap().starts_with("20"), "{record}");
    let first = rig.agent.record("agent-started").await;
    assert!(first["time"].as_str().unwrap().starts_with("1970-01-01T00:0"), "{first}");
    // The limit is measured by the clock that nobody sets.
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("expired"));
    let took = began.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test]
async fn a_clock_that_is_set_while_tunnels_are_up_ends_nothing() {
    let (mut rig, file) = rig(Options::default(), |setup| setup.policy("max_duration = '1h'")).await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    let since = rig.agent.status().await["agent"]["since"].as_str().unwrap().to_owned();
    assert!(since.starts_with("20"), "the CSMS has told the time: {since}");
    // To the present, years ahead, and back.
    for (time, word) in
        [("+0", "synced"), ("@2049-05-05 05:05:05", "synced"), (NEVER_SET, "unset"), ("+0", "synced")]
    {
        std::fs::write(&file, time).unwrap();
        wait_until("the clock is another one", LONG, async || {
            (rig.agent.status().await["clock"] == word).then_some(())
        })
        .await;
        assert!(rig.echoes().await, "{time}");
        let tunnel = rig.agent.tunnel("1").await;
        assert_eq!(tunnel["state"], "up", "{time}: {tunnel}");
        assert_eq!(rig.agent.status().await["ocpp"]["state"], "accepted", "{time}");
    }
    assert_eq!(rig.csms.change("HeartbeatInterval", "70").await, "Accepted");
    assert_eq!((rig.sshd.logins(), rig.csms.counts().await.connections), (1, 1));
    let records = rig.agent.records(&[]).await;
    let clocks = |word: &str| records.iter().filter(|record| record["clock"] == word).count();
    assert!(clocks("unset") > 0 && clocks("synced") > 0, "{records:#?}");
    // The monotonic clock orders them.
    let uptimes: Vec<f64> = records.iter().filter_map(|record| record["uptime"].as_f64()).collect();
    assert!(uptimes.is_sorted(), "{uptimes:?}");
    assert!(rig.agent.terminate().await.success());
}

#[tokio::test]
async fn a_certificate_that_had_ended_before_the_build_is_refused_and_the_clock_is_named() {
    let options = Options { tls: true, fault: Fault::Expired, ..Options::default() };
    let (rig, _) = rig(options, |setup| setup).await;
    let link = wait_until("the link says why", LONG, async || {
        let mut status = rig.agent.status().await;
        status["ocpp"]["last_error"].is_string().then(|| status["ocpp"].take())
    })
    .await;
    let error = link["last_error"].as_str().unwrap();
    assert!(error.contains("TLS") && error.contains("expired"), "{link}");
    assert!(link["cure"].as_str().unwrap().contains("clock"), "{link}");
    // Tunnels don't depend on it.
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
}

/// A host's certificate has a time that nobody can judge without a clock; it is tried again until somebody sets it.
#[tokio::test]
async fn a_host_certificate_waits_for_the_clock() {
    let (mut rig, file) = rig(Options::default(), Setup::pin_nothing).await;
    let authority = rig.agent.directory().join("host-ca");
    let keygen = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("ssh-keygen");
        let made = ocpp_tunnel_tests::process::run(command.args(arguments), "").await;
        assert_eq!(made.code, Some(0), "{made:?}");
    };
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", authority.to_str().unwrap()]).await;
    let public = rig.sshd.host_key().private().with_extension("pub");
    let sign =
        ["-q", "-h", "-I", "gw", "-n", "127.0.0.1", "-V", "-1d:+1d", "-s", authority.to_str().unwrap()];
    keygen(&[&sign[..], &[public.to_str().unwrap()]].concat()).await;
    rig.sshd.kill().await;
    rig.sshd.resume().await;
    let authority = std::fs::read_to_string(authority.with_extension("pub")).unwrap();
    let authority = authority.split(' ').take(2).collect::<Vec<_>>().join(" ");
    rig.agent.write_known_hosts(&format!("@cert-authority *,[127.0.0.1]:* {authority}\n"));

    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    let waiting = rig.agent.tunnel_is("1", "backoff").await;
    assert!(waiting["last_error"].as_str().unwrap().contains("clock"), "{waiting}");
    assert!(waiting["cure"].as_str().unwrap().contains("set this device's clock"), "{waiting}");
    let found = check(&rig.agent, &[]).await;
    found.fails("host-key", "clock", "set this device's clock");
    std::fs::write(&file, "+0").unwrap();
    rig.agent.tunnel_is("1", "up").await;
    // Past its end.
    std::fs::write(&file, "+3d").unwrap();
    let found = check(&rig.agent, &[]).await;
    assert_eq!(found.code, Some(7), "{found:#?}");
    found.fails("host-key", "certificate", "ssh-keygen -s CA -h");
    assert!(rig.echoes().await, "a connection that was judged goes on");
}
