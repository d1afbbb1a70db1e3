//! The real agent: built by cargo, configured in a temporary directory, started as a service would start it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{Result, within};

/// The charge point's name.
pub(crate) const IDENTITY: &str = "CP001";

/// Its password at the CSMS.
pub(crate) const PASSWORD: &str = "demo password 12345";

/// Between two looks at `status`, which can't be awaited.
const POLL: Duration = Duration::from_millis(20);

/// Builds the agent with the cargo that runs the demo, and returns the binary's path.
pub(crate) async fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        // Both packages, so that cargo uses for the agent what it has built for the demo.
        .args(["build", "--package", "ocpp-tunnel", "--package", "ocpp-tunnel-tests", "--bin", "ocpp-tunnel"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().await.map_err(|why| format!("cannot start cargo: {why}"))?;
    if !output.status.success() {
        return Err("the agent cannot be built; cargo has said why above".into());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables = messages.lines().rev().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == "ocpp-tunnel";
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    executables.next().ok_or_else(|| "cargo has built the agent and doesn't say where".into())
}

/// What the agent is to be told in its configuration file.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    /// The CSMS, without the identity.
    pub(crate) url: &'a str,
    /// The only destination that is allowed.
    pub(crate) destination: &'a str,
    /// The line of `known_hosts` that pins its key.
    pub(crate) host_key: &'a str,
    /// What script 1 publishes: the port on the server, and the local service.
    pub(crate) ssh: (u16, &'a str),
    /// The same for script 2.
    pub(crate) dashboard: (u16, &'a str),
}

/// The agent's files and its process. Dropping it ends the process and removes the files.
#[derive(Debug)]
pub(crate) struct Agent {
    binary: PathBuf,
    dir: TempDir,
    child: Option<Child>,
}

impl Agent {
    /// Writes the configuration; starts nothing.
    pub(crate) fn new(binary: PathBuf, settings: &Settings<'_>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ocpp-tunnel-demo-").tempdir()?;
        std::fs::write(dir.path().join("authorization-key"), PASSWORD)?;
        std::fs::write(dir.path().join("config.toml"), configuration(dir.path(), settings))?;
        Ok(Self { binary, dir, child: None })
    }

    /// The directory of its files.
    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// The binary, as a person in the working directory would type it.
    pub(crate) fn binary(&self) -> String {
        let here = std::env::current_dir().ok();
        let relative = here.and_then(|here| self.binary.strip_prefix(here).ok());
        relative.unwrap_or(&self.binary).display().to_string()
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// Runs a command of its command line, and returns what it prints.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(self.config()).stdin(Stdio::null()).kill_on_drop(true);
        let what = format!("ocpp-tunnel {}", arguments.join(" "));
        let output = within(&what, command.output()).await?.map_err(|why| format!("{what}: {why}"))?;
        // `status` also speaks by its exit code: 3, a wanted tunnel isn't up.
        if !matches!(output.status.code(), Some(0 | 3)) {
            return Err(format!(
                "{what}: {}, {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )
            .into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts it.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.binary);
        command.arg("run").arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        // Ctrl-C is for the demo, which ends the agent in its own order.
        command.process_group(0);
        self.child =
            Some(command.spawn().map_err(|why| format!("cannot start {}: {why}", self.binary.display()))?);
        Ok(())
    }

    /// Waits until every tunnel of these ids is up.
    pub(crate) async fn up(&self, ids: &[&str]) -> Result<()> {
        within("the agent's status to say that the tunnel is up", async {
            loop {
                let status: Value = serde_json::from_str(&self.cli(&["status", "--json"]).await?)?;
                let tunnels = status["tunnels"].as_array().cloned().unwrap_or_default();
                let is_up =
                    |id: &&str| tunnels.iter().any(|tunnel| tunnel["id"] == **id && tunnel["state"] == "up");
                if ids.iter().all(is_up) {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        })
        .await?
    }

    /// Ends it as a service manager does, and returns its exit code.
    pub(crate) async fn terminate(&mut self) -> Result<Option<i32>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        let pid =
            child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or("the agent has ended by itself")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        Ok(within("the agent to end", child.wait()).await??.code())
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("agent.log")
    }
}

fn configuration(dir: &Path, settings: &Settings<'_>) -> String {
    let Settings { url, destination, host_key, ssh, dashboard } = settings;
    let dir = dir.display();
    format!(
        "\
state_dir = '{dir}/state'
runtime_dir = '{dir}/run'

[ocpp]
url = '{url}'
identity = '{IDENTITY}'
security_profile = 1 # Basic authentication without TLS: for the loopback interface only
authorization_key_file = '{dir}/authorization-key'

[ssh]
host_keys = ['{host_key}']
host_key_policy = 'strict'

[[script]]
key = 'InvokeCustomScript1'
remote = 'localhost:{}'
local = '{}'

[[script]]
key = 'InvokeCustomScript2'
remote = 'localhost:{}'
local = '{}'

[policy]
allow_destinations = ['{destination}']
minimum_security_profile = 1 # 2 by default: a trigger needs TLS and a password
disable_file = '{dir}/disabled'

[log]
syslog = 'off'
",
        ssh.0, ssh.1, dashboard.0, dashboard.1
    )
}
