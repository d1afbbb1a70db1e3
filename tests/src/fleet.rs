//! Many controllers and their CSMS, which talk, hang up and break their connections for as long as wanted, and notice
//! every text between them that is lost, doubled, out of order, changed, or somebody else's.
//!
//! Each text names who said it, in which connection, and its number there. Both ends are in this process, so that what one
//! has sent can be compared with what the other has heard: whoever closes in order must have been heard to the end, and
//! the other side hears the same close code.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

type Socket = WebSocketStream<TcpStream>;

/// Before it connects again, a controller waits so long, and up to three times as long.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest that a side talks before it ends the connection.
const TALK: Duration = Duration::from_secs(4);
/// How long the other side may take to answer a close frame, or to end the connection in its turn.
const FAREWELL: Duration = Duration::from_secs(15);
/// The longest filler in a text, in bytes.
const FILLER: usize = 20_000;
/// One fault brings others after it: more of them say nothing new.
const MAX_FAULTS: usize = 20;
/// Between two CALLs of a side.
const GAP: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Controller,
    Csms,
}

/// How a side left a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// It sent a close frame with this code, after so many texts.
    Closed { code: u16, sent: u64 },
    /// It broke it.
    Cut,
    /// It heard a close frame with this code, after so many texts.
    Heard { code: Option<u16>, received: u64 },
    /// It was broken.
    Lost,
    /// Outside events broke it: nothing can be said of it.
    Disturbed,
}

/// What has happened so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Connections that carried something.
    pub connections: u64,
    /// Texts that arrived, of both sides.
    pub texts: u64,
    /// Connections that one side closed in order, and the other heard to the end.
    pub closed: u64,
    /// What a CSMS was answered by the agent itself.
    pub own_answers: u64,
    /// What went wrong.
    pub faults: Vec<String>,
}

#[derive(Debug, Default)]
struct Board {
    tally: Tally,
    /// Grows whenever something from outside begins to break connections, and whenever it has ended.
    disturbances: u64,
    /// The end that one side has made of a connection, until the other's is known.
    ends: HashMap<u64, (Side, End)>,
    next_connection: u64,
}

/// Controllers and a CSMS. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    board: Arc<Mutex<Board>>,
    port: u16,
    csms: JoinHandle<()>,
    talking: watch::Sender<bool>,
    controllers: JoinSet<()>,
}

/// The identity of a controller.
pub fn identity(number: usize) -> String {
    format!("CP{number:03}")
}

// === impl Fleet ===

