//! The CSMS's URL.

use std::{fmt, net::IpAddr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What may stand in a path segment as it is (RFC 3986 §2.3); everything else is percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The longest URL: what servers commonly take as a request line.
const MAX_URL_BYTES: usize = 2000;

/// A `ws://` or `wss://` URL of a CSMS, without user info and fragment, and without the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    tls: bool,
    host: Host,
    port: u16,
    /// From the end of the authority to the query: empty, or with a leading `/`.
    path: String,
    /// With its leading `?`, or empty.
    query: String,
}

/// The host of a [`Url`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    Ip(IpAddr),
}

/// Why a text isn't a [`Url`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlError {
    /// It has more than 2000 bytes.
    TooLong,
    /// It doesn't start with `ws://` or `wss://`.
    Scheme(String),
    /// It holds something that no URL holds: white space, a control or non-ASCII character, a quote, …
    Character(char),
    /// It holds a user name or password.
    UserInfo,
    /// It holds a fragment.
    Fragment,
    /// Its host is empty or malformed.
    Host(String),
    /// Its port isn't 1 to 65535.
    Port(String),
}

// === impl Url ===

impl Url {
    /// Parses a URL.
    ///
    /// # Errors
    /// If it isn't a `ws://` or `wss://` URL without user info and fragment.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        if let Some(character) = text.chars().find(|&c| !c.is_ascii_graphic() || r#""<>\^`{|}"#.contains(c)) {
            return Err(UrlError::Character(character));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| UrlError::Scheme(text.to_owned()))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return Err(UrlError::Scheme(scheme.to_owned())),
        };
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
        let (host, port) = split_port(authority);
        let port = match port {
            None | Some("") => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => parse_port(port)?,
        };
        Ok(Self {
            text: text.to_owned(),
            tls,
            host: Host::parse(host)?,
            port,
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// Whether it is a `wss://` URL.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The same URL with `wss://`. A port that is written stays; the default port becomes that of `wss://`.
    #[must_use]
    pub fn with_tls(&self) -> Self {
        if self.tls {
            return self.clone();
        }
        // The scheme was checked when the URL was parsed.
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        let (authority, _) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let port = match split_port(authority).1 {
            None | Some("") => 443,
            Some(_) => self.port,
        };
        Self { text: format!("wss://{rest}"), tls: true, port, ..self.clone() }
    }

    /// The host: a name in lower case, or an address without brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Ip(address) => address.to_string(),
        }
    }

    /// The host where it is an address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(address) => Some(address),
            Host::Name(_) => None,
        }
    }

    /// The port, the scheme's default included.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as a proxy is asked for them: an IPv6 address in brackets, the port always there.
    pub(crate) fn authority(&self) -> String {
        match &self.host {
            Host::Ip(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host(), self.port),
        }
    }

    /// The URL that a charge point of this identity connects to.
    pub(crate) fn with_identity(&self, identity: &str) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        let host = match &self.host {
            Host::Ip(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host(),
        };
        let default_port = if self.tls { 443 } else { 80 };
        let port = if self.port == default_port { String::new() } else { format!(":{}", self.port) };
        let path = self.path.strip_suffix('/').unwrap_or(&self.path);
        let identity = utf8_percent_encode(identity, SEGMENT);
        format!("{scheme}://{host}{port}{path}/{identity}{}", self.query)
    }
}

/// Splits `host[:port]`, `[v6][:port]`.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_brackets = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None if authority.starts_with('[') => return (authority, None),
        None => 0,
    };
    match authority.get(after_brackets..).and_then(|tail| tail.find(':')) {
        Some(colon) => {
            let (host, port) = authority.split_at(after_brackets + colon);
            (host, port.get(1..))
        }
        None => (authority, None),
    }
}

fn parse_port(text: &str) -> Result<u16, UrlError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(UrlError::Port(text.to_owned())),
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

// === impl Host ===

