//! Why TLS failed, in plain words.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::{client_certificate::ClientAuth, tls::wall_clock};

/// Whether an error that came up after the handshake is TLS's: the CSMS may judge our certificate only then.
pub(crate) fn is_tls_error(error: &io::Error) -> bool {
    tls_error(error).is_some()
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

/// Whether the peer closed or reset the connection, without a word of TLS.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
        && !is_tls_error(error)
}

/// Says in plain words why TLS failed, `step` being what we were at, and `client_auth` how far our certificate got.
pub(crate) fn explain(error: &io::Error, step: &str, client_auth: ClientAuth) -> String {
    match tls_error(error) {
        None if is_end(error) => {
            let perhaps = match client_auth {
                ClientAuth::NotAsked if step == "TLS" => ": perhaps it doesn't speak TLS on this port",
                ClientAuth::NotAsked => "",
                ClientAuth::None => ", after it had asked for a client certificate and got none",
                ClientAuth::Shown => {
                    ", after it had been shown our client certificate: perhaps it refused that"
                }
            };
            format!("the CSMS closed the connection in the {step} handshake{perhaps}")
        }
        None => format!("the TLS handshake failed: {error}"),
        Some(Error::InvalidCertificate(error)) => explain_certificate(error),
        Some(Error::AlertReceived(alert)) => explain_alert(*alert, client_auth),
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

/// The words of a failure that tell what time it is, without that; none for others.
pub(crate) fn gist(error: &io::Error) -> Option<String> {
    match tls_error(error)? {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Some(format!("it ended {}", utc(not_after.as_secs())))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Some(format!("it starts {}", utc(not_before.as_secs())))
        }
        _ => None,
    }
}

const TLS_VERSION: &str = "the CSMS speaks no TLS version that we accept, which are 1.2 and 1.3";

/// RFC 8446 §6.2.
fn explain_alert(alert: AlertDescription, client_auth: ClientAuth) -> String {
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
        Alert::HandshakeFailure if client_auth != ClientAuth::Shown => {
            return "the CSMS found no TLS version, cipher suite or client certificate of ours that it accepts"
                .to_owned();
        }
        alert => return format!("the CSMS ended the TLS handshake with {alert:?}"),
    };
    match client_auth {
        ClientAuth::Shown => format!("the CSMS refused our client certificate{why} ({alert:?})"),
        _ => format!("the CSMS wants a client certificate, and got none ({alert:?})"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the CSMS's certificate has an unknown issuer: no trusted CA signed it".to_owned()
        }
        CertificateError::BadSignature => {
            "the CSMS's certificate has a wrong signature: another CA of the same name as a trusted one made it"
                .to_owned()
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
                presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")
            )
        }
        // The verifier's own error type isn't ours to name; its words are its variants'.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the CSMS's certificate is a CA's, which can't be a server's own".to_owned()
        }
        error => format!("the CSMS's certificate can't be accepted: {error}"),
    }
}

/// A name of a certificate without what the verifier wraps it in: `DnsName("csms.example.com")`, `IpAddress(192.0.2.1)`.
fn plain(presented: &str) -> &str {
    presented
        .split_once('(')
        .and_then(|(kind, rest)| rest.strip_suffix(')').filter(|_| matches!(kind, "DnsName" | "IpAddress")))
        .map_or(presented, |name| name.trim_matches('"'))
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

    use std::time::Duration;

    use rustls::{AlertDescription as Alert, CertificateError, Error, pki_types::UnixTime};

    use super::{ClientAuth, explain, gist};

    fn alert(alert: Alert, client_auth: ClientAuth) -> String {
        explain(&io::Error::other(Error::AlertReceived(alert)), "TLS", client_auth)
    }

    #[test]
    fn alerts_about_our_certificate_say_whether_it_was_shown() {
        assert_eq!(
            alert(Alert::UnknownCA, ClientAuth::Shown),
            "the CSMS refused our client certificate: it doesn't trust the CA that issued it (UnknownCA)"
        );
        for reason in [Alert::CertificateRequired, Alert::BadCertificate, Alert::CertificateUnknown] {
            let (none, shown) = (alert(reason, ClientAuth::None), alert(reason, ClientAuth::Shown));
            assert!(none.starts_with("the CSMS wants a client certificate, and got none"), "{none}");
            assert!(shown.starts_with("the CSMS refused our client certificate"), "{shown}");
        }
        assert!(alert(Alert::HandshakeFailure, ClientAuth::None).contains("client certificate of ours"));
        assert!(!alert(Alert::HandshakeFailure, ClientAuth::Shown).contains("certificate"));
    }

    #[test]
    fn an_end_without_an_alert_says_what_went_before_it() {
        let end = |client_auth| explain(&io::ErrorKind::ConnectionReset.into(), "WebSocket", client_auth);
        assert_eq!(end(ClientAuth::NotAsked), "the CSMS closed the connection in the WebSocket handshake");
        let in_tls = explain(&io::ErrorKind::UnexpectedEof.into(), "TLS", ClientAuth::NotAsked);
        assert!(in_tls.ends_with("perhaps it doesn't speak TLS on this port"), "{in_tls}");
        assert!(end(ClientAuth::None).ends_with("asked for a client certificate and got none"));
        assert!(end(ClientAuth::Shown).ends_with("perhaps it refused that"));
    }

    #[test]
    fn the_time_of_a_try_is_told_and_makes_no_other_failure() {
        let expired = |time, not_after| {
            let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let error = CertificateError::ExpiredContext { time: at(time), not_after: at(not_after) };
            io::Error::other(Error::InvalidCertificate(error))
        };
        let (first, later, renewed) = (expired(1_000, 7), expired(2_000, 7), expired(3_000, 8));
        let words = |error| explain(error, "TLS", ClientAuth::NotAsked);
        assert_ne!(words(&first), words(&later));
        assert_eq!(gist(&first), gist(&later));
        assert_ne!(gist(&first), gist(&renewed));
        assert_eq!(gist(&io::Error::other(Error::InvalidCertificate(CertificateError::UnknownIssuer))), None);
    }

    #[test]
    fn an_old_tls_version_is_named_as_such() {
        assert!(alert(Alert::ProtocolVersion, ClientAuth::NotAsked).contains("1.2 and 1.3"));
        let old = Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13);
        assert!(explain(&io::Error::other(old), "TLS", ClientAuth::NotAsked).contains("1.2 and 1.3"));
    }
}
