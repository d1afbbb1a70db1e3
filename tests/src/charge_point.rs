//! A charge controller with an OCPP client of its own, told what to do through pipes: `peers/charge_point.py`, on the
//! PyPI packages `ocpp` and `websockets`, or `peers/charge_point.mjs`, on the client of the npm package `ocpp-rpc`.
//!
//! It connects to its URL and comes back whenever the connection is lost, and boots over each connection.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::LONG;
use crate::peer::{Library, Peer, Transcript};

/// How a controller is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who plays it.
    pub library: Library,
    /// Where it connects to: the URL without its identity.
    pub endpoint: String,
    /// Who it is.
    pub identity: String,
    /// What it says to be let in; `None`: nothing.
    pub password: Option<Vec<u8>>,
    /// The subprotocols that it offers, the one that it likes best first.
    pub protocols: &'static [&'static str],
    /// The certificate authority that it trusts.
    pub authority: Option<PathBuf>,
}

impl Options {
    /// CP001, with the password that [`crate::csms::Options`] has by default, and OCPP 1.6.
    pub fn new(library: Library, endpoint: String) -> Self {
        Self {
            library,
            endpoint,
            identity: "CP001".into(),
            password: Some(b"correct horse battery".to_vec()),
            protocols: &["ocpp1.6"],
            authority: None,
        }
    }
}

/// A running controller. Dropping it ends it.
#[derive(Debug)]
pub struct ChargePoint {
    options: Options,
    dir: TempDir,
    peer: Peer,
}

impl ChargePoint {
    /// Starts one; whether it gets anywhere is another matter.
    pub async fn start(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let peer = started(&options, &dir).await;
        Self { options, dir, peer }
    }

    /// Starts one, and waits until it has booted.
    pub async fn booted(options: Options) -> Self {
        let mut controller = Self::start(options).await;
        controller.wait_for("boots", 1).await;
        controller
    }

    /// Ends it at once, as a power cut would.
    pub async fn kill(&mut self) {
        self.peer.kill().await;
    }

    /// Starts it again after [`Self::kill`], with its counts at zero.
    pub async fn resume(&mut self) {
        self.peer = started(&self.options, &self.dir).await;
    }

    /// Makes a CALL; `payload` in snake case. Returns `{"answer": …}`, `{"error": …}` or `{"failed": …}`.
    pub async fn call(&mut self, action: &str, payload: Value) -> Value {
        self.peer.ask(json!({ "do": "call", "action": action, "payload": payload })).await
    }

    /// Sends a text as it is; if it is a CALL with the id `until`, returns the frame that answers it.
    pub async fn say(&mut self, text: &str, until: Option<&str>) -> Value {
        self.peer.get(json!({ "do": "say", "text": text, "until": until })).await
    }

    /// Every frame that came from the CSMS.
    pub async fn frames(&mut self) -> Vec<String> {
        let answer = self.peer.get(json!({ "do": "frames" })).await;
        let frames = answer.as_array().into_iter().flatten();
        frames.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// Every text that passed over its connections since it was started.
    pub async fn transcript(&mut self) -> Transcript {
        self.peer.transcript().await
    }

    /// The subprotocol of its connection.
    pub async fn subprotocol(&mut self) -> String {
        let answer = self.peer.get(json!({ "do": "subprotocol" })).await;
        answer.as_str().unwrap_or_default().to_owned()
    }

    /// How many `connections`, `boots`, `refused` tries and `lost` connections there were.
    pub async fn count(&mut self, name: &str) -> u64 {
        let answer = self.peer.get(json!({ "do": "counts" })).await;
        answer[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {answer}"))
    }

    /// Waits until a count is at least so high.
    pub async fn wait_for(&mut self, name: &str, count: u64) {
        let seconds = LONG.as_secs();
        self.peer.get(json!({ "do": "wait", "for": name, "count": count, "seconds": seconds })).await;
    }

    /// How its connections and its tries ended: each `{"code", "reason"}` or `{"status"}`.
    pub async fn endings(&mut self) -> Vec<Value> {
        let answer = self.peer.get(json!({ "do": "endings" })).await;
        answer.as_array().cloned().unwrap_or_default()
    }

    /// Closes its connection, and stays away.
    pub async fn close(&mut self, code: u16, reason: &str) {
        self.peer.get(json!({ "do": "close", "code": code, "reason": reason })).await;
    }

    /// Comes back after [`Self::close`].
    pub async fn connect(&mut self) {
        self.peer.get(json!({ "do": "connect" })).await;
    }
}

async fn started(options: &Options, dir: &TempDir) -> Peer {
    let mut command = options.library.program("charge_point");
    command.args(["--endpoint", &options.endpoint, "--identity", &options.identity]);
    command.args(["--protocols", &options.protocols.join(",")]);
    if let Some(password) = &options.password {
        command.args(["--password", &data_encoding::HEXLOWER.encode(password)]);
    }
    if let Some(authority) = &options.authority {
        command.arg("--ca").arg(authority);
    }
    let (peer, _) = Peer::start(&mut command, &dir.path().join("log")).await;
    peer
}
