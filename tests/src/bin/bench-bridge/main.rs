//! The benchmark of the bridge: what a message waits on its way between controller and CSMS, how many pass in a second, and
//! what a controller costs in memory; beside a plain TCP relay and a WebSocket relay in Python, in turn.
//!
//!     cargo build --release -p ocpp-tunnel -p ocpp-tunnel-tests --bin ocpp-tunnel --bin bench-bridge
//!     target/release/bench-bridge
//!
//! Both ends are in this process, everything runs over loopback without TLS. A round measures everything once; printed are
//! medians of the rounds, as Markdown. Figures of different runs can't be compared.
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers, which prints its results and ends at the first failure"
)]

mod ends;
mod tcp_relay;

use std::time::Duration;

use ends::Csms;
use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::figures::Figures;
use ocpp_tunnel_tests::peer::Relay;
use ocpp_tunnel_tests::ports;

const USAGE: &str = "usage: bench-bridge [--rounds N] [--calls N]";

/// This program's other name: a plain TCP relay, which passes everything on to the port that follows.
const TCP_RELAY: &str = "tcp-relay";

/// The CALLs that are under way at once, where it is more than one.
const WINDOW: usize = 16;

/// The most controllers that a bridge takes.
const CONTROLLERS: usize = 32;

/// What is in the way of a message.
const NAMES: [&str; 3] = ["TCP relay", "bridge", "WebSocket relay in Python"];

/// What one round found of one of them.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Microseconds that a message takes.
    median: f64,
    p99: f64,
    /// Messages a second.
    messages: f64,
}

/// A bar, what was measured, and whether it has to be at most so much, or at least.
struct Bar(&'static str, f64, f64, bool);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(TCP_RELAY) {
        let port = arguments.next().and_then(|port| port.parse().ok());
        return tcp_relay::run(port.expect("a port follows")).await;
    }
    let (rounds, calls) = options().unwrap_or_else(|| panic!("{USAGE}"));

    let csms = Csms::start().await;
    let (_agent, bridge) = bridge(&csms, 1).await;
    let tcp = Relay::program(&[TCP_RELAY, &csms.port().to_string()]).await;
    let python = Relay::python("ws_relay.py", &["--to", &format!("ws://127.0.0.1:{}", csms.port())]).await;
    let relays = [tcp.port(), bridge, python.port()];

    let mut samples = [const { Vec::new() }; 3];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (samples, port) in samples.iter_mut().zip(relays) {
            samples.push(measure(&csms, port, calls).await);
        }
    }
    print(&samples, memory(&csms, calls).await, calls);
}

async fn measure(csms: &Csms, port: u16, calls: usize) -> Sample {
    let mut pair = csms.pair(port, &identity(1)).await;
    // Whatever is only slow the first time.
    pair.latencies(calls / 20).await;
    let mut latencies = pair.latencies(calls / 2).await;
    latencies.sort_unstable();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    Sample { median: at(0.5), p99: at(0.99), messages: pair.messages_a_second(calls, WINDOW).await }
}

/// Kilobytes of private memory for each of as many controllers as there may be, once they have talked.
async fn memory(csms: &Csms, calls: usize) -> f64 {
    let (agent, port) = bridge(csms, CONTROLLERS).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = Figures::of(agent.pid());
    let mut pairs = Vec::new();
    for number in 1..=CONTROLLERS {
        let mut pair = csms.pair(port, &identity(number)).await;
        pair.latencies(calls / 100).await;
        pairs.push(pair);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    Figures::of(agent.pid()).grown_kib(&before) as f64 / CONTROLLERS as f64
}

/// An agent in front of the CSMS, and the port that its controllers connect to.
async fn bridge(csms: &Csms, controllers: usize) -> (Agent, u16) {
    let port = ports::free();
    let others: Vec<String> = (2..=controllers).map(|number| format!("'{}'", identity(number))).collect();
    let setup = Setup::new()
        .ocpp(&format!("url = 'ws://127.0.0.1:{}'", csms.port()))
        .ocpp(&format!("identity = '{}'", identity(1)))
        .ocpp("mode = 'bridge'")
        .ocpp("security_profile = 0")
        .ocpp("report = 'off'")
        .bridge(&format!("listen = '127.0.0.1:{port}'"))
        .bridge(&format!("identities = [{}]", others.join(", ")))
        .log_level("info");
    (Agent::run(setup).await, port)
}

fn identity(number: usize) -> String {
    format!("CP{number:03}")
}

fn print(samples: &[Vec<Sample>; 3], memory: f64, calls: usize) {
    let rounds = samples[0].len();
    println!("Medians of {rounds} rounds of {calls} CALLs and their answers.\n");
    println!("| | {} |\n| --- |{}", NAMES.join(" | "), " ---: |".repeat(NAMES.len()));
    let row = |title: &str, figure: fn(&Sample) -> f64| {
        let cells = samples.each_ref().map(|samples| format!("{:.0}", median(samples.iter().map(figure))));
        println!("| {title} | {} |", cells.join(" | "));
    };
    row("a message takes, median, µs", |sample| sample.median);
    row("… 99th percentile, µs", |sample| sample.p99);
    row(&format!("messages a second, {WINDOW} CALLs under way"), |sample| sample.messages);

    let [tcp, bridge, _] = samples;
    // Within a round, so that what else the machine does hits both.
    let added = |figure: fn(&Sample) -> f64| {
        median(bridge.iter().zip(tcp).map(|(bridge, tcp)| figure(bridge) - figure(tcp)))
    };
    let bars = [
        Bar("added to the TCP relay's median, µs", 60.0, added(|sample| sample.median), true),
        Bar("added to its 99th percentile, µs", 300.0, added(|sample| sample.p99), true),
        Bar("messages a second", 40_000.0, median(bridge.iter().map(|sample| sample.messages)), false),
        Bar("private memory a controller, of 32, KB", 100.0, memory, true),
    ];
    println!("\n| bar | wanted | measured | |\n| --- | ---: | ---: | --- |");
    for Bar(title, wanted, measured, at_most) in bars {
        let (sign, met) = if at_most { ("≤", measured <= wanted) } else { ("≥", measured >= wanted) };
        let met = if met { "met" } else { "not met" };
        println!("| {title} | {sign} {wanted:.0} | {measured:.0} | {met} |");
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn options() -> Option<(usize, usize)> {
    let (mut rounds, mut calls) = (5, 20_000);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?.parse().ok();
        match name.as_str() {
            "--rounds" => rounds = value.filter(|rounds| *rounds > 0)?,
            "--calls" => calls = value.filter(|calls| *calls >= 1000)?,
            _ => return None,
        }
    }
    Some((rounds, calls))
}
