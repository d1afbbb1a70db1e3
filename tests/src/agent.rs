//! The agent's real binary: its configuration, its life, its command line.
//!
//! `OCPP_TUNNEL_BIN` names the binary, `OCPP_TUNNEL_RUNNER` a program that runs it, such as `qemu-arm-static`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::csms::Csms;
use crate::process::{self, Daemon, Output, run, write_program};
use crate::syslog::Syslog;
use crate::tls::Files;
use crate::{LONG, sshd, wait_until};

/// A configuration file in the making, and the directory that the agent will live in.
#[derive(Debug)]
pub struct Setup {
    dir: TempDir,
    binary: PathBuf,
    runner: Option<PathBuf>,
    ocpp: Vec<String>,
    bridge: Vec<String>,
    ssh: Vec<String>,
    policy: Vec<String>,
    host_keys: Vec<String>,
    allowed: Vec<String>,
    scripts: Vec<String>,
    log: Vec<String>,
    log_level: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// An agent that is allowed nothing yet, with back-off times that suit a test.
    ///
    /// # Panics
    /// If the binary hasn't been built.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
        std::fs::create_dir_all(dir.path().join("etc/ocpp-tunnel")).expect("it can be made");
        let binary =
            std::env::var_os("OCPP_TUNNEL_BIN").map_or_else(|| built_binary("ocpp-tunnel"), PathBuf::from);
        let setup = Self {
            dir,
            binary: PathBuf::new(),
            runner: std::env::var_os("OCPP_TUNNEL_RUNNER").map(PathBuf::from),
            ocpp: ["backoff_minimum = '100ms'", "backoff_random = '100ms'", "backoff_doublings = 2"]
                .map(String::from)
                .to_vec(),
            bridge: Vec::new(),
            ssh: ["backoff_minimum = '100ms'", "backoff_maximum = '1s'"].map(String::from).to_vec(),
            policy: Vec::new(),
            host_keys: Vec::new(),
            allowed: Vec::new(),
            scripts: Vec::new(),
            log: Vec::new(),
            log_level: "debug".into(),
            environment: Vec::new(),
        };
        setup.binary(&binary)
    }

    /// Uses this binary.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = path.canonicalize().unwrap_or_else(|why| {
            panic!("{}: {why}; `cargo build --package ocpp-tunnel` makes the agent", path.display())
        });
        self
    }

    /// Runs the binary with this program.
    #[must_use]
    pub fn runner(mut self, program: impl Into<PathBuf>) -> Self {
        self.runner = Some(program.into());
        self
    }

    /// Runs the binary in a mount namespace of its own each time, where this shell command was run before. `state_dir` is
    /// there by then.
    #[must_use]
    pub fn mount(self, command: &str) -> Self {
        let path = self.dir.path().join("with-mount");
        let state = self.dir.path().join("state");
        let script = format!(
            "#!/bin/sh\nmkdir -p {} && exec unshare --mount sh -c '{command} && exec \"$@\"' sh \"$@\"\n",
            state.display()
        );
        write_program(&path, &script);
        self.runner(path)
    }

    /// Connects to this CSMS with what it wants: its URL, a password if it asks for one, its authority's certificate.
    ///
    /// The security profile that a trigger needs is set to the link's if that is below the default, which is 2.
    #[must_use]
    pub fn csms(mut self, csms: &Csms) -> Self {
        let options = csms.options();
        let profile = match (&options.password, options.tls) {
            _ if options.client_certificates => 3,
            (None, _) => 0,
            (Some(_), false) => 1,
            (Some(_), true) => 2,
        };
        self = self
            .ocpp(&format!("url = '{}'", csms.url()))
            .ocpp(&format!("identity = '{}'", options.identity))
            .ocpp(&format!("security_profile = {profile}"));
        if let Some(password) = &options.password {
            let file = self.dir.path().join("authorization-key");
            std::fs::write(&file, password).expect("it can be written");
            self = self.ocpp(&format!("authorization_key_file = '{}'", file.display()));
        }
        if let Some(authority) = csms.authority() {
            self = self.ocpp(&format!("ca_file = '{}'", authority.root().display()));
            if options.client_certificates {
                let files = authority.client(self.dir.path(), &options.identity);
                self = self.client_certificate(&files);
            }
        }
        if profile < 2 { self.policy(&format!("minimum_security_profile = {profile}")) } else { self }
    }

    /// Shows this certificate to the CSMS.
    #[must_use]
    pub fn client_certificate(self, files: &Files) -> Self {
        self.ocpp(&format!("client_certificate_file = '{}'", files.certificate.display()))
            .ocpp(&format!("client_key_file = '{}'", files.key.display()))
    }

    /// Adds a line to `[ocpp]`.
    #[must_use]
    pub fn ocpp(mut self, line: &str) -> Self {
        replace_or_push(&mut self.ocpp, line);
        self
    }

    /// Adds a line to `[bridge]`.
    #[must_use]
    pub fn bridge(mut self, line: &str) -> Self {
        replace_or_push(&mut self.bridge, line);
        self
    }

    /// Stands between controllers, which connect to this port of 127.0.0.1, and the CSMS that was set already. What they
    /// show is passed on.
    #[must_use]
    pub fn between(mut self, port: u16) -> Self {
        self.ocpp.retain(|line| !line.starts_with("authorization_key_file"));
        self.ocpp("mode = 'bridge'").bridge(&format!("listen = '127.0.0.1:{port}'"))
    }

    /// Adds a line to `[ssh]`.
    #[must_use]
    pub fn ssh(mut self, line: &str) -> Self {
        replace_or_push(&mut self.ssh, line);
        self
    }

    /// Adds a line to `[policy]`.
    #[must_use]
    pub fn policy(mut self, line: &str) -> Self {
        replace_or_push(&mut self.policy, line);
        self
    }

    /// Pins a server's host key, by its line of `known_hosts`.
    #[must_use]
    pub fn pin(mut self, known_hosts_line: &str) -> Self {
        self.host_keys.push(format!("'{known_hosts_line}'"));
        self
    }

    /// Pins no server, whatever was pinned before.
    #[must_use]
    pub fn pin_nothing(mut self) -> Self {
        self.host_keys.clear();
        self
    }

    /// Allows destinations that match a pattern.
    #[must_use]
    pub fn allow(mut self, pattern: &str) -> Self {
        self.allowed.push(format!("'{pattern}'"));
        self
    }

    /// Publishes `local` as port `remote` of the server's loopback interface, when script `number` is asked for.
    #[must_use]
    pub fn script(mut self, number: u8, remote: u16, local: &str) -> Self {
        let key = format!("key = 'InvokeCustomScript{number}'");
        self.scripts.push(format!("[[script]]\n{key}\nremote = 'localhost:{remote}'\nlocal = '{local}'\n"));
        self
    }

    /// Adds a line to `[log]`.
    #[must_use]
    pub fn log(mut self, line: &str) -> Self {
        replace_or_push(&mut self.log, line);
        self
    }

    /// Logs from this level on.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Writes a file that the configuration is to name, and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.display().to_string()
    }

    /// Starts the agent with this environment variable; commands don't get it.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The directory that everything of this agent is in.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    fn render(&self) -> String {
        let dir = self.dir.path().display();
        let section = |name: &str, lines: &[String]| format!("[{name}]\n{}\n\n", lines.join("\n"));
        let mut text = format!("state_dir = '{dir}/state'\nruntime_dir = '{dir}/run'\n\n");
        text += &section("ocpp", &self.ocpp);
        if !self.bridge.is_empty() {
            text += &section("bridge", &self.bridge);
        }
        text += &section("ssh", &self.ssh);
        text = text.trim_end().to_owned() + &format!("\nhost_keys = [{}]\n\n", self.host_keys.join(", "));
        text += &section("policy", &self.policy);
        text =
            text.trim_end().to_owned() + &format!("\nallow_destinations = [{}]\n\n", self.allowed.join(", "));
        text += &self.scripts.concat();
        text + &format!(
            "[log]\nsyslog = '{dir}/syslog'\nlevel = '{}'\n{}\n",
            self.log_level,
            self.log.join("\n")
        )
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// An agent, running or not. Dropping it ends it at once.
#[derive(Debug)]
pub struct Agent {
    setup: Setup,
    syslog: Syslog,
    daemon: Option<Daemon>,
}

