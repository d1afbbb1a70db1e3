//! One SSH connection of a tunnel. The only module that names russh's types.
//!
//! russh runs a connection in a task of its own that can't be aborted, so a [`Session`] owns a second handle of the
//! socket and shuts it when it is dropped: both russh's reads and its writes then fail and its task ends. Forwarded
//! connections run in one more task, which ends with the session and takes them all with it.

mod agent;
mod algorithms;
mod announced;
mod client;
mod command;
mod password;
mod scan;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{AuthResult, Config, Handle, connect_stream};
use russh::keys::agent::client::AgentClient;
use russh::keys::signature::{Signer as _, Verifier as _};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{Disconnect, Limits, SshId};
use ssh_key::Signature;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use self::algorithms::preferred;
use self::client::{Accepted, Client, ClientError, Locals, Proved};
use crate::certificate::{UserCertificate, wall_clock};
use crate::connect::Connection;
use crate::destination::Destination;
use crate::events::Events;
use crate::failure::{Failure, FailureKind};
use crate::forward::{Forward, Remote};
use crate::host_keys::{HostKeys, Trusted};
use crate::identity::{DSA, Identity};
use crate::limits::{
    AGENT_MESSAGE_BYTES, CHANNEL_PACKET, CHANNEL_WINDOW, DISCONNECT_TIMEOUT, LEFTOVERS, REKEY_BYTES,
    REKEY_TIME, STALLED,
};
use crate::local_service::OwnListeners;
use crate::pump;
use crate::route::Peer;
use crate::stream::{Prompt, SshStream};
use crate::traffic::Traffic;

pub(crate) use self::client::{ChannelWriter, Opened};
pub use self::command::CommandOutput;
pub use self::password::Question;
pub(crate) use self::scan::host_keys_of;

/// What a session needs to know of the tunnel that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct SessionSettings {
    pub(crate) destination: Destination,
    pub(crate) host_keys: Arc<HostKeys>,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_max: u32,
    pub(crate) max_connections: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) own_listeners: OwnListeners,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) events: Events,
}

/// An SSH connection whose server has proved its host key. Dropping it ends it at once.
pub(crate) struct Session {
    handle: Arc<Handle<Client>>,
    lost: oneshot::Receiver<Failure>,
    accepted: Accepted,
    locals: Locals,
    proved: Proved,
    announced: Option<oneshot::Receiver<Vec<PublicKey>>>,
    settings: Arc<SessionSettings>,
    peer: Peer,
    prompt: Prompt,
    _learning: Option<AbortOnDrop>,
    forwarded: AbortOnDrop,
    socket: ShutOnDrop,
}

impl Session {
    /// Exchanges versions and keys over `connection` and checks the host key. Nothing of ours is sent to a server whose
    /// key isn't trusted.
    pub(crate) async fn verify(
        connection: Connection,
        settings: Arc<SessionSettings>,
    ) -> Result<Self, Failure> {
        let Connection { stream, early, peer } = connection;
        let handshake = |what: &dyn fmt::Display| Failure::new(FailureKind::Handshake, what.to_string());
        let socket = ShutOnDrop::of(&stream).map_err(|error| handshake(&error))?;

        let (lost_sender, mut lost) = oneshot::channel();
        let (opened_sender, opened) = mpsc::channel(settings.max_connections.max(1));
        let (accepted, locals) = (Accepted::default(), Locals::default());
        let proved = Arc::new(Mutex::new(None));
        let (announced_sender, announced) = oneshot::channel();
        let client = Client::new(
            settings.clone(),
            accepted.clone(),
            proved.clone(),
            announced_sender,
            opened_sender,
            locals.clone(),
            lost_sender,
        );
        let config = Arc::new(config(&settings));
        let (stream, prompt) = SshStream::new(stream, &early);
        let handle = match connect_stream(config, stream, client).await {
            Ok(handle) => handle,
            Err(ClientError::HostKey(error)) => return Err(error.to_failure()),
            Err(ClientError::Ssh(error)) => {
                // A server that closes during the key exchange tells its reason, if any, to the handler.
                let failure = lost.try_recv().unwrap_or_else(|_| describe(&error));
                return Err(Failure::new(FailureKind::Handshake, format!("{peer}: {failure}")));
            }
        };
        let proved = proved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(proved) = proved else {
            return Err(handshake(&format_args!("{peer} finished the key exchange without a host key")));
        };
        let serving = pump::serve(
            opened,
            settings.max_connections,
            settings.buffer_bytes,
            settings.own_listeners.clone(),
            settings.traffic.clone(),
            settings.events.clone(),
        );
        let forwarded = AbortOnDrop(tokio::spawn(serving).abort_handle());
        Ok(Self {
            handle: Arc::new(handle),
            lost,
            accepted,
            locals,
            proved,
            announced: Some(announced),
            settings,
            peer,
            prompt,
            _learning: None,
            forwarded,
            socket,
        })
    }

