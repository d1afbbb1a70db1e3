//! TLS towards controllers, where the bridge is the server.

use std::{fmt, sync::Arc};

use rustls::{ServerConfig, server::NoServerSessionStorage, sign::SingleCertAndKey};
use tokio_rustls::TlsAcceptor;

use super::client_certificate::{ClientCertificate, ClientCertificateError};

/// What the bridge shows to controllers: TLS 1.2 or later, without client certificates.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

/// Why there is no [`ServerTls`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTlsError {
    /// The certificate or its key can't be used.
    Certificate(ClientCertificateError),
    /// The crypto provider lacks what we need.
    Provider(String),
}

// === impl ServerTls ===

impl ServerTls {
    /// Reads a chain, our own certificate first, and its private key, each from the bytes of a PEM file.
    ///
    /// # Errors
    /// See [`ServerTlsError`].
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Self, ServerTlsError> {
        let certificate = ClientCertificate::new(certificates, key).map_err(ServerTlsError::Certificate)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| ServerTlsError::Provider(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from((*certificate.certified()).clone())));
        // Controllers connect seldom, and sessions to resume would take memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

// === impl ServerTlsError ===

impl ServerTlsError {
    /// Whether it is the key's file that is to blame.
    pub fn is_about_key(&self) -> bool {
        matches!(self, Self::Certificate(error) if error.is_about_key())
    }
}

impl fmt::Display for ServerTlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => error.fmt(f),
            Self::Provider(error) => write!(f, "TLS can't be set up: {error}"),
        }
    }
}

impl std::error::Error for ServerTlsError {}
