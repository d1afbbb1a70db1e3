//! The device's keys: every format that a controller may have, certificates, permissions, and the change to a new key.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::run;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::service::{Service, exchange};
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::process::Command;

/// Runs a program that makes or shows keys, and returns what it prints.
async fn tool(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = run(Command::new(program).args(arguments).arg(file), "").await;
    assert_eq!(output.code, Some(0), "{program} {arguments:?}: {output:?}");
    output.stdout
}

/// A rig whose agent doesn't run and whose device key is made by this command, with the file's name behind it.
async fn with_key(program: &str, arguments: &[&str]) -> Rig {
    let rig = Rig::unstarted(Csms::start(Options::default()).await, |setup| setup).await;
    make_key(&rig.agent, program, arguments).await;
    rig
}

async fn make_key(agent: &Agent, program: &str, arguments: &[&str]) -> PathBuf {
    std::fs::create_dir_all(agent.state_dir()).unwrap();
    let file = key_file(agent);
    tool(program, arguments, &file).await;
    file
}

fn key_file(agent: &Agent) -> PathBuf {
    agent.state_dir().join("id_ed25519")
}

fn beside(agent: &Agent, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", key_file(agent).display()))
}

/// Type and key of the first line that holds any.
fn public_of(text: &str) -> String {
    let line = text.lines().find(|line| line.starts_with("ssh-") || line.starts_with("ecdsa-"));
    let line = line.unwrap_or_else(|| panic!("no public key in {text:?}"));
    line.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

async fn fingerprint(line: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), line).unwrap();
    let printed = tool("ssh-keygen", &["-l", "-f"], file.path()).await;
    printed.split(' ').nth(1).unwrap().to_owned()
}

const ED25519: &[&str] = &["-q", "-t", "ed25519", "-N", "", "-C", "device", "-f"];

#[tokio::test]
async fn a_key_of_every_format_opens_a_tunnel_and_is_shown_as_its_own_tool_shows_it() {
    const SSH: &[&str] = &["-y", "-f"];
    let (sshd, echo) = (Sshd::start().await, Service::echo().await);
    for (program, arguments) in [
        ("dropbearkey", &["-t", "rsa", "-s", "2048", "-f"][..]),
        ("dropbearkey", &["-t", "ecdsa", "-s", "256", "-f"]),
        ("dropbearkey", &["-t", "ecdsa", "-s", "384", "-f"]),
        ("dropbearkey", &["-t", "ecdsa", "-s", "521", "-f"]),
        ("dropbearkey", &["-t", "ed25519", "-f"]),
        ("ssh-keygen", &["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f"]),
        ("ssh-keygen", &["-q", "-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", "", "-f"]),
        ("ssh-keygen", &["-q", "-t", "rsa", "-b", "3072", "-N", "", "-f"]),
        ("ssh-keygen", &["-q", "-t", "ecdsa", "-b", "384", "-m", "PEM", "-N", "", "-f"]),
        ("ssh-keygen", &["-q", "-t", "ecdsa", "-b", "521", "-m", "PKCS8", "-N", "", "-f"]),
        ("ssh-keygen", &["-q", "-t", "ecdsa", "-b", "256", "-N", "", "-f"]),
        ("ssh-keygen", ED25519),
    ] {
        let remote = ports::free();
        let setup = Setup::new()
            .ocpp("mode = 'off'")
            .ocpp("identity = 'CP001'")
            .pin(&sshd.known_hosts_line())
            .script(1, remote, &echo.address());
        let mut agent = Agent::new(setup);
        let file = make_key(&agent, program, arguments).await;
        let shown = agent.cli(&["keys", "show"]).await;
        let expected = tool(program, SSH, &file).await;
        assert_eq!(public_of(&shown.stdout), public_of(&expected), "{program} {arguments:?}: {shown:?}");

        agent.start().await;
        sshd.authorize(&agent.authorized_keys_line().await);
        let opened = agent.cli(&["open", &sshd.destination(), "--wait"]).await;
        assert_eq!(opened.code, Some(0), "{program} {arguments:?}: {opened:?}");
        assert_eq!(exchange(remote, b"hello").await.unwrap(), b"hello");
        agent.terminate().await;
    }
    assert_eq!(sshd.logins(), 12);
}

