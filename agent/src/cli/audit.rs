//! `ocpp-tunnel audit`: the audit records, for people or as they were written. It reads the files and needs no agent.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::args::Audit;
use super::words::{pause, remark, say_or_end};
use super::{leave_root, load};
use crate::audit::{self, Lines};
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::journal;

/// Between two looks at the files. Nothing else wakes a reader without an agent.
const POLL: Duration = Duration::from_millis(300);

pub(super) fn main(path: &Path, arguments: Audit) -> Result<Exit, Problem> {
    let config = load(path)?;
    leave_root(&config)?;
    let directory = audit::directory(&config.state_dir);
    let problem = |error: io::Error| {
        let text = format!("can't read {}: {error}", directory.display());
        match error.kind() {
            io::ErrorKind::NotFound => Problem::new(
                Exit::NotFound,
                format!("there are no audit records in {}", directory.display()),
                "the agent's first start makes them; name its configuration with --config",
            ),
            io::ErrorKind::PermissionDenied => {
                Problem::new(Exit::Error, text, "run as root, or as the user or in the group of state_dir")
            }
            _ => Problem::new(Exit::Error, text, "check state_dir"),
        }
    };
    let mut lines = Lines::new(directory.clone());
    let mut shower = Shower::new(&arguments);
    while let Some(line) = lines.read().map_err(problem)? {
        if !shower.take(&line) {
            return Ok(Exit::Ok);
        }
    }
    if !arguments.follow
        && let Some(torn) = lines.torn().map_err(problem)?
        && !shower.take(&torn)
    {
        return Ok(Exit::Ok);
    }
    if !shower.show_last() || !arguments.follow {
        return Ok(Exit::Ok);
    }
    loop {
        match lines.read().map_err(problem)? {
            Some(line) if !shower.take(&line) => return Ok(Exit::Ok),
            Some(_) => {}
            None if !pause(POLL) => return Ok(Exit::Ok),
            None => {}
        }
    }
}

/// What of the records is shown, and how.
struct Shower<'a> {
    arguments: &'a Audit,
    /// The last ones, while only so many are wanted.
    last: Option<VecDeque<String>>,
    /// The number of the record before.
    before: Option<u64>,
}

impl<'a> Shower<'a> {
    fn new(arguments: &'a Audit) -> Self {
        Self { arguments, last: arguments.lines.map(|_| VecDeque::new()), before: None }
    }

    /// Takes the next line of the files; false if nobody reads any more.
    fn take(&mut self, line: &[u8]) -> bool {
        let Ok(record) = serde_json::from_slice::<Record>(line) else {
            return self.remark(damaged(line));
        };
        let number = record.get("seq").and_then(Value::as_u64).unwrap_or_default();
        if let Some(gap) = self.before.and_then(|before| gap(before, number))
            && !self.remark(gap)
        {
            return false;
        }
        self.before = Some(number);
        if !self.is_wanted(&record) {
            return true;
        }
        self.show(match self.arguments.json {
            true => String::from_utf8_lossy(line).into_owned(),
            false => record.for_people(),
        })
    }

    /// From now on, everything is shown as it comes.
    fn show_last(&mut self) -> bool {
        let last = self.last.take().unwrap_or_default();
        last.iter().all(|line| say_or_end(line))
    }

    /// Something about the records. It is no record, so not for a program that reads JSON.
    fn remark(&mut self, text: String) -> bool {
        let text = format!("-- {text} --");
        if self.arguments.json {
            remark(&text);
            return true;
        }
        self.show(text)
    }

    fn show(&mut self, line: String) -> bool {
        let (Some(last), Some(most)) = (&mut self.last, self.arguments.lines) else {
            return say_or_end(&line);
        };
        last.push_back(line);
        if last.len() > most {
            last.pop_front();
        }
        true
    }

