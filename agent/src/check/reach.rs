//! Where the server really listens: with sshd's `GatewayPorts yes`, a port that was asked for on its loopback is open to
//! everybody, and with `no`, the default, one that was asked for everywhere is on the loopback only. Neither is told to us,
//! so the port is connected to from here, at the address that the server was reached at.

use std::net::{IpAddr, SocketAddr};

use reverse_tunnel::probe::Reach;
use reverse_tunnel::{Forward, Peer, Probe, Remote};

use super::report::{Report, Step};
use crate::control::protocol::Problem;
use crate::exit::Exit;

/// `held` are ports that a tunnel of the running agent has: a connection to one of those would be handed to a local service.
pub(super) async fn look(
    report: &mut Report<'_>,
    peer: &Peer,
    probe: &Probe,
    listening: &[Forward],
    held: bool,
) {
    if listening.is_empty() {
        return report.skip(
            Step::Reach,
            match held {
                true => "the running tunnel has the ports; it can be looked at while that is closed",
                false => "the server listens for none of our ports now",
            },
        );
    }
    let address = match (peer.proxy, peer.server.parse::<SocketAddr>()) {
        (None, Ok(address)) if !address.ip().is_loopback() => address.ip(),
        (None, Ok(_)) => {
            return report
                .skip(Step::Reach, "the server is this device, and can't be looked at from outside");
        }
        _ => return report.skip(Step::Reach, "the server's address is known to the proxy only"),
    };
    for forward in listening {
        look_at(report, address, probe, forward).await;
    }
}

async fn look_at(report: &mut Report<'_>, address: IpAddr, probe: &Probe, forward: &Forward) {
    let Remote::Tcp { bind, port } = &forward.remote else { return };
    let (remote, at) = (&forward.remote, SocketAddr::new(address, *port));
    match wanted(bind) {
        Wanted::Loopback => {
            let look = async {
                match probe.reach(at).await {
                    Reach::Ours => Err(exposed(remote, at)),
                    Reach::Nobody | Reach::Other => {
                        Ok(((), format!("{remote} is not open to others: nothing of ours answers at {at}")))
                    }
                }
            };
            report.step(Step::Reach, look).await;
        }
        Wanted::Everywhere => match probe.reach(at).await {
            Reach::Ours => {
                let look = async { Ok(((), format!("{remote} answers at {at}"))) };
                report.step(Step::Reach, look).await;
            }
            Reach::Nobody | Reach::Other => report.unknown(
                Step::Reach,
                format!(
                    "{remote} can't be reached from here at {at}: either sshd's GatewayPorts is no, or a firewall is in between"
                ),
            ),
        },
        Wanted::Somewhere => {
            report.skip(Step::Reach, &format!("only the server knows whether {bind} can be reached"));
        }
    }
}

fn exposed(remote: &Remote, at: SocketAddr) -> Problem {
    Problem::new(
        Exit::Forward,
        format!("{remote} is open to everybody who reaches the server: it answers at {at}"),
        "set GatewayPorts to no or clientspecified in the server's sshd_config",
    )
}

enum Wanted {
    Loopback,
    Everywhere,
    /// At an address that may be of a network which we don't see.
    Somewhere,
}

/// What a bind address asks for (RFC 4254, 7.1).
fn wanted(bind: &str) -> Wanted {
    match (bind, bind.parse::<IpAddr>()) {
        ("localhost", _) => Wanted::Loopback,
        ("" | "*", _) => Wanted::Everywhere,
        (_, Ok(address)) if address.is_loopback() => Wanted::Loopback,
        (_, Ok(address)) if address.is_unspecified() => Wanted::Everywhere,
        _ => Wanted::Somewhere,
    }
}
