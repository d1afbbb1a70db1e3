//! The local service that a forward names: resolved, judged and connected to.
//!
//! Whoever reaches a published port must not reach this process itself through it, such as a web console that trusts
//! connections of this host. So each connection's target is resolved here, judged address by address, and the very
//! address that was judged is connected to.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::destination::Host;
use crate::forward::LocalTarget;
use crate::limits::{ADDRESSES, LOCAL_CONNECT_TIMEOUT, UNSENT};

/// The addresses that this process listens on itself. Clones share one set.
#[derive(Clone, Debug, Default)]
pub struct OwnListeners(Arc<RwLock<Vec<SocketAddr>>>);

/// Why a local service can't be reached.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Every address of it is this process's own.
    Forbidden(SocketAddr),
    /// The name has no address, or no address answers.
    Unreachable(io::Error),
}

impl OwnListeners {
    /// No forward reaches this address from now on. A wildcard address stands for every address of this host.
    pub fn add(&self, listener: SocketAddr) {
        let mut listeners = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !listeners.contains(&listener) {
            listeners.push(listener);
        }
    }

    /// Nothing of this process listens there any more.
    pub fn remove(&self, listener: SocketAddr) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|known| *known != listener);
    }

    /// Would a connection to this address end in this process?
    fn contains(&self, target: SocketAddr) -> bool {
        let listeners = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let target_ip = reached(target.ip());
        listeners.iter().filter(|listener| listener.port() == target.port()).any(|listener| {
            let listener_ip = listener.ip().to_canonical();
            // A wildcard of either family: `::` takes IPv4 as well.
            if listener_ip.is_unspecified() { is_of_this_host(target) } else { listener_ip == target_ip }
        })
    }
}

