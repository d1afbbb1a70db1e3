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

/// What the way is looked at with.
pub(super) struct Subject<'a> {
    pub(super) config: &'a Config,
    pub(super) running: &'a Running,
    pub(super) destination: Option<&'a Destination>,
    /// The device's keys, if they can be used.
    pub(super) keys: Option<&'a [Identity]>,
    /// The policy lets something be opened.
    pub(super) allowed: bool,
}

pub(super) async fn look(report: &mut Report<'_>, subject: &Subject<'_>) {
    let ended = match subject.destination {
        Some(destination) => steps(report, subject, destination).await,
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
    subject: &Subject<'_>,
    destination: &Destination,
) -> Result<(), Stop> {
    let Subject { config, running, .. } = *subject;
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
    let keys = subject.keys.ok_or("there is no key to log in with")?;
    let probe = login::look(destination, probe, keys);
    let mut probe = report.step(Step::Login, probe).await.ok_or("the server didn't let us in")?;
    let stopped = match subject.allowed {
        false => Err("the policy lets nothing be opened"),
        true => {
            let listening = forward::look(report, config, running, destination, &mut probe).await;
            let held =
                config.slots.iter().any(|slot| running.holder(destination, &slot.forward.remote).is_some());
            reach::look(report, &peer, &probe, &listening, held).await;
            Ok(())
        }
    };
    probe.end().await;
    report.unknown(
        Step::Keepalive,
        "a server doesn't tell when it gives a dead connection up, and asks only clients that are silent: with ClientAliveInterval \
         15 and ClientAliveCountMax 3 in sshd_config it frees their ports within 45 s",
    );
    stopped
}

/// What failed at the login or later, with the cure.
pub(super) fn login_problem(failure: &Failure, destination: &Destination) -> Problem {
    let cure = advice::for_failure(failure.kind, destination);
    Problem::new(Exit::for_failure(failure.kind), failure.text.clone(), cure)
}

/// What failed on the way to a server, with the cure.
pub(super) fn problem(failure: &Failure, server: &Server) -> Problem {
    Problem::new(
        Exit::for_failure(failure.kind),
        failure.text.clone(),
        advice::for_server(failure.kind, server),
    )
}
