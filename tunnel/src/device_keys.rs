//! The keys that this device offers: one, or two while it changes from one to the next.
//!
//! Files beside the device key `FILE`:
//!
//! | file | content |
//! | --- | --- |
//! | `FILE.new` | the key that is to take its place; while it is there, it is offered first |
//! | `FILE.old` | the key whose place was taken last |
//! | `FILE.servers` | which key each server took last |
//! | `…-cert.pub` | the certificate for each |
//!
//! They are looked at again before each login, so that a rotation that the command line begins or ends holds for
//! a running agent too. What can't be read then leaves in use what was read before. Where nothing was read before, there is no
//! key, and [`DeviceKeys::fault`] says why; a file that is mended, or moved away, ends that.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::certificate::{CertificateError, path_beside, wall_clock};
use crate::destination::Destination;
use crate::files::open_file;
use crate::identity::{Existing, Identity, IdentityError, directory_of, write_private};
use crate::key_ledger::Ledger;
use crate::limits::{LEDGER_BYTES, ROTATION_PATIENCE};

/// The device's keys.
#[derive(Debug)]
pub struct DeviceKeys {
    files: Files,
    comment: String,
    held: Mutex<Held>,
    view: watch::Sender<KeyView>,
}

/// What is to be seen of the device's key.
#[derive(Clone, Debug, Default)]
pub struct KeyView {
    /// The key that an operator has to authorise: the new one while there is one, for the servers know the other one. None where
    /// no key can be used.
    pub key: Option<Identity>,
    /// What is wrong with the device key's file. A key that was read before is used all the same.
    pub fault: Option<KeyFault>,
}

/// Why the device key's file can't be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFault {
    /// What is wrong, with the file's name.
    pub text: String,
    /// What to do about it.
    pub cure: String,
}

#[derive(Debug)]
struct Files {
    current: PathBuf,
    new: PathBuf,
    old: PathBuf,
    servers: PathBuf,
}

#[derive(Debug)]
struct Held {
    /// None was usable so far.
    current: Option<Key>,
    /// It was made by us, and nobody has been told.
    made: bool,
    new: Option<Key>,
    /// What the log was told last of the new key's file.
    new_fault: Option<String>,
}

#[derive(Clone, Debug)]
struct Key {
    stamp: Stamp,
    identity: Identity,
    /// The log has been told of its certificate's end.
    told_of_end: bool,
}

/// What changes when a file is changed: device, inode, size and times, of a key and of its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp([Option<[i64; 7]>; 2]);

/// A rotation under way.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The key that takes the other's place, and that the servers have to authorise.
    pub new: Identity,
    /// The key that is still offered after it.
    pub old: Identity,
    /// The servers that took the new one last.
    pub done: Vec<Destination>,
    /// The servers that took the old one last.
    pub waiting: Vec<Destination>,
}

/// Why a rotation can't begin or end.
#[derive(Debug)]
pub enum RotationError {
    /// A key can't be read or made.
    Key(IdentityError),
    /// There is none.
    NotRotating,
    /// A file can't be read or changed.
    File(PathBuf, io::Error),
    /// Another process has locked this directory.
    Locked(PathBuf),
}

impl DeviceKeys {
    /// Reads the device key, or makes it; and the next one, if a rotation is under way. Whether that worked says [`Self::fault`].
    ///
    /// `comment` stands in the public line of a key whose file has none.
    #[must_use]
    pub fn open(path: &Path, comment: &str) -> Self {
        let held = Mutex::new(Held { current: None, made: false, new: None, new_fault: None });
        let (view, _) = watch::channel(KeyView::default());
        let keys = Self { files: Files::of(path), comment: comment.to_owned(), held, view };
        keys.refresh();
        keys
    }

    /// What is wrong with the device key's file. A key that was read before is used all the same.
    #[must_use]
    pub fn fault(&self) -> Option<KeyFault> {
        self.view.borrow().fault.clone()
    }

    /// Whether a device key was made since this was last asked. It is true once for each, so that it is recorded once.
    #[must_use]
    pub fn take_made(&self) -> bool {
        std::mem::take(&mut self.held().made)
    }

