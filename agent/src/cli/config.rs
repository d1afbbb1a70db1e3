//! `ocpp-tunnel config`: the configuration, checked or shown.

use std::path::Path;

use super::args::ConfigCommand;
use super::load;
use super::words::say;
use crate::check::configuration::examine;
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) fn main(path: &Path, command: ConfigCommand) -> Result<Exit, Problem> {
    match command {
        ConfigCommand::Show => say(load(path)?.to_toml().trim_end()),
        ConfigCommand::Check => {
            let remarks = examine(path)?;
            say(&format!("{}: ok", path.display()));
            for line in remarks {
                say(&format!("  {line}"));
            }
        }
    }
    Ok(Exit::Ok)
}
