//! Load through a tunnel, and what it cost: time, CPU, memory.

use std::io;
use std::time::{Duration, Instant};

use ocpp_tunnel_tests::process::children_of;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What is read or written at once.
const CHUNK: usize = 128 * 1024;

/// Between two looks at the client's memory.
const SAMPLE: Duration = Duration::from_millis(20);

/// Asks the service to send back what it gets, instead of a number of bytes.
const ECHO: u64 = u64::MAX;

/// What goes there and back to measure latency: about what a key press in a shell takes.
const ECHO_BYTES: usize = 64;

/// Connections that are opened at the same time when their rate is measured.
const OPENERS: usize = 8;

/// A local service for load: what is sent to it is thrown away, or it sends as much as was asked for.
///
/// The first eight bytes of a connection are a big-endian number: how many bytes to send. It sends them, and reads until
/// the other side ends, which it confirms by ending too. [`ECHO`] makes it send back what it reads.
#[derive(Debug)]
pub(crate) struct LoadService {
    address: String,
    task: JoinHandle<()>,
}

impl LoadService {
    pub(crate) async fn start() -> io::Result<Self> {
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

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    match stream.read_u64().await? {
        ECHO => {
            stream.set_nodelay(true)?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.map(drop)
        }
        bytes => {
            send(&mut stream, bytes).await?;
            receive(&mut stream).await?;
            stream.shutdown().await
        }
    }
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

async fn ask(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_u64(1).await?;
    stream.read_u8().await.map(drop)
}

/// The median time of `count` small messages there and back, in microseconds.
pub(crate) async fn echo(port: u16, count: usize) -> io::Result<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    stream.write_u64(ECHO).await?;
    let mut message = [0x5a; ECHO_BYTES];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        stream.write_all(&message).await?;
        stream.read_exact(&mut message).await?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[count / 2].as_secs_f64() * 1e6)
}

/// How many connections a second are opened, answered and closed, of `count`.
pub(crate) async fn connections(port: u16, count: usize) -> io::Result<f64> {
    let begin = Instant::now();
    let mut openers = JoinSet::new();
    for _ in 0..OPENERS {
        openers.spawn(async move {
            for _ in 0..count / OPENERS {
                ask(port).await?;
            }
            Ok(())
        });
    }
    openers.join_all().await.into_iter().collect::<io::Result<()>>()?;
    Ok(count as f64 / begin.elapsed().as_secs_f64())
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
    /// The client's CPU time, in seconds a gigabyte.
    pub(crate) client_cpu: f64,
    /// The server's CPU time, all its processes together, in seconds a gigabyte.
    pub(crate) server_cpu: f64,
    /// The client's private memory at its most, in megabytes.
    pub(crate) memory: f64,
}

/// Moves `bytes`, over several connections, through `port` of 127.0.0.1, and watches the client and the server.
pub(crate) async fn run(
    port: u16,
    way: Way,
    bytes: u64,
    connections: u64,
    (client, server): (u32, u32),
) -> io::Result<Cost> {
    let mut memory = private_memory(client);
    let (client_cpu, server_cpu, start) = (cpu_seconds(client), tree_cpu_seconds(server), Instant::now());
    let mut moving = JoinSet::new();
    for _ in 0..connections {
        moving.spawn(transfer(port, way, bytes / connections));
    }
    let mut moving = tokio::spawn(moving.join_all());
    let ended = loop {
        tokio::select! {
            ended = &mut moving => break ended.map_err(io::Error::other)?,
            () = tokio::time::sleep(SAMPLE) => memory = memory.max(private_memory(client)),
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    ended.into_iter().collect::<io::Result<()>>()?;
    let gigabytes = bytes as f64 / 1e9;
    Ok(Cost {
        megabytes_per_second: gigabytes * 1e3 / seconds,
        client_cpu: (cpu_seconds(client) - client_cpu) / gigabytes,
        server_cpu: (tree_cpu_seconds(server) - server_cpu) / gigabytes,
        memory,
    })
}

async fn transfer(port: u16, way: Way, bytes: u64) -> io::Result<()> {
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
        return Err(io::Error::other(format!("{received} of {from_device} bytes arrived")));
    }
    Ok(())
}

async fn send(stream: &mut TcpStream, mut bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    while bytes > 0 {
        let length = usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(&ZEROS[..length]).await?;
        bytes -= length as u64;
    }
    Ok(())
}

async fn receive(stream: &mut TcpStream) -> io::Result<u64> {
    let (mut chunk, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(bytes),
            length => bytes += length as u64,
        }
    }
}

/// The memory of a process that no other process can share (`RssAnon`), in megabytes.
pub(crate) fn private_memory(pid: u32) -> f64 {
    memory(pid, "RssAnon:")
}

/// All of a process's memory that is resident, code and files included (`VmRSS`), in megabytes.
pub(crate) fn resident_memory(pid: u32) -> f64 {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// The CPU time that a process and those that it has started have used.
fn tree_cpu_seconds(pid: u32) -> f64 {
    cpu_seconds(pid) + children_of(pid).into_iter().map(tree_cpu_seconds).sum::<f64>()
}

/// The CPU time that a process's threads have used, in user and kernel mode, by the scheduler's count of nanoseconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}