/// The address that a connection to this one goes to: Linux takes a wildcard for the loopback, and a mapped address for
/// the one that it holds.
fn reached(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// The kernel lets a socket be bound to an address of this host and to no other (unless `ip_nonlocal_bind` is set; then
/// all addresses count as this host's, which only forbids more).
fn is_of_this_host(target: SocketAddr) -> bool {
    let mut address = target;
    address.set_ip(reached(target.ip()));
    address.set_port(0);
    address.ip().is_loopback() || UdpSocket::bind(address).is_ok()
}

/// Connects to the first address of the target that isn't ours and answers.
pub(crate) async fn connect(target: &LocalTarget, own: &OwnListeners) -> Result<TcpStream, ConnectError> {
    let end = Instant::now() + LOCAL_CONNECT_TIMEOUT;
    let resolved = timeout(LOCAL_CONNECT_TIMEOUT, resolve(target)).await;
    let addresses = resolved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connect_to_first(&addresses.map_err(ConnectError::Unreachable)?, own, end).await
}

async fn resolve(target: &LocalTarget) -> io::Result<Vec<SocketAddr>> {
    match &target.host {
        Host::Name(name) => {
            Ok(tokio::net::lookup_host((&**name, target.port)).await?.take(ADDRESSES).collect())
        }
        Host::V4(address) => Ok(vec![(*address, target.port).into()]),
        Host::V6(address) => Ok(vec![(*address, target.port).into()]),
    }
}

async fn connect_to_first(
    addresses: &[SocketAddr],
    own: &OwnListeners,
    end: Instant,
) -> Result<TcpStream, ConnectError> {
    let permitted: Vec<SocketAddr> =
        addresses.iter().copied().filter(|address| !own.contains(*address)).collect();
    if let (Some(forbidden), []) = (addresses.first(), permitted.as_slice()) {
        return Err(ConnectError::Forbidden(*forbidden));
    }
    let mut last = io::Error::other("the name has no address");
    for (address, left) in permitted.iter().zip((1..=permitted.len()).rev()) {
        // One that stays silent leaves the others their share of the time.
        let share = end.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(*address)).await {
            Ok(Ok(stream)) => match prepare(&stream) {
                Ok(()) => return Ok(stream),
                Err(error) => last = error,
            },
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(ConnectError::Unreachable(last))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(address) => write!(f, "{address} is this process's own"),
            Self::Unreachable(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn target(text: &str) -> LocalTarget {
        text.parse().unwrap()
    }

    /// A service that says its name, and its port.
    async fn service(bind: &str, name: &'static str) -> u16 {
        let listener = TcpListener::bind(bind).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(name.as_bytes()).await;
            }
        });
        port
    }

    /// An address of this host besides the loopback, if it has one.
    fn of_this_host() -> Option<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        // Nothing is sent: the kernel only picks the address that it would send from.
        socket.connect("192.0.2.1:9").ok()?;
        socket
            .local_addr()
            .ok()
            .map(|address| address.ip())
            .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    }

    #[tokio::test]
    async fn our_own_listener_is_reached_by_none_of_its_addresses() {
        let port = service("127.0.0.1:0", "own").await;
        let own = OwnListeners::default();
        let spellings = ["127.0.0.1", "0.0.0.0", "localhost", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"];
        for host in spellings {
            let target = target(&format!("{host}:{port}"));
            assert!(connect(&target, &own).await.is_ok(), "{host} reaches it while it isn't registered");
        }
        own.add(SocketAddr::from(([127, 0, 0, 1], port)));
        for host in spellings {
            let target = target(&format!("{host}:{port}"));
            let result = connect(&target, &own).await;
            let refused = match host {
                // ::1 is another address, on which nothing listens here.
                "localhost" => result.is_err(),
                _ => matches!(result, Err(ConnectError::Forbidden(_))),
            };
            assert!(refused, "{host}");
        }
        own.remove(SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(connect(&target(&format!("127.0.0.1:{port}")), &own).await.is_ok());
    }

    #[tokio::test]
    async fn a_listener_on_a_wildcard_has_every_address_of_this_host() {
        let port = service("127.0.0.1:0", "own").await;
        for wildcard in ["0.0.0.0", "::"] {
            let own = OwnListeners::default();
            own.add(SocketAddr::new(wildcard.parse().unwrap(), port));
            let mut hosts = ["127.0.0.1", "127.1.2.3", "[::1]", "[::]", "0.0.0.0", "[::ffff:127.0.0.1]"]
                .map(String::from)
                .to_vec();
            hosts.extend(of_this_host().map(|address| address.to_string()));
            for host in hosts {
                let result = connect(&target(&format!("{host}:{port}")), &own).await;
                assert!(matches!(result, Err(ConnectError::Forbidden(_))), "{host} with {wildcard}");
            }
            assert!(!own.contains(SocketAddr::from(([192, 0, 2, 1], port))), "another host's");
            assert!(!own.contains(SocketAddr::from(([127, 0, 0, 1], port ^ 1))), "another port");
        }
    }

    #[tokio::test]
    async fn of_several_addresses_the_permitted_ones_are_tried_in_turn() {
        let (own_port, other) = (service("127.0.0.1:0", "own").await, service("127.0.0.1:0", "other").await);
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let own = OwnListeners::default();
        own.add(SocketAddr::from(([127, 0, 0, 1], own_port)));
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let end = || Instant::now() + LOCAL_CONNECT_TIMEOUT;
        let addresses = [address(own_port), dead, address(other)];
        let mut stream = connect_to_first(&addresses, &own, end()).await.unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"other");
        let unreachable = connect_to_first(&[address(own_port), dead], &own, end()).await;
        assert!(matches!(unreachable, Err(ConnectError::Unreachable(_))));
        let none = connect_to_first(&[], &own, end()).await;
        assert!(matches!(none, Err(ConnectError::Unreachable(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_stays_silent_leaves_time_for_the_next() {
        let port = service("127.0.0.1:0", "other").await;
        // A full backlog: the kernel answers no further SYN.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let _held: Vec<_> = (0..3)
            .map(|_| std::net::TcpStream::connect_timeout(&silent, std::time::Duration::from_millis(50)))
            .collect();
        let end = Instant::now() + LOCAL_CONNECT_TIMEOUT;
        let addresses = [silent, SocketAddr::from(([127, 0, 0, 1], port))];
        assert!(connect_to_first(&addresses, &OwnListeners::default(), end).await.is_ok());
    }
}
