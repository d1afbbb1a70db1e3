//! Why there is no connection, in words that name the step and the peer.

use std::{borrow::Cow, fmt, io, time::Duration};

use chrono::DateTime;
use tokio_tungstenite::tungstenite::{
    error::{Error, ProtocolError, SubProtocolError},
    http::{
        HeaderMap,
        header::{DATE, HeaderName, LOCATION, RETRY_AFTER},
    },
};

use super::connect::SUBPROTOCOL;
use crate::{
    limits::{MAX_QUOTED_CHARS, MAX_RETRY_AFTER},
    security::{ClientAuth, explain_tls_error, is_end, is_tls_error, tls_gist},
};

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The name can't be resolved.
    Dns { host: String, error: io::Error },
    /// The name has no address.
    NoAddress { host: String },
    /// TCP failed.
    Tcp { peer: String, error: io::Error },
    /// A step wasn't over in time.
    Timeout { step: &'static str, peer: String, after: Duration },
    /// The proxy doesn't connect us.
    Proxy(http_connect::ConnectError),
    /// Something that can't be the CSMS's came through the proxy before we had said anything.
    ProxySpeaks { proxy: String },
    /// The URL wants TLS, and there are no settings for it.
    NoTlsSettings,
    /// The host can't stand in a certificate.
    ServerName { host: String },
    /// TLS failed, in this step's handshake; how far our certificate had got.
    Tls { error: io::Error, step: &'static str, client_auth: ClientAuth },
    /// The URL, the identity or the credentials can't be put into a request.
    Request { error: Error },
    /// The CSMS answered with another status than 101.
    Http(HttpAnswer),
    /// The CSMS doesn't speak OCPP 1.6J.
    Subprotocol(SubProtocolError),
    /// The CSMS speaks a WebSocket extension that wasn't asked for (RFC 6455 §4.1).
    Extension,
    /// Anything else in the WebSocket handshake.
    Handshake { error: Error },
}

/// What is told of an HTTP answer that isn't 101.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpAnswer {
    status: u16,
    /// How long the CSMS wants to be left alone; at most [`MAX_RETRY_AFTER`].
    retry_after: Option<Duration>,
    /// Where it redirects.
    location: Option<String>,
}

// === impl ConnectError ===

impl ConnectError {
    /// Somebody has decided, the CSMS or the proxy: another address wouldn't say anything else.
    pub(crate) fn is_decision(&self) -> bool {
        match self {
            Self::Http(_) | Self::Subprotocol(_) | Self::Extension => true,
            Self::Proxy(error) => !matches!(error, http_connect::ConnectError::Broken(_)),
            _ => false,
        }
    }