impl Fleet {
    /// Starts the CSMS, and no controller as yet.
    pub async fn start() -> Self {
        let board = Arc::new(Mutex::new(Board::default()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let csms = tokio::spawn(serve(listener, Arc::clone(&board)));
        Self { board, port, csms, talking: watch::Sender::new(true), controllers: JoinSet::new() }
    }

    /// The CSMS's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets so many controllers talk through the bridge at `port`.
    pub fn talk(&mut self, controllers: usize, port: u16) {
        self.talking.send_replace(true);
        for number in 1..=controllers {
            let (board, talking) = (Arc::clone(&self.board), self.talking.subscribe());
            self.controllers.spawn(live(identity(number), port, board, talking));
        }
    }

    /// Waits until every controller has ended its connection.
    pub async fn hush(&mut self) {
        self.talking.send_replace(false);
        while let Some(ended) = self.controllers.join_next().await {
            ended.expect("no controller panics");
        }
    }

    /// Does something that breaks connections on its own.
    pub async fn disturb(&mut self, what: impl AsyncFnOnce()) {
        lock(&self.board).disturbances += 1;
        what().await;
        lock(&self.board).disturbances += 1;
    }

    /// Takes the CSMS away for so long.
    pub async fn outage(&mut self, length: Duration) {
        lock(&self.board).disturbances += 1;
        self.csms.abort();
        let _ = (&mut self.csms).await;
        sleep(length).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.expect("the port is ours");
        self.csms = tokio::spawn(serve(listener, Arc::clone(&self.board)));
        lock(&self.board).disturbances += 1;
    }

    /// What has happened so far.
    pub fn tally(&self) -> Tally {
        lock(&self.board).tally.clone()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.csms.abort();
    }
}

// === impl Board ===

impl Board {
    /// Notes what went wrong, unless there is enough of it.
    fn fault(&mut self, fault: String) {
        if self.tally.faults.len() < MAX_FAULTS {
            self.tally.faults.push(fault);
        }
    }

    /// One side is done with a connection. Once both are, what they say is compared.
    fn ended(&mut self, connection: u64, side: Side, end: End) {
        let Some((_, other)) = self.ends.remove(&connection) else {
            self.ends.insert(connection, (side, end));
            return;
        };
        match (&end, &other) {
            (End::Closed { code, sent }, End::Heard { code: heard, received })
            | (End::Heard { code: heard, received }, End::Closed { code, sent }) => {
                if (Some(*code), sent) == (*heard, received) {
                    self.tally.closed += 1;
                } else {
                    let fault = format!(
                        "connection {connection}: closed with {code} after {sent} texts, heard {heard:?} after {received}"
                    );
                    self.fault(fault);
                }
            }
            // Neither side has broken it: nothing but the bridge was in between.
            (End::Closed { .. } | End::Heard { .. }, End::Lost | End::Heard { .. })
            | (End::Lost, End::Closed { .. } | End::Heard { .. } | End::Lost) => {
                self.fault(format!("connection {connection}: {end:?} at {side:?}, {other:?}"));
            }
            _ => {}
        }
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

// === the controllers ===

async fn live(identity: String, port: u16, board: Arc<Mutex<Board>>, talking: watch::Receiver<bool>) {
    while *talking.borrow() {
        if let Ok(Ok(socket)) = timeout(FAREWELL, connect(&identity, port)).await {
            let connection = {
                let mut board = lock(&board);
                board.next_connection += 1;
                board.next_connection
            };
            let mut talk = Talk::new(Side::Controller, identity.clone(), &board);
            talk.connection = Some(connection);
            talk.run(socket).await;
        }
        sleep(PAUSE + PAUSE.mul_f32(2.0 * fastrand::f32())).await;
    }
}

async fn connect(identity: &str, port: u16) -> Result<Socket, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let mut request = format!("ws://127.0.0.1:{port}/{identity}").into_client_request()?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", "ocpp1.6".parse()?);
    Ok(client_async(request, stream).await?.0)
}

// === the CSMS ===

async fn serve(listener: TcpListener, board: Arc<Mutex<Board>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(receive(stream, Arc::clone(&board)));
        while connections.try_join_next().is_some() {}
    }
}

#[expect(clippy::result_large_err, reason = "the type of the callback is given")]
async fn receive(stream: TcpStream, board: Arc<Mutex<Board>>) {
    let mut identity = String::new();
    let choose = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        request.uri().path().trim_start_matches('/').clone_into(&mut identity);
        let subprotocol = "ocpp1.6".parse().expect("it is a value");
        response.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
        Ok(response)
    };
    let _ = stream.set_nodelay(true);
    if let Ok(socket) = accept_hdr_async(stream, choose).await {
        Talk::new(Side::Csms, identity, &board).run(socket).await;
    }
}

// === one side of a connection ===

struct Talk<'a> {
    side: Side,
    identity: String,
    board: &'a Mutex<Board>,
    /// Its number, which the CSMS learns from the first text.
    connection: Option<u64>,
    disturbances: u64,
    sent: u64,
    received: u64,
    /// The CALL of this side that waits for its answer.
    asked: Option<String>,
}

impl<'a> Talk<'a> {
    fn new(side: Side, identity: String, board: &'a Mutex<Board>) -> Self {
        let disturbances = lock(board).disturbances;
        Self { side, identity, board, connection: None, disturbances, sent: 0, received: 0, asked: None }
    }

    async fn run(&mut self, mut socket: Socket) {
        let end = self.talk(&mut socket).await;
        let mut board = lock(self.board);
        let Some(connection) = self.connection else { return };
        let disturbed = board.disturbances != self.disturbances || self.disturbances % 2 == 1;
        board.ended(connection, self.side, if disturbed { End::Disturbed } else { end });
        if self.side == Side::Csms {
            board.tally.connections += 1;
        }
    }

