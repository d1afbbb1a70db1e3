//! Our side of russh's callbacks: the host key, the end of the connection, and the channels that the server opens.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::client::{self, DisconnectReason};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{SessionSettings, describe};
use crate::events::End;
use crate::failure::{Failure, FailureKind};
use crate::forward::{Forward, Remote};
use crate::host_keys::{HostKeyError, ShownKey, Trusted};
use crate::limits::{LEFTOVERS, ORIGINATOR_CHARACTERS, REFUSALS_TOLD};
use crate::pump::Local;
use crate::traffic::tell_refused;

/// The forwards that the server has been asked for. Any other channel that it opens is refused.
#[derive(Clone, Default)]
pub(super) struct Accepted(Arc<Mutex<Vec<(Remote, Forward)>>>);

impl Accepted {
    pub(super) fn add(&self, forward: &Forward) {
        self.with(|list| list.push((forward.remote.clone(), forward.clone())));
    }

    pub(super) fn replace(&self, forward: &Forward, remote: Remote) {
        self.with(|list| {
            for (known, _) in list.iter_mut().filter(|(_, known)| known == forward) {
                *known = remote.clone();
            }
        });
    }

    pub(super) fn remove(&self, forward: &Forward) {
        self.with(|list| list.retain(|(_, known)| known != forward));
    }