    /// How long the CSMS wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Http(answer) => answer.retry_after,
            _ => None,
        }
    }

    /// The status of the CSMS's answer, if that is why.
    pub(crate) fn http_status(&self) -> Option<u16> {
        match self {
            Self::Http(answer) => Some(answer.status()),
            _ => None,
        }
    }

    /// The CSMS doesn't want us as who we say we are. One answers 404 where the credentials are wrong.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Http(HttpAnswer { status: 401 | 403 | 404, .. }))
    }

    /// What tells this failure from others: its words without the times in them, which are others at each try.
    pub(super) fn gist(&self) -> String {
        match self {
            Self::Http(answer) if answer.retry_after.is_some() => {
                HttpAnswer { retry_after: None, ..answer.clone() }.to_string()
            }
            Self::Tls { error, .. } => tls_gist(error).unwrap_or_else(|| self.to_string()),
            _ => self.to_string(),
        }
    }

    /// In TLS 1.3 the CSMS judges our certificate when we have sent the request already.
    pub(crate) fn of_handshake(error: Error, client_auth: ClientAuth) -> Self {
        let tls = |error| Self::Tls { error, step: "WebSocket", client_auth };
        match error {
            Error::Io(error) if is_tls_error(&error) => tls(error),
            Error::Io(error) if is_end(&error) && client_auth != ClientAuth::NotAsked => tls(error),
            Error::Protocol(ProtocolError::HandshakeIncomplete) if client_auth != ClientAuth::NotAsked => {
                tls(io::ErrorKind::UnexpectedEof.into())
            }
            Error::Io(error) if is_end(&error) => {
                Self::Handshake { error: Error::Protocol(ProtocolError::HandshakeIncomplete) }
            }
            Error::Http(response) => {
                Self::Http(HttpAnswer::new(response.status().into(), response.headers()))
            }
            Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(error)) => Self::Subprotocol(error),
            error => Self::Handshake { error },
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { host, error } => write!(f, "DNS: {host} can't be resolved: {error}"),
            Self::NoAddress { host } => write!(f, "DNS: {host} has no address"),
            Self::Tcp { peer, error } => write!(f, "TCP: no connection to {peer}: {error}"),
            Self::Timeout { step, peer, after } => {
                write!(f, "{step}: no answer from {peer} in {} s", after.as_secs())
            }
            Self::Proxy(error) => error.fmt(f),
            Self::ProxySpeaks { proxy } => {
                write!(f, "the proxy {proxy} sent something before the CSMS was asked anything")
            }
            Self::NoTlsSettings => f.write_str("the URL is wss://, but TLS isn't set up"),
            Self::ServerName { host } => write!(f, "TLS: {host:?} can't stand in a certificate"),
            Self::Tls { error, step, client_auth } => {
                write!(f, "TLS: {}", explain_tls_error(error, step, *client_auth))
            }
            Self::Request { error } => write!(f, "the request can't be written: {error}"),
            Self::Http(answer) => answer.fmt(f),
            Self::Subprotocol(SubProtocolError::NoSubProtocol) => {
                write!(
                    f,
                    "the CSMS doesn't offer OCPP 1.6J: it accepted no subprotocol, {SUBPROTOCOL} was asked for"
                )
            }
            Self::Subprotocol(_) => {
                write!(f, "the CSMS doesn't offer OCPP 1.6J: it chose another subprotocol than {SUBPROTOCOL}")
            }
            Self::Extension => f.write_str("the CSMS chose a WebSocket extension, and none was asked for"),
            Self::Handshake { error } => f.write_str(&explain_handshake(error)),
        }
    }
}

fn explain_handshake(error: &Error) -> Cow<'static, str> {
    match error {
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            "the CSMS closed the connection in the WebSocket handshake".into()
        }
        Error::Protocol(ProtocolError::HttparseError(error)) => {
            format!("the CSMS doesn't speak HTTP on this port: {error}").into()
        }
        Error::Protocol(ProtocolError::SecWebSocketAcceptKeyMismatch) => {
            "the CSMS answered the WebSocket handshake with the wrong key: a cache in between answers for it?"
                .into()
        }
        Error::AttackAttempt => {
            "the CSMS's answer to the WebSocket handshake has no end, or comes in tiny pieces".into()
        }
        Error::Capacity(_) => "the CSMS's answer to the WebSocket handshake has too many headers".into(),
        Error::Io(error) => format!("the connection broke in the WebSocket handshake: {error}").into(),
        error => format!("the WebSocket handshake failed: {error}").into(),
    }
}

// === impl HttpAnswer ===

impl HttpAnswer {
    /// The status, which isn't 101.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    fn new(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let location = text(LOCATION).map(|url| url.chars().take(MAX_QUOTED_CHARS).collect());
        let retry_after = match status {
            429 | 503 => text(RETRY_AFTER).and_then(|value| parse_retry_after(value, text(DATE))),
            _ => None,
        };
        Self { status, retry_after, location }
    }
}

/// Parses `Retry-After` (RFC 9110 §10.2.3): seconds, or a date. Our clock may be anywhere, so a date is held against
/// that of the answer itself, and means nothing without one.
fn parse_retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let (until, now) =
            (DateTime::parse_from_rfc2822(value).ok()?, DateTime::parse_from_rfc2822(date?).ok()?);
        (until - now).to_std().ok()?
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