impl Host {
    fn parse(text: &str) -> Result<Self, UrlError> {
        let error = || UrlError::Host(text.to_owned());
        if let Some(bracketed) = text.strip_prefix('[') {
            let address = bracketed.strip_suffix(']').ok_or_else(error)?;
            return address.parse().map(|address| Self::Ip(IpAddr::V6(address))).map_err(|_| error());
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(IpAddr::V4(address)));
        }
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let labels = text.strip_suffix('.').unwrap_or(text);
        let numeric =
            labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if labels.len() > 253 || numeric || !labels.split('.').all(is_label) {
            return Err(error());
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

// === impl UrlError ===

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the URL has more than {MAX_URL_BYTES} bytes"),
            Self::Scheme(scheme) => write!(f, "the URL starts with {scheme:?} instead of ws:// or wss://"),
            Self::Character(character) => write!(f, "the URL holds {character:?}"),
            Self::UserInfo => f.write_str("the URL holds a user name or password"),
            Self::Fragment => f.write_str("the URL holds a fragment, \"#\""),
            Self::Host(host) => write!(f, "the URL's host {host:?} is neither a name nor an address"),
            Self::Port(port) => write!(f, "the URL's port {port:?} isn't 1 to 65535"),
        }
    }
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Url, UrlError};

    fn with_identity(url: &str, identity: &str) -> String {
        Url::parse(url).unwrap().with_identity(identity)
    }

    #[test]
    fn with_tls_only_the_scheme_and_its_default_port_change() {
        for (plain, tls) in [
            ("ws://csms/ocpp", "wss://csms/ocpp"),
            ("WS://csms:/ocpp?a=b", "wss://csms:/ocpp?a=b"),
            ("ws://csms:80", "wss://csms:80"),
            ("ws://[::1]:9000/ocpp/", "wss://[::1]:9000/ocpp/"),
            ("ws://[::1]", "wss://[::1]"),
            ("wss://csms:8443/ocpp", "wss://csms:8443/ocpp"),
        ] {
            let changed = Url::parse(plain).unwrap().with_tls();
            assert_eq!(changed, Url::parse(tls).unwrap(), "{plain}");
        }
    }

    #[test]
    fn identity_is_one_encoded_segment() {
        // OCPP-J 1.6 §3.1.1
        assert_eq!(
            with_identity("ws://csms.example.com/ocpp", "RDAM 123"),
            "ws://csms.example.com/ocpp/RDAM%20123"
        );
        assert_eq!(with_identity("ws://h/ocpp/", "CP/1?#%ä"), "ws://h/ocpp/CP%2F1%3F%23%25%C3%A4");
        assert_eq!(with_identity("ws://h", "CP"), "ws://h/CP");
        assert_eq!(with_identity("ws://h/", "CP"), "ws://h/CP");
        assert_eq!(with_identity("ws://h/a?b=c", "CP"), "ws://h/a/CP?b=c");
        assert_eq!(with_identity("ws://h?b=c/d", "CP"), "ws://h/CP?b=c/d");
        assert_eq!(with_identity("ws://h/a-b_c.d~e", "a-b_c.d~e"), "ws://h/a-b_c.d~e/a-b_c.d~e");
    }

    #[test]
    fn parts_are_read() {
        for (text, tls, host, port) in [
            ("ws://h", false, "h", 80),
            ("WSS://Csms.Example.COM./x", true, "csms.example.com.", 443),
            ("wss://h:8443/x", true, "h", 8443),
            ("ws://h:/x", false, "h", 80),
            ("ws://127.0.0.1:9000", false, "127.0.0.1", 9000),
            ("ws://[::1]:9000/x", false, "::1", 9000),
            ("wss://[2001:DB8::1]", true, "2001:db8::1", 443),
            ("ws://my_host/x:y@z", false, "my_host", 80),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.is_tls(), url.host().as_str(), url.port()), (tls, host, port), "{text}");
            assert_eq!(url.to_string(), text);
        }
        assert_eq!(with_identity("ws://[::1]:9000/x", "CP"), "ws://[::1]:9000/x/CP");
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        let error = |text: &str| Url::parse(text).unwrap_err();
        for text in ["http://h", "h/x", "", "://h", "ws:/h"] {
            assert!(matches!(error(text), UrlError::Scheme(_)), "{text}");
        }
        for text in ["ws://user@h", "ws://user:pass@h/x", "ws://@h"] {
            assert_eq!(error(text), UrlError::UserInfo, "{text}");
        }
        for text in ["ws://h#f", "ws://h/x#"] {
            assert_eq!(error(text), UrlError::Fragment, "{text}");
        }
        for text in ["ws://h x", "ws://h/\n", "ws://h/ä", "ws://h/\"", "ws://h/<", " ws://h", "ws://h\\x"] {
            assert!(matches!(error(text), UrlError::Character(_)), "{text}");
        }
        for text in [
            "ws://",
            "ws:///x",
            "ws://:80",
            "ws://a..b",
            "ws://[::1",
            "ws://[1.2.3.4]",
            "ws://1.2.3",
            "ws://a%20b",
        ] {
            assert!(matches!(error(text), UrlError::Host(_)), "{text}");
        }
        for text in ["ws://h:0", "ws://h:65536", "ws://h:+80", "ws://h:80a", "ws://h:8:0"] {
            assert!(matches!(error(text), UrlError::Port(_)), "{text}: {:?}", error(text));
        }
        assert_eq!(error(&format!("ws://h/{}", "x".repeat(2000))), UrlError::TooLong);
    }

    proptest! {
        #[test]
        fn anything_is_parsed_without_panic(text in ".*", rest in "[a-z0-9:@/?#.\\[\\]%-]{0,30}") {
            let _ = Url::parse(&text);
            let _ = Url::parse(&format!("ws://{rest}"));
        }

        #[test]
        fn identity_never_leaves_its_segment(identity in ".{1,48}") {
            let url = with_identity("ws://h:1/p", &identity);
            let segment = url.strip_prefix("ws://h:1/p/").unwrap();
            prop_assert!(segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            prop_assert_eq!(percent_encoding::percent_decode_str(segment).decode_utf8().unwrap(), identity);
        }
    }
}
