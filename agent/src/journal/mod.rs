//! The log: each event as one line, to stderr, to syslog, to a collector in the network, and to memory.
//!
//! A line is the event's name and its fields, `tunnel-up slot=1 server=ops@203.0.113.7`. Whatever came from outside
//! is escaped, so that nothing can forge a line or speak to a terminal.

mod flood;
mod format;
mod remote;
mod rfc5424;
pub mod ring;
mod syslog;

use std::fs::Metadata;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use self::flood::Flood;
use self::remote::Queue;
use self::syslog::Syslog;
use crate::clock;
use crate::config::Log;

pub use format::{escape, value};
pub use remote::{Collector, CollectorError, RemoteLog, RemoteStatus, RemoteView};

/// What waits for the collector.
static REMOTE: Queue = Queue::new();

/// Where lines go besides syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// Every line.
    Everything,
    /// Nothing: the terminal belongs to a command's own words, or to nobody.
    Nothing,
}

/// The local syslog, if there is one; another one after a reload.
static SYSLOG: Mutex<Option<Syslog>> = Mutex::new(None);

/// The level, which a reload may change.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts the log for the rest of the process. A second call changes nothing.
pub fn init(log: &Log, stderr: Stderr) {
    let journal = Journal {
        has_remote: log.remote.is_some(),
        // The journal of systemd takes both, and would show each line twice.
        stderr: if log.syslog.is_some() && stderr_is_journal() { Stderr::Nothing } else { stderr },
        flood: Mutex::default(),
        colour: std::io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let (level, handle) = reload::Layer::new(log.level);
    if tracing_subscriber::registry().with(level).with(journal).try_init().is_ok() {
        let _ = LEVEL.set(handle);
        set_syslog(log);
    }
}

/// Does standard error lead to systemd's journal (systemd.exec(5), `JOURNAL_STREAM`)?
fn stderr_is_journal() -> bool {
    let is_same = |stream: &str, stderr: Metadata| stream == format!("{}:{}", stderr.dev(), stderr.ino());
    let stderr = std::fs::metadata("/proc/self/fd/2");
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stderr.is_ok_and(|stderr| is_same(&stream, stderr)))
}

/// Takes up another level and another syslog.
pub fn change(log: &Log) {
    if let Some(level) = LEVEL.get() {
        // It only fails once the log has ended, and it never does.
        let _ = level.modify(|level| *level = log.level);
    }
    set_syslog(log);
}

fn set_syslog(log: &Log) {
    let mut syslog = SYSLOG.lock().unwrap_or_else(PoisonError::into_inner);
    // The same one keeps its count of what it has dropped.
    if syslog.as_ref().map(Syslog::path) != log.syslog.as_deref() {
        *syslog = log.syslog.clone().map(Syslog::new);
    }
}

/// Starts sending the log to its collector, if there is one. Must be called within the runtime.
#[must_use]
pub fn start_remote(log: &Log) -> Option<RemoteLog> {
    log.remote.clone().map(|collector| RemoteLog::start(&REMOTE, collector))
}

struct Journal {
    has_remote: bool,
    stderr: Stderr,
    flood: Mutex<Flood>,
    colour: bool,
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let (level, place) = (*event.metadata().level(), event.metadata().callsite());
        let line = format::line(event);
        let name = line.split(' ').next().unwrap_or_default();
        let (admitted, left_out) = {
            let (mut flood, now) =
                (self.flood.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
            (flood.admit(place, level, name, now), flood.left_out(now))
        };
        for (name, lines) in left_out {
            self.write(Level::WARN, &format!("log-lines-left-out of={name} lines={lines}"));
        }
        if admitted {
            self.write(level, &line);
        }
    }
}

impl Journal {
    fn write(&self, level: Level, line: &str) {
        ring::push(&format!("{} {level:>5} {line}", clock::rfc3339(clock::for_records())));
        if let Some(syslog) = &mut *SYSLOG.lock().unwrap_or_else(PoisonError::into_inner) {
            syslog.send(level, line);
        }
        if self.has_remote {
            REMOTE.push(level, line);
        }
        if self.stderr == Stderr::Everything {
            let (on, off) = if self.colour { (colour(level), "\x1b[0m") } else { ("", "") };
            let text = format!("{on}{level:>5}{off} {line}\n");
            // A closed stderr must not end the agent.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        }
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[2m",
    }
}
