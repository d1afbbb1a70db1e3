//! `ocpp-tunnel host-keys`: whose keys are trusted. It works with and without a running agent, which reads the file of
//! learned keys at each verification.

mod list;
mod remove;
mod scan;
mod trust;

use std::path::Path;

use reverse_tunnel::Server;
use reverse_tunnel::host_keys::{FileError, Place};

use super::args::HostKeys as Command;
use super::{leave_root, load};
use crate::agent::host_keys;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::way_out::WayOut;

pub(super) fn main(path: &Path, command: Command) -> Result<Exit, Problem> {
    if let Command::Trust { server, fingerprint } = &command {
        trust::check_usage(server, fingerprint)?;
    }
    let config = load(path)?;
    leave_root(&config)?;
    let keys = host_keys(&config);
    let route = |server: &Server| {
        let way_out = WayOut::new(&config.ssh);
        way_out.map(|way_out| way_out.route(server.host())).map_err(|error| {
            Problem::new(Exit::Config, error.to_string(), "check it with `ocpp-tunnel config check`")
        })
    };
    match command {
        Command::List { json } => list::main(&keys, json),
        Command::Scan { server, json } => scan::main(&keys, &server, &route(&server)?, json),
        Command::Trust { server, fingerprint } => {
            trust::main(&config, &keys, &server, &route(&server)?, &fingerprint)
        }
        Command::Remove { server } => remove::main(&config, &keys, &server),
    }
}

/// The file of learned keys can't be used.
fn file_problem(error: &FileError) -> Problem {
    let cure = match error {
        FileError::Busy(_) => "try again",
        FileError::Full(_) => "remove servers that are gone with `ocpp-tunnel host-keys remove HOST`",
        FileError::Read(..) | FileError::Write(..) => {
            "check ssh.known_hosts_file and its permissions, or run this as root"
        }
    };
    Problem::new(Exit::Error, error.to_string(), cure)
}

/// A server that the configuration speaks for.
fn pinned_remark(server: &Server, place: &Place) -> String {
    format!("{server} is pinned by the configuration ({place})")
}
