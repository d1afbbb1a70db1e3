//! `ocpp-tunnel config`: the configuration, checked, shown or read again.

use std::path::Path;

use serde_json::Value;

use super::args::ConfigCommand;
use super::status;
use super::words::{say, show, unexpected};
use super::{leave_root, load, no_answer};
use crate::check::configuration::examine;
use crate::config::{Config, Written};
use crate::control::client::ask;
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::journal::escape;
use crate::reload::Reloaded;

pub(super) fn main(path: &Path, command: ConfigCommand) -> Result<Exit, Problem> {
    match command {
        ConfigCommand::Reload => reload(path)?,
        ConfigCommand::Show => say(load(path)?.to_toml().trim_end()),
        ConfigCommand::Check => {
            // The agent reads what they name as the owner of state_dir, so that root's being able to says nothing. A mistake
            // is told of below.
            let written = Written::read(path).map_err(|error| error.problem())?;
            if let Ok(config) = written.load() {
                leave_root(&config)?;
            }
            let (files, remarks) = examine(path, &written)?;
            for file in files {
                show(&format!("{}: ok", file.display()));
            }
            for line in remarks {
                show(&format!("  {line}"));
            }
        }
    }
    Ok(Exit::Ok)
}

fn reload(path: &Path) -> Result<(), Problem> {
    is_agents(path, &status::document(path)?)?;
    let socket = Config::control_socket_of(path);
    let reloaded = match ask(&socket, &Request::Reload) {
        Ok(Answer::Reloaded(reloaded)) => reloaded,
        Ok(Answer::Error(problem)) => return Err(problem),
        Ok(other) => return Err(unexpected(&other)),
        Err(error) => return Err(no_answer(path, &socket, &error)),
    };
    let Reloaded { applied, next_tunnel, restart } = reloaded;
    if applied.is_empty() && next_tunnel.is_empty() && restart.is_empty() {
        say("nothing has changed");
    }
    for (keys, what) in [
        (applied, "in force"),
        (next_tunnel, "in force for tunnels that are opened from now on"),
        (restart, "waits for a restart"),
    ] {
        for key in keys {
            show(&format!("{}: {what}", escape(&key)));
        }
    }
    Ok(())
}

/// The agent reads its own file again, whichever is named here: another one that leads to it is a mistake.
fn is_agents(path: &Path, status: &Value) -> Result<(), Problem> {
    let Some(own) = status["configuration"]["files"][0].as_str() else { return Ok(()) };
    // A path that is none from here can't be compared.
    let Ok(canonical) = std::fs::canonicalize(own) else { return Ok(()) };
    if !Path::new(own).is_absolute() || std::fs::canonicalize(path).is_ok_and(|path| path == canonical) {
        return Ok(());
    }
    Err(Problem::new(
        Exit::Error,
        format!("the agent that answers has its configuration from {own}, and not from {}", path.display()),
        format!("`ocpp-tunnel config reload --config {own}`, or start an agent with the other file"),
    ))
}
