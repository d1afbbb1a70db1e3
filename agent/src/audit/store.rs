//! The files of records, `STATE_DIR/audit/NUMBER.jsonl`, each named by the sequence number that it begins with.
//!
//! Records are only ever appended. The agent writes them, and so does the command line when it changes keys, in turn by a
//! lock; the sequence number is given under that lock. When a file is full, the next one is begun and the oldest is
//! removed. Nothing is renamed, so that a reader who follows is never led astray.
//!
//! No file is held open between two records, so that the file system can be remounted read-only at any time.
//!
//! A power cut may leave a part of the last line, or zeros in its place. It is ended by a newline, stands apart from then
//! on, and costs a sequence number.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::Deserialize;

use super::read::{file_name, next_line, parts};
use super::record::{Kind, Outcome, Record, Source};
use crate::limits::AUDIT_FILES;
use crate::service::instance::open_lock_file;

/// The files, and where we stand in them.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    /// Bytes that all files together may take.
    most: u64,
    place: Option<Place>,
    /// A file was made since the last [`Self::sync`].
    made: bool,
    /// The number of the last record that we have seen.
    last: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    first: u64,
    length: u64,
}

/// The newest file, while records are appended to it.
#[derive(Debug)]
struct Open {
    file: File,
    place: Place,
}

/// A record on its way into a file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Records before it that were lost; their numbers are left out.
    pub(super) lost: u64,
    pub(super) record: Record,
}

/// What the last run of the agent left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// The last record's number; 0 if there is none.
    pub last: u64,
    /// How that run ended.
    pub ended: Ended,
}

/// How a run of the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing tells of one.
    Unknown,
    /// It stopped in good order.
    Stopped,
    /// It was killed, crashed, or lost its power.
    CutShort,
}

/// What matters of a record when it is read again.
#[derive(Deserialize)]
struct Seen {
    seq: u64,
    event: u16,
}

/// What a file holds.
#[derive(Default)]
struct Scanned {
    last: u64,
    /// The last record of an agent's start or stop.
    run: Option<u16>,
    /// Its last line isn't ended.
    torn: bool,
}

impl Store {
    /// Nothing is read or made before it is asked for anything.
    #[must_use]
    pub(super) fn new(directory: PathBuf, most: u64) -> Self {
        Self { directory, most, place: None, made: false, last: 0 }
    }

    /// What the files say of the last run.
    ///
    /// # Errors
    /// They can't be read.
    pub(super) fn before(&mut self) -> io::Result<Before> {
        let none = Before { last: 0, ended: Ended::Unknown };
        let parts = match parts(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(none),
            parts => parts?,
        };
        let mut before = none;
        for part in parts.iter().rev() {
            let scanned = scan(&File::open(&part.path)?)?;
            before.last = before.last.max(scanned.last);
            if let Some(run) = scanned.run {
                let stopped = run == Kind::AgentStopped as u16;
                before.ended = if stopped { Ended::Stopped } else { Ended::CutShort };
                break;
            }
        }
        self.last = self.last.max(before.last);
        Ok(before)
    }

    /// Writes records, and tells how many of them are written; the first that fails ends it.
    pub(super) fn append(&mut self, entries: &[Entry]) -> (usize, io::Result<()>) {
        let lock = match self.lock() {
            Ok(lock) => lock,
            Err(error) => return (0, Err(error)),
        };
        let (mut open, mut written) = (None, 0);
        let result = self.find_place(&mut open).and_then(|()| {
            for entry in entries {
                self.write(entry, &mut open)?;
                written += 1;
            }
            Ok(())
        });
        self.place = open.map(|open| open.place);
        drop(lock);
        (written, result)
    }

