//! TLS towards the CSMS: rustls on `ring`, TLS 1.2 or later, whom to trust and what to show.

use std::{fmt, sync::Arc, time::Duration};

#[cfg(all(target_env = "musl", target_pointer_width = "32"))]
use rustix::time::{ClockId, clock_gettime};
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};

use super::{
    client_certificate::{ClientCertificate, Offer},
    verifier::Verifier,
};
use crate::limits::MAX_TLS_SESSIONS;

/// How to verify the CSMS, with what TLS versions and suites, and what to prove ourselves with.
///
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    config: Arc<ClientConfig>,
    client_certificate: Option<ClientCertificate>,
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
    /// `earliest` is a time since 1970 that has certainly passed, such as that of the program's build. A clock before
    /// it isn't set: then certificates that had ended by `earliest` have expired, and those that begin later are
    /// taken to have begun.
    ///
    /// # Errors
    /// If `ca` can't be read, or has no certificate.
    pub fn new(ca: Option<&[u8]>, earliest: Duration) -> Result<Self, TlsSettingsError> {
        let roots = match ca {
            Some(pem) => own_roots(pem)?,
            None => public_roots(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |error: &dyn fmt::Display| TlsSettingsError::Provider(error.to_string());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallClock))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| unusable(&error))?
            .dangerous() // rustls's word for any verifier of one's own; this one asks webpki.
            .with_custom_certificate_verifier(Arc::new(Verifier::new(webpki, earliest)))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(MAX_TLS_SESSIONS);
        Ok(Self { config: Arc::new(config), client_certificate: None })
    }

    /// The same for rustls, for what the embedder connects to besides the CSMS: without the client certificate.
    pub fn for_others(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Shows this certificate to a CSMS that asks for one.
    #[must_use]
    pub fn with_client_certificate(self, certificate: ClientCertificate) -> Self {
        let mut config = (*self.config).clone();
        // A resumed session rests on what an earlier one proved; each link is to prove itself.
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), client_certificate: Some(certificate) }
    }

    /// The same, showing nothing.
    #[must_use]
    pub fn without_client_certificate(self) -> Self {
        Self { client_certificate: None, ..self }
    }

    /// For one handshake; and what tells afterwards whether the CSMS asked for a certificate of ours.
    pub(crate) fn config(&self) -> (Arc<ClientConfig>, Arc<Offer>) {
        let offer = Arc::new(Offer::new(self.client_certificate.as_ref().map(ClientCertificate::certified)));
        let mut config = (*self.config).clone();
        config.client_auth_cert_resolver = Arc::clone(&offer) as _;
        (Arc::new(config), offer)
    }
}

/// The wall clock, for the validity of certificates. rustls's own asks the standard library, which panics on 32-bit
/// musl when the clock is past 2038, and a charge point's clock may be anywhere.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(wall_clock()))
    }
}

/// The wall clock since 1970; before that, it counts as at 1970. A test can play another time to it (libfaketime).
#[cfg(not(all(target_env = "musl", target_pointer_width = "32")))]
pub(super) fn wall_clock() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// The wall clock since 1970; before that, it counts as at 1970. The kernel's, which knows of times after 2038.
#[cfg(all(target_env = "musl", target_pointer_width = "32"))]
pub(super) fn wall_clock() -> Duration {
    Duration::from_secs(u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or_default())
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
