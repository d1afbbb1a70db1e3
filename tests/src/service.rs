//! Stand-ins for the controller's own services, on free ports of 127.0.0.1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A service that accepts connections until it is dropped.
#[derive(Debug)]
pub struct Service {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Service {
    /// A web server with one page; `body` is its text.
    pub async fn page(body: &str) -> Self {
        let body: Arc<str> = body.into();
        Self::start(move |stream| answer_page(stream, Arc::clone(&body))).await
    }

    /// A server that sends back what it gets, until the other side stops sending.
    pub async fn echo() -> Self {
        Self::start(async |mut stream: TcpStream| {
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await?;
            to.shutdown().await
        })
        .await
    }

    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream));
            }
        });
        Self { port, connections, task }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, as the configuration writes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_page(stream: TcpStream, body: Arc<str>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 && line != "\r\n" {
        line.clear();
    }
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Fetches `/` from a port of 127.0.0.1: the whole answer, header included.
///
/// # Errors
/// If nothing listens there, or what does closes the connection with an error.
pub async fn fetch(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Sends `text` to a port of 127.0.0.1, ends its own side, and returns what came back.
///
/// # Errors
/// If nothing listens there, or what does closes the connection with an error.
pub async fn exchange(port: u16, text: &[u8]) -> std::io::Result<Vec<u8>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut from, mut to) = stream.into_split();
    let text = text.to_vec();
    // Both ways at once: what is sent may be more than the buffers on the way hold.
    let sender = tokio::spawn(async move {
        to.write_all(&text).await?;
        to.shutdown().await
    });
    let mut answer = Vec::new();
    from.read_to_end(&mut answer).await?;
    sender.await??;
    Ok(answer)
}
