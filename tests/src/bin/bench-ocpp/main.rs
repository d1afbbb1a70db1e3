//! The benchmark of the OCPP side: messages a second through the charge point without IO and through the whole agent, and the
//! memory of a link at rest.
//!
//!     cargo build --release -p ocpp-tunnel -p ocpp-tunnel-tests --bin ocpp-tunnel --bin bench-ocpp
//!     target/release/bench-ocpp
//!
//! A round measures everything once; printed are medians, as Markdown. Figures of different runs can't be compared.
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers, which prints its results and ends at the first failure"
)]

mod csms;

use std::time::{Duration, Instant};

use csms::Peer;
use nix::unistd::{SysconfVar, sysconf};
use ocpp_bridge::{BootInfo, ChargePoint, LinkSecurity, Registry, Settings};
use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::figures::Figures;

const USAGE: &str = "usage: bench-ocpp [--rounds N] [--calls N]";

/// The calls that are under way at once, where it is more than one.
const WINDOW: usize = 16;

/// What one round found.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Calls a second.
    without_io: f64,
    one_by_one: f64,
    windowed: f64,
    /// Microseconds of the agent's CPU for each of the windowed calls.
    cpu: f64,
    /// Kilobytes of private memory at rest: without a link, with one, with one over TLS.
    private: [f64; 3],
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (rounds, calls) = arguments().unwrap_or_else(|| panic!("{USAGE}"));
    let mut samples = Vec::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        samples.push(measure(calls).await);
    }
    let median = |figure: fn(&Sample) -> f64| {
        let mut figures: Vec<f64> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    };
    println!("Medians of {rounds} rounds of {calls} calls.\n\n| | |\n| --- | ---: |");
    println!("| calls a second, charge point without IO | {:.0} |", median(|sample| sample.without_io));
    println!("| calls a second, whole agent, {WINDOW} under way | {:.0} |", median(|sample| sample.windowed));
    println!("| … agent's CPU for a call, µs | {:.1} |", median(|sample| sample.cpu));
    println!("| round trip of a call, µs | {:.0} |", 1e6 / median(|sample| sample.one_by_one));
    println!("| private memory at rest, no link, KB | {:.0} |", median(|sample| sample.private[0]));
    println!("| … with a link | {:.0} |", median(|sample| sample.private[1]));
    println!("| … with a link over TLS | {:.0} |", median(|sample| sample.private[2]));
}

async fn measure(calls: usize) -> Sample {
    let without_io = charge_point(calls);
    let mut peer = Peer::start().await;
    let setup = |url: &str| {
        let setup = Setup::new().ocpp(&format!("url = '{url}'")).ocpp("identity = 'CP001'");
        setup.ocpp("security_profile = 0").log_level("info")
    };
    let agent = started(setup(&peer.url())).await;
    peer.accept().await;
    let one_by_one = peer.calls(calls / 10, 1).await;
    let before = cpu(agent.pid());
    let windowed = peer.calls(calls, WINDOW).await;
    let cpu = (cpu(agent.pid()) - before) / calls as f64 * 1e6;

    let private = [
        at_rest(&started(Setup::new().ocpp("mode = 'off'").log_level("info")).await).await,
        at_rest_linked(false).await,
        at_rest_linked(true).await,
    ];
    Sample { without_io, one_by_one, windowed, cpu, private }
}

/// Calls a second that the state machine answers.
fn charge_point(calls: usize) -> f64 {
    let boot =
        BootInfo { vendor: "ACME".into(), model: "Box".into(), serial_number: None, firmware_version: None };
    let mut charge_point = ChargePoint::new(Settings::new(boot), Registry::new(0), fastrand::Rng::new());
    let now = Instant::now();
    charge_point.handle_connected(now, LinkSecurity::default());
    let text = charge_point.poll_transmit().expect("BootNotification is the first");
    let id = text.split('"').nth(1).expect("a CALL has an id").to_owned();
    let accepted =
        format!(r#"[3,"{id}",{{"status":"Accepted","interval":300,"currentTime":"2026-11-21T10:00:00Z"}}]"#);
    charge_point.handle_text(now, &accepted);
    while charge_point.poll_event().is_some() || charge_point.poll_transmit().is_some() {}
    for number in 0..calls {
        charge_point.handle_text(now, &csms::question(number));
        assert!(charge_point.poll_transmit().is_some_and(|answer| answer.starts_with("[3,")), "an answer");
    }
    calls as f64 / now.elapsed().as_secs_f64()
}

async fn started(setup: Setup) -> Agent {
    let mut agent = Agent::new(setup);
    agent.start().await;
    agent
}

async fn at_rest_linked(tls: bool) -> f64 {
    let csms = Csms::start(Options { tls, ..Options::default() }).await;
    let agent = started(Setup::new().csms(&csms).log_level("info")).await;
    agent.link_is("accepted").await;
    at_rest(&agent).await
}

async fn at_rest(agent: &Agent) -> f64 {
    tokio::time::sleep(Duration::from_secs(1)).await;
    Figures::of(agent.pid()).private_kib as f64
}

/// Seconds of CPU that a process has had.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // pid (name) state …; the eleventh and twelfth after the state are its ticks as user and in the kernel.
    let (_, after_name) = stat.rsplit_once(") ").expect("the kernel writes it so");
    let ticks =
        after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>();
    let second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("the kernel has ticks");
    ticks / second as f64
}

fn arguments() -> Option<(usize, usize)> {
    let (mut rounds, mut calls) = (5, 100_000);
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
