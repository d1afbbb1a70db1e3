//! Our own known-hosts file: read at each look, because a person may mend it while the agent runs, and replaced as a
//! whole when it changes.
//!
//! Lines that we don't understand say nothing and are kept byte for byte. Whoever writes holds a lock on the file's
//! directory, so that the agent and the command line don't undo each other's changes.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ssh_key::PublicKey;

use super::line::{Kind, KnownHost, LineError, Without, known_hosts_name};
use crate::destination::Server;
use crate::limits::{KNOWN_HOSTS_BYTES, LEARNED_KEYS};

/// The file, which need not exist.
#[derive(Clone, Debug)]
pub(super) struct KnownHostsFile {
    path: PathBuf,
}

/// Why the file can't be used.
#[derive(Debug)]
pub enum FileError {
    /// It can't be read, or is too large.
    Read(PathBuf, io::Error),
    /// It can't be replaced.
    Write(PathBuf, io::Error),
    /// Another process is writing it.
    Busy(PathBuf),
    /// It holds as many keys or bytes as it may.
    Full(PathBuf),
}

/// What a change came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Keys that are no longer known of the server.
    pub removed: usize,
    /// Keys that weren't known of it before.
    pub added: usize,
    /// Lines, from 1, that name the server by a pattern and were left alone: they stand for others too.
    pub by_pattern: Vec<usize>,
}

/// A line's number from 1, and what it says.
pub(super) type Numbered<T> = (usize, T);

impl KnownHostsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The lines that say something, and those that we don't understand. Comments and empty lines are neither.
    #[expect(clippy::type_complexity, reason = "two lists of numbered lines")]
    pub(super) fn read(&self) -> Result<(Vec<Numbered<KnownHost>>, Vec<Numbered<LineError>>), FileError> {
        let content = self.content()?;
        let (mut hosts, mut errors) = (Vec::new(), Vec::new());
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            match line.parse() {
                Ok(host) => hosts.push((index + 1, host)),
                Err(error) => errors.push((index + 1, error)),
            }
        }
        Ok((hosts, errors))
    }

    /// Takes the server's keys that `forget` picks out of the file and adds those of `learn` that it doesn't hold yet.
    /// Authorities and revoked keys stay. Whoever looks finds the old file or the new one.
    pub(super) fn rewrite(
        &self,
        server: &Server,
        forget: impl Fn(&PublicKey) -> bool,
        learn: &[PublicKey],
    ) -> Result<Rewritten, FileError> {
        let write_error = |error| FileError::Write(self.path.clone(), error);
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new("."))).map_err(write_error)?;
        directory.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => FileError::Busy(self.path.clone()),
            fs::TryLockError::Error(error) => write_error(error),
        })?;

        let name = known_hosts_name(server);
        let old = self.content()?;
        let mut rewritten = Rewritten::default();
        let (mut new, mut keys) = (Vec::with_capacity(old.len()), 0);
        let mut known: Vec<PublicKey> = Vec::new();
        for (index, line) in old.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let text = String::from_utf8_lossy(line);
            let Ok(host) = text.trim_end_matches('\n').parse::<KnownHost>() else {
                new.extend(line);
                continue;
            };
            keys += 1;
            if host.kind != Kind::Key || !forget(&host.key) {
                if host.speaks_of(server) && host.kind == Kind::Key {
                    known.push(host.key);
                }
                new.extend(line);
                continue;
            }
            match host.names.without(&name) {
                Without::Untouched => new.extend(line),
                Without::Pattern => {
                    rewritten.by_pattern.push(index + 1);
                    new.extend(line);
                }
                Without::Nothing => {
                    rewritten.removed += 1;
                    keys -= 1;
                }
                Without::Names(names) => {
                    rewritten.removed += 1;
                    new.extend(with_names(&text, &names).as_bytes());
                }
            }
        }
        for key in learn {
            if known.iter().any(|known| known.key_data() == key.key_data()) {
                continue;
            }
            if !new.is_empty() && !new.ends_with(b"\n") {
                new.push(b'\n');
            }
            let line = line_of(&name, key).map_err(write_error)?;
            new.extend(line.as_bytes());
            known.push(key.clone());
            keys += 1;
            rewritten.added += 1;
        }
        if rewritten.added > 0 && (keys > LEARNED_KEYS || new.len() as u64 > KNOWN_HOSTS_BYTES) {
            return Err(FileError::Full(self.path.clone()));
        }
        if rewritten.added + rewritten.removed > 0 {
            self.replace(&new, &directory).map_err(write_error)?;
        }
        Ok(rewritten)
    }

    fn content(&self) -> Result<Vec<u8>, FileError> {
        let read_error = |error| FileError::Read(self.path.clone(), error);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read_error(error)),
        };
        let mut content = Vec::new();
        file.take(KNOWN_HOSTS_BYTES + 1).read_to_end(&mut content).map_err(read_error)?;
        if content.len() as u64 > KNOWN_HOSTS_BYTES {
            let text = format!("more than {KNOWN_HOSTS_BYTES} bytes");
            return Err(read_error(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        Ok(content)
    }

    fn replace(&self, content: &[u8], directory: &File) -> io::Result<()> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut file = tempfile::Builder::new()
            .prefix(".known-hosts-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(parent.unwrap_or(Path::new(".")))?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        directory.sync_all()
    }
}

/// A line with another names field, which is its first.
fn with_names(line: &str, names: &str) -> String {
    let trimmed = line.trim_start();
    let rest = trimmed.find([' ', '\t']).and_then(|end| trimmed.get(end..)).unwrap_or_default();
    format!("{names}{rest}")
}

fn line_of(name: &str, key: &PublicKey) -> io::Result<String> {
    let mut key: Cow<'_, PublicKey> = Cow::Borrowed(key);
    if !key.comment().is_empty() {
        key.to_mut().set_comment("");
    }
    let key = key.to_openssh().map_err(io::Error::other)?;
    Ok(format!("{name} {}\n", key.trim_end()))
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "can't read the known hosts in {}: {error}", path.display()),
            Self::Write(path, error) => write!(f, "can't write {}: {error}", path.display()),
            Self::Busy(path) => write!(f, "another process is writing {}", path.display()),
            Self::Full(path) => {
                write!(
                    f,
                    "{} may hold {LEARNED_KEYS} keys and {KNOWN_HOSTS_BYTES} bytes, no more are learned",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for FileError {}
