//! What people see: numbered steps, who said what to whom, and colours on a terminal that wants them.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";

/// Standard output as the demo uses it. A reader who goes away, such as `head`, is no failure.
#[derive(Debug)]
pub(crate) struct Screen {
    colours: bool,
    steps: u32,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let able = std::env::var_os("TERM").is_none_or(|name| name != "dumb");
        Self { colours: wanted && able && std::io::stdout().is_terminal(), steps: 0 }
    }

    /// The title of it all.
    pub(crate) fn title(&self, text: &str) {
        self.line(&self.painted(BOLD, text));
    }

    /// A line as it is.
    pub(crate) fn line(&self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// The heading of the next step.
    pub(crate) fn step(&mut self, text: &str) {
        self.steps += 1;
        self.line("");
        self.line(&self.painted(BOLD, &format!("{}. {text}", self.steps)));
    }

    /// What `who` did or said.
    pub(crate) fn says(&self, who: &str, what: impl Display) {
        let who = self.painted(DIM, &format!("{who:<11}"));
        self.line(&format!("   {who}  {what}"));
    }

    /// What `who` answered, in green if it is `Accepted`, in red otherwise.
    pub(crate) fn answers(&self, who: &str, status: &str) {
        let colour = if status == "Accepted" { GREEN } else { RED };
        self.says(who, format!("answers {}", self.painted(colour, status)));
    }

    /// A command that the reader could have typed.
    pub(crate) fn command(&self, command: &str) {
        self.line(&format!("   $ {}", self.painted(BOLD, command)));
    }

    /// Output of a command, or text from a peer: at most `limit` lines of it.
    pub(crate) fn output(&self, text: &str, limit: usize) {
        let bar = self.painted(DIM, "|");
        let lines: Vec<&str> = text.trim_end().lines().collect();
        for line in lines.iter().take(limit) {
            self.line(format!("   {bar} {}", printable(line)).trim_end());
        }
        if let Some(more) = lines.len().checked_sub(limit).filter(|more| *more > 0) {
            self.line(&format!("   {bar} … (lines left out: {more})"));
        }
    }

    /// What went wrong, in red.
    pub(crate) fn failure(&self, text: &str) {
        self.line("");
        self.line(&self.painted(RED, text));
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Text from a peer, without what could steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}
