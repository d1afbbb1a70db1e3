//! One connection to a server, made a step at a time: for who wants to know which step fails, or has something to do on the
//! server that no tunnel does. It publishes nothing: whoever connects to a port that it asked for is refused.
//!
//! [`addresses`] → [`Reached::connect`] → [`Reached::banner`] → [`Probe::verify`] → [`Probe::login`] → [`Probe::listen`], and
//! [`Probe::end`], which gives everything back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::connect::{Connection, connect, resolve};
use crate::destination::{Destination, Server};
use crate::events::{Event, Events};
use crate::failure::{Failure, FailureKind, os_words};
use crate::forward::{Forward, LocalTarget};
use crate::host_keys::{FileError, HostKeys, Rewritten, Trusted};
use crate::identity::Identity;
use crate::limits::{
    BANNER_BYTES, BANNER_TIMEOUT, CONNECT_TIMEOUT, LEAST_BUFFER_BYTES, PROBE_TIMEOUT, REACH_TIMEOUT,
    RESOLVE_TIMEOUT, VERSION_CHARACTERS,
};
use crate::local_service::{self, OwnListeners};
use crate::meter::Meter;
use crate::route::{Peer, Route};
use crate::ssh::{Session, SessionSettings};
use crate::traffic::Traffic;

pub use crate::ssh::{CommandOutput, Question};

/// The addresses that a route to this server leads to: its own, or the proxy's.
///
/// # Errors
/// The name doesn't resolve, or not within [`RESOLVE_TIMEOUT`].
pub async fn addresses(server: &Server, route: &Route) -> Result<Vec<SocketAddr>, Failure> {
    let found = match timeout(RESOLVE_TIMEOUT, resolve(server, route)).await {
        Ok(found) => found?,
        Err(_) => {
            let text =
                format!("DNS can't resolve {}: no answer in {} s", server.host(), RESOLVE_TIMEOUT.as_secs());
            return Err(Failure::new(FailureKind::Dns, text));
        }
    };
    if found.is_empty() {
        return Err(Failure::new(FailureKind::Dns, format!("DNS knows no address of {}", server.host())));
    }
    Ok(found)
}

/// Is there anybody at this address and port?
///
/// # Errors
/// Nobody answers, or not within this time.
pub async fn answers(address: SocketAddr, limit: Duration) -> Result<(), Failure> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(
            FailureKind::Tcp,
            format!("no TCP connection to {address}: {}", os_words(&error)),
        )),
        Err(_) => {
            let text = format!("no TCP connection to {address} in {} s", limit.as_secs());
            Err(Failure::new(FailureKind::Tcp, text))
        }
    }
}

/// Does a local service accept connections? It is asked as a tunnel asks it, and hung up on.
///
/// # Errors
/// It doesn't; why, in words.
pub async fn local_service(target: &LocalTarget) -> Result<(), String> {
    let connected = local_service::connect(target, &OwnListeners::default()).await;
    connected.map(drop).map_err(|error| error.to_string())
}

/// A connection on which nothing has been said yet.
pub struct Reached(Connection);

/// An SSH connection whose server has proved its host key. Dropping it ends it at once.
pub struct Probe {
    session: Session,
    settings: Arc<SessionSettings>,
    arrived: Arc<Notify>,
}

/// Whether a port that the server was asked for can be reached from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A connection to it came back to us.
    Ours,
    /// Something answers there, and it isn't ours.
    Other,
    /// Nobody answers there.
    Nobody,
}

impl Reached {
    /// Tries the ways of a route in turn, until one of them leads to a server.
    ///
    /// # Errors
    /// None does, each within [`CONNECT_TIMEOUT`]; the failure is the last one's.
    pub async fn connect(server: &Server, route: &Route, addresses: &[SocketAddr]) -> Result<Self, Failure> {
        let mut last = Failure::new(FailureKind::Dns, format!("{server} has no address"));
        for way in route.ways(server.port(), addresses, None) {
            let connecting = connect(server.host(), way, route, CONNECT_TIMEOUT);
            last = match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => return Ok(Self(connection)),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let peer = route.peer(server.host(), way);
                    let text = format!("no connection to {peer} in {} s", CONNECT_TIMEOUT.as_secs());
                    Failure::new(FailureKind::Tcp, text)
                }
            };
        }
        Err(last)
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// What the server calls itself, such as `SSH-2.0-OpenSSH_9.2` (RFC 4253, 4.2). It has any kind of
    /// characters, at most [`VERSION_CHARACTERS`].
    ///
    /// # Errors
    /// It says nothing within [`BANNER_TIMEOUT`], or something else.
    pub async fn banner(&mut self) -> Result<String, Failure> {
        let peer = self.0.peer.clone();
        let failure = |what: &str| Failure::new(FailureKind::Handshake, format!("{peer} {what}"));
        let reading = async {
            loop {
                if let Some(line) = version_line(&self.0.early) {
                    return Ok(line);
                }
                if self.0.early.len() >= BANNER_BYTES {
                    return Err(failure("doesn't answer as an SSH server"));
                }
                match self.0.stream.read_buf(&mut self.0.early).await {
                    Ok(0) if self.0.early.is_empty() => {
                        return Err(failure("closed the connection without a word"));
                    }
                    Ok(0) => return Err(failure("doesn't answer as an SSH server")),
                    Ok(_) => {}
                    Err(error) => {
                        return Err(failure(&format!("broke the connection: {}", os_words(&error))));
                    }
                }
            }
        };
        match timeout(BANNER_TIMEOUT, reading).await {
            Ok(result) => result,
            Err(_) => {
                let what = format!("hasn't said in {} s that it is an SSH server", BANNER_TIMEOUT.as_secs());
                Err(failure(&what))
            }
        }
    }
}