    /// The server's host key.
    pub(crate) fn trusted(&self) -> &Trusted {
        &self.proved.trusted
    }

    /// That key itself.
    pub(crate) fn host_key(&self) -> &PublicKey {
        &self.proved.key
    }

    /// Offers our keys in turn, each one's certificate first, and gives the fingerprint of the key that was taken. From
    /// then on, what the server announces of its host keys is attended to in the background.
    pub(crate) async fn authenticate(
        &mut self,
        user: &str,
        identities: &[Identity],
    ) -> Result<String, Failure> {
        let taken = self.offer(user, identities).await?;
        self.learn_announced();
        Ok(taken)
    }

    async fn offer(&mut self, user: &str, identities: &[Identity]) -> Result<String, Failure> {
        for identity in identities {
            let hash = self.signature_hash(identity).await?;
            let key = PrivateKeyWithHashAlg::new(identity.private().clone(), hash);
            let usable = |certificate: &&UserCertificate| certificate.check_time(wall_clock()).is_ok();
            if let Some(certificate) = identity.certificate().ok().flatten().filter(usable) {
                if self.offer_certificate(user, &key, certificate).await? {
                    return Ok(identity.fingerprint());
                }
                tracing::warn!(peer = %self.peer, file = %certificate.path().display(), "certificate-refused");
            }
            let answer = match self.handle()?.authenticate_publickey(user, key).await {
                Ok(answer) => answer,
                Err(error) => return Err(self.lost_or(&error)),
            };
            if self.is_taken(user, answer)? {
                return Ok(identity.fingerprint());
            }
        }
        let keys: Vec<String> = identities.iter().map(Identity::fingerprint).collect();
        let text = format!("{} refused the key {} for user {user}", self.peer, keys.join(" and the key "));
        Err(Failure::new(FailureKind::Auth, text))
    }

    /// What an RSA key signs with; never SHA-1.
    async fn signature_hash(&mut self, identity: &Identity) -> Result<Option<HashAlg>, Failure> {
        if !matches!(identity.private().algorithm(), Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        // A server that doesn't tell which signatures it takes is asked with the strongest.
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Ok(Some(hash)),
            Ok(_) => Ok(Some(HashAlg::Sha512)),
            Err(error) => Err(self.lost_or(&error)),
        }
    }

    async fn offer_certificate(
        &mut self,
        user: &str,
        key: &PrivateKeyWithHashAlg,
        certificate: &UserCertificate,
    ) -> Result<bool, Failure> {
        let (agent_end, our_end) = tokio::io::duplex(AGENT_MESSAGE_BYTES);
        let mut signer = AgentClient::connect(our_end);
        let certificate = certificate.certificate().clone();
        let offered =
            self.handle()?.authenticate_certificate_with(user, certificate, key.hash_alg(), &mut signer);
        let served = async {
            let ended = agent::serve(agent_end, key).await;
            tracing::debug!(?ended, "agent-in-memory-ended");
            // The other side notices, and says so.
            std::future::pending::<Infallible>().await
        };
        let result = tokio::select! {
            result = offered => result,
            never = served => match never {},
        };
        match result {
            Ok(answer) => self.is_taken(user, answer),
            Err(_) if self.handle.is_closed() => Err(self.lost_or(&russh::Error::Disconnect)),
            // The plain key is still to be tried.
            Err(error) => {
                tracing::warn!(%error, "certificate-not-signed-for");
                Ok(false)
            }
        }
    }

