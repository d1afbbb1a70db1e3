//! The syslog daemons that devices and collectors run: BusyBox's `syslogd`, and rsyslog's `rsyslogd`, which also says how it has
//! understood a message.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::Daemon;
use crate::{LONG, ports, sshd, wait_until};

/// What rsyslog writes of a message that came by the local socket: the fields that it found.
const LOCAL: &str = r"%syslogfacility-text%|%syslogseverity-text%|%programname%|%procid%|%timereported:::date-rfc3339%|%msg%\n";

/// And of one that came over the network.
const REMOTE: &str = r"%protocol-version%|%syslogfacility-text%|%syslogseverity-text%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%\n";

/// A daemon that can be stopped and started again.
#[derive(Debug)]
pub struct SyslogDaemon {
    dir: TempDir,
    program: Program,
    /// Where rsyslog listens for the network, by UDP and by TCP.
    port: u16,
    daemon: Option<Daemon>,
}

#[derive(Debug, Clone, Copy)]
enum Program {
    BusyBox,
    Rsyslog,
}

impl SyslogDaemon {
    /// BusyBox's. It writes `TIME HOST FACILITY.SEVERITY TAG: TEXT`.
    pub async fn busybox() -> Self {
        Self::start_one(Program::BusyBox).await
    }

    /// rsyslog's. It writes the fields of each message, with `|` in between.
    pub async fn rsyslog() -> Self {
        Self::start_one(Program::Rsyslog).await
    }

    async fn start_one(program: Program) -> Self {
        let mut daemon = Self::stopped(program);
        daemon.start().await;
        daemon
    }

    /// BusyBox's, not started.
    pub fn busybox_stopped() -> Self {
        Self::stopped(Program::BusyBox)
    }

    fn stopped(program: Program) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::create_dir(dir.path().join("etc")).expect("it can be made");
        Self { dir, program, port: ports::free(), daemon: None }
    }

    /// The local socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Where rsyslog takes messages from the network, by this scheme: `udp` or `tcp`.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Starts it, and waits until it listens.
    pub async fn start(&mut self) {
        let mut command = match self.program {
            Program::BusyBox => {
                // It follows the link that `/dev/log` is.
                let mut command = sshd::private(&self.dir.path().join("etc"), &self.socket());
                command.args(["busybox", "syslogd", "-n", "-O"]).arg(self.file());
                command
            }
            Program::Rsyslog => {
                let configuration = self.dir.path().join("rsyslog.conf");
                std::fs::write(&configuration, self.configuration()).expect("it can be written");
                let mut command = Command::new("/usr/sbin/rsyslogd");
                command.args(["-n", "-i"]).arg(self.dir.path().join("pid")).arg("-f").arg(configuration);
                command
            }
        };
        self.daemon = Some(Daemon::start(&mut command, &self.dir.path().join("log")));
        let (socket, port) = (self.socket(), self.port);
        wait_until("the syslog daemon listens", LONG, async || {
            let local =
                std::os::unix::net::UnixDatagram::unbound().and_then(|it| it.connect(&socket)).is_ok();
            let remote = matches!(self.program, Program::BusyBox) || ports::answers(port);
            (local && remote).then_some(())
        })
        .await;
    }

    /// Ends it; its socket's file stays, as after a crash.
    pub async fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill_tree().await;
        }
    }

    /// What it has written.
    pub fn lines(&self) -> Vec<String> {
        let text = std::fs::read(self.file()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Waits for a line with this part, and returns the last one.
    pub async fn line_with(&self, part: &str) -> String {
        wait_until(&format!("a line with {part:?}"), LONG, async || {
            self.lines().into_iter().rev().find(|line| line.contains(part))
        })
        .await
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("messages")
    }

    fn configuration(&self) -> String {
        let (port, file) = (self.port, self.file().display().to_string());
        format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\nmodule(load=\"imudp\")\nmodule(load=\"imtcp\")\n\
             template(name=\"local\" type=\"string\" string=\"{LOCAL}\")\n\
             template(name=\"remote\" type=\"string\" string=\"{REMOTE}\")\n\
             ruleset(name=\"local\") {{ action(type=\"omfile\" file=\"{file}\" template=\"local\") }}\n\
             ruleset(name=\"remote\") {{ action(type=\"omfile\" file=\"{file}\" template=\"remote\") }}\n\
             input(type=\"imuxsock\" Socket=\"{socket}\" ruleset=\"local\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"remote\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"remote\")\n",
            socket = self.socket().display(),
        )
    }
}

impl Drop for SyslogDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!(
                "--- {:?} in {}:\n{log}{}",
                self.program,
                self.dir.path().display(),
                self.lines().join("\n")
            );
        }
    }
}

/// The path as the configuration writes it.
#[must_use]
pub fn setting(path: &Path) -> String {
    format!("[log]\nsyslog = '{}'\n", path.display())
}
