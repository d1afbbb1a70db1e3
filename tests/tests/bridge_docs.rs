//! `docs/bridge.md` with a controller at the bridge: its commands show what it says. `docs.rs` has its configurations.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::charge_point::{ChargePoint, Options};
use ocpp_tunnel_tests::csms::{self, Csms};
use ocpp_tunnel_tests::peer::Library;
use ocpp_tunnel_tests::{ports, process};
use serde_json::Value;
use tokio::process::Command;

const PAGE: &str = include_str!("../../docs/bridge.md");

/// The page's blocks of this language, without the indentation that a list gives them.
fn blocks(language: &str) -> Vec<String> {
    let mut lines = PAGE.lines();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{language}") {
            let inside = lines.by_ref().take_while(|line| line.trim() != "```");
            blocks.push(inside.map(|line| format!("{}\n", line.trim_start())).collect());
        }
    }
    blocks
}

/// A controller's device in a directory: `ocpp-tunnel` is in its path, and `etc/ocpp-tunnel` is `/etc/ocpp-tunnel`.
struct Device {
    agent: Agent,
}

impl Device {
    fn new() -> Self {
        let device = Self { agent: Agent::new(Setup::new()) };
        let command = device.agent.command(&[]);
        let words = std::iter::once(command.as_std().get_program()).chain(command.as_std().get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let program = device.directory().join("ocpp-tunnel");
        process::write_program(&program, &format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")));
        device.file("authorization-key", "correct horse battery");
        device
    }

    fn directory(&self) -> &Path {
        self.agent.directory()
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.agent.config_path().with_file_name(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// What the page says of `/etc` is about this device.
    fn here(&self, text: &str) -> String {
        let directory = self.agent.config_path();
        text.replace("/etc/ocpp-tunnel/", &format!("{}/", directory.parent().unwrap().display()))
    }

    fn configure(&self, text: &str) {
        let dir = self.directory().display();
        let places = format!("state_dir = '{dir}/state'\nruntime_dir = '{dir}/run'\n");
        self.agent.configure(&format!("{places}{}[log]\nsyslog = 'off'\n", self.here(text)));
    }

    async fn sh(&self, script: &str) -> process::Output {
        let mut command = Command::new("sh");
        let path = format!("{}:{}", self.directory().display(), std::env::var("PATH").unwrap());
        command.args(["-euc", &self.here(script)]).env("PATH", path);
        process::run(&mut command, "").await
    }
}

#[tokio::test]
async fn the_commands_work_in_their_order() {
    let options = csms::Options { tls: true, ..csms::Options::default() };
    let mut csms = Csms::start(options).await;
    let mut device = Device::new();
    let port = ports::free();
    let authority = csms.authority().unwrap().root().display().to_string();
    let configuration = blocks("toml")[0].replace("wss://csms.example.com/ocpp", &csms.url()).replace(
        "[policy]",
        &format!("ca_file = '{authority}'\n[bridge]\nlisten = '127.0.0.1:{port}'\n[policy]"),
    );
    device.configure(&configuration);
    device.agent.start().await;
    let endpoint = format!("ws://127.0.0.1:{port}");
    let _controller = ChargePoint::booted(Options::new(Library::Ocpp, endpoint)).await;
    csms.wait_for("boots", 1).await;

    let blocks = blocks("sh");
    assert_eq!(blocks.len(), 4, "{blocks:#?}");
    let mut last = None;
    for block in &blocks {
        let done = device.sh(block).await;
        assert_eq!(done.code, Some(0), "{block}{done:?}");
        last = Some(done.stdout);
    }

    let key = std::fs::read_to_string(device.agent.config_path().with_file_name("controller-key")).unwrap();
    assert!(key.len() == 32 && key.chars().all(|digit| digit.is_ascii_hexdigit()), "{key:?}");

    // For people, and then as JSON.
    let output = last.unwrap();
    let (words, document) = output.split_at(output.find("{").unwrap());
    assert!(words.contains("CP001 connected"), "{words}");
    let document: Value = serde_json::from_str(document).unwrap();
    assert_eq!(names(&document["ocpp"]["controllers"][0]), documented_names(), "{document}");
}

/// The names in a controller's entry, those of its legs among them.
fn names(entry: &Value) -> BTreeSet<String> {
    let own = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    &own(entry) | &own(&entry["csms"])
}

/// The names in the page's table, but for those of `last_closed`.
fn documented_names() -> BTreeSet<String> {
    let table = PAGE.split_once("| name | meaning |").unwrap().1.split_once("\n\n").unwrap().0;
    let mut names = BTreeSet::new();
    for row in table.lines().filter(|row| row.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        names.extend(quoted(cells[1]));
        if cells[1].contains("`csms`") {
            names.extend(quoted(cells[2]).into_iter().filter(|name| name != "null"));
        }
    }
    names
}