impl fmt::Display for HttpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.status {
            401 => "the CSMS refused the credentials",
            403 => "the CSMS refuses this charge point",
            404 => "unknown charge point: the CSMS doesn't know the identity, or the path",
            429 => "the CSMS has too many requests",
            300..=399 => "the CSMS redirects elsewhere, which OCPP doesn't follow",
            502..=504 => "the CSMS isn't available",
            500..=599 => "the CSMS failed",
            _ => "the CSMS refused the WebSocket",
        };
        write!(f, "{meaning} (HTTP {}", self.status)?;
        if let (300..=399, Some(location)) = (self.status, &self.location) {
            write!(f, ", to {location:?}")?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, ", to be asked again in {} s", wait.as_secs())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use tokio_tungstenite::tungstenite::http::HeaderMap;

    use super::{ConnectError, HttpAnswer, parse_retry_after};
    use crate::limits::MAX_RETRY_AFTER;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> HttpAnswer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        HttpAnswer::new(status, &map)
    }

    #[test]
    fn errors_name_the_step_and_the_peer() {
        let error = io::Error::other("no such name");
        let dns = ConnectError::Dns { host: "csms.example.com".to_owned(), error };
        assert_eq!(dns.to_string(), "DNS: csms.example.com can't be resolved: no such name");
        let timeout = ConnectError::Timeout {
            step: "TCP",
            peer: "192.0.2.1:443".to_owned(),
            after: Duration::from_secs(10),
        };
        assert_eq!(timeout.to_string(), "TCP: no answer from 192.0.2.1:443 in 10 s");
    }

    #[test]
    fn statuses_are_told_apart() {
        let words = |status| answer(status, &[]).to_string().split(" (").next().unwrap().to_owned();
        assert_eq!(answer(401, &[]).to_string(), "the CSMS refused the credentials (HTTP 401)");
        assert!(words(404).starts_with("unknown charge point"));
        for (one, other) in [(401, 403), (404, 400), (429, 503), (503, 500), (301, 400), (200, 503)] {
            assert_ne!(words(one), words(other));
        }
    }

    #[test]
    fn a_redirect_says_where_to_and_no_more_than_fits() {
        let long = format!("https://elsewhere.example/{}", "x".repeat(5000));
        let text = answer(302, &[("location", &long)]).to_string();
        assert!(text.contains("(HTTP 302, to \"https://elsewhere.example/xxx") && text.len() < 200, "{text}");
        assert_eq!(answer(404, &[("location", &long)]).location.as_ref().map(String::len), Some(80));
        assert!(!answer(404, &[("location", &long)]).to_string().contains("elsewhere"));
    }

    #[test]
    fn only_429_and_503_make_us_wait_and_never_longer_than_an_hour() {
        for (status, value, expected) in [
            (429, "120", Some(120)),
            (503, "120", Some(120)),
            (503, "0", Some(0)),
            (500, "120", None),
            (401, "120", None),
            (503, "999999999", Some(MAX_RETRY_AFTER.as_secs())),
            (503, "99999999999999999999999999", Some(MAX_RETRY_AFTER.as_secs())),
            (503, "-1", None),
            (503, "soon", None),
        ] {
            let found = answer(status, &[("retry-after", value)]);
            assert_eq!(found.retry_after, expected.map(Duration::from_secs), "{status} {value}");
        }
        let shown = answer(503, &[("retry-after", "120")]).to_string();
        assert_eq!(shown, "the CSMS isn't available (HTTP 503, to be asked again in 120 s)");
    }

    #[test]
    fn a_date_is_held_against_the_answers_own() {
        let until = "Sun, 06 Nov 1994 08:49:37 GMT";
        let wait = |date| parse_retry_after(until, date).map(|wait| wait.as_secs());
        assert_eq!(wait(Some("Sun, 06 Nov 1994 08:48:07 GMT")), Some(90));
        assert_eq!(wait(Some("Sun, 06 Nov 1994 08:50:00 GMT")), None);
        assert_eq!(wait(None), None);
    }
}
