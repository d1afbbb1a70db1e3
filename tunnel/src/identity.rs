//! The key that this device authenticates with: made on first start, read on later ones.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey, PublicKey};

use crate::limits::KEY_FILE_BYTES;
use crate::ssh;

/// The device's key pair.
#[derive(Clone)]
pub struct Identity {
    private: Arc<PrivateKey>,
}

/// Why there is no key.
#[derive(Debug)]
pub enum IdentityError {
    /// The file can't be read.
    Read(PathBuf, io::Error),
    /// The file is there and holds no private key that we understand.
    Format(PathBuf, String),
    /// Others than its owner may read it; the number is its mode.
    Exposed(PathBuf, u32),
    /// A new key can't be made or written.
    Create(PathBuf, io::Error),
}

impl Identity {
    /// Reads the private key in `path`, or makes an ed25519 key there (mode 0600, atomically) if there is none.
    ///
    /// `comment` goes into a new key's public line.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(path: &Path, comment: &str) -> Result<Self, IdentityError> {
        match Self::load(path) {
            Err(IdentityError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(path, comment)
            }
            result => result,
        }
    }

    /// Reads a private key: OpenSSH's format, PKCS#1, PKCS#8 or SEC1, without a passphrase, at most 32 KiB.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let read_error = |error| IdentityError::Read(path.to_owned(), error);
        let file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(IdentityError::Exposed(path.to_owned(), metadata.mode() & 0o7777));
        }
        let mut text = String::new();
        file.take(KEY_FILE_BYTES).read_to_string(&mut text).map_err(read_error)?;
        let private =
            ssh::decode_private_key(&text).map_err(|error| IdentityError::Format(path.to_owned(), error))?;
        Ok(Self { private: Arc::new(private) })
    }

    fn create(path: &Path, comment: &str) -> Result<Self, IdentityError> {
        let create_error = |error| IdentityError::Create(path.to_owned(), error);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| create_error(error.into()))?;
        let private = PrivateKey::new(Ed25519Keypair::from_seed(&seed).into(), comment)
            .map_err(|error| create_error(io::Error::other(error)))?;
        let text =
            private.to_openssh(LineEnding::LF).map_err(|error| create_error(io::Error::other(error)))?;
        write_private(path, text.as_bytes()).map_err(create_error)?;
        Ok(Self { private: Arc::new(private) })
    }

    /// The public half as a line of `authorized_keys`: type, key, comment.
    #[must_use]
    pub fn public_line(&self) -> String {
        // Only a certificate or an unknown algorithm can't be written, and neither was read.
        self.private.public_key().to_openssh().unwrap_or_default()
    }

    /// The public half's fingerprint, as `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.private.public_key())
    }

    pub(crate) fn private(&self) -> &Arc<PrivateKey> {
        &self.private
    }
}

/// A key's fingerprint as `ssh-keygen -l` prints it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
}

/// Writes a new file that only its owner can read; whoever looks finds all of it or none. An existing file is kept.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".new-key-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(directory)?.sync_all()
}

// === impl IdentityError ===

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "can't read the device key {}: {error}", path.display()),
            Self::Format(path, error) => write!(f, "{} holds no usable private key: {error}", path.display()),
            Self::Exposed(path, mode) => {
                write!(f, "others may read the device key {} (mode {mode:04o})", path.display())
            }
            Self::Create(path, error) => write!(f, "can't make the device key {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for IdentityError {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.fingerprint()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_a_key_and_the_next_one_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        let made = Identity::load_or_create(&path, "CP001").unwrap();
        let read = Identity::load_or_create(&path, "other").unwrap();
        assert_eq!(made.public_line(), read.public_line());
        assert!(made.public_line().starts_with("ssh-ed25519 AAAA"));
        assert!(made.public_line().ends_with(" CP001"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn two_keys_differ() {
        let directory = tempfile::tempdir().unwrap();
        let key = |name| Identity::load_or_create(&directory.path().join(name), "").unwrap().fingerprint();
        assert_ne!(key("a"), key("b"));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        Identity::load_or_create(&path, "CP001").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(&path, "CP001").unwrap_err();
        assert!(matches!(error, IdentityError::Exposed(_, 0o640)), "{error}");
    }

    #[test]
    fn a_corrupt_key_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        write_private(&path, b"-----BEGIN OPENSSH PRIVATE KEY-----\ngarbage\n").unwrap();
        let error = Identity::load_or_create(&path, "CP001").unwrap_err();
        assert!(matches!(error, IdentityError::Format(..)), "{error}");
        assert!(fs::read_to_string(&path).unwrap().contains("garbage"));
    }
}
