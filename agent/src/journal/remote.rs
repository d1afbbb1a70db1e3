//! syslog to a collector in the network: RFC 5424 over UDP (RFC 5426) or TCP with octet counting (RFC 6587, 3.4.1).
//!
//! Whoever logs only adds to a queue. A task takes from it, and connects when there is something to send; it resolves the
//! collector's name anew for each connection. What the queue has no room for is counted, and told of in its place. What
//! is on its way when a connection breaks may be lost: syslog knows no acknowledgement, but its messages are numbered.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reverse_tunnel::Host;
use reverse_tunnel::destination::{parse_port, split_host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Level;

use super::rfc5424::Messages;
use crate::limits::{
    COLLECTOR_ADDRESSES, COLLECTOR_BACKOFF, COLLECTOR_BACKOFF_MOST, COLLECTOR_DEAD, COLLECTOR_QUEUE,
    COLLECTOR_RESOLVE, COLLECTOR_SETTLED, COLLECTOR_STOP, COLLECTOR_TIMEOUT,
};

/// Where the log is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    transport: Transport,
    host: Host,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// Why a text is no collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorError;

/// Messages that wait for the task.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug)]
struct Waiting {
    messages: VecDeque<String>,
    format: Messages,
    /// Messages that found no room since the last one that did.
    dropped: u64,
    status: RemoteStatus,
    stopping: bool,
}

/// How the collector is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteStatus {
    /// As configured.
    pub collector: String,
    /// Why it can't be reached just now.
    pub error: Option<String>,
    /// Messages that were dropped since the agent's start.
    pub dropped: u64,
}

/// The task that sends.
#[derive(Debug)]
pub struct RemoteLog {
    queue: &'static Queue,
    task: JoinHandle<()>,
}

