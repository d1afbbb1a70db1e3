//! `ocpp-tunnel close`. What carries the person's own login is closed only if that person says so.

use std::path::Path;

use super::args::Close;
use super::login::this_login;
use super::words::{say, unexpected};
use super::{no_answer, terminal};
use crate::config::Config;
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Answer, Problem, Request, closable};
use crate::exit::Exit;
use crate::journal::escape;
use crate::supervisor::TunnelId;

pub(super) fn main(path: &Path, close: &Close) -> Result<Exit, Problem> {
    // A mistake that came into the files since the agent's start must not keep anybody from closing what is open.
    let socket = Config::control_socket_of(path);
    let usage = |error: String| Problem::new(Exit::Usage, error, closable(&open_ones(&socket)));
    match &close.id {
        Some(id) => drop(id.parse::<TunnelId>().map_err(usage)?),
        None if !close.all => return Err(usage("no tunnel is named".into())),
        None => {}
    }
    let problem = |error: ClientError| no_answer(path, &socket, &error);
    let login = if close.yes { None } else { this_login() };
    let answer = ask(&socket, &Request::Close { id: close.id.clone(), login }).map_err(problem)?;
    let answer = match answer {
        Answer::Carries(id) => {
            confirm(&escape(&id), close)?;
            ask(&socket, &Request::Close { id: close.id.clone(), login: None }).map_err(problem)?
        }
        answer => answer,
    };
    match answer {
        Answer::Closed(closed) if closed.is_empty() => match &close.id {
            Some(id) => say(&format!("tunnel {id} was not open")),
            None => say("no tunnel was open"),
        },
        Answer::Closed(closed) => {
            for id in closed {
                say(&format!("tunnel {} closed", escape(&id)));
            }
        }
        Answer::Error(problem) => return Err(problem),
        other => return Err(unexpected(&other)),
    }
    Ok(Exit::Ok)
}

/// Asks on the terminal, and nowhere else.
fn confirm(id: &str, close: &Close) -> Result<(), Problem> {
    let again = match &close.id {
        Some(id) => format!("`ocpp-tunnel close {id} --yes`"),
        None => "`ocpp-tunnel close --all --yes`".to_owned(),
    };
    let question = format!("Tunnel {id} carries your own login, which ends with it.\nClose it? [y/N] ");
    match terminal::agreed(&question) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Problem::new(Exit::Error, "nothing was closed: you didn't say yes", again)),
        Err(_) => Err(Problem::new(
            Exit::Usage,
            format!("tunnel {id} carries your own login, and nobody can be asked: this is no terminal"),
            format!("{again} if it is to end"),
        )),
    }
}

/// Those that there are to close, as far as an agent tells.
fn open_ones(socket: &Path) -> Vec<String> {
    let Ok(Answer::Status(document)) = ask(socket, &Request::Status) else { return Vec::new() };
    let tunnels = document["tunnels"].as_array().into_iter().flatten();
    let open = tunnels.filter(|tunnel| !matches!(tunnel["state"].as_str(), Some("idle" | "closed")));
    open.filter_map(|tunnel| tunnel["id"].as_str().map(str::to_owned)).collect()
}
