//! The command line: one file a command.
//!
//! Data goes to stdout, everything else to stderr. Every failure names the next thing to try.

mod args;
mod audit;
mod check;
mod close;
mod config;
mod help;
mod host_keys;
mod keys;
mod layout;
mod login;
mod logs;
mod open;
mod progress;
mod run;
mod shim;
mod status;
mod terminal;
mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use self::args::{Arguments, Command};
use crate::agent::StartError;
use crate::audit::{Kind, Outcome, Record, Source};
use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::control::client::ClientError;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::limits::{BLOCKING_THREADS, IDLE_THREAD};
use crate::service::{privileges, sandbox};

/// Does what this process was called for.
#[must_use]
pub fn main() -> Exit {
    sandbox::keep_secrets();
    let mut arguments = std::env::args_os();
    if let Some(script) = arguments.next().as_deref().and_then(shim::script_of) {
        return shim::main(script, &arguments.collect::<Vec<OsString>>());
    }
    let arguments = match Arguments::try_parse_from(help::asked_for(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => return help::show(error),
    };
    let path = arguments.config.unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
    let result = match arguments.command {
        Command::Run => run::main(&path),
        Command::Open(open) => open::main(&path, open),
        Command::Close(close) => close::main(&path, &close),
        Command::Status(status) => status::main(&path, status),
        Command::Logs(logs) => logs::main(&path, logs),
        Command::Audit(audit) => audit::main(&path, audit),
        Command::Keys(keys) => keys::main(&path, keys),
        Command::HostKeys(host_keys) => host_keys::main(&path, host_keys),
        Command::Check(check) => check::main(&path, check),
        Command::Config(config) => config::main(&path, config),
    };
    words::unless_lost(result.unwrap_or_else(|problem| words::complain(&problem)))
}

/// The grammar, for what is generated from it: the manual page, the shells' completions.
#[must_use]
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Loads the configuration.
fn load(path: &Path) -> Result<Config, Problem> {
    Config::load(path).map_err(|error| error.problem())
}

/// A mistake in the configuration; `other_file` is how this command is told of another file.
fn problem_of(error: &ConfigError, other_file: &str) -> Problem {
    match error.is_missing() {
        true => Problem::new(Exit::Config, error.to_string(), other_file),
        false => error.problem(),
    }
}

/// Why nobody answers on the control socket. A mistake in the configuration may be why the agent isn't found there, and then says more.
fn no_answer(path: &Path, socket: &Path, error: &ClientError) -> Problem {
    load(path).err().unwrap_or_else(|| error.to_problem(socket))
}

/// Gives up root, if need be, before state is touched.
fn leave_root(config: &Config) -> Result<(), Problem> {
    privileges::become_owner(&config.state_dir, &config.runtime_dir).map_err(|error| {
        let text = format!("can't become the owner of {}: {error}", config.state_dir.display());
        Problem::new(Exit::Error, text, "run this as that user")
    })
}

/// Writes down what a command has changed, or refused.
fn record(config: &Config, kind: Kind, outcome: Outcome, more: impl FnOnce(Record) -> Record) {
    let record = more(Record::new(kind, Source::this_process(), outcome));
    if let Err(error) = crate::audit::write_now(config, record) {
        words::remark(&format!("It can't be written to the audit records: {error}"));
    }
}

/// Runs an agent on a single thread, which serves all its tunnels. Names are looked up and files written on others, which
/// end soon afterwards.
fn block_on<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().thread_keep_alive(IDLE_THREAD).max_blocking_threads(BLOCKING_THREADS);
    let runtime = runtime.build().map_err(|error| {
        Problem::new(Exit::Error, format!("can't start: {error}"), "free some memory or descriptors")
    })?;
    let result = runtime.block_on(work);
    // A name that is being looked up must not hold up the end.
    runtime.shutdown_background();
    result
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        Self::new(error.exit(), error.to_string(), error.cure())
    }
}
