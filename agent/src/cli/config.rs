//! `ocpp-tunnel config`: the configuration, checked or shown.

use std::path::Path;

use super::args::ConfigCommand;
use super::load;
use super::words::say;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::trigger::check_files;

pub(super) fn main(path: &Path, command: ConfigCommand) -> Result<Exit, Problem> {
    let config = load(path)?;
    match command {
        ConfigCommand::Show => say(config.to_toml().trim_end()),
        ConfigCommand::Check => {
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
