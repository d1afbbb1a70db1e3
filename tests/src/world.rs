//! What a page of the documentation speaks of: a controller, a server, an operator's desk and a CSMS, with the names that the
//! pages give them.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::agent::Agent;
use crate::csms::{self, Csms, Place};
use crate::host::Host;
use crate::page::{self, Block, fits};
use crate::process::Output;
use crate::sshd::PASSWORD;
use crate::tls::Fault;
use crate::{LONG, wait_until};

const CONTROLLER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// `support.example.com`, and `gw.example.com`.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const CSMS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

const NAMES: &str = "127.0.0.1 localhost\n\
    203.0.113.7 support.example.com gw.example.com\n\
    203.0.113.10 csms.example.com\n\
    192.0.2.20 controller\n";

const SSHD: &str = "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\nKbdInteractiveAuthentication no\nHostKey /etc/ssh/ssh_host_ed25519_key\n";

/// Passwords and locked accounts as everywhere, and nothing that would need a service manager.
const PAM: &str = "auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_permit.so\n";

/// The configuration of the README, without the pin.
const CONFIGURATION: &str = "[ocpp]\nurl = \"wss://csms.example.com/ocpp\"\nidentity = \"CP001\"\n\
    authorization_key_file = \"/etc/ocpp-tunnel/authorization-key\"\n\n\
    [policy]\nallow_destinations = [\"support@support.example.com\"]\n";

/// A block that isn't run as it stands.
#[derive(Debug, Clone, Copy)]
pub struct Exception {
    /// The page.
    pub page: &'static str,
    /// How the block begins.
    pub begins: &'static str,
    /// Why it isn't run.
    pub why: &'static str,
    /// What is done in its place, on the same machine.
    pub instead: Option<&'static str>,
}

impl Exception {
    fn is_for(&self, page: &str, block: &Block) -> bool {
        self.page == page && block.text.starts_with(self.begins)
    }
}

/// What happens between two blocks of a page.
#[derive(Debug, Clone, Copy)]
pub enum Then {
    /// Somebody has the server take the controller's key.
    Authorised,
    /// The agent is started.
    Runs,
    /// A script is run on this machine.
    On(&'static str, &'static str),
}

