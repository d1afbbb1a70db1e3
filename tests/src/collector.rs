//! A syslog collector in the network, by RFC 5424: datagrams, or a stream with octet counting.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use crate::{LONG, wait_until};

/// A collector that keeps every message. It listens until the test ends.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    scheme: &'static str,
    messages: Arc<Mutex<Vec<String>>>,
    stream: Arc<Mutex<Option<TcpStream>>>,
}

impl Collector {
    /// Takes datagrams.
    pub fn udp() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let collector = Self::new("udp", socket.local_addr().expect("it is bound"));
        let messages = collector.messages.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
                messages.lock().expect("no reader panics").push(message);
            }
        });
        collector
    }

    /// Takes streams, one at a time.
    pub fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let collector = Self::new("tcp", listener.local_addr().expect("it is bound"));
        let (messages, current) = (collector.messages.clone(), collector.stream.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                *current.lock().expect("no reader panics") = stream.try_clone().ok();
                let mut reader = BufReader::new(stream);
                while let Some(message) = next(&mut reader) {
                    messages.lock().expect("no reader panics").push(message);
                }
            }
        });
        collector
    }

    fn new(scheme: &'static str, address: SocketAddr) -> Self {
        Self { address, scheme, messages: Arc::default(), stream: Arc::default() }
    }

    /// The value of `log.remote`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Ends the stream that is open.
    ///
    /// # Panics
    /// If there is none.
    pub fn hang_up(&self) {
        let stream = self.stream.lock().expect("no reader panics").take().expect("a stream is open");
        stream.shutdown(std::net::Shutdown::Both).expect("it is open");
    }

    /// What has arrived.
    pub fn messages(&self) -> Vec<String> {
        self.messages.lock().expect("no reader panics").clone()
    }

    /// Waits for a message that contains `part`, and returns it.
    pub async fn message_with(&self, part: &str) -> String {
        wait_until(&format!("a message with {part:?}"), LONG, async || {
            self.messages().into_iter().find(|message| message.contains(part))
        })
        .await
    }
}

/// `LENGTH MESSAGE` (RFC 6587, 3.4.1).
fn next(reader: &mut impl BufRead) -> Option<String> {
    let mut length = Vec::new();
    reader.read_until(b' ', &mut length).ok()?;
    let length: usize = std::str::from_utf8(&length).ok()?.trim_end().parse().ok()?;
    let mut message = vec![0; length];
    reader.read_exact(&mut message).ok()?;
    Some(String::from_utf8_lossy(&message).into_owned())
}
