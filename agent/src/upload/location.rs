//! Where an upload goes: an `http://` or `https://` URL (RFC 3986, RFC 9110, 4.2), parsed once and strictly.
//!
//! The CSMS chooses it, so nothing here is trusted. Query strings and user info are secrets of a server's (presigned URLs carry
//! their signature there): neither `Debug` nor `Display` nor an error shows more than the scheme, the host and the port.

use std::fmt;

use data_encoding::BASE64;
use percent_encoding::percent_decode_str;
use reverse_tunnel::Host;
use reverse_tunnel::destination::{parse_port, split_host};

use crate::limits::UPLOAD_URL_BYTES;

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// A place on an HTTP server.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    scheme: Scheme,
    host: Host,
    port: u16,
    /// Empty, or with a leading `/`.
    path: String,
    /// With its leading `?`, or empty.
    query: String,
    /// The value of `Authorization`; only over TLS.
    authorization: Option<String>,
}

/// Why a text is no [`Location`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationError {
    /// More than [`UPLOAD_URL_BYTES`] bytes.
    TooLong(usize),
    /// A character that no URL holds, or a fragment.
    Character(char),
    /// No `scheme://`.
    NoScheme,
    /// A protocol that isn't spoken here.
    Scheme(String),
    /// The host is neither a name nor an address.
    Host,
    /// The port isn't 1 to 65535.
    Port,
    /// The user info isn't `user:password`.
    UserInfo,
    /// A password that would travel in the clear.
    ClearPassword,
}

// === impl Scheme ===

impl Scheme {
    /// Parses `http` or `https`, in any case.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    /// The port where none is written.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

// === impl Location ===

impl Location {
    /// Parses a URL.
    ///
    /// User info becomes Basic authentication (RFC 7617), over TLS only.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if text.len() > UPLOAD_URL_BYTES {
            return Err(LocationError::TooLong(text.len()));
        }
        // A `#` would begin a fragment, which is never sent.
        if let Some(strange) = text.chars().find(|&c| !c.is_ascii_graphic() || r##""#<>\^`{|}"##.contains(c))
        {
            return Err(LocationError::Character(strange));
        }
        let (scheme, rest) = text.split_once("://").ok_or(LocationError::NoScheme)?;
        let scheme = Scheme::parse(scheme).ok_or_else(|| other_scheme(scheme))?;
        let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user_info, host_and_port) = match authority.split_once('@') {
            Some((user_info, host_and_port)) => (Some(user_info), host_and_port),
            None => (None, authority),
        };
        let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
        let (host, port) = split_host(host_and_port);
        let port = match port {
            "" | ":" => scheme.default_port(),
            port => port.strip_prefix(':').and_then(parse_port).ok_or(LocationError::Port)?,
        };
        let authorization = match user_info {
            Some(_) if scheme == Scheme::Http => return Err(LocationError::ClearPassword),
            Some(user_info) => Some(basic(user_info)?),
            None => None,
        };
        Ok(Self {
            scheme,
            host: Host::parse(host, 1).map_err(|_| LocationError::Host)?,
            port,
            path: path.to_owned(),
            query: query.to_owned(),
            authorization,
        })
    }

    /// How the server is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The server's host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the header `Authorization`.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// The value of the header `Host` (RFC 9110, 7.2).
    pub(super) fn authority(&self) -> String {
        match self.port == self.scheme.default_port() {
            true => self.host.to_string(),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// What is asked of the server (RFC 9112, 3.2.1): the URL's path and query as they were written. A path that ends with a
    /// slash is a directory, in which the file gets this name.
    pub(super) fn target(&self, file_name: &str) -> String {
        let path = if self.path.is_empty() { "/" } else { self.path.as_str() };
        let name = if path.ends_with('/') { file_name } else { "" };
        format!("{path}{name}{}", self.query)
    }
}

/// Basic authentication's value for `user:password` as a URL holds it, percent-encoded. A user with a colon can't be sent
/// (RFC 7617, 2).
fn basic(user_info: &str) -> Result<String, LocationError> {
    let (user, password) = user_info.split_once(':').ok_or(LocationError::UserInfo)?;
    let decode = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let (user, password) = (decode(user), decode(password));
    let credentials = [user.as_slice(), password.as_slice()].join(&b':');
    if user.is_empty() || user.contains(&b':') || credentials.iter().any(u8::is_ascii_control) {
        return Err(LocationError::UserInfo);
    }
    Ok(format!("Basic {}", BASE64.encode(&credentials)))
}

/// A scheme is quoted in the log, so it is only taken for one if it looks like it (RFC 3986, 3.1).
fn other_scheme(text: &str) -> LocationError {
    let is_scheme = (1..=16).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if is_scheme { LocationError::Scheme(text.to_ascii_lowercase()) } else { LocationError::NoScheme }
}

/// Scheme, host and port: what may be logged.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl LocationError ===

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => {
                write!(f, "the URL has {length} bytes, at most {UPLOAD_URL_BYTES} are allowed")
            }
            Self::Character(c) => write!(f, "the URL holds {c:?}"),
            Self::NoScheme => f.write_str("the URL doesn't begin with https://"),
            Self::Scheme(scheme) => write!(f, "{scheme}:// isn't spoken here, only https:// and http://"),
            Self::Host => f.write_str("the URL's host is neither a name nor an address"),
            Self::Port => f.write_str("the URL's port isn't 1 to 65535"),
            Self::UserInfo => f.write_str("the URL's user info isn't user:password"),
            Self::ClearPassword => f.write_str("the URL's password would travel in the clear"),
        }
    }
}

