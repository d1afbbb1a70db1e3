//! Tells those who wait that the network has come back: a link, an address or a default route has appeared.
//!
//! The kernel says so on a netlink socket (rtnetlink(7)), which needs no privileges. What it says is read by
//! [`netlink`]; how often it is passed on is decided by [`pacing`]. Where there is no netlink, waits just take their time.

mod netlink;
mod pacing;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::sleep_until;

use self::netlink::{GROUPS, Seen};
use self::pacing::Pacing;
use crate::limits::NETLINK_BYTES;

/// Starts watching; the receiver changes when a try may succeed that failed before. Its sender is gone where there is
/// no netlink. Call it within a runtime.
#[must_use]
pub fn watch() -> watch::Receiver<()> {
    let (sender, receiver) = watch::channel(());
    match open() {
        Ok(socket) => {
            tokio::spawn(run(socket, sender));
        }
        Err(error) => tracing::debug!(%error, "network-not-watched"),
    }
    receiver
}

fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 of this family is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    register(socket)
}

/// tokio wants its callers to promise that a type never closes or changes its descriptor while it is registered, which
/// takes `unsafe` even where the type can't do otherwise. An [`OwnedFd`] can't.
#[expect(
    deprecated,
    reason = "the constructor that isn't deprecated is unsafe, and this crate has no unsafe code"
)]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// Runs until nobody listens any more.
async fn run(socket: AsyncFd<OwnedFd>, sender: watch::Sender<()>) {
    let mut seen = Seen::default();
    let mut pacing = Pacing::new(fastrand::Rng::new(), Instant::now());
    let mut buffer = vec![0; NETLINK_BYTES];
    loop {
        let due = pacing.poll_timeout();
        let timer = sleep_until(due.unwrap_or_else(Instant::now).into());
        tokio::select! {
            received = receive(&socket, &mut buffer) => match received {
                Ok(length) => {
                    if seen.handle(buffer.get(..length).unwrap_or_default()) {
                        pacing.handle_appeared(Instant::now());
                    }
                }
                // The kernel had more to say than its buffer holds: something may have appeared.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                    pacing.handle_appeared(Instant::now());
                }
                Err(error) => return tracing::debug!(%error, "network-not-watched"),
            },
            () = timer, if due.is_some() => {
                if pacing.handle_timeout(Instant::now()) {
                    tracing::debug!("network-returned");
                    sender.send_replace(());
                }
            }
            () = sender.closed() => return,
        }
    }
}

/// Receives one datagram of the kernel.
async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = socket.readable().await?;
        let received =
            ready.try_io(|socket| Ok(recvfrom(socket.get_ref(), &mut *buffer, RecvFlags::empty())?));
        let Ok(received) = received else { continue };
        let (_, length, from) = received?;
        let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
        // Port 0 is the kernel's.
        if from.is_some_and(|from| from.pid() == 0) {
            return Ok(length);
        }
    }
}
