//! A key pair that this device authenticates with: made on first start, read on later ones.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey, PublicKey};

use crate::certificate::{CertificateError, UserCertificate};
use crate::limits::{KEY_FILE_BYTES, RSA_BITS};
use crate::{dropbear_key, openssh_key, ssh};

/// A key pair, and the certificate beside it.
#[derive(Clone)]
pub struct Identity {
    private: Arc<PrivateKey>,
    certificate: Arc<Result<Option<UserCertificate>, CertificateError>>,
}

/// Why there is no key.
#[derive(Debug)]
pub enum IdentityError {
    /// The file can't be read.
    Read(PathBuf, io::Error),
    /// The file is there and holds no private key that we understand.
    Format(PathBuf, String),
    /// The key is of a kind that is too weak, such as DSA or a short RSA.
    Weak(PathBuf, String),
    /// Others than its owner may read it; the number is its mode.
    Exposed(PathBuf, u32),
    /// It is another user's; the numbers are its owner and this process's user.
    Owner(PathBuf, u32, u32),
    /// A new key can't be made or written.
    Create(PathBuf, io::Error),
}

impl Identity {
    /// Reads a private key without a passphrase: OpenSSH's format, dropbear's, PKCS#1, PKCS#8 or SEC1, at most 32 KiB; and the
    /// certificate beside it, if there is one. `comment` stands in the public line of a key whose file has none.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(path: &Path, comment: &str) -> Result<Self, IdentityError> {
        let bytes = read_private(path)?;
        let mut private = decode(&bytes).map_err(|error| IdentityError::Format(path.to_owned(), error))?;
        check_strength(private.key_data()).map_err(|why| IdentityError::Weak(path.to_owned(), why))?;
        ssh::check_pair(&private).map_err(|error| IdentityError::Format(path.to_owned(), error))?;
        if private.comment().as_bytes().is_empty() {
            private.set_comment(comment);
        }
        let certificate = Arc::new(UserCertificate::load(path, private.public_key()));
        Ok(Self { private: Arc::new(private), certificate })
    }

    /// Makes an ed25519 key in a file that doesn't exist yet (mode 0600, atomically). `comment` stands in its public line.
    ///
    /// # Errors
    /// [`IdentityError::Create`].
    pub(crate) fn create(path: &Path, comment: &str) -> Result<Self, IdentityError> {
        let create_error = |error| IdentityError::Create(path.to_owned(), error);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| create_error(error.into()))?;
        let private = PrivateKey::new(Ed25519Keypair::from_seed(&seed).into(), comment)
            .map_err(|error| create_error(io::Error::other(error)))?;
        let text =
            private.to_openssh(LineEnding::LF).map_err(|error| create_error(io::Error::other(error)))?;
        write_private(path, text.as_bytes(), Existing::Keep).map_err(create_error)?;
        let certificate = Arc::new(UserCertificate::load(path, private.public_key()));
        Ok(Self { private: Arc::new(private), certificate })
    }

    /// The public half as a line of `authorized_keys`: type, key, comment.
    #[must_use]
    pub fn public_line(&self) -> String {
        // Only a certificate or an unknown algorithm can't be written, and neither was read.
        let line = self.private.public_key().to_openssh().unwrap_or_default();
        // A comment is whoever's made the file: it must not steer a terminal, nor become a second line where this is appended.
        line.chars().filter(|c| *c == ' ' || c.is_ascii_graphic()).collect()
    }

    /// The public half's fingerprint, as `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.private.public_key())
    }

    /// The certificate beside the key.
    ///
    /// # Errors
    /// There is a file, and it can't be used.
    pub fn certificate(&self) -> Result<Option<&UserCertificate>, &CertificateError> {
        (*self.certificate).as_ref().map(Option::as_ref)
    }

    pub(crate) fn private(&self) -> &Arc<PrivateKey> {
        &self.private
    }
}

/// What is wrong with a DSA key.
pub(crate) const DSA: &str = "it is a DSA key, which servers no longer take";

