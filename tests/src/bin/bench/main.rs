//! The benchmark: our agent beside `ssh -R` and `dbclient -R`, against one `sshd`, in one run.
//!
//!     cargo build --release -p ocpp-tunnel -p ocpp-tunnel-tests --bin ocpp-tunnel --bin bench
//!     target/release/bench
//!
//! First the latency of all clients in turn, with all tunnels up. Then each round measures every client once, so that what else the machine does hits all of them. Printed are medians and
//! what they say of the bars, as Markdown. Figures of different runs can't be compared, and the bars aren't tests.
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers, which prints its results and ends at the first failure"
)]

mod client;
mod echo;
mod load;
mod report;

use std::time::Duration;

use client::{Client, Tunnel};
use load::{Cost, LoadService, Way};
use ocpp_tunnel_tests::sshd::Sshd;

const USAGE: &str = "usage: bench [--rounds N] [--megabytes N] [--echo]   (--echo: nothing but the latency)";

/// Connections at once, where many are measured.
const MANY: u64 = 64;

/// Connections for their rate.
const OPENINGS: usize = 400;

/// What one client did in one round.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Milliseconds.
    opened_in: f64,
    /// Megabytes.
    idle_resident: f64,
    idle_private: f64,
    connections_per_second: f64,
    /// Over one connection, and over many.
    to_device: [Cost; 2],
    from_device: [Cost; 2],
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Arguments { rounds, megabytes, only_echo } = arguments().unwrap_or_else(|| panic!("{USAGE}"));
    let service = LoadService::start().await.expect("a port is free");
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); Client::ALL.len()];
    let mut servers = Vec::new();
    for client in Client::ALL {
        // The server decides the cipher, since our agent and dbclient can't be told; and it logs no packets.
        let settings = format!("Ciphers {}\nLogLevel INFO\nMaxSessions 100\n", client.cipher());
        servers.push(Sshd::start_with(&settings).await);
    }
    let echoes = echo::measure(&servers, &service, rounds).await;
    for round in 1..=if only_echo { 0 } else { rounds } {
        for ((client, server), samples) in Client::ALL.into_iter().zip(&servers).zip(&mut samples) {
            eprintln!("round {round} of {rounds}: {}", client.name());
            let bytes = client.share(megabytes * 1_000_000);
            samples.push(measure(client, server, service.address(), bytes).await);
        }
    }
    report::print(&samples, &echoes, rounds, megabytes);
}

async fn measure(client: Client, sshd: &Sshd, service: &str, bytes: u64) -> Sample {
    let tunnel = Tunnel::open(client, sshd, service).await;
    // What the client does after coming up is not load.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (idle_resident, idle_private) = (load::resident_memory(tunnel.pid), load::private_memory(tunnel.pid));
    let connections_per_second = load::connections(tunnel.port, OPENINGS).await.expect("the tunnel stays up");
    let move_bytes = async |way, connections| {
        let processes = (tunnel.pid, sshd.pid());
        load::run(tunnel.port, way, bytes, connections, processes).await.expect("the tunnel stays up")
    };
    let to_device = [move_bytes(Way::ToDevice, 1).await, move_bytes(Way::ToDevice, MANY).await];
    let from_device = [move_bytes(Way::FromDevice, 1).await, move_bytes(Way::FromDevice, MANY).await];
    Sample {
        opened_in: tunnel.opened_in,
        idle_resident,
        idle_private,
        connections_per_second,
        to_device,
        from_device,
    }
}

struct Arguments {
    rounds: usize,
    megabytes: u64,
    only_echo: bool,
}

fn arguments() -> Option<Arguments> {
    let mut wanted = Arguments { rounds: 5, megabytes: 512, only_echo: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut number = || arguments.next()?.parse::<u64>().ok();
        match name.as_str() {
            "--rounds" => wanted.rounds = usize::try_from(number()?).ok().filter(|rounds| *rounds > 0)?,
            "--megabytes" => wanted.megabytes = number().filter(|megabytes| *megabytes >= 16)?,
            "--echo" => wanted.only_echo = true,
            _ => return None,
        }
    }
    Some(wanted)
}
