//! One SSH connection of a tunnel. The only file that names russh's types.
//!
//! russh runs a connection in a task of its own that can't be aborted, so a [`Session`] owns a second handle of the
//! socket and shuts it when it is dropped: both russh's reads and its writes then fail and its task ends. Forwarded
//! connections run in one more task, which ends with the session and takes them all with it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::client::{self, DisconnectReason, Handle};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Disconnect,
    Preferred, SshId, cipher, kex,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::destination::Destination;
use crate::failure::{Failure, FailureKind};
use crate::forward::{Forward, Remote};
use crate::host_keys::{HostKeyError, HostKeys, Trusted};
use crate::identity::Identity;
use crate::limits::{
    CHANNEL_MESSAGES, CHANNEL_PACKET, CHANNEL_WINDOW, DISCONNECT_TIMEOUT, REFUSALS_TOLD, SESSION_EVENTS,
};
use crate::prompt::{Prompt, PromptStream};
use crate::pump::{self, Traffic};

/// What a session needs to know of the tunnel that it belongs to.
#[derive(Debug)]
pub(crate) struct SessionSettings {
    pub(crate) destination: Destination,
    pub(crate) host_keys: Arc<HostKeys>,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_max: u32,
    pub(crate) max_connections: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) traffic: Arc<Traffic>,
}

/// An SSH connection whose server has proved its host key. Dropping it ends it at once.
pub(crate) struct Session {
    handle: Handle<Client>,
    lost: oneshot::Receiver<Failure>,
    accepted: Accepted,
    trusted: Trusted,
    peer: SocketAddr,
    prompt: Prompt,
    _forwarded: AbortOnDrop,
    _socket: ShutOnDrop,
}

impl Session {
    /// Exchanges versions and keys over `stream` and checks the host key. Nothing of ours is sent to a server whose
    /// key isn't trusted.
    pub(crate) async fn verify(stream: TcpStream, settings: Arc<SessionSettings>) -> Result<Self, Failure> {
        let handshake = |what: &dyn fmt::Display| Failure::new(FailureKind::Handshake, what.to_string());
        let peer = stream.peer_addr().map_err(|error| handshake(&error))?;
        let socket = ShutOnDrop::of(&stream).map_err(|error| handshake(&error))?;

        let (lost_sender, mut lost) = oneshot::channel();
        let (opened_sender, opened) = mpsc::channel(SESSION_EVENTS);
        let accepted = Accepted::default();
        let trusted = Arc::new(Mutex::new(None));
        let client = Client {
            settings: settings.clone(),
            accepted: accepted.clone(),
            trusted: trusted.clone(),
            opened: opened_sender,
            lost: Some(lost_sender),
            refused: 0,
        };
        let config = Arc::new(config(&settings));
        let (stream, prompt) = PromptStream::new(stream);
        let handle = match client::connect_stream(config, stream, client).await {
            Ok(handle) => handle,
            Err(ClientError::HostKey(error)) => {
                return Err(Failure::new(FailureKind::HostKey, error.to_string()));
            }
            Err(ClientError::Ssh(error)) => {
                // A server that closes during the key exchange tells its reason, if any, to the handler.
                let failure = lost.try_recv().unwrap_or_else(|_| describe(&error));
                return Err(Failure::new(FailureKind::Handshake, format!("{peer}: {failure}")));
            }
        };
        let trusted = trusted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(trusted) = trusted else {
            return Err(handshake(&format_args!("{peer} finished the key exchange without a host key")));
        };
        let serving =
            pump::serve(opened, settings.max_connections, settings.buffer_bytes, settings.traffic.clone());
        let forwarded = AbortOnDrop(tokio::spawn(serving).abort_handle());
        Ok(Self { handle, lost, accepted, trusted, peer, prompt, _forwarded: forwarded, _socket: socket })
    }

