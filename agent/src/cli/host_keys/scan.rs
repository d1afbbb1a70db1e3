//! `host-keys scan`: the keys that a server has, and what is known of them.

use reverse_tunnel::host_keys::{HostKeyError, ShownKey, Verdict};
use reverse_tunnel::{HostKeys, Route, Server, scan};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::block_on;
use super::super::words::{self, journal_lines, say_json};
use crate::advice;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::limits::SCAN;

pub(super) fn main(keys: &HostKeys, server: &Server, route: &Route, json: bool) -> Result<Exit, Problem> {
    block_on(async {
        let scanned = scan_server(keys, server, route).await?;
        if json {
            let shown: Vec<Value> = scanned.iter().map(|key| key.document(server)).collect();
            say_json(&json!({"schema": 1, "server": server.to_string(), "host_keys": shown}));
        } else {
            show(server, &scanned);
        }
        Ok(if scanned.iter().any(|key| key.trust.contradicts()) { Exit::HostKey } else { Exit::Ok })
    })
}

/// A key that the server showed, and what is known of it.
pub(super) struct Scanned {
    pub(super) shown: ShownKey,
    pub(super) trust: Trust,
}

/// What is known of a key.
pub(super) enum Trust {
    /// A tunnel would be opened; where it says so.
    Trusted(String),
    /// Nothing is known of a key of this type.
    Unknown,
    /// Another key of this type is known; what and where.
    Changed(String),
    /// It must never be trusted; where it says so.
    Revoked(String),
    /// Its certificate isn't good; why.
    Refused(String),
}

/// Asks the server for its keys, and judges each.
pub(super) async fn scan_server(
    keys: &HostKeys,
    server: &Server,
    route: &Route,
) -> Result<Vec<Scanned>, Problem> {
    let shown = timeout(SCAN, scan::scan(server, route))
        .await
        .map_err(|_| {
            let text = format!("{server} has not shown its host keys within {} s", SCAN.as_secs());
            Problem::new(Exit::Timeout, text, "check that an SSH server answers on that port")
        })?
        .map_err(|failure| {
            let cure = advice::for_server(failure.kind, server);
            Problem::new(Exit::for_failure(failure.kind), failure.to_string(), cure)
        })?;
    shown.into_iter().map(|shown| Ok(Scanned { trust: judge(keys, server, &shown)?, shown })).collect()
}

fn judge(keys: &HostKeys, server: &Server, shown: &ShownKey) -> Result<Trust, Problem> {
    let error = match keys.judge(server, shown) {
        Ok(Verdict::Trusted(place)) => return Ok(Trust::Trusted(place.to_string())),
        Ok(Verdict::New) => return Ok(Trust::Unknown),
        Err(error) => error,
    };
    Ok(match &error {
        HostKeyError::File(error) => return Err(super::file_problem(error)),
        HostKeyError::Changed { known, .. } => {
            // A server may have keys of more types than we know.
            let same_type = known.iter().find(|known| !known.authority && known.key_type == shown.key_type());
            match same_type {
                Some(known) => Trust::Changed(format!("{} ({})", known.fingerprint, known.place)),
                None => Trust::Unknown,
            }
        }
        HostKeyError::Revoked { place, .. } => Trust::Revoked(place.to_string()),
        HostKeyError::Certificate { error, .. } => Trust::Refused(error.to_string()),
        HostKeyError::Unknown { .. } => Trust::Unknown,
    })
}

/// Shows the keys to people.
pub(super) fn show(server: &Server, scanned: &[Scanned]) {
    let mut text = server.to_string();
    for key in scanned {
        let (kind, fingerprint) = (key.shown.key_type(), key.shown.fingerprint());
        text.push_str(&format!("\n  {kind} {fingerprint}\n    {}", key.trust.words()));
        if let Some(authority) = key.shown.signed_by() {
            text.push_str(&format!("\n    with a certificate that names the authority {authority}"));
        }
    }
    words::show(&journal_lines(&text));
}

impl Scanned {
    fn document(&self, server: &Server) -> Value {
        json!({
            "type": self.shown.key_type(),
            "fingerprint": self.shown.fingerprint(),
            "authority": self.shown.signed_by(),
            "trust": self.trust.word(),
            "why": self.trust.why(),
            "line": self.shown.known_hosts_line(server),
        })
    }
}

impl Trust {
    /// A tunnel to this key would end with `host-key-mismatch`.
    pub(super) fn contradicts(&self) -> bool {
        matches!(self, Self::Changed(_) | Self::Revoked(_) | Self::Refused(_))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Trusted(_) => "trusted",
            Self::Unknown => "unknown",
            Self::Changed(_) => "changed",
            Self::Revoked(_) => "revoked",
            Self::Refused(_) => "refused",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Trusted(why) | Self::Changed(why) | Self::Revoked(why) | Self::Refused(why) => Some(why),
            Self::Unknown => None,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Trusted(place) => format!("trusted: {place}"),
            Self::Unknown => "not known".to_owned(),
            Self::Changed(known) => format!("CHANGED: known is {known}"),
            Self::Revoked(place) => format!("REVOKED: {place}"),
            Self::Refused(why) => format!("REFUSED: its certificate isn't good, {why}"),
        }
    }
}
