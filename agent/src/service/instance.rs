//! One agent at a time: a lock on a file in `runtime_dir` that dies with its process.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::control::server::give_to_group;

/// The lock; dropping it lets the next agent start.
#[derive(Debug)]
pub struct Instance {
    _lock: Flock<File>,
}

/// Why this process isn't the agent.
#[derive(Debug)]
pub enum InstanceError {
    /// Another one runs.
    Running {
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
        let path = runtime_dir.join("agent.lock");
        let error = |error| InstanceError::Directory(runtime_dir.to_owned(), error);
        if make_directory(runtime_dir).map_err(error)? {
            give_to_group(runtime_dir);
        }
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(error)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                return Err(InstanceError::Running { pid: read_pid(&mut file) });
            }
            Err((_, errno)) => return Err(error(errno.into())),
        };
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(error)?;
        Ok(Self { _lock: lock })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
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
}
