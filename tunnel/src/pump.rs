//! Forwarded connections: each one's local socket, and the bytes between it and its SSH channel.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::budget::{Budget, Share};
use crate::destination::Host;
use crate::forward::LocalTarget;
use crate::limits::{BATCH, LOCAL_CONNECT_TIMEOUT, READ_BYTES};
use crate::ssh::{ChannelReader, ChannelWriter, Opened, Received};

/// What has passed through a tunnel since it was asked for, over all its SSH connections.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connections: AtomicUsize,
    stalled: AtomicU64,
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

    /// Connections that were reset because their local service took nothing while others waited.
    #[must_use]
    pub fn stalled(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
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
pub(crate) async fn serve(
    mut opened: mpsc::Receiver<Opened>,
    max_connections: usize,
    buffer_bytes: usize,
    traffic: Arc<Traffic>,
) {
    let budget = Budget::new(buffer_bytes);
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
                connections.spawn(connection(opened, budget.join(), traffic.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(opened: Opened, share: Share, traffic: Arc<Traffic>) {
    let target = opened.forward.local.clone();
    let local = match timeout(LOCAL_CONNECT_TIMEOUT, connect(&target)).await {
        Ok(Ok(local)) => local,
        Ok(Err(error)) => return unreachable(opened, &error).await,
        Err(_) => return unreachable(opened, &io::ErrorKind::TimedOut.into()).await,
    };
    tracing::debug!(remote = %opened.forward.remote, local = %target, from = opened.originator, "connection-opened");
    let counted = Counted::new(traffic.clone());
    let (reader, writer) = opened.accept().await;
    let ended = tokio::select! {
        ended = copy(local, reader, &writer, &share, &traffic) => ended,
        () = share.reset() => {
            traffic.stalled.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(local = %target, "connection-reset-stalled");
            Err(io::ErrorKind::TimedOut.into())
        }
    };
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

/// A piece on its way to the local service.
enum Queued {
    Data(Bytes, OwnedSemaphorePermit),
    /// The server sends no more.
    Eof,
}

/// Copies both ways until both ends have finished, or either is gone.
///
/// When the server closes the channel, the outbound half ends at once, since its writer would wait for ever; what
/// the local service has not taken yet is still delivered.
async fn copy(
    local: TcpStream,
    mut reader: ChannelReader,
    writer: &ChannelWriter,
    share: &Share,
    traffic: &Traffic,
) -> io::Result<()> {
    let (local_reader, mut local_writer) = local.into_split();
    // Bounded by the budget, which counts every piece.
    let (sender, queue) = mpsc::unbounded_channel();
    let mut receive = pin!(receive(&mut reader, sender, share));
    let mut deliver = pin!(deliver(queue, &mut local_writer, share, traffic));
    let mut outbound = pin!(outbound(local_reader, writer, traffic));
    let (mut open, mut sent_all, mut delivered_all) = (true, false, false);
    while !(delivered_all && (sent_all || !open)) {
        tokio::select! {
            () = &mut receive, if open => open = false,
            result = &mut deliver, if !delivered_all => {
                result?;
                delivered_all = true;
            }
            result = &mut outbound, if open && !sent_all => {
                result?;
                sent_all = true;
            }
        }
    }
    Ok(())
}

/// From the channel into the queue, until the channel is closed.
async fn receive(reader: &mut ChannelReader, queue: mpsc::UnboundedSender<Queued>, share: &Share) {
    loop {
        let piece = match reader.receive().await {
            Received::Data(data) => match share.take(data.len()).await {
                Some(room) => Queued::Data(data, room),
                // No packet is larger than the budget.
                None => return,
            },
            Received::Eof => Queued::Eof,
            Received::Closed => return,
        };
        // Where nothing is delivered any more, the rest is thrown away until the channel is closed.
        let _ = queue.send(piece);
    }
}

/// From the queue to the local service, several pieces a system call.
async fn deliver(
    mut queue: mpsc::UnboundedReceiver<Queued>,
    local: &mut OwnedWriteHalf,
    share: &Share,
    traffic: &Traffic,
) -> io::Result<()> {
    let mut batch = VecDeque::new();
    let mut eof = false;
    while let Some(first) = queue.recv().await {
        let more = std::iter::from_fn(|| queue.try_recv().ok());
        for piece in std::iter::once(first).chain(more).take(BATCH) {
            match piece {
                Queued::Data(data, room) => batch.push_back((data, room)),
                Queued::Eof => eof = true,
            }
        }
        while !batch.is_empty() {
            let written = write_some(local, &batch).await?;
            share.taken(written);
            traffic.bytes_in.fetch_add(written as u64, Ordering::Relaxed);
            advance(&mut batch, written);
        }
        if eof {
            return local.shutdown().await;
        }
    }
    Ok(())
}

async fn write_some(
    local: &mut OwnedWriteHalf,
    batch: &VecDeque<(Bytes, OwnedSemaphorePermit)>,
) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); BATCH];
    for (slice, (data, _)) in slices.iter_mut().zip(batch) {
        *slice = IoSlice::new(data);
    }
    match local.write_vectored(slices.get(..batch.len().min(BATCH)).unwrap_or_default()).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

/// Drops what was written, and with each finished piece its room in the budget.
fn advance(batch: &mut VecDeque<(Bytes, OwnedSemaphorePermit)>, mut written: usize) {
    while let Some((data, _)) = batch.front_mut() {
        if written < data.len() {
            return data.advance(written);
        }
        written -= data.len();
        batch.pop_front();
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
