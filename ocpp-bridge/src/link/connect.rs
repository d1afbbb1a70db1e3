//! One try to connect: name, address, TCP, proxy, TLS, WebSocket. Each step has one timeout for all of it, however the
//! peer spends it, and its own words for what went wrong.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_connect::Proxy;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        client::IntoClientRequest,
        handshake::client::Request,
        http::{
            HeaderMap, HeaderValue,
            header::{AUTHORIZATION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL},
        },
        protocol::WebSocketConfig,
    },
};

use super::{Url, connect_error::ConnectError};
use crate::{
    limits::{
        CLOSE_TIMEOUT, DNS_TIMEOUT, HANDSHAKE_TIMEOUT, MAX_ADDRESSES, MAX_MESSAGE_BYTES,
        MAX_WRITE_BUFFER_BYTES, PROXY_TIMEOUT, READ_BUFFER_BYTES, TCP_CONNECT_TIMEOUT, TCP_USER_TIMEOUT,
        TLS_TIMEOUT, WRITE_BATCH_BYTES,
    },
    security::{ClientAuth, Credentials, LinkSecurity, TlsSettings},
};

/// The WebSocket subprotocol of OCPP 1.6J (OCPP-J 1.6 §3.1.2).
pub(crate) const SUBPROTOCOL: &str = "ocpp1.6";

/// What a WebSocket runs on: TCP, or TLS on TCP.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

pub(crate) type Socket = WebSocketStream<Box<dyn Transport>>;

/// A connection to a CSMS.
pub(crate) struct Connected {
    pub(crate) socket: Socket,
    /// What the CSMS chose of what it was offered.
    pub(crate) subprotocol: Option<HeaderValue>,
    pub(crate) security: LinkSecurity,
}

/// What a WebSocket can be opened on: it leads to the CSMS, and nothing was asked of that yet.
pub(crate) struct Line {
    transport: Box<dyn Transport>,
    /// The CSMS, or the proxy on the way to it.
    next: SocketAddr,
    /// The CSMS, in words.
    peer: String,
    /// How far our certificate has got.
    client_auth: ClientAuth,
}

/// Connects to a CSMS.
pub(crate) async fn connect(
    url: &Url,
    tls: Option<&TlsSettings>,
    proxy: Option<&Proxy>,
    request: Request,
) -> Result<Connected, ConnectError> {
    let credentials = request.headers().contains_key(AUTHORIZATION);
    let (socket, subprotocol, client_certificate) =
        first_that_works(url, tls, proxy, |line| shake_hands(line, request.clone())).await?;
    let security = LinkSecurity { tls: url.is_tls(), credentials, client_certificate };
    Ok(Connected { socket, subprotocol, security })
}

/// Goes as far as the CSMS's door and leaves, without a word to it: TCP, the proxy, TLS. Gives the address that was connected to.
pub(crate) async fn reach(
    url: &Url,
    tls: Option<&TlsSettings>,
    proxy: Option<&Proxy>,
) -> Result<SocketAddr, ConnectError> {
    let mut line = first_that_works(url, tls, proxy, |line| std::future::ready(Ok(line))).await?;
    // TLS says goodbye, so that the CSMS's log has no broken connection. One that doesn't hear it is no matter.
    let _ = timeout(CLOSE_TIMEOUT, line.transport.shutdown()).await;
    Ok(line.next)
}

