//! The lines of all files of records, one after the other, and on into those that are still to come.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use super::read::{Part, next_line, parts};
use crate::limits::AUDIT_LINE_BYTES;

/// A reader of lines that keeps its place.
#[derive(Debug)]
pub struct Lines {
    directory: PathBuf,
    open: Option<(u64, BufReader<File>)>,
}

impl Lines {
    /// Begins with the oldest line.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, open: None }
    }

    /// The next line, without its newline; `None` if there is none yet.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.next_here()? {
                return Ok(Some(line));
            }
            let Some(part) = self.next_part()? else { return Ok(None) };
            // It may have been written to until the next file was begun.
            if let Some(line) = self.next_here()? {
                return Ok(Some(line));
            }
            let torn = self.torn()?;
            match File::open(&part.path) {
                Ok(file) => self.open = Some((part.first, BufReader::new(file))),
                // It was the oldest, and has made room.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            if torn.is_some() {
                return Ok(torn);
            }
        }
    }

    /// What stands behind the last newline of the file that we are in: the rest of a line that was never ended.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn torn(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((_, reader)) = &mut self.open else { return Ok(None) };
        let mut rest = Vec::new();
        reader.by_ref().take(AUDIT_LINE_BYTES as u64).read_until(b'\n', &mut rest)?;
        Ok(Some(rest).filter(|rest| !rest.is_empty()))
    }

    fn next_here(&mut self) -> io::Result<Option<Vec<u8>>> {
        match &mut self.open {
            Some((_, reader)) => next_line(reader),
            None => Ok(None),
        }
    }

    fn next_part(&self) -> io::Result<Option<Part>> {
        let after = self.open.as_ref().map(|(first, _)| *first);
        let mut parts = parts(&self.directory)?;
        parts.retain(|part| after.is_none_or(|after| part.first > after));
        Ok(if parts.is_empty() { None } else { Some(parts.remove(0)) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_reader_follows_into_the_next_file_and_sees_what_was_torn() {
        let directory = tempfile::tempdir().unwrap();
        let file = |number: u32| {
            let path = directory.path().join(format!("{number:012}.jsonl"));
            File::options().create(true).append(true).open(path).unwrap()
        };
        let mut lines = Lines::new(directory.path().to_owned());
        let mut next = || lines.read().unwrap().map(|line| String::from_utf8(line).unwrap());
        assert_eq!(next(), None);
        file(1).write_all(b"one\ntw").unwrap();
        assert_eq!(next().as_deref(), Some("one"));
        assert_eq!(next(), None, "it isn't ended");
        file(1).write_all(b"o\nto").unwrap();
        file(4).write_all(b"four\n").unwrap();
        file(5).write_all(b"five\nfi").unwrap();
        for expected in ["two", "to", "four", "five"] {
            assert_eq!(next().as_deref(), Some(expected));
        }
        assert_eq!(next(), None);
        assert_eq!(lines.torn().unwrap().as_deref(), Some(&b"fi"[..]));
        fs::remove_file(directory.path().join("000000000001.jsonl")).unwrap();
        assert_eq!(lines.read().unwrap(), None);
    }
}
