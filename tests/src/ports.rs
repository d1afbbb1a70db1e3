//! Ports for listeners that are started later, by other processes.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Below the range that systems pick outgoing ports from, so that no connection takes a port meanwhile.
const FIRST: u16 = 12_000;
const LAST: u16 = 31_999;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nothing listens on, on either loopback address, and that no other call in this process returns.
///
/// # Panics
/// If there is none.
pub fn free() -> u16 {
    // Test binaries that run at the same time begin at different places.
    let spread = u16::try_from(std::process::id() % 100).unwrap_or(0) * 200;
    for _ in FIRST..=LAST {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(spread) % (LAST - FIRST + 1);
        if is_free(FIRST + offset) {
            return FIRST + offset;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}

/// Whether a listener could be bound to this port on the loopback addresses.
pub fn is_free(port: u16) -> bool {
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    // A machine without IPv6 has nothing that could be taken there.
    let v6_taken = v6.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
    v4.is_ok() && !v6_taken
}

/// Whether something on 127.0.0.1 accepts connections to this port.
pub fn answers(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}
