//! `ocpp-tunnel run`: the agent.

use std::path::Path;

use super::{block_on, leave_root, load};
use crate::agent::{Agent, Purpose};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::journal::{self, Stderr};
use crate::service::sandbox;

pub(super) fn main(path: &Path) -> Result<Exit, Problem> {
    let config = load(path)?;
    journal::init(&config.log, Stderr::Everything);
    serve(&config).inspect_err(|problem| {
        // Where nobody reads stderr, it is in syslog.
        tracing::error!(why = problem.text, cure = problem.cure, "agent-not-started");
    })
}

fn serve(config: &Config) -> Result<Exit, Problem> {
    leave_root(config)?;
    let sandbox = sandbox::enter(config);
    block_on(async {
        let mut agent = Agent::start(config, sandbox, Purpose::Service)?;
        agent.asked_to_stop().await;
        agent.stop().await;
        Ok(Exit::Ok)
    })
}
