//! `ocpp-tunnel config`: the configuration, checked, shown or read again.

use std::fmt::Display;
use std::path::Path;

use super::args::ConfigCommand;
use super::words::{say, unexpected};
use super::{OTHER_FILE, load, no_answer, problem_of};
use crate::config::Config;
use crate::control::client::ask;
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::link_security::{check_files, client_certificate, remark};
use crate::proxy::with_credentials;
use crate::reload::Reloaded;
use crate::way_out::WayOut;

pub(super) fn main(path: &Path, command: ConfigCommand) -> Result<Exit, Problem> {
    match command {
        ConfigCommand::Reload => reload(path)?,
        ConfigCommand::Show => say(load(path)?.to_toml().trim_end()),
        ConfigCommand::Check => {
            let config = Config::check(path).map_err(|error| problem_of(&error, OTHER_FILE))?;
            let problem =
                |error: &dyn Display| Problem::new(Exit::Config, format!("{}: {error}", path.display()), "");
            if let Some(ocpp) = &config.ocpp {
                check_files(ocpp).map_err(|error| problem(&error))?;
                with_credentials(&ocpp.proxy, "ocpp.proxy_authorization_file")
                    .map_err(|error| problem(&error))?;
            }
            WayOut::new(&config.ssh).map_err(|error| problem(&error))?;
            let certificate = config.ocpp.as_deref().map(client_certificate).transpose();
            let certificate = certificate.map_err(|error| problem(&error))?.flatten();
            for file in &config.files {
                say(&format!("{}: ok", file.display()));
            }
            for line in config.remarks().into_iter().chain(certificate.as_ref().and_then(remark)) {
                say(&format!("  {line}"));
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
            say(&format!("{key}: {what}"));
        }
    }
    Ok(())
}
