//! The controller and the CSMS of the benchmark: both in this process, so that one clock tells how long a message took.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

type Socket = WebSocketStream<TcpStream>;

/// Where the CSMS listens.
pub(crate) struct Csms {
    listener: TcpListener,
}

/// A controller's connection, and the end of it at the CSMS.
pub(crate) struct Pair {
    controller: Socket,
    csms: Socket,
}

/// Meter values as a controller sends them.
fn call(number: usize) -> String {
    format!(
        r#"[2,"{number}","MeterValues",{{"connectorId":1,"transactionId":17,"meterValue":[{{"timestamp":"2026-11-22T10:00:00Z","sampledValue":[{{"value":"{number}.5","measurand":"Energy.Active.Import.Register","unit":"Wh"}},{{"value":"16.0","measurand":"Current.Import","unit":"A","phase":"L1"}}]}}]}}]"#
    )
}

fn answer(number: usize) -> String {
    format!(r#"[3,"{number}",{{}}]"#)
}

// === impl Csms ===

impl Csms {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free") }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    /// Has a controller connect to `port`, and waits until it has come here.
    #[expect(clippy::result_large_err, reason = "the type of the callback is given")]
    pub(crate) async fn pair(&self, port: u16, identity: &str) -> Pair {
        let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let subprotocol = "ocpp1.6".parse().expect("it is a value");
            response.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
            Ok(response)
        };
        let accept = async {
            let (stream, _) = self.listener.accept().await.expect("it listens");
            stream.set_nodelay(true).expect("the socket is open");
            accept_hdr_async(stream, choose).await.expect("a WebSocket")
        };
        let (controller, csms) = tokio::join!(connect(port, identity), accept);
        let mut pair = Pair { controller, csms };
        pair.boot().await;
        pair
    }
}

async fn connect(port: u16, identity: &str) -> Socket {
    let mut request = format!("ws://127.0.0.1:{port}/{identity}").into_client_request().expect("it is a URL");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "ocpp1.6".parse().expect("it is a value"));
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("it listens");
    stream.set_nodelay(true).expect("the socket is open");
    client_async(request, stream).await.expect("a WebSocket").0
}

// === impl Pair ===

impl Pair {
    async fn boot(&mut self) {
        let boot = r#"[2,"boot","BootNotification",{"chargePointVendor":"A","chargePointModel":"B"}]"#;
        send(&mut self.controller, boot.to_owned()).await;
        while !next(&mut self.csms).await.contains("\"BootNotification\"") {}
        let accepted =
            r#"[3,"boot",{"status":"Accepted","interval":86400,"currentTime":"2026-11-22T10:00:00Z"}]"#;
        send(&mut self.csms, accepted.to_owned()).await;
        while !next(&mut self.controller).await.contains("\"Accepted\"") {}
    }

    /// How long each of so many messages takes on its way, one by one: CALLs to the CSMS, and their answers.
    pub(crate) async fn latencies(&mut self, calls: usize) -> Vec<Duration> {
        let mut latencies = Vec::with_capacity(2 * calls);
        for number in 0..calls {
            let began = Instant::now();
            send(&mut self.controller, call(number)).await;
            next(&mut self.csms).await;
            latencies.push(began.elapsed());
            let began = Instant::now();
            send(&mut self.csms, answer(number)).await;
            next(&mut self.controller).await;
            latencies.push(began.elapsed());
        }
        latencies
    }

    /// Messages a second, both ways together: CALLs and their answers, `window` of them under way.
    pub(crate) async fn messages_a_second(self, calls: usize, window: usize) -> f64 {
        let (to_csms, from_csms) = self.controller.split();
        let (to_controller, from_controller) = self.csms.split();
        let began = Instant::now();
        let csms = tokio::spawn(answer_all(from_controller, to_controller, calls, window / 2));
        call_all(from_csms, to_csms, calls, window).await;
        csms.await.expect("it doesn't panic");
        2.0 * calls as f64 / began.elapsed().as_secs_f64()
    }
}

/// Makes the CALLs, as many at once as the window has room for.
async fn call_all(
    mut from: SplitStream<Socket>,
    mut to: SplitSink<Socket, Message>,
    calls: usize,
    window: usize,
) {
    let (mut made, mut answered) = (0, 0);
    while answered < calls {
        while made < calls && made - answered < window {
            to.feed(Message::text(call(made))).await.expect("it is connected");
            made += 1;
        }
        to.flush().await.expect("it is connected");
        // Half of them, so that writing doesn't wake the other side for each.
        for _ in 0..(made - answered).div_ceil(2) {
            from.next().await.expect("it is connected").expect("a message");
            answered += 1;
        }
    }
}

/// Answers them in batches, as a server does that reads what there is.
async fn answer_all(
    mut from: SplitStream<Socket>,
    mut to: SplitSink<Socket, Message>,
    calls: usize,
    batch: usize,
) {
    for number in 0..calls {
        from.next().await.expect("it is connected").expect("a message");
        to.feed(Message::text(answer(number))).await.expect("it is connected");
        if (number + 1) % batch == 0 || number + 1 == calls {
            to.flush().await.expect("it is connected");
        }
    }
}

async fn send(socket: &mut Socket, text: String) {
    socket.send(Message::text(text)).await.expect("it is connected");
}

/// The next text.
async fn next(socket: &mut Socket) -> String {
    loop {
        let message = socket.next().await.expect("it is connected").expect("a message");
        if let Message::Text(text) = message {
            return text.to_string();
        }
    }
}
