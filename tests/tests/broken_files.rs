//! Files of the agent that somebody, a power cut or a bad flash has spoilt: it says which one, what is wrong with it and what to
//! do, and goes on with what is left.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ocpp_tunnel_tests::agent::Setup;
use ocpp_tunnel_tests::check::check;
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::run;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::{LONG, wait_until};
use serde_json::Value;
use tokio::process::Command;

fn write(path: &Path, content: impl AsRef<[u8]>) {
    remove(path);
    fs::write(path, content).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

/// A key that only its passphrase opens.
async fn locked_key(directory: &Path) -> Vec<u8> {
    let path = directory.join("locked");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "secret words", "-f"]).arg(&path);
    let made = run(&mut command, "").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    fs::read(path).unwrap()
}

/// A rig whose agent has made its key, is authorised, and has stopped; and that key's file.
async fn stopped(change: impl FnOnce(Setup) -> Setup) -> (Rig, PathBuf) {
    let csms = Csms::start(Options::default()).await;
    let rig = Rig::unstarted(csms, change).await;
    rig.authorize(&rig.sshd).await;
    let key = rig.agent.state_dir().join("id_ed25519");
    (rig, key)
}

async fn key_fault(rig: &Rig, what: &str) -> Value {
    wait_until(&format!("status says {what:?} of the key"), LONG, async || {
        let fault = rig.agent.status().await["device_key"].take();
        fault["error"].as_str().is_some_and(|error| error.contains(what)).then_some(fault)
    })
    .await
}

#[tokio::test]
async fn a_key_that_can_not_be_used_is_named_with_its_cure_and_the_link_to_the_csms_lives() {
    let (mut rig, key) = stopped(|setup| setup).await;
    let good = fs::read(&key).unwrap();
    let public = rig.agent.cli(&["keys", "show"]).await.stdout;
    let locked = locked_key(rig.agent.directory()).await;
    write(&key, [0xfe; 300]);

    // It starts all the same, and the CSMS can read why nothing will be opened.
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    let fault = key_fault(&rig, "holds no usable private key").await;
    assert!(fault["fingerprint"].is_null() && fault["cure"].as_str().unwrap().contains("move"), "{fault}");
    let name = key.display().to_string();
    let told = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(told.starts_with("idle key=") && told.contains(&name), "{told}");
    assert_eq!(rig.csms.value("SSHClientKey").await, "");
    let people = rig.agent.cli(&["status"]).await;
    assert!(people.stdout.contains(&format!("\ndevice key: {name} holds no")), "{people:?}");
    assert!(people.stdout.contains("\n     to do: put a key"), "{people:?}");

    // What is asked for waits for the key, and nobody bothers the server meanwhile.
    let asked = rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await;
    assert_eq!(asked, "Accepted");
    let waiting = rig.agent.tunnel_is("1", "backoff").await;
    assert!(waiting["last_error"].as_str().unwrap().contains(&name), "{waiting}");
    assert!(waiting["cure"].as_str().unwrap().contains("ocpp-tunnel check"), "{waiting}");
    let told = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(told.starts_with("backoff ") && told.contains(&name), "{told}");
    assert_eq!(rig.sshd.connections(), 0);

    // Whatever is wrong with it, it is called by its name, and commands that need a key end with 78.
    let cut = &good[..good.len() / 2];
    for (content, mode, what, cure) in [
        (&b""[..], 0o600, "it is empty", "move"),
        (&[0; 400], 0o600, "a power cut", "move"),
        (cut, 0o600, "it is cut off", "move"),
        (b"ssh-key", 0o600, "it is text, and no key", "move"),
        (public.as_bytes(), 0o600, "it is a public key", "put a key"),
        (&locked, 0o600, "passphrase", "without a passphrase"),
        (&good, 0o644, "mode 0644", "chmod 600"),
    ] {
        write(&key, content);
        fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        let fault = key_fault(&rig, what).await;
        assert!(fault["cure"].as_str().unwrap().contains(cure), "{fault}");
        let shown = rig.agent.cli(&["keys", "show"]).await;
        assert_eq!(shown.code, Some(78), "{shown:?}");
        assert!(shown.stderr.contains(what) && shown.stderr.contains(&name), "{shown:?}");
        assert!(shown.stderr.contains(cure), "{shown:?}");
        let checked = check(&rig.agent, &[]).await;
        assert_eq!(checked.code, Some(78), "{checked:#?}");
        checked.fails("key", what, cure);
        checked.skips(&["login"], "there is no key");
    }
    remove(&key);
    fs::create_dir(&key).unwrap();
    key_fault(&rig, "it is no file").await;

    // Mended, everything comes up by itself.
    write(&key, good);
    rig.agent.tunnel_is("1", "up").await;
    assert!(rig.echoes().await);
    assert_eq!(rig.agent.status().await["device_key"]["error"], Value::Null);
    assert_eq!(rig.csms.value("SSHClientKey").await, public.trim_end());
    let told = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(told.starts_with("up ") && !told.contains(" key="), "{told}");
    assert_eq!(rig.agent.log().matches("device-key-usable").count(), 1);
}

