//! Text laid out for the terminal that it is read on: lines that are too long are broken between words, and what follows is
//! indented.
//!
//! Only words for people come here. What is copied or read by programs (keys, JSON, records, log lines) keeps its lines.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::termios::{Winsize, tcgetwinsize};

/// What a terminal has that doesn't tell, such as a serial line.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;
/// No text is broken into less than this: it would be all edge.
const LEAST_COLUMNS: usize = 20;

/// Columns and rows of the terminal that this is; `None` if it is none.
pub(super) fn size(stream: &(impl IsTerminal + AsFd)) -> Option<(usize, usize)> {
    if !stream.is_terminal() {
        return None;
    }
    let size = tcgetwinsize(stream).ok();
    let told = |side: fn(&Winsize) -> u16| size.as_ref().map(side).filter(|told| *told > 0);
    let columns = told(|size| size.ws_col).unwrap_or(COLUMNS);
    let rows = told(|size| size.ws_row).unwrap_or(ROWS);
    Some((columns.into(), rows.into()))
}

/// Is it a terminal that moves its cursor when told to?
pub(super) fn obeys(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// The text for this stream: broken where it is a terminal, and as it is elsewhere.
pub(super) fn for_stream(text: &str, stream: &(impl IsTerminal + AsFd)) -> String {
    match size(stream) {
        Some((columns, _)) => wrap(text, columns, 2),
        None => text.to_owned(),
    }
}

/// Breaks each line that has more columns. What follows begins under the line's second column of text if that is in the left
/// half, or else `hang` columns after its own beginning. Text in backticks, which a person may copy, stays in one piece, and so does
/// what is short and in parentheses, such as a time.
pub(super) fn wrap(text: &str, columns: usize, hang: usize) -> String {
    let columns = columns.max(LEAST_COLUMNS);
    text.lines().map(|line| wrap_line(line, columns, hang)).collect::<Vec<_>>().join("\n")
}

fn wrap_line(line: &str, columns: usize, hang: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let indentation = indentation(line, columns, hang);
    let mut wrapped = String::with_capacity(line.len() + 16);
    let (mut used, mut rest) = (0, line);
    while !rest.is_empty() {
        let gap = rest.len() - rest.trim_start_matches(' ').len();
        let word = &rest[gap..gap + word_length(&rest[gap..], columns - indentation)];
        let length = width(word);
        if used > 0 && used + gap + length > columns {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indentation));
            used = indentation;
        } else {
            wrapped.push_str(&rest[..gap]);
            used += gap;
        }
        wrapped.push_str(word);
        used += length;
        rest = &rest[gap + word.len()..];
    }
    wrapped
}

/// Where the rows after the first begin.
fn indentation(line: &str, columns: usize, hang: usize) -> usize {
    let text = line.trim_start_matches(' ');
    let begin = line.len() - text.len();
    let second = text.find("  ").map(|end| {
        let gap = text[end..].len() - text[end..].trim_start_matches(' ').len();
        begin + width(&text[..end]) + gap
    });
    second.filter(|second| *second <= columns / 2).unwrap_or((begin + hang).min(columns / 2))
}

/// What is in parentheses and no longer is one word.
const SHORT: usize = 12;

/// The bytes up to the next space, or up to that after the closing backtick if that fits into a row.
fn word_length(text: &str, most: usize) -> usize {
    let to_space = |from: usize| text[from..].find(' ').map_or(text.len(), |end| from + end);
    let plain = to_space(0);
    if let Some(close) = text.find(')').filter(|close| text.starts_with('(') && *close < SHORT) {
        return to_space(close);
    }
    let Some(open) = text[..plain].find('`') else { return plain };
    let Some(close) = text[open + 1..].find('`') else { return plain };
    let quoted = to_space(open + 1 + close);
    if quoted > plain && width(&text[..quoted]) <= most { quoted } else { plain }
}

/// Columns that it takes: each character one, colours none.
fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            characters.by_ref().find(|character| *character == 'm');
        } else {
            columns += 1;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_lines_are_broken_between_words_and_what_follows_is_indented() {
        for (line, wrapped) in [
            ("short enough", "short enough"),
            ("one two three four five six", "one two three four\n  five six"),
            ("     at one two three four", "     at one two\n       three four"),
            ("1    up since one two three", "1    up since one\n     two three"),
            ("  --forward-something  what it is for", "  --forward-something\n    what it is for"),
            ("try `one two` `three four`", "try `one two`\n  `three four`"),
            ("one two three (11 ms)", "one two three\n  (11 ms)"),
            ("one two three (more than is short)", "one two three (more\n  than is short)"),
            ("`one two three four five`", "`one two three four\n  five`"),
            ("a verylongwordwithoutanyspaceinit b", "a\n  verylongwordwithoutanyspaceinit\n  b"),
            ("\x1b[31mred\x1b[0m two three four", "\x1b[31mred\x1b[0m two three four"),
            ("\x1b[31mred\x1b[0m two three fourths", "\x1b[31mred\x1b[0m two three\n  fourths"),
        ] {
            assert_eq!(wrap(line, 20, 2), wrapped);
        }
        assert_eq!(wrap("one two three four five six", 20, 0), "one two three four\nfive six");
        assert_eq!(wrap("a\n\nb", 20, 2), "a\n\nb");
    }

    proptest! {
        #[test]
        fn nothing_gets_lost_and_every_row_fits(text in "[a-z` é\u{1b}m\\n]{0,200}", columns in 0_usize..100) {
            let wrapped = wrap(&text, columns, 2);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&wrapped), words(&text));
            let columns = columns.max(LEAST_COLUMNS);
            for row in wrapped.lines().filter(|row| row.trim().contains(' ')) {
                prop_assert!(width(row.trim_end()) <= columns, "{:?}", row);
            }
        }
    }
}
