//! The CSMS's URL.

use std::fmt;

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
    Ip(std::net::IpAddr),
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

    /// The host: a name in lower case, or an address without brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Ip(address) => address.to_string(),
        }
    }

    /// The port, the scheme's default included.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL that a charge point of this identity connects to.
    pub(crate) fn with_identity(&self, identity: &str) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        let host = match &self.host {
            Host::Ip(std::net::IpAddr::V6(address)) => format!("[{address}]"),
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
    let after_brackets = authority.rfind(']').map_or(0, |bracket| bracket + 1);
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
            return address
                .parse()
                .map(|address| Self::Ip(std::net::IpAddr::V6(address)))
                .map_err(|_| error());
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(std::net::IpAddr::V4(address)));
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
