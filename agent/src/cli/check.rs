//! `ocpp-tunnel check`: the self-check, shown as it goes on.

use std::io;
use std::path::Path;

use super::args::Check;
use super::progress::Progress;
use super::words::{colours, remark, say_json, show};
use super::{block_on, leave_root};
use crate::audit::{self, Kind, Outcome, Record, Source};
use crate::check::report::{Line, Note, Report, Step, Verdict};
use crate::check::{self, Running};
use crate::config::{Config, Written};
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) fn main(path: &Path, arguments: Check) -> Result<Exit, Problem> {
    let mut progress = Progress::new();
    let (json, colour) = (arguments.json, colours(&io::stdout()));
    let mut note = |note: Note<'_>| match note {
        Note::Begun(step) => progress.show(step.word()),
        Note::Found(line) => {
            progress.clear();
            if !json {
                show(&shown(line, colour));
            }
        }
        Note::Skipped(lines) => {
            progress.clear();
            if !json {
                show(&shown_skipped(lines));
            }
        }
    };
    let read = Written::read(path).and_then(|written| Ok((written.load()?, written)));
    let (config, written) = match read.map_err(|error| error.problem()) {
        Ok(read) => read,
        Err(problem) => {
            return block_on(async {
                let report = check::unreadable(problem, &mut note).await;
                Ok(tell(&report, None, json))
            });
        }
    };
    leave_root(&config)?;
    let destination = arguments.destination.or_else(|| config.policy.only_destination());
    let running = Running::ask(&config);
    block_on(async {
        let report = check::look(path, (&written, &config), &running, destination.as_ref(), &mut note).await;
        let server = destination.map(|destination| destination.to_string());
        write_down(&config, &report, server.as_deref());
        Ok(tell(&report, server.as_deref(), json))
    })
}

fn tell(report: &Report<'_>, server: Option<&str>, json: bool) -> Exit {
    if json {
        say_json(&report.document(server));
    }
    report.exit()
}

/// A login on a server is an access, whatever it was for.
fn write_down(config: &Config, report: &Report<'_>, server: Option<&str>) {
    let login = report.lines().iter().find(|line| line.step == Step::Login);
    let outcome = match login.map(|line| &line.verdict) {
        Some(Verdict::Ok) => Outcome::Success,
        Some(Verdict::Failed(..)) => Outcome::Failure,
        _ => return,
    };
    let record = Record::new(Kind::ServerChecked, Source::this_process(), outcome)
        .text("server", server.unwrap_or_default())
        .number("exit", report.exit() as u64);
    if let Err(error) = audit::write_now(config, record) {
        remark(&format!("It can't be written to the audit records: {error}"));
    }
}

/// A line for people, and a second one with the cure.
fn shown(line: &Line, colour: bool) -> String {
    let (mark, paint) = match line.verdict {
        Verdict::Ok => ("ok", "32"),
        Verdict::Failed(..) => ("FAIL", "31"),
        Verdict::Unknown => ("--", ""),
    };
    let gap = " ".repeat(6 - mark.len());
    let mark = match colour && !paint.is_empty() {
        true => format!("\x1b[{paint}m{mark}\x1b[0m"),
        false => mark.to_owned(),
    };
    let mut text = format!("{mark}{gap}{:<13}  {}", line.step.word(), line.text);
    match &line.verdict {
        Verdict::Unknown => {}
        Verdict::Ok => text.push_str(&took(line)),
        Verdict::Failed(_, cure) => {
            text.push_str(&took(line));
            if !cure.is_empty() {
                text.push_str(&format!("\n      try: {cure}"));
            }
        }
    }
    text
}

/// Steps that aren't looked at for the same reason.
fn shown_skipped(lines: &[Line]) -> String {
    let steps: Vec<&str> = lines.iter().map(|line| line.step.word()).collect();
    let because = lines.first().map_or("", |line| &line.text);
    format!("--    {because}: {}", steps.join(", "))
}

fn took(line: &Line) -> String {
    match line.took.as_millis() {
        milliseconds @ 0..1000 => format!("  ({milliseconds} ms)"),
        _ => format!("  ({:.1} s)", line.took.as_secs_f32()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_has_its_verdict_its_time_and_its_cure() {
        let line = |verdict, took| Line { step: Step::Tcp, verdict, text: "found".into(), took };
        assert_eq!(
            shown(&line(Verdict::Ok, Duration::from_millis(7)), false),
            "ok    tcp            found  (7 ms)"
        );
        let failed = Verdict::Failed(Exit::Network, "mend it".into());
        assert_eq!(
            shown(&line(failed.clone(), Duration::from_millis(20_040)), false),
            "FAIL  tcp            found  (20.0 s)\n      try: mend it"
        );
        assert!(shown(&line(failed, Duration::ZERO), true).starts_with("\x1b[31mFAIL\x1b[0m  tcp"));
        assert_eq!(shown(&line(Verdict::Unknown, Duration::ZERO), true), "--    tcp            found");
        let skipped = [line(Verdict::Unknown, Duration::ZERO), line(Verdict::Unknown, Duration::ZERO)];
        assert_eq!(shown_skipped(&skipped), "--    found: tcp, tcp");
    }
}
