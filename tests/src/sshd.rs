//! OpenSSH's server on a free port, with a host key, a configuration and an account of its own.
//!
//! The account exists only for this server: its `/etc/passwd` is laid over the machine's in a mount namespace.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{self, Daemon};
use crate::ssh::KeyPair;
use crate::{LONG, ports, wait_until};

/// The account that tests log in to.
pub const ACCOUNT: &str = "support";

/// No other account's, so that a process of the login session owns nothing on the machine.
const ACCOUNT_ID: u32 = 61_234;

/// The password of accounts that have one.
pub const PASSWORD: &str = "correct horse battery";

/// That password as crypt(3) has it, by SHA-512.
const PASSWORD_HASH: &str =
    "$6$ocpptunnel$BZuUnMHyBNPxBh6W75/GjnmF93W.gdeG5JBMS/1ZU6VA0Re3It803dMAoQRRo2zgS6S.Yda/PnJ/sntjz.Eml0";

/// How the account is.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// It has the password [`PASSWORD`]; otherwise none opens it.
    pub password: bool,
    /// Its login shell.
    pub shell: &'static str,
}

impl Default for Account {
    fn default() -> Self {
        Self { password: false, shell: "/bin/sh" }
    }
}

/// A running `sshd`.
#[derive(Debug)]
pub struct Sshd {
    dir: TempDir,
    address: IpAddr,
    port: u16,
    host_keys: Vec<KeyPair>,
    settings: String,
    daemon: Option<Daemon>,
}

impl Sshd {
    /// Starts a server that lets nobody in until somebody is authorised.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// As [`Self::start`], with settings that win over the usual ones.
    pub async fn start_with(settings: &str) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), settings).await
    }

    /// As [`Self::start_with`], at another address of this machine.
    pub async fn start_at(address: IpAddr, settings: &str) -> Self {
        Self::start_for(Account::default(), address, settings).await
    }

    /// Starts one on the loopback whose account has a password, and takes it.
    pub async fn start_with_password(settings: &str) -> Self {
        let account = Account { password: true, ..Account::default() };
        let settings = format!("{settings}\nPasswordAuthentication yes\n");
        Self::start_for(account, Ipv4Addr::LOCALHOST.into(), &settings).await
    }

    /// As [`Self::start_at`], with another account.
    pub async fn start_for(account: Account, address: IpAddr, settings: &str) -> Self {
        let dir = account_directory(account);
        let host_key = KeyPair::generate(&dir.path().join("host_key")).await;
        let (port, host_keys, settings) = (ports::free(), vec![host_key], settings.to_owned());
        let mut sshd = Self { dir, address, port, host_keys, settings, daemon: None };
        sshd.resume().await;
        sshd
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process that listens.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("sshd runs").pid()
    }

    /// Its address, as the configuration writes a local service.
    pub fn address(&self) -> String {
        std::net::SocketAddr::new(self.address, self.port).to_string()
    }

    /// What a tunnel to it is asked for with.
    pub fn destination(&self) -> String {
        format!("{ACCOUNT}@{}", self.address())
    }

    /// The processes that serve its clients.
    pub fn sessions(&self) -> Vec<u32> {
        process::children_of(self.pid())
    }

    /// Ends a client's session at once, as a crash would.
    pub fn kill_sessions(&self) {
        self.sessions().into_iter().for_each(process::kill_tree);
    }

    /// The first key that it proves its identity with.
    pub fn host_key(&self) -> &KeyPair {
        &self.host_keys[0]
    }

    /// Its keys; changes take effect with [`Self::resume`]. Those that have a certificate show it.
    pub fn host_keys(&mut self) -> &mut Vec<KeyPair> {
        &mut self.host_keys
    }

    /// Gives it one more key of this type, as `ssh-keygen -t` calls it; takes effect with [`Self::resume`].
    pub async fn add_host_key(&mut self, kind: &str) {
        let file = self.dir.path().join(format!("host_key_{kind}"));
        self.host_keys.push(KeyPair::generate_as(&file, kind).await);
    }

    /// The line of `known_hosts` for it.
    pub fn known_hosts_line(&self) -> String {
        self.host_key().known_hosts_line_at(self.address, self.port)
    }

    /// Adds a line to the account's `authorized_keys`.
    pub fn authorize(&self, line: &str) {
        authorize(self.dir.path(), line);
    }

    /// The account's `authorized_keys`.
    pub fn authorized_keys(&self) -> PathBuf {
        authorized_keys(self.dir.path())
    }

    /// Takes back every authorisation.
    pub fn authorize_nobody(&self) {
        std::fs::write(authorized_keys(self.dir.path()), "").expect("it can be written");
    }

    /// Gives it another host key, as a reinstalled or a false server has; takes effect with [`Self::resume`].
    pub async fn change_host_key(&mut self) {
        self.host_keys = vec![KeyPair::generate(&self.dir.path().join("host_key")).await];
    }

    /// Adds a line to its configuration, and starts it again with it.
    pub async fn configure(&mut self, line: &str) {
        self.kill().await;
        self.settings += &format!("{line}\n");
        self.resume().await;
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// How many connections it has accepted, authenticated or not.
    pub fn connections(&self) -> usize {
        self.log().matches("Connection from ").count()
    }

    /// How many clients have authenticated.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey for ").count()
    }

    /// Ends it at once, with all its sessions.
    pub async fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill_tree().await;
        }
    }

    /// Starts it again after [`Self::kill`], on the same port.
    pub async fn resume(&mut self) {
        std::fs::create_dir_all("/run/sshd").expect("sshd's directory can be made: the tests need root");
        let listening = format!("Server listening on {} port {}", self.address, self.port);
        let before = self.log().matches(&listening).count();
        std::fs::write(self.dir.path().join("sshd_config"), self.configuration()).expect("it can be written");
        let mut command = in_private_etc(self.dir.path());
        command.args(["/usr/sbin/sshd", "-D", "-e", "-f"]).arg(self.dir.path().join("sshd_config"));
        self.daemon = Some(Daemon::start(&mut command, &self.log_path()));
        wait_until("sshd listens", LONG, async || {
            (self.log().matches(&listening).count() > before).then_some(())
        })
        .await;
    }

    /// Stops the server and its sessions without closing anything, as a dead network does; ended by [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets the server go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        process::signal_tree(self.pid(), signal);
    }

    fn configuration(&self) -> String {
        let dir = self.dir.path().display();
        let mut host_keys = String::new();
        for key in &self.host_keys {
            host_keys += &format!("HostKey {}\n", key.private().display());
            let certificate = key.certificate();
            if certificate.exists() {
                host_keys += &format!("HostCertificate {}\n", certificate.display());
            }
        }
        // sshd takes the first value of each setting.
        format!(
            "{}\n\
             ListenAddress {}\n\
             {host_keys}\
             AuthorizedKeysFile {dir}/home/.ssh/authorized_keys\n\
             PidFile none\n\
             LogLevel DEBUG1\n\
             UsePAM no\n\
             StrictModes no\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             PrintMotd no\n\
             ClientAliveInterval 15\n\
             ClientAliveCountMax 3\n",
            self.settings,
            self.address(),
        )
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- sshd on port {}:\n{}", self.port, self.log());
        }
    }
}

