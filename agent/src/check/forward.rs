//! Permission to listen, for each script: it is asked for, and given back when the connection ends.

use reverse_tunnel::{Destination, Forward, Probe, Remote};

use super::report::{Report, Step};
use super::running::Running;
use super::server::problem;
use crate::config::Config;

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
            let held =
                async { Ok(((), format!("{remote} is held by our own tunnel {id}, which is running"))) };
            report.step(Step::Forward, held).await;
            continue;
        }
        if let Remote::Unix(_) = remote {
            // sshd leaves the file behind, and would take the place of whoever listens there.
            report.skip(
                Step::Forward,
                &format!("asking for {remote} would leave the socket behind on the server"),
            );
            continue;
        }
        let asked = async {
            let forward = probe
                .listen(&slot.forward)
                .await
                .map_err(|failure| problem(&failure, destination.server()))?;
            let text = format!("the server listens on {}, and was told to stop", forward.remote);
            Ok((forward, text))
        };
        listening.extend(report.step(Step::Forward, asked).await);
    }
    listening
}
