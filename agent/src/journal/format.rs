//! One event as one line of printable ASCII.

use std::fmt::{self, Write};

use tracing::Event;
use tracing::field::{Field, Visit};

/// The event's name and fields.
pub(super) fn line(event: &Event<'_>) -> String {
    let mut line = Line::default();
    event.record(&mut line);
    line.name + &line.fields
}

/// Text with everything outside printable ASCII escaped.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => escaped.push(c),
            _ => escaped.extend(c.escape_default()),
        }
    }
    escaped
}

/// A field's value: escaped, and in quotes where a reader could lose its end.
#[must_use]
pub fn value(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains([' ', '=', '"', '\\']);
    if plain {
        return escape(text);
    }
    format!("\"{}\"", escape(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[derive(Default)]
struct Line {
    name: String,
    fields: String,
}

impl Line {
    fn add(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            self.name = escape(text);
        } else {
            // Writing to a string doesn't fail.
            let _ = write!(self.fields, " {}={}", field.name(), value(text));
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, text: &str) {
        self.add(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_forge_a_line_or_a_field() {
        assert_eq!(escape("a\nb\u{1b}[31m\u{e9}"), "a\\nb\\u{1b}[31m\\u{e9}");
        for (text, expected) in [
            ("ops@203.0.113.7:22", "ops@203.0.113.7:22"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("x slot=2", "\"x slot=2\""),
            ("say \"hi\\", "\"say \\\"hi\\\\\""),
            ("a\nb", "a\\nb"),
        ] {
            assert_eq!(value(text), expected);
        }
    }
}
