//! Our own known-hosts file: read at each look, because a person may mend it while the agent runs, and replaced as a
//! whole when it changes.
//!
//! Lines that we don't understand say nothing and are kept byte for byte. Whoever writes holds a lock on the file's
//! directory, so that the agent and the command line don't undo each other's changes.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ssh_key::PublicKey;

use super::line::{Kind, KnownHost, LineError, Without, known_hosts_name};
use crate::destination::Server;
use crate::files::open_file;
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

/// What the file says, by the numbers of its lines from 1.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) hosts: Vec<(usize, KnownHost)>,
    /// The lines that we don't understand.
    pub(super) errors: Vec<(usize, LineError)>,
}

impl KnownHostsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, but for its comments and empty lines.
    pub(super) fn read(&self) -> Result<Content, FileError> {
        let mut content = Content::default();
        for (index, line) in self.bytes()?.split(|byte| *byte == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            match line.parse() {
                Ok(host) => content.hosts.push((index + 1, host)),
                Err(error) => content.errors.push((index + 1, error)),
            }
        }
        Ok(content)
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
        let directory = match File::open(self.directory()) {
            // Nothing was ever learned, so there is nothing to forget.
            Err(error) if error.kind() == io::ErrorKind::NotFound && learn.is_empty() => {
                return Ok(Rewritten::default());
            }
            directory => directory.map_err(write_error)?,
        };
        directory.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => FileError::Busy(self.path.clone()),
            fs::TryLockError::Error(error) => write_error(error),
        })?;

        let mut draft = Draft::new(server);
        for line in self.bytes()?.split_inclusive(|byte| *byte == b'\n') {
            draft.take_over(line, &forget);
        }
        for key in learn {
            draft.learn(key).map_err(write_error)?;
        }
        let Draft { bytes, keys, done, .. } = draft;
        if done.added > 0 && (keys > LEARNED_KEYS || bytes.len() as u64 > KNOWN_HOSTS_BYTES) {
            return Err(FileError::Full(self.path.clone()));
        }
        if done.added + done.removed > 0 {
            self.replace(&bytes, &directory).map_err(write_error)?;
        }
        Ok(done)
    }

    fn bytes(&self) -> Result<Vec<u8>, FileError> {
        let read_error = |error| FileError::Read(self.path.clone(), error);
        let file = match open_file(&self.path) {
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
        let mut file = tempfile::Builder::new()
            .prefix(".known-hosts-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(self.directory())?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        directory.sync_all()
    }
    fn directory(&self) -> &Path {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new("."))
    }
}

/// The file as it will be.
struct Draft<'a> {
    server: &'a Server,
    name: String,
    bytes: Vec<u8>,
    /// Lines that say something, of all servers.
    keys: usize,
    /// The server's keys that are left.
    left: Vec<PublicKey>,
    done: Rewritten,
    number: usize,
}

impl<'a> Draft<'a> {
    fn new(server: &'a Server) -> Self {
        let (name, done) = (known_hosts_name(server), Rewritten::default());
        Self { server, name, bytes: Vec::new(), keys: 0, left: Vec::new(), done, number: 0 }
    }

    /// Takes the next line over, without the server's name if its key is to be forgotten.
    fn take_over(&mut self, line: &[u8], forget: impl Fn(&PublicKey) -> bool) {
        self.number += 1;
        let text = String::from_utf8_lossy(line);
        let Ok(host) = text.trim_end_matches('\n').parse::<KnownHost>() else {
            return self.bytes.extend(line);
        };
        let is_theirs = host.kind == Kind::Key && host.speaks_of(self.server);
        let without = match is_theirs && forget(&host.key) {
            true => host.names.without(&self.name),
            false => Without::Untouched,
        };
        self.keys += 1;
        match without {
            Without::Untouched if is_theirs => self.left.push(host.key),
            Without::Untouched => {}
            Without::Pattern => self.done.by_pattern.push(self.number),
            Without::Names(names) => {
                self.done.removed += 1;
                return self.bytes.extend(with_names(&text, &names).as_bytes());
            }
            Without::Nothing => {
                self.done.removed += 1;
                self.keys -= 1;
                return;
            }
        }
        self.bytes.extend(line);
    }

    fn learn(&mut self, key: &PublicKey) -> io::Result<()> {
        if self.left.iter().any(|left| left.key_data() == key.key_data()) {
            return Ok(());
        }
        if !self.bytes.is_empty() && !self.bytes.ends_with(b"\n") {
            self.bytes.push(b'\n');
        }
        self.bytes.extend(line_of(self.server, key).map_err(io::Error::other)?.as_bytes());
        self.bytes.push(b'\n');
        self.left.push(key.clone());
        self.keys += 1;
        self.done.added += 1;
        Ok(())
    }
}

/// A line with another names field, which is its first.
fn with_names(line: &str, names: &str) -> String {
    let trimmed = line.trim_start();
    let rest = trimmed.find([' ', '\t']).and_then(|end| trimmed.get(end..)).unwrap_or_default();
    format!("{names}{rest}")
}

/// The line that says: this is the server's key.
pub(super) fn line_of(server: &Server, key: &PublicKey) -> Result<String, ssh_key::Error> {
    let key = PublicKey::new(key.key_data().clone(), "").to_openssh()?;
    Ok(format!("{} {}", known_hosts_name(server), key.trim_end()))
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "can't read the known hosts in {}: {error}", path.display()),
            Self::Write(path, error) => write!(f, "can't write {}: {error}", path.display()),
            Self::Busy(path) => write!(f, "another process is writing {}", path.display()),
            Self::Full(path) => write!(
                f,
                "{} may hold {LEARNED_KEYS} keys and {KNOWN_HOSTS_BYTES} bytes, no more are learned",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FileError {}
