//! A state directory that is full, or can't be written: what is up stays up, what is lost is told, and what is there stays whole.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::path::Path;

use ocpp_tunnel_tests::agent::Setup;
use ocpp_tunnel_tests::check::Found;
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::mounts::Mounts;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::{LONG, wait_until};
use serde_json::Value;

/// A rig that isn't started, whose agent and commands live in a namespace that this makes of the agent's directory.
async fn rig_in(
    change: impl FnOnce(Setup) -> Setup,
    make: impl AsyncFnOnce(&Path) -> Mounts,
) -> (Rig, Mounts) {
    let csms = Csms::start(Options::default()).await;
    let setup = Setup::new();
    let mounts = make(setup.directory()).await;
    let runner = mounts.runner(setup.directory());
    let rig = Rig::unstarted_with(setup.runner(runner), csms, change).await;
    (rig, mounts)
}

async fn small_disk(directory: &Path) -> Mounts {
    Mounts::disk(directory, &directory.join("state"), "1m").await
}

/// To the last byte.
fn fill(disk: &Path) {
    fs::write(disk.join("fill"), vec![0; 2 << 20]).unwrap_err();
    fs::write(disk.join("rest"), vec![0; 1 << 16]).unwrap_err();
}

fn make_room(disk: &Path) {
    for name in ["fill", "rest"] {
        fs::remove_file(disk.join(name)).unwrap();
    }
}

async fn told(rig: &Rig, event: &str) {
    wait_until(&format!("the log has {event}"), LONG, async || rig.agent.log().contains(event).then_some(()))
        .await;
}

#[tokio::test]
async fn a_full_disk_at_the_first_start_is_told_with_the_cure_and_the_key_is_made_once_there_is_room() {
    let (mut rig, mounts) = rig_in(|setup| setup, small_disk).await;
    let state = rig.agent.state_dir();
    let disk = mounts.path(&state);
    fill(&disk);
    let cure = format!("make room in {}", state.display());
    let shown = rig.agent.cli(&["keys", "show"]).await;
    assert_eq!(shown.code, Some(78), "{shown:?}");
    assert!(shown.stderr.contains("No space left") && shown.stderr.contains(&cure), "{shown:?}");

    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    let status = rig.agent.status().await;
    assert_eq!(status["device_key"]["cure"], cure, "{status}");
    let told = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(told.contains("can't make the device key") && told.contains("No space left"), "{told}");
    assert!(!disk.join("id_ed25519").exists());

    make_room(&disk);
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    wait_until("there is a key", LONG, async || {
        (!rig.csms.value("SSHClientKey").await.is_empty()).then_some(())
    })
    .await;
    rig.authorize(&rig.sshd).await;
    rig.agent.tunnel_is("1", "up").await;
    rig.agent.record("device-key-made").await;
    assert!(rig.agent.terminate().await.success());
}

#[tokio::test]
async fn a_disk_that_fills_up_under_a_tunnel_costs_records_and_nothing_else() {
    let (mut rig, mounts) =
        rig_in(|setup| setup.pin_nothing().ssh("host_key_policy = 'accept-new'"), small_disk).await;
    let disk = mounts.path(&rig.agent.state_dir());
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    assert_eq!(rig.csms.change("HeartbeatInterval", "71").await, "Accepted");
    let kept = wait_until("the change is kept", LONG, async || {
        fs::read_to_string(disk.join("configuration.json")).ok().filter(|text| text.contains("71"))
    })
    .await;
    let files = ["id_ed25519", "known_hosts"].map(|name| (name, fs::read(disk.join(name)).unwrap()));

    fill(&disk);
    assert!(rig.echoes().await);
    rig.open(2).await;
    let failing = wait_until("the records can't be written", LONG, async || {
        assert_eq!(rig.csms.change("InvokeCustomScript1", "evil@203.0.113.66").await, "Rejected");
        Some(rig.agent.status().await["audit"].take()).filter(|audit| audit["state"] == "failing")
    })
    .await;
    assert!(failing["error"].as_str().unwrap().contains("No space left"), "{failing}");
    // What the CSMS changes holds, although it can't be kept.
    assert_eq!(rig.csms.change("HeartbeatInterval", "72").await, "Accepted");
    assert_eq!(rig.csms.value("HeartbeatInterval").await, "72");
    // Keys can't be made or learned, and those that are there stay whole.
    let rotated = rig.agent.cli(&["keys", "rotate"]).await;
    assert_eq!(rotated.code, Some(78), "{rotated:?}");
    assert!(rotated.stderr.contains("make room in"), "{rotated:?}");
    let other = Sshd::start().await;
    let fingerprint = other.host_key().fingerprint().await;
    let trust = ["host-keys", "trust", &other.address(), "--fingerprint", &fingerprint];
    let trusted = rig.agent.cli(&trust).await;
    assert!(trusted.code != Some(0) && trusted.stderr.contains("No space left"), "{trusted:?}");
    for (name, content) in &files {
        assert_eq!(&fs::read(disk.join(name)).unwrap(), content, "{name}");
    }
    assert_eq!(fs::read_to_string(disk.join("configuration.json")).unwrap(), kept);
    assert!(rig.echoes().await, "the tunnel is as it was");
    assert_eq!(rig.agent.tunnel("1").await["state"], "up");
    assert_eq!(rig.agent.log().matches("audit-not-written").count(), 1);

    make_room(&disk);
    wait_until("they are written again", LONG, async || {
        (rig.agent.status().await["audit"]["state"] == "ok").then_some(())
    })
    .await;
    assert!(rig.agent.terminate().await.success());
    let records = rig.agent.records(&[]).await;
    let numbers: Vec<u64> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=records.len() as u64).collect::<Vec<_>>(), "memory had room for all");
    let (usage, kept) =
        ["usage.json", "configuration.json"].map(|name| fs::read_to_string(disk.join(name)).unwrap()).into();
    assert!(serde_json::from_str::<Value>(&usage).is_ok(), "{usage}");
    assert!(kept.contains("72"), "{kept}");
    let left: Vec<_> = fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "{left:?}");
}

