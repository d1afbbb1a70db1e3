//! What is uploaded: one text file, made when it is asked for.
//!
//! A security log is the audit records as they were written, JSON lines. Diagnostics are what a person who helps asks for first:
//! version, status, configuration, the log that is kept in memory, and the newest audit records. Neither holds a secret: the
//! configuration names only the files of secrets, and the query of the CSMS's URL is left out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ocpp_bridge::{LogKind, UploadSubject};
use serde::Deserialize;
use tokio::sync::watch;

use crate::config::Config;
use crate::control::document::Observed;
use crate::limits::{UPLOAD_AUDIT_BYTES, UPLOAD_IDENTITY_CHARACTERS, UPLOAD_TAIL_BYTES};
use crate::{audit, clock, journal};

/// A file to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Letters, digits, `.`, `_` and `-`.
    pub(super) name: String,
    /// For the header `Content-Type`.
    pub(super) content_type: &'static str,
    /// All of it.
    pub(super) bytes: Vec<u8>,
}

/// From when to when records are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Period {
    /// Nothing older.
    pub(super) oldest: Option<DateTime<Utc>>,
    /// Nothing newer.
    pub(super) latest: Option<DateTime<Utc>>,
}

/// Where the content comes from.
#[derive(Clone, Debug)]
pub struct Sources {
    observed: Observed,
    audit: PathBuf,
    configuration: watch::Receiver<Arc<Config>>,
    identity: String,
    /// URLs whose query may be a secret.
    urls: Vec<String>,
}

impl Sources {
    /// Those of a running agent.
    #[must_use]
    pub fn new(configuration: watch::Receiver<Arc<Config>>, observed: Observed) -> Self {
        let config = configuration.borrow().clone();
        let urls = config.ocpp.iter().flat_map(|ocpp| &ocpp.urls).map(ToString::to_string);
        Self {
            observed,
            audit: audit::directory(&config.state_dir),
            configuration,
            identity: config.identity.clone().unwrap_or_default(),
            urls: urls.filter(|url| url.contains('?')).collect(),
        }
    }

    /// The name of a file that is made now.
    pub(super) fn file_name(&self, subject: UploadSubject) -> String {
        file_name(&self.identity, subject, &clock::rfc3339(clock::for_records()))
    }

    /// Makes the file. It reads files, and may take a moment.
    pub(super) fn file(&self, subject: UploadSubject, name: String, period: Period) -> io::Result<File> {
        if is_security_log(subject) {
            let records = audit::read_all(&self.audit, UPLOAD_AUDIT_BYTES)?;
            let bytes = within(&records, period);
            return Ok(File { name, content_type: "application/x-ndjson", bytes });
        }
        let text = self.without_queries(&self.diagnostics(period));
        Ok(File { name, content_type: "text/plain; charset=utf-8", bytes: text.into_bytes() })
    }

    fn diagnostics(&self, period: Period) -> String {
        let status = serde_json::to_string_pretty(&self.observed.document()).unwrap_or_default();
        let log = within(&journal::ring::snapshot(), period);
        let audit = match audit::read_all(&self.audit, UPLOAD_TAIL_BYTES) {
            Ok(records) => String::from_utf8_lossy(&within(&records, period)).into_owned(),
            // The rest is worth having without it.
            Err(error) => format!("can't be read: {error}\n"),
        };
        let seconds = |time: std::time::Duration| std::time::Duration::from_secs(time.as_secs());
        format!(
            "ocpp-tunnel {version}\n\
             charge point: {identity}\n\
             made: {made}\n\
             agent up: {up}\n\
             system up: {system}\n\
             \n=== status\n{status}\n\
             \n=== configuration\n{configuration}\
             \n=== log\n{log}\
             \n=== audit\n{audit}",
            version = env!("CARGO_PKG_VERSION"),
            identity = journal::escape(&self.identity),
            made = clock::rfc3339(clock::for_records()),
            up = humantime::format_duration(seconds(self.observed.started.elapsed())),
            system = humantime::format_duration(seconds(clock::uptime())),
            configuration = self.configuration.borrow().to_toml(),
            log = String::from_utf8_lossy(&log),
        )
    }

