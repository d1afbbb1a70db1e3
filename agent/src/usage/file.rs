//! The count's file in `state_dir`.

use std::io;
use std::path::{Path, PathBuf};

use super::count::{Count, Now, Record};
use crate::limits::USAGE_BYTES;
use crate::whole_file::{self, Survives};

/// The file, and whether it could be written last.
#[derive(Debug)]
pub(super) struct UsageFile {
    path: PathBuf,
    failed: bool,
}

impl UsageFile {
    pub(super) fn in_directory(state_dir: &Path) -> Self {
        Self { path: state_dir.join("usage.json"), failed: false }
    }

    /// The count that was kept, brought to now. One that can't be used is set aside as `usage.json.corrupt`, in the
    /// place of an earlier one, and told of.
    pub(super) fn load(&self, now: &Now) -> Option<Count> {
        match self.read() {
            Ok(Some(mut count)) => {
                count.look(now, 0);
                Some(count)
            }
            Ok(None) => {
                let set_aside = whole_file::set_aside(&self.path);
                tracing::warn!(file = %self.path.display(), set_aside = set_aside.is_ok(), "usage-corrupt");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "usage-unreadable");
                None
            }
        }
    }

    /// `None` if what it holds is no count.
    fn read(&self) -> io::Result<Option<Count>> {
        let bytes = whole_file::read(&self.path, USAGE_BYTES)?;
        Ok(serde_json::from_slice::<Record>(&bytes).ok().and_then(Count::from_record))
    }

    /// Writes the count; after a power cut the file holds the old one or the new one. A failure is told of once, until
    /// it has worked again.
    pub(super) fn save(&mut self, count: &Count) {
        let result = self.write(count);
        if let Err(error) = &result
            && !self.failed
        {
            tracing::warn!(file = %self.path.display(), %error, "usage-not-kept");
        }
        self.failed = result.is_err();
    }

    fn write(&self, count: &Count) -> io::Result<()> {
        whole_file::replace(&self.path, &serde_json::to_vec(&count.record())?, Survives::PowerCut)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn now() -> Now {
        Now { month: "2026-11".parse().ok(), uptime: Duration::from_secs(7), boot_id: Some("a".into()) }
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = UsageFile::in_directory(directory.path());
        assert_eq!(file.load(&now()), None);
        let mut count = Count::new(&now());
        count.look(&now(), 4711);
        file.save(&count);
        assert_eq!(file.load(&now()), Some(count));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn what_makes_no_sense_is_set_aside() {
        for text in ["", "{", "{\"bytes\":-1}", "\u{0}\u{0}\u{0}", &"[".repeat(100_000)] {
            let directory = tempfile::tempdir().unwrap();
            let file = UsageFile::in_directory(directory.path());
            fs::write(&file.path, text).unwrap();
            assert_eq!(file.load(&now()), None);
            assert!(!file.path.exists());
            assert_eq!(fs::read_to_string(directory.path().join("usage.json.corrupt")).unwrap(), text);
        }
    }

    #[test]
    fn a_directory_that_has_gone_is_no_disaster() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = UsageFile::in_directory(&directory.path().join("gone"));
        file.save(&Count::new(&now()));
        assert!(file.failed);
    }
}