#[tokio::test]
async fn keys_that_are_weak_foreign_or_open_to_others_are_refused_with_the_cure() {
    let small = ["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f"];
    let rig = with_key("ssh-keygen", &small).await;
    let file = key_file(&rig.agent);
    let refused = async |what: &str, cure: &str| {
        // The agent itself goes on without a key (broken_files.rs).
        for command in [&["keys", "show"][..], &["open", "a@b"]] {
            let output = rig.agent.cli(command).await;
            assert_eq!(output.code, Some(78), "{command:?}: {output:?}");
            assert!(output.stderr.contains(what) && output.stderr.contains(cure), "{command:?}: {output:?}");
        }
    };
    refused("1024 bits", &format!("move {} away", file.display())).await;

    for arguments in
        [&["-q", "-t", "dsa", "-m", "PEM", "-N", "", "-f"][..], &["-q", "-t", "dsa", "-N", "", "-f"]]
    {
        std::fs::remove_file(&file).unwrap();
        tool("ssh-keygen", arguments, &file).await;
        refused("DSA", &format!("move {} away", file.display())).await;
    }

    std::fs::remove_file(&file).unwrap();
    tool("ssh-keygen", ED25519, &file).await;
    for mode in [0o640, 0o604, 0o610] {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        refused(&format!("mode {mode:04o}"), &format!("chmod 600 {}", file.display())).await;
    }
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&file, Some(61_234), None).unwrap();
    refused("belongs to the user 61234", &format!("chown 0 {}", file.display())).await;
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    assert_eq!(rig.agent.cli(&["keys", "show"]).await.code, Some(0));
}

