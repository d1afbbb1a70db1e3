//! Both ends of an OCPP connection in the test's own hands, text by text: a CSMS that shows who comes and how, and a
//! controller. For what must be exact to the byte; the libraries' own ends are in [`crate::csms`].

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use crate::LONG;
use crate::tls::Authority;

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// One end of a WebSocket.
pub struct Wire {
    /// The request's path, as it was written.
    pub path: String,
    /// The fields of the request at a CSMS, of the answer at a controller.
    pub fields: HeaderMap,
    socket: WebSocketStream<Box<dyn Transport>>,
}

/// How a CSMS answers those who come.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// With this status instead of a WebSocket, and this `Retry-After`.
    pub refuse: Option<(u16, Option<u32>)>,
    /// Only who shows this `Authorization` is let in; others get 401.
    pub authorization: Option<String>,
    /// The subprotocol that it chooses if it is offered; none: it never chooses any.
    pub subprotocol: Option<&'static str>,
    /// How long it thinks about it.
    pub delay: Duration,
}

/// A CSMS that hands every connection to the test. Dropping it ends it.
#[derive(Debug)]
pub struct WireCsms {
    url: String,
    answers: Arc<Mutex<Answers>>,
    arrivals: mpsc::UnboundedReceiver<Wire>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire({})", self.path)
    }
}

impl WireCsms {
    /// One that speaks `ocpp1.6` and lets everybody in.
    pub async fn start() -> Self {
        Self::start_on(0, None).await
    }

    /// The same on this port.
    pub async fn start_at(port: u16) -> Self {
        Self::start_on(port, None).await
    }

    /// One behind TLS, with this authority's certificate; `clients`: it wants one of its clients as well.
    pub async fn start_tls(authority: &Authority, clients: bool) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them");
        let builder = match clients {
            false => builder.with_no_client_auth(),
            true => {
                let roots = Arc::new(roots(authority));
                let provider = Arc::new(default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.expect("the authority is one"))
            }
        };
        let (chain, key) = identity(authority.certificate(), authority.key());
        let config = builder.with_single_cert(chain, key).expect("they belong together");
        Self::start_on(0, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_on(port: u16, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let answers = Arc::new(Mutex::new(Answers { subprotocol: Some("ocpp1.6"), ..Answers::default() }));
        let (sender, arrivals) = mpsc::unbounded_channel();
        let shared = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, answers, sender) = (tls.clone(), shared.clone(), sender.clone());
                tokio::spawn(async move {
                    let answers = answers.lock().expect("nobody panicked").clone();
                    tokio::time::sleep(answers.delay).await;
                    let stream: Box<dyn Transport> = match tls {
                        None => Box::new(tcp),
                        Some(tls) => Box::new(tls.accept(tcp).await.ok()?),
                    };
                    let wire = welcome(stream, &answers).await?;
                    sender.send(wire).ok()
                });
            }
        });
        Self { url: format!("{scheme}://127.0.0.1:{port}/ocpp"), answers, arrivals, task }
    }

    /// Its URL, without an identity.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers in this way from now on.
    pub fn answer(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().expect("nobody panicked"));
    }

    /// The next connection.
    pub async fn next(&mut self) -> Wire {
        timeout(LONG, self.arrivals.recv()).await.expect("somebody comes").expect("the CSMS runs")
    }

    /// A controller that connects through the bridge at this port, and its connection here.
    ///
    /// # Panics
    /// If it isn't let in.
    pub async fn let_in(&mut self, port: u16, identity: &str, fields: &[(&str, &str)]) -> (Wire, Wire) {
        let controller = Wire::connect(port, identity, fields).await;
        (
            controller.unwrap_or_else(|refusal| panic!("{identity} isn't let in: {refusal:?}")),
            self.next().await,
        )
    }

    /// Whether nobody has come that [`Self::next`] hasn't returned.
    pub fn is_idle(&self) -> bool {
        self.arrivals.is_empty()
    }
}

