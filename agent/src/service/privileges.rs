//! Root is given up for the owner of `state_dir` before state is touched, so that no file there ever becomes root's.

use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};

use super::instance::make_directory;

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
