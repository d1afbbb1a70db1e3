//! One record: what IEC 62443-4-2, CR 2.8 asks for (time, source, category, type, event id and result), and what there is
//! to tell besides, as one line of JSON.
//!
//! Whatever comes from outside is text with a bound, escaped to printable ASCII, so that no record can forge another one
//! or speak to a terminal.

use std::fmt::{self, Write};

use crate::clock;
use crate::limits::AUDIT_TEXT_CHARACTERS;
use crate::supervisor;

/// What happened. Names, numbers and categories are for other people's tools: they may only be added to.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $word:literal, $category:ident;)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$doc])* $variant = $id,)*
        }

        impl Kind {
            /// All of them, in the order of their ids.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// The record's `type`.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Kind::$variant => $word,)*
                }
            }

            /// The record's `category`.
            #[must_use]
            pub fn category(self) -> Category {
                match self {
                    $(Kind::$variant => Category::$category,)*
                }
            }
        }
    };
}

kinds! {
    /// Somebody asked for a tunnel, and got it.
    TunnelRequested = 101, "tunnel-requested", AccessControl;
    /// Somebody asked for a tunnel that there is: its time begins anew.
    TunnelExtended = 102, "tunnel-extended", AccessControl;
    /// Somebody asked for a tunnel, and didn't get it.
    TunnelRefused = 103, "tunnel-refused", RequestError;
    /// Somebody asked for a tunnel's end.
    TunnelCloseRequested = 104, "tunnel-close-requested", AccessControl;
    /// A tunnel is up: the server listens.
    TunnelOpened = 105, "tunnel-opened", AccessControl;
    /// A tunnel that was up isn't any more, and tries to come back.
    TunnelLost = 106, "tunnel-lost", AccessControl;
    /// A tunnel is over.
    TunnelClosed = 107, "tunnel-closed", AccessControl;
    /// A tunnel that was wanted before the agent's restart is opened again.
    TunnelRestored = 108, "tunnel-restored", AccessControl;
    /// A tunnel that was wanted before the agent's restart may not be any more.
    TunnelNotRestored = 109, "tunnel-not-restored", RequestError;
    /// Everything is closed, since `policy.disable_file` exists.
    AccessDisabled = 110, "access-disabled", AccessControl;
    /// Everything is closed, since the month's bytes are used up.
    DataCapReached = 111, "data-cap-reached", AccessControl;
    /// Somebody had the self-check log in to a server.
    ServerChecked = 112, "server-checked", AccessControl;
    /// The CSMS asked for a log, and an upload has begun.
    UploadBegun = 121, "upload-begun", AccessControl;
    /// The CSMS asked for a log, and doesn't get it.
    UploadRefused = 122, "upload-refused", RequestError;
    /// An upload is over.
    UploadEnded = 123, "upload-ended", AccessControl;
    /// A forwarded connection is over.
    ConnectionEnded = 201, "connection-ended", AccessControl;
    /// A forwarded connection was refused.
    ConnectionRefused = 202, "connection-refused", RequestError;
    /// The device made its first key.
    DeviceKeyMade = 301, "device-key-made", ConfigurationChange;
    /// A new key was made, and is offered beside the old one.
    DeviceKeyRotation = 302, "device-key-rotation", ConfigurationChange;
    /// The new key was given up.
    DeviceKeyRotationAborted = 303, "device-key-rotation-aborted", ConfigurationChange;
    /// The new key has taken the old one's place.
    DeviceKeyChanged = 304, "device-key-changed", ConfigurationChange;
    /// A person had the device's key authorised on a server.
    DeviceKeyInstalled = 305, "device-key-installed", ConfigurationChange;
    /// A person had the device's key taken off a server.
    DeviceKeyRemoved = 306, "device-key-removed", ConfigurationChange;
    /// An unknown server's host key was learned.
    HostKeyLearned = 311, "host-key-learned", ConfigurationChange;
    /// A known server announced and proved other host keys.
    HostKeysExchanged = 312, "host-keys-exchanged", ConfigurationChange;
    /// A person vouched for a server's host keys.
    HostKeysTrusted = 313, "host-keys-trusted", ConfigurationChange;
    /// A person had a server's host keys forgotten.
    HostKeysRemoved = 314, "host-keys-removed", ConfigurationChange;
    /// The CSMS changed a configuration key.
    ConfigurationChanged = 401, "configuration-changed", ConfigurationChange;
    /// The CSMS changed what the OCPP link proves itself with, or wanted to. Not one of the above: a flood of those must not
    /// hide it.
    LinkSecurityChanged = 402, "link-security-changed", ConfigurationChange;
    /// A reload changed a configuration key. Not one of those of the CSMS either.
    ConfigurationReloaded = 403, "configuration-reloaded", ConfigurationChange;
    /// The configuration files have a mistake: a reload changed nothing.
    ConfigurationInvalid = 404, "configuration-invalid", ConfigurationChange;
    /// The agent has started.
    AgentStarted = 501, "agent-started", System;
    /// The agent has stopped in good order.
    AgentStopped = 502, "agent-stopped", System;
    /// Records were lost.
    RecordsLost = 601, "records-lost", AuditLog;
    /// There were too many of one type: those that have no record of their own, summed up.
    RecordsSummed = 602, "records-summed", AuditLog;
}

