//! A line of the log as RFC 5424 wants it on its way to a collector.

use tracing::Level;

use super::syslog::priority;
use crate::clock;
use crate::limits::SYSLOG_MESSAGE_BYTES;

/// What every message of this process has in common.
#[derive(Debug)]
pub(super) struct Messages {
    hostname: String,
    sequence: u32,
}

/// The highest `sequenceId`; after it comes 1 (RFC 5424, 7.3.1).
const LAST: u32 = 2_147_483_647;

impl Messages {
    pub(super) const fn new() -> Self {
        Self { hostname: String::new(), sequence: 0 }
    }

    /// The next message. Its number tells a collector whether one was lost on the way.
    pub(super) fn next(&mut self, level: Level, line: &str) -> String {
        if self.hostname.is_empty() {
            self.hostname = hostname();
        }
        self.sequence = self.sequence % LAST + 1;
        let time = match clock::is_set() {
            true => clock::rfc3339_millis(clock::now()),
            // Better none than a wrong one (RFC 5424, 6.2.3).
            false => NIL.into(),
        };
        let name = line.split(' ').next().filter(|name| is_name(name, 32)).unwrap_or(NIL);
        let mut message = format!(
            "<{priority}>1 {time} {hostname} ocpp-tunnel {process} {name} \
             [meta sequenceId=\"{sequence}\"][origin software=\"ocpp-tunnel\" swVersion=\"{version}\"] {line}",
            priority = priority(level),
            hostname = self.hostname,
            process = std::process::id(),
            sequence = self.sequence,
            version = env!("CARGO_PKG_VERSION"),
        );
        if message.len() > SYSLOG_MESSAGE_BYTES {
            // Lines are ASCII, so a cut splits no character.
            message.truncate(SYSLOG_MESSAGE_BYTES - 3);
            message.push_str("...");
        }
        message
    }
}

/// RFC 5424's word for a value that there isn't.
const NIL: &str = "-";

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim_end();
    if is_name(name, 255) { name.to_owned() } else { NIL.to_owned() }
}

/// Printable ASCII without spaces, of at most so many characters (RFC 5424, 6).
fn is_name(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_parts_of_rfc_5424() {
        let mut messages = Messages::new();
        messages.next(Level::INFO, "first");
        let message = messages.next(Level::WARN, "tunnel-down slot=1 error=\"a b\"");
        let parts: Vec<&str> = message.splitn(7, ' ').collect();
        assert_eq!(parts[0], "<28>1");
        assert!(chrono::DateTime::parse_from_rfc3339(parts[1]).is_ok(), "{message}");
        assert_eq!(parts[2], hostname());
        assert_eq!(parts[3..6], ["ocpp-tunnel", &std::process::id().to_string(), "tunnel-down"]);
        let data = format!(
            "[meta sequenceId=\"2\"][origin software=\"ocpp-tunnel\" swVersion=\"{}\"] ",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(parts[6], data + "tunnel-down slot=1 error=\"a b\"");
    }

    #[test]
    fn a_message_has_a_bound_and_its_number_comes_round() {
        let mut messages = Messages { sequence: LAST, ..Messages::new() };
        let message = messages.next(Level::DEBUG, &"x".repeat(5000));
        assert_eq!(message.len(), SYSLOG_MESSAGE_BYTES);
        assert!(message.contains(" - [meta sequenceId=\"1\"]") && message.ends_with("x..."), "{message}");
    }
}