#[tokio::test]
async fn a_key_that_is_moved_away_is_replaced_by_a_new_one_without_a_restart() {
    let (mut rig, key) = stopped(|setup| setup).await;
    let old = rig.agent.cli(&["keys", "show"]).await.stdout;
    write(&key, "");
    rig.agent.start().await;
    // Without an agent, there is nothing to go on with.
    let other = rig.agent.cli(&["keys", "rotate"]).await;
    assert_eq!(other.code, Some(78), "{other:?}");
    fs::rename(&key, key.with_extension("broken")).unwrap();
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    wait_until("the server, which doesn't know the new key, refuses it", LONG, async || {
        let tunnel = rig.agent.tunnel("1").await;
        tunnel["last_error"].as_str().is_some_and(|error| error.contains("refused")).then_some(())
    })
    .await;
    let new = rig.csms.value("SSHClientKey").await;
    assert!(new.starts_with("ssh-ed25519 ") && new != old.trim_end(), "{new}");
    let record = wait_until("the key is recorded", LONG, async || {
        rig.agent.records(&["--type", "device-key-made"]).await.into_iter().nth(1)
    })
    .await;
    assert_eq!(record["source"]["kind"], "agent");
    rig.authorize(&rig.sshd).await;
    rig.agent.tunnel_is("1", "up").await;
}

/// Of a key that is in use, only a sound file takes the place.
#[tokio::test]
async fn a_key_that_is_spoilt_while_it_is_in_use_stays_in_use_and_the_fault_is_told() {
    let (mut rig, key) = stopped(|setup| setup).await;
    rig.agent.start().await;
    rig.open(1).await;
    let good = fs::read(&key).unwrap();
    write(&key, &good[..100]);
    rig.sshd.kill_sessions();
    wait_until("another login", LONG, async || (rig.sshd.logins() > 1).then_some(())).await;
    rig.agent.tunnel_is("1", "up").await;
    let fault = key_fault(&rig, "it is cut off").await;
    assert!(fault["fingerprint"].as_str().unwrap().starts_with("SHA256:"), "{fault}");
    assert_eq!(rig.agent.log().matches("device-key-unusable").count(), 1);
    write(&key, &good);
    let held = rig.agent.cli(&["open", &rig.sshd.destination(), "--script", "2", "--wait"]).await;
    assert_eq!(held.code, Some(0), "{held:?}");
    assert_eq!(rig.agent.status().await["device_key"]["error"], Value::Null);
}

#[tokio::test]
async fn a_file_of_known_hosts_that_makes_no_sense_is_told_line_by_line_and_trusts_nobody() {
    let (mut rig, _) = stopped(|setup| setup.pin_nothing()).await;
    rig.agent.start().await;
    let sound = rig.sshd.known_hosts_line();
    rig.agent.write_known_hosts(&format!("\u{fffd}\u{1}garbage\n{sound}\n{}", &sound[..sound.len() / 2]));
    rig.open(1).await;
    assert_eq!(rig.agent.tunnel("1").await["state"], "up", "the sound line counts");
    let listed = rig.agent.cli(&["host-keys", "list"]).await;
    assert!(listed.stdout.contains(&rig.sshd.host_key().fingerprint().await), "{listed:?}");
    assert!(!listed.stdout.contains('\u{1}') && !listed.stderr.contains('\u{1}'), "{listed:?}");

    // What can't be read at all vouches for nobody, and is tried again.
    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    rig.agent.tunnel_ends("1").await;
    let known_hosts = rig.agent.known_hosts();
    fs::remove_file(&known_hosts).unwrap();
    fs::create_dir(&known_hosts).unwrap();
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    let waiting = rig.agent.tunnel_is("1", "backoff").await;
    let (error, cure) = (waiting["last_error"].as_str().unwrap(), waiting["cure"].as_str().unwrap());
    assert!(error.contains(&known_hosts.display().to_string()), "{waiting}");
    assert!(cure.contains("ssh.known_hosts_file"), "{waiting}");
    let checked = check(&rig.agent, &[]).await;
    assert_eq!(checked.code, Some(78), "{checked:#?}");
    checked.fails("configuration", "is a directory", "");
    checked.fails("host-key", "known_hosts", "ssh.known_hosts_file");
    fs::remove_dir(&known_hosts).unwrap();
    rig.agent.tunnel_is("1", "up").await;
}

#[tokio::test]
async fn what_is_kept_over_restarts_and_spoilt_is_set_aside_and_nothing_else_is_lost() {
    let (mut rig, _) = stopped(|setup| setup).await;
    let state = rig.agent.state_dir();
    let spoilt = ["usage.json", "configuration.json", "ocpp-security.json"];
    for file in spoilt {
        write(&state.join(file), "{\"schema\":1,\"mon");
    }
    write(&state.join("id_ed25519.servers"), [0; 100]);
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    assert!(rig.echoes().await);
    for file in spoilt {
        assert!(state.join(format!("{file}.corrupt")).exists(), "{file}");
    }
    for event in ["usage-corrupt", "configuration-corrupt", "ocpp-security-corrupt"] {
        assert_eq!(rig.agent.log().matches(event).count(), 1, "{event}");
    }
}