/// What kind of event it is (IEC 62443-4-2, CR 2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Who was let in.
    AccessControl,
    /// Who wasn't.
    RequestError,
    /// The agent itself.
    System,
    /// Keys and configuration.
    ConfigurationChange,
    /// The records themselves.
    AuditLog,
}

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The CSMS, over a link that fulfils this security profile.
    Ocpp {
        /// 0 to 3; unknown if the link has gone meanwhile.
        profile: Option<u8>,
    },
    /// A process on this device.
    Local {
        /// Its user.
        uid: u32,
        /// Its process.
        pid: i32,
    },
    /// The configuration file, or a file that it names.
    Configuration,
    /// A tunnel: its server, or who uses it.
    Tunnel,
    /// The agent itself.
    Agent,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Success,
    /// It was refused.
    Refused,
    /// It failed.
    Failure,
}

/// A record in the making: all but its sequence number, which it is given when it is written.
#[derive(Clone, Debug)]
pub struct Record {
    kind: Kind,
    success: bool,
    /// Members of a JSON object, without its braces.
    members: String,
    bytes: (u64, u64),
}

impl Record {
    /// A record of what has just happened.
    #[must_use]
    pub fn new(kind: Kind, source: Source, outcome: Outcome) -> Self {
        let record =
            Self { kind, success: outcome == Outcome::Success, members: String::new(), bytes: (0, 0) };
        let uptime = clock::uptime();
        record
            .text("time", &clock::rfc3339_millis(clock::for_records()))
            .text("clock", clock::word())
            .raw("uptime", format_args!("{}.{:03}", uptime.as_secs(), uptime.subsec_millis()))
            .raw("source", format_args!("{source}"))
            .text("category", kind.category().word())
            .text("type", kind.word())
            .number("event", kind as u64)
            .text("result", outcome.word())
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it came to something.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.success
    }

    /// Bytes in and out, for a sum of many.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.bytes
    }

    /// Adds a text. What is longer than [`AUDIT_TEXT_CHARACTERS`] is cut and ends with `...`.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.begin(name);
        push_text(&mut self.members, text);
        self
    }

    /// Adds texts, at most eight.
    #[must_use]
    pub fn texts(mut self, name: &str, texts: impl IntoIterator<Item = String>) -> Self {
        self.begin(name);
        self.members.push('[');
        for (index, text) in texts.into_iter().take(AUDIT_TEXTS).enumerate() {
            if index > 0 {
                self.members.push(',');
            }
            push_text(&mut self.members, &text);
        }
        self.members.push(']');
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, name: &str, number: u64) -> Self {
        self.raw(name, format_args!("{number}"))
    }

    /// Adds the bytes of a connection or a tunnel: to local services, and from them.
    #[must_use]
    pub fn traffic(mut self, bytes_in: u64, bytes_out: u64) -> Self {
        self.bytes = (bytes_in, bytes_out);
        self.number("bytes_in", bytes_in).number("bytes_out", bytes_out)
    }

    /// The line, without its newline.
    #[must_use]
    pub fn line(&self, sequence: u64) -> String {
        format!("{{\"seq\":{sequence}{}}}", self.members)
    }

    fn raw(mut self, name: &str, value: fmt::Arguments<'_>) -> Self {
        self.begin(name);
        // Writing to a string doesn't fail.
        let _ = self.members.write_fmt(value);
        self
    }

    fn begin(&mut self, name: &str) {
        let _ = write!(self.members, ",\"{name}\":");
    }
}

