//! The way to the server: each step needs the one before.

use reverse_tunnel::{Destination, Failure, Identity, Server};

use super::report::{Report, Step};
use super::running::Running;
use super::{banner, forward, host_key, login, name, reach, tcp};
use crate::advice;
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::way_out::WayOut;

/// Why the next steps make no sense.
type Stop = &'static str;

pub(super) async fn look(
    report: &mut Report<'_>,
    config: &Config,
    running: &Running,
    destination: Option<&Destination>,
    keys: Option<&[Identity]>,
) {
    let ended = match destination {
        Some(destination) => steps(report, config, running, destination, keys).await,
        None => Err(
            "no server was named, and policy.allow_destinations doesn't hold exactly one without wildcards",
        ),
    };
    if let Err(because) = ended {
        report.skip_missing(&Step::SERVER, because);
    }
}

async fn steps(
    report: &mut Report<'_>,
    config: &Config,
    running: &Running,
    destination: &Destination,
    keys: Option<&[Identity]>,
) -> Result<(), Stop> {
    let server = destination.server();
    let way_out = WayOut::new(&config.ssh).map_err(|_| "the way out that is configured can't be used")?;
    let route = way_out.route(server.host());
    let addresses = report.step(Step::Name, name::look(server, &route)).await.ok_or("there is no address")?;
    let reached = tcp::look(server, &route, &addresses);
    let reached = report.step(Step::Tcp, reached).await.ok_or("there is no connection")?;
    let peer = reached.peer().clone();
    let reached = banner::look(server, reached);
    let reached = report.step(Step::Banner, reached).await.ok_or("no SSH server answers")?;
    let probe = host_key::look(config, destination, reached);
    let probe = report.step(Step::HostKey, probe).await.ok_or("the server isn't trusted")?;
    let keys = keys.ok_or("there is no key to log in with")?;
    let probe = login::look(destination, probe, keys);
    let mut probe = report.step(Step::Login, probe).await.ok_or("the server didn't let us in")?;
    let stopped = match config.policy.is_disabled() {
        true => Err("the policy lets nothing be opened"),
        false => {
            let listening = forward::look(report, config, running, destination, &mut probe).await;
            reach::look(report, &peer, &probe, &listening).await;
            Ok(())
        }
    };
    probe.end().await;
    report.unknown(
        Step::Keepalive,
        "a server doesn't tell its settings: with ClientAliveInterval 15 and ClientAliveCountMax 3 in sshd_config it frees the \
         ports of a connection that died within 45 s",
    );
    stopped
}

/// What failed on the way to a server, with the cure.
pub(super) fn problem(failure: &Failure, server: &Server) -> Problem {
    Problem::new(
        Exit::for_failure(failure.kind),
        failure.text.clone(),
        advice::for_failure(failure.kind, server),
    )
}
