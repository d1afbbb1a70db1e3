//! The peers by themselves, without the agent: when these fail, no other story means anything.

use std::process::Stdio;

use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::dropbear::Dropbear;
use ocpp_tunnel_tests::process::Daemon;
use ocpp_tunnel_tests::service::{Service, exchange};
use ocpp_tunnel_tests::ssh::{KeyPair, Person};
use ocpp_tunnel_tests::sshd::{ACCOUNT, Sshd};
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::process::Command;

#[tokio::test]
async fn a_person_logs_in_to_sshd_and_is_locked_out_again() {
    let mut sshd = Sshd::start().await;
    let person = Person::new().await;
    let denied = person.runs("id -un", ACCOUNT, sshd.port(), sshd.host_key()).await;
    assert_eq!(denied.code, Some(255), "{denied:?}");
    assert_eq!((sshd.connections(), sshd.logins()), (1, 0));

    sshd.authorize(&person.public_line());
    let login = person.runs("id -un", ACCOUNT, sshd.port(), sshd.host_key()).await;
    assert_eq!((login.code, login.stdout.trim()), (Some(0), ACCOUNT), "{login:?}");
    assert_eq!((sshd.connections(), sshd.logins()), (2, 1));

    let old_key = std::fs::read(sshd.host_key().private()).unwrap();
    sshd.kill().await;
    assert!(!ports::answers(sshd.port()));
    sshd.change_host_key().await;
    sshd.resume().await;
    assert_ne!(old_key, std::fs::read(sshd.host_key().private()).unwrap());
}

#[tokio::test]
async fn openssh_opens_a_tunnel_through_sshd_and_dropbear() {
    let (mut sshd, dropbear) = (Sshd::start().await, Dropbear::start().await);
    let echo = Service::echo().await;
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate(&dir.path().join("key")).await;
    sshd.authorize(&key.public_line());
    dropbear.authorize(&key.public_line());
    for (destination, known_host) in
        [(sshd.destination(), sshd.known_hosts_line()), (dropbear.destination(), dropbear.known_hosts_line())]
    {
        let remote = ports::free();
        let known_hosts = dir.path().join("known_hosts");
        std::fs::write(&known_hosts, format!("{known_host}\n")).unwrap();
        let mut ssh = Command::new("ssh");
        ssh.args(["-N", "-F", "none", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", known_hosts.display()), "-i"])
            .arg(key.private())
            .args(["-R", &format!("localhost:{remote}:{}", echo.address())])
            .arg(format!("ssh://{destination}"))
            .stdin(Stdio::null());
        let _tunnel = Daemon::start(&mut ssh, &dir.path().join("log"));
        wait_until("the remote port answers", LONG, async || ports::answers(remote).then_some(())).await;
        assert_eq!(exchange(remote, b"hello").await.unwrap(), b"hello");
    }
    sshd.kill().await;
}

#[tokio::test]
async fn the_csms_counts_nobody_before_anybody_came() {
    let mut csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let counts = csms.counts().await;
    assert_eq!((counts.connections, counts.boots, counts.refused), (0, 0, 0));
    let port = csms.port();
    csms.kill().await;
    assert!(!ports::answers(port));
    csms.resume().await;
    assert_eq!(csms.port(), port);
}
