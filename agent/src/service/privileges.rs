//! Root is given up for the owner of `state_dir` before state is touched, so that no file there ever becomes root's.

use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::sync::OnceLock;

use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};

use super::instance::make_directory;

/// Who started this process, where that isn't who it runs as any more.
static CALLER: OnceLock<Uid> = OnceLock::new();

/// Who started this process: for records, which tell who asked.
#[must_use]
pub fn caller() -> Uid {
    CALLER.get().copied().unwrap_or_else(Uid::current)
}

/// What to do about a directory of this owner that can't be written to. Loosened permissions are none of it: who may write there could
/// change the device's key.
#[must_use]
pub fn cure_of_writing(directory: &Path, owner: u32) -> String {
    let (user, directory) = (Uid::current(), directory.display());
    if caller().is_root() && !user.is_root() {
        // The agent is that user, too, whoever starts it.
        format!("as the owner of state_dir, user {user} has to own it: chown -R {user} {directory}")
    } else if owner == user.as_raw() {
        format!("chmod u+rwx {directory}")
    } else {
        "run this as root, or as the user that the agent runs as".to_owned()
    }
}

/// Becomes the owner of `state_dir` if this process is root and that is somebody else. `runtime_dir` is made for that
/// owner first, where it doesn't exist yet. Must be called before the first thread is started.
///
/// # Errors
/// The user can't be changed to; nothing must be touched then.
pub fn become_owner(state_dir: &Path, runtime_dir: &Path) -> io::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let Ok(metadata) = std::fs::metadata(state_dir) else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    if uid.is_root() {
        return Ok(());
    }
    // It is still root who asks.
    let _ = CALLER.set(Uid::current());
    if make_directory(runtime_dir)? {
        chown(runtime_dir, Some(uid.as_raw()), Some(gid.as_raw()))?;
    }
    match User::from_uid(uid)? {
        Some(user) => {
            let name = std::ffi::CString::new(user.name)?;
            initgroups(&name, user.gid)?;
            setgid(user.gid)?;
        }
        None => {
            setgroups(&[])?;
            setgid(gid)?;
        }
    }
    setuid(uid)?;
    Ok(())
}