    /// Waits until the medium has what was written.
    ///
    /// # Errors
    /// The medium's.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(place) = &self.place {
            match File::open(self.directory.join(file_name(place.first))) {
                Ok(file) => file.sync_data()?,
                // Somebody has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if self.made {
            File::open(&self.directory)?.sync_all()?;
            self.made = false;
        }
        Ok(())
    }

    /// Only one process writes at a time. The lock dies with whoever holds it.
    fn lock(&self) -> io::Result<File> {
        if !self.directory.is_dir() {
            DirBuilder::new().recursive(true).mode(0o750).create(&self.directory)?;
        }
        let lock = open_lock_file(&self.directory.join("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    /// Opens the newest file, and reads it unless it is as we left it.
    fn find_place(&mut self, open: &mut Option<Open>) -> io::Result<()> {
        let Some(newest) = parts(&self.directory)?.pop() else { return Ok(()) };
        let file = File::options().read(true).append(true).open(&newest.path)?;
        let place = Place { first: newest.first, length: newest.length };
        if self.place.take().as_ref() == Some(&place) {
            *open = Some(Open { file, place });
            return Ok(());
        }
        let scanned = scan(&file)?;
        let found = if scanned.last > 0 { scanned.last } else { newest.first.saturating_sub(1) };
        self.last = self.last.max(found);
        let found = open.insert(Open { file, place });
        if !scanned.torn {
            return Ok(());
        }
        if let Err(error) = found.append(b"\n") {
            // It is found torn again.
            *open = None;
            return Err(error);
        }
        // It had a number.
        self.last = self.last.saturating_add(1);
        let record = Record::new(Kind::RecordsLost, Source::Agent, Outcome::Failure)
            .number("lost", 1)
            .text("why", "the last line was torn");
        self.write(&Entry { lost: 0, record }, open)
    }

    fn write(&mut self, entry: &Entry, open: &mut Option<Open>) -> io::Result<()> {
        let number = self.last.saturating_add(entry.lost).saturating_add(1);
        let mut line = entry.record.line(number);
        line.push('\n');
        let part = self.most / AUDIT_FILES;
        let fits = |open: &Open| open.place.length == 0 || open.place.length + line.len() as u64 <= part;
        let open = match open {
            Some(open) if fits(open) => open,
            open => open.insert(self.begin(number)?),
        };
        open.append(line.as_bytes())?;
        self.last = number;
        Ok(())
    }

    /// Begins a file, and makes room for it.
    fn begin(&mut self, first: u64) -> io::Result<Open> {
        let path = self.directory.join(file_name(first));
        let file = File::options().read(true).append(true).create_new(true).mode(0o640).open(path)?;
        self.made = true;
        let room = self.most - self.most / AUDIT_FILES;
        let mut older = parts(&self.directory)?;
        older.retain(|part| part.first != first);
        let mut kept: u64 = older.iter().map(|part| part.length).sum();
        for part in older {
            if kept <= room {
                break;
            }
            fs::remove_file(&part.path)?;
            kept -= part.length;
        }
        Ok(Open { file, place: Place { first, length: 0 } })
    }
}

impl Open {
    /// All or nothing, as far as the disk allows.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = self.file.write_all(bytes);
        match &result {
            Ok(()) => self.place.length += bytes.len() as u64,
            Err(_) => {
                // What is left of it is recognised as torn.
                let _ = self.file.set_len(self.place.length);
            }
        }
        result
    }
}

fn scan(file: &File) -> io::Result<Scanned> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let mut scanned = Scanned::default();
    while let Some(line) = next_line(&mut reader)? {
        // What makes no sense is passed over; a reader shows it.
        let Ok(seen) = serde_json::from_slice::<Seen>(&line) else { continue };
        scanned.last = scanned.last.max(seen.seq);
        if [Kind::AgentStarted as u16, Kind::AgentStopped as u16].contains(&seen.event) {
            scanned.run = Some(seen.event);
        }
    }
    if reader.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        reader.seek(SeekFrom::End(-1))?;
        reader.read_exact(&mut last)?;
        scanned.torn = last != *b"\n";
    }
    Ok(scanned)
}

#[cfg(test)]
mod tests {
    use super::super::read::read_all;
    use super::*;

    const MOST: u64 = 64 * 1024;

    fn entry() -> Entry {
        Entry { lost: 0, record: Record::new(Kind::TunnelOpened, Source::Agent, Outcome::Success) }
    }

    fn of_kind(kind: Kind) -> Entry {
        Entry { lost: 0, record: Record::new(kind, Source::Agent, Outcome::Success) }
    }