impl Agent {
    /// Writes the configuration, and starts nothing.
    pub fn new(setup: Setup) -> Self {
        let syslog = Syslog::start(&setup.directory().join("syslog"));
        let agent = Self { setup, syslog, daemon: None };
        agent.configure(&agent.setup.render());
        agent
    }

    /// Starts an agent.
    pub async fn run(setup: Setup) -> Self {
        let mut agent = Self::new(setup);
        agent.start().await;
        agent
    }

    /// Starts the agent, and waits until it takes commands.
    pub async fn start(&mut self) {
        let mut command = self.command(&["run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        let mut daemon = Daemon::start(&mut command, &self.setup.directory().join("log"));
        wait_until("the agent takes commands", LONG, async || {
            assert!(daemon.is_running(), "the agent has ended:\n{}", daemon.log());
            let status = self.cli(&["status", "--json"]).await;
            (status.code != Some(10)).then_some(())
        })
        .await;
        self.daemon = Some(daemon);
    }

    /// Replaces the configuration file; a running agent doesn't notice.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.config_path(), text).expect("the configuration can be written");
    }

    /// The configuration file's text.
    pub fn configuration(&self) -> String {
        std::fs::read_to_string(self.config_path()).expect("it was written")
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.setup.directory().join("etc/ocpp-tunnel/config.toml")
    }

    /// `state_dir`.
    pub fn state_dir(&self) -> PathBuf {
        self.setup.directory().join("state")
    }

    /// `runtime_dir`.
    pub fn runtime_dir(&self) -> PathBuf {
        self.setup.directory().join("run")
    }

    /// The directory of everything that this agent has.
    pub fn directory(&self) -> &Path {
        self.setup.directory()
    }

    /// The syslog that it writes to.
    pub fn syslog(&self) -> &Syslog {
        &self.syslog
    }

    /// Ends syslog and starts it anew at the same place, empty; `meanwhile` happens in between.
    pub async fn restart_syslog(&mut self, meanwhile: impl AsyncFnOnce(&Self)) {
        let path = self.syslog.path().to_owned();
        self.syslog.stop();
        std::fs::remove_file(&path).expect("the socket is ours");
        meanwhile(self).await;
        self.syslog = Syslog::start(&path);
    }

    /// What every start of it has written to standard error.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.setup.directory().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The running agent's process id.
    ///
    /// # Panics
    /// If it doesn't run.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the agent runs").pid()
    }

