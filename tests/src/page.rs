//! A page of the documentation: its blocks, and whether a real output is what a block shows.
//!
//! The word behind the three backticks says what a block is, the next one where it is done or how:
//!
//! | block | meaning |
//! | --- | --- |
//! | `sh`, `sh server`, `sh desk` | commands that must do, on the controller unless another machine is named |
//! | `console` | commands behind a prompt (`controller#`, `server#`, `desk$`; a bare one is the controller's), and what they print; `soon`: before long |
//! | `toml` | configuration that `config check` takes: a whole one, or what is added to that; with a path as its first comment, that very file |
//! | `file`, `file server`, `file desk` | a file, whose path is in its first comment |
//! | `json` | documents; `json csms`: what the CSMS says, and what it is answered |
//! | `text` | something to look at |
//!
//! `…` in what a command prints stands for anything, a line of it for any lines. Times and durations are never compared.

use std::path::PathBuf;

/// A fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    /// The word behind the backticks.
    pub language: String,
    /// The words after it.
    pub words: Vec<String>,
    /// What is between, without the indentation that a list gives it.
    pub text: String,
    /// The line of its first backticks.
    pub line: usize,
}

/// Where the pages are.
pub fn root() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/..").into()
}

/// Every page: those in `docs/`, and the README.
pub fn pages() -> Vec<String> {
    let files = std::fs::read_dir(root().join("docs")).expect("the documentation is there");
    let names = files.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
    let mut pages: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".into());
    pages.sort();
    pages
}

/// A page's text.
pub fn text(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|why| panic!("{page}: {why}"))
}

/// A page's blocks.
pub fn blocks(page: &str) -> Vec<Block> {
    let text = text(page);
    let mut lines = text.lines().enumerate();
    let mut blocks = Vec::new();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let indentation = line.len() - line.trim_start().len();
        let mut words = info.split_whitespace().map(str::to_owned);
        let language = words.next().unwrap_or_default();
        let mut text = String::new();
        for (_, line) in lines.by_ref().take_while(|(_, line)| line.trim() != "```") {
            text += &format!("{}\n", line.get(indentation..).unwrap_or_default());
        }
        blocks.push(Block { language, words: words.collect(), text, line: number + 1 });
    }
    blocks
}

/// A page's rows of tables, their cells without the spaces around them.
pub fn rows(page: &str) -> Vec<Vec<String>> {
    let text = text(page);
    let row = |line: &str| {
        // A bar within a cell is written with a backslash.
        let line = line.trim().replace("\\|", "\u{0}");
        let inside = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(inside.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect())
    };
    text.lines().filter_map(row).collect()
}

/// What stands between backticks in a text.
pub fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A command behind a prompt.
#[derive(Debug)]
pub struct Typed {
    /// The machine that the prompt names.
    pub host: String,
    /// The command, perhaps of several lines.
    pub command: String,
    /// What it prints.
    pub output: String,
}

impl Block {
    /// Has it this word behind its language?
    pub fn is(&self, word: &str) -> bool {
        self.words.iter().any(|mine| mine == word)
    }

    /// The machine that it is for.
    pub fn host(&self) -> &str {
        let named = self.words.iter().find(|word| ["server", "desk"].contains(&word.as_str()));
        named.map_or("controller", String::as_str)
    }

    /// The path in its first comment.
    pub fn path(&self) -> Option<&str> {
        self.text.lines().next()?.strip_prefix("# ").filter(|path| path.starts_with('/'))
    }

    /// Its commands, each behind a prompt.
    pub fn typed(&self) -> Vec<Typed> {
        let mut all: Vec<Typed> = Vec::new();
        for line in self.text.lines() {
            let continued =
                all.last().is_some_and(|last| last.output.is_empty() && last.command.ends_with('\\'));
            match (prompted(line), all.last_mut()) {
                (Some((host, command)), _) => all.push(Typed {
                    host: host.to_owned(),
                    command: command.to_owned(),
                    output: String::new(),
                }),
                (None, Some(last)) if continued => last.command += &format!("\n{line}"),
                (None, Some(last)) => last.output += &format!("{line}\n"),
                (None, None) => panic!("line {}: the block doesn't begin with a prompt: {line}", self.line),
            }
        }
        all
    }
}

