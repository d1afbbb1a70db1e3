//! Forwarded connections: each one's local socket, and the bytes between it and its SSH channel.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::destination::Host;
use crate::forward::LocalTarget;
use crate::limits::{LOCAL_CONNECT_TIMEOUT, READ_BYTES};
use crate::ssh::{ChannelReader, ChannelWriter, Opened, Received};

/// What has passed through a tunnel since it was asked for, over all its SSH connections.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connections: AtomicUsize,
    changed: Notify,
}

impl Traffic {
    /// Bytes from the server to local services.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes from local services to the server.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Forwarded connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until a connection is opened or closed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Counted(Arc<Traffic>);

impl Counted {
    fn new(traffic: Arc<Traffic>) -> Self {
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        traffic.changed.notify_one();
        Self(traffic)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

/// Serves the forwarded connections of one session until its sender is gone. Dropping this drops them all.
pub(crate) async fn serve(mut opened: mpsc::Receiver<Opened>, max_connections: usize, traffic: Arc<Traffic>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = opened.recv() => {
                let Some(opened) = next else { break };
                if connections.len() >= max_connections {
                    tracing::warn!(remote = %opened.forward.remote, max_connections, "channel-refused-full");
                    opened.reject_full().await;
                    continue;
                }
                connections.spawn(connection(opened, traffic.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(opened: Opened, traffic: Arc<Traffic>) {
    let target = opened.forward.local.clone();
    let local = match tokio::time::timeout(LOCAL_CONNECT_TIMEOUT, connect(&target)).await {
        Ok(Ok(local)) => local,
        Ok(Err(error)) => return unreachable(opened, &error).await,
        Err(_) => return unreachable(opened, &io::ErrorKind::TimedOut.into()).await,
    };
    tracing::debug!(remote = %opened.forward.remote, local = %target, from = opened.originator, "connection-opened");
    let counted = Counted::new(traffic.clone());
    let (reader, writer) = opened.accept().await;
    let ended = copy(local, reader, &writer, &traffic).await;
    writer.close().await;
    drop(counted);
    match ended {
        Ok(()) => tracing::debug!(local = %target, "connection-closed"),
        Err(error) => tracing::debug!(local = %target, %error, "connection-broken"),
    }
}

async fn unreachable(opened: Opened, error: &io::Error) {
    tracing::warn!(remote = %opened.forward.remote, local = %opened.forward.local, %error, "local-service-unreachable");
    opened.reject_unreachable().await;
}

async fn connect(target: &LocalTarget) -> io::Result<TcpStream> {
    let stream = match &target.host {
        Host::Name(name) => TcpStream::connect((&**name, target.port)).await,
        Host::V4(address) => TcpStream::connect((*address, target.port)).await,
        Host::V6(address) => TcpStream::connect((*address, target.port)).await,
    }?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Copies both ways until both ends have finished, or either is gone.
async fn copy(
    local: TcpStream,
    mut reader: ChannelReader,
    writer: &ChannelWriter,
    traffic: &Traffic,
) -> io::Result<()> {
    let (local_reader, mut local_writer) = local.into_split();
    let mut outbound = pin!(outbound(local_reader, writer, traffic));
    let sent_all = {
        let mut inbound = pin!(inbound(&mut reader, &mut local_writer, traffic));
        tokio::select! {
            end = &mut inbound => match end? {
                // Whoever closes the channel ends the outbound half too: its writer would wait for ever.
                End::Closed => return Ok(()),
                End::Eof => false,
            },
            result = &mut outbound => {
                result?;
                inbound.await?;
                true
            }
        }
    };
    if !sent_all {
        tokio::select! {
            result = outbound => result?,
            () = reader.closed() => {}
        }
    }
    Ok(())
}

/// How the server's half of a connection ended.
enum End {
    /// It sends no more, and may still receive.
    Eof,
    /// The channel is gone.
    Closed,
}

/// From the channel to the local service.
async fn inbound(
    reader: &mut ChannelReader,
    local: &mut OwnedWriteHalf,
    traffic: &Traffic,
) -> io::Result<End> {
    loop {
        match reader.receive().await {
            Received::Data(data) => {
                local.write_all(&data).await?;
                traffic.bytes_in.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Received::Eof => {
                local.shutdown().await?;
                return Ok(End::Eof);
            }
            Received::Closed => return Ok(End::Closed),
        }
    }
}

/// From the local service to the channel, until the service sends no more.
async fn outbound(local: OwnedReadHalf, writer: &ChannelWriter, traffic: &Traffic) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        // An idle connection holds no buffer.
        local.readable().await?;
        buffer.reserve(READ_BYTES);
        match local.try_read_buf(&mut buffer) {
            Ok(0) => return writer.finish().await,
            Ok(read) => {
                writer.send(buffer.split().freeze()).await?;
                traffic.bytes_out.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffer = BytesMut::new(),
            Err(error) => return Err(error),
        }
    }
}