    /// The server's host key.
    pub(crate) fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// Offers our key.
    pub(crate) async fn authenticate(&mut self, user: &str, identity: &Identity) -> Result<(), Failure> {
        let hash = match identity.private().algorithm() {
            // A server that doesn't tell which signatures it takes is asked with the strongest; SHA-1 is never used.
            Algorithm::Rsa { .. } => match self.handle.best_supported_rsa_hash().await {
                Ok(Some(Some(hash))) => Some(hash),
                Ok(_) => Some(HashAlg::Sha512),
                Err(error) => return Err(self.lost_or(&error)),
            },
            _ => None,
        };
        let key = PrivateKeyWithHashAlg::new(identity.private().clone(), hash);
        let denied = |why: &dyn fmt::Display| {
            let (peer, key) = (self.peer, identity.fingerprint());
            Failure::new(FailureKind::Auth, format!("{peer} refused the key {key} for user {user}{why}"))
        };
        match self.handle.authenticate_publickey(user, key).await {
            Ok(client::AuthResult::Success) => Ok(()),
            Ok(client::AuthResult::Failure { .. }) if self.handle.is_closed() => {
                Err(self.lost_or(&russh::Error::Disconnect))
            }
            Ok(client::AuthResult::Failure { partial_success: true, .. }) => {
                Err(denied(&": it wants a second factor"))
            }
            Ok(client::AuthResult::Failure { .. }) => Err(denied(&"")),
            Err(error) => Err(self.lost_or(&error)),
        }
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

    /// Waits until the connection is gone and says why.
    pub(crate) async fn lost(&mut self) -> Failure {
        let peer = self.peer;
        match (&mut self.lost).await {
            Ok(failure) => Failure::new(failure.kind, format!("{peer}: {failure}")),
            Err(_) => Failure::new(FailureKind::Lost, format!("{peer}: the connection ended")),
        }
    }

    /// Says goodbye, so that the server frees our ports before this returns; at most two seconds.
    pub(crate) async fn disconnect(mut self) {
        let goodbye = async {
            if self.handle.disconnect(Disconnect::ByApplication, "", "").await.is_ok() {
                let _ = (&mut self.lost).await;
            }
        };
        let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, goodbye).await;
    }

    /// russh's error for a call that found the connection gone says less than the connection's own.
    fn lost_or(&mut self, error: &russh::Error) -> Failure {
        let peer = self.peer;
        match self.lost.try_recv() {
            Ok(failure) => Failure::new(failure.kind, format!("{peer}: {failure}")),
            Err(_) => Failure::new(FailureKind::Lost, format!("{peer}: {}", describe(error))),
        }
    }
}

/// Reads a private key in any of the formats that russh knows, without a passphrase.
pub(crate) fn decode_private_key(text: &str) -> Result<PrivateKey, String> {
    let key = russh::keys::decode_secret_key(text, None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => {
            "it is protected by a passphrase, a device key can't be".to_owned()
        }
        error => error.to_string(),
    })?;
    if key.is_encrypted() {
        return Err("it is protected by a passphrase, a device key can't be".to_owned());
    }
    Ok(key)
}

fn config(settings: &SessionSettings) -> client::Config {
    // russh drops a connection after `interval × (max + 1)` and takes a max of 0 for "never".
    let (interval, max) = match settings.keepalive_max {
        0 | 1 => (settings.keepalive_interval / 2, 1),
        max => (settings.keepalive_interval, max - 1),
    };
    let dead_after = settings.keepalive_interval * settings.keepalive_max.max(1);
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-ocpp-tunnel_", env!("CARGO_PKG_VERSION")))),
        keepalive_interval: Some(interval),
        keepalive_max: max as usize,
        // Bounds the first key exchange, when no keepalive runs, and a write that the peer never takes.
        inactivity_timeout: Some(dead_after + Duration::from_secs(1)),
        window_size: CHANNEL_WINDOW,
        maximum_packet_size: CHANNEL_PACKET,
        channel_buffer_size: CHANNEL_MESSAGES,
        preferred: preferred(settings.host_keys.known_algorithms(&settings.destination)),
        ..client::Config::default()
    }
}

