//! `ocpp-tunnel config`: the configuration, checked or shown.

use std::path::Path;

use super::args::ConfigCommand;
use super::words::say;
use super::{OTHER_FILE, load, problem_of};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::trigger::check_files;

pub(super) fn main(path: &Path, command: ConfigCommand) -> Result<Exit, Problem> {
    match command {
        ConfigCommand::Show => say(load(path)?.to_toml().trim_end()),
        ConfigCommand::Check => {
            let config = Config::check(path).map_err(|error| problem_of(&error, OTHER_FILE))?;
            if let Some(ocpp) = &config.ocpp {
                check_files(ocpp).map_err(|error| {
                    Problem::new(Exit::Config, format!("{}: {error}", path.display()), "")
                })?;
            }
            say(&format!("{}: ok", path.display()));
            for line in config.remarks() {
                say(&format!("  {line}"));
            }
        }
    }
    Ok(Exit::Ok)
}