    /// A command of the binary with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.binary();
        command.arg("--config").arg(self.config_path()).args(arguments);
        command
    }

    /// The binary alone.
    pub fn binary(&self) -> Command {
        let Some(runner) = &self.setup.runner else { return Command::new(&self.setup.binary) };
        let mut command = Command::new(runner);
        command.arg(&self.setup.binary);
        command
    }

    /// Another of the workspace's programs, which `cargo build --workspace` has made.
    pub fn beside(name: &str) -> PathBuf {
        built_binary(name)
    }

    /// The file of learned host keys.
    pub fn known_hosts(&self) -> PathBuf {
        self.state_dir().join("known_hosts")
    }

    /// Replaces that file, as a person does.
    pub fn write_known_hosts(&self, text: &str) {
        std::fs::write(self.known_hosts(), text).expect("it can be written");
    }

    /// Runs a command of the command line to its end.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), "").await
    }

    /// Runs the shim `custom_scriptN.sh`, with this configuration in `/etc` and this syslog at `/dev/log`.
    pub async fn shim(&self, number: u8, arguments: &[&str]) -> Output {
        let link = self.setup.directory().join(format!("custom_script{number}.sh"));
        if !link.exists() {
            symlink(&self.setup.binary, &link).expect("a link can be made");
        }
        let mut command = sshd::private(&self.setup.directory().join("etc"), self.syslog.path());
        command.arg(link).args(arguments).current_dir(self.setup.directory());
        run(&mut command, "").await
    }

    /// What `status --json` says.
    ///
    /// # Panics
    /// If it isn't JSON.
    pub async fn status(&self) -> Value {
        let output = self.cli(&["status", "--json"]).await;
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|why| panic!("status --json: {why}: {output:?}; log:\n{}", self.log()))
    }

    /// The entry of `status` for the tunnel with this id; null if there is none.
    pub async fn tunnel(&self, id: &str) -> Value {
        let status = self.status().await;
        let tunnels = status["tunnels"].as_array().cloned().unwrap_or_default();
        tunnels.into_iter().find(|tunnel| tunnel["id"] == id).unwrap_or_default()
    }

    /// Waits until the tunnel is in this state, and returns its entry.
    pub async fn tunnel_is(&self, id: &str, state: &str) -> Value {
        wait_until(&format!("tunnel {id} is {state}"), LONG, async || {
            let tunnel = self.tunnel(id).await;
            (tunnel["state"] == state).then_some(tunnel)
        })
        .await
    }

    /// Waits until there is no such tunnel, or it has closed; returns its reason.
    pub async fn tunnel_ends(&self, id: &str) -> Option<String> {
        wait_until(&format!("tunnel {id} ends"), LONG, async || {
            let tunnel = self.tunnel(id).await;
            let ended = tunnel.is_null() || tunnel["state"] == "closed" || tunnel["state"] == "idle";
            ended.then(|| tunnel["reason"].as_str().map(str::to_owned))
        })
        .await
    }

    /// Waits until the OCPP link is in this state, and returns its entry of `status`.
    pub async fn link_is(&self, state: &str) -> Value {
        wait_until(&format!("the OCPP link is {state}"), LONG, async || {
            let mut status = self.status().await;
            (status["ocpp"]["state"] == state).then(|| status["ocpp"].take())
        })
        .await
    }

    /// Says a line on the control socket, and returns the answer.
    pub async fn ask(&self, request: &str) -> String {
        let socket = self.runtime_dir().join("control.sock");
        let mut stream = UnixStream::connect(socket).await.expect("the agent listens");
        stream.write_all(format!("{request}\n").as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    /// The audit records, as `audit --json` with these arguments prints them.
    ///
    /// # Panics
    /// If it fails.
    pub async fn records(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.cli(&[&["audit", "--json"], arguments].concat()).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        let record = |line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        output.stdout.lines().map(record).collect()
    }

    /// Waits for an audit record of this type, and returns the last one.
    pub async fn record(&self, kind: &str) -> Value {
        wait_until(&format!("a record {kind}"), LONG, async || {
            self.records(&["--type", kind, "-n", "1"]).await.pop()
        })
        .await
    }

    /// The line for a server's `authorized_keys`, which allows no more than the tunnels need.
    pub async fn authorized_keys_line(&self) -> String {
        let output = self.cli(&["keys", "show", "--authorized-keys"]).await;
        assert_eq!(output.code, Some(0), "keys show: {output:?}");
        output.stdout
    }

    /// Writes a file of `config.d`; a running agent doesn't notice.
    pub fn drop_in(&self, name: &str, text: &str) {
        let directory = self.config_path().with_file_name("config.d");
        std::fs::create_dir_all(&directory).expect("it can be made");
        std::fs::write(directory.join(name), text).expect("it can be written");
    }

    /// Sends the running agent a signal.
    pub fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("the agent runs").signal(signal);
    }

    /// Ends the agent as a service manager does.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("the agent runs");
        daemon.signal(Signal::SIGTERM);
        daemon.ended(LONG).await
    }

    /// Ends the agent without giving it a chance to clean up.
    pub async fn kill(&mut self) {
        self.daemon.take().expect("the agent runs").kill_tree().await;
    }

    /// Whether the agent runs.
    pub fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(Daemon::is_running)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // `open --background` and the shims leave processes that are nobody's children.
        for pid in process::living_in(self.setup.directory()) {
            process::kill_tree(pid);
        }
        if std::thread::panicking() {
            eprintln!("--- configuration:\n{}--- the agent's log:\n{}", self.configuration(), self.log());
            eprintln!("--- syslog:\n{}", self.syslog.lines().join("\n"));
        }
    }
}

/// The agent's binary, beside the test's own: the same profile, the same target directory.
fn built_binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let profile = test.ancestors().find(|path| path.join("deps").is_dir());
    profile.expect("cargo keeps tests below the profile's directory").join(name)
}

fn replace_or_push(lines: &mut Vec<String>, line: &str) {
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    lines.retain(|old| name(old) != name(line));
    lines.push(line.to_owned());
}