impl Drop for WireCsms {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::result_large_err, reason = "tungstenite's own type")]
async fn welcome(stream: Box<dyn Transport>, answers: &Answers) -> Option<Wire> {
    let (mut path, mut fields) = (String::new(), HeaderMap::new());
    let judge = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        fields = request.headers().clone();
        let shown = fields.get("authorization").and_then(|value| value.to_str().ok());
        let known = answers.authorization.is_none() || answers.authorization.as_deref() == shown;
        let refusal = answers.refuse.or((!known).then_some((401, None)));
        if let Some((status, retry_after)) = refusal {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = StatusCode::from_u16(status).expect("it is one");
            if let Some(seconds) = retry_after {
                refusal.headers_mut().insert("retry-after", seconds.into());
            }
            return Err(refusal);
        }
        let offered = fields.get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
        let is_offered =
            |wanted: &str| offered.is_some_and(|list| list.split(',').any(|one| one.trim() == wanted));
        if let Some(chosen) = answers.subprotocol.filter(|chosen| is_offered(chosen)) {
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(chosen));
        }
        Ok(response)
    };
    let socket = accept_hdr_async(stream, judge).await.ok()?;
    Some(Wire { path, fields, socket })
}

/// What a controller gets that isn't let in: the status, and the answer's fields.
pub type Refusal = (u16, HeaderMap);

impl Wire {
    /// A controller that connects to `ws://127.0.0.1:PORT/IDENTITY`, offers `ocpp1.6` and shows these fields.
    ///
    /// # Errors
    /// The other side answers with another status than 101.
    pub async fn connect(port: u16, identity: &str, fields: &[(&str, &str)]) -> Result<Self, Refusal> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("somebody listens");
        Self::shake_hands(Box::new(tcp), port, identity, fields).await
    }

    /// The same by TLS, trusting this authority.
    ///
    /// # Errors
    /// As above.
    pub async fn connect_tls(port: u16, authority: &Authority, identity: &str) -> Result<Self, Refusal> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots(authority))
            .with_no_client_auth();
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("somebody listens");
        let name = ServerName::try_from("127.0.0.1").expect("it is an address");
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS comes about");
        Self::shake_hands(Box::new(tls), port, identity, &[]).await
    }

    async fn shake_hands(
        stream: Box<dyn Transport>,
        port: u16,
        identity: &str,
        fields: &[(&str, &str)],
    ) -> Result<Self, Refusal> {
        let path = format!("/{identity}");
        let url = format!("ws://127.0.0.1:{port}{path}");
        let mut request = url.into_client_request().expect("it is a URL");
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("ocpp1.6"));
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("it is a name");
            match *value {
                "" => drop(headers.remove(name)),
                value => drop(headers.insert(name, value.parse().expect("it is a value"))),
            }
        }
        match timeout(LONG, client_async(request, stream)).await.expect("there is an answer") {
            Ok((socket, answer)) => Ok(Self { path, fields: answer.headers().clone(), socket }),
            Err(Error::Http(answer)) => Err((answer.status().as_u16(), answer.headers().clone())),
            Err(error) => panic!("the handshake with port {port} failed: {error}"),
        }
    }

    /// A field of the request or the answer.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(|value| value.to_str().ok())
    }

    /// Sends a text.
    pub async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("it can be sent");
    }

    /// The next text.
    ///
    /// # Panics
    /// If something else comes.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Ok(Message::Text(text)) => text.to_string(),
            other => panic!("a text was to come on {}, and not {other:?}", self.path),
        }
    }

    /// The next text as JSON.
    pub async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"))
    }

    /// The next message; an error when the connection has ended.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            let next = timeout(LONG, self.socket.next()).await.expect("something comes");
            match next.unwrap_or(Err(Error::ConnectionClosed)) {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                next => return next,
            }
        }
    }

    /// Whether nothing comes for so long.
    pub async fn is_silent(&mut self, long: Duration) -> bool {
        timeout(long, self.next()).await.is_err()
    }

    /// Waits for the end, and returns its close frame, if there is one; texts before it are passed over.
    pub async fn ended(&mut self) -> Option<CloseFrame> {
        loop {
            match self.next().await {
                Ok(Message::Close(frame)) => {
                    let _ = self.socket.flush().await;
                    return frame;
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Ends the connection with this code.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: tungstenite::Utf8Bytes::from(reason) };
        self.socket.close(Some(frame)).await.expect("it can be sent");
    }

    /// Answers the CALL that comes next with this payload, and returns the CALL.
    pub async fn serve(&mut self, payload: &Value) -> Value {
        let call = self.json().await;
        assert_eq!(call[0], 2, "{call}");
        self.send(&json!([3, call[1], payload]).to_string()).await;
        call
    }
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority.root()).expect("it was written") {
        roots.add(certificate.expect("it is PEM")).expect("it can be a root");
    }
    roots
}

fn identity(certificate: &Path, key: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(certificate).expect("it was written");
    let chain = chain.collect::<Result<_, _>>().expect("it is PEM");
    (chain, PrivateKeyDer::from_pem_file(key).expect("it is PEM"))
}
