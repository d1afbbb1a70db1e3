//! The controller's side of the handshake: its request is read, judged and passed on before it is answered, which no
//! WebSocket library does. What WebSocket itself wants of a request, tungstenite checks.

use std::{fmt, io, time::Duration};

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{
    handshake::server::create_response,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
        header::{
            AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, RETRY_AFTER,
            SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TE,
            TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
        },
    },
};

use crate::limits::{MAX_QUOTED_CHARS, MAX_REQUEST_BYTES, MAX_REQUEST_HEADERS};

/// What a controller wants, and what it has sent behind its request.
#[derive(Debug)]
pub(super) struct Knock {
    request: Request<()>,
    /// Bytes that belong to the WebSocket already.
    pub(super) early: Vec<u8>,
}

/// Why a request can't be read.
#[derive(Debug)]
pub(super) enum KnockError {
    /// The connection broke or ended.
    Io(io::Error),
    /// It isn't HTTP, or more of it than we take.
    Malformed(&'static str),
}

/// Fields that are between two neighbours only (RFC 9110 §7.6.1), or that the WebSocket to the CSMS has of its own.
static OURS: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    // Never a controller's to send; a CSMS could take it for its own.
    WWW_AUTHENTICATE,
];

// === impl Knock ===

impl Knock {
    /// Reads a request.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, KnockError> {
        let mut bytes = Vec::new();
        loop {
            if let Some(knock) = Self::parse(&bytes)? {
                return Ok(knock);
            }
            if bytes.len() >= MAX_REQUEST_BYTES {
                return Err(KnockError::Malformed("the request is too long"));
            }
            let mut part = [0; 1024];
            match stream.read(&mut part).await.map_err(KnockError::Io)? {
                0 => return Err(KnockError::Io(io::ErrorKind::UnexpectedEof.into())),
                read => bytes.extend_from_slice(part.get(..read).unwrap_or_default()),
            }
        }
    }

    /// `None`: there is more to come.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, KnockError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_REQUEST_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let length = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(KnockError::Malformed("the request has too many header fields"));
            }
            Err(_) => return Err(KnockError::Malformed("the request isn't HTTP")),
        };
        let malformed = || KnockError::Malformed("the request isn't HTTP");
        let mut request = Request::new(());
        let method = parsed.method.unwrap_or_default().as_bytes();
        *request.method_mut() = Method::from_bytes(method).map_err(|_| malformed())?;
        *request.uri_mut() = parsed.path.unwrap_or_default().parse::<Uri>().map_err(|_| malformed())?;
        *request.version_mut() = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        for header in parsed.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| malformed())?;
            let mut value = HeaderValue::from_bytes(header.value).map_err(|_| malformed())?;
            value.set_sensitive(name == AUTHORIZATION);
            request.headers_mut().append(name, value);
        }
        let early = bytes.get(length..).unwrap_or_default().to_vec();
        Ok(Some(Self { request, early }))
    }

    /// Who the controller says it is: the path is its identity, percent-encoded, and nothing else (OCPP-J 1.6 §3.1.1).
    pub(super) fn identity(&self) -> Option<String> {
        let segment = self.request.uri().path().strip_prefix('/')?;
        if segment.is_empty() || segment.contains('/') {
            return None;
        }
        percent_decode_str(segment).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    }

    /// The path, for people: as much as tells what is wrong with it.
    pub(super) fn path(&self) -> String {
        self.request.uri().path().chars().take(MAX_QUOTED_CHARS).collect()
    }

    /// What it shows to be let in.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.request.headers().get(AUTHORIZATION)
    }

    /// The header fields that the CSMS is to see, subprotocols and credentials included.
    pub(super) fn passed_on(&self) -> HeaderMap {
        let headers = self.request.headers();
        // What `Connection` names is for us as well.
        let named: Vec<String> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
            .collect();
        let mut passed = HeaderMap::new();
        for (name, value) in headers {
            if name != SEC_WEBSOCKET_PROTOCOL
                && !OURS.contains(name)
                && !named.iter().any(|other| other == name.as_str())
            {
                passed.append(name.clone(), value.clone());
            }
        }
        // One list, however many fields it came in (RFC 6455 §11.3.4): tungstenite reads the first.
        let offers: Vec<&[u8]> =
            headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().map(HeaderValue::as_bytes).collect();
        if !offers.is_empty()
            && let Ok(list) = HeaderValue::from_bytes(&offers.join(&b", "[..]))
        {
            passed.insert(SEC_WEBSOCKET_PROTOCOL, list);
        }
        passed
    }

    /// The answer that makes the connection a WebSocket, with the subprotocol that the CSMS chose. Also says whether the
    /// request may become one at all.
    pub(super) fn acceptance(&self, subprotocol: Option<&HeaderValue>) -> Result<Vec<u8>, &'static str> {
        let mut response = create_response(&self.request).map_err(|_| "the request is for no WebSocket")?;
        if let Some(subprotocol) = subprotocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol.clone());
        }
        Ok(written(&response))
    }
}

/// Refuses a request, and ends the connection.
///
/// `retry_after` is what the CSMS has asked for.
pub(super) async fn refuse(
    stream: &mut (impl AsyncWrite + Unpin),
    status: StatusCode,
    retry_after: Option<Duration>,
) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(wait) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"OCPP\""));
    }
    // If it fails, there is nobody left to be told.
    let _ = stream.write_all(&written(&response)).await;
    let _ = stream.shutdown().await;
}