    fn without_queries(&self, text: &str) -> String {
        self.urls.iter().fold(text.to_owned(), |text, url| {
            let bare = url.split('?').next().unwrap_or_default();
            text.replace(url.as_str(), &format!("{bare}?..."))
        })
    }
}

fn is_security_log(subject: UploadSubject) -> bool {
    matches!(subject, UploadSubject::Log { kind: LogKind::Security, .. })
}

/// `CP001-diagnostics-20261122T012246Z.txt`. The CSMS has no part in it.
fn file_name(identity: &str, subject: UploadSubject, now: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let mut identity: String = identity.chars().take(UPLOAD_IDENTITY_CHARACTERS).map(plain).collect();
    if identity.is_empty() || identity.starts_with('.') {
        identity.insert(0, '_');
    }
    let stamp = now.replace(['-', ':'], "");
    match is_security_log(subject) {
        true => format!("{identity}-security-{stamp}.jsonl"),
        false => format!("{identity}-diagnostics-{stamp}.txt"),
    }
}

/// The lines of a period. A line without a readable time stays with the one before it.
fn within(lines: &[u8], period: Period) -> Vec<u8> {
    if period == Period::default() {
        return lines.to_vec();
    }
    let mut inside = true;
    let mut kept = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if let Some(time) = time_of(line) {
            inside = period.oldest.is_none_or(|oldest| oldest <= time)
                && period.latest.is_none_or(|latest| time <= latest);
        }
        if inside {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// An audit record's `time`, or a log line's first word.
fn time_of(line: &[u8]) -> Option<DateTime<Utc>> {
    #[derive(Deserialize)]
    struct Record {
        time: String,
    }
    let text = std::str::from_utf8(line).ok()?;
    let time = match text.starts_with('{') {
        true => serde_json::from_str::<Record>(text).ok()?.time,
        false => text.split(' ').next()?.to_owned(),
    };
    DateTime::parse_from_rfc3339(&time).ok().map(|time| time.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: UploadSubject = UploadSubject::Log { kind: LogKind::Security, request_id: 1 };

    #[test]
    fn file_names_are_made_of_harmless_characters() {
        let name = |identity: &str| file_name(identity, UploadSubject::Diagnostics, "2026-11-22T01:22:46Z");
        assert_eq!(name("CP001"), "CP001-diagnostics-20261122T012246Z.txt");
        assert_eq!(name("../../etc/\"x\r\ny"), "_.._.._etc__x__y-diagnostics-20261122T012246Z.txt");
        assert!(name(&"\u{e9}".repeat(300)).len() < 120);
        assert_eq!(file_name("", LOG, "2026-11-22T01:22:46Z"), "_-security-20261122T012246Z.jsonl");
    }

    #[test]
    fn lines_outside_the_period_are_left_out() {
        let time = |text: &str| Some(DateTime::parse_from_rfc3339(text).unwrap().to_utc());
        let log = "2026-11-22T01:00:00Z  INFO one\n2026-11-22T02:00:00Z  INFO two\n  more of two\n2026-11-22T03:00:00Z  INFO three\n";
        let records = "{\"seq\":1,\"time\":\"2026-11-22T01:00:00.5Z\"}\n{\"seq\":2,\"time\":\"2026-11-22T02:00:00Z\"}\n";
        let kept = |lines: &str, oldest: &str, latest: &str| {
            let period = Period {
                oldest: if oldest.is_empty() { None } else { time(oldest) },
                latest: if latest.is_empty() { None } else { time(latest) },
            };
            String::from_utf8(within(lines.as_bytes(), period)).unwrap()
        };
        assert_eq!(kept(log, "", ""), log);
        assert_eq!(
            kept(log, "2026-11-22T02:00:00Z", "2026-11-22T02:30:00Z"),
            "2026-11-22T02:00:00Z  INFO two\n  more of two\n"
        );
        assert_eq!(kept(log, "2026-11-22T02:30:00Z", ""), "2026-11-22T03:00:00Z  INFO three\n");
        assert_eq!(kept(log, "", "2026-11-22T00:30:00Z"), "");
        assert_eq!(
            kept(records, "2026-11-22T01:30:00Z", ""),
            "{\"seq\":2,\"time\":\"2026-11-22T02:00:00Z\"}\n"
        );
    }
}
