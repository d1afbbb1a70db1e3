//! Peers that are programs of `peers/`: told what to do by lines of JSON through a pipe, answering each with one.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::LONG;
use crate::process::Daemon;

/// Who plays a peer that speaks OCPP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Python's `ocpp`.
    Ocpp,
    /// JavaScript's `ocpp-rpc`; as a CSMS in its strict mode.
    OcppRpc,
}

impl Library {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Ocpp, Self::OcppRpc];

    /// The program `name` of this library.
    pub(crate) fn program(self, name: &str) -> Command {
        match self {
            Self::Ocpp => python(&format!("{name}.py")),
            Self::OcppRpc => node(&format!("{name}.mjs")),
        }
    }
}

/// A text that passed over a peer's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// 2: CALL, 3: CALLRESULT, 4: CALLERROR; `None`: no frame at all.
    pub kind: Option<i64>,
    /// The frame's id; empty if it has none.
    pub id: String,
    /// A CALL's action.
    pub action: String,
    /// Its length in UTF-8.
    pub bytes: u64,
    /// Its hash, in hexadecimal.
    pub sha256: String,
}

/// Every text that passed, in the order in which it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// What the peer received.
    pub received: Vec<Line>,
    /// What it sent.
    pub sent: Vec<Line>,
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Peer {
    daemon: Daemon,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts it, and returns the first line that it prints as well.
    pub(crate) async fn start(command: &mut Command, log: &Path) -> (Self, Value) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut daemon = Daemon::start(command, log);
        let commands = daemon.child().stdin.take().expect("standard input is a pipe");
        let stdout = daemon.child().stdout.take().expect("standard output is a pipe");
        let mut peer = Self { daemon, commands, answers: BufReader::new(stdout).lines() };
        let first = peer.answer().await;
        (peer, first)
    }

    /// Gives a command, and returns its answer.
    pub(crate) async fn ask(&mut self, request: Value) -> Value {
        let sent = self.commands.write_all(format!("{request}\n").as_bytes()).await;
        assert!(sent.is_ok(), "the peer has ended: {}", self.daemon.log());
        self.answer().await
    }

    /// Gives a command, and returns what its answer holds.
    ///
    /// # Panics
    /// If it failed.
    pub(crate) async fn get(&mut self, request: Value) -> Value {
        let shown: String = request.to_string().chars().take(200).collect();
        let mut answer = self.ask(request).await;
        assert!(
            answer["failed"].is_null() && answer["error"].is_null(),
            "{shown}: {answer}; log:\n{}",
            self.daemon.log()
        );
        answer["answer"].take()
    }

    /// Every text that passed over its connections.
    pub(crate) async fn transcript(&mut self) -> Transcript {
        let answer = self.get(json!({ "do": "transcript" })).await;
        let lines = |name: &str| answer[name].as_array().into_iter().flatten().map(line).collect();
        Transcript { received: lines("received"), sent: lines("sent") }
    }

    /// Ends it at once, as a crash would.
    pub(crate) async fn kill(&mut self) {
        self.daemon.kill_tree().await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.daemon.signal(signal);
    }

    async fn answer(&mut self) -> Value {
        let line = tokio::time::timeout(LONG * 2, self.answers.next_line()).await;
        let line = line.expect("the peer answers in time").expect("its output can be read");
        let Some(line) = line else { panic!("the peer has ended: {}", self.daemon.log()) };
        serde_json::from_str(&line).expect("it speaks JSON")
    }
}

/// A program that passes on what comes to a port of its own, which is the first line that it prints; for benchmarks.
/// Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    _peer: Peer,
    _dir: TempDir,
}

impl Relay {
    /// Starts a Python program of `peers/`.
    pub async fn python(program: &str, arguments: &[&str]) -> Self {
        Self::start(python(program).args(arguments)).await
    }

    /// Starts this very program with other arguments.
    pub async fn program(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("a program knows its own file");
        Self::start(Command::new(program).args(arguments)).await
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    async fn start(command: &mut Command) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (peer, first) = Peer::start(command, &dir.path().join("log")).await;
        let port = first["port"].as_u64().and_then(|port| port.try_into().ok());
        Self { port: port.expect("the first line is the port"), _peer: peer, _dir: dir }
    }
}

/// A Python program of `peers/`, run by the interpreter of the environment that `tests/run` made.
pub(crate) fn python(program: &str) -> Command {
    let made = concat!(env!("CARGO_MANIFEST_DIR"), "/.peers/venv");
    let venv = std::env::var_os("OCPP_TUNNEL_VENV").map_or_else(|| made.into(), PathBuf::from);
    let interpreter = venv.join("bin/python");
    assert!(interpreter.exists(), "{} is missing: tests/run makes it", interpreter.display());
    let mut command = Command::new(interpreter);
    command.arg("-B").arg(format!("{PEERS}/{program}"));
    command
}

/// A JavaScript program of `peers/`, with the packages that `tests/run` installed.
fn node(program: &str) -> Command {
    let made = concat!(env!("CARGO_MANIFEST_DIR"), "/.peers/npm/node_modules");
    let modules = std::env::var_os("OCPP_TUNNEL_NODE_MODULES").map_or_else(|| made.into(), PathBuf::from);
    assert!(
        modules.join("ocpp-rpc").exists(),
        "{} has no ocpp-rpc: tests/run installs it",
        modules.display()
    );
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules).arg(format!("{PEERS}/{program}"));
    command
}

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

fn line(value: &Value) -> Line {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Line {
        kind: value["kind"].as_i64(),
        id: text("id"),
        action: text("action"),
        bytes: value["bytes"].as_u64().unwrap_or_default(),
        sha256: text("sha256"),
    }
}
