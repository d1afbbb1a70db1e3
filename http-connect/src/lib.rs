//! The way out through an HTTP proxy: `CONNECT` (RFC 9110, 9.3.6).
//!
//! The proxy resolves the server's name and passes bytes on; what it passes is SSH or TLS, of which it can read nothing. Our
//! own link to it is plain TCP, so that its password is only as safe as the site's network. Timeouts are the caller's.
#![forbid(unsafe_code)]

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a proxy's answer to `CONNECT`: what web servers take as a header.
pub const ANSWER_BYTES: usize = 8 * 1024;
/// Header fields of such an answer.
pub const ANSWER_HEADERS: usize = 64;
/// Bytes of `user:password` for a proxy.
pub const CREDENTIALS_BYTES: usize = 512;
/// Bytes of a proxy's host name (RFC 1035, 2.3.4).
pub const HOST_BYTES: usize = 253;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: Host,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

/// The host part of a proxy's URL.
#[derive(Clone, PartialEq, Eq)]
enum Host {
    /// In lower case.
    Name(Box<str>),
    Ip(IpAddr),
}

/// Why a text is no proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// Not `http://host:port`.
    Url(String),
    /// A user or a password in the URL.
    Credentials,
    /// Not `user:password` (RFC 7617, 2).
    NotUserPassword,
}

/// Why the proxy doesn't connect us. Each text names the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// It wants a user and password, or others than ours.
    Unauthorized(String),
    /// It has decided against it.
    Refused(String),
    /// It doesn't answer as a proxy, or stopped in the middle.
    Broken(String),
}

impl Proxy {
    /// The proxy's host: a name in lower case, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.to_string(),
            Host::Ip(address) => address.to_string(),
        }
    }

    /// The proxy's host where it is an address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(address) => Some(address),
            Host::Name(_) => None,
        }
    }

    /// The proxy's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same proxy, told with `user:password` who asks (Basic authentication, RFC 7617).
    ///
    /// # Errors
    /// [`ProxyError::NotUserPassword`].
    pub fn with_credentials(self, credentials: &str) -> Result<Self, ProxyError> {
        let sound = credentials.len() <= CREDENTIALS_BYTES
            && !credentials.chars().any(char::is_control)
            && credentials.split_once(':').is_some_and(|(user, _)| !user.is_empty());
        if !sound {
            return Err(ProxyError::NotUserPassword);
        }
        let authorization = format!("Basic {}", BASE64.encode(credentials.as_bytes()));
        Ok(Self { authorization: Some(authorization), ..self })
    }

    /// Asks on a fresh connection to the proxy for one to `server`, which is `host:port` with an IPv6 address in
    /// brackets. What the server said right behind the proxy's answer comes back.
    ///
    /// # Errors
    /// See [`ConnectError`]; `server` may hold nothing but visible ASCII.
    pub async fn connect<S>(&self, stream: &mut S, server: &str) -> Result<Vec<u8>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Anything else could end the line that it stands in.
        if !server.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.refused(&format!("can't be asked for {server:?}")));
        }
        stream.write_all(self.request(server).as_bytes()).await.map_err(|error| self.cut(&error))?;
        stream.flush().await.map_err(|error| self.cut(&error))?;
        let mut answer = Vec::new();
        loop {
            if let Some(end) = self.judge(&answer, server)? {
                return Ok(answer.split_off(end));
            }
            if answer.len() >= ANSWER_BYTES {
                return Err(self.broken(&format!("answers with more than {ANSWER_BYTES} bytes of header")));
            }
            let room = ANSWER_BYTES - answer.len();
            let read = (&mut *stream).take(room as u64).read_buf(&mut answer).await;
            if read.map_err(|error| self.cut(&error))? == 0 {
                return Err(self.broken("closed the connection without an answer"));
            }
        }
    }

    fn request(&self, server: &str) -> String {
        let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request
    }

    /// Where the header of a good answer ends; `None` while it isn't complete. The body that a successful answer's
    /// fields may promise doesn't exist (RFC 9110, 9.3.6), and 1xx answers come before the real one (15.2).
    fn judge(&self, answer: &[u8], server: &str) -> Result<Option<usize>, ConnectError> {
        let mut start = 0;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; ANSWER_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(answer.get(start..).unwrap_or_default());
            let length = match parsed {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) => return Ok(None),
                Err(error) => return Err(self.broken(&format!("doesn't answer as an HTTP proxy: {error}"))),
            };
            start += length;
            match response.code.unwrap_or_default() {
                100 | 102..=199 => {}
                200..=299 => return Ok(Some(start)),
                code => return Err(self.refusal(code, response.headers, server)),
            }
        }
    }

    fn refusal(&self, code: u16, headers: &[httparse::Header<'_>], server: &str) -> ConnectError {
        let what = match (code, &self.authorization) {
            (407, None) => format!("wants to know who asks (407{})", schemes(headers)),
            (407, Some(_)) => format!("doesn't take our user and password (407{})", schemes(headers)),
            (403, _) => format!("forbids connections to {server} (403)"),
            (405 | 501, _) => format!("takes no CONNECT ({code})"),
            (502..=504, _) => format!("can't reach {server} ({code})"),
            _ => format!("refuses to connect to {server} ({code})"),
        };
        match code {
            407 => ConnectError::Unauthorized(format!("the proxy {self} {what}")),
            _ => self.refused(&what),
        }
    }

    fn refused(&self, what: &str) -> ConnectError {
        ConnectError::Refused(format!("the proxy {self} {what}"))
    }

    fn broken(&self, what: &str) -> ConnectError {
        ConnectError::Broken(format!("the proxy {self} {what}"))
    }

    fn cut(&self, error: &io::Error) -> ConnectError {
        // Without the number that the standard library appends.
        let text = error.to_string();
        let words = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
        self.broken(&format!("broke the connection off: {words}"))
    }
}

