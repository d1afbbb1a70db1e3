//! `ocpp-tunnel close`.

use std::path::Path;

use super::args::Close;
use super::load;
use super::words::{say, unexpected};
use crate::control::client::ask;
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::supervisor::TunnelId;

pub(super) fn main(path: &Path, close: &Close) -> Result<Exit, Problem> {
    if let Some(id) = &close.id {
        id.parse::<TunnelId>()
            .map_err(|error| Problem::new(Exit::Usage, error, "see `ocpp-tunnel status`"))?;
    }
    let config = load(path)?;
    let socket = config.control_socket();
    let answer =
        ask(&socket, &Request::Close { id: close.id.clone() }).map_err(|error| error.to_problem(&socket))?;
    match answer {
        Answer::Closed(closed) if closed.is_empty() => say("no tunnel was open"),
        Answer::Closed(closed) => {
            for id in closed {
                say(&format!("tunnel {id} closed"));
            }
        }
        Answer::Error(problem) => return Err(problem),
        other => return Err(unexpected(&other)),
    }
    Ok(Exit::Ok)
}
