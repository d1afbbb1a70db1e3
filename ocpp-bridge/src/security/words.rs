//! Why TLS failed, in plain words.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::tls::wall_clock;

/// Whether an error that came up after the handshake is TLS's: the CSMS may judge our certificate only then.
pub(crate) fn is_tls_error(error: &io::Error) -> bool {
    tls_error(error).is_some()
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

/// Says in plain words why TLS failed. `certificate_shown`: the CSMS has asked for our certificate and got it.
pub(crate) fn explain(error: &io::Error, certificate_shown: bool) -> String {
    match tls_error(error) {
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the CSMS closed the connection in the TLS handshake".to_owned()
        }
        None => format!("the TLS handshake failed: {error}"),
        Some(Error::InvalidCertificate(error)) => explain_certificate(error),
        Some(Error::AlertReceived(alert)) => explain_alert(*alert, certificate_shown),
        Some(Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        )) => TLS_VERSION.to_owned(),
        Some(Error::PeerIncompatible(reason)) => {
            format!("the CSMS has no TLS version or cipher suite that we accept: {reason:?}")
        }
        Some(Error::InvalidMessage(_)) => "the CSMS doesn't speak TLS on this port".to_owned(),
        Some(error) => format!("the TLS handshake failed: {error}"),
    }
}

const TLS_VERSION: &str = "the CSMS speaks no TLS version that we accept, which are 1.2 and 1.3";

/// RFC 8446 §6.2.
fn explain_alert(alert: AlertDescription, certificate_shown: bool) -> String {
    use AlertDescription as Alert;
    let why = match alert {
        Alert::ProtocolVersion => return TLS_VERSION.to_owned(),
        Alert::CertificateRequired => "",
        Alert::UnknownCA => ": it doesn't trust the CA that issued it",
        Alert::CertificateExpired => ": it has expired",
        Alert::CertificateRevoked => ": it was revoked",
        Alert::UnsupportedCertificate => ": it is of a kind that the CSMS doesn't support",
        Alert::AccessDenied => ": it may not connect with it",
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::DecryptError => ": it can't be accepted",
        // What servers of TLS 1.2 say, among many other things, where they miss a certificate.
        Alert::HandshakeFailure if !certificate_shown => {
            return "the CSMS found no TLS version, cipher suite or client certificate of ours that it accepts"
                .to_owned();
        }
        alert => return format!("the CSMS ended the TLS handshake with {alert:?}"),
    };
    match certificate_shown {
        true => format!("the CSMS refused our client certificate{why} ({alert:?})"),
        false => format!("the CSMS wants a client certificate, and got none ({alert:?})"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the CSMS's certificate has an unknown issuer: no trusted CA signed it".to_owned()
        }
        CertificateError::Expired => "the CSMS's certificate has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the CSMS's certificate has expired: it ended {}, and {}",
            utc(not_after.as_secs()),
            judged_at(time.as_secs())
        ),
        CertificateError::NotValidYet => "the CSMS's certificate isn't valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the CSMS's certificate isn't valid yet: it starts {}, and {}",
            utc(not_before.as_secs()),
            judged_at(time.as_secs())
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

/// The time that a certificate was judged at: this clock's, or a later one where this clock isn't set.
fn judged_at(seconds: u64) -> String {
    let clock = wall_clock().as_secs();
    if clock < seconds {
        return format!(
            "it is {} at the least, although this clock isn't set and says {}",
            utc(seconds),
            utc(clock)
        );
    }
    format!("this clock says {}", utc(seconds))
}

fn utc(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
        .map_or_else(|| format!("{unix_seconds} s after 1970"), |time| time.format("%FT%TZ").to_string())
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{AlertDescription as Alert, Error};

    use super::explain;

    fn alert(alert: Alert, certificate_shown: bool) -> String {
        explain(&io::Error::other(Error::AlertReceived(alert)), certificate_shown)
    }

    #[test]
    fn alerts_about_our_certificate_say_whether_it_was_shown() {
        assert_eq!(
            alert(Alert::UnknownCA, true),
            "the CSMS refused our client certificate: it doesn't trust the CA that issued it (UnknownCA)"
        );
        for reason in [Alert::CertificateRequired, Alert::BadCertificate, Alert::CertificateUnknown] {
            assert!(alert(reason, false).starts_with("the CSMS wants a client certificate, and got none"));
            assert!(alert(reason, true).starts_with("the CSMS refused our client certificate"));
        }
        assert!(alert(Alert::HandshakeFailure, false).contains("client certificate of ours"));
        assert!(!alert(Alert::HandshakeFailure, true).contains("certificate"));
    }

    #[test]
    fn an_old_tls_version_is_named_as_such() {
        assert!(alert(Alert::ProtocolVersion, false).contains("1.2 and 1.3"));
        let old = Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13);
        assert!(explain(&io::Error::other(old), false).contains("1.2 and 1.3"));
    }
}
