//! The results as Markdown: a table of medians, and one of the bars.

use crate::client::Client;
use crate::echo::{Block, TURNS};
use crate::load::Cost;
use crate::{MANY, Sample};

/// A row of the table: its title, the decimals shown, and how to get it.
struct Measure {
    title: &'static str,
    decimals: usize,
    of: fn(&Sample) -> f64,
}

const fn measure(title: &'static str, decimals: usize, of: fn(&Sample) -> f64) -> Measure {
    Measure { title, decimals, of }
}

const MEASURES: [Measure; 20] = [
    measure("port answers after, ms", 0, |s| s.opened_in),
    measure("connections a second", 0, |s| s.connections_per_second),
    measure("to device, 1 connection, MB/s", 0, |s| s.to_device[0].megabytes_per_second),
    measure("… client CPU, s/GB", 2, |s| s.to_device[0].client_cpu),
    measure("… sshd CPU, s/GB", 2, |s| s.to_device[0].server_cpu),
    measure("… private memory at most, MB", 1, |s| s.to_device[0].memory),
    measure("to device, 64 connections, MB/s", 0, |s| s.to_device[1].megabytes_per_second),
    measure("… client CPU, s/GB", 2, |s| s.to_device[1].client_cpu),
    measure("… sshd CPU, s/GB", 2, |s| s.to_device[1].server_cpu),
    measure("… private memory at most, MB", 1, |s| s.to_device[1].memory),
    measure("from device, 1 connection, MB/s", 0, |s| s.from_device[0].megabytes_per_second),
    measure("… client CPU, s/GB", 2, |s| s.from_device[0].client_cpu),
    measure("… sshd CPU, s/GB", 2, |s| s.from_device[0].server_cpu),
    measure("… private memory at most, MB", 1, |s| s.from_device[0].memory),
    measure("from device, 64 connections, MB/s", 0, |s| s.from_device[1].megabytes_per_second),
    measure("… client CPU, s/GB", 2, |s| s.from_device[1].client_cpu),
    measure("… sshd CPU, s/GB", 2, |s| s.from_device[1].server_cpu),
    measure("… private memory at most, MB", 1, |s| s.from_device[1].memory),
    measure("resident idle, MB", 1, |s| s.idle_resident),
    measure("private idle, MB", 1, |s| s.idle_private),
];

pub(crate) fn print(samples: &[Vec<Sample>], echoes: &[Vec<Block>], rounds: usize, megabytes: u64) {
    println!("{}", machine());
    println!(
        "Medians of {rounds} interleaved rounds, {megabytes} MB each way (dbclient: a quarter), {MANY} connections where many; \
         echoes in {} interleaved blocks, and the median of their ratios.\n",
        rounds * TURNS
    );
    let names: Vec<String> = Client::ALL.iter().map(|client| client.name()).collect();
    println!("| | {} |", names.join(" | "));
    println!("| --- |{}", " ---: |".repeat(names.len()));
    let row = |title, cells: Vec<String>| println!("| {title} | {} |", cells.join(" | "));
    let echo = |value: fn(&Block) -> f64| {
        echoes.iter().map(|blocks| format!("{:.0}", median(blocks, value))).collect()
    };
    row("echo of 64 bytes, µs", echo(|block| block.time));
    row("… client CPU, µs", echo(|block| block.client_cpu));
    let whole = samples.iter().all(|samples| !samples.is_empty());
    if whole {
        for Measure { title, decimals, of } in MEASURES {
            row(title, samples.iter().map(|samples| format!("{:.decimals$}", median(samples, of))).collect());
        }
    }
    println!("\n| bar | wanted | measured | |\n| --- | ---: | ---: | --- |");
    let others = if whole { bars(samples) } else { Vec::new() };
    for bar in echo_bars(echoes).into_iter().chain(others) {
        let (sign, met) = match bar.wanted {
            Wanted::AtMost(most) => (format!("≤ {most:.2}"), bar.measured <= most),
            Wanted::AtLeast(least) => (format!("≥ {least:.2}"), bar.measured >= least),
        };
        println!(
            "| {} | {sign} | {:.2} | {} |",
            bar.title,
            bar.measured,
            if met { "met" } else { "not met" }
        );
    }
}