/// What we offer: nothing with SHA-1, CBC or an unauthenticated MAC, and the host key types that we know of this
/// server first.
fn preferred(known: Vec<Algorithm>) -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::DH_G16_SHA512,
        kex::DH_G18_SHA512,
        kex::DH_G14_SHA256,
        // Without these, server-sig-algs and strict key exchange (Terrapin) go silently.
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const WITH_AES_INSTRUCTIONS: &[cipher::Name] =
        &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR, cipher::AES_128_CTR];
    const WITHOUT: &[cipher::Name] =
        &[cipher::CHACHA20_POLY1305, cipher::AES_256_GCM, cipher::AES_256_CTR, cipher::AES_128_CTR];

    let mut offered: Vec<Algorithm> =
        Preferred::DEFAULT.key.iter().filter(|key| **key != Algorithm::Rsa { hash: None }).cloned().collect();
    // An RSA key signs with any of its hashes.
    let is_rsa = |key: &Algorithm| matches!(key, Algorithm::Rsa { .. });
    let is_known = |key: &Algorithm| known.iter().any(|known| known == key || (is_rsa(known) && is_rsa(key)));
    offered.sort_by_key(|key| !is_known(key));
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Owned(offered),
        cipher: Cow::Borrowed(if has_aes_instructions() { WITH_AES_INSTRUCTIONS } else { WITHOUT }),
        ..Preferred::DEFAULT
    }
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    // ARMv7 and ARMv6 cores have none.
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
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

/// The forwards that the server has been asked for. Any other channel that it opens is refused.
#[derive(Clone, Default)]
struct Accepted(Arc<Mutex<Vec<(Remote, Forward)>>>);

impl Accepted {
    fn add(&self, forward: &Forward) {
        self.with(|list| list.push((forward.remote.clone(), forward.clone())));
    }

    fn replace(&self, forward: &Forward, remote: Remote) {
        self.with(|list| {
            for (known, _) in list.iter_mut().filter(|(_, known)| known == forward) {
                *known = remote.clone();
            }
        });
    }

    fn remove(&self, forward: &Forward) {
        self.with(|list| list.retain(|(_, known)| known != forward));
    }

    fn find(&self, remote: &Remote) -> Option<Forward> {
        self.with(|list| list.iter().find(|(known, _)| known == remote).map(|(_, forward)| forward.clone()))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<(Remote, Forward)>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Our side of russh's callbacks. None of them waits: russh calls them from the task that moves every byte.
struct Client {
    settings: Arc<SessionSettings>,
    accepted: Accepted,
    trusted: Arc<Mutex<Option<Trusted>>>,
    opened: mpsc::Sender<Opened>,
    lost: Option<oneshot::Sender<Failure>>,
    refused: u32,
}

/// A forwarded connection that waits for its local service.
pub(crate) struct Opened {
    pub(crate) forward: Forward,
    pub(crate) originator: String,
    channel: Channel<client::Msg>,
    reply: client::ChannelOpenHandle,
}

impl Opened {
    /// Confirms the channel.
    pub(crate) async fn accept(self) -> (ChannelReader, ChannelWriter) {
        self.reply.accept().await;
        let (reader, writer) = self.channel.split();
        (ChannelReader(reader), ChannelWriter(writer))
    }

    /// The local service can't be reached.
    pub(crate) async fn reject_unreachable(self) {
        self.reply.reject(ChannelOpenFailure::ConnectFailed).await;
    }

    /// As many connections are open as there may be.
    pub(crate) async fn reject_full(self) {
        self.reply.reject(ChannelOpenFailure::ResourceShortage).await;
    }
}

/// What comes out of a channel.
pub(crate) enum Received {
    Data(Bytes),
    /// The server sends no more.
    Eof,
    /// The channel is gone, by the server's wish or with the connection.
    Closed,
}

pub(crate) struct ChannelReader(ChannelReadHalf);

impl ChannelReader {
    pub(crate) async fn receive(&mut self) -> Received {
        loop {
            match self.0.wait().await {
                Some(ChannelMsg::Data { data }) => return Received::Data(data),
                Some(ChannelMsg::Eof) => return Received::Eof,
                Some(ChannelMsg::Close) | None => return Received::Closed,
                // Extended data has no place in a forwarded connection, and window changes are russh's own business.
                Some(_) => {}
            }
        }
    }
}

pub(crate) struct ChannelWriter(ChannelWriteHalf<client::Msg>);

impl ChannelWriter {
    /// Waits for room in the server's window. On a channel that the server has closed it waits for ever.
    pub(crate) async fn send(&self, data: Bytes) -> io::Result<()> {
        self.0.data_bytes(data).await.map_err(io::Error::other)
    }

    /// Tells the server that nothing more comes.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        self.0.eof().await.map_err(io::Error::other)
    }

    /// Ends the channel; it fails only where the connection is gone with it.
    pub(crate) async fn close(&self) {
        let _ = self.0.close().await;
    }
}

impl Client {
    /// Hands a forwarded connection on, or refuses it by dropping the reply.
    fn opened(
        &mut self,
        remote: &Remote,
        originator: String,
        channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
    ) {
        let Some(forward) = self.accepted.find(remote) else {
            if self.may_tell() {
                tracing::warn!(server = %self.settings.destination, %remote, "channel-refused");
            }
            return;
        };
        if self.opened.try_send(Opened { forward, originator, channel, reply }).is_err() && self.may_tell() {
            tracing::warn!(server = %self.settings.destination, %remote, "channel-refused-busy");
        }
    }