    /// The forward of this place. While the server's answer with the port that it chose is on its way to us, a connection to
    /// that port may come right behind it: then it is the one that is being asked for.
    fn find(&self, remote: &Remote) -> Option<Forward> {
        let chosen =
            |known: &Remote| matches!(remote, Remote::Tcp { port, .. } if known.with_port(*port) == *remote);
        self.with(|list| {
            let exact = list.iter().find(|(known, _)| known == remote);
            exact.or_else(|| list.iter().find(|(known, _)| chosen(known))).map(|(_, forward)| forward.clone())
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<(Remote, Forward)>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Our side of russh's callbacks. russh calls them from the task that moves every byte, so none of them waits, but for
/// room in the budget.
pub(super) struct Client {
    settings: Arc<SessionSettings>,
    accepted: Accepted,
    proved: Arc<Mutex<Option<Proved>>>,
    /// The first announcement goes there; a server needs no second one.
    announced: Option<oneshot::Sender<Vec<PublicKey>>>,
    opened: mpsc::Sender<Opened>,
    locals: Locals,
    lost: Option<oneshot::Sender<Failure>>,
    refused: u32,
}

/// The host key that the server has proved to hold, and that we trust.
pub(super) struct Proved {
    pub(super) key: PublicKey,
    pub(super) trusted: Trusted,
}

/// A forwarded connection that waits for its local service.
pub(crate) struct Opened {
    pub(crate) forward: Forward,
    pub(crate) originator: String,
    channel: Channel<client::Msg>,
    locals: Locals,
    reply: client::ChannelOpenHandle,
}

impl Opened {
    /// Confirms the channel; what comes out of it goes to `local` from now on.
    pub(crate) async fn accept(self, local: Arc<Local>) -> ChannelWriter {
        // The handler gets all that the reading half would.
        let (_, half) = self.channel.split();
        self.locals.with(|locals| locals.insert(half.id(), local));
        self.reply.accept().await;
        ChannelWriter { half, locals: self.locals, finished: AtomicBool::new(false) }
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

/// Where each open channel's data goes.
#[derive(Clone, Default)]
pub(super) struct Locals(Arc<Mutex<HashMap<ChannelId, Arc<Local>>>>, Arc<Leftovers>);

/// Channels that we closed before the server did. russh forgets such a channel when it sends the close, and then
/// ignores the server's close, which alone would free what it keeps for the channel: some 4 KB, until the connection ends.
#[derive(Default)]
struct Leftovers {
    count: AtomicUsize,
    too_many: Notify,
}

impl Locals {
    /// Waits until so many channels have been left behind that the connection has to be made anew.
    pub(super) async fn crowded(&self) {
        self.1.too_many.notified().await;
    }

    fn leave_behind(&self) {
        if self.1.count.fetch_add(1, Ordering::Relaxed) + 1 == LEFTOVERS {
            self.1.too_many.notify_one();
        }
    }

    fn get(&self, id: ChannelId) -> Option<Arc<Local>> {
        self.with(|locals| locals.get(&id).cloned())
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<ChannelId, Arc<Local>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) struct ChannelWriter {
    half: ChannelWriteHalf<client::Msg>,
    locals: Locals,
    finished: AtomicBool,
}

impl ChannelWriter {
    /// Waits for room in the server's window. On a channel that the server has closed it waits for ever.
    pub(crate) async fn send(&self, data: Bytes) -> io::Result<()> {
        self.half.data_bytes(data).await.map_err(io::Error::other)
    }

    /// Tells the server, once, that nothing more comes.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        if self.finished.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.half.eof().await.map_err(io::Error::other)
    }

    /// Ends the channel before the server does; it fails only where the connection is gone with it.
    pub(crate) async fn close(&self) {
        self.locals.leave_behind();
        self.locals.with(|locals| locals.remove(&self.half.id()));
        let _ = self.half.close().await;
    }
}

impl Client {
    pub(super) fn new(
        settings: Arc<SessionSettings>,
        accepted: Accepted,
        proved: Arc<Mutex<Option<Proved>>>,
        announced: oneshot::Sender<Vec<PublicKey>>,
        opened: mpsc::Sender<Opened>,
        locals: Locals,
        lost: oneshot::Sender<Failure>,
    ) -> Self {
        Self {
            settings,
            accepted,
            proved,
            announced: Some(announced),
            opened,
            locals,
            lost: Some(lost),
            refused: 0,
        }
    }

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
        let opened = Opened { forward, originator, channel, locals: self.locals.clone(), reply };
        let Err(refused) = self.opened.try_send(opened) else { return };
        tell_refused(&self.settings.events, &refused.into_inner(), Duration::ZERO, End::RefusedFull);
        if self.may_tell() {
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
        let (shown, server) = (shown_key(key), self.settings.destination.server());
        let trusted = self.settings.host_keys.verify(server, &shown).map_err(ClientError::HostKey)?;
        let proved = Proved { key: shown.key(), trusted };
        *self.proved.lock().unwrap_or_else(PoisonError::into_inner) = Some(proved);
        Ok(true)
    }

    async fn openssh_ext_host_keys_announced(
        &mut self,
        keys: Vec<PublicKey>,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        if let Some(announced) = self.announced.take() {
            let _ = announced.send(keys);
        }
        Ok(())
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
            DisconnectReason::Error(ClientError::HostKey(error)) => error.to_failure(),
        };
        if let Some(lost) = self.lost.take() {
            let _ = lost.send(failure);
        }
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        if let Some(local) = self.locals.get(channel) {
            local.receive(data).await;
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        if let Some(local) = self.locals.get(channel) {
            local.eof();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut client::Session,
    ) -> Result<(), ClientError> {
        if let Some(local) = self.locals.with(|locals| locals.remove(&channel)) {
            local.close();
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
        self.opened(&remote, originator(originator_address, originator_port), channel, reply);
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

/// russh has checked that the server holds the key, and nothing else.
pub(super) fn shown_key(key: &PublicKeyOrCertificate) -> ShownKey {
    match key {
        PublicKeyOrCertificate::PublicKey { key, .. } => ShownKey::Plain(key.clone()),
        PublicKeyOrCertificate::Certificate(certificate) => {
            ShownKey::Certified(Box::new(certificate.clone()))
        }
    }
}

/// The server tells what it likes here, of any length.
fn originator(address: &str, port: u32) -> String {
    format!("{address}:{port}").chars().take(ORIGINATOR_CHARACTERS).collect()
}

/// What ends russh's task.
#[derive(Debug)]
pub(super) enum ClientError {
    Ssh(russh::Error),
    HostKey(HostKeyError),
}

impl From<russh::Error> for ClientError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(text: &str) -> Forward {
        text.parse().unwrap()
    }

    fn remote(text: &str) -> Remote {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_may_come_right_behind_the_port_that_the_server_chose() {
        let (accepted, chosen) = (Accepted::default(), forward("0:127.0.0.1:22"));
        accepted.add(&chosen);
        assert_eq!(accepted.find(&remote("localhost:40000")), Some(chosen.clone()));
        assert_eq!(accepted.find(&remote("[::1]:40000")), None, "another bind address");
        accepted.replace(&chosen, remote("localhost:40000"));
        assert_eq!(accepted.find(&remote("localhost:40000")), Some(chosen.clone()));
        assert_eq!(accepted.find(&remote("localhost:40001")), None, "it has chosen");
        accepted.remove(&chosen);
        assert_eq!(accepted.find(&remote("localhost:40000")), None);
    }
}
