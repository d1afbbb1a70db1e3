//! What `config check` tests besides the file itself: the directories and files that the agent will write.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};
use toml::Spanned;

use super::Config;
use super::error::{ConfigError, Invalid};
use super::file::File;
use super::sources::Sources;
use crate::service::privileges::cure_of_writing;

/// The configuration's files as they were read: by root, perhaps, who may read more than the agent.
#[derive(Debug)]
pub struct Written(Sources);

impl Written {
    /// Reads them, whatever is in them.
    ///
    /// # Errors
    /// One can't be read.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Sources::read(path).map(Self)
    }

    /// What they say.
    ///
    /// # Errors
    /// They have a mistake.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::from_sources(&self.0)
    }

    /// The same, and finds out whether what they name can be written.
    ///
    /// # Errors
    /// They have a mistake; a directory or file can't be used.
    pub fn check(&self) -> Result<Config, ConfigError> {
        let config = self.load()?;
        writable_paths(&config.shown).map_err(|invalid| self.0.error(invalid))?;
        Ok(config)
    }
}

fn writable_paths(file: &File) -> Result<(), Invalid> {
    directory("state_dir", &file.state_dir)?;
    directory("runtime_dir", &file.runtime_dir)?;
    let files = [
        ("ssh.identity_file", &file.ssh.identity_file),
        ("ssh.known_hosts_file", &file.ssh.known_hosts_file),
    ];
    for (name, path) in files {
        if let Some(path) = path.as_ref().filter(|path| path.get_ref().is_dir()) {
            let text = format!("{name} {} is a directory; name a file in it", path.get_ref().display());
            return Err(Invalid::value(path, text));
        }
    }
    Ok(())
}

/// It is there and ours to write, or it can be made.
fn directory(name: &str, path: &Spanned<PathBuf>) -> Result<(), Invalid> {
    let shown = path.get_ref().display();
    let invalid = |what: String| Err(Invalid::value(path, format!("{name} {shown} {what}")));
    // What is there of it: itself, or the directory that it would be made in.
    for existing in path.get_ref().ancestors() {
        let metadata = match fs::metadata(existing) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !existing.is_symlink() => continue,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => {
                return invalid(format!("can't be used: {}: {error}; name another one", existing.display()));
            }
        };
        let itself = existing == path.get_ref();
        if !metadata.is_dir() {
            let what = if itself { "it".to_owned() } else { existing.display().to_string() };
            return invalid(format!("can't be used: {what} is not a directory; name another one"));
        }
        return match may_write(existing, &metadata) {
            Ok(()) => Ok(()),
            Err(error) if itself => {
                let cure = cure_of_writing(existing, metadata.uid());
                invalid(format!("can't be written: {error}; {cure}"))
            }
            Err(error) => invalid(format!(
                "doesn't exist, and can't be made in {}: {error}; make it, for the user that runs the agent",
                existing.display()
            )),
        };
    }
    Ok(())
}

/// Root becomes the owner of `state_dir` before it writes there, and then the owner's permissions count.
fn may_write(directory: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    const OWNER_WRITES: u32 = 0o300;
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?;
    let becomes_owner = Uid::effective().is_root() && metadata.uid() != 0;
    if becomes_owner && metadata.mode() & OWNER_WRITES != OWNER_WRITES {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}
