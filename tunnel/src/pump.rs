//! Forwarded connections: each one's local socket, and the bytes between it and its SSH channel.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::budget::{Budget, Share};
use crate::events::{End, Events};
use crate::limits::{BATCH, CHANNEL_CLOSE, GATHER, HALF_CLOSED, LINGER, READ_BYTES};
use crate::local_service::{ConnectError, OwnListeners, connect};
use crate::queue::Queue;
use crate::ssh::{ChannelWriter, Opened};
use crate::stream::drained;
use crate::traffic::{Counted, Passed, Traffic, tell_refused};

/// Serves the forwarded connections of one session until its sender is gone. Dropping this drops them all.
pub(crate) async fn serve(
    mut opened: mpsc::Receiver<Opened>,
    max_connections: usize,
    buffer_bytes: usize,
    own: OwnListeners,
    traffic: Arc<Traffic>,
    events: Events,
) {
    let budget = Budget::new(buffer_bytes);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = opened.recv() => {
                let Some(opened) = next else { break };
                // Those that have ended take no place, even if we haven't come round to them.
                while connections.try_join_next().is_some() {}
                if connections.len() >= max_connections {
                    if traffic.may_tell() {
                        tracing::warn!(remote = %opened.forward.remote, max_connections, "channel-refused-full");
                    }
                    tell_refused(&events, &opened, Duration::ZERO, End::RefusedFull);
                    opened.reject_full().await;
                    continue;
                }
                let work = connection(opened, budget.join(), own.clone(), traffic.clone(), events.clone());
                connections.spawn(work);
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(opened: Opened, share: Share, own: OwnListeners, traffic: Arc<Traffic>, events: Events) {
    let since = Instant::now();
    let target = opened.forward.local.clone();
    let stream = match connect(&target, &own).await {
        Ok(stream) => stream,
        Err(error) => {
            let end = match &error {
                ConnectError::Forbidden(_) => End::Forbidden(error.to_string()),
                ConnectError::Unreachable(_) => End::Unreachable(error.to_string()),
            };
            tell_refused(&events, &opened, since.elapsed(), end);
            return unreachable(opened, &error, &traffic).await;
        }
    };
    tracing::debug!(remote = %opened.forward.remote, local = %target, from = opened.originator, "connection-opened");
    let ends = stream.local_addr().ok().zip(stream.peer_addr().ok());
    let local = Arc::new(Local::new(stream, share, traffic.clone()));
    let mut counted = Counted::new(local.passed.clone(), events, &opened, ends, since);
    let abandon = AbandonOnDrop(local.clone());
    let writer = opened.accept(local.clone()).await;
    let (ended, patience) = tokio::select! {
        ended = copy(&local, &writer, &traffic) => {
            counted.end = match &ended {
                Ok(()) => End::Complete,
                Err(error) if is_hanging(error) => End::Hanging,
                Err(error) => End::Broken(error.to_string()),
            };
            (ended, CHANNEL_CLOSE)
        }
        () = local.share.reset() => {
            traffic.stalled.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(local = %target, "connection-reset-stalled");
            counted.end = End::Stalled;
            // Its client is to send no more.
            (Err(io::ErrorKind::TimedOut.into()), Duration::ZERO)
        }
    };
    drop(abandon);
    end_channel(&local, &writer, ended.is_err(), patience).await;
    drop(counted);
    match ended {
        Ok(()) => tracing::debug!(local = %target, "connection-closed"),
        Err(error) => tracing::debug!(local = %target, %error, "connection-broken"),
    }
}

/// Ends a channel whose local service is gone. The server is given a moment to close it itself, as it does once its
/// client has heard of the end.
async fn end_channel(local: &Local, writer: &ChannelWriter, broken: bool, patience: Duration) {
    let by_server = async {
        if broken {
            let _ = writer.finish().await;
        }
        local.until(ChannelEnd::Closed).await;
    };
    if timeout(patience, by_server).await.is_err() {
        writer.close().await;
    }
}

async fn unreachable(opened: Opened, error: &ConnectError, traffic: &Traffic) {
    if traffic.may_tell() {
        let (remote, local) = (&opened.forward.remote, &opened.forward.local);
        match error {
            ConnectError::Forbidden(_) => tracing::warn!(%remote, %local, %error, "local-service-forbidden"),
            ConnectError::Unreachable(_) => {
                tracing::warn!(%remote, %local, %error, "local-service-unreachable");
            }
        }
    }
    opened.reject_unreachable().await;
}

/// The local end of a forwarded connection, as the SSH connection's task sees it.
///
/// That task only adds what arrives to a queue; the connection's own task, which runs as soon as no packet is left to
/// read, hands all of it to the service at once. A write for each packet would wake the service each time: measured, it
/// cost a quarter of the throughput.
#[derive(Debug)]
pub(crate) struct Local {
    stream: TcpStream,
    inbound: Mutex<Inbound>,
    queued: Notify,
    /// How much of the channel is left.
    channel: watch::Sender<ChannelEnd>,
    /// The service has sent something since this was looked at.
    spoke: AtomicBool,
    share: Share,
    passed: Arc<Passed>,
    abandoned: Notify,
}

/// How far the server has ended a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ChannelEnd {
    Open,
    /// The server sends no more. Its client may be waiting for an answer, or gone: sshd can't tell before it writes.
    Eof,
    Closed,
}

#[derive(Debug)]
struct Inbound {
    queue: Queue,
    /// Nothing comes after what is queued.
    complete: bool,
    /// The server sends no more, so the service is to be told.
    eof: bool,
    /// The service has taken all that came for it.
    delivered: bool,
    failed: Option<io::Error>,
    /// The connection is over: what still comes is thrown away.
    over: bool,
}

impl Local {
    fn new(stream: TcpStream, share: Share, traffic: Arc<Traffic>) -> Self {
        let queue = Queue::new(share.spares());
        let inbound =
            Inbound { queue, complete: false, eof: false, delivered: false, failed: None, over: false };
        let inbound = Mutex::new(inbound);
        Self {
            stream,
            inbound,
            queued: Notify::new(),
            channel: watch::Sender::new(ChannelEnd::Open),
            spoke: AtomicBool::new(false),
            share,
            passed: Arc::new(Passed::new(traffic)),
            abandoned: Notify::new(),
        }
    }

    /// Data from the channel. Waits while the tunnel's budget is spent, and while the device's meter is at its limit.
    pub(crate) async fn receive(&self, data: &[u8]) {
        let meter = &self.passed.traffic.meter;
        meter.add(data.len());
        if self.inbound().over {
            return;
        }
        if !meter.has_room() {
            // The SSH connection isn't read any further meanwhile, so that the server can't send more.
            tokio::select! {
                () = meter.room() => {}
                () = self.abandoned.notified() => return,
            }
        }
        self.share.take(data.len()).await;
        let mut inbound = self.inbound();
        if inbound.over {
            return self.share.give_back();
        }
        inbound.queue.push(data);
        if inbound.queue.len() >= GATHER {
            // While it is still in the cache.
            self.write(&mut inbound);
        }
        self.queued.notify_one();
    }

    /// The server sends no more.
    pub(crate) fn eof(&self) {
        let mut inbound = self.inbound();
        (inbound.complete, inbound.eof) = (true, true);
        self.queued.notify_one();
        self.end(ChannelEnd::Eof);
    }

    /// The channel is gone.
    pub(crate) fn close(&self) {
        self.inbound().complete = true;
        self.queued.notify_one();
        self.end(ChannelEnd::Closed);
    }

    fn end(&self, end: ChannelEnd) {
        self.channel.send_if_modified(|now| {
            let further = end > *now;
            *now = end.max(*now);
            further
        });
    }

    /// Waits until the server has ended the channel so far.
    async fn until(&self, end: ChannelEnd) {
        // It only fails without a sender.
        let _ = self.channel.subscribe().wait_for(|now| *now >= end).await;
    }

    /// Waits until nothing has moved for too long although the client has left, or may have.
    async fn until_hanging(&self) {
        let left = async {
            self.until(ChannelEnd::Closed).await;
            self.until_still_for(LINGER).await;
        };
        let half_closed = async {
            self.until(ChannelEnd::Eof).await;
            self.until_still_for(HALF_CLOSED).await;
        };
        tokio::select! {
            () = left => {}
            () = half_closed => {}
        }
    }

    /// Waits until the service has neither taken nor sent anything for so long.
    async fn until_still_for(&self, limit: Duration) {
        self.spoke.store(false, Ordering::Relaxed);
        let mut due = Instant::now() + limit;
        loop {
            tokio::time::sleep_until(due).await;
            let now = Instant::now();
            let progress = Instant::from_std(self.share.progressed()) + limit;
            due = if self.spoke.swap(false, Ordering::Relaxed) { now + limit } else { progress };
            if due <= now {
                return;
            }
        }
    }

    /// The connection is over. Its room is given back at once: the task that calls [`Self::receive`] may be waiting for it.
    fn abandon(&self) {
        let mut inbound = self.inbound();
        inbound.over = true;
        self.abandoned.notify_one();
        inbound.queue.clear();
        self.share.give_back();
        if !inbound.delivered {
            // A reset, because the service would take an orderly end for a complete one. Where it fails the service
            // was faster.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Delivers what is queued, until nothing more comes.
    async fn deliver(&self) -> io::Result<()> {
        loop {
            let waits = {
                let mut inbound = self.inbound();
                self.write(&mut inbound);
                if let Some(error) = inbound.failed.take() {
                    return Err(error);
                }
                if inbound.queue.len() == 0 && inbound.complete {
                    inbound.delivered = true;
                    let eof = inbound.eof;
                    return if eof { SockRef::from(&self.stream).shutdown(Shutdown::Write) } else { Ok(()) };
                }
                inbound.queue.len() > 0
            };
            if waits {
                self.stream.writable().await?;
            } else {
                self.queued.notified().await;
            }
        }
    }

    /// Writes what the service takes now.
    fn write(&self, inbound: &mut Inbound) {
        while inbound.queue.len() > 0 && inbound.failed.is_none() {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let slices = inbound.queue.slices(&mut slices);
            match self.stream.try_write_vectored(slices) {
                Ok(0) => inbound.failed = Some(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    inbound.queue.advance(written);
                    self.share.taken(written);
                    self.passed.add_in(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => inbound.failed = Some(error),
            }
        }
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Abandons a connection however its task ends: a session that is dropped aborts it, and the SSH connection's task, which
/// may be waiting for its room, could otherwise never end.
struct AbandonOnDrop(Arc<Local>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

const HANGING: io::ErrorKind = io::ErrorKind::TimedOut;

/// A TCP connection that timed out has the system's own error.
fn is_hanging(error: &io::Error) -> bool {
    error.kind() == HANGING && error.raw_os_error().is_none()
}

/// Copies both ways until both ends have finished, or either is gone.
///
/// When the server closes the channel, the outbound half ends at once, since its writer would wait for ever; what
/// the local service has not taken yet is still delivered, as long as it takes anything.
async fn copy(local: &Local, writer: &ChannelWriter, traffic: &Traffic) -> io::Result<()> {
    let mut deliver = pin!(local.deliver());
    let mut outbound = pin!(outbound(local, writer));
    let mut hanging = pin!(local.until_hanging());
    let (mut open, mut sent_all, mut delivered_all) = (true, false, false);
    while !(delivered_all && (sent_all || !open)) {
        tokio::select! {
            () = local.until(ChannelEnd::Closed), if open => open = false,
            () = &mut hanging => {
                if traffic.may_tell() {
                    tracing::warn!("connection-dropped-hanging");
                }
                return Err(HANGING.into());
            }
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

/// From the local service to the channel, until the service sends no more.
async fn outbound(local: &Local, writer: &ChannelWriter) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        local.passed.traffic.meter.room().await;
        local.stream.readable().await?;
        buffer.reserve(READ_BYTES);
        let room = buffer.capacity();
        match local.stream.try_read_buf(&mut buffer) {
            Ok(0) => return writer.finish().await,
            Ok(read) => {
                local.spoke.store(true, Ordering::Relaxed);
                let data = buffer.split().freeze();
                if read < room {
                    drained(&local.stream);
                    // An idle connection holds no buffer.
                    buffer = BytesMut::new();
                }
                writer.send(data).await?;
                local.passed.add_out(read);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffer = BytesMut::new(),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A connection's local end, and the service behind it.
    async fn local(budget: usize) -> (Arc<Local>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (service, _) = listener.accept().await.unwrap();
        let share = Budget::new(budget).join();
        (Arc::new(Local::new(stream, share, Arc::default())), service)
    }

    #[tokio::test]
    async fn what_arrives_is_delivered_in_order_however_slowly_it_is_read() {
        const PIECE: usize = 60_000;
        const PIECES: usize = 300;
        let (local, mut service) = local(1 << 20).await;
        let send = async {
            for number in 0..PIECES {
                local.receive(&vec![number as u8; PIECE]).await;
            }
            local.eof();
        };
        let read = async {
            let mut all = Vec::new();
            tokio::time::sleep(Duration::from_millis(50)).await;
            service.read_to_end(&mut all).await.unwrap();
            all
        };
        let ((), delivered, all) = tokio::join!(send, local.deliver(), read);
        delivered.unwrap();
        assert_eq!(all.len(), PIECE * PIECES);
        assert!(
            all.chunks(PIECE)
                .enumerate()
                .all(|(number, piece)| piece.iter().all(|byte| *byte == number as u8))
        );
        assert_eq!(local.passed.traffic.bytes_in(), all.len() as u64);
        assert_eq!(local.passed.traffic.meter.bytes(), all.len() as u64);
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_lets_go_of_who_waits_for_its_room() {
        let (local, _service) = local(1 << 20).await;
        let abandon = AbandonOnDrop(local.clone());
        let fill = tokio::spawn(async move {
            loop {
                local.receive(&[7; 60_000]).await;
                if local.inbound().over {
                    return;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!fill.is_finished(), "the budget is spent, and nobody reads");
        drop(abandon);
        timeout(Duration::from_secs(5), fill).await.expect("it is let go").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_is_given_up_after_its_client_has_left_and_much_later_after_its_eof() {
        for (end, limit) in [(ChannelEnd::Closed, LINGER), (ChannelEnd::Eof, HALF_CLOSED)] {
            let (local, _service) = local(1 << 20).await;
            assert!(timeout(HALF_CLOSED * 2, local.until_hanging()).await.is_err(), "its client is there");
            local.receive(b"never taken").await;
            local.end(end);
            let began = Instant::now();
            let speaks = async {
                tokio::time::sleep(limit / 2).await;
                local.spoke.store(true, Ordering::Relaxed);
            };
            tokio::join!(local.until_hanging(), speaks);
            assert_eq!(began.elapsed().as_secs(), (limit * 2).as_secs(), "it spoke in between");
        }
    }
}
