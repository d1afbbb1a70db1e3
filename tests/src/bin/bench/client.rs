//! The clients that are compared, each made to publish the same two services on the same server.

use std::any::Any;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::{Daemon, run};
use ocpp_tunnel_tests::ssh::KeyPair;
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tempfile::TempDir;
use tokio::process::Command;

use crate::load::answers;

const AES: &str = "aes256-gcm@openssh.com";
const CHACHA: &str = "chacha20-poly1305@openssh.com";

/// A client that can be measured, with the cipher that its server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Agent(&'static str),
    OpenSsh(&'static str),
    Dbclient,
}

impl Client {
    pub(crate) const ALL: [Self; 5] =
        [Self::Agent(AES), Self::Agent(CHACHA), Self::OpenSsh(AES), Self::OpenSsh(CHACHA), Self::Dbclient];

    pub(crate) fn cipher(self) -> &'static str {
        match self {
            Self::Agent(cipher) | Self::OpenSsh(cipher) => cipher,
            // The best that it knows.
            Self::Dbclient => CHACHA,
        }
    }

    pub(crate) fn name(self) -> String {
        let cipher = self.cipher().trim_end_matches("@openssh.com");
        match self {
            Self::Agent(_) => format!("ocpp-tunnel, {cipher}"),
            Self::OpenSsh(_) => format!("`ssh -R`, {cipher}"),
            Self::Dbclient => format!("`dbclient -R`, 2 MB window, {cipher}"),
        }
    }

    /// What is moved through it, of `bytes`: dbclient takes minutes for what the others do in a second.
    pub(crate) fn share(self, bytes: u64) -> u64 {
        if self == Self::Dbclient { bytes / 4 } else { bytes }
    }
}

/// A client with its tunnel up.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// The client's process.
    pub(crate) pid: u32,
    /// The port of the server that it publishes the load service on.
    pub(crate) port: u16,
    /// From the order to open it until the service answered through it, in milliseconds.
    pub(crate) opened_in: f64,
    /// What has to live as long as the tunnel.
    _keep: Box<dyn Any>,
}

impl Tunnel {
    pub(crate) async fn open(client: Client, sshd: &Sshd, service: &str) -> Self {
        match client {
            Client::Agent(_) => Self::open_agent(sshd, service).await,
            Client::OpenSsh(_) => Self::open_ssh(sshd, service).await,
            Client::Dbclient => Self::open_dbclient(sshd, service).await,
        }
    }

    /// Over OCPP with TLS, as in the field: the order is the ChangeConfiguration.
    async fn open_agent(sshd: &Sshd, service: &str) -> Self {
        let mut csms = Csms::start(Options { tls: true, ..Options::default() }).await;
        let port = ports::free();
        let setup = Setup::new()
            .csms(&csms)
            .pin(&sshd.known_hosts_line())
            .allow(&sshd.destination())
            .script(1, port, service)
            .log_level("info");
        let agent = Agent::run(setup).await;
        sshd.authorize(&agent.authorized_keys_line().await);
        csms.wait_for("boots", 1).await;
        agent.link_is("accepted").await;
        let answered = tokio::spawn(answers(port));
        let begin = Instant::now();
        assert_eq!(csms.change("InvokeCustomScript1", &sshd.destination()).await, "Accepted");
        let opened_in = since(begin, answered.await);
        Self { pid: agent.pid(), port, opened_in, _keep: Box::new((agent, csms)) }
    }

    async fn open_ssh(sshd: &Sshd, service: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let key = KeyPair::generate(&dir.path().join("key")).await;
        sshd.authorize(&key.public_line());
        let known_hosts = dir.path().join("known_hosts");
        std::fs::write(&known_hosts, sshd.known_hosts_line()).expect("it can be written");
        let port = ports::free();
        let mut ssh = Command::new("ssh");
        ssh.args(["-N", "-F", "none", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", known_hosts.display()), "-i"])
            .arg(key.private())
            .args(["-R", &format!("localhost:{port}:{service}"), &format!("ssh://{}", sshd.destination())]);
        Self::start(ssh, port, dir).await
    }

    async fn open_dbclient(sshd: &Sshd, service: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let key = dir.path().join("key");
        sshd.authorize(&dropbear_key(&key).await);
        let port = ports::free();
        let destination = sshd.destination();
        let (account, _) = destination.rsplit_once(':').expect("its port isn't 22");
        let mut dbclient = Command::new("dbclient");
        dbclient
            .args(["-N", "-y", "-y", "-W", "2097152", "-i"])
            .arg(&key)
            .args(["-R", &format!("localhost:{port}:{service}"), "-p", &sshd.port().to_string(), account])
            .env("HOME", dir.path());
        Self::start(dbclient, port, dir).await
    }

    async fn start(mut command: Command, port: u16, dir: TempDir) -> Self {
        let answered = tokio::spawn(answers(port));
        let begin = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut daemon = Daemon::start(&mut command, &dir.path().join("log"));
        wait_until("the tunnel is up", LONG, async || {
            assert!(daemon.is_running(), "{command:?} has ended: {}", daemon.log());
            answered.is_finished().then_some(())
        })
        .await;
        let opened_in = since(begin, answered.await);
        Self { pid: daemon.pid(), port, opened_in, _keep: Box::new((daemon, dir)) }
    }
}

fn since(begin: Instant, end: Result<Instant, tokio::task::JoinError>) -> f64 {
    end.expect("nobody ends it").duration_since(begin).as_secs_f64() * 1e3
}

/// Makes a key pair in dropbear's format, and returns the public line.
async fn dropbear_key(file: &Path) -> String {
    let made = run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(file), "").await;
    let line = made.stdout.lines().find(|line| line.starts_with("ssh-ed25519 "));
    line.unwrap_or_else(|| panic!("dropbearkey: {}{}", made.stdout, made.stderr)).to_owned()
}
