//! `ocpp-tunnel status`: the agent's document, as JSON or for people, once or as it changes.

mod people;
mod watch;

use std::io;
use std::path::Path;

use serde_json::Value;

use super::args::Status;
use super::layout::for_stream;
use super::no_answer;
use super::words::{colours, say, say_json, unexpected};
use crate::config::Config;
use crate::control::client::ask;
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;

pub(super) fn main(path: &Path, arguments: Status) -> Result<Exit, Problem> {
    let document = document(path)?;
    if arguments.watch {
        return Ok(watch::main(path, document, arguments.json));
    }
    if arguments.json {
        say_json(&document);
    } else {
        let rows = for_stream(&people::words(&document), &io::stdout());
        say(&if colours(&io::stdout()) { painted(&rows) } else { rows });
    }
    Ok(exit(&document))
}

/// What the running agent tells.
/// What the agent says of itself.
pub(super) fn document(path: &Path) -> Result<Value, Problem> {
    // A mistake that came into the files since the agent's start is something that the agent tells of.
    let socket = Config::control_socket_of(path);
    match ask(&socket, &Request::Status).map_err(|error| no_answer(path, &socket, &error))? {
        Answer::Status(document) => Ok(document),
        Answer::Error(problem) => Err(problem),
        other => Err(unexpected(&other)),
    }
}

fn painted(rows: &str) -> String {
    rows.lines().map(people::paint).collect::<Vec<_>>().join("\n")
}

/// A tunnel is wanted unless it is idle or closed.
fn exit(document: &Value) -> Exit {
    let tunnels = document["tunnels"].as_array().map(Vec::as_slice).unwrap_or_default();
    let as_wanted =
        |tunnel: &Value| matches!(tunnel["state"].as_str().unwrap_or_default(), "up" | "idle" | "closed");
    if tunnels.iter().all(as_wanted) { Exit::Ok } else { Exit::NotUp }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_exit_code_tells_whether_what_is_wanted_is_up() {
        for (state, expected) in [
            ("up", Exit::Ok),
            ("idle", Exit::Ok),
            ("closed", Exit::Ok),
            ("backoff", Exit::NotUp),
            ("connecting", Exit::NotUp),
        ] {
            assert_eq!(exit(&json!({"tunnels": [{"state": state}]})), expected, "{state}");
        }
    }
}
