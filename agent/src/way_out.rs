//! How tunnels get out of the site: which other ports of a server are tried, and the HTTP proxy.
//!
//! It comes after the policy: the allow-list judges the destination as it was asked for, and the host key is looked up
//! under that name and port, whichever port answers.

use std::str::FromStr;
use std::sync::Arc;

use reverse_tunnel::destination::{DestinationError, parse_port, split_host};
use reverse_tunnel::{Host, Proxy, Route};

use crate::config::Ssh;
use crate::policy::HostPattern;
use crate::proxy::{ProxyFileError, with_credentials};

/// One entry of `ssh.alternative_ports`: `host:port`, with the allow-list's wildcards in the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlternativePort {
    host: HostPattern,
    port: u16,
}

/// All ways out of this site.
#[derive(Clone, Debug, Default)]
pub struct WayOut {
    alternative_ports: Vec<AlternativePort>,
    proxy: Option<Arc<Proxy>>,
}

impl WayOut {
    /// What the configuration says, with the proxy's user and password read from their file.
    ///
    /// # Errors
    /// That file can't be used.
    pub fn new(ssh: &Ssh) -> Result<Self, ProxyFileError> {
        let proxy = with_credentials(&ssh.proxy, "ssh.proxy_authorization_file")?;
        Ok(Self { alternative_ports: ssh.alternative_ports.clone(), proxy: proxy.map(Arc::new) })
    }

    /// The way to this server.
    #[must_use]
    pub fn route(&self, host: &Host) -> Route {
        let matching = self.alternative_ports.iter().filter(|other| other.host.matches(host));
        Route { alternative_ports: matching.map(|other| other.port).collect(), proxy: self.proxy.clone() }
    }
}

impl FromStr for AlternativePort {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (host, port) = split_host(text);
        let position = host.chars().count() + 1;
        let port = port.strip_prefix(':').and_then(parse_port).ok_or(DestinationError::Port { position })?;
        Ok(Self { host: HostPattern::parse(host, 1)?, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(entries: &[&str], destination: &str) -> Vec<u16> {
        let alternative_ports = entries.iter().map(|entry| entry.parse().unwrap()).collect();
        let way_out = WayOut { alternative_ports, proxy: None };
        way_out.route(destination.parse::<reverse_tunnel::Destination>().unwrap().host()).alternative_ports
    }

    #[test]
    fn the_entries_that_match_are_tried_in_their_order() {
        let entries = ["gw.example.com:8443", "*.example.com:443", "[2001:db8::1]:443", "*:2222"];
        for (destination, expected) in [
            ("u@gw.example.com", vec![8443, 443, 2222]),
            ("u@gw.example.com:8022", vec![8443, 443, 2222]),
            ("u@other.example.com", vec![443, 2222]),
            ("u@example.com", vec![2222]),
            ("u@[2001:db8::1]", vec![443, 2222]),
            ("u@203.0.113.7", vec![2222]),
        ] {
            assert_eq!(ports(&entries, destination), expected, "{destination}");
        }
        assert!(ports(&[], "u@gw").is_empty());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "443", "host", "host:", "host:0", "host:*", ":443", "u@host:443", "h*st:443", "[::1:443"]
        {
            assert!(text.parse::<AlternativePort>().is_err(), "{text:?}");
        }
    }
}
