//! Why an upload fails, what the CSMS is told of it, and whether it is worth another try.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ocpp_bridge::UploadStatus;

/// Why one try failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The name can't be resolved.
    Dns(io::Error),
    /// The name has no address that may be connected to; how many it has that may not.
    NoAddress {
        /// Addresses of the site's network, behind a name that a wildcard matches.
        forbidden: usize,
    },
    /// TCP.
    Tcp(SocketAddr, io::Error),
    /// TLS can't be set up here.
    TlsSettings(String),
    /// TLS, with the server.
    Tls(io::Error),
    /// A step took too long.
    Timeout {
        /// Which one.
        step: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection broke in the middle.
    Broken(io::Error),
    /// The server closed the connection without an answer.
    NoAnswer,
    /// What answered doesn't speak HTTP.
    NotHttp(&'static str),
    /// The server's answer: anything but 2xx.
    Refused(u16),
    /// What is to be sent can't be gathered.
    Content(String),
}

impl Failure {
    /// What the CSMS is told if it stays at that.
    #[must_use]
    pub(super) fn status(&self) -> UploadStatus {
        match self {
            Self::NotHttp(_) | Self::Refused(400) => UploadStatus::BadMessage,
            Self::NoAddress { forbidden: 1.. } | Self::Refused(401 | 403 | 407) => {
                UploadStatus::PermissionDenied
            }
            Self::Refused(405 | 501) => UploadStatus::NotSupportedOperation,
            _ => UploadStatus::UploadFailure,
        }
    }

    /// Could the same thing succeed later? A server that has decided says the same again, but for those answers that ask for
    /// patience (RFC 9110, 15.5.9 and 15.6; RFC 6585, 4).
    #[must_use]
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Refused(501) | Self::NoAddress { forbidden: 1.. } => false,
            Self::Refused(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Content(_) | Self::TlsSettings(_) => false,
            _ => true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(error) => write!(f, "DNS: the name can't be resolved: {error}"),
            Self::NoAddress { forbidden: 0 } => f.write_str("DNS: the name has no address"),
            Self::NoAddress { .. } => f.write_str(
                "the name leads into the site's network, where an entry with a wildcard doesn't reach; list the host by itself",
            ),
            Self::Tcp(address, error) => write!(f, "TCP: no connection to {address}: {error}"),
            Self::TlsSettings(error) => write!(f, "TLS can't be set up: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Timeout { step, after } => write!(f, "{step}: nothing happened in {} s", after.as_secs_f32()),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::NoAnswer => f.write_str("the server closed the connection without an answer"),
            Self::NotHttp(what) => write!(f, "the server doesn't speak HTTP: {what}"),
            Self::Refused(status) => write!(f, "{} (HTTP {status})", words(*status)),
            Self::Content(what) => write!(f, "what is to be sent can't be gathered: {what}"),
        }
    }
}

impl std::error::Error for Failure {}

fn words(status: u16) -> &'static str {
    match status {
        300..=399 => "the server redirects elsewhere, which is never followed",
        401 | 407 => "the server wants other credentials",
        403 => "the server doesn't permit it",
        404 | 410 => "the server doesn't know the place",
        405 | 501 => "the server takes neither PUT nor POST",
        408 => "the server got it too slowly",
        413 => "the file is too large for the server",
        429 => "the server has too many requests",
        503 => "the server isn't available",
        500..=599 => "the server failed",
        _ => "the server refused it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_status_and_its_patience() {
        use UploadStatus::{BadMessage, NotSupportedOperation, PermissionDenied, UploadFailure};
        for (failure, status, passing) in [
            (Failure::Refused(302), UploadFailure, false),
            (Failure::Refused(400), BadMessage, false),
            (Failure::Refused(401), PermissionDenied, false),
            (Failure::Refused(403), PermissionDenied, false),
            (Failure::Refused(405), NotSupportedOperation, false),
            (Failure::Refused(413), UploadFailure, false),
            (Failure::Refused(429), UploadFailure, true),
            (Failure::Refused(500), UploadFailure, true),
            (Failure::Refused(501), NotSupportedOperation, false),
            (Failure::Refused(503), UploadFailure, true),
            (Failure::NotHttp("x"), BadMessage, true),
            (Failure::NoAddress { forbidden: 2 }, PermissionDenied, false),
            (Failure::NoAddress { forbidden: 0 }, UploadFailure, true),
            (Failure::NoAnswer, UploadFailure, true),
            (Failure::Timeout { step: "TCP", after: Duration::from_secs(1) }, UploadFailure, true),
        ] {
            assert_eq!((failure.status(), failure.is_passing()), (status, passing), "{failure}");
        }
    }
}
