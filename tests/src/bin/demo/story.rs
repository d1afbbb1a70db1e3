//! The story itself, step by step.

use std::time::Instant;

use ocpp_tunnel_tests::ports;
use ocpp_tunnel_tests::service::{Service, fetch};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::agent::{self, Agent, IDENTITY, Settings};
use crate::controller::{PAGE, Sshd};
use crate::csms::{Csms, HEARTBEAT_SECONDS, text};
use crate::screen::Screen;
use crate::ssh_server::{Event, SshServer};
use crate::{Result, interrupted, within};

const SCRIPT_1: &str = "InvokeCustomScript1";
const SCRIPT_2: &str = "InvokeCustomScript2";

/// The cast.
#[derive(Debug)]
pub(crate) struct Story {
    agent: Agent,
    csms: Csms,
    server: SshServer,
    sshd: Sshd,
    dashboard: Service,
    ssh_port: u16,
    dashboard_port: u16,
}

impl Story {
    /// Builds the agent and starts everybody but it.
    pub(crate) async fn prepare(screen: &Screen) -> Result<Self> {
        let binary = agent::build().await?;
        let csms = Csms::start(IDENTITY, agent::PASSWORD).await?;
        let server = SshServer::start().await?;
        let sshd = Sshd::start().await?;
        let dashboard = Service::page(PAGE).await;
        let (ssh_port, dashboard_port) = (free_or(1111), free_or(1112));
        let agent = Agent::new(
            binary,
            &Settings {
                url: &csms.url(),
                destination: &server.destination(),
                host_key: &server.known_hosts_line()?,
                ssh: (ssh_port, &sshd.address()),
                dashboard: (dashboard_port, &dashboard.address()),
            },
        )?;
        let story = Self { agent, csms, server, sshd, dashboard, ssh_port, dashboard_port };
        story.introduce(screen);
        Ok(story)
    }

    /// Plays it to its end, or until Ctrl-C with `keep`.
    pub(crate) async fn play(&mut self, screen: &mut Screen, keep: bool) -> Result<()> {
        let begin = Instant::now();
        self.connect(screen).await?;
        self.open(screen, "The CSMS asks for a tunnel to the controller's SSH", SCRIPT_1).await?;
        self.open(screen, "The CSMS asks for a tunnel to the controller's dashboard as well", SCRIPT_2)
            .await?;
        self.show_status(screen).await?;
        self.use_tunnels(screen).await?;
        self.refuse(screen).await?;
        if keep {
            self.keep(screen).await?;
        }
        self.close(screen).await?;
        self.end(screen).await?;
        if !keep {
            screen.line("");
            screen.line(&format!("That was it, in {:.1} s.", begin.elapsed().as_secs_f64()));
            screen.line("`cargo demo -- --keep` leaves it all up, for you to try.");
        }
        Ok(())
    }

    /// What the agent has logged so far.
    pub(crate) fn agent_log(&self) -> String {
        self.agent.log()
    }

    fn introduce(&self, screen: &Screen) {
        screen.title("ocpp-tunnel: a CSMS opens reverse tunnels to a charge controller behind NAT");
        screen.line("Everything runs on this machine and on its loopback interface. Only the agent is the real thing;");
        screen.line("the others are stand-ins built into the demo.");
        screen.line("");
        screen.says("agent", format!("{}, charge point {IDENTITY}", self.agent.binary()));
        screen.says("CSMS", format!("{}, OCPP 1.6J", self.csms.url()));
        screen.says("", "With a password but without TLS, which is security profile 1: good enough for");
        screen.says("", "loopback. The demo's configuration says so; by default a trigger needs profile 2.");
        screen.says(
            "SSH server",
            format!("{}, its host key pinned in the agent's configuration", self.server.destination()),
        );
        screen.says(
            "controller",
            format!("SSH at {}, dashboard at {}", self.sshd.address(), self.dashboard.address()),
        );
        for (usual, port) in [(1111, self.ssh_port), (1112, self.dashboard_port)] {
            if port != usual {
                screen.says(
                    "",
                    format!("Port {usual} is taken on this machine: the demo uses {port} instead."),
                );
            }
        }
    }

