//! A TCP connection to the server. Where there is none, a look at the ports that every firewall lets out.

use std::net::SocketAddr;

use reverse_tunnel::probe::{Reached, answers};
use reverse_tunnel::{FailureKind, Route, Server};

use super::server::problem;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::limits::CHECK_PORT;

/// HTTP's and HTTPS's.
const USUAL_PORTS: [u16; 2] = [80, 443];

pub(super) async fn look(
    server: &Server,
    route: &Route,
    addresses: &[SocketAddr],
) -> Result<(Reached, String), Problem> {
    let failure = match Reached::connect(server, route, addresses).await {
        Ok(reached) => {
            let text = format!("connected to {}", reached.peer());
            return Ok((reached, text));
        }
        Err(failure) => failure,
    };
    let plain = problem(&failure, server);
    let (FailureKind::Tcp, None, Some(address)) = (failure.kind, &route.proxy, addresses.first()) else {
        return Err(plain);
    };
    let at = |port| SocketAddr::new(address.ip(), port);
    let [first, second] = USUAL_PORTS;
    let (http, https) = tokio::join!(answers(at(first), CHECK_PORT), answers(at(second), CHECK_PORT));
    let open = match (http.is_ok(), https.is_ok()) {
        (false, false) => {
            return Err(Problem {
                text: format!("{failure}; ports 80 and 443 don't answer there either"),
                ..plain
            });
        }
        (true, true) => "80 and 443",
        (true, false) => "80",
        (false, true) => "443",
    };
    let cure = format!(
        "the server is there: check its port, or let the site's firewall open {}; or let sshd listen on 443 as well, and set \
         ssh.alternative_ports = [\"{}:443\"]",
        server.port(),
        server.host()
    );
    Err(Problem::new(Exit::Network, format!("{failure}; but it answers on {open}"), cure))
}
