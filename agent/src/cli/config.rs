//! `ocpp-tunnel config`: the configuration, checked or shown.

use std::fmt::Display;
use std::path::Path;

use super::args::ConfigCommand;
use super::words::say;
use super::{OTHER_FILE, load, problem_of};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::trigger::check_files;
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
            }
            WayOut::new(&config.ssh).map_err(|error| problem(&error))?;
            say(&format!("{}: ok", path.display()));
            for line in config.remarks() {
                say(&format!("  {line}"));
            }
        }
    }
    Ok(Exit::Ok)
}