    fn is_taken(&mut self, user: &str, answer: AuthResult) -> Result<bool, Failure> {
        match answer {
            AuthResult::Success => Ok(true),
            AuthResult::Failure { .. } if self.handle.is_closed() => {
                Err(self.lost_or(&russh::Error::Disconnect))
            }
            AuthResult::Failure { partial_success: true, .. } => {
                let text = format!("{} took the key for user {user} and wants a second factor", self.peer);
                Err(Failure::new(FailureKind::Auth, text))
            }
            AuthResult::Failure { .. } => Ok(false),
        }
    }

    fn handle(&mut self) -> Result<&mut Handle<Client>, Failure> {
        // It is shared from the first success on only.
        let shared = || Failure::new(FailureKind::Auth, format!("{} has let us in already", self.peer));
        Arc::get_mut(&mut self.handle).ok_or_else(shared)
    }

    fn learn_announced(&mut self) {
        let Some(announced) = self.announced.take() else { return };
        let learning =
            announced::learn(self.handle.clone(), announced, self.settings.clone(), self.proved.key.clone());
        self._learning = Some(AbortOnDrop(tokio::spawn(learning).abort_handle()));
    }

    /// Asks the server to listen; gives the port, or 0 for a Unix socket.
    pub(crate) async fn listen(&mut self, forward: &Forward) -> Result<u16, Failure> {
        // The server may open the first connection right behind its answer.
        self.accepted.add(forward);
        self.prompt.set(true);
        let answer = match &forward.remote {
            Remote::Tcp { bind, port } => match self.handle.tcpip_forward(bind, u32::from(*port)).await {
                Ok(chosen) if *port == 0 => u16::try_from(chosen).map_err(|_| russh::Error::RequestDenied),
                result => result.map(|_| *port),
            },
            Remote::Unix(path) => self.handle.streamlocal_forward(path).await.map(|()| 0),
        };
        self.prompt.set(false);
        match answer {
            Ok(port) => {
                self.accepted.replace(forward, forward.remote.with_port(port));
                Ok(port)
            }
            Err(error) => {
                self.accepted.remove(forward);
                match error {
                    russh::Error::RequestDenied => Err(Failure::new(
                        FailureKind::Forward,
                        format!("{} refused to listen on {}", self.peer, forward.remote),
                    )),
                    error => Err(self.lost_or(&error)),
                }
            }
        }
    }

    /// Asks the server not to listen any more. A Unix socket's file stays behind there.
    pub(crate) async fn stop_listening(&mut self, forward: &Forward) -> Result<(), Failure> {
        self.prompt.set(true);
        let answer = match &forward.remote {
            Remote::Tcp { bind, port } => self.handle.cancel_tcpip_forward(bind, u32::from(*port)).await,
            Remote::Unix(path) => self.handle.cancel_streamlocal_forward(path).await,
        };
        self.prompt.set(false);
        self.accepted.remove(forward);
        match answer {
            Ok(()) => Ok(()),
            Err(russh::Error::RequestDenied) => Err(Failure::new(
                FailureKind::Forward,
                format!("{} refused to stop listening on {}", self.peer, forward.remote),
            )),
            Err(error) => Err(self.lost_or(&error)),
        }
    }

    /// Waits until the connection is gone and says why.
    pub(crate) async fn lost(&mut self) -> Failure {
        let peer = &self.peer;
        let lost = tokio::select! {
            lost = &mut self.lost => lost,
            () = self.locals.crowded() => {
                let text = format!("{peer}: made anew, since {LEFTOVERS} connections were cut short in it");
                return Failure::new(FailureKind::Lost, text);
            }
        };
        match lost {
            Ok(failure) => Failure::new(failure.kind, format!("{peer}: {failure}")),
            Err(_) => Failure::new(FailureKind::Lost, format!("{peer}: the connection ended")),
        }
    }

    /// Ends the forwarded connections, says goodbye and waits for the server to end the connection, with which it frees
    /// our ports; at most two seconds.
    pub(crate) async fn disconnect(mut self) {
        // First, because russh's task may be waiting for one of them, and could not say goodbye.
        drop(self.forwarded);
        let goodbye = async {
            if self.handle.disconnect(Disconnect::ByApplication, "", "").await.is_ok() {
                let _ = (&mut self.lost).await;
                self.socket.ended().await;
            }
        };
        let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, goodbye).await;
    }

    /// russh's error for a call that found the connection gone says less than the connection's own.
    fn lost_or(&mut self, error: &russh::Error) -> Failure {
        let peer = &self.peer;
        match self.lost.try_recv() {
            Ok(failure) => Failure::new(failure.kind, format!("{peer}: {failure}")),
            Err(_) => Failure::new(FailureKind::Lost, format!("{peer}: {}", describe(error))),
        }
    }
}