impl Probe {
    /// Exchanges keys and judges the server's host key. Nothing of ours is sent to a server whose key isn't trusted.
    ///
    /// # Errors
    /// The server isn't trusted, or doesn't speak SSH as we do.
    pub async fn verify(
        reached: Reached,
        destination: &Destination,
        host_keys: Arc<HostKeys>,
    ) -> Result<Self, Failure> {
        let arrived = Arc::new(Notify::new());
        let bell = arrived.clone();
        let events = Events::new(move |event| {
            if let Event::Connection(_) = event {
                bell.notify_one();
            }
        });
        let settings = Arc::new(SessionSettings {
            destination: destination.clone(),
            host_keys,
            keepalive_interval: PROBE_TIMEOUT,
            keepalive_max: 10,
            // Whoever connects is refused.
            max_connections: 0,
            buffer_bytes: LEAST_BUFFER_BYTES,
            own_listeners: OwnListeners::default(),
            traffic: Arc::new(Traffic::new(Arc::new(Meter::default()))),
            events,
        });
        let session = within("the key exchange", Session::verify(reached.0, settings.clone())).await?;
        Ok(Self { session, settings, arrived })
    }

    /// The server's host key, and why it is trusted.
    #[must_use]
    pub fn trusted(&self) -> &Trusted {
        self.session.trusted()
    }

    /// Learns that host key, because a person has said that it is right.
    ///
    /// # Errors
    /// The file can't be written, or is full.
    pub fn trust(&self) -> Result<Rewritten, FileError> {
        let server = self.settings.destination.server();
        self.settings.host_keys.trust(server, std::slice::from_ref(self.session.host_key()))
    }

    /// Logs in with one of our keys, and gives the fingerprint of the one that was taken.
    ///
    /// # Errors
    /// The server takes none of them.
    pub async fn login(&mut self, identities: &[Identity]) -> Result<String, Failure> {
        let user = self.settings.destination.user().to_owned();
        within("the login", self.session.authenticate(&user, identities)).await
    }

    /// Logs in with what a person answers; `None` from `ask` gives up. What is asked takes as long as it takes.
    ///
    /// # Errors
    /// The server refuses the answers, or asks nobody for anything.
    pub async fn login_by_password(
        &mut self,
        ask: &mut impl AsyncFnMut(Question) -> Option<Zeroizing<String>>,
    ) -> Result<(), Failure> {
        let user = self.settings.destination.user().to_owned();
        self.session.authenticate_by_password(&user, ask).await
    }

    /// Asks the server to listen; gives the forward with the port that it chose, where it was asked to choose.
    ///
    /// # Errors
    /// It refuses.
    pub async fn listen(&mut self, forward: &Forward) -> Result<Forward, Failure> {
        let port = within("the forward", self.session.listen(forward)).await?;
        Ok(Forward { remote: forward.remote.with_port(port), local: forward.local.clone() })
    }

    /// Asks the server not to listen there any more.
    ///
    /// # Errors
    /// It refuses.
    pub async fn stop_listening(&mut self, forward: &Forward) -> Result<(), Failure> {
        within("the end of the forward", self.session.stop_listening(forward)).await
    }

    /// Connects to an address where a forward may be listening for all the world, and looks whether that comes back to us.
    pub async fn reach(&self, address: SocketAddr) -> Reach {
        let Ok(Ok(_stream)) = timeout(REACH_TIMEOUT, TcpStream::connect(address)).await else {
            return Reach::Nobody;
        };
        match timeout(REACH_TIMEOUT, self.arrived.notified()).await {
            Ok(()) => Reach::Ours,
            Err(_) => Reach::Other,
        }
    }

    /// Runs a command of ours on the server; see [`CommandOutput`]. The account's shell interprets it, which is why it is
    /// part of the program; `input` may hold anything.
    ///
    /// # Errors
    /// The connection is lost, or it takes too long.
    pub async fn run(&mut self, command: &'static str, input: &[u8]) -> Result<CommandOutput, Failure> {
        within("the command", self.session.run(command, input)).await
    }

    /// Says goodbye and waits for the server to give our ports back; at most two seconds.
    pub async fn end(self) {
        self.session.disconnect().await;
    }
}

async fn within<T>(step: &str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match timeout(PROBE_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!("the server stopped answering: {step} took {} s", PROBE_TIMEOUT.as_secs());
            Err(Failure::new(FailureKind::Lost, text))
        }
    }
}

/// The first whole line that is a version's, cut to the length that it may have.
pub(crate) fn version_line(said: &[u8]) -> Option<String> {
    let line = said.split_inclusive(|byte| *byte == b'\n').find(|line| line.starts_with(b"SSH-"))?;
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Some(String::from_utf8_lossy(line).chars().take(VERSION_CHARACTERS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_behind_other_lines_and_once_it_is_whole() {
        for (said, line) in [
            (&b"SSH-2.0-dropbear_2022.83\r\n"[..], Some("SSH-2.0-dropbear_2022.83")),
            (b"Welcome to SSH-land\r\nSSH-2.0-x\r\n\0\0\x01", Some("SSH-2.0-x")),
            (b"SSH-2.0-old\n", Some("SSH-2.0-old")),
            (b"SSH-2.0-hal", None),
            (b"HTTP/1.1 400 Bad Request\r\n", None),
            (b"", None),
        ] {
            assert_eq!(version_line(said).as_deref(), line);
        }
    }
}
