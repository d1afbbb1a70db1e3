//! The CSMS, told what to do through pipes: `peers/csms.py`, on the PyPI packages `ocpp` and `websockets`, or
//! `peers/csms.mjs`, on the npm package `ocpp-rpc`. They take the same commands; those that a peer doesn't have, it
//! answers with a failure.

use std::net::Ipv4Addr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::LONG;
pub use crate::peer::Library;
use crate::peer::{Peer, Transcript};
use crate::tls::{Authority, Fault};

/// The file for frames of the charge point that don't fit the JSON schemas of their messages.
const VIOLATIONS: &str = "violations";

/// What the agent reports of its own accord, at any moment.
const REPORTS: [&str; 2] = ["\"DataTransfer\"", "\"SecurityEventNotification\""];

/// How a CSMS is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who plays it.
    pub library: Library,
    /// The only charge point that it knows.
    pub identity: String,
    /// What the charge point must say; `None`: nobody is asked.
    pub password: Option<Vec<u8>>,
    /// The answer to BootNotification: `Accepted`, `Pending` or `Rejected`.
    pub boot: &'static str,
    /// The heartbeat interval, or the time until the next BootNotification, in seconds.
    pub interval: u32,
    /// Speak TLS, with a certificate for 127.0.0.1 of an authority made for this CSMS.
    pub tls: bool,
    /// What is wrong with that certificate.
    pub fault: Fault,
    /// Let in only who shows a certificate of that authority.
    pub client_certificates: bool,
    /// The subprotocols that it knows.
    pub protocols: &'static [&'static str],
    /// Frames that don't fit their schemas are none of the test's business: it sends them on purpose.
    pub lenient: bool,
    /// Where it listens if not on a free port of 127.0.0.1; only Python's can.
    pub place: Option<Place>,
}

/// A network of the test's own, as `nsenter` takes it, and an address and port there.
#[derive(Debug, Clone)]
pub struct Place {
    /// `--net=FILE`.
    pub network: String,
    /// An address in that network.
    pub address: Ipv4Addr,
    /// A port that is free.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            library: Library::Ocpp,
            identity: "CP001".into(),
            password: Some(b"correct horse battery".to_vec()),
            boot: "Accepted",
            interval: 300,
            tls: false,
            fault: Fault::None,
            client_certificates: false,
            protocols: &["ocpp1.6"],
            lenient: false,
            place: None,
        }
    }
}

/// What a CSMS has seen since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// WebSocket connections that came about.
    pub connections: u64,
    /// BootNotifications.
    pub boots: u64,
    /// Handshakes refused for a wrong password or identity.
    pub refused: u64,
    /// Heartbeats.
    pub heartbeats: u64,
}

/// A running CSMS.
#[derive(Debug)]
pub struct Csms {
    options: Options,
    authority: Option<Authority>,
    dir: TempDir,
    port: u16,
    running: Option<Peer>,
}

