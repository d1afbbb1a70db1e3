//! What is said on the control socket.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;

use crate::exit::Exit;
use crate::reload::Reloaded;

/// A request.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The status document.
    Status,
    /// Open a tunnel.
    Open {
        /// `user@host[:port]`; the only exact entry of the allow-list if absent.
        destination: Option<String>,
        /// A slot's number.
        script: Option<u8>,
        /// `[BIND:]PORT:HOST:PORT`, instead of a slot.
        forwards: Vec<String>,
        /// Lifetime in seconds.
        lifetime: Option<u64>,
        /// Answer when the tunnel is up, or its first attempt failed.
        wait: bool,
    },
    /// Close a tunnel and answer when it is closed.
    Close {
        /// All of them if absent.
        id: Option<String>,
        /// Close nothing if one of them carries this login, and answer [`Answer::Carries`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<Login>,
    },
    /// Look at the device's key files again.
    Keys,
    /// Read the configuration files again.
    Reload,
    /// The log that is kept in memory, in [`Answer::Log`]s; then [`Answer::Done`], unless it is followed.
    Logs {
        /// Go on as new lines come, until the client hangs up.
        follow: bool,
        /// Begin with so many of the last lines; with all that are kept if absent.
        lines: Option<usize>,
    },
}

/// An SSH login on this device, as its SSH server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Where it comes from.
    pub client: SocketAddr,
    /// Where it arrived.
    pub server: SocketAddr,
}

/// An answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The status document.
    Status(serde_json::Value),
    /// The tunnel was opened, or is being opened.
    Opened {
        /// Its name.
        id: String,
        /// The server.
        server: String,
        /// Its state.
        state: String,
        /// `remote -> local`, with the port that the server chose.
        forwards: Vec<String>,
    },
    /// These were closed.
    Closed(Vec<String>),
    /// Nothing was closed, since this one carries the login that was named.
    Carries(String),
    /// The configuration was read again.
    Reloaded(Reloaded),
    /// A piece of the log.
    Log {
        /// Lines before it that were overwritten before this client took them.
        missed: u64,
        /// Whole lines.
        text: String,
    },
    /// It is done, and there is nothing to tell.
    Done,
    /// It can't be done.
    Error(Problem),
}

/// Why something can't be done.
#[derive(Debug, Deserialize, Serialize)]
pub struct Problem {
    /// The exit code.
    pub code: u8,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub cure: String,
}

/// Writes an answer's line.
///
/// # Errors
/// The client has gone.
pub(super) async fn write_answer(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// The cure for a name that no tunnel has.
#[must_use]
pub fn closable(open: &[String]) -> String {
    match open {
        [] => "see `ocpp-tunnel status`: no tunnel is known to be open".to_owned(),
        [one] => format!("`ocpp-tunnel close {one}`, the only one that is open"),
        several => format!("one of those that are open: {}; or --all", several.join(", ")),
    }
}

impl Problem {
    /// A problem that ends a command with this code.
    pub fn new(exit: Exit, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code: exit as u8, text: text.into(), cure: cure.into() }
    }
}
