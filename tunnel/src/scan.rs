//! Looks at the host keys of a server without trusting it.

use std::cell::Cell;

use tokio::time::timeout;

use crate::connect::{connect, resolve};
use crate::destination::Server;
use crate::failure::{Failure, FailureKind};
use crate::host_keys::ShownKey;
use crate::limits::CONNECT_TIMEOUT;
use crate::route::Route;
use crate::ssh;

/// Asks a server for its host keys, one handshake a type: ed25519, ECDSA and RSA. Nothing is sent that would tell who we
/// are. It takes as long as the server does: whoever calls it sets a limit.
///
/// # Errors
/// The name doesn't resolve, nothing listens there, or what does isn't an SSH server.
pub async fn scan(server: &Server, route: &Route) -> Result<Vec<ShownKey>, Failure> {
    let mut found = Err(Failure::new(FailureKind::Dns, format!("{server} has no address")));
    for way in route.ways(server.port(), &resolve(server, route).await?, None) {
        let connected = timeout(CONNECT_TIMEOUT, connect(server.host(), way, route, CONNECT_TIMEOUT)).await;
        found = match connected {
            Ok(result) => result.map(|connection| (way, connection)),
            Err(_) => {
                let peer = route.peer(server.host(), way);
                let text = format!("no connection to {peer} in {} s", CONNECT_TIMEOUT.as_secs());
                Err(Failure::new(FailureKind::Tcp, text))
            }
        };
        if found.is_ok() {
            break;
        }
    }
    let (way, connection) = found?;
    let first = Cell::new(Some(connection));
    let connect = async || match first.take() {
        Some(connection) => Ok(connection),
        None => connect(server.host(), way, route, CONNECT_TIMEOUT).await,
    };
    ssh::host_keys_of(connect).await
}
