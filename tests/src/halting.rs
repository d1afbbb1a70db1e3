//! A relay in front of an SSH server that passes so many of the server's bytes and then falls silent, or hangs up: every
//! stage of a handshake can be the last.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The relay. Dropping it ends its connections.
#[derive(Debug)]
pub struct Halting {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    hang_up: bool,
    passed: AtomicU64,
    connections: AtomicUsize,
    silent_since: Mutex<Option<Instant>>,
}

impl Halting {
    /// A relay to the server on `port` of 127.0.0.1 that passes `limit` bytes of what the server says in each connection,
    /// and then says nothing more and closes nothing.
    pub async fn silent_after(port: u16, limit: u64) -> Self {
        Self::start(port, limit, false).await
    }

    /// The same, but it hangs up then.
    pub async fn hangs_up_after(port: u16, limit: u64) -> Self {
        Self::start(port, limit, true).await
    }

    async fn start(server: u16, limit: u64, hang_up: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            limit,
            hang_up,
            passed: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            silent_since: Mutex::new(None),
        });
        let relayed = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                relayed.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(relay(stream, server, Arc::clone(&relayed)));
            }
        });
        Self { port, shared, task }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many of the server's bytes it has passed, in all connections.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// When it fell silent first.
    pub fn silent_since(&self) -> Option<Instant> {
        *self.shared.silent_since.lock().expect("nobody panics with it")
    }
}

impl Drop for Halting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, server: u16, shared: Arc<Shared>) -> std::io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let inbound = async {
        let mut left = shared.limit;
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
            let read = from_server.read(&mut buffer[..room]).await?;
            if read == 0 {
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
            left -= read as u64;
            shared.passed.fetch_add(read as u64, Ordering::Relaxed);
        }
        shared.silent_since.lock().expect("nobody panics with it").get_or_insert_with(Instant::now);
        if !shared.hang_up {
            // The client is still read, as a kernel does whose program hangs.
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    tokio::select! {
        ended = inbound => ended,
        ended = tokio::io::copy(&mut from_client, &mut to_server) => ended.map(drop),
    }
}
