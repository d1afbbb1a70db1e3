//! Permission to listen, for each script: it is asked for, and given back when the connection ends.
//!
//! A Unix socket is asked for under a name of the check's own, [`BESIDE`] the tunnel's: sshd leaves a socket's file behind, which
//! may be in the way of whoever wants to listen there next, and with `StreamLocalBindUnlink yes` it would take the place of
//! whoever listens there now. It is asked for twice, since the second time shows what becomes of a tunnel that comes back.

use reverse_tunnel::{Destination, Failure, FailureKind, Forward, Probe, Remote};

use super::report::{Report, Step};
use super::running::Running;
use super::server::login_problem;
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;

/// Gives what the server listens for now.
pub(super) async fn look(
    report: &mut Report<'_>,
    config: &Config,
    running: &Running,
    destination: &Destination,
    probe: &mut Probe,
) -> Vec<Forward> {
    let mut listening = Vec::new();
    for slot in &config.slots {
        let remote = &slot.forward.remote;
        if let Some(id) = running.holder(destination, remote) {
            let held = async { Ok(((), held_by(remote, &id))) };
            report.step(Step::Forward, held).await;
            continue;
        }
        if let Remote::Unix(path) = remote {
            report.step(Step::Forward, socket(&slot.forward, path, destination, probe)).await;
            continue;
        }
        let asked = async {
            match probe.listen(&slot.forward).await {
                Ok(forward) => {
                    let text = format!("the server listens on {}, and was told to stop", forward.remote);
                    Ok((Some(forward), text))
                }
                Err(failure) => {
                    // The agent's own tunnel may have come up since the agent was asked.
                    let is_refused = failure.kind == FailureKind::Forward;
                    let holder =
                        is_refused.then(|| Running::ask(config).holder(destination, remote)).flatten();
                    holder
                        .map(|id| (None, held_by(remote, &id)))
                        .ok_or_else(|| login_problem(&failure, destination))
                }
            }
        };
        listening.extend(report.step(Step::Forward, asked).await.flatten());
    }
    listening
}

fn held_by(remote: &Remote, id: &str) -> String {
    format!("{remote} is held by our own tunnel {id}, which is running")
}

/// What the name of the check's socket ends with.
const BESIDE: &str = ".check";

async fn socket(
    forward: &Forward,
    path: &str,
    destination: &Destination,
    probe: &mut Probe,
) -> Result<((), String), Problem> {
    // The rules for such a path bound its length.
    let remote: Remote = format!("unix:{path}{BESIDE}").parse().map_err(|_| {
        let text = format!("unix:{path} can't be tried, because {path}{BESIDE} would be too long");
        Problem::new(Exit::Forward, text, "choose a shorter path")
    })?;
    let tried = Forward { remote, local: forward.local.clone() };
    let shown = &tried.remote;
    let lost = |failure: &Failure| login_problem(failure, destination);
    let refused = |failure: Failure, cure: String| match failure.kind {
        FailureKind::Forward => Problem::new(Exit::Forward, failure.text, cure),
        _ => lost(&failure),
    };
    probe.listen(&tried).await.map_err(|failure| {
        let cure = format!(
            "see AllowStreamLocalForwarding of the server's sshd, and whether the account may make {path}{BESIDE}; if that is there \
             already, set StreamLocalBindUnlink yes"
        );
        refused(failure, cure)
    })?;
    probe.stop_listening(&tried).await.map_err(|failure| lost(&failure))?;
    probe.listen(&tried).await.map_err(|failure| {
        let cure = "set StreamLocalBindUnlink yes in the server's sshd_config: what a tunnel leaves behind is in the way of the next";
        let text = format!("{} a second time", failure.text);
        refused(Failure { text, ..failure }, cure.into())
    })?;
    probe.stop_listening(&tried).await.map_err(|failure| lost(&failure))?;
    Ok(((), format!("the server listens on {shown}, twice in a row, and was told to stop")))
}
