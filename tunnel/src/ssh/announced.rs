//! The host keys that a server announces once we have logged in: `hostkeys-00@openssh.com` (OpenSSH's PROTOCOL, 2.5).
//!
//! So a server's keys can be exchanged without a visit to each device: the new ones are learned while the old one is still
//! trusted. What is announced counts only after the server has proved, over this session's id, to hold the keys.

use std::sync::Arc;

use russh::client::Handle;
use russh::keys::PublicKey;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::SessionSettings;
use super::client::Client;
use crate::events::Event;
use crate::limits::PROOF_TIMEOUT;

/// Waits for the announcement, and makes the announced keys what is learned of the server; `used` is the key that this
/// session was opened with. It ends without having learned anything where nothing may be learned or nothing is proved.
pub(super) async fn learn(
    handle: Arc<Handle<Client>>,
    announced: oneshot::Receiver<Vec<PublicKey>>,
    settings: Arc<SessionSettings>,
    used: PublicKey,
) {
    let Ok(keys) = announced.await else { return };
    let server = settings.destination.server();
    let Some(keys) = settings.host_keys.to_prove(server, &used, keys) else { return };
    match timeout(PROOF_TIMEOUT, handle.hostkeys_prove(keys.clone())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return tracing::warn!(%server, %error, "host-keys-not-proved"),
        Err(_) => return tracing::warn!(%server, error = "no answer", "host-keys-not-proved"),
    }
    match settings.host_keys.replace(server, &keys) {
        Ok(done) => {
            let (learned, forgotten) = (done.added, done.removed);
            tracing::info!(%server, learned, forgotten, "host-keys-exchanged");
            settings.events.tell(Event::HostKeysExchanged { learned, forgotten });
        }
        Err(error) => tracing::warn!(%server, %error, "host-key-not-kept"),
    }
}
