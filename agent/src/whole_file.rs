//! Small files that are read at once and replaced as a whole: whoever looks finds the old content or the new one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use reverse_tunnel::open_file;

/// What the new content has to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survives {
    /// The end of this process: for files in memory.
    Exit,
    /// A power cut: it is on the disk when the call returns, which takes a write to the flash.
    PowerCut,
}

/// The file's first bytes, at most `limit`. What is longer was not written by us, and makes no sense when it is cut.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces the file's content, with mode 0600.
pub(crate) fn replace(path: &Path, content: &[u8], survives: Survives) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut file = tempfile::Builder::new().prefix(&format!(".{name}-")).tempfile_in(directory)?;
    file.write_all(content)?;
    if survives == Survives::PowerCut {
        file.as_file().sync_all()?;
    }
    file.persist(path)?;
    match survives {
        Survives::Exit => Ok(()),
        Survives::PowerCut => File::open(directory)?.sync_all(),
    }
}

/// Renames a file that makes no sense to `….corrupt`, in the place of an earlier one, for people to look at.
pub(crate) fn set_aside(path: &Path) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".corrupt");
    fs::rename(path, aside)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kept.json");
        for survives in [Survives::Exit, Survives::PowerCut] {
            replace(&path, b"a longer content", survives).unwrap();
            replace(&path, b"another", survives).unwrap();
            assert_eq!(read(&path, 1000).unwrap(), b"another");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(read(&path, 3).unwrap(), b"ano");
        set_aside(&path).unwrap();
        let names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["kept.json.corrupt"]);
    }

    #[test]
    fn what_can_not_be_written_leaves_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone/kept.json");
        assert!(replace(&path, b"new", Survives::PowerCut).is_err());
        assert_eq!(read(&path, 10).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
