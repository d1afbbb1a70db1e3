//! The server's host key, held against pins and memory. Nothing is learned.

use std::sync::Arc;

use reverse_tunnel::probe::Reached;
use reverse_tunnel::{Destination, Probe};

use super::server::problem;
use crate::agent::host_keys;
use crate::config::Config;
use crate::control::protocol::Problem;

pub(super) async fn look(
    config: &Config,
    destination: &Destination,
    reached: Reached,
) -> Result<(Probe, String), Problem> {
    let keys = Arc::new(host_keys(config).without_learning());
    let probe = Probe::verify(reached, destination, keys)
        .await
        .map_err(|failure| problem(&failure, destination.server()))?;
    let trusted = probe.trusted();
    let text = match &trusted.place {
        Some(place) => format!("{} is trusted ({place})", trusted.fingerprint),
        None => format!(
            "{} is seen for the first time: the first tunnel will learn it; compare it with what the server's operator told you",
            trusted.fingerprint
        ),
    };
    Ok((probe, text))
}