/// A JSON string (RFC 8259, 7) of printable ASCII.
fn push_text(line: &mut String, text: &str) {
    line.push('"');
    let mut rest = text.chars();
    for c in rest.by_ref().take(AUDIT_TEXT_CHARACTERS) {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            ' '..='~' => line.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string doesn't fail.
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
    if rest.next().is_some() {
        line.push_str("...");
    }
    line.push('"');
}

/// Texts in a list: as many as a tunnel may have forwards, or a server keys.
const AUDIT_TEXTS: usize = 8;

impl Kind {
    /// The kind with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.word() == word)
    }
}

impl Category {
    /// Its name in a record.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::AccessControl => "access-control",
            Self::RequestError => "request-error",
            Self::System => "system",
            Self::ConfigurationChange => "configuration-change",
            Self::AuditLog => "audit-log",
        }
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Failure => "failure",
        }
    }
}

impl Source {
    /// This process, for commands that change keys without an agent.
    #[must_use]
    pub fn this_process() -> Self {
        supervisor::Source::this_process().into()
    }
}

impl From<supervisor::Source> for Source {
    fn from(source: supervisor::Source) -> Self {
        match source {
            supervisor::Source::Ocpp { profile } => Self::Ocpp { profile: Some(profile) },
            supervisor::Source::Local { uid, pid } => Self::Local { uid, pid },
        }
    }
}

/// As a JSON object.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ocpp { profile: Some(profile) } => write!(f, "{{\"kind\":\"ocpp\",\"profile\":{profile}}}"),
            Self::Ocpp { profile: None } => f.write_str("{\"kind\":\"ocpp\",\"profile\":null}"),
            Self::Local { uid, pid } => write!(f, "{{\"kind\":\"local\",\"uid\":{uid},\"pid\":{pid}}}"),
            Self::Configuration => f.write_str("{\"kind\":\"configuration\"}"),
            Self::Tunnel => f.write_str("{\"kind\":\"tunnel\"}"),
            Self::Agent => f.write_str("{\"kind\":\"agent\"}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::limits::AUDIT_LINE_BYTES;

    fn parse(record: &Record) -> Value {
        serde_json::from_str(&record.line(7)).unwrap()
    }

    #[test]
    fn a_record_has_what_cr_2_8_asks_for() {
        let source = Source::Local { uid: 1000, pid: 4711 };
        let record = Record::new(Kind::TunnelRefused, source, Outcome::Refused).text("why", "no");
        let value = parse(&record);
        assert!(record.line(7).starts_with("{\"seq\":7,\"time\":\"20"), "{}", record.line(7));
        assert_eq!(value["clock"], "synced");
        assert!(value["uptime"].as_f64().unwrap() > 0.0);
        assert_eq!(value["source"], serde_json::json!({"kind": "local", "uid": 1000, "pid": 4711}));
        assert_eq!((&value["category"], &value["type"]), (&"request-error".into(), &"tunnel-refused".into()));
        assert_eq!((&value["event"], &value["result"]), (&103.into(), &"refused".into()));
        assert_eq!(value["why"], "no");
    }

    #[test]
    fn no_kind_is_told_twice() {
        for pair in Kind::ALL.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::from_word(kind.word()), Some(*kind));
        }
    }

    #[test]
    fn the_longest_record_fits_its_line() {
        let worst = "\u{1f600}".repeat(1000);
        let mut record = Record::new(Kind::ConfigurationChanged, Source::Agent, Outcome::Success);
        for name in ["a", "b"] {
            record = record.text(name, &worst);
        }
        assert!(record.line(u64::MAX).len() < AUDIT_LINE_BYTES, "{}", record.line(0).len());
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_only_ascii_is_written(text in any::<String>()) {
            let record = Record::new(Kind::AgentStarted, Source::Agent, Outcome::Success).text("text", &text);
            let line = record.line(1);
            prop_assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            let expected: String = text.chars().take(AUDIT_TEXT_CHARACTERS).collect();
            let value = parse(&record);
            prop_assert!(value["text"].as_str().is_some_and(|text| text.starts_with(&expected)));
        }
    }
}