/// The machines.
#[derive(Debug)]
pub struct World {
    /// Where the agent lives, with an SSH server and a web page of its own.
    pub controller: Host,
    /// `support.example.com`, with an SSH server.
    pub server: Host,
    /// Where the operator sits, who may log in to the server as `you` and to the controller as `charge`.
    pub desk: Host,
    /// `csms.example.com`.
    pub csms: Csms,
    answers: Vec<(&'static str, Vec<(&'static str, &'static str)>)>,
    before: VecDeque<(&'static str, Then)>,
    exit: i32,
    faults: Vec<String>,
}

impl World {
    /// A controller and a server as they are before anybody has read a page.
    pub async fn bare() -> Self {
        let binary = Agent::beside("ocpp-tunnel")
            .canonicalize()
            .expect("`cargo build --package ocpp-tunnel` makes it");
        let (controller, server) =
            tokio::join!(Host::start("controller", &binary, NAMES), Host::start("server", &binary, NAMES));
        controller.cable(&server, [CONTROLLER, ROUTER]).await;
        server.root(&format!("ip addr add {SERVER} dev lo; ip addr add {CSMS} dev lo")).await;
        controller.root(&format!("ip route add default via {ROUTER}")).await;
        let desk = Host::beside("desk", &binary, NAMES, &server).await;
        let place = Place { network: server.network(), address: CSMS, port: 443 };
        let options = csms::Options {
            tls: true,
            // Which is what it is for here.
            fault: Fault::OtherName,
            place: Some(place),
            ..csms::Options::default()
        };
        let csms = Csms::start(options).await;
        let world = Self {
            controller,
            server,
            desk,
            csms,
            answers: Vec::new(),
            before: VecDeque::new(),
            exit: 0,
            faults: Vec::new(),
        };
        world.furnish().await;
        world
    }

    async fn furnish(&self) {
        let key = self
            .desk
            .root(
                "install -d -m 700 /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519\n\
                 printf 'Host *\\nStrictHostKeyChecking accept-new\\nLogLevel ERROR\\n' >/etc/ssh/ssh_config.d/00-desk.conf\n\
                 cat /root/.ssh/id_ed25519.pub",
            )
            .await;
        for (host, account) in [(&self.server, "you"), (&self.controller, "charge")] {
            host.write("/etc/ssh/sshd_config", SSHD).await;
            host.write("/etc/pam.d/sshd", PAM).await;
            let script = format!(
                "adduser --quiet --disabled-password --gecos '' {account} >/dev/null\n\
                 install -d -m 700 -o {account} -g {account} /home/{account}/.ssh\n\
                 printf '%s' '{key}' >/home/{account}/.ssh/authorized_keys\n\
                 chown {account} /home/{account}/.ssh/authorized_keys\n\
                 ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key\n\
                 systemctl start ssh"
            );
            host.root(&script).await;
        }
        self.controller
            .root("mkdir -p /srv/www && echo dashboard >/srv/www/index.html && busybox httpd -h /srv/www")
            .await;
        let authority = self.csms.authority().expect("it speaks TLS").root();
        let authority = std::fs::read_to_string(authority).expect("it was made");
        // Where the pages' CSMS has a certificate of one of the world's authorities, this one has its own.
        self.controller.write("/etc/ssl/certs/ca-certificates.crt", &authority).await;
    }

    /// The same with the README's configuration and the account `support`, which has a password and a shell.
    pub async fn new() -> Self {
        let world = Self::bare().await;
        world.controller.write("/etc/ocpp-tunnel/config.toml", CONFIGURATION).await;
        world.controller.write("/etc/ocpp-tunnel/authorization-key", PASSWORD).await;
        world.controller.root("chmod 600 /etc/ocpp-tunnel/authorization-key").await;
        world.account("/bin/sh").await;
        world
    }

    /// The account `support` on the server, with a password.
    pub async fn account(&self, shell: &str) {
        let script = format!(
            "adduser --quiet --disabled-password --gecos '' --shell {shell} support >/dev/null 2>&1\n\
             echo 'support:{PASSWORD}' | chpasswd"
        );
        self.server.root(&script).await;
    }

    /// The same, where the server takes the controller's key.
    pub async fn authorised() -> Self {
        let world = Self::new().await;
        world.authorise().await;
        world
    }

    /// Has the server take the controller's key.
    pub async fn authorise(&self) {
        let line = self.controller.root("ocpp-tunnel keys show --authorized-keys").await;
        self.server.write("/home/support/.ssh/authorized_keys", &line).await;
        self.server.root("chown -R support /home/support/.ssh && chmod 700 /home/support/.ssh").await;
    }

    /// The same, where the agent runs and the CSMS has accepted it.
    pub async fn running() -> Self {
        let mut world = Self::authorised().await;
        world.run().await;
        world.csms.wait_for("boots", 1).await;
        world
    }

    /// Starts the agent.
    pub async fn run(&self) {
        self.controller.root("systemctl start ocpp-tunnel").await;
        wait_until("the agent takes commands", LONG, async || {
            let status = self.controller.sh("ocpp-tunnel status").await;
            (status.code == Some(0)).then_some(())
        })
        .await;
    }

    /// A certificate and its key in `/etc/ocpp-tunnel`, `NAME.pem` and `NAME.key`.
    pub async fn certificate(&self, name: &str) {
        let made = self.csms.authority().expect("it speaks TLS").certificate();
        let key = self.csms.authority().expect("it speaks TLS").key();
        for (file, from) in [("pem", made), ("key", key)] {
            let text = std::fs::read_to_string(from).expect("it was made");
            self.controller.write(&format!("/etc/ocpp-tunnel/{name}.{file}"), &text).await;
        }
        self.controller.root(&format!("chmod 600 /etc/ocpp-tunnel/{name}.key")).await;
    }

    /// A person at the terminal answers the questions of a command that begins like this.
    pub fn answers(&mut self, command: &'static str, answers: &[(&'static str, &'static str)]) {
        self.answers.push((command, answers.to_vec()));
    }

    /// Before the next block that holds this text, something happens that the page takes for granted. In this order.
    pub fn before(&mut self, block: &'static str, then: Then) {
        self.before.push_back((block, then));
    }

    async fn happen(&mut self, then: Then) {
        match then {
            Then::Authorised => self.authorise().await,
            Then::Runs => self.run().await,
            Then::On(host, script) => {
                let done = self.host(host).sh(script).await;
                if done.code != Some(0) {
                    self.faults.push(format!("on the {host}: {script}\n{done:?}"));
                }
            }
        }
    }

    fn host(&self, name: &str) -> &Host {
        match name {
            "controller" => &self.controller,
            "server" => &self.server,
            "desk" => &self.desk,
            other => panic!("no machine is called {other}"),
        }
    }

    /// Does what a page says, from its beginning to its end.
    ///
    /// # Panics
    /// If something isn't as the page has it.
    pub async fn play(&mut self, page: &str, exceptions: &[Exception]) {
        for block in page::blocks(page) {
            let at = format!("{page}:{}", block.line);
            while let Some((_, then)) =
                self.before.front().filter(|(text, _)| block.text.contains(text)).copied()
            {
                self.happen(then).await;
                self.before.pop_front();
            }
            if let Some(exception) = exceptions.iter().find(|exception| exception.is_for(page, &block)) {
                if let Some(script) = exception.instead {
                    self.host(block.host()).root(script).await;
                }
                continue;
            }
            match block.language.as_str() {
                "sh" => self.commands(&at, &block).await,
                "console" => self.console(&at, &block).await,
                "toml" => self.configuration(&at, &block).await,
                "file" => self.file(&at, &block).await,
                "json" if block.is("csms") => self.dialogue(&at, &block).await,
                "json" => documents(&at, &block.text),
                "text" => {}
                other => panic!("{at}: nobody knows what to do with a block of {other:?}"),
            }
        }
        self.check_records().await;
        assert!(self.faults.is_empty(), "{}\n{}", self.faults.join("\n\n"), self.logs().await);
        assert!(self.before.is_empty(), "{page} has no block for {:?}", self.before);
        assert!(self.answers.is_empty(), "{page} has no command for {:?}", self.answers);
    }

    async fn commands(&mut self, at: &str, block: &Block) {
        let done = self.host(block.host()).sh(&block.text).await;
        if done.code != Some(0) {
            self.faults.push(format!("{at}:\n{}{done:?}", block.text));
        }
    }

    async fn console(&mut self, at: &str, block: &Block) {
        for typed in block.typed() {
            let answers = self.answers.iter().position(|(begins, _)| typed.command.starts_with(begins));
            let answers = answers.map(|index| self.answers.remove(index).1);
            let patience = if block.is("soon") { LONG } else { Duration::ZERO };
            let shown = self.real(&typed.output).await;
            let last = Instant::now() + patience;
            loop {
                let done = self.type_in(&typed.host, &typed.command, answers.as_deref()).await;
                self.exit = done.code.unwrap_or(-1);
                if fits(&shown, &done.stdout) {
                    break;
                }
                if Instant::now() > last {
                    let command = &typed.command;
                    self.faults
                        .push(format!("{at}: {command}\nthe page has:\n{shown}\nreal is:\n{}", done.stdout));
                    break;
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn type_in(&self, host: &str, command: &str, answers: Option<&[(&str, &str)]>) -> Output {
        let host = self.host(host);
        match answers {
            None => {
                // As in a shell that has gone on since the command before.
                let script = format!("exec 2>&1\n(exit {})\n{command}", self.exit);
                crate::process::run(&mut host.command(&script), "").await
            }
            Some(answers) => {
                let done = host.talk(command, answers).await;
                Output { stdout: done.stdout.replace("\r\n", "\n"), ..done }
            }
        }
    }

    /// The text with the server's key where the page has none.
    async fn real(&self, text: &str) -> String {
        if !text.contains("ssh-ed25519 AAAA…") {
            return text.to_owned();
        }
        let key = self.server.root("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").await;
        text.replace("ssh-ed25519 AAAA…", key.trim_end())
    }

    async fn configuration(&mut self, at: &str, block: &Block) {
        let aside = "/etc/ocpp-tunnel/config.d/zz-page.toml";
        let whole = block.text.contains("\nurl = ") || block.text.contains("mode = \"off\"");
        let path = block.path().unwrap_or(if whole { "/etc/ocpp-tunnel/config.toml" } else { aside });
        let text = self.real(&block.text).await;
        self.controller.write(path, &text).await;
        let checked = self.controller.sh("ocpp-tunnel config check").await;
        if checked.code != Some(0) {
            self.faults.push(format!("{at}:\n{text}{checked:?}"));
        }
        if path == aside {
            self.controller.root(&format!("rm {aside}")).await;
        }
    }

    async fn file(&mut self, at: &str, block: &Block) {
        let path = block.path().unwrap_or_else(|| panic!("{at}: no path in the first line"));
        let host = self.host(block.host());
        host.write(path, &block.text).await;
        if path.contains("sshd_config") {
            // It is taken up when the page says so.
            let done = host.sh("/usr/sbin/sshd -t").await;
            assert_eq!(done.code, Some(0), "{at}:\n{}{done:?}", block.text);
        }
    }

    /// Lines of OCPP: a CALL that the CSMS says, and its answer.
    async fn dialogue(&mut self, at: &str, block: &Block) {
        let lines: Vec<&str> = block.text.lines().collect();
        for pair in lines.chunks(2) {
            let [call, expected] = pair else { panic!("{at}: a CALL without an answer") };
            let id: Value = serde_json::from_str(call).unwrap_or_else(|why| panic!("{at}: {why}: {call}"));
            let answer = self.csms.say(call, id[1].as_str()).await;
            let expected: Value = serde_json::from_str(expected).unwrap_or_else(|why| panic!("{at}: {why}"));
            if !alike(&expected, &answer) {
                self.faults.push(format!("{at}: {call}\nthe page has {expected}\nreal is {answer}"));
            }
        }
    }

    /// Whatever was recorded meanwhile has no member that the reference doesn't know.
    async fn check_records(&mut self) {
        let records = self.controller.sh("ocpp-tunnel audit --json 2>/dev/null").await.stdout;
        let rows = page::rows("docs/audit.md");
        for line in records.lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
            let kind = record["type"].as_str().unwrap_or_default();
            let row = rows.iter().find(|row| row.get(1).is_some_and(|cell| *cell == format!("`{kind}`")));
            let mut known = EVERY_RECORD.to_vec();
            known.extend(row.map_or(Vec::new(), |row| page::quoted(row.last().map_or("", String::as_str))));
            for name in record.as_object().into_iter().flatten().map(|(name, _)| name) {
                if !known.contains(&name.as_str()) {
                    self.faults.push(format!("docs/audit.md doesn't know {name} of {line}"));
                }
            }
        }
    }

    /// What there is to look at when something went wrong.
    async fn logs(&self) -> String {
        self.controller.sh("cat /tmp/daemons 2>/dev/null | tail -n 40").await.stdout
    }
}

/// The members of every audit record.
const EVERY_RECORD: [&str; 9] =
    ["seq", "time", "clock", "uptime", "source", "category", "type", "event", "result"];

/// A page on which nothing is to be done but reading.
///
/// # Panics
/// If there is something.
pub fn read(page: &str, exceptions: &[Exception]) {
    for block in page::blocks(page) {
        let at = format!("{page}:{}", block.line);
        match block.language.as_str() {
            "json" => documents(&at, &block.text),
            "text" => {}
            _ if exceptions.iter().any(|exception| exception.is_for(page, &block)) => {}
            other => panic!("{at}: a block of {other:?} needs machines"),
        }
    }
}

/// The same values, but for what the page leaves out.
fn alike(shown: &Value, real: &Value) -> bool {
    match (shown, real) {
        (Value::String(shown), Value::String(real)) => fits(shown, real),
        (Value::Array(shown), Value::Array(real)) => {
            shown.len() == real.len() && shown.iter().zip(real).all(|(shown, real)| alike(shown, real))
        }
        (Value::Object(shown), Value::Object(real)) => {
            shown.len() == real.len()
                && shown.iter().all(|(name, value)| real.get(name).is_some_and(|real| alike(value, real)))
        }
        (shown, real) => shown == real,
    }
}

/// One document, or one in each line.
fn documents(at: &str, text: &str) {
    let whole = serde_json::from_str::<Value>(text);
    let lines = || text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok());
    assert!(whole.is_ok() || lines(), "{at}: no JSON: {whole:?}\n{text}");
}
