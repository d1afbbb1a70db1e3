//! The files that the configuration is written in: the main one, and `config.d/*.toml` beside it, in the order of their names.
//!
//! They are merged key by key before anything is judged, so that a file of `config.d` can say one thing of its own. Spans
//! are counted through all files, as if they stood one behind the other, and every mistake finds its way back to the file, line and
//! column where it was written.

use std::fs;
use std::io;
use std::iter;
use std::mem;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue, Deserializer};
use toml::{Spanned, Table};

use super::error::{ConfigError, Invalid, from_parser, place, read};
use super::file::File;
use crate::limits::{CONFIG_BYTES, CONFIG_FILES};

/// The directory beside the main file whose files are read as well.
const DIRECTORY: &str = "config.d";

/// What was read.
#[derive(Debug)]
pub(super) struct Sources(Vec<Source>);

#[derive(Debug)]
struct Source {
    path: PathBuf,
    text: String,
    /// Bytes of the files before it, and one more for each.
    start: usize,
}

impl Sources {
    /// Reads the main file and those of `config.d` beside it.
    ///
    /// # Errors
    /// One can't be read; there are too many, or too long ones; `config.d` belongs to somebody else.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut sources = Self(Vec::new());
        sources.add(path)?;
        for path in drop_ins(path)? {
            sources.add(&path)?;
        }
        Ok(sources)
    }

    /// This one text.
    pub(super) fn single(path: &Path, text: &str) -> Self {
        Self(vec![Source { path: path.to_owned(), text: text.to_owned(), start: 0 }])
    }

    fn add(&mut self, path: &Path) -> Result<(), ConfigError> {
        let before: usize = self.0.iter().map(|source| source.text.len()).sum();
        let text = read(path, CONFIG_BYTES.saturating_sub(before as u64))?;
        let start = self.0.last().map_or(0, |last| last.start + last.text.len() + 1);
        self.0.push(Source { path: path.to_owned(), text, start });
        Ok(())
    }

    /// The files, in the order in which they were read.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|source| source.path.clone()).collect()
    }

    /// All of them as one file.
    ///
    /// # Errors
    /// One isn't TOML, or has a key that doesn't exist, or a value of the wrong type.
    pub(super) fn parse(&self) -> Result<File, ConfigError> {
        let merged = self.merged()?;
        let length = self.0.first().map_or(0, |main| main.text.len());
        File::deserialize(Deserializer::from(Spanned::new(0..length, merged))).map_err(|error| {
            let (source, at) = self.find(error.span().map_or(0, |span| span.start));
            let written = source.and_then(|source| source.text.get(at..)).unwrap_or_default();
            self.error(from_parser(&error, written))
        })
    }

    /// Their keys and values, whatever they are.
    fn merged(&self) -> Result<DeTable<'_>, ConfigError> {
        let mut merged = DeTable::new();
        for source in &self.0 {
            let table = DeTable::parse(&source.text).map_err(|error| {
                let written = source.text.get(error.span().map_or(0, |span| span.start)..);
                self.error(from_parser(&error, written.unwrap_or_default()).moved(source.start))
            })?;
            merge(&mut merged, moved_table(table.into_inner(), source.start));
        }
        Ok(merged)
    }

    /// The mistake, where it was written.
    pub(super) fn error(&self, invalid: Invalid) -> ConfigError {
        let (source, at) = self.find(invalid.start());
        let (path, text) =
            source.map_or((Path::new(""), ""), |source| (source.path.as_path(), &*source.text));
        invalid.in_file(path, place(text, at))
    }

    /// The file that this byte stands in, and its number there.
    fn find(&self, byte: usize) -> (Option<&Source>, usize) {
        let source = self.0.iter().rfind(|source| source.start <= byte);
        (source, source.map_or(byte, |source| byte - source.start))
    }
}

/// The files of `config.d` beside the main file, in the order of their names.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = main.with_file_name(DIRECTORY);
    let unreadable = |error: io::Error| {
        let text = format!("can't be read: {error}; make it readable for this user, or remove it");
        ConfigError::of_file(&directory, text)
    };
    let owner = match fs::metadata(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(metadata) => metadata.uid(),
        Err(error) => return Err(unreadable(error)),
    };
    // Else a file in a directory where anybody may write, such as /tmp, would be extended by anybody.
    let main_owner = fs::metadata(main).map(|metadata| metadata.uid()).map_err(unreadable)?;
    if owner != 0 && owner != main_owner {
        let text = format!(
            "belongs to user {owner}, and {} to user {main_owner}; give it to that user, or to root",
            main.display()
        );
        return Err(ConfigError::of_file(&directory, text));
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(&directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden || path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        if paths.len() == CONFIG_FILES {
            let text = format!("has more than {CONFIG_FILES} files; put some of them together");
            return Err(ConfigError::of_file(&directory, text));
        }
        paths.push(path);
    }
    paths.sort();
    Ok(paths)
}

/// `runtime_dir` as far as the files tell it, whatever else is wrong with them.
pub(super) fn runtime_dir_of(main: &Path) -> Option<PathBuf> {
    let files = iter::once(main.to_owned()).chain(drop_ins(main).unwrap_or_default());
    files.filter_map(|file| runtime_dir_in(&read(&file, CONFIG_BYTES).ok()?)).next_back()
}

fn runtime_dir_in(text: &str) -> Option<PathBuf> {
    let of = |text: &str| toml::from_str::<Table>(text).ok()?.get("runtime_dir")?.as_str().map(PathBuf::from);
    // If it isn't TOML as a whole, a line of it may be. What stands behind the first table isn't ours.
    let mut top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    of(text).or_else(|| top.find_map(of))
}

/// Tables are merged key by key; of anything else, lists and lists of tables too, the later one counts.
fn merge<'a>(base: &mut DeTable<'a>, later: DeTable<'a>) {
    for (key, value) in later {
        match base.get_mut(&key).map(Spanned::get_mut) {
            Some(DeValue::Table(before)) if value.get_ref().is_table() => {
                if let DeValue::Table(later) = value.into_inner() {
                    merge(before, later);
                }
            }
            _ => {
                // With the key itself, which says where it is written.
                base.remove(&key);
                base.insert(key, value);
            }
        }
    }
}

/// The table with its spans moved so many bytes on.
fn moved_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let moved_key = |key: Spanned<_>| Spanned::new(moved(key.span(), by), key.into_inner());
    table.into_iter().map(|(key, value)| (moved_key(key), moved_value(value, by))).collect()
}

fn moved_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = moved(value.span(), by);
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved_table(table, by)),
        DeValue::Array(mut array) => {
            for item in array.iter_mut() {
                let taken = mem::replace(item, Spanned::new(0..0, DeValue::Boolean(false)));
                *item = moved_value(taken, by);
            }
            DeValue::Array(array)
        }
        other => other,
    };
    Spanned::new(span, value)
}

fn moved(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}
