//! One agent at a time: a lock on a file in `runtime_dir`, and one on a file in `state_dir`. Both die with their process.

use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use reverse_tunnel::open_file;
use rustix::fs::OFlags;

use crate::control::server::give_to_group;
use crate::limits::LOCK_ATTEMPTS;

/// The file that is locked.
const LOCK: &str = "agent.lock";

/// The lock; dropping it lets the next agent start.
#[derive(Debug)]
pub struct Instance {
    _lock: Flock<File>,
    file: Made,
}

/// The lock on `state_dir`, whose counters, records and keys have one writer: agents with different `runtime_dir`s may name the same
/// by mistake, and the lock there may be removed.
#[derive(Debug)]
pub struct StateLock {
    /// None on a filesystem that knows no locks, or isn't written to.
    _lock: Option<Flock<File>>,
}

/// A file that this process made or opened, told apart from one that has taken its place. As long as the file is held
/// open, its inode is no other file's.
#[derive(Debug)]
pub struct Made {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why this process isn't the agent.
#[derive(Debug)]
pub enum InstanceError {
    /// Another one runs.
    Running {
        /// Its process id, if it could be read.
        pid: Option<u32>,
    },
    /// Another one uses this `state_dir`, in a `runtime_dir` of its own.
    State {
        /// The directory.
        state_dir: PathBuf,
        /// Its process id, if it could be read.
        pid: Option<u32>,
    },
    /// The directory or the lock can't be made.
    Directory(PathBuf, io::Error),
}

impl Instance {
    /// Becomes the one agent of this `runtime_dir`.
    ///
    /// # Errors
    /// See [`InstanceError`].
    pub fn acquire(runtime_dir: &Path) -> Result<Self, InstanceError> {
        let error = |error| InstanceError::Directory(runtime_dir.to_owned(), error);
        for _ in 0..LOCK_ATTEMPTS {
            let instance = Self::lock(runtime_dir)?;
            // Between opening and locking, the file may have been removed, and then it keeps nobody out.
            if instance.is_in_place() {
                return Ok(instance);
            }
        }
        Err(error(io::Error::other("somebody removes its files again and again")))
    }

    /// Does the lock still keep others out? Not if its file was removed, with `runtime_dir` perhaps.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.file.is_in_place()
    }

    fn lock(runtime_dir: &Path) -> Result<Self, InstanceError> {
        let path = runtime_dir.join(LOCK);
        let error = |error| InstanceError::Directory(runtime_dir.to_owned(), error);
        make_runtime_directory(runtime_dir).map_err(error)?;
        let file = open_lock_file(&path).map_err(error)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                return Err(InstanceError::Running { pid: read_pid(&mut file) });
            }
            Err((_, errno)) => return Err(error(errno.into())),
        };
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(error)?;
        let file = Made::new(path, &lock.metadata().map_err(error)?);
        Ok(Self { _lock: lock, file })
    }
}

impl StateLock {
    /// Becomes the one agent of this `state_dir`, which exists.
    ///
    /// # Errors
    /// [`InstanceError::State`].
    pub fn take(state_dir: &Path) -> Result<Self, InstanceError> {
        // Not the directory itself: that one is locked while a key changes, by the command line as well.
        let path = state_dir.join(LOCK);
        let made = open_lock_file(&path).map(drop);
        // Held open for reading only: for writing it would keep the file system from being remounted read-only.
        let file = match made
            .or_else(|error| open_file(&path).map(drop).map_err(|_| error))
            .and_then(|()| open_file(&path))
        {
            Ok(file) => file,
            // Where nothing can be written there is nothing to keep apart.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                return Ok(Self { _lock: None });
            }
            Err(error) => {
                let file = path.display();
                tracing::warn!(%file, %error, cure = format!("remove {file}"), "state-dir-not-locked");
                return Ok(Self { _lock: None });
            }
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                // For who is told of it; it needn't be there.
                let told = open_lock_file(&path).and_then(|mut file| {
                    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()))
                });
                drop(told);
                Ok(Self { _lock: Some(lock) })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                Err(InstanceError::State { state_dir: state_dir.to_owned(), pid: read_pid(&mut file) })
            }
            Err(_) => Ok(Self { _lock: None }),
        }
    }
}

/// The process id of the agent that uses this `state_dir`, if one does; none if it couldn't be read.
#[must_use]
pub fn state_holder(state_dir: &Path) -> Option<Option<u32>> {
    let file = open_file(&state_dir.join(LOCK)).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((mut file, Errno::EWOULDBLOCK)) => Some(read_pid(&mut file)),
        _ => None,
    }
}

