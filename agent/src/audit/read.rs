//! Reading what was written down. It needs no agent, and takes nothing for granted: a power cut may have torn the files,
//! and anybody who may write in `state_dir` may have changed them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::limits::{AUDIT_FILES_READ, AUDIT_LINE_BYTES};

/// Where the records are, below `state_dir`.
#[must_use]
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("audit")
}

/// One file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The sequence number that its first record was given.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub length: u64,
}

/// The name of the file that begins with this sequence number.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:012}.jsonl")
}

/// The files in the order in which they were written; at most the [`AUDIT_FILES_READ`] newest. What has another name
/// than ours isn't one of them.
///
/// # Errors
/// The directory can't be read; it doesn't exist before the first record.
pub fn parts(directory: &Path) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        let Some(first) = number.and_then(|number| number.parse().ok()) else { continue };
        // A link could lead anywhere.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() && name.to_str() == Some(&file_name(first)) {
            parts.push(Part { first, path: entry.path(), length: metadata.len() });
        }
    }
    parts.sort_by_key(|part| part.first);
    parts.drain(..parts.len().saturating_sub(AUDIT_FILES_READ));
    Ok(parts)
}

/// The newest `limit` bytes of all records, as JSON lines in the order in which they were written; never a part of a
/// line. Empty if nothing was ever written.
///
/// # Errors
/// The files can't be read.
pub fn read_all(directory: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let parts = match parts(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        parts => parts?,
    };
    let all: u64 = parts.iter().map(|part| part.length).sum();
    let mut skip = all.saturating_sub(limit as u64);
    let mut bytes = Vec::new();
    for part in parts {
        if skip >= part.length {
            skip -= part.length;
            continue;
        }
        let mut file = match File::open(&part.path) {
            // The agent has made room meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        // From the byte before, so that a line which begins just there stays whole.
        let begun = skip.saturating_sub(1);
        file.seek(SeekFrom::Start(begun))?;
        let mut file = BufReader::new(file.take(part.length - begun));
        if skip > 0 {
            file.skip_until(b'\n')?;
            skip = 0;
        }
        file.read_to_end(&mut bytes)?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
    }
    // A newline for a torn last line may have made it longer.
    let over = bytes.len().saturating_sub(limit);
    if over > 0 {
        let end = bytes.iter().skip(over - 1).position(|byte| *byte == b'\n');
        bytes.drain(..end.map_or(bytes.len(), |at| over + at));
    }
    Ok(bytes)
}

/// The next line of a file, without its newline; `None` at its end.
///
/// A line that isn't ended yet is left for the next call, and the reader stays before it. Of one that is longer than any
/// record only the beginning is given.
///
/// # Errors
/// The file can't be read.
pub fn next_line<R: BufRead + Seek>(reader: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(AUDIT_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(line));
    }
    if read < AUDIT_LINE_BYTES {
        reader.seek_relative(-i64::try_from(read).unwrap_or_default())?;
        return Ok(None);
    }
    reader.skip_until(b'\n')?;
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_newest_whole_lines_are_read_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let read = |limit| String::from_utf8(read_all(directory.path(), limit).unwrap()).unwrap();
        assert_eq!(read(100), "");
        for (name, text) in [
            ("000000000003.jsonl", "three\nfour\n"),
            ("000000000001.jsonl", "one\ntwo\n"),
            ("000000000005.jsonl", "five\nto"),
            ("7.jsonl", "not ours\n"),
            ("lock", "nor this\n"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("000000000009.jsonl")).unwrap();
        let all = "one\ntwo\nthree\nfour\nfive\nto\n";
        assert_eq!(read(1000), all);
        for limit in 0..=all.len() + 1 {
            let text = read(limit);
            assert!(text.len() <= limit && all.ends_with(&text), "{limit}: {text:?}");
            assert!(text.is_empty() || text.ends_with("to\n"), "{limit}: {text:?}");
            assert!(
                text.is_empty() || all[..all.len() - text.len()].chars().last().is_none_or(|c| c == '\n')
            );
        }
        assert_eq!(read(19), "three\nfour\nfive\nto\n", "a line that begins just there is whole");
        assert_eq!(read_all(&directory.path().join("gone"), 10).unwrap(), b"");
    }

    #[test]
    fn a_line_that_is_still_being_written_is_left_for_later() {
        let mut reader = Cursor::new(b"one\ntw".to_vec());
        assert_eq!(next_line(&mut reader).unwrap(), Some(b"one".to_vec()));
        assert_eq!(next_line(&mut reader).unwrap(), None);
        reader.get_mut().extend(b"o\n");
        assert_eq!(next_line(&mut reader).unwrap(), Some(b"two".to_vec()));
        assert_eq!(next_line(&mut reader).unwrap(), None);
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_record() {
        let mut reader = Cursor::new([vec![b'x'; 10 * AUDIT_LINE_BYTES], b"\nnext\n".to_vec()].concat());
        assert_eq!(next_line(&mut reader).unwrap().map(|line| line.len()), Some(AUDIT_LINE_BYTES));
        assert_eq!(next_line(&mut reader).unwrap(), Some(b"next".to_vec()));
    }
}
