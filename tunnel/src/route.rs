//! How a server is reached: on which of its ports, and through which proxy.
//!
//! A route changes where packets go, and nothing about who is trusted: whichever port answers, and whoever passes the
//! bytes on, the server proves the host key of the destination as it was asked for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::destination::Host;
use crate::limits::{ADDRESSES, ALTERNATIVE_PORTS};
use http_connect::Proxy;

/// How to reach a destination. The default is straight, on its own port.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Ports of the same server that are tried after the destination's own; those beyond [`ALTERNATIVE_PORTS`] are not.
    pub alternative_ports: Vec<u16>,
    /// Who connects for us; it resolves the server's name as well.
    pub proxy: Option<Arc<Proxy>>,
}

/// One thing to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where the TCP connection goes: the server, or the proxy.
    pub address: SocketAddr,
    /// The server's port.
    pub port: u16,
}

/// The other end of a tunnel's connection, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The server's address and port; behind a proxy its name and port, since only the proxy knows the address.
    pub server: String,
    /// The proxy's address and port.
    pub proxy: Option<SocketAddr>,
}

impl Route {
    /// All ways to a destination: each port on every address before the next port. What worked last comes first, and
    /// then its port on other addresses, since a firewall that swallows a port swallows it everywhere.
    ///
    /// `addresses` are the server's, or the proxy's if there is one.
    #[must_use]
    pub fn ways(&self, own_port: u16, addresses: &[SocketAddr], last_good: Option<Way>) -> Vec<Way> {
        let mut ports = vec![own_port];
        for port in self.alternative_ports.iter().take(ALTERNATIVE_PORTS) {
            if !ports.contains(port) {
                ports.push(*port);
            }
        }
        let addresses = addresses.get(..ADDRESSES).unwrap_or(addresses);
        let way = |port: u16, address: SocketAddr| match self.proxy {
            Some(_) => Way { address, port },
            None => Way { address: SocketAddr::new(address.ip(), port), port },
        };
        let mut ways: Vec<Way> =
            ports.iter().flat_map(|port| addresses.iter().map(|address| way(*port, *address))).collect();
        if let Some(good) = last_good {
            ways.sort_by_key(|way| (*way != good, way.port != good.port));
        }
        ways
    }

    /// The other end of this way.
    #[must_use]
    pub fn peer(&self, host: &Host, way: Way) -> Peer {
        match self.proxy {
            Some(_) => Peer { server: format!("{host}:{}", way.port), proxy: Some(way.address) },
            None => Peer { server: way.address.to_string(), proxy: None },
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proxy {
            Some(proxy) => write!(f, "{} through the proxy {proxy}", self.server),
            None => f.write_str(&self.server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> [SocketAddr; 2] {
        [SocketAddr::from(([192, 0, 2, 1], 22)), SocketAddr::from(([192, 0, 2, 2], 22))]
    }

    fn shown(ways: &[Way]) -> Vec<String> {
        ways.iter().map(|way| format!("{} {}", way.address, way.port)).collect()
    }

    #[test]
    fn each_port_is_tried_on_every_address_before_the_next_port() {
        let route = Route { alternative_ports: vec![443, 22, 443], proxy: None };
        assert_eq!(
            shown(&route.ways(22, &addresses(), None)),
            ["192.0.2.1:22 22", "192.0.2.2:22 22", "192.0.2.1:443 443", "192.0.2.2:443 443"]
        );
    }

    #[test]
    fn what_worked_last_comes_first_and_its_port_on_new_addresses_next() {
        let route = Route { alternative_ports: vec![443], proxy: None };
        let good = Way { address: SocketAddr::from(([192, 0, 2, 2], 443)), port: 443 };
        assert_eq!(
            shown(&route.ways(22, &addresses(), Some(good))),
            ["192.0.2.2:443 443", "192.0.2.1:443 443", "192.0.2.1:22 22", "192.0.2.2:22 22"]
        );
        let gone = Way { address: SocketAddr::from(([192, 0, 2, 9], 443)), port: 443 };
        assert_eq!(route.ways(22, &addresses(), Some(gone)).first().map(|way| way.port), Some(443));
    }

    #[test]
    fn behind_a_proxy_every_port_is_asked_for_at_the_proxys_address() {
        let proxy: Proxy = "http://proxy.example:3128".parse().unwrap();
        let route = Route { alternative_ports: vec![443], proxy: Some(Arc::new(proxy)) };
        let proxy_address = [SocketAddr::from(([10, 0, 0, 1], 3128))];
        let ways = route.ways(22, &proxy_address, None);
        assert_eq!(shown(&ways), ["10.0.0.1:3128 22", "10.0.0.1:3128 443"]);
        let peer = route.peer(&"gw.example".parse().unwrap(), ways[1]);
        assert_eq!(peer.to_string(), "gw.example:443 through the proxy 10.0.0.1:3128");
    }

    #[test]
    fn a_name_with_too_many_addresses_has_its_first_ones_tried() {
        let many: Vec<SocketAddr> = (0..100).map(|last| SocketAddr::from(([192, 0, 2, last], 22))).collect();
        let route = Route { alternative_ports: (1000..1100).collect(), proxy: None };
        assert_eq!(route.ways(22, &many, None).len(), ADDRESSES * (1 + ALTERNATIVE_PORTS));
    }
}
