//! Machines of the test's own: this one's files with others laid over them in memory, a network, processes that end with it.
//!
//! A page of the documentation speaks of a controller, a server and a desk, and of files in `/etc`. Here a test has them, and
//! nothing of what it does there is left behind.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{self, Daemon, Output, run};
use crate::terminal::converse;
use crate::{LONG, wait_until};

/// A machine. Dropping it ends everything that runs there.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    _daemon: Daemon,
    /// The first process in its namespaces.
    pid: u32,
    _dir: TempDir,
}

impl Host {
    /// Makes one that knows these names, as lines of `/etc/hosts`, in a network of its own.
    ///
    /// # Panics
    /// If the kernel doesn't let us: the tests need root.
    pub async fn start(name: &'static str, binary: &Path, names: &str) -> Self {
        Self::start_in(name, binary, names, &mut Command::new("unshare"), &["--net"]).await
    }

    /// Makes one in the network of another.
    pub async fn beside(name: &'static str, binary: &Path, names: &str, other: &Self) -> Self {
        let mut command = Command::new("nsenter");
        command.args([&other.network(), "unshare"]);
        Self::start_in(name, binary, names, &mut command, &[]).await
    }

    async fn start_in(
        name: &'static str,
        binary: &Path,
        names: &str,
        command: &mut Command,
        options: &[&str],
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(dir.path().join("hosts"), names).expect("it can be written");
        command.args(["--mount", "--propagation", "private", "--uts", "--pid", "--fork"]).args(options);
        command.args(["sh", concat!(env!("CARGO_MANIFEST_DIR"), "/peers/host.sh"), name]).arg(dir.path());
        command.arg(binary).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut daemon = Daemon::start(command, &dir.path().join("log"));
        let pid = wait_until("the machine is there", LONG, async || {
            assert!(daemon.is_running(), "it could not be made: {}", daemon.log());
            let first = process::children_of(daemon.pid()).first().copied();
            first.filter(|_| dir.path().join("ready").exists())
        })
        .await;
        Self { name, _daemon: daemon, pid, _dir: dir }
    }

    /// Its network, for `nsenter`.
    pub fn network(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.pid)
    }

    /// Lays a cable to another machine: this one gets the first of the addresses, that one the second.
    pub async fn cable(&self, other: &Self, addresses: [Ipv4Addr; 2]) {
        let name = |end: char| format!("od{}{end}", self.pid);
        let [here, there] = [name('a'), name('b')];
        let ends = [(self, &here), (other, &there)];
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there]).await;
        for ((host, end), address) in ends.into_iter().zip(addresses) {
            ip(&["link", "set", end, "netns", &host.pid.to_string()]).await;
            host.root(&format!("ip addr add {address}/24 dev {end} && ip link set {end} up")).await;
        }
    }

    /// A command line that runs there, in the directory of somebody who has built the agent.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.pid.to_string(),
            "--mount",
            "--uts",
            "--net",
            "--pid",
            "--root",
            "--wd",
        ]);
        command.args([
            "env",
            "-i",
            "-C",
            "/root/ocpp-tunnel",
            "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
        ]);
        command.args(["HOME=/root", "USER=root", "TERM=dumb", "LANG=C.UTF-8", "sh", "-c", script]);
        command
    }

    /// Runs a script there, to its first failure.
    pub async fn sh(&self, script: &str) -> Output {
        run(&mut self.command(&format!("set -eu\n{script}")), "").await
    }

    /// Runs a script that must do.
    ///
    /// # Panics
    /// If it fails.
    pub async fn root(&self, script: &str) -> String {
        let output = self.sh(script).await;
        assert_eq!(output.code, Some(0), "on the {}: {script}\n{output:?}", self.name);
        output.stdout
    }

    /// Runs a script at a terminal, where these questions are answered.
    pub async fn talk(&self, script: &str, answers: &[(&str, &str)]) -> Output {
        self.root(&format!("cat > /tmp/typed <<'END OF WHAT IS TYPED'\n{script}\nEND OF WHAT IS TYPED"))
            .await;
        let mut command = self.command("exec script --quiet --return --command 'sh /tmp/typed' /dev/null");
        converse(&mut command, answers).await
    }

    /// Writes a file there.
    pub async fn write(&self, path: &str, text: &str) {
        let mut command = self.command(&format!("mkdir -p \"$(dirname '{path}')\" && cat > '{path}'"));
        let written = run(&mut command, text).await;
        assert_eq!(written.code, Some(0), "{path}: {written:?}");
    }
}

async fn ip(arguments: &[&str]) {
    let done = run(Command::new("ip").args(arguments), "").await;
    assert_eq!(done.code, Some(0), "ip {arguments:?}: {done:?}");
}
