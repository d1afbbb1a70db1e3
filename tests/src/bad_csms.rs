//! A CSMS that breaks the rules: it plays a script of raw bytes, again and again, with whoever connects.
//!
//! It speaks HTTP and WebSocket by hand, since no library writes what is wrong on purpose. Texts of the charge
//! point are unmasked and looked at; whatever else it sends is thrown away.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// One thing that it does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads the request for a WebSocket.
    Request,
    /// Writes these bytes.
    Bytes(Vec<u8>),
    /// Accepts the WebSocket, with more header fields, each ending in CR and LF.
    Accept(&'static str),
    /// Waits for a CALL and answers it with this payload.
    Answer(Value),
    /// Waits for a CALL and answers it with these frames; `ID` in them becomes the CALL's id.
    Reply(Vec<String>),
    /// Sends a text.
    Text(String),
    /// Sends a CALL and waits for its answer, which [`BadCsms::answers`] counts.
    Ask,
    /// Writes these bytes for ever, so many times a second; 0: as fast as they are taken. What comes is read or not.
    Flood {
        /// The bytes.
        bytes: Vec<u8>,
        /// How often.
        per_second: u32,
        /// Whether what comes is read meanwhile.
        reading: bool,
    },
    /// Reads and throws away until the other side has closed.
    Listen,
    /// Reads nothing and says nothing.
    Hang,
}

/// A running bad CSMS. Dropping it ends its connections.
#[derive(Debug)]
pub struct BadCsms {
    port: u16,
    connections: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl BadCsms {
    /// Starts one that plays the script with every connection, and closes it then.
    pub async fn start(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let answers = Arc::new(AtomicUsize::new(0));
        let (count, answered) = (Arc::clone(&connections), Arc::clone(&answers));
        let task = tokio::spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (script, answered) = (script.clone(), Arc::clone(&answered));
                // The agent may close at any step: that is what is tested.
                served.spawn(async move { drop(play(stream, &script, &answered).await) });
                while served.try_join_next().is_some() {}
            }
        });
        Self { port, connections, answers, task }
    }

    /// Its URL, without the charge point's identity.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ocpp", self.port)
    }

    /// Its URL as if it spoke TLS.
    pub fn tls_url(&self) -> String {
        format!("wss://127.0.0.1:{}/ocpp", self.port)
    }

    /// How many of its [`Step::Ask`] were answered.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for BadCsms {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A WebSocket up, and the boot accepted: where most scripts go on from.
pub fn booted(heartbeat: u32) -> Vec<Step> {
    let boot = json!({"status": "Accepted", "interval": heartbeat, "currentTime": "2026-11-21T10:00:00Z"});
    vec![Step::Request, Step::Accept(""), Step::Answer(boot)]
}

/// A frame with any first byte, payload and announced length; never masked.
pub fn frame(first: u8, payload: &[u8], announced: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match announced {
        0..=125 => bytes.push(announced as u8),
        126..=0xffff => {
            bytes.push(126);
            bytes.extend((announced as u16).to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend(announced.to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// A sound frame.
pub fn sound(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, payload.len() as u64)
}

/// A whole text frame's first byte.
pub const TEXT: u8 = 0x81;
/// A text's first byte, more of it to come.
pub const TEXT_BEGINS: u8 = 0x01;
/// A continuation, more to come.
pub const GOES_ON: u8 = 0x00;
/// A binary message.
pub const BINARY: u8 = 0x82;
/// A close frame.
pub const CLOSE: u8 = 0x88;
/// A ping.
pub const PING: u8 = 0x89;

async fn play(mut stream: TcpStream, script: &[Step], answers: &AtomicUsize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut key = String::new();
    for step in script {
        match step {
            Step::Request => key = request(&mut stream).await?,
            Step::Bytes(bytes) => stream.write_all(bytes).await?,
            Step::Accept(more) => {
                let accept = derive_accept_key(key.as_bytes());
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: ocpp1.6\r\n{more}\r\n"
                );
                stream.write_all(answer.as_bytes()).await?;
            }
            Step::Answer(payload) => {
                let id = heard(&mut stream, is_call).await?;
                stream.write_all(&sound(TEXT, json!([3, id, payload]).to_string().as_bytes())).await?;
            }
            Step::Reply(texts) => {
                let id = heard(&mut stream, is_call).await?;
                for text in texts {
                    let text = text.replace("ID", id.as_str().unwrap_or_default());
                    stream.write_all(&sound(TEXT, text.as_bytes())).await?;
                }
            }
            Step::Text(text) => stream.write_all(&sound(TEXT, text.as_bytes())).await?,
            Step::Ask => {
                let text = json!([2, ASKED, "GetConfiguration", {"key": ["HeartbeatInterval"]}]).to_string();
                stream.write_all(&sound(TEXT, text.as_bytes())).await?;
                heard(&mut stream, |message| message[0] == 3 && message[1] == ASKED).await?;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Step::Flood { bytes, per_second, reading } => {
                let (mut from, mut to) = stream.split();
                let writing = async {
                    loop {
                        to.write_all(bytes).await?;
                        if *per_second > 0 {
                            tokio::time::sleep(Duration::from_secs(1) / *per_second).await;
                        }
                    }
                };
                if *reading {
                    let mut nowhere = tokio::io::sink();
                    return tokio::select! {
                        ended = writing => ended,
                        ended = tokio::io::copy(&mut from, &mut nowhere) => ended.map(drop),
                    };
                }
                return writing.await;
            }
            Step::Listen => {
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            }
            Step::Hang => return std::future::pending().await,
        }
    }
    Ok(())
}

/// Reads the request, and returns its key.
async fn request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        request.push(stream.read_u8().await?.into());
    }
    let field = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    Ok(field.unwrap_or_default().to_owned())
}

/// The id of its own CALL.
const ASKED: &str = "asked";

fn is_call(message: &Value) -> bool {
    message[0] == 2
}

/// Reads frames up to the wanted message, and returns its id.
async fn heard(stream: &mut TcpStream, wanted: impl Fn(&Value) -> bool) -> std::io::Result<Value> {
    loop {
        let (first, second) = (stream.read_u8().await?, stream.read_u8().await?);
        let length = match second & 0x7f {
            126 => stream.read_u16().await?.into(),
            127 => stream.read_u64().await?,
            length => length.into(),
        };
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
        stream.read_exact(&mut payload).await?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        let message: Value = serde_json::from_slice(&payload).unwrap_or_default();
        if first == TEXT && wanted(&message) {
            return Ok(message[1].clone());
        }
    }
}