    fn is_wanted(&self, record: &Record) -> bool {
        let kinds = &self.arguments.kinds;
        let of_kind = kinds.is_empty() || kinds.iter().any(|kind| record.text("type") == kind.word());
        // A time that was made up says nothing.
        let is_old = |since: SystemTime| {
            record.text("clock") == "synced"
                && humantime::parse_rfc3339(record.text("time")).is_ok_and(|time| time < since)
        };
        of_kind && !self.arguments.since.is_some_and(is_old)
    }
}

/// What is missing between two numbers.
fn gap(before: u64, number: u64) -> Option<String> {
    match number.checked_sub(before) {
        Some(1) => None,
        Some(2) => Some(format!("record {} is missing", before + 1)),
        Some(2..) => Some(format!("records {} to {} are missing", before + 1, number - 1)),
        _ => Some(format!("the numbers begin anew at {number}, after {before}")),
    }
}

fn damaged(line: &[u8]) -> String {
    let begin = &line[..line.len().min(60)];
    let bytes = line.len();
    format!("{bytes} bytes that are no record: {}", journal::value(&String::from_utf8_lossy(begin)))
}

/// A record's members, in the order in which they were written.
struct Record(Vec<(String, Value)>);

/// Members that every record has. They are shown in a way of their own, or not at all.
const COMMON: [&str; 9] = ["seq", "time", "clock", "uptime", "source", "category", "type", "event", "result"];

impl Record {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn for_people(&self) -> String {
        let number = self.get("seq").and_then(Value::as_u64).unwrap_or_default();
        let unset = if self.text("clock") == "synced" { "" } else { " (clock not set)" };
        let mut line = format!("{}{unset} #{number} {}", self.text("time"), self.text("type"));
        match self.text("result") {
            "success" => {}
            result => line.push_str(&format!(" ({result})")),
        }
        line.push_str(&format!(" source={}", source(self.get("source"))));
        for (name, value) in self.0.iter().filter(|(name, _)| !COMMON.contains(&name.as_str())) {
            line.push_str(&format!(" {name}={}", journal::value(&words(value))));
        }
        journal::escape(&line)
    }
}

/// As the log has it.
fn source(source: Option<&Value>) -> String {
    let Some(source) = source else { return String::new() };
    let number = |name: &str| source[name].as_i64().map_or("?".into(), |number| number.to_string());
    match source["kind"].as_str().unwrap_or_default() {
        "ocpp" => format!("ocpp/profile-{}", number("profile")),
        "local" => format!("uid-{}/pid-{}", number("uid"), number("pid")),
        kind => kind.to_owned(),
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(words).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an audit record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Record(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_a_record_in_the_words_of_the_log() {
        let line = r#"{"seq":7,"time":"2026-11-22T01:02:03.004Z","clock":"synced","uptime":1.5,
            "source":{"kind":"local","uid":0,"pid":12},"category":"request-error","type":"tunnel-refused",
            "event":103,"result":"refused","tunnel":"1","why":"it is\u001b[31m \"bad\"","forwards":["a -> b","c"]}"#;
        let record: Record = serde_json::from_str(line).unwrap();
        assert_eq!(
            record.for_people(),
            "2026-11-22T01:02:03.004Z #7 tunnel-refused (refused) source=uid-0/pid-12 tunnel=1 \
             why=\"it is\\u{1b}[31m \\\"bad\\\"\" forwards=\"a -> b, c\""
        );
    }

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(gap(3, 4), None);
        assert_eq!(gap(3, 5).as_deref(), Some("record 4 is missing"));
        assert_eq!(gap(3, 9).as_deref(), Some("records 4 to 8 are missing"));
        assert_eq!(gap(9, 1).as_deref(), Some("the numbers begin anew at 1, after 9"));
        assert_eq!(gap(9, 9).as_deref(), Some("the numbers begin anew at 9, after 9"));
        assert_eq!(damaged(b"{\"seq\":3\0"), "9 bytes that are no record: \"{\\\"seq\\\":3\\u{0}\"");
    }
}
