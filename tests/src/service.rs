//! Stand-ins for the controller's own services, on free ports of 127.0.0.1.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, sleep_until};

/// A service that accepts connections until it is dropped.
#[derive(Debug)]
pub struct Service {
    address: IpAddr,
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

    /// A server that does to each connection what its first byte says: see [`Manner`].
    pub async fn wayward() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at another address.
    pub async fn start_at(address: IpAddr) -> Self {
        Self::serve(address, misbehave).await
    }

    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        Self::serve(Ipv4Addr::LOCALHOST.into(), serve).await
    }

    async fn serve<F>(address: IpAddr, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((address, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream));
            }
        });
        Self { address, port, connections, task }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, as the configuration writes it.
    pub fn address(&self) -> String {
        SocketAddr::new(self.address, self.port).to_string()
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

/// What a wayward service does to a connection whose first byte this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Manner {
    /// It sends back what it gets.
    Echo = b'E',
    /// It reads nothing more, and closes nothing.
    Stall = b'S',
    /// It reads 200 KB a second, and answers with the sum of the bytes when its client has ended.
    Slow = b'L',
    /// It closes in good order.
    Close = b'C',
    /// It resets the connection.
    Reset = b'R',
    /// It ends its own side, reads all, and says so with nothing.
    EndFirst = b'F',
    /// It answers with what it got only after its client has ended.
    AnswerLast = b'A',
    /// It sends without end.
    Flood = b'O',
}

/// Bytes a second that [`Manner::Slow`] takes.
pub const SLOW: usize = 200_000;

async fn misbehave(mut stream: TcpStream) -> std::io::Result<()> {
    let manner = stream.read_u8().await?;
    let is = |other: Manner| manner == other as u8;
    if is(Manner::Echo) {
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await?;
        return to.shutdown().await;
    }
    if is(Manner::Stall) {
        sleep(Duration::from_secs(3600)).await;
    } else if is(Manner::Slow) {
        let (mut sum, mut buffer, began) = (0_u64, vec![0; SLOW / 20], Instant::now());
        let mut taken = 0;
        loop {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            sum = buffer[..read].iter().fold(sum, |sum, byte| checksum(sum, *byte));
            taken += read;
            sleep_until(began + Duration::from_secs_f64(taken as f64 / SLOW as f64)).await;
        }
        stream.write_u64(sum).await?;
    } else if is(Manner::Reset) {
        stream.set_zero_linger()?;
    } else if is(Manner::EndFirst) {
        stream.shutdown().await?;
        stream.read_to_end(&mut Vec::new()).await?;
    } else if is(Manner::AnswerLast) {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        stream.write_all(&all).await?;
    } else if is(Manner::Flood) {
        let block = vec![0xAA; 64 * 1024];
        loop {
            stream.write_all(&block).await?;
        }
    }
    Ok(())
}

/// A sum that depends on every byte and on its place.
pub fn checksum(sum: u64, byte: u8) -> u64 {
    sum.wrapping_mul(1_099_511_628_211).wrapping_add(u64::from(byte) + 1)
}

/// Connects to a wayward service behind a port of 127.0.0.1, and tells it how to behave.
///
/// # Errors
/// If nothing listens there.
pub async fn behave(port: u16, manner: Manner) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(manner as u8).await?;
    Ok(stream)
}

/// How long a message takes there and back.
///
/// # Errors
/// If the connection breaks, or something else comes back.
pub async fn round_trip(stream: &mut TcpStream) -> std::io::Result<Duration> {
    let began = Instant::now();
    let (message, mut answer) = (*b"are you there?", [0; 14]);
    stream.write_all(&message).await?;
    stream.read_exact(&mut answer).await?;
    if answer == message { Ok(began.elapsed()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
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