/// `id-dsa` of RFC 3279, 2.3.2.
const DSA_OID: &str = "1.2.840.10040.4.1";

/// Reads a private key in any of the formats that russh knows, without a passphrase.
pub(crate) fn decode_private_key(text: &str) -> Result<PrivateKey, String> {
    let key = russh::keys::decode_secret_key(text, None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => {
            "it is protected by a passphrase, a device key can't be".to_owned()
        }
        russh::keys::Error::UnknownAlgorithm(oid) if oid.to_string() == DSA_OID => DSA.to_owned(),
        error => error.to_string(),
    })?;
    if key.is_encrypted() {
        return Err("it is protected by a passphrase, a device key can't be".to_owned());
    }
    Ok(key)
}

/// Does the private half sign what the public half verifies? Not every format's reader looks at that.
pub(crate) fn check_pair(key: &PrivateKey) -> Result<(), String> {
    const SAMPLE: &[u8] = b"ocpp-tunnel";
    let signature: Signature = key.try_sign(SAMPLE).map_err(|error| format!("it can't sign: {error}"))?;
    let verified = key.public_key().key_data().verify(SAMPLE, &signature);
    verified.map_err(|_| "its public half doesn't belong to its private half".to_owned())
}

fn config(settings: &SessionSettings) -> Config {
    // russh drops a connection after `interval × (max + 1)` and takes a max of 0 for "never".
    let (interval, max) = match settings.keepalive_max {
        0 | 1 => (settings.keepalive_interval / 2, 1),
        max => (settings.keepalive_interval, max - 1),
    };
    let dead_after = settings.keepalive_interval * settings.keepalive_max.max(1);
    Config {
        client_id: client_id(),
        keepalive_interval: Some(interval),
        keepalive_max: max as usize,
        // Bounds the first key exchange, when no keepalive runs, and a write that the peer never takes. It goes on while
        // we wait for room in the budget.
        inactivity_timeout: Some(dead_after.max(STALLED) + Duration::from_secs(1)),
        window_size: CHANNEL_WINDOW,
        maximum_packet_size: CHANNEL_PACKET,
        limits: Limits {
            rekey_read_limit: REKEY_BYTES,
            rekey_write_limit: REKEY_BYTES,
            rekey_time_limit: REKEY_TIME,
        },
        preferred: preferred(&settings.host_keys.expected(settings.destination.server())),
        ..Config::default()
    }
}

fn client_id() -> SshId {
    SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-ocpp-tunnel_", env!("CARGO_PKG_VERSION"))))
}

fn describe(error: &russh::Error) -> Failure {
    let text = match error {
        russh::Error::HUP => "the server closed the connection".to_owned(),
        russh::Error::IO(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection".to_owned()
        }
        russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout => {
            "the server stopped answering".to_owned()
        }
        russh::Error::Disconnect | russh::Error::SendError => "the connection ended".to_owned(),
        russh::Error::Version => "it doesn't answer as an SSH server".to_owned(),
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            format!("no common {kind:?} algorithm, the server offers {}", theirs.join(","))
        }
        russh::Error::IO(error) => error.to_string(),
        error => error.to_string().to_lowercase(),
    };
    Failure::new(FailureKind::Lost, text)
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A second handle of a socket that shuts it for everybody when dropped.
struct ShutOnDrop(socket2::Socket);

impl ShutOnDrop {
    fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self(stream.as_fd().try_clone_to_owned()?.into()))
    }

    /// Waits until the peer has ended its side too, once nobody else reads the socket any more.
    async fn ended(&self) {
        let Ok(second) = self.0.try_clone() else { return };
        let Ok(mut stream) = TcpStream::from_std(second.into()) else { return };
        let mut thrown_away = [0; 1024];
        while let Ok(1..) = stream.read(&mut thrown_away).await {}
    }
}

impl Drop for ShutOnDrop {
    fn drop(&mut self) {
        // It fails where the peer was faster.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}
