//! `ocpp-tunnel close`.

use std::path::Path;

use super::args::Close;
use super::no_answer;
use super::words::{say, unexpected};
use crate::config::Config;
use crate::control::client::ask;
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::supervisor::TunnelId;

pub(super) fn main(path: &Path, close: &Close) -> Result<Exit, Problem> {
    if let Some(id) = &close.id {
        id.parse::<TunnelId>()
            .map_err(|error| Problem::new(Exit::Usage, error, "see `ocpp-tunnel status`"))?;
    }
    // A mistake that came into the files since the agent's start must not keep anybody from closing what is open.
    let socket = Config::control_socket_of(path);
    let request = Request::Close { id: close.id.clone() };
    let answer = ask(&socket, &request).map_err(|error| no_answer(path, &socket, &error))?;
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