/// Tries every address of the CSMS's name, or of the proxy's, in turn, until one leads there and this succeeds on it too.
async fn first_that_works<T, F: Future<Output = Result<T, ConnectError>>>(
    url: &Url,
    tls: Option<&TlsSettings>,
    proxy: Option<&Proxy>,
    then: impl Fn(Line) -> F,
) -> Result<T, ConnectError> {
    let tls = match (tls, url.is_tls()) {
        (Some(tls), true) => Some(tls),
        (None, true) => return Err(ConnectError::NoTlsSettings),
        (_, false) => None,
    };
    let (host, address, port) = match proxy {
        Some(proxy) => (proxy.host(), proxy.address(), proxy.port()),
        None => (url.host(), url.address(), url.port()),
    };
    let addresses = resolve(&host, address, port).await?;
    let mut last = ConnectError::NoAddress { host };
    for address in addresses {
        let attempt = async { then(open_line(url, address, proxy, tls).await?).await };
        match attempt.await {
            Ok(done) => return Ok(done),
            Err(error) if error.is_decision() => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn resolve(host: &str, address: Option<IpAddr>, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = address {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = within(DNS_TIMEOUT, "DNS", host, lookup_host((host, port))).await?;
    let mut addresses = Vec::new();
    for address in found.map_err(|error| ConnectError::Dns { host: host.to_owned(), error })? {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

async fn open_line(
    url: &Url,
    address: SocketAddr,
    proxy: Option<&Proxy>,
    tls: Option<&TlsSettings>,
) -> Result<Line, ConnectError> {
    let (peer, next) = match proxy {
        Some(_) => (url.authority(), format!("the proxy {address}")),
        None => (address.to_string(), address.to_string()),
    };
    let mut tcp = within(TCP_CONNECT_TIMEOUT, "TCP", &next, TcpStream::connect(address))
        .await?
        .map_err(|error| ConnectError::Tcp { peer: next.clone(), error })?;
    tune(&tcp);
    if let Some(proxy) = proxy {
        let asked = proxy.connect(&mut tcp, &peer);
        let early = within(PROXY_TIMEOUT, "CONNECT", &next, asked).await?.map_err(ConnectError::Proxy)?;
        // In TLS and in HTTP it is the client that speaks first.
        if !early.is_empty() {
            return Err(ConnectError::ProxySpeaks { proxy: proxy.to_string() });
        }
    }

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
    Ok(Line { transport, next: address, peer, client_auth })
}

/// The WebSocket, its subprotocol, and whether we proved our identity by a client certificate.
async fn shake_hands(
    line: Line,
    request: Request,
) -> Result<(Socket, Option<HeaderValue>, bool), ConnectError> {
    let Line { transport, peer, client_auth, .. } = line;
    let handshake = client_async_with_config(request, transport, Some(bounds()));
    let (socket, response) = within(HANDSHAKE_TIMEOUT, "WebSocket", &peer, handshake)
        .await?
        .map_err(|error| ConnectError::of_handshake(error, client_auth))?;
    if response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(ConnectError::Extension);
    }
    let subprotocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned();
    // The CSMS has answered the request, and so accepted the certificate before it.
    Ok((socket, subprotocol, client_auth == ClientAuth::Shown))
}

/// No waiting for more to send, and an end to data that nobody acknowledges. A kernel that knows neither is
/// no reason to stay away.
pub(crate) fn tune(tcp: &TcpStream) {
    let tuned =
        tcp.set_nodelay(true).and_then(|()| SockRef::from(tcp).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "ocpp-socket-untuned");
    }
}

/// The request for a WebSocket of this charge point, with these header fields besides its own, and these credentials
/// in the place of any among them.
pub(crate) fn request(
    url: &Url,
    identity: &str,
    fields: HeaderMap,
    credentials: Option<&Credentials>,
) -> Result<Request, ConnectError> {
    let mut request =
        url.with_identity(identity).into_client_request().map_err(|error| ConnectError::Request { error })?;
    let headers = request.headers_mut();
    headers.extend(fields);
    if let Some(credentials) = credentials {
        let mut basic = HeaderValue::try_from(credentials.basic())
            .map_err(|error| ConnectError::Request { error: error.into() })?;
        basic.set_sensitive(true);
        headers.insert(AUTHORIZATION, basic);
    }
    Ok(request)
}

/// The fields of a request that offers OCPP 1.6J and nothing else.
pub(crate) fn subprotocol() -> HeaderMap {
    HeaderMap::from_iter([(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL))])
}

pub(crate) fn bounds() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BATCH_BYTES)
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
