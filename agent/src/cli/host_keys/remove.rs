//! `host-keys remove`: forgets what was learned of a server.

use reverse_tunnel::{HostKeys, Server};

use super::super::record;
use super::super::words::{remark, show};
use super::{file_problem, pinned_remark};
use crate::audit::{Kind, Outcome};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) fn main(config: &Config, keys: &HostKeys, server: &Server) -> Result<Exit, Problem> {
    let done = keys.forget(server).map_err(|error| file_problem(&error))?;
    let path = keys.path().display();
    for line in &done.by_pattern {
        remark(&format!("{path}:{line} also stands for other servers and was left alone; edit it by hand."));
    }
    let pinned = keys.pinned(server);
    if done.removed == 0 {
        let text = format!("no key of {server} is in {path}");
        let cure = match &pinned {
            Some(place) => {
                format!("{}; change ssh.host_keys there", pinned_remark(server, place))
            }
            None => "see `ocpp-tunnel host-keys list`; a port other than 22 is part of the name".to_owned(),
        };
        return Err(Problem::new(Exit::NotFound, text, cure));
    }
    record(config, Kind::HostKeysRemoved, Outcome::Success, |record| {
        record.text("server", &server.to_string()).number("host_keys", done.removed as u64)
    });
    let plural = if done.removed == 1 { "" } else { "s" };
    show(&format!("removed {} key{plural} of {server} from {path}", done.removed));
    if let Some(place) = pinned {
        remark(&format!("{}, which still holds.", pinned_remark(server, &place)));
    }
    Ok(Exit::Ok)
}