/// Signs a public key; the certificate comes to stand beside it.
#[tokio::test]
async fn a_comment_neither_steers_a_terminal_nor_becomes_a_second_key() {
    let comment = "dev\u{1b}]0;x\u{7}\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIISdUZXWoz8ti+NnCg0ko8DJeezP8obRg02pKmvvIKFq evil";
    let mut rig = with_key("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).await;
    for arguments in [&["keys", "show"][..], &["keys", "show", "--authorized-keys"]] {
        let shown = rig.agent.cli(arguments).await;
        assert_eq!((shown.code, shown.stdout.lines().count()), (Some(0), 1), "{shown:?}");
        assert!(shown.stdout.trim_end().chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{shown:?}");
    }
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    let told = rig.csms.value("SSHClientKey").await;
    assert!(!told.contains('\n') && told.starts_with("ssh-ed25519 AAAA"), "{told:?}");
}

async fn sign(authority: &Path, public: &Path, more: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-I", "charger 1", "-n", "support"]).args(more).arg("-s").arg(authority).arg(public);
    let output = run(&mut command, "").await;
    assert_eq!(output.code, Some(0), "ssh-keygen -s: {output:?}");
}

/// An authority that the server believes, and the device's public key in a file, which is authorised nowhere.
async fn authority(rig: &mut Rig) -> (PathBuf, PathBuf) {
    let authority = rig.agent.directory().join("ca");
    tool("ssh-keygen", ED25519, &authority).await;
    rig.sshd.configure(&format!("TrustedUserCAKeys {}.pub", authority.display())).await;
    let public = beside(&rig.agent, ".pub");
    std::fs::write(&public, rig.agent.cli(&["keys", "show"]).await.stdout).unwrap();
    (authority, public)
}

#[tokio::test]
async fn a_certificate_beside_the_key_lets_the_device_in_where_the_key_alone_does_not() {
    for (program, arguments) in [
        ("dropbearkey", &["-t", "rsa", "-s", "2048", "-f"][..]),
        ("dropbearkey", &["-t", "ecdsa", "-f"]),
        ("ssh-keygen", ED25519),
    ] {
        let mut rig = with_key(program, arguments).await;
        let (authority, public) = authority(&mut rig).await;
        sign(&authority, &public, &["-V", "+1d"]).await;
        let shown = rig.agent.cli(&["keys", "show"]).await;
        for part in ["-cert.pub is offered first", "charger 1", "for support", "until 20"] {
            assert!(shown.stderr.contains(part), "{part}: {shown:?}");
        }
        rig.agent.start().await;
        rig.agent.link_is("accepted").await;
        rig.open(1).await;
        rig.echo_returns().await;
        let log = rig.sshd.log();
        assert!(log.contains("-CERT SHA256:") && log.contains("ID charger 1"), "{log}");
        assert!(!rig.agent.log().contains("certificate-refused"));
    }
}

#[tokio::test]
async fn the_plain_key_serves_where_the_certificate_does_not() {
    let mut rig = with_key("ssh-keygen", ED25519).await;
    let (authority, public) = authority(&mut rig).await;
    rig.authorize(&rig.sshd).await;

    // For another account: the server refuses it.
    sign(&authority, &public, &["-n", "somebody"]).await;
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    assert!(rig.agent.log().contains("certificate-refused"), "{}", rig.agent.log());

    // Expired, while the agent runs: it isn't offered, and both log and `keys show` say what to do.
    let reopen = async |rig: &mut Rig| {
        assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
        rig.agent.tunnel_is("1", "closed").await;
        rig.open(1).await;
    };
    sign(&authority, &public, &["-V", "20200101:20200102"]).await;
    reopen(&mut rig).await;
    let shown = rig.agent.cli(&["keys", "show"]).await;
    for text in [rig.agent.log(), shown.stderr] {
        assert!(text.contains("has expired") && text.contains("ssh-keygen -s"), "{text}");
    }
    assert!(rig.agent.log().contains("certificate-unusable"));

    // Another key's.
    let other = rig.agent.directory().join("other");
    tool("ssh-keygen", ED25519, &other).await;
    sign(&authority, &other.with_extension("pub"), &[]).await;
    std::fs::rename(rig.agent.directory().join("other-cert.pub"), beside(&rig.agent, "-cert.pub")).unwrap();
    reopen(&mut rig).await;
    let shown = rig.agent.cli(&["keys", "show"]).await;
    for text in [rig.agent.log(), shown.stderr] {
        assert!(text.contains("is for another key"), "{text}");
    }
    assert_eq!(rig.agent.log().matches("certificate-refused").count(), 1);
    rig.echo_returns().await;
}

#[tokio::test]
async fn the_key_changes_when_every_server_that_took_the_old_one_takes_the_new_one() {
    let mut other = Sshd::start().await;
    let mut rig = Rig::with(|setup| setup.pin(&other.known_hosts_line()).allow(&other.destination())).await;
    rig.authorize(&other).await;
    rig.open(1).await;
    let opened = rig.agent.cli(&["open", &other.destination(), "--script", "2", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let old = rig.csms.value("SSHClientKey").await;

    let rotate = rig.agent.cli(&["keys", "rotate"]).await;
    assert_eq!(rotate.code, Some(0), "{rotate:?}");
    assert!(rotate.stdout.starts_with("restrict,port-forwarding,"), "{rotate:?}");
    assert!(rotate.stderr.contains(&other.destination()), "it names who needs the old key: {rotate:?}");
    let mode = std::fs::metadata(beside(&rig.agent, ".new")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // The operator reads over OCPP which key to authorise next.
    let new = wait_until("SSHClientKey is the new key", LONG, async || {
        Some(rig.csms.value("SSHClientKey").await).filter(|shown| *shown != old)
    })
    .await;
    assert!(rotate.stdout.contains(&new) && new.starts_with("ssh-ed25519 "), "{new}: {rotate:?}");
    let again = rig.agent.cli(&["keys", "rotate"]).await;
    assert_eq!((again.code, &again.stdout), (Some(0), &rotate.stdout), "a second one changes nothing");
    let (old_print, new_print) = (fingerprint(&old).await, fingerprint(&new).await);

    // Nobody knows the new key yet: both servers take the old one.
    rig.sshd.kill().await;
    rig.sshd.resume().await;
    wait_until("the first server took the old key again", LONG, async || {
        (rig.sshd.logins() == 2).then_some(())
    })
    .await;
    rig.agent.tunnel_is("1", "up").await;
    assert!(!accepted(&rig.sshd).contains(&new_print));

    // One of them takes the new one. The other still needs the old one, so both stay.
    rig.sshd.authorize(&rotate.stdout);
    rig.sshd.kill().await;
    rig.sshd.resume().await;
    wait_until("the first server took the new key", LONG, async || {
        (accepted(&rig.sshd).last() == Some(&new_print)).then_some(())
    })
    .await;
    rig.agent.tunnel_is("1", "up").await;
    assert!(beside(&rig.agent, ".new").exists());
    other.kill().await;
    other.resume().await;
    wait_until("the second server took the old key again", LONG, async || {
        (accepted(&other) == [old_print.as_str(), old_print.as_str()]).then_some(())
    })
    .await;
    rig.agent.tunnel_is("2", "up").await;
    assert!(beside(&rig.agent, ".new").exists() && !rig.agent.log().contains("key-rotated"));
    let show = rig.agent.cli(&["keys", "show"]).await;
    assert!(show.stdout.contains(&new) && show.stderr.contains(&other.destination()), "{show:?}");
    assert!(!show.stderr.contains(&rig.sshd.destination()), "{show:?}");

    // It takes the new one as well: the old one is retired.
    other.authorize(&rotate.stdout);
    other.kill().await;
    other.resume().await;
    wait_until("the key has changed", LONG, async || rig.agent.log().contains("key-rotated").then_some(()))
        .await;
    assert_eq!(accepted(&other).last(), Some(&new_print));
    assert!(!beside(&rig.agent, ".new").exists());
    let kept = tool("ssh-keygen", &["-y", "-f"], &beside(&rig.agent, ".old")).await;
    assert_eq!(public_of(&kept), public_of(&old));
    let now = tool("ssh-keygen", &["-y", "-f"], &key_file(&rig.agent)).await;
    assert_eq!(public_of(&now), public_of(&new));
    assert_eq!(rig.csms.value("SSHClientKey").await, new);

    // The old one is offered to nobody any more.
    rig.sshd.authorize_nobody();
    rig.authorize(&rig.sshd).await;
    rig.agent.terminate().await;
    rig.agent.start().await;
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
    assert_eq!(accepted(&rig.sshd).last(), Some(&new_print));
}

/// The fingerprints of the keys that a server took, in this order.
fn accepted(sshd: &Sshd) -> Vec<String> {
    let log = sshd.log();
    let lines = log.lines().filter(|line| line.contains("Accepted publickey for "));
    lines
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("SHA256:")))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_rotation_works_without_an_agent_and_can_be_given_up_or_cut_short() {
    let rig = with_key("ssh-keygen", ED25519).await;
    let old = rig.agent.cli(&["keys", "show"]).await.stdout;
    for option in ["--abort", "--finish"] {
        let none = rig.agent.cli(&["keys", "rotate", option]).await;
        assert_eq!(none.code, Some(4), "{none:?}");
        assert!(none.stderr.contains("keys rotate"), "{none:?}");
    }

    let rotate = rig.agent.cli(&["keys", "rotate"]).await;
    assert_eq!(rotate.code, Some(0), "{rotate:?}");
    let new = rig.agent.cli(&["keys", "show"]).await.stdout;
    assert!(new != old && rotate.stdout.contains(new.trim_end()), "{rotate:?}");
    assert_eq!(rig.agent.cli(&["keys", "rotate", "--abort"]).await.code, Some(0));
    assert_eq!(rig.agent.cli(&["keys", "show"]).await.stdout, old);
    assert!(!beside(&rig.agent, ".new").exists());

    let rotate = rig.agent.cli(&["keys", "rotate"]).await;
    assert!(!rotate.stdout.contains(new.trim_end()), "another one each time");
    rig.sshd.authorize(&rotate.stdout);
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--background", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    rig.echo_returns().await;
    wait_until("the key has changed", LONG, async || (!beside(&rig.agent, ".new").exists()).then_some(()))
        .await;
    assert!(rotate.stdout.contains(rig.agent.cli(&["keys", "show"]).await.stdout.trim_end()));
    assert_eq!(rig.agent.cli(&["close", "--all"]).await.code, Some(0));

    let rotate = rig.agent.cli(&["keys", "rotate"]).await;
    let finish = rig.agent.cli(&["keys", "rotate", "--finish"]).await;
    assert_eq!(finish.code, Some(0), "{finish:?}");
    assert!(finish.stderr.contains(&rig.sshd.destination()), "it names who took the old key: {finish:?}");
    assert!(rotate.stdout.contains(rig.agent.cli(&["keys", "show"]).await.stdout.trim_end()));
}
