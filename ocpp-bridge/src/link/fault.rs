//! What of a failed connection matters for security, in kinds that the embedder can report.

use std::io;

use rustls::{AlertDescription, Error, PeerIncompatible};

use super::connect_error::ConnectError;

/// Why there is no connection, where that may be somebody's doing (security whitepaper, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFault {
    /// The CSMS's certificate isn't good.
    Certificate,
    /// The CSMS speaks no version of TLS that we do.
    TlsVersion,
    /// The CSMS refused our credentials.
    Credentials,
}

impl ConnectError {
    pub(crate) fn fault(&self) -> Option<LinkFault> {
        match self {
            Self::Tls { error, .. } => of_tls(error),
            Self::Http(answer) if matches!(answer.status(), 401 | 403) => Some(LinkFault::Credentials),
            _ => None,
        }
    }
}

fn of_tls(error: &io::Error) -> Option<LinkFault> {
    match error.get_ref()?.downcast_ref()? {
        Error::InvalidCertificate(_) => Some(LinkFault::Certificate),
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => Some(LinkFault::TlsVersion),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    #[test]
    fn faults_are_told_apart_from_failures() {
        let tls = |error: Error| of_tls(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(tls(Error::InvalidCertificate(CertificateError::Expired)), Some(LinkFault::Certificate));
        assert_eq!(tls(Error::AlertReceived(AlertDescription::ProtocolVersion)), Some(LinkFault::TlsVersion));
        assert_eq!(tls(Error::AlertReceived(AlertDescription::InternalError)), None);
        assert_eq!(of_tls(&io::Error::from(io::ErrorKind::UnexpectedEof)), None);
    }
}