    async fn connect(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step("The agent makes its key, starts, and reports to the CSMS");
        let key = self.agent.cli(&["keys", "show"]).await?;
        self.server.authorize(key.trim_end())?;
        screen.command("ocpp-tunnel keys show");
        screen.output(&key, 1);
        screen.says("operator", "puts this key into authorized_keys on the SSH server");
        self.agent.start()?;
        let boot = self.csms.boot().await?;
        let (vendor, model) = (text(&boot["chargePointVendor"]), text(&boot["chargePointModel"]));
        screen.says("agent", format!("BootNotification, vendor {vendor}, model {model}"));
        screen.answers("CSMS", "Accepted");
        screen.says("", format!("and asks for a heartbeat every {HEARTBEAT_SECONDS} s"));
        Ok(())
    }

    async fn open(&mut self, screen: &mut Screen, heading: &str, key: &str) -> Result<()> {
        screen.step(heading);
        let destination = self.server.destination();
        screen.says("CSMS", format!("ChangeConfiguration {key} = {destination}"));
        let asked = Instant::now();
        let status = self.csms.change(key, &destination).await?;
        screen.answers("agent", &status);
        if status != "Accepted" {
            return Err(format!("ChangeConfiguration {key} was answered {status}").into());
        }
        loop {
            let event = self.server.event("the agent to open the tunnel").await?;
            show_event(screen, &event, Some(asked));
            if matches!(event, Event::Published { .. }) {
                return Ok(());
            }
        }
    }

    async fn show_status(&self, screen: &mut Screen) -> Result<()> {
        screen.step("Both sides can see what is open");
        self.agent.up(&["1", "2"]).await?;
        screen.command("ocpp-tunnel status");
        screen.output(&self.agent.cli(&["status"]).await?, 30);
        let keys = ["InvokeCustomScript1Status", "InvokeCustomScript2Status"];
        screen.says("CSMS", format!("GetConfiguration {}", keys.join(", ")));
        for (key, value) in self.csms.get(&keys).await? {
            screen.says("agent", format!("{key}:"));
            screen.output(&value, 1);
        }
        Ok(())
    }

    async fn use_tunnels(&self, screen: &mut Screen) -> Result<()> {
        screen.step("On the SSH server, somebody reads the dashboard and calls the controller's SSH");
        screen.command(&format!("curl -i http://localhost:{}/", self.dashboard_port));
        let page = within("the page", fetch(self.dashboard_port)).await??;
        if !page.ends_with(PAGE) {
            return Err(
                format!("what came through port {} isn't the page: {page:?}", self.dashboard_port).into()
            );
        }
        screen.output(&page, 12);
        screen.command(&format!("nc localhost {}", self.ssh_port));
        let banner = within("the SSH server's banner", banner(self.ssh_port)).await??;
        if !banner.starts_with("SSH-2.0-") {
            return Err(format!("what came through port {} isn't SSH: {banner:?}", self.ssh_port).into());
        }
        screen.output(&banner, 1);
        Ok(())
    }

    async fn refuse(&self, screen: &mut Screen) -> Result<()> {
        screen.step("A destination that isn't on the controller's allow-list is refused");
        for value in ["root@203.0.113.66", "ops@127.0.0.1 -oProxyCommand=reboot"] {
            screen.says("CSMS", format!("ChangeConfiguration {SCRIPT_1} = {value}"));
            let status = self.csms.change(SCRIPT_1, value).await?;
            screen.answers("agent", &status);
            if status != "Rejected" {
                return Err(format!("{value} was answered {status}").into());
            }
        }
        let status = "InvokeCustomScript1Status";
        screen.says("CSMS", format!("GetConfiguration {status}"));
        screen.says("agent", format!("{status}:"));
        for (_, value) in self.csms.get(&[status]).await? {
            screen.output(&value, 1);
        }
        let banner = within("the SSH server's banner", banner(self.ssh_port)).await??;
        screen.says("", "The tunnel that was up is still up:");
        screen.command(&format!("nc localhost {}", self.ssh_port));
        screen.output(&banner, 1);
        Ok(())
    }

    async fn close(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step("The CSMS closes the tunnels with an empty value");
        for (key, port) in [(SCRIPT_1, self.ssh_port), (SCRIPT_2, self.dashboard_port)] {
            screen.says("CSMS", format!("ChangeConfiguration {key} = \"\""));
            let status = self.csms.change(key, "").await?;
            screen.answers("agent", &status);
            while !ports::is_free(port) {
                self.server.event("the agent to close the tunnel").await?;
            }
            screen.says("SSH server", format!("port {port} is closed"));
        }
        screen.command(&format!("curl http://localhost:{}/", self.dashboard_port));
        match fetch(self.dashboard_port).await {
            Ok(_) => Err(format!("port {} still answers", self.dashboard_port).into()),
            Err(why) => {
                screen.output(&why.to_string(), 1);
                Ok(())
            }
        }
    }

