//! The latency, with every client's tunnel up at once: a block of messages through each, in turn, again and again.
//!
//! A message takes a fraction of a millisecond, and what else the machine does meanwhile changes that more than the
//! clients differ. It hits neighbouring blocks alike, so that the ratio of two blocks of one turn says more than that of
//! two medians.

use ocpp_tunnel_tests::sshd::Sshd;

use crate::client::{Client, Tunnel};
use crate::load::{self, LoadService};

/// Messages in a block.
const BLOCK: usize = 500;

/// Blocks through each client for each of the benchmark's rounds.
pub(crate) const TURNS: usize = 10;

/// What one block took, in microseconds a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// There and back, median.
    pub(crate) time: f64,
    /// Of the client's CPU, on average.
    pub(crate) client_cpu: f64,
}

/// The blocks of each client, in the order of [`Client::ALL`]; those of the same place were measured in the same turn.
pub(crate) async fn measure(servers: &[Sshd], service: &LoadService, rounds: usize) -> Vec<Vec<Block>> {
    let mut tunnels = Vec::new();
    for (client, server) in Client::ALL.into_iter().zip(servers) {
        tunnels.push(Tunnel::open(client, server, service.address()).await);
    }
    let mut blocks = vec![Vec::new(); tunnels.len()];
    for turn in 0..=rounds * TURNS {
        for (tunnel, blocks) in tunnels.iter().zip(&mut blocks) {
            let before = load::cpu_seconds(tunnel.pid);
            let time = load::echo(tunnel.port, BLOCK).await.expect("the tunnel stays up");
            let client_cpu = (load::cpu_seconds(tunnel.pid) - before) * 1e6 / BLOCK as f64;
            // The first turn warms up.
            if turn > 0 {
                blocks.push(Block { time, client_cpu });
            }
        }
    }
    blocks
}
