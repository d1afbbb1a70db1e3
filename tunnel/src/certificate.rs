//! An OpenSSH user certificate beside the device key (PROTOCOL.certkeys): `FILE-cert.pub`, as `ssh-keygen -s` names it.
//!
//! Whether it is good enough is for the server to judge. Here it is only kept from being offered where it can't be:
//! for another key, or after its end.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ssh_key::certificate::CertType;
use ssh_key::{Certificate, PublicKey};

use crate::files::open_file;
use crate::limits::KEY_FILE_BYTES;

/// A certificate that belongs to the device key beside it.
#[derive(Clone, Debug)]
pub struct UserCertificate {
    path: PathBuf,
    certificate: Certificate,
}

/// Why a certificate isn't offered, though its file is there.
#[derive(Debug)]
pub enum CertificateError {
    /// The file can't be read.
    Read(PathBuf, io::Error),
    /// The file holds no certificate.
    Format(PathBuf, String),
    /// It is a server's.
    Host(PathBuf),
    /// It is for another key.
    OtherKey(PathBuf),
    /// Its time is over.
    Expired(PathBuf),
}

/// The certificate's file for a private key's.
pub(crate) fn path_beside(key: &Path) -> PathBuf {
    let mut name = OsString::from(key);
    name.push("-cert.pub");
    name.into()
}

/// The wall clock; before 1970 counts as 1970. The standard library's, which a test can play another time to (libfaketime).
#[cfg(not(all(target_env = "musl", target_pointer_width = "32")))]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now().max(UNIX_EPOCH)
}

/// The wall clock; before 1970 counts as 1970. The standard library's ends in 2038 where time has 32 bits.
#[cfg(all(target_env = "musl", target_pointer_width = "32"))]
pub(crate) fn wall_clock() -> SystemTime {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default())
}

impl UserCertificate {
    /// Reads the certificate beside the key file `key`; none if there is no such file.
    pub(crate) fn load(key: &Path, public: &PublicKey) -> Result<Option<Self>, CertificateError> {
        let path = path_beside(key);
        let mut text = String::new();
        match open_file(&path).and_then(|file| file.take(KEY_FILE_BYTES).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CertificateError::Read(path, error)),
        }
        let certificate = match Certificate::from_openssh(&text) {
            Ok(certificate) => certificate,
            Err(error) => return Err(CertificateError::Format(path, error.to_string())),
        };
        if certificate.cert_type() != CertType::User {
            return Err(CertificateError::Host(path));
        }
        if certificate.public_key() != public.key_data() {
            return Err(CertificateError::OtherKey(path));
        }
        Ok(Some(Self { path, certificate }))
    }

    /// Whether it may be offered at this moment. One that isn't valid yet may: a controller's clock is often years behind,
    /// and the server knows better.
    ///
    /// # Errors
    /// Its time is over.
    pub fn check_time(&self, now: SystemTime) -> Result<(), CertificateError> {
        match self.ends() {
            Some(end) if end <= now => Err(CertificateError::Expired(self.path.clone())),
            _ => Ok(()),
        }
    }

    /// When it ends; `None` for one that never does.
    #[must_use]
    pub fn ends(&self) -> Option<SystemTime> {
        // A time that the clock can't hold is as good as none; `u64::MAX` means none (PROTOCOL.certkeys).
        UNIX_EPOCH.checked_add(Duration::from_secs(self.certificate.valid_before()))
    }

    /// The name that the authority gave it, for people.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.certificate.key_id()
    }

    /// The accounts that it is for; none means all (PROTOCOL.certkeys).
    #[must_use]
    pub fn principals(&self) -> &[String] {
        self.certificate.valid_principals()
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl CertificateError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::Read(path, _) => format!("make {} readable for this user, or remove it", path.display()),
            Self::Format(path, _) | Self::Host(path) | Self::OtherKey(path) | Self::Expired(path) => format!(
                "sign this device's key anew with `ssh-keygen -s CA -I ID -n ACCOUNT` and put the certificate to {}, or \
                 remove it",
                path.display()
            ),
        }
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "can't read the certificate {}: {error}", path.display()),
            Self::Format(path, error) => {
                write!(f, "{} holds no OpenSSH certificate: {error}", path.display())
            }
            Self::Host(path) => write!(f, "the certificate {} is a server's, not a user's", path.display()),
            Self::OtherKey(path) => {
                write!(f, "the certificate {} is for another key than this device's", path.display())
            }
            Self::Expired(path) => write!(f, "the certificate {} has expired", path.display()),
        }
    }
}

impl std::error::Error for CertificateError {}
