//! The login with the device's key.

use reverse_tunnel::{Destination, Identity, Probe};

use super::server::login_problem;
use crate::control::protocol::Problem;

pub(super) async fn look(
    destination: &Destination,
    mut probe: Probe,
    keys: &[Identity],
) -> Result<(Probe, String), Problem> {
    match probe.login(keys).await {
        Ok(key) => {
            Ok((probe, format!("{} takes the key {key} for {}", destination.server(), destination.user())))
        }
        Err(failure) => {
            probe.end().await;
            Err(login_problem(&failure, destination))
        }
    }
}