    fn refuse(&mut self, kind: &'static str) -> Result<(), ClientError> {
        if self.may_tell() {
            tracing::warn!(server = %self.settings.destination, kind, "channel-refused");
        }
        Ok(())
    }

    /// A hostile server could fill the log by asking again and again.
    fn may_tell(&mut self) -> bool {
        self.refused = self.refused.saturating_add(1);
        self.refused <= REFUSALS_TOLD
    }
}

impl client::Handler for Client {
    type Error = ClientError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, ClientError> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let trusted =
            self.settings.host_keys.verify(&self.settings.destination, key).map_err(ClientError::HostKey)?;
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(trusted);
        Ok(true)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<ClientError>) -> Result<(), ClientError> {
        let failure = match reason {
            DisconnectReason::ReceivedDisconnect(peer) if peer.message.is_empty() => {
                Failure::new(FailureKind::Lost, "the server disconnected")
            }
            DisconnectReason::ReceivedDisconnect(peer) => {
                // The server's own words are for people; they are bounded here and escaped where they are shown.
                let words: String = peer.message.chars().take(120).collect();
                Failure::new(FailureKind::Lost, format!("the server disconnected: {words}"))
            }
            DisconnectReason::Error(ClientError::Ssh(error)) => describe(&error),
            // A rekey may show another host key.
            DisconnectReason::Error(ClientError::HostKey(error)) => {
                Failure::new(FailureKind::HostKey, error.to_string())
            }
        };
        if let Some(lost) = self.lost.take() {
            let _ = lost.send(failure);
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<client::Msg>,
        connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        let Ok(port) = u16::try_from(connected_port) else { return self.refuse("forwarded-tcpip") };
        let remote = Remote::Tcp { bind: connected_address.to_owned(), port };
        self.opened(&remote, format!("{originator_address}:{originator_port}"), channel, reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<client::Msg>,
        socket_path: &str,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        self.opened(&Remote::Unix(socket_path.to_owned()), String::new(), channel, reply);
        Ok(())
    }

    // russh accepts each of the following unless told otherwise; dropping the reply refuses it.

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<client::Msg>,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        self.refuse("session")
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<client::Msg>,
        _host: &str,
        _port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        self.refuse("direct-tcpip")
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<client::Msg>,
        _socket_path: &str,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        self.refuse("direct-streamlocal")
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<client::Msg>,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        self.refuse("auth-agent")
    }

    /// russh would answer a channel of unknown type twice, and OpenSSH and others take the second answer for a protocol
    /// error: so it is taken to be accepted, and refused like the others.
    async fn should_accept_unknown_server_channel(&mut self, _id: ChannelId, _kind: &str) -> bool {
        true
    }

    async fn server_channel_open_unknown(
        &mut self,
        _channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        reply.reject(ChannelOpenFailure::UnknownChannelType).await;
        self.refuse("unknown")
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<client::Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        self.refuse("x11")
    }
}

/// What ends russh's task.
#[derive(Debug)]
enum ClientError {
    Ssh(russh::Error),
    HostKey(HostKeyError),
}

impl From<russh::Error> for ClientError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
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
}

impl Drop for ShutOnDrop {
    fn drop(&mut self) {
        // It fails where the peer was faster.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}
