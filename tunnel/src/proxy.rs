//! The way out through an HTTP proxy: `CONNECT` (RFC 9110, 9.3.6).
//!
//! The proxy resolves the server's name and passes bytes on; it sees SSH, of which it can read nothing. Our own link to
//! it is plain TCP, so that its password is only as safe as the site's network.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::destination::{Host, parse_port, split_host};
use crate::failure::{Failure, FailureKind, os_words};
use crate::limits::{PROXY_ANSWER_BYTES, PROXY_CREDENTIALS_BYTES, PROXY_HEADERS};

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: Host,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
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

impl Proxy {
    /// The proxy's host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
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
        let sound = credentials.len() <= PROXY_CREDENTIALS_BYTES
            && !credentials.chars().any(char::is_control)
            && credentials.split_once(':').is_some_and(|(user, _)| !user.is_empty());
        if !sound {
            return Err(ProxyError::NotUserPassword);
        }
        let authorization = format!("Basic {}", BASE64.encode(credentials.as_bytes()));
        Ok(Self { authorization: Some(authorization), ..self })
    }

    /// Asks for a connection to `host:port`. What the server said right behind the proxy's answer comes with it.
    pub(crate) async fn connect(
        &self,
        mut stream: TcpStream,
        host: &Host,
        port: u16,
    ) -> Result<(TcpStream, Vec<u8>), Failure> {
        stream.write_all(self.request(host, port).as_bytes()).await.map_err(|error| self.broken(&error))?;
        let mut answer = Vec::new();
        loop {
            if let Some(end) = self.judge(&answer, host, port)? {
                let early = answer.split_off(end);
                return Ok((stream, early));
            }
            if answer.len() >= PROXY_ANSWER_BYTES {
                let what = format!("answers with more than {PROXY_ANSWER_BYTES} bytes of header");
                return Err(self.failure(FailureKind::Proxy, &what));
            }
            let room = PROXY_ANSWER_BYTES - answer.len();
            let read = (&mut stream).take(room as u64).read_buf(&mut answer).await;
            if read.map_err(|error| self.broken(&error))? == 0 {
                return Err(self.failure(FailureKind::Proxy, "closed the connection without an answer"));
            }
        }
    }

    /// The host is a [`Host`], which can't hold anything that ends a line.
    fn request(&self, host: &Host, port: u16) -> String {
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
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
    fn judge(&self, answer: &[u8], host: &Host, port: u16) -> Result<Option<usize>, Failure> {
        let mut start = 0;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; PROXY_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(answer.get(start..).unwrap_or_default());
            let length = match parsed {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) => return Ok(None),
                Err(error) => {
                    let what = format!("doesn't answer as an HTTP proxy: {error}");
                    return Err(self.failure(FailureKind::Proxy, &what));
                }
            };
            start += length;
            match response.code.unwrap_or_default() {
                100 | 102..=199 => {}
                200..=299 => return Ok(Some(start)),
                code => return Err(self.refusal(code, response.headers, host, port)),
            }
        }
    }

    fn refusal(&self, code: u16, headers: &[httparse::Header<'_>], host: &Host, port: u16) -> Failure {
        let what = match (code, &self.authorization) {
            (407, None) => format!("wants to know who asks (407{})", schemes(headers)),
            (407, Some(_)) => format!("doesn't take our user and password (407{})", schemes(headers)),
            (403, _) => format!("forbids connections to {host}:{port} (403)"),
            (405 | 501, _) => format!("takes no CONNECT ({code})"),
            (502..=504, _) => format!("can't reach {host}:{port} ({code})"),
            _ => format!("refuses to connect to {host}:{port} ({code})"),
        };
        let kind = if code == 407 { FailureKind::ProxyAuth } else { FailureKind::Proxy };
        self.failure(kind, &what)
    }

    fn broken(&self, error: &std::io::Error) -> Failure {
        self.failure(FailureKind::Proxy, &format!("broke the connection off: {}", os_words(error)))
    }

    fn failure(&self, kind: FailureKind, what: &str) -> Failure {
        Failure::new(kind, format!("the proxy {self} {what}"))
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

impl FromStr for Proxy {
    type Err = ProxyError;

    /// Parses `http://host:port`, with a slash behind it or without.
    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let url = || ProxyError::Url(text.to_owned());
        if text.contains('@') {
            // The text isn't quoted: it may hold the password.
            return Err(ProxyError::Credentials);
        }
        let rest = text.strip_prefix("http://").ok_or_else(url)?;
        let (host, port) = split_host(rest.strip_suffix('/').unwrap_or(rest));
        let port = port.strip_prefix(':').and_then(parse_port).ok_or_else(url)?;
        let host = host.parse().map_err(|_| url())?;
        Ok(Self { host, port, authorization: None })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
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
            Self::NotUserPassword => write!(
                f,
                "it does not hold one line user:password of at most {PROXY_CREDENTIALS_BYTES} bytes"
            ),
        }
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
