//! From a route to a connection on which the server is about to speak: names, TCP, and the proxy where there is one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::destination::{Host, Server};
use crate::failure::{Failure, FailureKind, os_words};
use crate::route::{Peer, Route, Way};

/// A connection on which the server is about to speak.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// What it has said already.
    pub(crate) early: Vec<u8>,
    /// Who it is, for people.
    pub(crate) peer: Peer,
}

/// The addresses that the ways of this route lead to: the server's, or the proxy's.
pub(crate) async fn resolve(server: &Server, route: &Route) -> Result<Vec<SocketAddr>, Failure> {
    if let Some(proxy) = &route.proxy {
        return match proxy.address() {
            Some(address) => Ok(vec![(address, proxy.port()).into()]),
            None => lookup(&proxy.host(), proxy.port())
                .await
                .map_err(|why| Failure::new(FailureKind::Proxy, format!("the proxy: {why}"))),
        };
    }
    match server.host() {
        Host::V4(address) => Ok(vec![(*address, server.port()).into()]),
        Host::V6(address) => Ok(vec![(*address, server.port()).into()]),
        Host::Name(name) => {
            lookup(name, server.port()).await.map_err(|why| Failure::new(FailureKind::Dns, why))
        }
    }
}

async fn lookup(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match tokio::net::lookup_host((name, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(format!("DNS can't resolve {name}: {}", resolver_words(&error))),
    }
}

/// The resolver's own words, without the standard library's frame around them.
fn resolver_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_lowercase()
}

/// Goes one way to a server. A peer that takes nothing of what is sent for `dead_after` ends the connection.
pub(crate) async fn connect(
    host: &Host,
    way: Way,
    route: &Route,
    dead_after: Duration,
) -> Result<Connection, Failure> {
    let (kind, to) = match &route.proxy {
        Some(_) => (FailureKind::Proxy, "the proxy "),
        None => (FailureKind::Tcp, ""),
    };
    let failure = |error: &dyn fmt::Display| {
        Failure::new(kind, format!("no TCP connection to {to}{}: {error}", way.address))
    };
    let mut stream = TcpStream::connect(way.address).await.map_err(|error| failure(&os_words(&error)))?;
    stream.set_nodelay(true).map_err(|error| failure(&error))?;
    // A peer that vanished while bytes are under way would otherwise hold the socket for a quarter of an hour.
    SockRef::from(&stream).set_tcp_user_timeout(Some(dead_after)).map_err(|error| failure(&error))?;
    let early = match &route.proxy {
        Some(proxy) => proxy.connect(&mut stream, &format!("{host}:{}", way.port)).await?,
        None => Vec::new(),
    };
    Ok(Connection { stream, early, peer: route.peer(host, way) })
}