#[tokio::test]
async fn a_read_only_state_directory_is_told_of_and_what_is_there_is_used() {
    let (mut rig, mounts) = rig_in(
        |setup| setup.pin_nothing().ssh("host_key_policy = 'accept-new'"),
        async |directory| {
            let state = directory.join("state");
            let state = state.display();
            Mounts::new(directory, &format!("mkdir -p {state} && mount --bind {state} {state}")).await
        },
    )
    .await;
    rig.authorize(&rig.sshd).await;
    let state = rig.agent.state_dir().display().to_string();
    mounts.run(&format!("mount -o remount,bind,ro {state}")).await;
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    assert!(rig.echoes().await, "the key that is there is used");
    // What can't be kept is told, each thing once.
    told(&rig, "host-key-not-kept").await;
    assert_eq!(rig.csms.change("HeartbeatInterval", "71").await, "Accepted");
    told(&rig, "configuration-not-kept").await;
    told(&rig, "audit-not-written").await;
    let status = rig.agent.cli(&["status"]).await;
    assert!(status.stdout.contains("audit records can't be written: Read-only file system"), "{status:?}");
    let mut checked = rig.agent.cli(&["check", "--json"]).await;
    assert!(checked.stderr.contains("can't be written to the audit records: Read-only"), "{checked:?}");
    checked.stderr.clear();
    let checked = Found::of(&checked);
    assert_eq!(checked.code, Some(78), "{checked:#?}");
    checked.fails("configuration", "state_dir", "");
    for step in ["key", "login", "forward", "ocpp"] {
        checked.is_well(step);
    }
    let rotated = rig.agent.cli(&["keys", "rotate"]).await;
    assert_eq!(rotated.code, Some(78), "{rotated:?}");
    assert!(rotated.stderr.contains("mounted writable"), "{rotated:?}");

    mounts.run(&format!("mount -o remount,bind,rw {state}")).await;
    wait_until("the records are written", LONG, async || {
        (rig.agent.status().await["audit"]["state"] == "ok").then_some(())
    })
    .await;
    rig.agent.record("agent-started").await;
    assert!(rig.agent.terminate().await.success());
}

/// Nothing can be written anywhere but in `runtime_dir`, and there isn't even a key.
#[tokio::test]
async fn a_read_only_root_without_a_key_still_tells_the_csms_why() {
    let (mut rig, _mounts) = rig_in(
        |setup| setup,
        async |directory| {
            let (state, run) = (directory.join("state"), directory.join("run"));
            let (state, run) = (state.display(), run.display());
            // `unshare` has made this namespace's mounts private; the flag is this namespace's own.
            let shell = format!(
                "mkdir -p {state} {run} && : >{at}/mounted && mount -t tmpfs none {run} && mount -o remount,bind,ro / && mount -o \
                 remount,bind,ro /tmp 2>/dev/null; exec sleep infinity",
                at = directory.display()
            );
            Mounts::new(directory, &shell).await
        },
    )
    .await;
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    let fault = rig.agent.status().await["device_key"].take();
    assert!(fault["error"].as_str().unwrap().contains("Read-only file system"), "{fault}");
    assert!(fault["cure"].as_str().unwrap().contains("mounted writable"), "{fault}");
    let told = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(told.contains("Read-only file system"), "{told}");
    assert!(rig.agent.terminate().await.success());
}