type CostOf = fn(&Sample) -> Cost;

enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

struct Bar {
    title: String,
    wanted: Wanted,
    measured: f64,
}

/// The latency beside `ssh`'s, block by block.
fn echo_bars(echoes: &[Vec<Block>]) -> Vec<Bar> {
    let [agent_aes, agent_chacha, ssh_aes, ssh_chacha, _] = echoes else {
        unreachable!("every client is measured")
    };
    [("AES-GCM", agent_aes, ssh_aes), ("ChaCha20", agent_chacha, ssh_chacha)]
        .map(|(cipher, agent, ssh)| {
            let ratios: Vec<f64> = agent.iter().zip(ssh).map(|(agent, ssh)| agent.time / ssh.time).collect();
            let title = format!("echo, {cipher}, to `ssh`'s");
            Bar { title, wanted: Wanted::AtMost(1.0), measured: median(&ratios, |ratio| *ratio) }
        })
        .into()
}

/// What we expect of ourselves beside the others.
fn bars(samples: &[Vec<Sample>]) -> Vec<Bar> {
    let of = |client: Client, value: &dyn Fn(&Sample) -> f64| {
        let at = Client::ALL.iter().position(|known| *known == client).expect("every client is measured");
        median(&samples[at], value)
    };
    let [agent_aes, agent_chacha, ssh_aes, ssh_chacha, dbclient] = Client::ALL;
    let mut bars = Vec::new();
    let mut bar = |title: String, wanted, measured| bars.push(Bar { title, wanted, measured });

    let opened = |client| of(client, &|s| s.opened_in);
    bar("port answers after, to `ssh`'s".into(), Wanted::AtMost(0.2), opened(agent_aes) / opened(ssh_aes));
    bar(
        "port answers after, to `dbclient`'s".into(),
        Wanted::AtMost(0.5),
        opened(agent_chacha) / opened(dbclient),
    );
    for (cipher, agent, ssh, cpu_bar) in
        [("AES-GCM", agent_aes, ssh_aes, 0.75), ("ChaCha20", agent_chacha, ssh_chacha, 1.0)]
    {
        let rate = |client| of(client, &|s| s.connections_per_second);
        bar(
            format!("connections a second, {cipher}, to `ssh`'s"),
            Wanted::AtLeast(2.0),
            rate(agent) / rate(ssh),
        );
        let costs: [(&str, CostOf); 4] = [
            ("to device, 1 connection", |s| s.to_device[0]),
            ("to device, 64", |s| s.to_device[1]),
            ("from device, 1 connection", |s| s.from_device[0]),
            ("from device, 64", |s| s.from_device[1]),
        ];
        for (way, cost) in costs {
            let speed = |client| of(client, &|s| cost(s).megabytes_per_second);
            let cpu = |client| of(client, &|s| cost(s).client_cpu);
            bar(format!("MB/s {way}, {cipher}, to `ssh`'s"), Wanted::AtLeast(1.0), speed(agent) / speed(ssh));
            bar(
                format!("MB/s {way}, {cipher}, to `dbclient`'s"),
                Wanted::AtLeast(20.0),
                speed(agent) / speed(dbclient),
            );
            bar(
                format!("client CPU {way}, {cipher}, to `ssh`'s"),
                Wanted::AtMost(cpu_bar),
                cpu(agent) / cpu(ssh),
            );
        }
    }
    let idle = |client| of(client, &|s| s.idle_private);
    bar("private idle above `dbclient`'s, MB".into(), Wanted::AtMost(0.5), idle(agent_aes) - idle(dbclient));
    let loaded = of(agent_aes, &|s| s.to_device[1].memory.max(s.from_device[1].memory));
    bar("private at most, 64 connections, MB".into(), Wanted::AtMost(8.0), loaded);
    bars
}

fn median<T>(samples: &[T], value: impl Fn(&T) -> f64) -> f64 {
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