    /// Looks whether the files have changed. Where there was no usable device key so far and its file is gone, makes one.
    pub fn refresh(&self) {
        let mut held = self.held();
        let current = match &held.current {
            None => self.read_or_make(&mut held.made),
            Some(key) => self.read(&self.files.current, Some(key)),
        };
        let fault = match current {
            Ok(key) => {
                held.current = key.or(held.current.take());
                None
            }
            Err(error) => Some(KeyFault { text: error.to_string(), cure: error.cure() }),
        };
        let mut new_fault = None;
        match self.read(&self.files.new, held.new.as_ref()) {
            Ok(Some(key)) => held.new = Some(key),
            Ok(None) => {}
            Err(IdentityError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => held.new = None,
            Err(error) => {
                let text = error.to_string();
                // It is looked at every few seconds.
                if held.new_fault.as_ref() != Some(&text) {
                    tracing::warn!(%error, cure = error.cure(), "new-device-key-unusable");
                }
                new_fault = Some(text);
                held.new = None;
            }
        }
        held.new_fault = new_fault;
        let key = held.new.as_ref().or(held.current.as_ref()).map(|key| key.identity.clone());
        self.view.send_if_modified(|shown| shown.becomes(KeyView { key, fault }));
    }

    fn read_or_make(&self, made: &mut bool) -> Result<Option<Key>, IdentityError> {
        let path = &self.files.current;
        match self.read(path, None) {
            Err(IdentityError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                Identity::create(path, &self.comment)?;
                *made = true;
                self.read(path, None)
            }
            result => result,
        }
    }

    /// The key in a file, unless it is the one that is held.
    fn read(&self, path: &Path, held: Option<&Key>) -> Result<Option<Key>, IdentityError> {
        let stamp = Stamp::of(path);
        if held.is_some_and(|held| held.stamp == stamp) {
            return Ok(None);
        }
        let identity = Identity::load(path, &self.comment)?;
        warn_of_certificate(&identity);
        Ok(Some(Key { stamp, identity, told_of_end: false }))
    }

    /// What a login offers, in this order: the new key, if there is one, and the device key. Nothing where neither can be used.
    #[must_use]
    pub fn offered(&self) -> Vec<Identity> {
        self.refresh();
        let mut held = self.held();
        let Held { current, new, .. } = &mut *held;
        let mut offered = Vec::new();
        for key in new.iter_mut().chain(current) {
            key.tell_of_end();
            offered.push(key.identity.clone());
        }
        offered
    }

    /// The key that an operator has to authorise, and what is wrong with it.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<KeyView> {
        self.view.subscribe()
    }

    /// The rotation that is under way.
    #[must_use]
    pub fn rotation(&self) -> Option<Rotation> {
        let held = self.held();
        let new = held.new.as_ref()?.identity.clone();
        let old = held.current.as_ref()?.identity.clone();
        let ledger = self.ledger().unwrap_or_default();
        let (done, waiting) = (ledger.servers_of(&new.fingerprint()), ledger.servers_of(&old.fingerprint()));
        Some(Rotation { new, old, done, waiting })
    }

    /// A server took this key for a tunnel that is up. If no server needs the old key any more, the new one takes its
    /// place, and the fingerprints of both are given, the new one's first.
    pub(crate) fn established(&self, server: &Destination, fingerprint: &str) -> Option<(String, String)> {
        let result = self.locked(Duration::ZERO, |keys| {
            keys.refresh();
            let mut ledger = keys.ledger()?;
            if ledger.record(server, fingerprint) {
                let path = &keys.files.servers;
                write_private(path, ledger.to_text().as_bytes(), Existing::Replace)
                    .map_err(|error| RotationError::File(path.clone(), error))?;
            }
            let (old, new) = {
                let held = keys.held();
                let (Some(current), Some(new)) = (&held.current, &held.new) else { return Ok(None) };
                (current.identity.fingerprint(), new.identity.fingerprint())
            };
            if !ledger.is_rotated(&old, &new) {
                return Ok(None);
            }
            keys.replace(&old).map(|()| Some((new, old)))
        });
        result.unwrap_or_else(|error| {
            // It is tried again with the next tunnel.
            tracing::warn!(%error, cure = error.cure(), "key-rotation-held-up");
            None
        })
    }

    /// Makes the key that is to take the device key's place. One that is there already stays.
    ///
    /// # Errors
    /// It can't be made.
    pub fn rotate(&self) -> Result<Rotation, RotationError> {
        self.locked(ROTATION_PATIENCE, |keys| {
            keys.refresh();
            if keys.held().new.is_none() {
                Identity::create(&keys.files.new, &keys.comment).map_err(RotationError::Key)?;
                keys.refresh();
            }
            keys.rotation().ok_or(RotationError::NotRotating)
        })
    }

    /// Gives the new key up; the rotation that was under way is returned.
    ///
    /// # Errors
    /// There is none, or its file can't be removed.
    pub fn abort(&self) -> Result<Rotation, RotationError> {
        self.locked(ROTATION_PATIENCE, |keys| {
            keys.refresh();
            let rotation = keys.rotation().ok_or(RotationError::NotRotating)?;
            let (key, certificate) = (&keys.files.new, path_beside(&keys.files.new));
            done_or_missing(fs::remove_file(&certificate), &certificate)?;
            done_or_missing(fs::remove_file(key), key)?;
            keys.refresh();
            Ok(rotation)
        })
    }

    /// Lets the new key take the old one's place now, whoever needs the old one.
    ///
    /// # Errors
    /// There is none, or a file can't be replaced.
    pub fn finish(&self) -> Result<Rotation, RotationError> {
        self.locked(ROTATION_PATIENCE, |keys| {
            keys.refresh();
            let rotation = keys.rotation().ok_or(RotationError::NotRotating)?;
            keys.replace(&rotation.old.fingerprint())?;
            Ok(rotation)
        })
    }

