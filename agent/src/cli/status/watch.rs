//! `status --watch`: asks once a second, and shows what has changed.
//!
//! Nothing of the terminal is changed, so there is nothing to restore, however this ends: the cursor stands below the text whenever
//! nothing is being written. It uses what a VT100 understands, and writes only the rows that differ, since a serial line takes a
//! millisecond a character.

use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use super::super::layout::{for_stream, obeys, size, wrap};
use super::super::words::{ascii, colours, complain, journal_lines, pause, say_or_end};
use super::{document, painted, people};
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::limits::WATCH;

/// Watches until the reader is gone; Ctrl-C ends the process. An agent that has ended may come back.
pub(super) fn main(path: &Path, first: Value, json: bool) -> Exit {
    let mut reader = match json {
        true => Reader::Program,
        false if obeys(&io::stdout()) => Reader::Screen(Screen::default()),
        false => Reader::Person,
    };
    let mut found = Ok(first);
    let mut shown = String::new();
    loop {
        let text = reader.text(&found);
        let goes_on = match &mut reader {
            // It may have another size, too.
            Reader::Screen(screen) => screen.draw(&text).is_ok(),
            _ if text == shown => true,
            Reader::Person => say_or_end(&format!("{}\n", for_stream(&text, &io::stdout()))),
            Reader::Program => match &found {
                Ok(_) => say_or_end(&text),
                Err(problem) => {
                    complain(problem);
                    true
                }
            },
        };
        if !goes_on {
            return Exit::Ok;
        }
        shown = text;
        if !pause(WATCH) {
            return Exit::Ok;
        }
        found = document(path);
    }
}

/// Who reads it.
enum Reader {
    /// A line of JSON for each change; that there is no agent is said on stderr.
    Program,
    /// A block for each change, where nothing can be taken back.
    Person,
    /// A terminal, on which it stands.
    Screen(Screen),
}

impl Reader {
    fn text(&self, found: &Result<Value, Problem>) -> String {
        match (found, self) {
            (Ok(document), Self::Program) => ascii(&document.to_string()),
            (Ok(document), _) => people::words(document),
            (Err(problem), _) => {
                let Problem { text, cure, .. } = problem;
                journal_lines(&if cure.is_empty() { text.clone() } else { format!("{text}\n  try: {cure}") })
            }
        }
    }
}

/// What stands on the terminal.
#[derive(Default)]
struct Screen {
    size: (usize, usize),
    rows: Vec<String>,
}

impl Screen {
    /// Makes the terminal show this text.
    fn draw(&mut self, text: &str) -> io::Result<()> {
        let stdout = io::stdout();
        let size = size(&stdout).ok_or(io::ErrorKind::NotConnected)?;
        let (columns, rows) = size;
        let mut text = wrap(text, columns, 2);
        if colours(&stdout) {
            text = painted(&text);
        }
        let rows = fit(&text, rows);
        let bytes = self.changes(size, rows);
        let mut stdout = stdout.lock();
        stdout.write_all(bytes.as_bytes()).and_then(|()| stdout.flush())
    }

    /// What to write so that these rows stand there.
    fn changes(&mut self, size: (usize, usize), rows: Vec<String>) -> String {
        let mut bytes = String::new();
        if self.size != size {
            bytes.push_str("\x1b[2J");
            *self = Self { size, rows: Vec::new() };
        }
        for (place, row) in rows.iter().enumerate() {
            if self.rows.get(place) != Some(row) {
                bytes.push_str(&format!("\x1b[{};1H\x1b[K{row}", place + 1));
            }
        }
        if !bytes.is_empty() || self.rows.len() != rows.len() {
            bytes.push_str(&format!("\x1b[{};1H\x1b[J", rows.len() + 1));
        }
        self.rows = rows;
        bytes
    }
}

/// As many rows as there is room for, and one that says how it ends.
fn fit(text: &str, most: usize) -> Vec<String> {
    // The last row is left to the cursor.
    let room = most.saturating_sub(2).max(1);
    let all = text.lines().count();
    let mut rows: Vec<String> = text.lines().take(room).map(str::to_owned).collect();
    rows.push(match all.checked_sub(rows.len()) {
        None | Some(0) => "-- Ctrl-C ends --".to_owned(),
        Some(more) => format!("-- {more} more rows; Ctrl-C ends --"),
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_that_differ_are_written() {
        let mut screen = Screen::default();
        let rows = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let size = (80, 24);
        assert_eq!(
            screen.changes(size, rows("a\nb\nc")),
            "\x1b[2J\x1b[1;1H\x1b[Ka\x1b[2;1H\x1b[Kb\x1b[3;1H\x1b[Kc\x1b[4;1H\x1b[J"
        );
        assert_eq!(screen.changes(size, rows("a\nb\nc")), "");
        assert_eq!(screen.changes(size, rows("a\nB\nc")), "\x1b[2;1H\x1b[KB\x1b[4;1H\x1b[J");
        assert_eq!(screen.changes(size, rows("a")), "\x1b[2;1H\x1b[J");
        assert!(screen.changes((40, 24), rows("a")).starts_with("\x1b[2J\x1b[1;1H"), "another size");
    }

    #[test]
    fn a_low_window_says_what_is_missing() {
        assert_eq!(fit("a\nb", 24), ["a", "b", "-- Ctrl-C ends --"]);
        assert_eq!(fit("a\nb\nc\nd", 4), ["a", "b", "-- 2 more rows; Ctrl-C ends --"]);
        assert_eq!(fit("a\nb", 0), ["a", "-- 1 more rows; Ctrl-C ends --"]);
    }
}