/// The authentication schemes that the proxy knows, where ours isn't among them.
fn schemes(headers: &[httparse::Header<'_>]) -> String {
    let named = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Proxy-Authenticate"));
    let schemes: Vec<&str> = named
        .filter_map(|header| std::str::from_utf8(header.value).ok()?.split([' ', ',']).next())
        .filter(|scheme| scheme.len() <= 20 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        .take(4)
        .collect();
    let knows_ours = schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("Basic"));
    if schemes.is_empty() || knows_ours {
        return String::new();
    }
    format!(", by {}; only Basic is known here", schemes.join(" or "))
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(inside) = text.strip_prefix('[') {
            let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Ip(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Ip(address.into()));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let named = text.len() <= HOST_BYTES && text.bytes().all(allowed);
        let labels = text.split('.').all(|label| !label.is_empty());
        // A resolver takes `127.1` and `0x7f.1` for addresses.
        let last = text.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
        (named && labels && !number).then(|| Self::Name(text.to_ascii_lowercase().into()))
    }
}

impl FromStr for Proxy {
    type Err = ProxyError;

    /// Parses `http://host:port`, with a slash behind it or without.
    fn from_str(text: &str) -> Result<Self, ProxyError> {
        if text.contains('@') {
            // The text isn't quoted: it may hold the password.
            return Err(ProxyError::Credentials);
        }
        let parsed = || {
            let rest = text.strip_prefix("http://")?;
            let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
            let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
            let port = port.parse().ok().filter(|_| digits)?;
            Some(Self { host: Host::parse(host)?, port, authorization: None })
        };
        parsed().ok_or_else(|| ProxyError::Url(text.to_owned()))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Host::Ip(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Without the credentials.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(text) => write!(f, "{text:?} is not http://host:port"),
            Self::Credentials => f.write_str("a user or password can't stand in the URL"),
            Self::NotUserPassword => {
                write!(f, "it does not hold one line user:password of at most {CREDENTIALS_BYTES} bytes")
            }
        }
    }
}

impl std::error::Error for ProxyError {}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized(text) | Self::Refused(text) | Self::Broken(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests;
