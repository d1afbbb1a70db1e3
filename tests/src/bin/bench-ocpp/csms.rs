//! A CSMS that asks as fast as it is answered.

use std::net::Ipv4Addr;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// The CSMS, and its connection.
pub(crate) struct Peer {
    listener: TcpListener,
    socket: Option<WebSocketStream<TcpStream>>,
}

/// A CALL as CSMSs make it: one key is asked for.
pub(crate) fn question(number: usize) -> String {
    format!(r#"[2,"{number}","GetConfiguration",{{"key":["HeartbeatInterval"]}}]"#)
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        Self { listener, socket: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.listener.local_addr().expect("it is bound"))
    }

    /// Accepts the charge point and its boot.
    #[expect(clippy::result_large_err, reason = "the type of the callback is given")]
    pub(crate) async fn accept(&mut self) {
        let (stream, _) = self.listener.accept().await.expect("it listens");
        stream.set_nodelay(true).expect("the socket is open");
        let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let subprotocol = "ocpp1.6".parse().expect("it is a value");
            response.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, choose).await.expect("a WebSocket");
        let boot = next(&mut socket).await;
        let id = boot.split('"').nth(1).expect("a CALL has an id");
        let accepted = format!(
            r#"[3,"{id}",{{"status":"Accepted","interval":86400,"currentTime":"2026-11-21T10:00:00Z"}}]"#
        );
        socket.send(Message::text(accepted)).await.expect("it is connected");
        self.socket = Some(socket);
    }

    /// Makes so many calls, with `window` of them under way; calls a second.
    pub(crate) async fn calls(&mut self, calls: usize, window: usize) -> f64 {
        let socket = self.socket.as_mut().expect("it was accepted");
        let began = Instant::now();
        for number in 0..calls + window {
            if number < calls {
                socket.send(Message::text(question(number))).await.expect("it is connected");
            }
            if number >= window {
                while !next(socket).await.starts_with("[3,") {}
            }
        }
        calls as f64 / began.elapsed().as_secs_f64()
    }
}

/// The next text.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        let message = socket.next().await.expect("it is connected").expect("a message");
        if let Message::Text(text) = message {
            return text.to_string();
        }
    }
}
