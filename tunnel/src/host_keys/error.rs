//! Why a server's key is not trusted, in words and as a failure.

use std::fmt;
use std::path::PathBuf;

use super::certificate::CertificateError;
use super::file::FileError;
use crate::failure::{Failure, FailureKind, HostKeyFault};

/// Why a server's key is not trusted.
#[derive(Debug)]
pub enum HostKeyError {
    /// It is none of those that are known.
    Changed {
        /// The name as known_hosts spells it.
        host: String,
        /// The fingerprint of what the server showed.
        shown: String,
        /// What it should have shown.
        known: Vec<Known>,
    },
    /// It was declared to be compromised.
    Revoked {
        /// The name as known_hosts spells it.
        host: String,
        /// The fingerprint of the revoked key.
        fingerprint: String,
        /// The revoked key is not the server's but the authority's that signed its certificate.
        authority: bool,
        /// Where it says so.
        place: Place,
    },
    /// The server's certificate isn't good.
    Certificate {
        /// The name as known_hosts spells it.
        host: String,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// No key is known and the policy is strict.
    Unknown {
        /// The name as known_hosts spells it.
        host: String,
        /// The fingerprint of what the server showed.
        shown: String,
    },
    /// The known-hosts file can't be used.
    File(FileError),
}

/// A key, or an authority, that is known of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// `SHA256:…`.
    pub fingerprint: String,
    /// The key's type, such as `ssh-ed25519`.
    pub key_type: String,
    /// It isn't the server's key but signs its certificates.
    pub authority: bool,
    /// Where it says so.
    pub place: Place,
}

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In `ssh.host_keys` of the configuration; its number from 1.
    Pin(usize),
    /// In the known-hosts file; its number from 1.
    File(PathBuf, usize),
}

impl HostKeyError {
    /// A key that must not be trusted ends a tunnel. A file that can't be read, or a clock that nobody has set yet, may
    /// be fine the next time.
    pub(crate) fn to_failure(&self) -> Failure {
        let fault = match self {
            // The server showed a bare key, and would be trusted with a certificate.
            Self::Changed { known, .. } if known.iter().all(|known| known.authority) => {
                HostKeyFault::Certificate
            }
            Self::Changed { known, .. } if known.iter().any(|known| matches!(known.place, Place::Pin(_))) => {
                HostKeyFault::Pinned
            }
            Self::Changed { .. } => HostKeyFault::Changed,
            Self::Revoked { .. } => HostKeyFault::Revoked,
            Self::Certificate { error: CertificateError::ClockUnset { .. }, .. } => HostKeyFault::Clock,
            Self::Certificate { .. } => HostKeyFault::Certificate,
            Self::Unknown { .. } => HostKeyFault::Unknown,
            Self::File(_) => HostKeyFault::File,
        };
        Failure::new(FailureKind::HostKey(fault), self.to_string())
    }
}

impl From<FileError> for HostKeyError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

// === impl Display ===

impl fmt::Display for HostKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { host, shown, known } => {
                write!(f, "{host} showed the host key {shown}, known is ")?;
                for (index, known) in known.iter().enumerate() {
                    let (comma, what) = (
                        if index > 0 { ", " } else { "" },
                        if known.authority { "the authority " } else { "" },
                    );
                    write!(f, "{comma}{what}{} ({})", known.fingerprint, known.place)?;
                }
                Ok(())
            }
            Self::Revoked { host, fingerprint, authority: false, place } => {
                write!(f, "{host} showed the revoked host key {fingerprint} ({place})")
            }
            Self::Revoked { host, fingerprint, authority: true, place } => {
                write!(f, "{host} showed a certificate of the revoked authority {fingerprint} ({place})")
            }
            Self::Certificate { host, error } => write!(f, "{host} showed a certificate, but {error}"),
            Self::Unknown { host, shown } => {
                write!(
                    f,
                    "no host key of {host} is known, and host_key_policy is \"strict\"; it showed {shown}"
                )
            }
            Self::File(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin(number) => write!(f, "ssh.host_keys, line {number}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
        }
    }
}

impl std::error::Error for HostKeyError {}