    async fn talk(&mut self, socket: &mut Socket) -> End {
        let end = Instant::now() + TALK.mul_f32(fastrand::f32());
        let mut next_call = Instant::now();
        loop {
            let may_call = self.connection.is_some() && self.asked.is_none();
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        if let Some(answer) = self.hear(&text)
                            && socket.send(Message::text(answer)).await.is_err()
                        {
                            return End::Lost;
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        // The reply is on its way; the connection ends with it.
                        let _ = timeout(FAREWELL, async { while let Some(Ok(_)) = socket.next().await {} }).await;
                        let code = frame.map(|frame| frame.code.into());
                        return End::Heard { code, received: self.received };
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return End::Lost,
                },
                () = sleep_until(next_call), if may_call => {
                    let text = self.call();
                    if socket.send(Message::text(text)).await.is_err() {
                        return End::Lost;
                    }
                    next_call = Instant::now() + GAP.mul_f32(fastrand::f32());
                }
                () = sleep_until(end), if self.connection.is_some() => return self.leave(socket).await,
            }
        }
    }

    async fn leave(&mut self, socket: &mut Socket) -> End {
        if fastrand::bool() {
            return End::Cut;
        }
        let code = *fastrand::choice(&[1000, 1001, 4000, 4999]).expect("there are some");
        let reason = format!("connection {}", self.connection.unwrap_or_default());
        let sent = self.sent;
        let closing = async {
            socket
                .send(Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() })))
                .await?;
            while let Some(message) = socket.next().await {
                match message? {
                    Message::Text(text) => drop(self.hear(&text)),
                    // It closed at the same moment.
                    Message::Close(frame) => return Ok(frame.map(|frame| u16::from(frame.code))),
                    _ => {}
                }
            }
            Ok::<_, tokio_tungstenite::tungstenite::Error>(None)
        };
        match timeout(FAREWELL, closing).await {
            Ok(Ok(_)) => End::Closed { code, sent },
            // The other side went its own way before it could answer.
            Ok(Err(_)) => End::Cut,
            Err(_) => End::Lost,
        }
    }

    /// The next CALL of this side.
    fn call(&mut self) -> String {
        let action = match self.side {
            // Now and then, something that is the agent's to answer.
            Side::Csms if self.identity == identity(1) && fastrand::u8(..) < 32 => {
                return r#"[2,"ours","GetConfiguration",{"key":["SSHClientKey"]}]"#.to_owned();
            }
            _ => "DataTransfer",
        };
        let id = self.sent.to_string();
        let text =
            format!(r#"[2,"{id}","{action}",{{"vendorId":"com.example","data":"{}"}}]"#, self.signature());
        self.asked = Some(id);
        text
    }

    /// What is said in a text: who, where, which one, and a filler of a length that follows from these.
    fn signature(&mut self) -> String {
        let connection = self.connection.unwrap_or_default();
        let signature = sign(self.side, &self.identity, connection, self.sent);
        self.sent += 1;
        signature
    }

    /// Judges a text, and says how it is answered.
    fn hear(&mut self, text: &str) -> Option<String> {
        let Some((_, rest)) = text.split_once(r#","data":""#) else { return self.hear_own(text) };
        let (said, _) = rest.split_once('"')?;
        let named = said.split('/').nth(2).and_then(|number| number.parse().ok());
        let connection = *self.connection.get_or_insert(named.unwrap_or_default());
        let other = if self.side == Side::Csms { Side::Controller } else { Side::Csms };
        let expected = sign(other, &self.identity, connection, self.received);
        self.received += 1;
        let mut board = lock(self.board);
        board.tally.texts += 1;
        if said != expected {
            let short = |text: &str| text.chars().take(60).collect::<String>();
            let fault = format!("{:?} heard {:?} instead of {:?}", self.side, short(said), short(&expected));
            board.fault(fault);
        }
        drop(board);
        let id = text.split('"').nth(1)?.to_owned();
        if text.starts_with("[2,") {
            return Some(format!(r#"[3,"{id}",{{"status":"Accepted","data":"{}"}}]"#, self.signature()));
        }
        if self.asked.take().as_ref() != Some(&id) {
            lock(self.board).fault(format!("{:?}: an answer to {id}, unasked", self.side));
        }
        None
    }

    /// What the agent says to the CSMS.
    fn hear_own(&mut self, text: &str) -> Option<String> {
        let mut board = lock(self.board);
        if self.side == Side::Controller {
            board.fault(format!("a controller heard {text}"));
            return None;
        }
        board.tally.own_answers += u64::from(text.starts_with(r#"[3,"ours","#));
        let id = text.split('"').nth(1).filter(|_| text.starts_with("[2,"))?;
        let status = if text.contains("DataTransfer") { r#""status":"Accepted""# } else { "" };
        Some(format!(r#"[3,"{id}",{{{status}}}]"#))
    }
}

fn sign(side: Side, identity: &str, connection: u64, number: u64) -> String {
    let mut length = fastrand::Rng::with_seed(connection << 20 | number);
    // Mostly short, as messages are.
    let length = if length.u8(..) < 16 { length.usize(..FILLER) } else { length.usize(..200) };
    format!("{side:?}/{identity}/{connection}/{number}/{}", "x".repeat(length))
}
