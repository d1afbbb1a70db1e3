//! A small CSMS: it does what the test says, and nothing else.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::HeaderMap,
        protocol::frame::coding::CloseCode,
    },
};

use crate::PATIENCE;

pub(crate) struct Csms {
    listener: TcpListener,
    pub(crate) url: String,
}

/// One charge point's connection.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) socket: WebSocketStream<S>,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// What a CSMS answers to the WebSocket handshake.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Subprotocol(Option<&'static str>),
    Status(u16),
    /// A status with `Retry-After` in seconds.
    Busy(u16, u32),
}

impl Csms {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ocpp", listener.local_addr().unwrap());
        Self { listener, url }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        timeout(PATIENCE, self.listener.accept()).await.expect("nobody connects").unwrap().0
    }

    pub(crate) async fn accept(&self) -> Peer {
        Peer::accept(self.tcp().await, Answer::Subprotocol(Some("ocpp1.6"))).await.unwrap()
    }

    /// Accepts a charge point and its BootNotification.
    pub(crate) async fn accept_boot(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.answer_boot(
            json!({"status": "Accepted", "interval": 300, "currentTime": "2026-11-21T10:00:00Z"}),
        )
        .await;
        peer
    }

    /// Answers one handshake in a way that isn't to lead to a connection.
    pub(crate) async fn refuse(&self, answer: Answer) {
        let _ = Peer::accept(self.tcp().await, answer).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    #[expect(clippy::result_large_err, reason = "the type of the callback is given")]
    pub(crate) async fn accept(stream: S, answer: Answer) -> Result<Self, Box<dyn std::error::Error>> {
        let seen = Arc::new(Mutex::new((String::new(), HeaderMap::new())));
        let callback_seen = Arc::clone(&seen);
        let callback = move |request: &Request, mut response: Response| {
            *callback_seen.lock().unwrap() = (request.uri().to_string(), request.headers().clone());
            match answer {
                Answer::Subprotocol(None) => {}
                Answer::Subprotocol(Some(name)) => {
                    response.headers_mut().insert("Sec-WebSocket-Protocol", name.parse().unwrap());
                }
                Answer::Status(status) | Answer::Busy(status, _) => {
                    let mut refusal = ErrorResponse::new(None);
                    *refusal.status_mut() = status.try_into().unwrap();
                    if let Answer::Busy(_, seconds) = answer {
                        refusal.headers_mut().insert("Retry-After", seconds.into());
                    }
                    return Err(refusal);
                }
            }
            Ok(response)
        };
        let socket = timeout(PATIENCE, accept_hdr_async(stream, callback)).await??;
        let (path, headers) = seen.lock().unwrap().clone();
        Ok(Self { socket, path, headers })
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message that isn't a ping, which is answered on the way.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("nothing comes") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn receive(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Answers BootNotification, and the status that follows an acceptance.
    pub(crate) async fn answer_boot(&mut self, payload: Value) {
        let boot = self.receive().await;
        assert_eq!(boot[2], "BootNotification");
        self.send(json!([3, boot[1], payload])).await;
        if payload["status"] == "Accepted" {
            let status = self.receive().await;
            assert_eq!(status[2], "StatusNotification");
            self.send(json!([3, status[1], {}])).await;
        }
    }

    /// Sends a CALL and returns its answer, which must be the next message.
    pub(crate) async fn call(&mut self, id: &str, action: &str, payload: Value) -> Value {
        self.send(json!([2, id, action, payload])).await;
        self.receive().await
    }

    /// The code of the close frame that must come next.
    pub(crate) async fn close_code(&mut self) -> CloseCode {
        match self.next().await {
            Some(Message::Close(Some(frame))) => frame.code,
            other => panic!("{other:?}"),
        }
    }
}