/// Reads a key file that nobody else may read or replace.
fn read_private(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let read_error = |error| IdentityError::Read(path.to_owned(), error);
    // A directory's permissions have nothing to do with it, and opening a pipe could wait for ever.
    if !fs::metadata(path).map_err(read_error)?.is_file() {
        return Err(IdentityError::Format(path.to_owned(), "it is no file".into()));
    }
    let file = File::open(path).map_err(read_error)?;
    let metadata = file.metadata().map_err(read_error)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(IdentityError::Owner(path.to_owned(), metadata.uid(), user));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed(path.to_owned(), metadata.mode() & 0o7777));
    }
    if metadata.len() > KEY_FILE_BYTES {
        let text = format!("it has {} bytes, and a key has at most {KEY_FILE_BYTES}", metadata.len());
        return Err(IdentityError::Format(path.to_owned(), text));
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_BYTES).read_to_end(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<PrivateKey, String> {
    if bytes.is_empty() {
        return Err("it is empty".into());
    }
    if bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
        return Err("it holds nothing, as a power cut may leave it".into());
    }
    if dropbear_key::looks_like_one(bytes) {
        return dropbear_key::parse(bytes).map_err(|error| error.to_string());
    }
    let text =
        std::str::from_utf8(bytes).map_err(|_| "it is neither text nor of dropbear's format".to_owned())?;
    if text.contains("-----BEGIN DSA PRIVATE KEY-----") {
        return Err(DSA.into());
    }
    if let Some(what) = obviously_no_key(text) {
        return Err(what.into());
    }
    ssh::decode_private_key(text).or_else(|error| openssh_key::parse(text).ok_or(error))
}

/// What a library would only call unreadable, and a person can do something about.
fn obviously_no_key(text: &str) -> Option<&'static str> {
    if PublicKey::from_openssh(text.trim()).is_ok() {
        return Some("it is a public key, and the private one belongs there");
    }
    if !text.contains("-----BEGIN ") {
        return Some("it is text, and no key");
    }
    (!text.contains("-----END ")).then_some("it is cut off")
}

/// A size counts in whole bytes: the product of two primes of 1024 bits may have 2047.
pub(crate) fn check_strength(key: &KeypairData) -> Result<(), String> {
    match key {
        KeypairData::Rsa(rsa) if rsa.key_size() < RSA_BITS => {
            Err(format!("it is an RSA key of {} bits, and at least {RSA_BITS} are needed", rsa.key_size()))
        }
        KeypairData::Rsa(_) | KeypairData::Ecdsa(_) | KeypairData::Ed25519(_) => Ok(()),
        KeypairData::Dsa(_) => Err(DSA.into()),
        _ => Err("it is neither RSA nor ECDSA nor ed25519".into()),
    }
}

/// A key's fingerprint as `ssh-keygen -l` prints it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Keep,
    Replace,
}

/// Writes a file that only its owner can read; whoever looks finds all of it or none. To keep one that is there is an error.
pub(crate) fn write_private(path: &Path, content: &[u8], existing: Existing) -> io::Result<()> {
    let directory = directory_of(path);
    let mut file = tempfile::Builder::new()
        .prefix(".new-key-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    match existing {
        Existing::Keep => file.persist_noclobber(path)?,
        Existing::Replace => file.persist(path)?,
    };
    File::open(directory)?.sync_all()
}

/// The directory that a file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

// === impl IdentityError ===

