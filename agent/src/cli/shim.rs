//! `custom_script1.sh user@host`: the vendor's scripts, as symlinks to this binary.
//!
//! Like the scripts, they return at once with status 0 and tell what they did in syslog. Unlike them, they take
//! exactly one argument, which is a destination or nothing.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use reverse_tunnel::Destination;

use super::args::Open;
use super::open::{in_background, request};
use super::problem_of;
use super::words::{complain, remark};
use crate::config::{Config, DEFAULT_PATH, Log};
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Answer, Problem};
use crate::exit::Exit;
use crate::journal::{self, Stderr};
use crate::trigger::log_not_invoked;

/// Where the configuration is, for scripts that take no option.
const CONFIG_VARIABLE: &str = "OCPP_TUNNEL_CONFIG";

/// The number in `custom_scriptN.sh`, if that is how the program was called.
pub(super) fn script_of(program: &OsStr) -> Option<u8> {
    let name = Path::new(program).file_name()?.to_str()?;
    let number = name.strip_prefix("custom_script")?.strip_suffix(".sh")?;
    number.parse().ok().filter(|number| *number > 0)
}

/// Triggers the tunnel of a script. It never fails, since no caller of the scripts looks.
pub(super) fn main(script: u8, arguments: &[OsString]) -> Exit {
    let path = std::env::var_os(CONFIG_VARIABLE).unwrap_or_else(|| DEFAULT_PATH.into());
    let path = Path::new(&path);
    let config = Config::load(path);
    let log = match &config {
        Ok(config) => config.log.clone(),
        Err(_) => Log::default(),
    };
    journal::init(&log, Stderr::Nothing);
    let Some(destination) = parse(arguments) else {
        log_not_invoked();
        remark("not invoked: exactly one argument is needed, user@host[:port]");
        return Exit::Ok;
    };
    let result = config
        .map_err(|error| {
            // A script takes no option that could name one.
            let other_file =
                format!("make it, or name another one in the environment variable {CONFIG_VARIABLE}");
            problem_of(&error, &other_file)
        })
        .and_then(|config| trigger(path, &config, script, destination));
    if let Err(problem) = result {
        tracing::error!(script, why = problem.text, cure = problem.cure, "script-failed");
        complain(&problem);
    }
    Exit::Ok
}

fn parse(arguments: &[OsString]) -> Option<Destination> {
    let [argument] = arguments else { return None };
    argument.to_str()?.parse().ok()
}

fn trigger(path: &Path, config: &Config, script: u8, destination: Destination) -> Result<(), Problem> {
    let open = Open {
        destination: Some(destination),
        script: Some(script),
        forward: Vec::new(),
        lifetime: None,
        wait: false,
        background: false,
        detached: false,
    };
    let answer = match ask(&config.control_socket(), &request(&open)) {
        Err(ClientError::NoAgent) => in_background(path, config, &open)?,
        Err(error) => return Err(error.to_problem(&config.control_socket())),
        Ok(answer) => answer,
    };
    match answer {
        Answer::Error(problem) => Err(problem),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        for (name, script) in [
            ("./custom_script1.sh", Some(1)),
            ("/home/charge/custom_script2.sh", Some(2)),
            ("custom_script.sh", None),
            ("custom_script0.sh", None),
            ("custom_script1.sh.bak", None),
            ("ocpp-tunnel", None),
        ] {
            assert_eq!(script_of(OsStr::new(name)), script, "{name}");
        }
    }

    #[test]
    fn one_argument_that_is_a_destination() {
        let parsed = |arguments: &[&str]| {
            parse(&arguments.iter().map(OsString::from).collect::<Vec<_>>()).map(|d| d.to_string())
        };
        assert_eq!(parsed(&["u@h"]).as_deref(), Some("u@h"));
        for arguments in [
            &[][..],
            &["u@h", "-y"],
            &["u@1.2.3.4. -oProxyCommand=id"],
            &["-oProxyCommand@host.com"],
            &["--config=/tmp/x"],
            &["--help"],
            &["u@h\n"],
            &["$(id)@h"],
            &[""],
        ] {
            assert_eq!(parsed(arguments), None, "{arguments:?}");
        }
    }
}
