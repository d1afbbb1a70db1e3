//! An HTTP or HTTPS server on 127.0.0.1 that takes uploads, or doesn't.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::csms::Csms;
use crate::tls::Authority;
use crate::{LONG, wait_until};

/// How a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// With this status, once the whole body is there.
    Status(u16),
    /// With this status and `Location`.
    Redirect(u16, String),
    /// Not at all: the connection stays open.
    Silence,
    /// By closing the connection.
    Close,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// `PUT` or `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The head's lines after the first.
    pub head: Vec<String>,
    /// The body.
    pub body: String,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct LogServer {
    url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    connections: AtomicUsize,
    received: Mutex<Vec<Received>>,
    /// For the requests to come; 201 when there are no more.
    replies: Mutex<VecDeque<Reply>>,
}

impl LogServer {
    /// A server in the clear.
    pub async fn http() -> Self {
        Self::start(None).await
    }

    /// A server with the certificate that this authority vouches for.
    pub async fn https(authority: &Authority) -> Self {
        let certificate = CertificateDer::from_pem_file(authority.certificate()).expect("it was made");
        let key = PrivateKeyDer::from_pem_file(authority.key()).expect("it was made");
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .expect("the certificate can be used");
        Self::start(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// A server over TLS that the same authority vouches for as for this CSMS.
    ///
    /// # Panics
    /// If the CSMS speaks no TLS.
    pub async fn beside(csms: &Csms) -> Self {
        Self::https(csms.authority().expect("the CSMS speaks TLS")).await
    }

    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().expect("it is bound"));
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let (state, tls) = (Arc::clone(&serving), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => state.serve(stream).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => state.serve(stream).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { url, state, task }
    }

    /// `http://127.0.0.1:PORT`, as it stands in `policy.allow_uploads`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers the next request in this way.
    pub fn then(&self, reply: Reply) {
        self.state.replies.lock().expect("nobody panics with it").push_back(reply);
    }

    /// How many connections have come.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The requests that have come, whatever they were answered.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("nobody panics with it").clone()
    }

    /// Waits until there are so many requests, and returns them.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        wait_until(&format!("{count} uploads come"), LONG * 2, async || {
            Some(self.received()).filter(|received| received.len() >= count)
        })
        .await
    }
}

impl State {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let mut bytes = Vec::new();
        let (head, body_start) = loop {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break (String::from_utf8_lossy(&bytes[..at]).into_owned(), at + 4);
            }
        };
        let mut lines = head.lines().map(str::to_owned);
        let mut words = lines.next()?.split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter();
        let (method, target) = (words.next()?, words.next()?);
        let head: Vec<String> = lines.collect();
        let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok())?;
        let mut body = bytes.split_off(body_start);
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        let reply = self.replies.lock().expect("nobody panics with it").pop_front();
        self.received.lock().expect("nobody panics with it").push(Received { method, target, head, body });
        let answer = match reply.unwrap_or(Reply::Status(201)) {
            Reply::Status(status) => format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"),
            Reply::Redirect(status, location) => {
                format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
            }
            Reply::Silence => return std::future::pending().await,
            Reply::Close => return None,
        };
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()
    }
}

impl Drop for LogServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
