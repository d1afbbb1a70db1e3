//! The self-check: each step from the configuration to a published port, looked at in the order in which one needs the
//! other, so that the first that fails is the one to mend.
//!
//! It changes nothing: no key is made, no host key learned, no port kept. It asks the running agent for what that knows,
//! and leaves its tunnels and its OCPP link alone; what the agent doesn't tell, it finds out by connections of its own.
//!
//! One file a step: [`configuration`], `policy`, `clock`, `key`, then on the way to the server `name`, `tcp`, `banner`,
//! `host_key`, `login`, `forward` and `reach`, and besides `ocpp` (or, in bridge mode, `bridge`) and `local`. `server` leads through those to the server,
//! `running` is what the agent tells, [`report`] what comes of it all.

mod banner;
mod bridge;
mod clock;
pub mod configuration;
mod forward;
mod host_key;
mod key;
mod local;
mod login;
mod name;
mod ocpp;
mod policy;
mod reach;
pub mod report;
mod running;
mod server;
mod tcp;

use std::path::Path;

use reverse_tunnel::Destination;

use self::report::{Note, Report, Step};
pub use self::running::Running;
use crate::config::{Config, Written};
use crate::control::protocol::Problem;

/// Looks at everything; the configuration could be read. `running` is what the agent told, `note` hears of each step.
pub async fn look<'a>(
    path: &Path,
    (written, config): (&Written, &Config),
    running: &Running,
    destination: Option<&Destination>,
    note: &'a mut dyn FnMut(Note<'_>),
) -> Report<'a> {
    let mut report = Report::new(note);
    configuration::look(&mut report, path, written).await;
    report.step(Step::Agent, running::look(running)).await;
    for remark in running::remarks(running, config) {
        report.unknown(Step::Agent, remark);
    }
    report.step(Step::Clock, clock::look()).await;
    let allowed = report.step(Step::Policy, policy::look(config, running, destination)).await.is_some();
    let keys = report.step(Step::Key, key::look(config)).await;
    let subject = server::Subject { config, running, destination, keys: keys.as_deref(), allowed };
    server::look(&mut report, &subject).await;
    ocpp::look(&mut report, config, running).await;
    local::look(&mut report, config).await;
    report
}

/// The report where not even the configuration can be read.
pub async fn unreadable<'a>(problem: Problem, note: &'a mut dyn FnMut(Note<'_>)) -> Report<'a> {
    let mut report = Report::new(note);
    report.step(Step::Configuration, async { Err::<((), String), _>(problem) }).await;
    report.skip_rest("there is no configuration");
    report
}