fn prompted(line: &str) -> Option<(&str, &str)> {
    if let Some(command) = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")) {
        return Some(("controller", command));
    }
    let (host, command) = line.split_once("# ").or_else(|| line.split_once("$ "))?;
    ["controller", "server", "desk"].contains(&host).then_some((host, command))
}

/// Is this what the page shows?
pub fn fits(shown: &str, real: &str) -> bool {
    let lines = |text: &str| text.lines().map(|line| timeless(line.trim_end())).collect::<Vec<_>>();
    lines_fit(&lines(shown), &lines(real))
}

fn lines_fit(shown: &[String], real: &[String]) -> bool {
    let Some((first, rest)) = shown.split_first() else { return real.is_empty() };
    if first.trim() == "…" {
        return (0..=real.len()).any(|skipped| lines_fit(rest, real.get(skipped..).unwrap_or_default()));
    }
    let Some((line, others)) = real.split_first() else { return false };
    let parts: Vec<&str> = first.split('…').collect();
    line_fits(&parts, line) && lines_fit(rest, others)
}

/// The parts in their order, the first at the beginning and the last at the end.
fn line_fits(parts: &[&str], line: &str) -> bool {
    let Some((first, rest)) = parts.split_first() else { return false };
    let Some(mut left) = line.strip_prefix(first) else { return false };
    let Some((last, between)) = rest.split_last() else { return left.is_empty() };
    for part in between {
        let Some(at) = left.find(part) else { return false };
        left = left.get(at + part.len()..).unwrap_or_default();
    }
    left.ends_with(last)
}

/// The same without what differs each time: times of RFC 3339, and durations in parentheses.
fn timeless(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = time(rest) {
            text += "TIME";
            rest = after;
        } else if let Some(after) = duration(rest) {
            text += "(TIME)";
            rest = after;
        } else {
            text.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
    }
    text
}

/// What comes after a time: `2026-11-22T01:10:54Z`, with or without a fraction.
fn time(text: &str) -> Option<&str> {
    let shape = "0000-00-00T00:00:00";
    let (head, rest) = text.split_at_checked(shape.len())?;
    let alike = |(c, s): (char, char)| if s == '0' { c.is_ascii_digit() } else { c == s };
    let fraction = |text: &str| text.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit()).len();
    head.chars().zip(shape.chars()).all(alike).then_some(())?;
    rest.get(rest.len() - fraction(rest)..)?.strip_prefix('Z')
}

/// What comes after a duration: `(31 ms)`, `(20.1 s)`.
fn duration(text: &str) -> Option<&str> {
    let (inside, rest) = text.strip_prefix('(')?.split_once(')')?;
    let (number, unit) = inside.split_once(' ')?;
    let is_number = !number.is_empty() && number.chars().all(|c| c == '.' || c.is_ascii_digit());
    (is_number && ["ms", "s"].contains(&unit)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_shows_is_held_against_what_is_printed() {
        for (shown, real, fit) in [
            ("a\n", "a", true),
            ("a", "b", false),
            ("a … c", "a b c", true),
            ("a … c", "a b d", false),
            ("a …", "a\nb", false),
            ("a\n…\nd", "a\nb\nc\nd", true),
            ("a\n…\nd", "a\nd", true),
            ("a\n…", "b\nc", false),
            ("at 2026-11-22T01:10:54Z, ok  (2 ms)", "at 2026-11-23T01:10:54.123Z, ok  (20.1 s)", true),
            ("at 2026-11-22T01:10:54Z", "at noon", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(shown, real), fit, "{shown:?} {real:?}");
        }
    }

    #[test]
    fn commands_stand_behind_prompts() {
        let text = "controller# a \\\n  b\nout\n\nserver$ c\n".to_owned();
        let block = Block { language: "console".into(), words: Vec::new(), text, line: 1 };
        let typed = block.typed();
        let seen: Vec<_> =
            typed.iter().map(|t| (t.host.as_str(), t.command.as_str(), t.output.as_str())).collect();
        assert_eq!(seen, [("controller", "a \\\n  b", "out\n\n"), ("server", "c", "")]);
    }
}
