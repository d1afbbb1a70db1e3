//! The other end of `/dev/log`: a datagram socket that keeps every message.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::{LONG, wait_until};

/// Longer than any message may be, so that one which is too long is seen whole.
const BUFFER: usize = 64 * 1024;

/// A syslog daemon that writes nothing and remembers everything.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    // A thread of its own: while nobody reads, the kernel takes ten messages and then refuses.
    reader: Option<JoinHandle<()>>,
}

impl Syslog {
    /// Listens at `path`.
    pub fn start(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("the syslog socket can be bound");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; BUFFER];
            // An empty datagram is the sign to end.
            while let Ok(length @ 1..) = socket.recv(&mut buffer) {
                let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
                kept.lock().expect("no reader panics").push(line);
            }
        });
        Self { path: path.to_owned(), lines, reader: Some(reader) }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The messages so far, each with its priority, time and tag.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// Waits for a message that contains `part`, and returns it.
    pub async fn line_with(&self, part: &str) -> String {
        wait_until(&format!("a syslog line with {part:?}"), LONG, async || {
            self.lines().into_iter().find(|line| line.contains(part))
        })
        .await
    }

    /// How many messages contain `part`.
    pub fn count(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }
}

impl Syslog {
    /// Listens no more; its socket's file stays.
    pub fn stop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let sign = UnixDatagram::unbound().and_then(|socket| socket.send_to(&[], &self.path));
        if sign.is_ok() {
            let _ = reader.join();
        }
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.stop();
    }
}
