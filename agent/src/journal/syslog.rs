//! syslog by RFC 3164 over a Unix datagram socket.
//!
//! BusyBox may read only 256 bytes of a message and knows no RFC 5424. The socket never blocks: what syslogd doesn't
//! take is counted and told of later, and a syslogd that was restarted is found again.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::Level;

use crate::clock;
use crate::limits::SYSLOG_LINE_BYTES;

/// Facility `daemon` (RFC 3164, 4.1.1).
const DAEMON: u8 = 3;

pub(super) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    dropped: u64,
}

impl Syslog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None, dropped: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a line, or counts it as dropped.
    pub(super) fn send(&mut self, level: Level, line: &str) {
        if self.dropped > 0 && self.try_send(Level::WARN, &format!("log-dropped lines={}", self.dropped)) {
            self.dropped = 0;
        }
        if !self.try_send(level, line) {
            self.dropped += 1;
        }
    }

    fn try_send(&mut self, level: Level, line: &str) -> bool {
        let packet = packet(level, line);
        // A socket of before syslogd's restart fails once; a full one stays, and this line is dropped.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = self.connect();
            }
            let Some(socket) = &self.socket else { return false };
            match socket.send(packet.as_bytes()) {
                Ok(_) => return true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(_) => self.socket = None,
            }
        }
        false
    }

    fn connect(&self) -> Option<UnixDatagram> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(&self.path).ok()?;
        Some(socket)
    }
}

/// Facility and severity (RFC 3164, 4.1.1; the same in RFC 5424, 6.2.1).
pub(super) fn priority(level: Level) -> u8 {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    DAEMON * 8 + severity
}

/// The line with its header, cut where it is too long. Lines are ASCII, so a cut splits no character.
fn packet(level: Level, line: &str) -> String {
    let (priority, time) = (priority(level), clock::rfc3164());
    let mut packet = format!("<{priority}>{time} ocpp-tunnel[{}]: {line}", std::process::id());
    if packet.len() > SYSLOG_LINE_BYTES {
        packet.truncate(SYSLOG_LINE_BYTES - 3);
        packet.push_str("...");
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn lines_have_a_header_and_a_bound() {
        let packet = packet(Level::WARN, &"x".repeat(500));
        assert_eq!(packet.len(), SYSLOG_LINE_BYTES);
        assert!(packet.starts_with("<28>"), "{packet}");
        assert!(packet.contains(&format!(" ocpp-tunnel[{}]: xxx", std::process::id())), "{packet}");
        assert!(packet.ends_with("x..."), "{packet}");
    }

    #[test]
    fn a_restarted_syslogd_is_found_again_and_told_what_it_missed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut syslog = Syslog::new(path.clone());
        syslog.send(Level::INFO, "before");

        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.send(Level::INFO, "first");
        assert!(receive(&daemon).ends_with("log-dropped lines=1"));
        assert!(receive(&daemon).ends_with("first"));

        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        syslog.send(Level::INFO, "lost");
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.send(Level::INFO, "second");
        assert!(receive(&daemon).ends_with("log-dropped lines=1"));
        assert!(receive(&daemon).ends_with("second"));
    }

    #[test]
    fn a_syslogd_that_reads_nothing_blocks_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::new(path);
        for _ in 0..100_000 {
            syslog.send(Level::INFO, "line");
        }
        assert!(syslog.dropped > 0);
    }
}
