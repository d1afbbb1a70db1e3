//! `host-keys list`: every line, of the configuration and of the file.

use reverse_tunnel::HostKeys;
use reverse_tunnel::host_keys::{KnownHost, Place};
use serde_json::{Value, json};

use super::super::words::{journal_lines, remark, say_json, show};
use super::file_problem;
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) fn main(keys: &HostKeys, json: bool) -> Result<Exit, Problem> {
    let lines = keys.all().map_err(|error| file_problem(&error))?;
    if json {
        let lines: Vec<Value> = lines.iter().map(|(place, line)| document(place, line)).collect();
        say_json(&json!({"schema": 1, "host_keys": lines}));
    } else {
        for (place, line) in &lines {
            show(&journal_lines(&for_people(place, line)));
        }
    }
    if lines.is_empty() {
        remark("No host key is pinned or learned.");
    }
    for (place, error) in keys.not_understood().map_err(|error| file_problem(&error))? {
        remark(&journal_lines(&format!("{place} says nothing: {error}")));
    }
    Ok(Exit::Ok)
}

fn document(place: &Place, line: &KnownHost) -> Value {
    let source = match place {
        Place::Pin(_) => "config",
        Place::File(..) => "file",
    };
    json!({
        "source": source,
        "place": place.to_string(),
        "names": line.names(),
        "type": line.key_type(),
        "fingerprint": line.fingerprint(),
        "marker": line.kind().marker(),
    })
}

fn for_people(place: &Place, line: &KnownHost) -> String {
    let marker = line.kind().marker().map_or_else(String::new, |marker| format!("{marker} "));
    let (names, kind, fingerprint) = (line.names().join(","), line.key_type(), line.fingerprint());
    format!("{marker}{names}\n  {kind} {fingerprint}\n  {place}")
}
