//! What came of each step, and the exit code that follows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::journal;

/// What is looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The file, and the files that it names.
    Configuration,
    /// The agent: does one run?
    Agent,
    /// The wall clock.
    Clock,
    /// May anything be opened?
    Policy,
    /// The device's key.
    Key,
    /// The server's name.
    Name,
    /// A TCP connection to it.
    Tcp,
    /// That it is an SSH server.
    Banner,
    /// Its host key.
    HostKey,
    /// The login with our key.
    Login,
    /// That it listens for us.
    Forward,
    /// Where it really listens.
    Reach,
    /// That it notices when we are gone.
    Keepalive,
    /// The OCPP link.
    Ocpp,
    /// The local services.
    Local,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Ok,
    /// It failed: the exit code, and what to do about it.
    Failed(Exit, String),
    /// It wasn't looked at, or can't be known from here, or is good to know.
    Unknown,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What was looked at.
    pub step: Step,
    /// How it went.
    pub verdict: Verdict,
    /// What was found, in printable ASCII.
    pub text: String,
    /// How long it took.
    pub took: Duration,
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Note<'a> {
    /// This is looked at now.
    Begun(Step),
    /// This was found.
    Found(&'a Line),
    /// These aren't looked at, for the same reason.
    Skipped(&'a [Line]),
}

/// What came of all steps so far.
pub struct Report<'a> {
    lines: Vec<Line>,
    note: &'a mut dyn FnMut(Note<'_>),
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 15] = [
        Self::Configuration,
        Self::Agent,
        Self::Clock,
        Self::Policy,
        Self::Key,
        Self::Name,
        Self::Tcp,
        Self::Banner,
        Self::HostKey,
        Self::Login,
        Self::Forward,
        Self::Reach,
        Self::Keepalive,
        Self::Ocpp,
        Self::Local,
    ];
    /// Those that need the server.
    pub const SERVER: [Self; 8] = [
        Self::Name,
        Self::Tcp,
        Self::Banner,
        Self::HostKey,
        Self::Login,
        Self::Forward,
        Self::Reach,
        Self::Keepalive,
    ];

    /// The word in the report and in its JSON. Scripts rely on them.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Agent => "agent",
            Self::Clock => "clock",
            Self::Policy => "policy",
            Self::Key => "key",
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Banner => "banner",
            Self::HostKey => "host-key",
            Self::Login => "login",
            Self::Forward => "forward",
            Self::Reach => "reach",
            Self::Keepalive => "keepalive",
            Self::Ocpp => "ocpp",
            Self::Local => "local",
        }
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(note: &'a mut dyn FnMut(Note<'_>)) -> Self {
        Self { lines: Vec::new(), note }
    }

    /// Does a step and writes down what came of it; gives what the next steps need.
    pub(super) async fn step<T>(
        &mut self,
        step: Step,
        work: impl Future<Output = Result<(T, String), Problem>>,
    ) -> Option<T> {
        (self.note)(Note::Begun(step));
        let began = Instant::now();
        let result = work.await;
        let took = began.elapsed();
        let (found, verdict, text) = match result {
            Ok((found, text)) => (Some(found), Verdict::Ok, text),
            Err(Problem { code, text, cure }) => (None, Verdict::Failed(Exit::from_code(code), cure), text),
        };
        self.add(Line { step, verdict, text, took });
        found
    }

    /// A step that says nothing, and why.
    pub(super) fn unknown(&mut self, step: Step, text: impl Into<String>) {
        self.add(Line { step, verdict: Verdict::Unknown, text: text.into(), took: Duration::ZERO });
    }

    /// A step that makes no sense now.
    pub(super) fn skip(&mut self, step: Step, because: &str) {
        self.add(Line::skipped(step, because));
    }

    /// Each of these steps that has no line yet makes no sense now.
    pub(super) fn skip_missing(&mut self, steps: &[Step], because: &str) {
        let missing = steps.iter().filter(|step| self.lines.iter().all(|line| line.step != **step));
        let skipped: Vec<Line> = missing.map(|step| Line::skipped(*step, because)).collect();
        if !skipped.is_empty() {
            (self.note)(Note::Skipped(&skipped));
            self.lines.extend(skipped);
        }
    }

    pub(super) fn skip_rest(&mut self, because: &str) {
        self.skip_missing(&Step::ALL, because);
    }

    /// What a peer said comes into the report, but never raw to a terminal.
    fn add(&mut self, mut line: Line) {
        line.text = journal::escape(&line.text);
        if let Verdict::Failed(_, cure) = &mut line.verdict {
            *cure = journal::escape(cure);
        }
        (self.note)(Note::Found(&line));
        self.lines.push(line);
    }

    /// What was found.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The exit code of the first step that failed.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let failed = self.lines.iter().find_map(|line| match line.verdict {
            Verdict::Failed(exit, _) => Some(exit),
            _ => None,
        });
        failed.unwrap_or(Exit::Ok)
    }

    /// The report as JSON, schema 1. Scripts rely on its names.
    #[must_use]
    pub fn document(&self, server: Option<&str>) -> Value {
        let steps: Vec<Value> = self.lines.iter().map(Line::document).collect();
        json!({
            "schema": 1,
            "server": server,
            "ok": self.exit() == Exit::Ok,
            "exit": self.exit() as u8,
            "steps": steps,
        })
    }
}

impl Line {
    fn skipped(step: Step, because: &str) -> Self {
        let text = format!("not looked at, because {because}");
        Self { step, verdict: Verdict::Unknown, text: journal::escape(&text), took: Duration::ZERO }
    }

    fn document(&self) -> Value {
        let (result, exit, cure) = match &self.verdict {
            Verdict::Ok => ("ok", None, None),
            Verdict::Unknown => ("unknown", None, None),
            Verdict::Failed(exit, cure) => ("failed", Some(*exit as u8), Some(cure)),
        };
        json!({
            "step": self.step.word(),
            "result": result,
            "text": self.text,
            "cure": cure,
            "exit": exit,
            "milliseconds": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_decides_and_what_depends_on_it_is_not_looked_at() {
        let mut told = Vec::new();
        let mut note = |note: Note<'_>| told.push(format!("{note:?}"));
        let mut report = Report::new(&mut note);
        let ok = report.step(Step::Clock, async { Ok((7, "se\x1b[2Jt".into())) }).await;
        assert_eq!((ok, report.exit()), (Some(7), Exit::Ok));
        let fails = |exit| async move { Err::<((), String), _>(Problem::new(exit, "no", "mend it")) };
        assert_eq!(report.step(Step::Name, fails(Exit::Network)).await, None);
        report.step(Step::Local, fails(Exit::Error)).await;
        report.skip_missing(&Step::SERVER, "there is no name");
        assert_eq!(report.exit(), Exit::Network);
        let document = report.document(Some("a@b"));
        assert_eq!((&document["ok"], &document["exit"]), (&false.into(), &6.into()));
        assert_eq!(document["steps"][0]["text"], "se\\u{1b}[2Jt", "no peer writes on a terminal");
        assert_eq!(document["steps"][1]["cure"], "mend it");
        let of = |step: &str| {
            document["steps"].as_array().unwrap().iter().filter(|line| line["step"] == step).count()
        };
        assert!(Step::SERVER.iter().all(|step| of(step.word()) == 1), "{document}");
        assert_eq!(document["steps"][3]["text"], "not looked at, because there is no name");
        assert_eq!(told.iter().filter(|note| note.starts_with("Begun")).count(), 3);
        assert_eq!(
            told.iter().filter(|note| note.starts_with("Skipped")).count(),
            1,
            "told at once: {told:#?}"
        );
    }
}
