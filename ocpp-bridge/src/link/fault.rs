//! Why there is no connection, in kinds that have different cures, and of which some matter for security.

use std::io;

use rustls::{AlertDescription, Error, PeerIncompatible};

use super::connect_error::ConnectError;

/// Why there is no connection. Each has another cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFault {
    /// The name has no address.
    Dns,
    /// Nobody answers, or not in time; the proxy included.
    Network,
    /// The CSMS's certificate isn't good.
    Certificate,
    /// The CSMS speaks no version of TLS that we do.
    TlsVersion,
    /// TLS fails otherwise: a client certificate that is missing or refused, or nothing that speaks TLS.
    Tls,
    /// The CSMS refused our credentials: HTTP status 401 or 403.
    Credentials,
    /// The CSMS knows no such charge point, or the path is wrong: HTTP status 404.
    Unknown,
    /// The CSMS can't serve us now: HTTP status 429 or 5xx.
    Unavailable,
    /// What answers doesn't speak OCPP 1.6J over WebSocket.
    Protocol,
}

impl ConnectError {
    pub(crate) fn fault(&self) -> LinkFault {
        match self {
            Self::Dns { .. } | Self::NoAddress { .. } | Self::Timeout { step: "DNS", .. } => LinkFault::Dns,
            Self::Tcp { .. } | Self::Timeout { .. } | Self::Proxy(_) | Self::ProxySpeaks { .. } => {
                LinkFault::Network
            }
            Self::Tls { error, .. } => of_tls(error),
            Self::NoTlsSettings | Self::ServerName { .. } => LinkFault::Tls,
            Self::Http(answer) => match answer.status() {
                401 | 403 => LinkFault::Credentials,
                404 => LinkFault::Unknown,
                429 | 500.. => LinkFault::Unavailable,
                _ => LinkFault::Protocol,
            },
            Self::Request { .. } | Self::Subprotocol(_) | Self::Extension | Self::Handshake { .. } => {
                LinkFault::Protocol
            }
        }
    }
}

fn of_tls(error: &io::Error) -> LinkFault {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::InvalidCertificate(_)) => LinkFault::Certificate,
        Some(
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ),
        ) => LinkFault::TlsVersion,
        _ => LinkFault::Tls,
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    #[test]
    fn faults_of_tls_are_told_apart() {
        let tls = |error: Error| of_tls(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(tls(Error::InvalidCertificate(CertificateError::Expired)), LinkFault::Certificate);
        assert_eq!(tls(Error::AlertReceived(AlertDescription::ProtocolVersion)), LinkFault::TlsVersion);
        assert_eq!(tls(Error::AlertReceived(AlertDescription::InternalError)), LinkFault::Tls);
        assert_eq!(of_tls(&io::Error::from(io::ErrorKind::UnexpectedEof)), LinkFault::Tls);
    }
}
