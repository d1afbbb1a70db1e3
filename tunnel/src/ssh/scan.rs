//! Looks at a server's host keys, one handshake for each type, and hangs up before anything of ours is sent.

use std::sync::{Arc, Mutex, PoisonError};

use russh::AlgorithmKind;
use russh::client::{Config, Handler, connect_stream};
use russh::keys::{Algorithm, PublicKeyOrCertificate};

use super::algorithms::{asking_for, host_key_types, is_rsa};
use super::client::shown_key;
use super::{ShutOnDrop, client_id, describe};
use crate::connect::Connection;
use crate::failure::{Failure, FailureKind};
use crate::host_keys::ShownKey;
use crate::stream::SshStream;

/// The host keys that a server has, of every type that we take; `connect` makes a connection to it.
pub(crate) async fn host_keys_of<C>(connect: C) -> Result<Vec<ShownKey>, Failure>
where
    C: AsyncFn() -> Result<Connection, Failure>,
{
    let mut types: Vec<Vec<Algorithm>> = Vec::new();
    for key in host_key_types() {
        // One RSA key has several algorithms.
        match types.last_mut().filter(|last| is_rsa(&key) && last.iter().all(is_rsa)) {
            Some(last) => last.push(key),
            None => types.push(vec![key]),
        }
    }
    let mut keys = Vec::new();
    for algorithms in types {
        keys.extend(host_key(connect().await?, algorithms).await?);
    }
    if keys.is_empty() {
        let text = "the server offers no host key of a type that we take";
        return Err(Failure::new(FailureKind::Handshake, text));
    }
    Ok(keys)
}

/// The server's host key of one type, with its certificate if it has one.
async fn host_key(connection: Connection, algorithms: Vec<Algorithm>) -> Result<Option<ShownKey>, Failure> {
    let failure = |text: String| Failure::new(FailureKind::Handshake, text);
    let Connection { stream, early, peer } = connection;
    let _socket = ShutOnDrop::of(&stream).map_err(|error| failure(error.to_string()))?;
    let config = Config {
        client_id: client_id(),
        preferred: asking_for(algorithms.clone(), algorithms),
        ..Config::default()
    };
    let shown = Arc::new(Mutex::new(None));
    let (stream, _prompt) = SshStream::new(stream, &early);
    let result = connect_stream(Arc::new(config), stream, Look { shown: shown.clone() }).await;
    let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (shown, result) {
        (Some(shown), _) => Ok(Some(shown)),
        (None, Err(russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. })) => Ok(None),
        (None, Err(error)) => Err(failure(format!("{peer}: {}", describe(&error)))),
        (None, Ok(_)) => Err(failure(format!("{peer} finished the key exchange without a host key"))),
    }
}

/// Takes note of the host key and trusts none.
struct Look {
    shown: Arc<Mutex<Option<ShownKey>>>,
}

impl Handler for Look {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown_key(key));
        Ok(false)
    }
}
