//! Looks at the host keys of a server without trusting it.

use std::cell::Cell;

use crate::destination::Server;
use crate::failure::{Failure, FailureKind};
use crate::host_keys::ShownKey;
use crate::limits::{ADDRESSES, CONNECT_TIMEOUT};
use crate::ssh;
use crate::task::{connect, resolve};

/// Asks a server for its host keys, one handshake a type: ed25519, ECDSA and RSA. Nothing is sent that would tell who we
/// are. It takes as long as the server does: whoever calls it sets a limit.
///
/// # Errors
/// The name doesn't resolve, nothing listens there, or what does isn't an SSH server.
pub async fn scan(server: &Server) -> Result<Vec<ShownKey>, Failure> {
    let mut found = Err(Failure::new(FailureKind::Dns, format!("{server} has no address")));
    for address in resolve(server.host(), server.port()).await?.into_iter().take(ADDRESSES) {
        found = connect(address, CONNECT_TIMEOUT).await.map(|stream| (address, stream));
        if found.is_ok() {
            break;
        }
    }
    let (address, stream) = found?;
    let first = Cell::new(Some(stream));
    let connect = async || match first.take() {
        Some(stream) => Ok(stream),
        None => connect(address, CONNECT_TIMEOUT).await,
    };
    ssh::host_keys_of(connect).await
}
