//! The file in `state_dir` that keeps what the CSMS has set: mode 0600, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ocpp_bridge::AuthorizationKey;
use reverse_tunnel::open_file;
use serde::{Deserialize, Serialize};

use super::rollover::{Kept, Proof};
use crate::limits::KEPT_SECURITY_BYTES;

/// The file.
#[derive(Debug)]
pub(super) struct KeptFile(PathBuf);

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<u8>,
    /// In hexadecimal, and so are the others: a key is bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<Trial>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    profile: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl KeptFile {
    pub(super) fn in_directory(state_dir: &Path) -> Self {
        Self(state_dir.join("ocpp-security.json"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What was kept. A file that makes no sense is set aside as `ocpp-security.json.corrupt`, in the place of an earlier
    /// one, and told of: the configuration's key and profile are what is left then.
    pub(super) fn load(&self) -> Kept {
        match self.read() {
            Ok(Some(kept)) => kept,
            Ok(None) => {
                let aside = self.0.with_extension("json.corrupt");
                let set_aside = fs::rename(&self.0, &aside).is_ok();
                tracing::error!(file = %self.0.display(), set_aside, "ocpp-security-corrupt");
                Kept::default()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                tracing::error!(file = %self.0.display(), %error, "ocpp-security-unreadable");
                Kept::default()
            }
        }
    }

    /// What was kept, as far as it can be read; nothing is set aside.
    pub(super) fn peek(&self) -> Kept {
        self.read().ok().flatten().unwrap_or_default()
    }

    /// `None` if it holds something else.
    fn read(&self) -> io::Result<Option<Kept>> {
        let mut bytes = Vec::new();
        open_file(&self.0)?.take(KEPT_SECURITY_BYTES).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice::<Document>(&bytes).ok().and_then(Document::into_kept))
    }

    /// Keeps this; after a power cut the file holds it, or what it held before.
    pub(super) fn save(&self, kept: &Kept) -> io::Result<()> {
        let directory = self.0.parent().unwrap_or(Path::new("/"));
        // Mode 0600 from the first byte on.
        let mut file = tempfile::Builder::new().prefix(".ocpp-security-").tempfile_in(directory)?;
        file.write_all(&serde_json::to_vec(&Document::of(kept))?)?;
        file.as_file().sync_all()?;
        file.persist(&self.0)?;
        File::open(directory)?.sync_all()
    }
}

impl Document {
    fn of(kept: &Kept) -> Self {
        let trial = kept.trial.as_ref();
        Self {
            profile: kept.profile,
            key: kept.key.as_ref().map(to_hex),
            trial: trial.map(|trial| Trial { profile: trial.profile, key: trial.key.as_ref().map(to_hex) }),
        }
    }

    /// `None` for a profile or a key that there can't be.
    fn into_kept(self) -> Option<Kept> {
        let keys = [self.key.as_deref(), self.trial.as_ref().and_then(|trial| trial.key.as_deref())];
        let profiles = [self.profile, self.trial.as_ref().map(|trial| trial.profile)];
        let [key, trial_key] = keys.map(|key| key.map(from_hex));
        if [&key, &trial_key].contains(&&Some(None)) || profiles.iter().flatten().any(|profile| *profile > 3)
        {
            return None;
        }
        let trial = self.trial.map(|trial| Proof { profile: trial.profile, key: trial_key.flatten() });
        Some(Kept { profile: self.profile, key: key.flatten(), trial })
    }
}

fn to_hex(key: &AuthorizationKey) -> String {
    HEXLOWER.encode(key.as_bytes())
}

fn from_hex(text: &str) -> Option<AuthorizationKey> {
    AuthorizationKey::from_bytes(&HEXLOWER.decode(text.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(bytes: &[u8]) -> Option<AuthorizationKey> {
        Some(AuthorizationKey::from_bytes(bytes).unwrap())
    }

    #[test]
    fn it_keeps_everything_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeptFile::in_directory(directory.path());
        assert_eq!(file.load(), Kept::default());
        let trial = Proof { profile: 3, key: key(b"0001020304050607FFFFFFFFFFFFFFFFFFFFFFFF") };
        for kept in [
            Kept { profile: Some(2), key: key(&[0, 0xff, b'\n']), trial: Some(trial) },
            Kept { trial: Some(Proof { profile: 1, key: None }), ..Kept::default() },
            Kept::default(),
        ] {
            file.save(&kept).unwrap();
            assert_eq!(KeptFile::in_directory(directory.path()).load(), kept);
        }
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_makes_no_sense_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeptFile::in_directory(directory.path());
        for text in ["", "{", "[]", r#"{"profile":4}"#, r#"{"key":"0"}"#, r#"{"key":"zz"}"#, r#"{"other":1}"#]
        {
            fs::write(file.path(), text).unwrap();
            assert_eq!(file.load(), Kept::default(), "{text}");
            assert!(!file.path().exists());
            assert_eq!(fs::read_to_string(file.path().with_extension("json.corrupt")).unwrap(), text);
        }
    }

    #[test]
    fn a_directory_that_cant_be_written_is_an_error() {
        assert!(KeptFile::in_directory(Path::new("/proc")).save(&Kept::default()).is_err());
    }
}
