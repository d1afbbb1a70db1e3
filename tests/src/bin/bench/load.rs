//! Load through a tunnel, and what it cost the client: time, CPU, memory.

use std::time::{Duration, Instant};

use ocpp_tunnel_tests::process::children_of;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What is read or written at once.
const CHUNK: usize = 128 * 1024;

/// Between two looks at the client's memory.
const SAMPLE: Duration = Duration::from_millis(20);

/// The kernel counts CPU time in ticks of 10 ms on every Linux that we run on (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A local service for load: what is sent to it is thrown away, or it sends as much as was asked for.
///
/// The first eight bytes of a connection are a big-endian number: how many bytes to send. It sends them, and reads until
/// the other side ends, which it confirms by ending too.
#[derive(Debug)]
pub(crate) struct LoadService {
    address: String,
    task: JoinHandle<()>,
}

impl LoadService {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Ok(Self { address, task })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for LoadService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let bytes = stream.read_u64().await?;
    send(&mut stream, bytes).await?;
    receive(&mut stream).await?;
    stream.shutdown().await
}

/// Waits until a service at the other end of this port of 127.0.0.1 answers, and returns when it did.
pub(crate) async fn answers(port: u16) -> Instant {
    loop {
        if ask(port).await.is_ok() {
            return Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn ask(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_u64(1).await?;
    stream.read_u8().await.map(drop)
}

/// The way of the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// From the server's port to the device's service.
    ToDevice,
    /// From the device's service to the server's port.
    FromDevice,
}

/// What moving bytes took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) megabytes_per_second: f64,
    pub(crate) cpu_seconds_per_gigabyte: f64,
    /// What it took the server, all its processes together.
    pub(crate) server_cpu_seconds_per_gigabyte: f64,
    pub(crate) memory: Memory,
}

/// Moves `bytes` through `port` of 127.0.0.1, and watches the client `pid` and the server `sshd` doing it.
pub(crate) async fn run(port: u16, way: Way, bytes: u64, pid: u32, sshd: u32) -> std::io::Result<Cost> {
    let mut memory = Memory::of(pid);
    let (cpu, server_cpu, start) = (cpu_seconds(pid), tree_cpu_seconds(sshd), Instant::now());
    let moving = tokio::spawn(transfer(port, way, bytes));
    while !moving.is_finished() {
        tokio::time::sleep(SAMPLE).await;
        memory = memory.most(Memory::of(pid));
    }
    let end = moving.await.map_err(std::io::Error::other)??;
    let (seconds, cpu) = ((end - start).as_secs_f64(), cpu_seconds(pid) - cpu);
    let server_cpu = tree_cpu_seconds(sshd) - server_cpu;
    let megabytes = bytes as f64 / 1e6;
    Ok(Cost {
        megabytes_per_second: megabytes / seconds,
        cpu_seconds_per_gigabyte: cpu / megabytes * 1e3,
        server_cpu_seconds_per_gigabyte: server_cpu / megabytes * 1e3,
        memory,
    })
}

async fn transfer(port: u16, way: Way, bytes: u64) -> std::io::Result<Instant> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (to_device, from_device) = match way {
        Way::ToDevice => (bytes, 0),
        Way::FromDevice => (0, bytes),
    };
    stream.write_u64(from_device).await?;
    send(&mut stream, to_device).await?;
    stream.shutdown().await?;
    let received = receive(&mut stream).await?;
    if received != from_device {
        return Err(std::io::Error::other(format!("{received} of {from_device} bytes arrived")));
    }
    Ok(Instant::now())
}

async fn send(stream: &mut TcpStream, mut bytes: u64) -> std::io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    while bytes > 0 {
        let length = usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(&chunk[..length]).await?;
        bytes -= length as u64;
    }
    Ok(())
}

async fn receive(stream: &mut TcpStream) -> std::io::Result<u64> {
    let (mut chunk, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(bytes),
            length => bytes += length as u64,
        }
    }
}

/// A process's memory, in kilobytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// All that is resident, code and files included (`VmRSS`).
    pub(crate) resident: u64,
    /// What no other process can share (`RssAnon`).
    pub(crate) private: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self { resident: field("VmRSS:"), private: field("RssAnon:") }
    }

    /// The larger of each.
    pub(crate) fn most(self, other: Self) -> Self {
        Self { resident: self.resident.max(other.resident), private: self.private.max(other.private) }
    }
}

/// The CPU time that a process and those that it has started have used.
fn tree_cpu_seconds(pid: u32) -> f64 {
    cpu_seconds(pid) + children_of(pid).into_iter().map(tree_cpu_seconds).sum::<f64>()
}

/// The CPU time that a process has used, in user and kernel mode.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name in parentheses, which may hold anything: state is the 3rd field, utime the 14th, stime the 15th.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    let ticks = |number: usize| fields.split(' ').nth(number - 3).and_then(|ticks| ticks.parse::<f64>().ok());
    (ticks(14).unwrap_or(0.0) + ticks(15).unwrap_or(0.0)) / TICKS_PER_SECOND
}
