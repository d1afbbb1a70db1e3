//! `ocpp-tunnel config`: the configuration, checked, shown or read again.

use std::path::Path;

use super::args::ConfigCommand;
use super::words::{say, show, unexpected};
use super::{leave_root, load, no_answer};
use crate::check::configuration::examine;
use crate::config::Config;
use crate::control::client::ask;
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::reload::Reloaded;

pub(super) fn main(path: &Path, command: ConfigCommand) -> Result<Exit, Problem> {
    match command {
        ConfigCommand::Reload => reload(path)?,
        ConfigCommand::Show => say(load(path)?.to_toml().trim_end()),
        ConfigCommand::Check => {
            // The agent reads what it names as the owner of state_dir, so that root's being able to says nothing. A file
            // with a mistake is told of below.
            if let Ok(config) = Config::load(path) {
                leave_root(&config)?;
            }
            let (files, remarks) = examine(path)?;
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
            show(&format!("{key}: {what}"));
        }
    }
    Ok(())
}