impl Csms {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let authority = options.tls.then(|| Authority::with_fault(dir.path(), options.fault));
        let port = options.place.as_ref().map_or(0, |place| place.port);
        let mut csms = Self { options, authority, dir, port, running: None };
        csms.resume().await;
        csms
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without the charge point's identity.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls { "wss" } else { "ws" };
        format!("{scheme}://127.0.0.1:{}/ocpp", self.port)
    }

    /// How it is.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The certificate authority that vouches for it, if it speaks TLS.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().await;
        }
    }

    /// Starts it again after [`Self::kill`], on the same port, with its counts at zero.
    pub async fn resume(&mut self) {
        let options = &self.options;
        let mut command = options.library.program("csms");
        command.args(["--identity", &options.identity, "--boot", options.boot]);
        command.args(["--port", &self.port.to_string(), "--interval", &options.interval.to_string()]);
        command.args(["--protocols", &options.protocols.join(",")]);
        if !options.lenient {
            command.arg("--violations").arg(self.dir.path().join(VIOLATIONS));
        }
        match &options.password {
            Some(password) => command.args(["--password", &data_encoding::HEXLOWER.encode(password)]),
            None => command.arg("--no-password"),
        };
        if let Some(authority) = &self.authority {
            command.arg("--certificate").arg(authority.certificate()).arg("--key").arg(authority.key());
            if options.client_certificates {
                command.arg("--client-ca").arg(authority.root());
            }
        }
        if let Some(place) = &options.place {
            command.args(["--host", &place.address.to_string()]);
            command = within(&place.network, &command);
        }
        let (peer, first) = Peer::start(&mut command, &self.dir.path().join("log")).await;
        self.running = Some(peer);
        let port = first["port"].as_u64().and_then(|port| port.try_into().ok());
        self.port = port.expect("the first line is the port");
    }

    /// Sends ChangeConfiguration and returns the status that it was answered with.
    pub async fn change(&mut self, key: &str, value: &str) -> String {
        let answer = self.ask(json!({ "do": "change", "key": key, "value": value })).await;
        let status = answer["answer"]["status"].as_str();
        status.unwrap_or_else(|| panic!("ChangeConfiguration {key} = {value:?}: {answer}")).to_owned()
    }

    /// Sends GetConfiguration and returns its answer, in snake case; no keys: all of them.
    pub async fn get(&mut self, keys: &[&str]) -> Value {
        let mut answer = self.ask(json!({ "do": "get", "keys": keys })).await;
        answer["answer"].take()
    }

    /// The entry of one key in the answer to GetConfiguration.
    pub async fn key(&mut self, key: &str) -> Option<Value> {
        let answer = self.get(&[key]).await;
        answer["configuration_key"].as_array()?.first().cloned()
    }

    /// The value of one key, by GetConfiguration.
    ///
    /// # Panics
    /// If the charge point doesn't know it.
    pub async fn value(&mut self, key: &str) -> String {
        let entry = self.key(key).await.unwrap_or_else(|| panic!("the charge point knows no key {key}"));
        entry["value"].as_str().unwrap_or_default().to_owned()
    }

    /// Sends any CALL; `payload` in snake case. Returns `{"answer": …}`, `{"error": …}` or `{"failed": …}`.
    pub async fn call(&mut self, action: &str, payload: Value) -> Value {
        self.ask(json!({ "do": "call", "action": action, "payload": payload })).await
    }

    /// Sends a CALL with exactly this payload, and returns the frame of its answer.
    pub async fn answer_to(&mut self, action: &str, payload: &Value) -> Value {
        let mut answer = self.ask(json!({ "do": "ask", "action": action, "payload": payload })).await;
        assert!(answer["answer"].is_array(), "{action} {payload}: {answer}");
        answer["answer"].take()
    }

    /// Sends text as it is, and returns the frames that come within `wait`, but for what the agent reports meanwhile.
    pub async fn raw(&mut self, text: &str, wait: Duration) -> Vec<String> {
        let answer = self.ask(json!({ "do": "raw", "text": text, "wait": wait.as_secs_f64() })).await;
        let frames = answer["answer"].as_array().unwrap_or_else(|| panic!("{text}: {answer}"));
        let report = |frame: &str| REPORTS.iter().any(|action| frame.contains(action));
        frames.iter().filter_map(Value::as_str).filter(|frame| !report(frame)).map(str::to_owned).collect()
    }

    /// Sends a text as it is; if it is a CALL with the id `until`, returns the frame that answers it.
    pub async fn say(&mut self, text: &str, until: Option<&str>) -> Value {
        self.running().get(json!({ "do": "say", "text": text, "until": until })).await
    }

    /// Every text that passed over its connections since it was started.
    pub async fn transcript(&mut self) -> Transcript {
        self.running().transcript().await
    }

    /// The subprotocol of its connection.
    pub async fn subprotocol(&mut self) -> String {
        let answer = self.running().get(json!({ "do": "subprotocol" })).await;
        answer.as_str().unwrap_or_default().to_owned()
    }

    /// How its connections ended: each `{"code", "reason"}`.
    pub async fn endings(&mut self) -> Vec<Value> {
        let answer = self.running().get(json!({ "do": "endings" })).await;
        answer.as_array().cloned().unwrap_or_default()
    }

    /// Every frame that came from the charge point.
    pub async fn frames(&mut self) -> Vec<String> {
        let answer = self.ask(json!({ "do": "frames" })).await;
        answer["answer"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect()
    }

    /// What it was told of uploads: each status, and the request that it is about.
    pub async fn upload_statuses(&mut self) -> Vec<(String, Option<i64>)> {
        let mut statuses = Vec::new();
        for frame in self.frames().await {
            let frame: Value = serde_json::from_str(&frame).expect("the charge point speaks JSON");
            if frame[2] == "LogStatusNotification" || frame[2] == "DiagnosticsStatusNotification" {
                let status = frame[3]["status"].as_str().expect("the schema wants a status");
                statuses.push((status.to_owned(), frame[3]["requestId"].as_i64()));
            }
        }
        statuses
    }

    /// What it has seen.
    pub async fn counts(&mut self) -> Counts {
        let answer = self.ask(json!({ "do": "counts" })).await;
        counts(&answer["answer"])
    }

    /// Waits until one of the counts, by its name in [`Counts`], is at least `count`.
    pub async fn wait_for(&mut self, name: &str, count: u64) -> Counts {
        let request = json!({ "do": "wait", "for": name, "count": count, "seconds": LONG.as_secs() });
        let answer = self.ask(request).await;
        assert!(
            answer["failed"].is_null(),
            "waited for {count} {name}: {}; log:\n{}",
            answer["failed"],
            self.log()
        );
        counts(&answer["answer"])
    }

    /// Answers BootNotification in another way from now on.
    pub async fn answer_boot(&mut self, status: &str, interval: u32) {
        self.ask(json!({ "do": "boot", "status": status, "interval": interval })).await;
    }

    /// Answers DataTransfer or SecurityEventNotification with this status, or this CALLERROR, from now on.
    pub async fn answer_with(&mut self, action: &str, status_or_code: &str) {
        self.ask(json!({ "do": "answer", "action": action, "with": status_or_code })).await;
    }

    /// The payloads of every CALL of this action that came from the charge point since the CSMS was started.
    pub async fn calls(&mut self, action: &str) -> Vec<Value> {
        let frames = self.frames().await;
        let frames = frames.iter().filter_map(|frame| serde_json::from_str::<Value>(frame).ok());
        frames.filter(|frame| frame[0] == 2 && frame[2] == action).map(|mut frame| frame[3].take()).collect()
    }

    /// Wants another password from now on.
    pub async fn set_password(&mut self, password: &[u8]) {
        self.options.password = Some(password.to_vec());
        self.ask(json!({ "do": "password", "hex": data_encoding::HEXLOWER.encode(password) })).await;
    }

    /// Closes the connection to the charge point.
    pub async fn drop_connection(&mut self) {
        self.ask(json!({ "do": "drop" })).await;
    }

    /// Closes it with this code and reason.
    pub async fn close_connection(&mut self, code: u16, reason: &str) {
        self.running().get(json!({ "do": "drop", "code": code, "reason": reason })).await;
    }

    /// Stops it without closing anything, as a dead network does; ended by [`Self::thaw`].
    pub fn freeze(&self) {
        self.running.as_ref().expect("the CSMS runs").signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.running.as_ref().expect("the CSMS runs").signal(Signal::SIGCONT);
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn running(&mut self) -> &mut Peer {
        self.running.as_mut().expect("the CSMS runs")
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.running().ask(request).await
    }
}

/// Every frame of every story has to be as its schema wants it.
impl Drop for Csms {
    fn drop(&mut self) {
        let violations = std::fs::read_to_string(self.dir.path().join(VIOLATIONS)).unwrap_or_default();
        assert!(violations.is_empty() || std::thread::panicking(), "frames that don't fit:\n{violations}");
    }
}

/// The same command in another network.
fn within(network: &str, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.arg(network).arg(command.as_std().get_program()).args(command.as_std().get_args());
    inside
}

fn counts(answer: &Value) -> Counts {
    let count = |name: &str| answer[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {answer}"));
    Counts {
        connections: count("connections"),
        boots: count("boots"),
        refused: count("refused"),
        heartbeats: count("heartbeats"),
    }
}
