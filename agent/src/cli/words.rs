//! How the command line speaks to people.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::layout::{for_stream, obeys};
use crate::control::protocol::{Answer, Problem};
use crate::exit::Exit;
use crate::journal;

/// Says what is wrong and what to do about it, on stderr.
pub(super) fn complain(problem: &Problem) -> Exit {
    let (red, off) = if colours(&io::stderr()) { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    let mut text = format!("{red}ocpp-tunnel:{off} {}", journal::escape(&problem.text));
    if !problem.cure.is_empty() {
        text.push_str(&format!("\n  try: {}", journal::escape(&problem.cure)));
    }
    remark(&text);
    Exit::from_code(problem.code)
}

/// Data, on stdout. A reader that has gone is no error.
pub(super) fn say(text: &str) {
    say_or_end(text);
}

/// A document, on stdout.
pub(super) fn say_json(document: &Value) {
    say(&ascii(&format!("{document:#}")));
}

/// JSON with whatever isn't ASCII as `\uXXXX`: what a peer said is in it, and some terminals obey control characters above ASCII, too.
pub(super) fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Outside of strings there is none of these.
            '\u{7f}'.. => {
                let mut units = [0; 2];
                ascii.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
            _ => ascii.push(c),
        }
    }
    ascii
}

/// Words for people, on stdout.
pub(super) fn show(text: &str) {
    say(&for_stream(text, &io::stdout()));
}

/// Data, on stdout; false if nobody reads it any more.
pub(super) fn say_or_end(text: &str) -> bool {
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    if let Err(error) = &said
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error.to_string());
    }
    said.is_ok()
}

/// Waits a while for nothing but the end of whoever reads stdout; false then.
pub(super) fn pause(while_read: Duration) -> bool {
    let stdout = io::stdout();
    let mut output = [PollFd::new(&stdout, PollFlags::empty())];
    let time = Timespec::try_from(while_read).unwrap_or_default();
    // A signal makes it shorter.
    let _ = poll(&mut output, Some(&time));
    let [output] = output;
    !output.revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Why something that was to be on stdout isn't: a file on a full disk, say.
static LOST: OnceLock<String> = OnceLock::new();

/// What a command comes to whose output may have been lost.
pub(super) fn unless_lost(exit: Exit) -> Exit {
    match LOST.get() {
        Some(error) if exit == Exit::Ok => complain(&Problem::new(
            Exit::Error,
            format!("can't write to standard output: {error}"),
            "look where it leads, and at the room there",
        )),
        _ => exit,
    }
}

/// A remark, on stderr.
pub(super) fn remark(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", for_stream(text, &io::stderr()));
}

/// May this stream be coloured?
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    obeys(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An answer that this command didn't ask for.
pub(super) fn unexpected(answer: &Answer) -> Problem {
    Problem::new(Exit::Error, format!("the agent answered something else: {answer:?}"), "restart the agent")
}

/// What a tunnel publishes, a line each.
pub(super) fn opened(id: &str, server: &str, state: &str, forwards: &[String]) -> String {
    let mut text = format!("tunnel {id} to {server}: {state}");
    for forward in forwards {
        text.push_str(&format!("\n  {forward}"));
    }
    journal_lines(&text)
}

/// Escapes line by line, so that the lines themselves stay.
pub(super) fn journal_lines(text: &str) -> String {
    text.lines().map(journal::escape).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_ascii_is_the_same_json() {
        let document = serde_json::json!({"a\u{9b}": "x\u{7f} \u{202e}ö 😀 \u{1b}", "n": [1, null]});
        let text = ascii(&document.to_string());
        assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    }
}