/// A directory with a home for the account, and an `etc` in which the account exists.
pub(crate) fn account_directory(account: Account) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    // The account isn't root, and has to get to its home.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let home = dir.path().join("home");
    let keys = home.join(".ssh");
    let etc = dir.path().join("etc");
    for directory in [&home, &keys, &etc] {
        std::fs::create_dir(directory).expect("it can be made");
    }
    std::fs::write(authorized_keys(dir.path()), "").expect("it can be written");
    for (path, mode) in [(&home, 0o755), (&keys, 0o700), (&authorized_keys(dir.path()), 0o600)] {
        std::os::unix::fs::chown(path, Some(ACCOUNT_ID), Some(ACCOUNT_ID))
            .expect("root may: the tests need root");
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("root may");
    }
    let machine = std::fs::read_to_string("/etc/passwd").expect("every system has it");
    // First, so that it wins over an account of the machine with the same name.
    let (password, shell) = (if account.password { PASSWORD_HASH } else { "*" }, account.shell);
    let accounts =
        format!("{ACCOUNT}:{password}:{ACCOUNT_ID}:{ACCOUNT_ID}::{}:{shell}\n{machine}", home.display());
    std::fs::write(etc.join("passwd"), accounts).expect("it can be written");
    // For servers that ask PAM: the password, and nothing that would be written down on the machine.
    std::fs::create_dir(etc.join("pam.d")).expect("it can be made");
    let pam = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
    std::fs::write(etc.join("pam.d/sshd"), pam).expect("it can be written");
    dir
}

/// A command that runs in a mount namespace in which `dir/etc` is laid over `/etc`; the caller adds what to run.
pub(crate) fn in_private_etc(dir: &Path) -> Command {
    private(&dir.join("etc"), Path::new(""))
}

/// As [`in_private_etc`], with `log` as `/dev/log` if it isn't empty.
pub(crate) fn private(etc: &Path, log: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/private.sh"))
        .arg(etc)
        .arg(log);
    command
}

/// Adds a line to the account's `authorized_keys`.
pub(crate) fn authorize(dir: &Path, line: &str) {
    let file = std::fs::File::options().append(true).open(authorized_keys(dir));
    writeln!(file.expect("it exists"), "{}", line.trim_end()).expect("it can be written");
}

fn authorized_keys(dir: &Path) -> PathBuf {
    dir.join("home/.ssh/authorized_keys")
}