    fn append(store: &mut Store, entry: Entry) {
        let (written, result) = store.append(&[entry]);
        assert!(matches!((written, result), (1, Ok(()))));
    }

    fn numbers(directory: &tempfile::TempDir) -> Vec<u64> {
        let text = String::from_utf8(read_all(directory.path(), usize::MAX).unwrap()).unwrap();
        text.lines().filter_map(|line| serde_json::from_str::<Seen>(line).ok()).map(|seen| seen.seq).collect()
    }

    fn store(directory: &tempfile::TempDir) -> Store {
        Store::new(directory.path().to_owned(), MOST)
    }

    #[test]
    fn numbers_go_on_across_restarts_and_processes() {
        let directory = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (store(&directory), store(&directory));
        append(&mut one, entry());
        append(&mut other, entry());
        append(&mut one, Entry { lost: 5, ..entry() });
        append(&mut other, entry());
        append(&mut store(&directory), entry());
        assert_eq!(numbers(&directory), [1, 2, 8, 9, 10]);
    }

    #[test]
    fn the_oldest_files_make_room_and_the_cap_holds() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = store(&directory);
        for _ in 0..2000 {
            append(&mut store, entry());
            let all: u64 = parts(directory.path()).unwrap().iter().map(|part| part.length).sum();
            assert!(all <= MOST, "{all}");
        }
        let numbers = numbers(&directory);
        assert_eq!(numbers.last(), Some(&2000));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "in order and without a gap");
        let all = parts(directory.path()).unwrap();
        assert!(all.len() >= 3, "{all:?}");
        assert_eq!(numbers.first(), Some(&all[0].first));
        let kept: u64 = all.iter().map(|part| part.length).sum();
        assert!(kept > MOST / 2, "{kept}");
    }

    #[test]
    fn a_torn_last_line_is_set_apart_and_costs_a_number() {
        for torn in [&b"{\"seq\":3,\"time\":\"20"[..], &[0; 4096], &[b'x'; 10_000]] {
            let directory = tempfile::tempdir().unwrap();
            append(&mut store(&directory), of_kind(Kind::AgentStarted));
            append(&mut store(&directory), entry());
            let path = directory.path().join(file_name(1));
            let mut file = File::options().append(true).open(&path).unwrap();
            file.write_all(torn).unwrap();
            append(&mut store(&directory), entry());
            assert_eq!(numbers(&directory), [1, 2, 4, 5]);
            let text = fs::read(&path).unwrap();
            let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
            assert_eq!(lines[2], torn, "what was there is still there");
            assert!(String::from_utf8_lossy(lines[3]).contains("records-lost"));
            append(&mut store(&directory), entry());
            assert_eq!(numbers(&directory), [1, 2, 4, 5, 6], "it is told of once");
        }
    }

    #[test]
    fn how_the_last_run_ended_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let before = || store(&directory).before().unwrap();
        assert_eq!(before(), Before { last: 0, ended: Ended::Unknown });
        append(&mut store(&directory), of_kind(Kind::AgentStarted));
        for _ in 0..200 {
            append(&mut store(&directory), entry());
        }
        assert_eq!(before(), Before { last: 201, ended: Ended::CutShort }, "also from an older file");
        append(&mut store(&directory), of_kind(Kind::AgentStopped));
        append(&mut store(&directory), of_kind(Kind::HostKeysTrusted));
        assert_eq!(before(), Before { last: 203, ended: Ended::Stopped });
    }

    #[test]
    fn files_that_are_removed_under_us_are_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("audit");
        let mut store = Store::new(below.clone(), MOST);
        append(&mut store, entry());
        fs::remove_dir_all(&below).unwrap();
        append(&mut store, entry());
        assert_eq!(parts(&below).unwrap()[0].first, 2);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_and_no_disaster() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("audit"), "a file in its way").unwrap();
        let mut store = Store::new(directory.path().join("audit"), MOST);
        let (written, result) = store.append(&[entry()]);
        assert_eq!(written, 0);
        result.unwrap_err();
    }
}
