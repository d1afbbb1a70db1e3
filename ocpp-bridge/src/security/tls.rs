//! TLS towards the CSMS: rustls on `ring`, TLS 1.2 or later, and plain words for what goes wrong.

use std::{fmt, io, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};

use crate::limits::MAX_TLS_SESSIONS;

/// How to verify the CSMS, and with what TLS versions and suites.
///
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    config: Arc<ClientConfig>,
}

/// Why TLS can't be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSettingsError {
    /// The CA file isn't PEM; what was wrong with it.
    Pem(String),
    /// The CA file holds no certificate.
    NoCertificate,
    /// A certificate of the CA file, counted from 1, can't be a root; why.
    Certificate(usize, String),
    /// The crypto provider lacks what we need.
    Provider(String),
}

// === impl TlsSettings ===

impl TlsSettings {
    /// Trusts the certificates of `ca`, the bytes of a PEM file, and nothing else; without `ca`, the
    /// system's roots, or, where the system has none, those that were built in.
    ///
    /// # Errors
    /// If `ca` can't be read, or has no certificate.
    pub fn new(ca: Option<&[u8]>) -> Result<Self, TlsSettingsError> {
        let roots = match ca {
            Some(pem) => own_roots(pem)?,
            None => public_roots(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallClock))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| TlsSettingsError::Provider(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(MAX_TLS_SESSIONS);
        Ok(Self { config: Arc::new(config) })
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// The wall clock, for the validity of certificates. rustls's own asks the standard library, which panics on 32-bit
/// musl when the clock is past 2038, and a charge point's clock may be anywhere.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn own_roots(pem: &[u8]) -> Result<RootCertStore, TlsSettingsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|error| TlsSettingsError::Pem(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| TlsSettingsError::Certificate(index + 1, error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TlsSettingsError::NoCertificate);
    }
    Ok(roots)
}

fn public_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

// === impl TlsSettingsError ===

impl fmt::Display for TlsSettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(error) => write!(f, "the CA file isn't PEM: {error}"),
            Self::NoCertificate => f.write_str("the CA file holds no certificate"),
            Self::Certificate(number, error) => {
                write!(f, "certificate {number} of the CA file can't be used: {error}")
            }
            Self::Provider(error) => write!(f, "TLS can't be set up: {error}"),
        }
    }
}

impl std::error::Error for TlsSettingsError {}

/// Says in plain words why a TLS handshake failed.
pub(crate) fn explain(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the CSMS closed the connection in the TLS handshake".to_owned()
        }
        None => format!("the TLS handshake failed: {error}"),
        Some(Error::InvalidCertificate(error)) => explain_certificate(error),
        Some(Error::AlertReceived(alert)) => format!("the CSMS ended the TLS handshake with {alert:?}"),
        Some(Error::PeerIncompatible(reason)) => {
            format!("the CSMS has no TLS version or cipher suite that we accept: {reason:?}")
        }
        Some(Error::InvalidMessage(_)) => "the CSMS doesn't speak TLS on this port".to_owned(),
        Some(error) => format!("the TLS handshake failed: {error}"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the CSMS's certificate has an unknown issuer: no trusted CA signed it".to_owned()
        }
        CertificateError::Expired => "the CSMS's certificate has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the CSMS's certificate has expired: it ended {}, and this clock says {}",
            utc(not_after.as_secs()),
            utc(time.as_secs())
        ),
        CertificateError::NotValidYet => "the CSMS's certificate isn't valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the CSMS's certificate isn't valid yet: it starts {}, and this clock says {}",
            utc(not_before.as_secs()),
            utc(time.as_secs())
        ),
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => format!(
            "the CSMS's certificate isn't for {}: it has only a CN, no subjectAltName",
            expected.to_str()
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!(
                "the CSMS's certificate isn't for {}, but for {}",
                expected.to_str(),
                presented.join(", ")
            )
        }
        // The verifier's own error type isn't ours to name; its words are its variants'.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the CSMS's certificate is a CA's, which can't be a server's own".to_owned()
        }
        error => format!("the CSMS's certificate can't be accepted: {error}"),
    }
}

fn utc(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
        .map_or_else(|| format!("{unix_seconds} s after 1970"), |time| time.format("%FT%TZ").to_string())
}
