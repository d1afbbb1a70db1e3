//! `ocpp-tunnel config`: the configuration, checked or shown.

use std::fmt::Display;
use std::path::Path;

use super::args::ConfigCommand;
use super::words::say;
use super::{OTHER_FILE, load, problem_of};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::link_security::{check_files, client_certificate, remark};
use crate::proxy::with_credentials;
use crate::way_out::WayOut;

pub(super) fn main(path: &Path, command: ConfigCommand) -> Result<Exit, Problem> {
    match command {
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
            say(&format!("{}: ok", path.display()));
            for line in config.remarks().into_iter().chain(certificate.as_ref().and_then(remark)) {
                say(&format!("  {line}"));
            }
        }
    }
    Ok(Exit::Ok)
}