impl IdentityError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::Read(path, error) if error.kind() == ErrorKind::PermissionDenied => {
                let (user, file) = (rustix::process::geteuid().as_raw(), path.display());
                // Only whose directory it is may be whose key it is: nobody else is to take it away from the agent.
                match fs::metadata(directory_of(path)) {
                    Ok(directory) if directory.uid() == user => {
                        format!("chown {user} {file}; chmod 600 {file}")
                    }
                    _ => "run this as root, or as the user that the agent runs as".to_owned(),
                }
            }
            Self::Read(path, error) if error.kind() == ErrorKind::NotFound => format!(
                "put {} back: a restart of the agent makes a new key, which the servers have to authorise",
                path.display()
            ),
            Self::Read(path, _) => format!("make {} readable for this user", path.display()),
            Self::Format(path, _) => format!(
                "put a key without a passphrase there, in the format of OpenSSH, dropbear, PKCS#1, PKCS#8 or SEC1, or move {} \
                 away and a new key is made",
                path.display()
            ),
            Self::Weak(path, _) => {
                format!(
                    "move {} away and a new key is made, which the servers have to authorise",
                    path.display()
                )
            }
            Self::Exposed(path, _) => format!("chmod 600 {}", path.display()),
            Self::Owner(path, _, user) => format!("chown {user} {}", path.display()),
            Self::Create(path, error) => {
                let directory = directory_of(path).display();
                match error.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!("make room in {directory}"),
                    ErrorKind::ReadOnlyFilesystem => {
                        format!("have {directory} mounted writable, or name a key in ssh.identity_file")
                    }
                    _ => format!("make {directory} writable for this user"),
                }
            }
        }
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "can't read the device key {}: {error}", path.display()),
            Self::Format(path, error) => write!(f, "{} holds no usable private key: {error}", path.display()),
            Self::Weak(path, why) => write!(f, "the device key {} is too weak: {why}", path.display()),
            Self::Owner(path, owner, user) => {
                write!(f, "the device key {} belongs to the user {owner}, not to {user}", path.display())
            }
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
    fn a_key_that_was_made_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        let made = Identity::create(&path, "CP001").unwrap();
        let read = Identity::load(&path, "other").unwrap();
        assert_eq!(made.public_line(), read.public_line());
        assert!(made.public_line().starts_with("ssh-ed25519 AAAA"));
        assert!(made.public_line().ends_with(" CP001"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn two_keys_differ() {
        let directory = tempfile::tempdir().unwrap();
        let key = |name| Identity::create(&directory.path().join(name), "").unwrap().fingerprint();
        assert_ne!(key("a"), key("b"));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        Identity::create(&path, "CP001").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load(&path, "CP001").unwrap_err();
        assert!(matches!(error, IdentityError::Exposed(_, 0o640)), "{error}");
    }

    #[test]
    fn a_corrupt_key_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        write_private(&path, b"-----BEGIN OPENSSH PRIVATE KEY-----\ngarbage\n", Existing::Keep).unwrap();
        let error = Identity::load(&path, "CP001").unwrap_err();
        assert!(matches!(error, IdentityError::Format(..)), "{error}");
        assert!(fs::read_to_string(&path).unwrap().contains("garbage"));
    }

    #[test]
    fn what_is_no_key_is_called_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        let key = Identity::create(&path, "CP001").unwrap();
        let private = fs::read_to_string(&path).unwrap();
        for (content, what) in [
            ("", "it is empty"),
            ("\0\0\0\0\n", "a power cut"),
            ("to do: make a key", "no key"),
            (&key.public_line(), "public key"),
            (&private[..private.len() / 2], "cut off"),
        ] {
            let error = decode(content.as_bytes()).unwrap_err();
            assert!(error.contains(what), "{content:?}: {error}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = Identity::load(&path, "CP001").unwrap_err();
        assert!(error.to_string().contains("no file"), "{error}");
    }

    #[test]
    fn a_key_of_another_user_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        Identity::create(&path, "CP001").unwrap();
        if std::os::unix::fs::chown(&path, Some(61_234), None).is_err() {
            return; // Only root gives files away.
        }
        let error = Identity::load(&path, "CP001").unwrap_err();
        assert!(matches!(error, IdentityError::Owner(_, 61_234, 0)), "{error}");
        assert_eq!(error.cure(), format!("chown 0 {}", path.display()));
    }

    #[test]
    fn a_file_that_is_too_long_is_not_cut_but_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id_ed25519");
        write_private(&path, &vec![b'\n'; KEY_FILE_BYTES as usize + 1], Existing::Keep).unwrap();
        let error = Identity::load(&path, "").unwrap_err();
        assert!(error.to_string().contains("32769 bytes"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_content_gets_an_answer(content in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = decode(&content);
        }

        #[test]
        fn any_text_in_any_armour_gets_an_answer(
            kind in proptest::sample::select(vec!["OPENSSH", "RSA", "EC", "DSA", "ENCRYPTED"]),
            content in "[A-Za-z0-9+/=\n]{0,400}",
        ) {
            let _ = decode(format!("-----BEGIN {kind} PRIVATE KEY-----\n{content}\n-----END {kind} PRIVATE KEY-----\n").as_bytes());
        }
    }
}