    async fn end(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step("The agent is stopped as a service manager stops it");
        let code = self.agent.terminate().await?;
        if code != Some(0) {
            return Err(format!("the agent ended with {code:?} instead of 0").into());
        }
        screen.says("agent", "ends with exit status 0");
        Ok(())
    }

    /// Leaves everything up, and lets the reader play the CSMS.
    async fn keep(&mut self, screen: &mut Screen) -> Result<()> {
        let known_hosts = self.agent.directory().join("known_hosts");
        std::fs::write(&known_hosts, format!("{}\n", self.sshd.known_hosts_line(self.ssh_port)))?;
        let (binary, config) = (self.agent.binary(), self.agent.config());
        screen.step("All of it stays up until Ctrl-C. In another terminal, try:");
        screen.command(&format!("curl http://localhost:{}/", self.dashboard_port));
        screen.command(&format!(
            "ssh -p {} -o UserKnownHostsFile={} charge@127.0.0.1",
            self.ssh_port,
            known_hosts.display()
        ));
        for command in ["status", "status --json", "close 1", "open --script 1", "config show"] {
            screen.command(&format!("{binary} {command} --config {}", config.display()));
        }
        screen.command(&format!("tail -f {}/agent.log", self.agent.directory().display()));
        screen.line("");
        screen.line("   Here you are the CSMS: type one of these, and Enter.");
        screen.line("     get                                all configuration keys of the charge point");
        screen.line("     get InvokeCustomScript1Status      one of them");
        screen.line("     set InvokeCustomScript1            ChangeConfiguration with an empty value: close");
        screen.line(&format!("     set InvokeCustomScript1 {}   open it again", self.server.destination()));
        let mut lines = typed_lines();
        loop {
            tokio::select! {
                () = interrupted() => return Ok(()),
                event = self.server.next() => show_event(screen, &event?, None),
                Some(line) = lines.recv() => {
                    if let Err(why) = self.obey(screen, &line).await {
                        screen.says("CSMS", why);
                    }
                }
            }
        }
    }

    async fn obey(&self, screen: &Screen, line: &str) -> Result<()> {
        let mut words = line.trim().splitn(3, ' ');
        match (words.next().unwrap_or_default(), words.next(), words.next()) {
            ("", ..) => {}
            ("get", None, None) => show_keys(screen, &self.csms.get(&[]).await?),
            ("get", Some(key), None) => match &self.csms.get(&[key]).await?[..] {
                [] => screen.says("agent", format!("unknown key {key}")),
                keys => show_keys(screen, keys),
            },
            ("set", Some(key), value) => {
                screen.answers("agent", &self.csms.change(key, value.unwrap_or("")).await?);
            }
            _ => screen.says("CSMS", "type `get`, `get KEY`, `set KEY VALUE`, or `set KEY`"),
        }
        Ok(())
    }
}

fn show_event(screen: &Screen, event: &Event, asked: Option<Instant>) {
    match event {
        Event::LoggedIn { fingerprint } => {
            screen.says("SSH server", format!("the agent logs in with its key, {fingerprint}"));
        }
        Event::Published { port, at } => {
            let delay = asked
                .map(|asked| format!(", {} ms after the CSMS asked", at.duration_since(asked).as_millis()));
            screen.says("SSH server", format!("listens on localhost:{port}{}", delay.unwrap_or_default()));
        }
        Event::Withdrawn { port } => screen.says("SSH server", format!("closes localhost:{port}")),
    }
}

fn show_keys(screen: &Screen, keys: &[(String, String)]) {
    for (key, value) in keys {
        screen.says("agent", format!("{key} = {value:?}"));
    }
}

/// The usual port if nobody has it, another one otherwise.
fn free_or(usual: u16) -> u16 {
    if ports::is_free(usual) { usual } else { ports::free() }
}

async fn banner(port: u16) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?).read_line(&mut line).await?;
    Ok(line)
}

/// What is typed, line by line, until standard input ends.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    // A thread of its own: reading from a terminal can't be interrupted.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