impl Made {
    /// The file that was just made at this path.
    ///
    /// # Errors
    /// It is gone already.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::new(path.to_owned(), &fs::symlink_metadata(path)?))
    }

    fn new(path: PathBuf, metadata: &Metadata) -> Self {
        Self { path, device: metadata.dev(), inode: metadata.ino() }
    }

    /// Does its path still lead to it?
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }

    /// Removes it, and nothing that has taken its place.
    pub fn remove(&self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a file that is only there to be locked, and makes it where there is none. Nobody else may lock it, which takes no more than
/// reading it; and what isn't a file is none, lest a pipe keep us waiting for ever.
///
/// # Errors
/// It can't be opened or made, or is no file.
pub fn open_lock_file(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    if metadata.mode() & 0o077 != 0 {
        // An earlier version's. Another user's stays as it is.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
    }
    Ok(file)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Makes `runtime_dir` where it doesn't exist, and lets the group that may command the agent in.
///
/// # Errors
/// It can't be made.
pub fn make_runtime_directory(path: &Path) -> io::Result<()> {
    if make_directory(path)? {
        give_to_group(path);
    }
    Ok(())
}

/// Makes a directory that only its owner and group may enter; true if it wasn't there.
///
/// # Errors
/// It can't be made.
pub fn make_directory(path: &Path) -> io::Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    Ok(true)
}

impl fmt::Display for InstanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { pid: Some(pid) } => {
                write!(f, "an agent is running already, with process id {pid}")
            }
            Self::Running { pid: None } => f.write_str("an agent is running already"),
            Self::State { state_dir, pid } => {
                let pid = pid.map_or_else(String::new, |pid| format!(", process {pid},"));
                let state_dir = state_dir.display();
                write!(
                    f,
                    "another agent{pid} uses state_dir {state_dir}; it has another runtime_dir, or this one was taken from it"
                )
            }
            Self::Directory(path, error) => {
                write!(f, "can't use runtime_dir {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for InstanceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_whose_file_is_gone_is_known_not_to_hold() {
        let directory = tempfile::tempdir().unwrap();
        let runtime_dir = directory.path().join("run");
        let first = Instance::acquire(&runtime_dir).unwrap();
        assert!(first.is_in_place());
        fs::remove_dir_all(&runtime_dir).unwrap();
        assert!(!first.is_in_place());
        let second = Instance::acquire(&runtime_dir).unwrap();
        assert!(second.is_in_place() && !first.is_in_place());
    }

    #[test]
    fn only_what_is_ours_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let ours = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let made = Made::at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
        made.remove();
        assert!(path.exists() && !made.is_in_place());
        Made::at(&path).unwrap().remove();
        assert!(!path.exists());
        drop((ours, theirs));
    }

    #[test]
    fn the_second_one_is_told_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = Instance::acquire(directory.path()).unwrap();
        let error = Instance::acquire(directory.path()).unwrap_err();
        assert!(
            matches!(error, InstanceError::Running { pid: Some(pid) } if pid == std::process::id()),
            "{error}"
        );
        drop(first);
        Instance::acquire(directory.path()).unwrap();
    }

    #[test]
    fn only_a_file_is_locked_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("ours"), "7").unwrap();
        fs::set_permissions(at("ours"), Permissions::from_mode(0o644)).unwrap();
        let mode = open_lock_file(&at("ours")).unwrap().metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "an earlier version's");
        std::os::unix::fs::symlink("ours", at("link")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        for name in ["link", "pipe"] {
            assert!(open_lock_file(&at(name)).is_err(), "{name}");
        }
        // Another user's is locked all the same.
        let first = StateLock::take(directory.path()).unwrap();
        assert!(first._lock.is_some() && state_holder(directory.path()) == Some(Some(std::process::id())));
        drop(first);
        assert_eq!(state_holder(directory.path()), None);
    }

    #[test]
    fn a_state_directory_has_one_agent() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateLock::take(directory.path()).unwrap();
        let error = StateLock::take(directory.path()).unwrap_err();
        let own = std::process::id();
        assert!(
            matches!(&error, InstanceError::State { state_dir, pid: Some(pid) } if state_dir == directory.path() && *pid == own),
            "{error}"
        );
        drop(first);
        StateLock::take(directory.path()).unwrap();
    }
}