/// Looks at [`RemoteStatus`].
#[derive(Clone, Debug)]
pub struct RemoteView(&'static Queue);

impl RemoteLog {
    pub(super) fn start(queue: &'static Queue, collector: Collector) -> Self {
        queue.waiting().status.collector = collector.to_string();
        Self { queue, task: tokio::spawn(run(queue, collector)) }
    }

    /// Shows how the collector is reached.
    #[must_use]
    pub fn view(&self) -> RemoteView {
        RemoteView(self.queue)
    }

    /// Sends what is still waiting, within [`COLLECTOR_STOP`].
    pub async fn stop(self) {
        self.queue.waiting().stopping = true;
        self.queue.changed.notify_one();
        let _ = timeout(COLLECTOR_STOP, self.task).await;
    }
}

impl RemoteView {
    /// How it is now.
    #[must_use]
    pub fn status(&self) -> RemoteStatus {
        self.0.waiting().status.clone()
    }
}

impl Queue {
    pub(super) const fn new() -> Self {
        let status = RemoteStatus { collector: String::new(), error: None, dropped: 0 };
        let waiting = Waiting {
            messages: VecDeque::new(),
            format: Messages::new(),
            dropped: 0,
            status,
            stopping: false,
        };
        Self { waiting: Mutex::new(waiting), changed: Notify::const_new() }
    }

    /// Adds a line of the log, or counts it as dropped.
    pub(super) fn push(&self, level: Level, line: &str) {
        let mut waiting = self.waiting();
        if waiting.messages.len() >= COLLECTOR_QUEUE {
            waiting.dropped += 1;
            waiting.status.dropped += 1;
            return;
        }
        waiting.tell_dropped();
        let message = waiting.format.next(level, line);
        waiting.messages.push_back(message);
        self.changed.notify_one();
    }

    /// Waits for the next message, which stays in the queue until [`Self::sent`]; none when it is time to end.
    async fn next(&self) -> Option<String> {
        loop {
            {
                let mut waiting = self.waiting();
                if waiting.messages.is_empty() {
                    waiting.tell_dropped();
                }
                if let Some(message) = waiting.messages.front() {
                    return Some(message.clone());
                }
                if waiting.stopping {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// The next message is on its way.
    fn sent(&self) {
        self.waiting().messages.pop_front();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn tell_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let message = self.format.next(Level::WARN, &format!("log-dropped lines={dropped}"));
            self.messages.push_back(message);
        }
    }
}

/// Sends what is queued until the end.
async fn run(queue: &'static Queue, collector: Collector) {
    let mut wait = COLLECTOR_BACKOFF;
    while queue.next().await.is_some() {
        let error = match connect(&collector).await {
            Ok(mut connection) => match pass(queue, &mut connection, &collector).await {
                Ok(()) => {
                    wait = COLLECTOR_BACKOFF;
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        if tell(queue, &collector, Some(&error)) {
            // It was reached until now.
            wait = COLLECTOR_BACKOFF;
        }
        if queue.waiting().stopping {
            return;
        }
        let jitter = wait.mul_f64(fastrand::f64());
        tokio::time::sleep(wait / 2 + jitter / 2).await;
        wait = (wait * 2).min(COLLECTOR_BACKOFF_MOST);
    }
}

/// Sends until the connection breaks, its address is old, or it is time to end.
async fn pass(queue: &Queue, connection: &mut Connection, collector: &Collector) -> io::Result<()> {
    let old = Instant::now() + COLLECTOR_RESOLVE;
    // A datagram to nobody is refused when the next one is sent, if ever, and a broken collector may accept and close. Each
    // change of mind would be a line of the log, which is to be sent in its turn.
    let settled = Instant::now() + COLLECTOR_SETTLED;
    let mut doubted = queue.waiting().status.error.is_some();
    loop {
        let message = tokio::select! {
            biased;
            error = connection.closed() => return Err(error),
            () = sleep_until(settled), if doubted => {
                doubted = false;
                tell(queue, collector, None);
                continue;
            }
            message = queue.next() => message,
        };
        let Some(message) = message else { return Ok(()) };
        if matches!(connection, Connection::Udp(_)) && Instant::now() >= old {
            return Ok(());
        }
        timeout(COLLECTOR_TIMEOUT, connection.send(&message)).await??;
        queue.sent();
    }
}

/// Notes whether the collector is reached, and tells the log if that has changed; gives whether it has.
fn tell(queue: &Queue, collector: &Collector, error: Option<&io::Error>) -> bool {
    let text = error.map(ToString::to_string);
    let before = std::mem::replace(&mut queue.waiting().status.error, text);
    match (&before, error) {
        (None, Some(error)) => {
            let cure = "check log.remote, and that the collector listens there";
            tracing::warn!(%collector, %error, cure, "log-collector-lost");
        }
        (Some(_), None) => tracing::info!(%collector, "log-collector-reached"),
        _ => {}
    }
    before.is_none() != error.is_none()
}

enum Connection {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

async fn connect(collector: &Collector) -> io::Result<Connection> {
    let resolved = timeout(COLLECTOR_TIMEOUT, lookup_host(collector.address())).await?;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in resolved?.take(COLLECTOR_ADDRESSES) {
        let connected = match collector.transport {
            Transport::Udp => udp(address).await.map(Connection::Udp),
            Transport::Tcp => {
                let connected = timeout(COLLECTOR_TIMEOUT, TcpStream::connect(address)).await;
                connected.unwrap_or_else(|elapsed| Err(elapsed.into())).map(Connection::Tcp)
            }
        };
        match connected {
            Ok(connection) => {
                connection.limit_silence();
                return Ok(connection);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

impl Connection {
    /// A collector that has gone without a word would otherwise be noticed after a quarter of an hour.
    fn limit_silence(&self) {
        if let Self::Tcp(stream) = self {
            let milliseconds = u32::try_from(COLLECTOR_DEAD.as_millis()).unwrap_or(u32::MAX);
            // Without it, it takes that long.
            let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds);
        }
    }

    async fn send(&mut self, message: &str) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message.as_bytes()).await.map(drop),
            Self::Tcp(stream) => {
                let frame = format!("{} {message}", message.len());
                stream.write_all(frame.as_bytes()).await
            }
        }
    }

    /// Waits until the collector has closed the connection. What it says is thrown away.
    async fn closed(&mut self) -> io::Error {
        let Self::Tcp(stream) = self else { return std::future::pending().await };
        let mut thrown_away = [0; 256];
        loop {
            match stream.read(&mut thrown_away).await {
                Ok(0) => return io::Error::new(io::ErrorKind::ConnectionReset, "it closed the connection"),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }
}

impl Collector {
    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl FromStr for Collector {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, CollectorError> {
        let (transport, rest) = match text.split_once("://") {
            Some(("udp", rest)) => (Transport::Udp, rest),
            Some(("tcp", rest)) => (Transport::Tcp, rest),
            _ => return Err(CollectorError),
        };
        let (host, port) = split_host(rest);
        let host = Host::parse(host, 1).map_err(|_| CollectorError)?;
        let port = port.strip_prefix(':').and_then(parse_port).ok_or(CollectorError)?;
        Ok(Self { transport, host, port })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        write!(f, "{scheme}://{}", self.address())
    }
}

impl fmt::Display for CollectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is neither udp://HOST:PORT nor tcp://HOST:PORT")
    }
}

impl std::error::Error for CollectorError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    fn queue() -> &'static Queue {
        Box::leak(Box::new(Queue::new()))
    }

    fn start(queue: &'static Queue, collector: &str) -> RemoteLog {
        RemoteLog::start(queue, collector.parse().unwrap())
    }

    /// The next message of a stream, by its octet count.
    async fn next(stream: &mut TcpStream) -> String {
        let mut length = String::new();
        loop {
            match char::from(stream.read_u8().await.unwrap()) {
                ' ' => break,
                digit => length.push(digit),
            }
        }
        let mut message = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut message).await.unwrap();
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn a_collector_is_a_url() {
        for text in ["udp://log.example.com:514", "tcp://192.0.2.7:601", "tcp://[2001:db8::1]:601"] {
            assert_eq!(text.parse::<Collector>().unwrap().to_string(), text);
        }
        for text in
            ["", "log:514", "udp://", "udp://h", "udp://h:0", "udp://h:99999", "http://h:1", "udp://u@h:1"]
        {
            assert!(text.parse::<Collector>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn messages_are_kept_while_the_collector_is_away_and_dropped_ones_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = format!("tcp://{}", listener.local_addr().unwrap());
        let queue = queue();
        for number in 0..COLLECTOR_QUEUE + 7 {
            queue.push(Level::INFO, &format!("line-{number}"));
        }
        let log = start(queue, &collector);
        let (mut stream, _) = listener.accept().await.unwrap();
        for number in 0..COLLECTOR_QUEUE {
            assert!(next(&mut stream).await.ends_with(&format!("] line-{number}")));
        }
        assert!(next(&mut stream).await.ends_with("] log-dropped lines=7"));
        assert_eq!(log.view().status().dropped, 7);

        // It goes, and comes back.
        drop(stream);
        while log.view().status().error.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        queue.push(Level::INFO, "again");
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(next(&mut stream).await.ends_with("] again"));
        let stop = async {
            queue.push(Level::INFO, "the last");
            log.stop().await;
        };
        let ((), last) = tokio::join!(stop, next(&mut stream));
        assert!(last.ends_with("] the last"), "{last}");
    }

    #[tokio::test]
    async fn datagrams_hold_one_message_each() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let queue = queue();
        let log = start(queue, &format!("udp://{}", socket.local_addr().unwrap()));
        queue.push(Level::ERROR, "one");
        queue.push(Level::INFO, "two");
        let mut buffer = [0; 2048];
        for (priority, line) in [("<27>1 ", "] one"), ("<30>1 ", "] two")] {
            let length = socket.recv(&mut buffer).await.unwrap();
            let message = std::str::from_utf8(&buffer[..length]).unwrap();
            assert!(message.starts_with(priority) && message.ends_with(line), "{message}");
        }
        log.stop().await;
    }

    #[tokio::test]
    async fn a_port_that_refuses_datagrams_is_no_collector_that_comes_and_goes() {
        let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let queue = queue();
        let log = start(queue, &format!("udp://{nobody}"));
        let mut lost = None;
        while lost.is_none_or(|lost: Instant| lost.elapsed() < COLLECTOR_BACKOFF * 3) {
            queue.push(Level::INFO, "nobody hears this");
            tokio::time::sleep(Duration::from_millis(5)).await;
            match log.view().status().error {
                Some(_) => lost = lost.or_else(|| Some(Instant::now())),
                None => assert!(lost.is_none(), "it was sent, and not received"),
            }
        }
        log.stop().await;
    }

    #[tokio::test]
    async fn the_agents_end_waits_for_no_collector() {
        // TEST-NET-1 (RFC 5737), from where nothing answers; or nothing leads there, which is as good.
        let queue = queue();
        let log = start(queue, "tcp://192.0.2.1:601");
        queue.push(Level::INFO, "nobody hears this");
        let started = Instant::now();
        tokio::task::yield_now().await;
        log.stop().await;
        assert!(started.elapsed() < COLLECTOR_STOP + Duration::from_secs(1));
    }
}
