//! One try to connect: name, address, TCP, TLS, WebSocket, each with its own timeout and its own words for
//! what went wrong.

use std::{fmt, io, net::SocketAddr, time::Duration};

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        client::IntoClientRequest,
        error::{Error, ProtocolError, SubProtocolError},
        handshake::client::Request,
        http::{
            HeaderValue,
            header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
        },
        protocol::WebSocketConfig,
    },
};

use super::{LinkSettings, Url};
use crate::{
    limits::{
        DNS_TIMEOUT, HANDSHAKE_TIMEOUT, MAX_ADDRESSES, MAX_MESSAGE_BYTES, MAX_WRITE_BUFFER_BYTES,
        READ_BUFFER_BYTES, TCP_CONNECT_TIMEOUT, TCP_USER_TIMEOUT, TLS_TIMEOUT,
    },
    security::{ClientAuth, LinkSecurity, TlsSettings, explain_tls_error, is_end, is_tls_error},
};

/// The WebSocket subprotocol of OCPP 1.6J (OCPP-J 1.6 §3.1.2).
const SUBPROTOCOL: &str = "ocpp1.6";

/// What a WebSocket runs on: TCP, or TLS on TCP.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

pub(super) type Socket = WebSocketStream<Box<dyn Transport>>;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The name can't be resolved.
    Dns { host: String, error: io::Error },
    /// The name has no address.
    NoAddress { host: String },
    /// TCP failed.
    Tcp { address: SocketAddr, error: io::Error },
    /// A step took too long.
    Timeout { step: &'static str, peer: String, after: Duration },
    /// The URL wants TLS, and there are no settings for it.
    NoTlsSettings,
    /// The host can't stand in a certificate.
    ServerName { host: String },
    /// TLS failed, in this step's handshake; how far our certificate had got.
    Tls { error: io::Error, step: &'static str, client_auth: ClientAuth },
    /// The URL, the identity or the credentials can't be put into a request.
    Request { error: Error },
    /// The CSMS answered with another status than 101.
    Http { status: u16 },
    /// The CSMS doesn't speak OCPP 1.6J.
    Subprotocol(SubProtocolError),
    /// Anything else in the WebSocket handshake.
    Handshake { error: Error },
}

/// Connects to a CSMS: every address of its name in turn, until one answers.
pub(super) async fn connect(
    url: &Url,
    settings: &LinkSettings,
) -> Result<(Socket, LinkSecurity), ConnectError> {
    let request = request(url, settings)?;
    let tls = match (&settings.tls, url.is_tls()) {
        (Some(tls), true) => Some(tls),
        (None, true) => return Err(ConnectError::NoTlsSettings),
        (_, false) => None,
    };
    let mut last = ConnectError::NoAddress { host: url.host() };
    for address in resolve(url).await? {
        match connect_address(url, address, tls, request.clone()).await {
            Ok((socket, client_certificate)) => {
                let credentials = settings.credentials.is_some();
                return Ok((socket, LinkSecurity { tls: tls.is_some(), credentials, client_certificate }));
            }
            Err(error) if error.is_decision() => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = url.address() {
        return Ok(vec![SocketAddr::new(address, url.port())]);
    }
    let host = url.host();
    let found = within(DNS_TIMEOUT, "DNS", &host, lookup_host((host.as_str(), url.port()))).await?;
    let mut addresses = Vec::new();
    for address in found.map_err(|error| ConnectError::Dns { host: url.host(), error })? {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The connection, and whether we proved our identity by a client certificate.
async fn connect_address(
    url: &Url,
    address: SocketAddr,
    tls: Option<&TlsSettings>,
    request: Request,
) -> Result<(Socket, bool), ConnectError> {
    let peer = address.to_string();
    let tcp = within(TCP_CONNECT_TIMEOUT, "TCP", &peer, TcpStream::connect(address))
        .await?
        .map_err(|error| ConnectError::Tcp { address, error })?;
    tune(&tcp);

    let mut client_auth = ClientAuth::NotAsked;
    let transport: Box<dyn Transport> = match tls {
        None => Box::new(tcp),
        Some(tls) => {
            let host = url.host();
            let name = ServerName::try_from(host.trim_end_matches('.').to_owned())
                .map_err(|_| ConnectError::ServerName { host })?;
            let (config, offer) = tls.config();
            let stream =
                within(TLS_TIMEOUT, "TLS", &peer, TlsConnector::from(config).connect(name, tcp)).await?;
            client_auth = offer.outcome();
            Box::new(stream.map_err(|error| ConnectError::Tls { error, step: "TLS", client_auth })?)
        }
    };

    let handshake = client_async_with_config(request, transport, Some(bounds()));
    let (socket, _) = within(HANDSHAKE_TIMEOUT, "WebSocket", &peer, handshake)
        .await?
        .map_err(|error| ConnectError::of_handshake(error, client_auth))?;
    // The CSMS has answered the request, and so accepted the certificate before it.
    Ok((socket, client_auth == ClientAuth::Shown))
}

/// No waiting for more to send, and an end to data that nobody acknowledges. A kernel that knows neither is
/// no reason to stay away.
fn tune(tcp: &TcpStream) {
    let tuned =
        tcp.set_nodelay(true).and_then(|()| SockRef::from(tcp).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "ocpp-socket-untuned");
    }
}

fn request(url: &Url, settings: &LinkSettings) -> Result<Request, ConnectError> {
    let mut request = url
        .with_identity(&settings.identity)
        .into_client_request()
        .map_err(|error| ConnectError::Request { error })?;
    let headers = request.headers_mut();
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Some(credentials) = &settings.credentials {
        let mut basic = HeaderValue::try_from(credentials.basic())
            .map_err(|error| ConnectError::Request { error: error.into() })?;
        basic.set_sensitive(true);
        headers.insert(AUTHORIZATION, basic);
    }
    Ok(request)
}

fn bounds() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
}

async fn within<T>(
    limit: Duration,
    step: &'static str,
    peer: &str,
    work: impl Future<Output = T>,
) -> Result<T, ConnectError> {
    timeout(limit, work).await.map_err(|_| ConnectError::Timeout {
        step,
        peer: peer.to_owned(),
        after: limit,
    })
}

// === impl ConnectError ===

impl ConnectError {
    /// The CSMS itself has decided: its other addresses wouldn't say anything else.
    fn is_decision(&self) -> bool {
        matches!(self, Self::Http { .. } | Self::Subprotocol(_))
    }

    /// The CSMS doesn't want us as who we say we are. One answers 404 where the credentials are wrong.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Http { status: 401 | 403 | 404 })
    }

    /// In TLS 1.3 the CSMS judges our certificate when we have sent the request already.
    fn of_handshake(error: Error, client_auth: ClientAuth) -> Self {
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
            Error::Http(response) => Self::Http { status: response.status().as_u16() },
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
            Self::Tcp { address, error } => write!(f, "TCP: no connection to {address}: {error}"),
            Self::Timeout { step, peer, after } => {
                write!(f, "{step}: no answer from {peer} in {} s", after.as_secs())
            }
            Self::NoTlsSettings => f.write_str("the URL is wss://, but TLS isn't set up"),
            Self::ServerName { host } => write!(f, "TLS: {host:?} can't stand in a certificate"),
            Self::Tls { error, step, client_auth } => {
                write!(f, "TLS: {}", explain_tls_error(error, step, *client_auth))
            }
            Self::Request { error } => write!(f, "the request can't be written: {error}"),
            Self::Http { status } => f.write_str(&explain_status(*status)),
            Self::Subprotocol(SubProtocolError::NoSubProtocol) => {
                write!(
                    f,
                    "the CSMS doesn't offer OCPP 1.6J: it accepted no subprotocol, {SUBPROTOCOL} was asked for"
                )
            }
            Self::Subprotocol(_) => {
                write!(f, "the CSMS doesn't offer OCPP 1.6J: it chose another subprotocol than {SUBPROTOCOL}")
            }
            Self::Handshake { error: Error::Protocol(ProtocolError::HandshakeIncomplete) } => {
                f.write_str("the CSMS closed the connection in the WebSocket handshake")
            }
            Self::Handshake { error: Error::Protocol(ProtocolError::HttparseError(_)) } => {
                f.write_str("the CSMS doesn't speak HTTP on this port")
            }
            Self::Handshake { error } => write!(f, "the WebSocket handshake failed: {error}"),
        }
    }
}

fn explain_status(status: u16) -> String {
    let meaning = match status {
        401 => "the CSMS refused the credentials",
        403 => "the CSMS refuses this charge point",
        404 => "unknown charge point: the CSMS doesn't know the identity, or the path",
        429 => "the CSMS has too many requests",
        300..=399 => "the CSMS redirects elsewhere, which OCPP doesn't follow",
        502..=504 => "the CSMS isn't available",
        500..=599 => "the CSMS failed",
        _ => "the CSMS refused the WebSocket",
    };
    format!("{meaning} (HTTP {status})")
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use super::{ConnectError, explain_status};

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
        assert_eq!(explain_status(401), "the CSMS refused the credentials (HTTP 401)");
        assert!(explain_status(404).starts_with("unknown charge point"));
        for (one, other) in [(401, 403), (404, 400), (429, 503), (503, 500), (301, 400), (200, 503)] {
            assert_ne!(explain_status(one).split(" (").next(), explain_status(other).split(" (").next());
        }
    }
}
