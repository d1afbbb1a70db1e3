//! What is wanted, kept in `runtime_dir` so that it survives a restart of the agent, but not a reboot.
//!
//! A technician may restart the agent through its own tunnel. The file names the boot it was written in; deadlines
//! are on the monotonic clock, which only means something within that boot.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use reverse_tunnel::{Destination, Forward};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::limits::CONFIG_BYTES;
use crate::supervisor::{Origin, TunnelId};
use crate::whole_file::{self, Survives};

/// One wanted tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub id: TunnelId,
    /// Where it goes.
    pub destination: Destination,
    /// What it publishes.
    pub forwards: Vec<Forward>,
    /// When it ends.
    pub expires: Instant,
    /// Who asked: what came over OCPP must pass the policy again.
    pub origin: Origin,
}

/// The file.
#[derive(Debug)]
pub struct WantedFile(PathBuf);

#[derive(Deserialize, Serialize)]
struct Document {
    boot_id: String,
    tunnels: Vec<Record>,
}

#[derive(Deserialize, Serialize)]
struct Record {
    id: String,
    destination: String,
    forwards: Vec<String>,
    /// Milliseconds since boot.
    expires: u64,
    origin: Origin,
}

impl WantedFile {
    /// The file in this directory.
    #[must_use]
    pub fn in_directory(runtime_dir: &Path) -> Self {
        Self(runtime_dir.join("wanted.json"))
    }

    /// What was wanted before, in this boot. A file that can't be used wants nothing, and is told of in the log.
    #[must_use]
    pub fn load(&self) -> Vec<Wanted> {
        match self.read() {
            Ok(wanted) => wanted,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(file = %self.0.display(), %error, "wanted-tunnels-unreadable");
                Vec::new()
            }
        }
    }

    fn read(&self) -> io::Result<Vec<Wanted>> {
        let document: Document = serde_json::from_slice(&whole_file::read(&self.0, CONFIG_BYTES)?)?;
        if clock::boot_id().as_deref() != Some(document.boot_id.as_str()) {
            tracing::info!("wanted-tunnels-of-another-boot");
            return Ok(Vec::new());
        }
        Ok(document.tunnels.iter().filter_map(Record::to_wanted).collect())
    }

    /// Writes what is wanted now; whoever looks finds the old list or the new one.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn save(&self, wanted: impl Iterator<Item = Wanted>) -> io::Result<()> {
        let document = Document {
            boot_id: clock::boot_id().unwrap_or_default(),
            tunnels: wanted.map(Record::from).collect(),
        };
        whole_file::replace(&self.0, &serde_json::to_vec_pretty(&document)?, Survives::Exit)
    }
}

impl Record {
    /// `None` for one whose time is over or whose text this version doesn't understand.
    fn to_wanted(&self) -> Option<Wanted> {
        Some(Wanted {
            id: self.id.parse().ok()?,
            destination: self.destination.parse().ok()?,
            forwards: self.forwards.iter().map(|forward| forward.parse().ok()).collect::<Option<_>>()?,
            expires: clock::from_since_boot(self.expires)?,
            origin: self.origin,
        })
    }
}

impl From<Wanted> for Record {
    fn from(wanted: Wanted) -> Self {
        Self {
            id: wanted.id.to_string(),
            destination: wanted.destination.to_string(),
            forwards: wanted.forwards.iter().map(ToString::to_string).collect(),
            expires: clock::since_boot(wanted.expires),
            origin: wanted.origin,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            id: TunnelId::Slot(1),
            destination: "ops@gw:2222".parse().unwrap(),
            forwards: vec!["[::1]:1111:127.0.0.1:22".parse().unwrap()],
            expires: Instant::now() + Duration::from_secs(60),
            origin: Origin::Ocpp,
        }
    }

    #[test]
    fn it_survives_a_restart_but_neither_a_reboot_nor_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = WantedFile::in_directory(directory.path());
        assert_eq!(file.load(), []);
        let over = Wanted { expires: Instant::now(), id: TunnelId::AdHoc(1), ..wanted() };
        file.save([wanted(), over].into_iter()).unwrap();
        let [restored] = file.load().try_into().unwrap();
        assert_eq!(
            (restored.id, &restored.destination, &restored.forwards),
            (wanted().id, &wanted().destination, &wanted().forwards)
        );

        let text = fs::read_to_string(&file.0).unwrap();
        let id = clock::boot_id().unwrap();
        fs::write(&file.0, text.replace(&id, "00000000-0000-0000-0000-000000000000")).unwrap();
        assert_eq!(file.load(), []);
    }

    #[test]
    fn a_corrupt_file_wants_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = WantedFile::in_directory(directory.path());
        fs::write(&file.0, "{\"boot_id\":").unwrap();
        assert_eq!(file.load(), []);
    }
}