    /// Keeps the device key, whose fingerprint this is, as the old one and puts the new one into its place. Wherever it is cut
    /// off, there is a device key, and the rotation is either over or still under way.
    fn replace(&self, retired: &str) -> Result<(), RotationError> {
        let Files { current, new, old, .. } = &self.files;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| RotationError::File(path, error)
        };
        let before = fs::read(current).map_err(at(current))?;
        write_private(old, &before, Existing::Replace).map_err(at(old))?;
        // The certificate goes first: beside another key it is only ignored.
        let certificate = path_beside(current);
        done_or_missing(fs::rename(path_beside(new), &certificate), &certificate)?;
        fs::rename(new, current).map_err(at(current))?;
        File::open(directory_of(current)).and_then(|directory| directory.sync_all()).map_err(at(current))?;
        self.refresh();
        let Some(identity) = self.held().current.as_ref().map(|key| key.identity.clone()) else {
            return Ok(());
        };
        if let Err(CertificateError::OtherKey(of_old)) = identity.certificate() {
            done_or_missing(fs::rename(of_old, path_beside(old)), of_old)?;
            self.refresh();
        }
        tracing::info!(key = identity.fingerprint(), old = retired, "key-rotated");
        Ok(())
    }

    /// Does something that no other process may do at the same time; waits so long for another's end.
    ///
    /// Whoever may read the directory can lock it, for ever: an agent has no time for that.
    fn locked<T>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Self) -> Result<T, RotationError>,
    ) -> Result<T, RotationError> {
        let directory = directory_of(&self.files.current);
        let error = |error| RotationError::File(directory.to_owned(), error);
        let lock = File::open(directory).map_err(error)?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return work(self),
                Err(TryLockError::Error(why)) => return Err(error(why)),
                Err(TryLockError::WouldBlock) if began.elapsed() >= patience => {
                    return Err(RotationError::Locked(directory.to_owned()));
                }
                Err(TryLockError::WouldBlock) => pause(),
            }
        }
    }

    fn ledger(&self) -> Result<Ledger, RotationError> {
        let path = &self.files.servers;
        let mut text = String::new();
        match open_file(path).and_then(|file| file.take(LEDGER_BYTES).read_to_string(&mut text)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RotationError::File(path.clone(), error))
            }
            _ => Ok(Ledger::parse(&text)),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn of(path: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = OsString::from(path);
            name.push(ending);
            PathBuf::from(name)
        };
        Self {
            current: path.to_owned(),
            new: beside(".new"),
            old: beside(".old"),
            servers: beside(".servers"),
        }
    }
}

impl Key {
    fn tell_of_end(&mut self) {
        let Ok(Some(certificate)) = self.identity.certificate() else { return };
        let Err(error) = certificate.check_time(wall_clock()) else { return };
        if !self.told_of_end {
            tracing::warn!(%error, cure = error.cure(), "certificate-unusable");
        }
        self.told_of_end = true;
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        Self([path, &path_beside(path)].map(|path| {
            let file = fs::metadata(path).ok()?;
            let [device, inode, size] = [file.dev(), file.ino(), file.size()].map(u64::cast_signed);
            Some([device, inode, size, file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()])
        }))
    }
}

fn warn_of_certificate(identity: &Identity) {
    if let Err(error) = identity.certificate() {
        tracing::warn!(%error, cure = error.cure(), "certificate-unusable");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the command line has the patience, and no tunnel runs there"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// A file that isn't there is as good as moved or removed.
fn done_or_missing(result: io::Result<()>, path: &Path) -> Result<(), RotationError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RotationError::File(path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

impl KeyView {
    /// Takes another one's place, tells the log of what is new, and gives whether there was anything.
    fn becomes(&mut self, next: Self) -> bool {
        let line = |view: &Self| view.key.as_ref().map(Identity::public_line);
        let (other_key, other_fault) = (line(self) != line(&next), self.fault != next.fault);
        match &next.fault {
            Some(KeyFault { text, cure }) if other_fault => {
                tracing::error!(error = text, cure, "device-key-unusable");
            }
            None if other_fault => tracing::info!("device-key-usable"),
            _ => {}
        }
        *self = next;
        other_key || other_fault
    }
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for KeyFault {}

impl RotationError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::Key(error) => error.cure(),
            Self::NotRotating => "`ocpp-tunnel keys rotate` begins one".into(),
            Self::File(path, _) => format!("make {} writable for this user", directory_of(path).display()),
            Self::Locked(_) => {
                "end the process that has locked it (`lslocks` shows it), or wait for it".into()
            }
        }
    }
}

impl fmt::Display for RotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::NotRotating => f.write_str("no rotation of the device key is under way"),
            Self::File(path, error) => write!(f, "can't use {}: {error}", path.display()),
            Self::Locked(path) => write!(f, "{} is locked by another process", path.display()),
        }
    }
}

impl std::error::Error for RotationError {}

#[cfg(test)]
#[path = "device_keys_tests.rs"]
mod tests;