impl std::error::Error for LocationError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn location(text: &str) -> Location {
        Location::parse(text).unwrap()
    }

    #[test]
    fn parts_are_read() {
        for (text, scheme, host, port, target) in [
            ("https://h", Scheme::Https, "h", 443, "/log.txt"),
            ("HTTPS://Logs.Example.COM/", Scheme::Https, "logs.example.com", 443, "/log.txt"),
            ("http://h:8080/put", Scheme::Http, "h", 8080, "/put"),
            ("https://h:/put/", Scheme::Https, "h", 443, "/put/log.txt"),
            ("https://[2001:DB8::1]:8443/a", Scheme::Https, "[2001:db8::1]", 8443, "/a"),
            ("https://h?sig=a/b", Scheme::Https, "h", 443, "/log.txt?sig=a/b"),
            ("https://h/d/?sig=a:b@c", Scheme::Https, "h", 443, "/d/log.txt?sig=a:b@c"),
        ] {
            let location = location(text);
            assert_eq!((location.scheme(), location.port()), (scheme, port), "{text}");
            assert_eq!(location.host().to_string(), host, "{text}");
            assert_eq!(location.target("log.txt"), target, "{text}");
        }
    }

    #[test]
    fn a_presigned_url_is_asked_for_as_it_was_written() {
        let query = "?X-Amz-Credential=A%2Feu&X-Amz-Signature=0123abcd%3D%3D&a=b+c";
        let url = format!("https://bucket.s3.example.com/logs/CP001%20x.txt{query}");
        assert_eq!(location(&url).target("log.txt"), format!("/logs/CP001%20x.txt{query}"));
    }

    #[test]
    fn secrets_are_never_shown() {
        let location = location("https://me:hunter2@h:8443/secret/path?sig=hunter3");
        assert_eq!(location.to_string(), "https://h:8443");
        assert_eq!(format!("{location:?}"), "https://h:8443");
        for text in [
            "hunter://me:hunter2@h/",
            "https://me:hunter2@h:0/",
            "https://me:hunter2@h_/",
            "https://hunter2@h/",
        ] {
            let error = Location::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn user_info_is_basic_authentication_over_tls_only() {
        // RFC 7617, 2.
        let with = location("https://Aladdin:open%20sesame@h/");
        assert_eq!(with.authorization(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(Location::parse("http://u:p@h/"), Err(LocationError::ClearPassword));
        for text in ["https://u@h", "https://:p@h", "https://@h", "https://u%0a:p@h", "https://u%3Ax:p@h"] {
            assert_eq!(Location::parse(text), Err(LocationError::UserInfo), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        let error = |text: &str| Location::parse(text).unwrap_err();
        for (text, scheme) in [
            ("ftp://u:p@h/x", "ftp"),
            ("SFTP://h", "sftp"),
            ("file:///etc/passwd", "file"),
            ("gopher://h", "gopher"),
        ] {
            assert_eq!(error(text), LocationError::Scheme(scheme.into()), "{text}");
        }
        for text in ["", "h/x", "://h", "https:/h", "a secret".split(' ').next().unwrap(), "x%y://h"] {
            assert_eq!(error(text), LocationError::NoScheme, "{text}");
        }
        for text in
            ["https://h/ x", "https://h/\r\nX: y", "https://h/\u{e9}", "https://h\\@x/", "https://h/#f"]
        {
            assert!(matches!(error(text), LocationError::Character(_)), "{text}");
        }
        for text in
            ["https://", "https:///x", "https://a..b", "https://[::1", "https://127.1", "https://0x7f.1"]
        {
            assert_eq!(error(text), LocationError::Host, "{text}");
        }
        // Which of the two hosts is meant depends on the parser, so neither is.
        assert!(Location::parse("https://a:b@allowed.example@evil.example/").is_err());
        for text in ["https://h:0", "https://h:65536", "https://h:+1", "https://h:1:2"] {
            assert_eq!(error(text), LocationError::Port, "{text}");
        }
        assert!(matches!(error(&format!("https://h/{}", "x".repeat(4000))), LocationError::TooLong(_)));
    }

    proptest! {
        #[test]
        fn anything_is_parsed_without_panic_and_no_target_splits_a_request(
            text in ".*",
            rest in "[a-z0-9:@/?.%\\[\\]\r\n -]{0,40}",
        ) {
            for text in [text, format!("https://{rest}")] {
                if let Ok(location) = Location::parse(&text) {
                    let target = location.target("f.txt");
                    prop_assert!(target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic()));
                }
            }
        }
    }
}
