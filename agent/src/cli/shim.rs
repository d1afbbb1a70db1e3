//! `custom_script1.sh user@host`: the vendor's scripts, as symlinks to this binary.
//!
//! Like the scripts, they return at once with status 0 and tell what they did in syslog. Unlike them, they take
//! exactly one argument, which is a destination or nothing.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use reverse_tunnel::Destination;

use super::args::Open;
use super::open::{in_background, request};
use super::words::{complain, remark};
use super::{leave_root, problem_of, record};
use crate::audit::{Kind, Outcome};
use crate::config::{Config, DEFAULT_PATH, Log};
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::journal::{self, Stderr};
use crate::policy::Refusal;
use crate::trigger::log_not_invoked;

/// Characters of an argument that are kept.
const MALFORMED: usize = 1024;

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
        if let Ok(config) = &config {
            record_refusal(config, script, arguments);
        }
        remark(&match arguments {
            [argument] => {
                let error = argument.to_string_lossy().parse::<Destination>().err();
                let why = error.map(|error| error.to_string()).unwrap_or_default();
                format!("not invoked: {}", journal::escape(&why))
            }
            _ => "not invoked: exactly one argument is needed, user@host[:port]".to_owned(),
        });
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

/// Has the refusal written to the audit records: by the agent, which lets no flood push out the others, or where none runs, here.
fn record_refusal(config: &Config, script: u8, arguments: &[OsString]) {
    let text: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    // Longer than any destination, so that it stays malformed.
    let text: String = text.join(" ").chars().take(MALFORMED).collect();
    let Err(error) = text.parse::<Destination>() else { return };
    let request = Request::Open {
        destination: Some(text),
        script: Some(script),
        forwards: Vec::new(),
        lifetime: None,
        wait: false,
    };
    if let Err(ClientError::NoAgent) = ask(&config.control_socket(), &request)
        && leave_root(config).is_ok()
    {
        record(config, Kind::TunnelRefused, Outcome::Refused, |record| {
            record.text("tunnel", &script.to_string()).text("why", &Refusal::Malformed(error).to_string())
        });
    }
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