/// The answer, its fields' names in the form in which they usually are written: some old controllers look for no other.
fn written(response: &Response<()>) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(usual_form(name).as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn usual_form(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| match word {
        "websocket" => "WebSocket".to_owned(),
        "www" => "WWW".to_owned(),
        word => word.get(..1).unwrap_or_default().to_ascii_uppercase() + word.get(1..).unwrap_or_default(),
    });
    words.collect::<Vec<_>>().join("-")
}

// === impl KnockError ===

impl fmt::Display for KnockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection ended before the request: {error}"),
            Self::Malformed(reason) => f.write_str(reason),
        }
    }
}

/// What must hold for a request, whatever it is: what is passed on is no neighbour's, and an answer is one answer.
#[cfg(any(test, fuzzing))]
pub(super) fn hold(bytes: &[u8]) {
    let Ok(Some(knock)) = Knock::parse(bytes) else { return };
    assert!(bytes.ends_with(&knock.early));
    assert!(knock.identity().is_none_or(|identity| !identity.is_empty()));
    let passed = knock.passed_on();
    assert!(OURS.iter().all(|name| !passed.contains_key(name)));
    assert!(passed.get_all(SEC_WEBSOCKET_PROTOCOL).iter().count() <= 1);
    if let Ok(answer) = knock.acceptance(passed.get(SEC_WEBSOCKET_PROTOCOL)) {
        assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
        let ends = answer.windows(4).filter(|window| window == b"\r\n\r\n").count();
        assert_eq!(ends, 1, "{answer:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /CP%2001 HTTP/1.1\r\nHost: 127.0.0.1:8887\r\nConnection: keep-alive, Upgrade, X-Hop\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: ocpp1.6, ocpp2.0.1\r\nAuthorization: Basic Q1A6a2V5\r\nX-Hop: 1\r\nX-Vendor: a\r\n\
        X-Vendor: b\r\n\r\n";

    async fn knock(text: &str) -> Result<Knock, KnockError> {
        Knock::read(&mut text.as_bytes()).await
    }

    #[tokio::test]
    async fn a_request_is_read_in_whatever_pieces_it_comes() {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let write = async {
            for piece in REQUEST.as_bytes().chunks(7) {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            theirs.write_all(b"early").await.unwrap();
        };
        let (knock, ()) = tokio::join!(Knock::read(&mut ours), write);
        let knock = knock.unwrap();
        assert_eq!(knock.identity().as_deref(), Some("CP 01"));
        assert_eq!(knock.authorization().unwrap(), "Basic Q1A6a2V5");
        let mut rest = knock.early;
        drop(theirs);
        ours.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"early");
    }

    #[tokio::test]
    async fn what_is_between_neighbours_is_not_passed_on() {
        let passed = knock(REQUEST).await.unwrap().passed_on();
        let names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization", "x-vendor", "sec-websocket-protocol"]);
        assert_eq!(passed.get_all("x-vendor").iter().count(), 2);
    }

    #[tokio::test]
    async fn subprotocols_are_one_list() {
        let text = REQUEST.replace("Authorization:", "Sec-WebSocket-Protocol: ocpp2.1\r\nAuthorization:");
        let passed = knock(&text).await.unwrap().passed_on();
        let offered: Vec<_> = passed.get_all("sec-websocket-protocol").iter().collect();
        assert_eq!(offered, ["ocpp1.6, ocpp2.0.1, ocpp2.1"]);
    }

    #[tokio::test]
    async fn an_identity_is_one_segment() {
        for (path, identity) in [
            ("/CP", Some("CP")),
            ("/CP?x=1", Some("CP")),
            ("/a%2Fb", Some("a/b")),
            ("/", None),
            ("/ocpp/CP", None),
            ("/CP/", None),
            ("/%ff", None),
            ("*", None),
        ] {
            let text = REQUEST.replacen("/CP%2001", path, 1);
            assert_eq!(knock(&text).await.unwrap().identity().as_deref(), identity, "{path}");
        }
    }

    #[tokio::test]
    async fn the_answer_names_the_csmss_subprotocol() {
        let knock = knock(REQUEST).await.unwrap();
        let text =
            String::from_utf8(knock.acceptance(Some(&HeaderValue::from_static("ocpp1.6"))).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"HTTP/1.1 101 Switching Protocols"));
        for line in ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Protocol: ocpp1.6"] {
            assert!(lines.contains(&line), "{text}");
        }
        // RFC 6455 §1.3
        assert!(lines.contains(&"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
        let none = String::from_utf8(knock.acceptance(None).unwrap()).unwrap();
        assert!(!none.to_ascii_lowercase().contains("protocol:"), "{none}");
    }

    #[tokio::test]
    async fn what_is_no_websocket_is_refused() {
        let plain = knock("GET /CP HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(plain.acceptance(None).is_err());
        assert!(matches!(knock("\x16\x03\x01\x02\x00\x01\x00").await, Err(KnockError::Malformed(_))));
        assert!(matches!(knock("GET /CP HTTP/1.1\r\nHo").await, Err(KnockError::Io(_))));
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(2 * MAX_REQUEST_BYTES));
        assert!(matches!(knock(&long).await, Err(KnockError::Malformed(_))));
        let many = format!("GET /CP HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_REQUEST_HEADERS + 1));
        assert!(matches!(knock(&many).await, Err(KnockError::Malformed(_))));
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer() {
        let mut bytes = Vec::new();
        refuse(&mut bytes, StatusCode::UNAUTHORIZED, Some(Duration::from_secs(7))).await;
        let text = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
        assert!(text.contains("retry-after: 7\r\n"), "{text}");
        assert!(text.starts_with("http/1.1 401 ") && text.contains("www-authenticate: basic"), "{text}");
    }
}
