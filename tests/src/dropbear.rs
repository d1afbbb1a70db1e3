//! Dropbear's server on a free port, with a host key and an account of its own.

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{Daemon, run};
use crate::sshd::{ACCOUNT, Account, account_directory, authorize, in_private_etc};
use crate::{LONG, ports, wait_until};

/// A running `dropbear`.
#[derive(Debug)]
pub struct Dropbear {
    dir: TempDir,
    port: u16,
    host_key: String,
    daemon: Daemon,
}

impl Dropbear {
    /// Starts a server that lets nobody in until somebody is authorised.
    pub async fn start() -> Self {
        // -s: no passwords.
        Self::start_for(Account::default(), &["-s"]).await
    }

    /// Starts one whose account has a password, and takes it.
    pub async fn start_with_password() -> Self {
        Self::start_for(Account { password: true, ..Account::default() }, &[]).await
    }

    async fn start_for(account: Account, options: &[&str]) -> Self {
        let dir = account_directory(account);
        let port = ports::free();
        let key = dir.path().join("host_key");
        let mut keygen = Command::new("dropbearkey");
        let made = run(keygen.args(["-t", "ed25519", "-f"]).arg(&key), "").await;
        let host_key = made.stdout.lines().find(|line| line.starts_with("ssh-ed25519 "));
        let host_key =
            host_key.unwrap_or_else(|| panic!("dropbearkey: {}{}", made.stdout, made.stderr)).to_owned();

        let mut command = in_private_etc(dir.path());
        command.arg("/usr/sbin/dropbear").args(options).args(["-F", "-E", "-m", "-r"]).arg(&key);
        command.args(["-p", &format!("127.0.0.1:{port}"), "-P"]).arg(dir.path().join("pid"));
        let daemon = Daemon::start(&mut command, &dir.path().join("log"));
        // It logs "Not backgrounding" before it listens, and nothing after that; the look leaves a line in its log.
        wait_until("dropbear listens", LONG, async || ports::answers(port).then_some(())).await;
        Self { dir, port, host_key, daemon }
    }

    /// What a tunnel to it is asked for with.
    pub fn destination(&self) -> String {
        format!("{ACCOUNT}@127.0.0.1:{}", self.port)
    }

    /// The line of `known_hosts` for it.
    pub fn known_hosts_line(&self) -> String {
        let mut fields = self.host_key.split(' ');
        let (kind, key) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        format!("[127.0.0.1]:{} {kind} {key}", self.port)
    }

    /// Adds a line to the account's `authorized_keys`.
    pub fn authorize(&self, line: &str) {
        authorize(self.dir.path(), line);
    }

    /// The account's `authorized_keys`.
    pub fn authorized_keys(&self) -> std::path::PathBuf {
        self.dir.path().join("home/.ssh/authorized_keys")
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

impl Drop for Dropbear {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- dropbear on port {}:\n{}", self.port, self.log());
        }
    }
}
