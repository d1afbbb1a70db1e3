//! The server's name, or the proxy's that resolves it for us.

use std::net::SocketAddr;

use reverse_tunnel::{Host, Route, Server, probe};

use super::server::problem;
use crate::control::protocol::Problem;

pub(super) async fn look(server: &Server, route: &Route) -> Result<(Vec<SocketAddr>, String), Problem> {
    let addresses = probe::addresses(server, route).await.map_err(|failure| problem(&failure, server))?;
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let text = match (&route.proxy, server.host()) {
        (Some(proxy), _) => {
            format!("the proxy {proxy} resolves {}; it is at {}", server.host(), shown.join(", "))
        }
        (None, Host::Name(name)) => format!("{name} is {}", shown.join(", ")),
        (None, _) => format!("{} is an address", server.host()),
    };
    Ok((addresses, text))
}
