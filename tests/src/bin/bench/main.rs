//! The benchmark: our agent beside `ssh -R` and `dbclient -R`, against one `sshd`, in one run.
//!
//!     cargo build --release --package ocpp-tunnel
//!     cargo run --release --package ocpp-tunnel-tests --bin bench
//!
//! Each round measures every client once, so that what else the machine does hits all of them. Printed are medians, as
//! Markdown, and their ratio to `ssh -R` with AES. Figures of different runs can't be compared.
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers, which prints its results and ends at the first failure"
)]

mod client;
mod load;

use std::time::Duration;

use client::{Client, Tunnel};
use load::{Cost, LoadService, Memory, Way};
use ocpp_tunnel_tests::sshd::Sshd;

const USAGE: &str = "usage: bench [--rounds N] [--megabytes N]";

/// The client that the others are compared with.
const REFERENCE: usize = 1;

/// What one client did in one round.
#[derive(Debug, Clone, Copy)]
struct Sample {
    opened_in: f64,
    idle: Memory,
    to_device: Cost,
    from_device: Cost,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (rounds, megabytes) = arguments().unwrap_or_else(|| panic!("{USAGE}"));
    let sshd = Sshd::start().await;
    let service = LoadService::start().await.expect("a port is free");
    let mut samples = vec![Vec::new(); Client::ALL.len()];
    for round in 1..=rounds {
        for (client, samples) in Client::ALL.into_iter().zip(&mut samples) {
            eprintln!("round {round} of {rounds}: {}", client.name());
            samples
                .push(measure(client, &sshd, service.address(), client.share(megabytes * 1_000_000)).await);
        }
    }
    report(&samples, rounds, megabytes);
}

async fn measure(client: Client, sshd: &Sshd, service: &str, bytes: u64) -> Sample {
    let tunnel = Tunnel::open(client, sshd, service).await;
    // What the client does after coming up is not load.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let idle = Memory::of(tunnel.pid);
    let move_bytes = async |way| {
        load::run(tunnel.port, way, bytes, tunnel.pid, sshd.pid()).await.expect("the tunnel stays up")
    };
    let (to_device, from_device) = (move_bytes(Way::ToDevice).await, move_bytes(Way::FromDevice).await);
    Sample { opened_in: tunnel.opened_in, idle, to_device, from_device }
}

/// A column of the table: its title, its unit's decimals, and how to get it.
type Column = (&'static str, usize, fn(&Sample) -> f64);

const COLUMNS: [Column; 11] = [
    ("port answers after, ms", 0, |sample| sample.opened_in),
    ("to device, MB/s", 0, |sample| sample.to_device.megabytes_per_second),
    ("client CPU, s/GB", 2, |sample| sample.to_device.cpu_seconds_per_gigabyte),
    ("sshd CPU, s/GB", 2, |sample| sample.to_device.server_cpu_seconds_per_gigabyte),
    ("from device, MB/s", 0, |sample| sample.from_device.megabytes_per_second),
    ("client CPU, s/GB", 2, |sample| sample.from_device.cpu_seconds_per_gigabyte),
    ("sshd CPU, s/GB", 2, |sample| sample.from_device.server_cpu_seconds_per_gigabyte),
    ("RSS idle, MB", 1, |sample| sample.idle.resident as f64 / 1024.0),
    ("private idle, MB", 1, |sample| sample.idle.private as f64 / 1024.0),
    ("RSS loaded, MB", 1, |sample| loaded(sample).resident as f64 / 1024.0),
    ("private loaded, MB", 1, |sample| loaded(sample).private as f64 / 1024.0),
];

fn loaded(sample: &Sample) -> Memory {
    sample.to_device.memory.most(sample.from_device.memory)
}

fn report(samples: &[Vec<Sample>], rounds: usize, megabytes: u64) {
    println!("{}", machine());
    println!(
        "Medians of {rounds} interleaved rounds, {megabytes} MB each way (dbclient: a quarter); in parentheses"
    );
    println!("the ratio to {}.\n", Client::ALL[REFERENCE].name());
    let titles: Vec<&str> = COLUMNS.iter().map(|(title, ..)| *title).collect();
    println!("| client | {} |", titles.join(" | "));
    println!("| --- |{}", " ---: |".repeat(titles.len()));
    for (client, own) in Client::ALL.into_iter().zip(samples) {
        let cells = COLUMNS.map(|(_, decimals, value)| {
            let (own, reference) = (median(own, value), median(&samples[REFERENCE], value));
            format!("{own:.decimals$} ({:.2})", own / reference)
        });
        println!("| {} | {} |", client.name(), cells.join(" | "));
    }
}

fn median(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = model.trim_start_matches([' ', '\t', ':']);
    // It governs sshd's writes to the client: BBR paces them.
    let congestion = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    format!("{model}, {cores} cores; TCP congestion control: {}.", congestion.trim())
}

fn arguments() -> Option<(usize, u64)> {
    let (mut rounds, mut megabytes) = (5, 512);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--rounds" => rounds = value.parse().ok().filter(|rounds| *rounds > 0)?,
            "--megabytes" => megabytes = value.parse().ok().filter(|megabytes| *megabytes >= 16)?,
            _ => return None,
        }
    }
    Some((rounds, megabytes))
}
