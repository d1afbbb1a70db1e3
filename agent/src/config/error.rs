//! What is wrong with a configuration file, where, and what to do about it.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use reverse_tunnel::open_file;
use strsim::osa_distance;
use toml::Spanned;

use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::limits::CONFIG_BYTES;

/// What is wrong with a configuration file, and where.
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    /// Line and column from 1.
    place: Option<(usize, usize)>,
    text: String,
    missing: bool,
    /// The parser's words have none.
    has_cure: bool,
}

impl ConfigError {
    /// There is no such file. The cure is not in the text then: how another file is named depends on the command.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// As a command tells it: what is wrong, and what to do about it, which stands behind the last semicolon.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let text = self.to_string();
        match text.rsplit_once("; ") {
            _ if self.missing => Problem::new(Exit::Config, text, "name another one with --config FILE"),
            Some((text, cure)) if self.has_cure => Problem::new(Exit::Config, text, cure),
            _ => Problem::new(
                Exit::Config,
                text,
                "mend that line; `ocpp-tunnel config check` looks at it again",
            ),
        }
    }

    /// Something about a file or directory as a whole.
    pub(super) fn of_file(path: &Path, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: None, text: text.into(), missing: false, has_cure: true }
    }
}

/// Something wrong at a place that isn't a line and column yet.
pub(super) struct Invalid {
    span: Option<Range<usize>>,
    text: String,
    has_cure: bool,
}

impl Invalid {
    pub(super) fn at(span: Option<Range<usize>>, text: impl Into<String>) -> Self {
        Self { span, text: text.into(), has_cure: true }
    }

    pub(super) fn value<T>(value: &Spanned<T>, text: impl Into<String>) -> Self {
        Self::at(Some(value.span()), text)
    }

    /// The same, so many bytes further on.
    pub(super) fn moved(self, by: usize) -> Self {
        let start = self.start() + by;
        Self { span: Some(start..start), ..self }
    }

    /// Its first byte.
    pub(super) fn start(&self) -> usize {
        self.span.as_ref().map_or(0, |span| span.start)
    }

    pub(super) fn in_file(self, path: &Path, place: (usize, usize)) -> ConfigError {
        ConfigError {
            path: path.to_owned(),
            place: Some(place),
            text: self.text,
            missing: false,
            has_cure: self.has_cure,
        }
    }
}

/// Line and column, from 1, of a byte.
pub(super) fn place(source: &str, byte: usize) -> (usize, usize) {
    let before = source.get(..byte).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// The file's text, of at most so many bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<String, ConfigError> {
    let error = |place, text| ConfigError { place, ..ConfigError::of_file(path, text) };
    let unreadable = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound if path.is_symlink() => {
            error(None, "is a link to a file that doesn't exist; mend the link, or remove it".to_owned())
        }
        io::ErrorKind::NotFound => ConfigError { missing: true, ..error(None, "doesn't exist".to_owned()) },
        io::ErrorKind::PermissionDenied => {
            error(None, format!("can't be read: {cause}; run as root, or as a user who may read it"))
        }
        io::ErrorKind::InvalidInput => error(None, format!("can't be read: {cause}; put a file there")),
        io::ErrorKind::IsADirectory => error(None, "is a directory; name the file in it".to_owned()),
        _ => error(None, format!("can't be read: {cause}; check the disk that it is on")),
    };
    let mut bytes = Vec::new();
    let file = open_file(path).map_err(unreadable)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        let what = if most < CONFIG_BYTES { ", together with the files before it" } else { "" };
        return Err(error(None, format!("is longer than {CONFIG_BYTES} bytes{what}; shorten it")));
    }
    String::from_utf8(bytes).map_err(|invalid| {
        let valid = invalid.utf8_error().valid_up_to();
        let before = invalid.as_bytes().get(..valid).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let text = "this is not UTF-8; save the file in that encoding".to_owned();
        error(Some(place(before.unwrap_or_default(), valid)), text)
    })
}

/// What the parser says, in words that help. `written` is the file from there on.
pub(super) fn from_parser(error: &toml::de::Error, written: &str) -> Invalid {
    let message = error.message().trim().replace('\n', " ");
    match unknown_key(&message).or_else(|| wrong_type(&message, written)) {
        Some(text) => Invalid::at(error.span(), text),
        None => Invalid { has_cure: false, ..Invalid::at(error.span(), message) },
    }
}

/// Sections and keys that the design has, and this version hasn't.
const LATER: [&str; 5] = ["connection", "services", "node", "support", "console"];

/// serde's "unknown field `x`, expected one of `y`, `z`".
fn unknown_key(message: &str) -> Option<String> {
    let (key, expected) = message.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    // None of them is the name of anything else anywhere.
    if LATER.contains(&key) {
        return Some(format!("`{key}` is not part of this version; remove it"));
    }
    let nearest = known.iter().min_by_key(|name| osa_distance(key, name));
    let alike = |name: &&&str| osa_distance(key, name) <= (name.len() / 3).max(1);
    Some(match nearest.filter(alike) {
        Some(name) => format!("unknown key `{key}`; did you mean `{name}`?"),
        None => format!("unknown key `{key}`; the keys here are {}", known.join(", ")),
    })
}

/// serde's "invalid type: x, expected y", and keys that are missing or there twice. `written` is the file from there on.
fn wrong_type(message: &str, written: &str) -> Option<String> {
    if message.starts_with("missing field ") {
        return Some(format!("{message}; add it"));
    }
    if message.starts_with("duplicate key") {
        return Some(format!("{message}; remove one of them"));
    }
    let (what, expected) = message.strip_prefix("invalid ")?.rsplit_once(", expected ")?;
    if expected.starts_with("struct ") {
        return Some(format!(
            "invalid {what}, expected a section; write its name in brackets on a line of its own"
        ));
    }
    let cure = match expected {
        "a string" | "path string" => "write it in quotes",
        "a boolean" => "write true or false, without quotes",
        "a sequence" if written.starts_with("[[") => "write this section's name in single brackets",
        "a sequence" if written.starts_with('[') => "write this section's name in double brackets",
        "a sequence" => "write a list in brackets",
        "u8" => "write a whole number from 0 to 255, without quotes",
        "u32" | "u64" | "usize" => "write a whole number from 0 on, without quotes",
        _ => return None,
    };
    let expected = match expected {
        "path string" => "a string",
        "u8" | "u32" | "u64" | "usize" => "a whole number",
        other => other,
    };
    Some(format!("invalid {what}, expected {expected}; {cure}"))
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.path.display(), self.text),
            None => write!(f, "{}: {}", self.path.display(), self.text),
        }
    }
}

impl std::error::Error for ConfigError {}
