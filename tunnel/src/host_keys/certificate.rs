//! Host certificates: PROTOCOL.certkeys of OpenSSH.
//!
//! The server has proved that it holds the key inside; here it is judged whether an authority that we trust says that the
//! key is this host's, now.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ssh_key::{Algorithm, Certificate, HashAlg, PublicKey};

use super::line::{host_name, matches_glob};
use crate::destination::Host;
use crate::limits::SHOWN_CHARACTERS;

/// The wall clock that the validity of certificates is judged by. It may be decades off.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The time.
    pub now: fn() -> SystemTime,
    /// Whether anybody has ever set it.
    pub is_set: fn() -> bool,
}

/// What is wrong with a host certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// It identifies a user.
    User,
    /// The fingerprint of the authority that signed it, and those of the trusted ones.
    Authority {
        /// Who signed it.
        signed_by: String,
        /// Who should have.
        trusted: String,
    },
    /// The authority signed with SHA-1.
    Sha1,
    /// The signature isn't the authority's.
    Signature,
    /// It is for other hosts, or for none.
    Principal {
        /// The host, as a certificate names it.
        host: String,
        /// What the certificate names; cut where it is long.
        principals: String,
    },
    /// It isn't valid yet, or not any more.
    Time {
        /// From this moment on.
        after: String,
        /// Until this moment.
        before: String,
        /// Our clock.
        now: String,
    },
    /// The validity can't be judged: nobody has set our clock.
    ClockUnset {
        /// From this moment on.
        after: String,
        /// Until this moment.
        before: String,
    },
    /// It has a critical option, and none is defined for hosts.
    CriticalOption(String),
}

/// Judges a certificate for a host by the authorities that are trusted for it; gives the index of the one that signed it.
pub(super) fn check(
    certificate: &Certificate,
    host: &Host,
    authorities: &[&PublicKey],
    clock: Clock,
) -> Result<usize, CertificateError> {
    if !certificate.cert_type().is_host() {
        return Err(CertificateError::User);
    }
    let signed_by = certificate.signature_key();
    let Some(signer) = authorities.iter().position(|authority| authority.key_data() == signed_by) else {
        let trusted = authorities.iter().map(|key| key.fingerprint(HashAlg::Sha256).to_string());
        return Err(CertificateError::Authority {
            signed_by: signed_by.fingerprint(HashAlg::Sha256).to_string(),
            trusted: trusted.collect::<Vec<_>>().join(", "),
        });
    };
    if certificate.signature().algorithm() == (Algorithm::Rsa { hash: None }) {
        return Err(CertificateError::Sha1);
    }
    // A certificate without principals would be every host's; OpenSSH takes it, we don't.
    let host = host_name(host);
    let names_host = |principal: &String| matches_glob(&principal.to_ascii_lowercase(), &host);
    if !certificate.valid_principals().iter().any(names_host) {
        let principals = shortened(&certificate.valid_principals().join(", "));
        return Err(CertificateError::Principal { host, principals });
    }
    if let Some(option) = certificate.critical_options().keys().next() {
        return Err(CertificateError::CriticalOption(shortened(option)));
    }
    let now = (clock.now)().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (after, before) = (certificate.valid_after(), certificate.valid_before());
    if !(after..before).contains(&now) {
        let (after, before) = (date(after), date(before));
        return Err(match (clock.is_set)() {
            true => CertificateError::Time { after, before, now: date(now) },
            false => CertificateError::ClockUnset { after, before },
        });
    }
    let authority = signed_by.fingerprint(HashAlg::Sha256);
    certificate.validate_at(now, [&authority]).map_err(|_| CertificateError::Signature)?;
    Ok(signer)
}

/// What the server says, before its signature is checked: it must not fill the log.
fn shortened(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

/// The first second that RFC 3339 can't write: the year 10000.
const END_OF_DATES: u64 = 253_402_300_800;

/// A moment in seconds since 1970 as RFC 3339 in UTC.
fn date(seconds: u64) -> String {
    match seconds {
        END_OF_DATES.. => "forever".to_owned(),
        seconds => humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(),
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("it is a user's, not a host's"),
            Self::Authority { signed_by, trusted } => {
                write!(f, "it is signed by {signed_by}, trusted is {trusted}")
            }
            Self::Sha1 => f.write_str("its authority signed it with SHA-1"),
            Self::Signature => f.write_str("its signature is wrong"),
            Self::Principal { host, principals } if principals.is_empty() => {
                write!(f, "it names no host, so not {host}")
            }
            Self::Principal { host, principals } => {
                write!(f, "it is for {principals}, not for {host}")
            }
            Self::Time { after, before, now } => {
                write!(f, "it is valid from {after} to {before}, and this device's clock says {now}")
            }
            Self::ClockUnset { after, before } => {
                write!(f, "it is valid from {after} to {before}, and this device's clock isn't set")
            }
            Self::CriticalOption(option) => write!(f, "it has the unknown critical option {option}"),
        }
    }
}

impl std::error::Error for CertificateError {}
