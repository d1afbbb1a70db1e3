//! The SSH server that misbehaves: `peers/asyncssh_server.py`, on the PyPI package `asyncssh`.

use std::ffi::OsStr;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

use crate::LONG;
use crate::peer::python;
use crate::process::Daemon;
use crate::ssh::KeyPair;
use crate::sshd::ACCOUNT;

/// One attempt of the server to open a channel towards the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was tried, in words.
    pub channel: String,
    /// Whether the client let it.
    pub accepted: bool,
    /// If not, the reason code of RFC 4254, section 5.1.
    pub code: Option<u64>,
}

/// A running server.
#[derive(Debug)]
pub struct AsyncSsh {
    _dir: TempDir,
    _daemon: Daemon,
    lines: Lines<BufReader<ChildStdout>>,
    host_key: KeyPair,
    port: u16,
}

impl AsyncSsh {
    /// Starts it; `canary` is a local port that none of its channels may get to.
    pub async fn start(canary: u16) -> Self {
        Self::start_with(canary, &[]).await
    }

    /// Starts one that announces another's key beside its own, and proves it wrongly.
    pub async fn start_announcing(canary: u16, key: &KeyPair) -> Self {
        let file = key.private().with_extension("pub");
        Self::start_with(canary, &["--announce".as_ref(), file.as_os_str()]).await
    }

    async fn start_with(canary: u16, options: &[&OsStr]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let host_key = KeyPair::generate(&dir.path().join("host_key")).await;
        let mut command = python("asyncssh_server.py");
        command.arg("--host-key").arg(host_key.private()).args(["--canary", &canary.to_string()]);
        command.args(options).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut daemon = Daemon::start(&mut command, &dir.path().join("log"));
        let stdout = daemon.child().stdout.take().expect("standard output is a pipe");
        let mut server =
            Self { _dir: dir, _daemon: daemon, lines: BufReader::new(stdout).lines(), host_key, port: 0 };
        let port = server.next().await["port"].as_u64().and_then(|port| port.try_into().ok());
        server.port = port.expect("the first line is the port");
        server
    }

    /// What a tunnel to it is asked for with.
    pub fn destination(&self) -> String {
        format!("{ACCOUNT}@127.0.0.1:{}", self.port)
    }

    /// The line of `known_hosts` for it.
    pub fn known_hosts_line(&self) -> String {
        self.host_key.known_hosts_line(self.port)
    }

    /// What came of its attempts, once it has made them all.
    pub async fn attempts(&mut self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        loop {
            let line = self.next().await;
            if line["done"] == true {
                return attempts;
            }
            if let Some(channel) = line["channel"].as_str() {
                let channel = channel.to_owned();
                attempts.push(Attempt {
                    channel,
                    accepted: line["accepted"] == true,
                    code: line["code"].as_u64(),
                });
            }
        }
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(LONG, self.lines.next_line())
            .await
            .expect("the server says something in time");
        let line = line.expect("its output can be read").expect("it hasn't ended");
        serde_json::from_str(&line).expect("it speaks JSON")
    }
}
