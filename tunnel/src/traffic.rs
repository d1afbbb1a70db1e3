//! What passes through a tunnel: its counters, and each forwarded connection's own.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::events::{ConnectionEnd, End, Event, Events};
use crate::forward::Forward;
use crate::limits::REFUSALS_TOLD;
use crate::meter::Meter;
use crate::ssh::Opened;

/// The two ends of a local socket: ours, and the service's.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// What has passed through a tunnel since it was asked for, over all its SSH connections.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// The local sockets of the connections that are open.
    open: Mutex<Vec<Option<Ends>>>,
    pub(crate) stalled: AtomicU64,
    told: AtomicU32,
    changed: Notify,
    pub(crate) meter: Arc<Meter>,
}

impl Traffic {
    /// Counters of a new tunnel, which also shows on the device's meter.
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        Self { meter, ..Self::default() }
    }

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
        self.open().len()
    }

    /// Is one of them what a local service knows as the connection from `client` to its own address `server`? An IPv4 address
    /// and the IPv6 address that it is mapped to are the same.
    #[must_use]
    pub fn carries(&self, client: SocketAddr, server: SocketAddr) -> bool {
        let asked = (canonical(client), canonical(server));
        let is_asked = |ends: &Ends| (canonical(ends.0), canonical(ends.1)) == asked;
        self.open().iter().flatten().any(is_asked)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Option<Ends>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that were reset because their local service took nothing while others waited.
    #[must_use]
    pub fn stalled(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
    }

    /// May the log tell of one more connection that failed? Whoever reaches the published port could fill it.
    pub(crate) fn may_tell(&self) -> bool {
        self.told.fetch_add(1, Ordering::Relaxed) < REFUSALS_TOLD
    }

    /// Waits until a connection is opened or closed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// What has passed through one connection, which its tunnel counts as well.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) traffic: Arc<Traffic>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Passed {
    pub(crate) fn new(traffic: Arc<Traffic>) -> Self {
        Self { traffic, bytes_in: AtomicU64::new(0), bytes_out: AtomicU64::new(0) }
    }

    /// The local service has taken so much.
    pub(crate) fn add_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.traffic.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The server has been sent so much.
    pub(crate) fn add_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.traffic.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.traffic.meter.add(bytes);
    }
}

/// Counts a connection for as long as it lives, and tells of its end, however that comes.
pub(crate) struct Counted {
    passed: Arc<Passed>,
    events: Events,
    forward: Forward,
    originator: String,
    ends: Option<Ends>,
    since: Instant,
    /// Until it ends by itself, only the tunnel's end can end it.
    pub(crate) end: End,
}

impl Counted {
    /// `ends`: of the local socket, as far as it could be asked.
    pub(crate) fn new(
        passed: Arc<Passed>,
        events: Events,
        opened: &Opened,
        ends: Option<Ends>,
        since: Instant,
    ) -> Self {
        passed.traffic.open().push(ends);
        passed.traffic.changed.notify_one();
        let (forward, originator) = (opened.forward.clone(), opened.originator.clone());
        Self { passed, events, forward, originator, ends, since, end: End::TunnelEnded }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        {
            let mut open = self.passed.traffic.open();
            if let Some(place) = open.iter().position(|ends| *ends == self.ends) {
                open.swap_remove(place);
            }
        }
        self.passed.traffic.changed.notify_one();
        self.events.tell(Event::Connection(ConnectionEnd {
            forward: self.forward.clone(),
            originator: std::mem::take(&mut self.originator),
            bytes_in: self.passed.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.passed.bytes_out.load(Ordering::Relaxed),
            lasted: self.since.elapsed(),
            end: self.end.clone(),
        }));
    }
}

/// Tells of a connection that never began.
pub(crate) fn tell_refused(events: &Events, opened: &Opened, lasted: Duration, end: End) {
    events.tell(Event::Connection(ConnectionEnd {
        forward: opened.forward.clone(),
        originator: opened.originator.clone(),
        bytes_in: 0,
        bytes_out: 0,
        lasted,
        end,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_its_two_ends() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let traffic = Traffic::default();
        let ends = (address("127.0.0.1:40000"), address("127.0.0.1:22"));
        traffic.open().extend([None, Some(ends)]);
        assert_eq!(traffic.connections(), 2);
        assert!(traffic.carries(ends.0, ends.1));
        assert!(
            traffic.carries(address("[::ffff:127.0.0.1]:40000"), ends.1),
            "as a server that listens on :: has it"
        );
        assert!(!traffic.carries(ends.1, ends.0));
        assert!(!traffic.carries(address("127.0.0.1:40001"), ends.1));
        assert!(!traffic.carries(ends.0, address("127.0.0.2:22")));
    }
}
