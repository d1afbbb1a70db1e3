//! An SSH server for reverse tunnels, on russh: it lets one public key in, and listens where that client asks it to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use russh::SshId;
use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use russh::server::{self, Auth, Handle, PublicKeyOffer, Session, VerifiedPublicKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{Result, within};

/// The account that the agent logs in to.
pub(crate) const USER: &str = "ops";

/// Events that nobody has looked at yet; the demo looks after every step.
const EVENTS: usize = 64;

/// What the server has to tell.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client has proved that it has the key.
    LoggedIn {
        /// The key, as OpenSSH shows it.
        fingerprint: String,
    },
    /// A port was opened for a client.
    Published {
        /// The port on 127.0.0.1.
        port: u16,
        /// When.
        at: Instant,
    },
    /// A port was closed: the client said so, or went away.
    Withdrawn {
        /// The port on 127.0.0.1.
        port: u16,
    },
}

/// A running server. Dropping it stops it from accepting connections.
#[derive(Debug)]
pub(crate) struct SshServer {
    port: u16,
    host_key: PublicKey,
    authorized: Arc<Mutex<Option<PublicKey>>>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl SshServer {
    /// Listens on a free port of 127.0.0.1, and lets nobody in yet.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)?;
        let host_key = key.public_key().clone();
        let authorized = Arc::new(Mutex::new(None));
        let (sender, events) = mpsc::channel(EVENTS);
        let task = tokio::spawn(accept(
            listener,
            configuration(key, "SSH-2.0-demo_server"),
            Arc::clone(&authorized),
            sender,
        ));
        Ok(Self { port, host_key, authorized, events, task })
    }

    /// What a tunnel to it is asked for with.
    pub(crate) fn destination(&self) -> String {
        format!("{USER}@127.0.0.1:{}", self.port)
    }

    /// The line of `known_hosts` for it.
    pub(crate) fn known_hosts_line(&self) -> Result<String> {
        Ok(format!("[127.0.0.1]:{} {}", self.port, self.host_key.to_openssh()?))
    }

    /// Lets this public key in, as a line of `authorized_keys` does.
    pub(crate) fn authorize(&self, line: &str) -> Result<()> {
        let key = PublicKey::from_openssh(line)?;
        *self.authorized.lock().map_err(|_| "the SSH server has failed")? = Some(key);
        Ok(())
    }

    /// Waits for the next thing to tell, which has to come soon; `what` says what is expected.
    pub(crate) async fn event(&mut self, what: &str) -> Result<Event> {
        within(what, self.next()).await?
    }

    /// Waits for the next thing to tell.
    pub(crate) async fn next(&mut self) -> Result<Event> {
        self.events.recv().await.ok_or_else(|| "the SSH server has ended".into())
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What both SSH servers of the demo have in common; `name` is what they introduce themselves with.
pub(crate) fn configuration(key: PrivateKey, name: &'static str) -> Arc<server::Config> {
    Arc::new(server::Config {
        server_id: SshId::Standard(Cow::Borrowed(name)),
        keys: vec![key],
        nodelay: true,
        // Nobody guesses passwords here; what is refused may be refused at once.
        auth_rejection_time: Duration::ZERO,
        inactivity_timeout: None,
        ..server::Config::default()
    })
}

async fn accept(
    listener: TcpListener,
    config: Arc<server::Config>,
    authorized: Arc<Mutex<Option<PublicKey>>>,
    events: mpsc::Sender<Event>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let client =
            Client { authorized: Arc::clone(&authorized), events: events.clone(), listeners: HashMap::new() };
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            let Ok(session) = server::run_stream(config, stream, client).await else { return };
            let _ = session.await;
        });
    }
}

/// One client's connection; its ports are closed with it.
struct Client {
    authorized: Arc<Mutex<Option<PublicKey>>>,
    events: mpsc::Sender<Event>,
    listeners: HashMap<u16, JoinHandle<()>>,
}

impl Client {
    fn knows(&self, user: &str, key: &PublicKey) -> bool {
        let authorized = self.authorized.lock().ok();
        user == USER
            && authorized
                .is_some_and(|known| known.as_ref().is_some_and(|known| known.key_data() == key.key_data()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for listener in self.listeners.values() {
            listener.abort();
        }
    }
}

impl server::Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> std::result::Result<Auth, Self::Error> {
        Ok(if self.knows(user, offer.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> std::result::Result<Auth, Self::Error> {
        if !self.knows(user, key.public_key) {
            return Ok(Auth::reject());
        }
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
        let _ = self.events.try_send(Event::LoggedIn { fingerprint });
        Ok(Auth::Accept)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> std::result::Result<bool, Self::Error> {
        let Ok(wanted) = u16::try_from(*port) else { return Ok(false) };
        // "localhost" is what OpenSSH's permitlisten names; nothing but loopback is ever listened on here.
        if !matches!(address, "localhost" | "127.0.0.1") {
            return Ok(false);
        }
        let Ok(listener) = TcpListener::bind(("127.0.0.1", wanted)).await else { return Ok(false) };
        let Ok(bound) = listener.local_addr() else { return Ok(false) };
        *port = bound.port().into();
        let withdrawal = Withdrawal { port: bound.port(), events: self.events.clone() };
        let task = tokio::spawn(publish(withdrawal, listener, session.handle(), address.to_owned()));
        self.listeners.insert(bound.port(), task);
        let _ = self.events.try_send(Event::Published { port: bound.port(), at: Instant::now() });
        Ok(true)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        _: &str,
        port: u32,
        _: &mut Session,
    ) -> std::result::Result<bool, Self::Error> {
        let listener = u16::try_from(port).ok().and_then(|port| self.listeners.remove(&port));
        Ok(listener.inspect(JoinHandle::abort).is_some())
    }
}

/// Tells that a port was closed, when it is dropped: after the listener, which stands behind it.
struct Withdrawal {
    port: u16,
    events: mpsc::Sender<Event>,
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        let _ = self.events.try_send(Event::Withdrawn { port: self.port });
    }
}

/// Passes every connection to the port on to the client, RFC 4254 section 7.2, until it is aborted.
async fn publish(withdrawal: Withdrawal, listener: TcpListener, client: Handle, address: String) {
    while let Ok((stream, from)) = listener.accept().await {
        let (client, address, port) = (client.clone(), address.clone(), withdrawal.port);
        tokio::spawn(async move { pass_on(stream, from, &client, address, port).await });
    }
}

async fn pass_on(
    mut stream: TcpStream,
    from: std::net::SocketAddr,
    client: &Handle,
    address: String,
    port: u16,
) {
    let opened =
        client.channel_open_forwarded_tcpip(address, port.into(), from.ip().to_string(), from.port().into());
    let Ok(channel) = opened.await else { return };
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut channel.into_stream()).await;
}
