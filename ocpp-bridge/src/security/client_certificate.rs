//! Our own certificate, for mutual TLS (security profile 3).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    Error, InconsistentKeys, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};

use super::validity::Validity;

/// A certificate chain and the private key that belongs to its first certificate.
///
/// Cheap to clone. Its `Debug` shows nothing of the key.
#[derive(Clone)]
pub struct ClientCertificate {
    certified: Arc<CertifiedKey>,
    validity: Validity,
}

/// Why two files don't make a [`ClientCertificate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificateError {
    /// The certificate's file isn't PEM; what was wrong with it.
    CertificatePem(String),
    /// The certificate's file holds no certificate.
    NoCertificate,
    /// The first certificate isn't one that TLS can use; why.
    Certificate(String),
    /// The key's file isn't PEM; what was wrong with it.
    KeyPem(String),
    /// The key's file holds no private key.
    NoKey,
    /// The key is encrypted.
    Encrypted,
    /// The key is of a kind that TLS can't use; why.
    Key(String),
    /// The key is another certificate's.
    Mismatch,
}

// === impl ClientCertificate ===

impl ClientCertificate {
    /// Reads a chain, our own certificate first, and its private key, each from the bytes of a PEM file. The key is
    /// PKCS#8, PKCS#1 or SEC1: RSA, P-256, P-384 or Ed25519.
    ///
    /// # Errors
    /// See [`ClientCertificateError`].
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Self, ClientCertificateError> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ClientCertificateError::CertificatePem(error.to_string()))?;
        let own = chain.first().ok_or(ClientCertificateError::NoCertificate)?;
        let validity = Validity::of_certificate(own)
            .ok_or_else(|| ClientCertificateError::Certificate("it isn't X.509".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            _ if is_encrypted(key) => ClientCertificateError::Encrypted,
            pem::Error::NoItemsFound => ClientCertificateError::NoKey,
            error => ClientCertificateError::KeyPem(error.to_string()),
        })?;
        let certified = rustls::crypto::ring::sign::any_supported_type(&key)
            .map(|key| CertifiedKey::new(chain, key))
            .map_err(|error| ClientCertificateError::Key(error.to_string()))?;
        certified.keys_match().map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => ClientCertificateError::Mismatch,
            error => ClientCertificateError::Certificate(error.to_string()),
        })?;
        Ok(Self { certified: Arc::new(certified), validity })
    }

    /// From when to when the certificate is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

/// PKCS#8's own encryption, or that of OpenSSL's older files.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// What the CSMS has made of the request for a client certificate, which is optional in TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// It asked for none.
    NotAsked,
    /// It asked for one, and we have none, or none that it could read.
    None,
    /// It asked for one, and got ours with a proof of the key.
    Shown,
}

/// Our certificate, if we have one, in one handshake; and whether the CSMS has asked for it.
pub(crate) struct Offer {
    certified: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
    taken: AtomicBool,
}

// === impl Offer ===

impl Offer {
    pub(super) fn new(certified: Option<Arc<CertifiedKey>>) -> Self {
        Self { certified, asked: AtomicBool::new(false), taken: AtomicBool::new(false) }
    }

    /// How it went so far.
    pub(crate) fn outcome(&self) -> ClientAuth {
        match (self.asked.load(Ordering::Relaxed), self.taken.load(Ordering::Relaxed)) {
            (_, true) => ClientAuth::Shown,
            (true, false) => ClientAuth::None,
            (false, false) => ClientAuth::NotAsked,
        }
    }
}

impl ResolvesClientCert for Offer {
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        // Without a signature that the CSMS knows, rustls would send an empty chain.
        let certified = self.certified.as_ref().filter(|own| own.key.choose_scheme(schemes).is_some());
        self.taken.store(certified.is_some(), Ordering::Relaxed);
        certified.map(Arc::clone)
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Offer").field(&self.outcome()).finish()
    }
}

// === impl ClientCertificateError ===

impl ClientCertificateError {
    /// Whether it is the key's file that is wrong, and not the certificate's.
    pub fn is_about_key(&self) -> bool {
        match self {
            Self::CertificatePem(_) | Self::NoCertificate | Self::Certificate(_) => false,
            Self::KeyPem(_) | Self::NoKey | Self::Encrypted | Self::Key(_) | Self::Mismatch => true,
        }
    }
}

impl fmt::Display for ClientCertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificatePem(error) => write!(f, "the certificate isn't PEM: {error}"),
            Self::NoCertificate => f.write_str("the file holds no certificate"),
            Self::Certificate(error) => write!(f, "the certificate can't be used: {error}"),
            Self::KeyPem(error) => write!(f, "the key isn't PEM: {error}"),
            Self::NoKey => f.write_str("the file holds no private key"),
            Self::Encrypted => f.write_str("the key is encrypted"),
            Self::Key(error) => write!(f, "the key can't be used: {error}"),
            Self::Mismatch => f.write_str("the key isn't the one that the client certificate is for"),
        }
    }
}

impl std::error::Error for ClientCertificateError {}

#[cfg(test)]
#[path = "client_certificate_tests.rs"]
mod tests;
