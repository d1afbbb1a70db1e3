//! A CSMS for one charge point: OCPP 1.6J over WebSocket, with Basic authentication.
//!
//! It answers what a charge point sends on its own, and sends the CALLs that it is told to send. One connection at a
//! time is served; a new one takes the place of the old, as in real ones.

use std::collections::HashMap;

use chrono::{SecondsFormat, Utc};
use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::{Result, within};

/// Seconds between heartbeats, as BootNotification is answered.
pub(crate) const HEARTBEAT_SECONDS: u32 = 300;

/// What may wait to be sent; the demo sends one CALL after the other.
const CALLS: usize = 8;

/// BootNotifications that nobody has looked at yet.
const BOOTS: usize = 8;

/// A running CSMS. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Csms {
    port: u16,
    calls: mpsc::Sender<Call>,
    boots: mpsc::Receiver<Value>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Call {
    action: String,
    payload: Value,
    answer: oneshot::Sender<Result<Value>>,
}

impl Csms {
    /// Listens on a free port of 127.0.0.1 for the charge point with this identity and password.
    pub(crate) async fn start(identity: &str, password: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (calls, queue) = mpsc::channel(CALLS);
        let (booted, boots) = mpsc::channel(BOOTS);
        let gate = Gate {
            path: format!("/ocpp/{identity}"),
            authorization: format!("Basic {}", BASE64.encode(format!("{identity}:{password}").as_bytes())),
        };
        let task = tokio::spawn(accept(listener, gate, queue, booted));
        Ok(Self { port, calls, boots, task })
    }

    /// Its URL, without the identity.
    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ocpp", self.port)
    }

    /// Waits for the next BootNotification, and returns its payload.
    pub(crate) async fn boot(&mut self) -> Result<Value> {
        let boot = within("the agent's BootNotification", self.boots.recv()).await?;
        boot.ok_or_else(|| "the CSMS has ended".into())
    }

    /// Sends a CALL, and returns the payload of its answer.
    pub(crate) async fn call(&self, action: &str, payload: Value) -> Result<Value> {
        let (answer, answered) = oneshot::channel();
        let call = Call { action: action.to_owned(), payload, answer };
        self.calls.send(call).await.map_err(|_| "the CSMS has ended")?;
        within(&format!("the answer to {action}"), answered)
            .await?
            .map_err(|_| "the agent hung up on the CSMS")?
    }

    /// Sends ChangeConfiguration, and returns the status that it is answered with.
    pub(crate) async fn change(&self, key: &str, value: &str) -> Result<String> {
        let answer = self.call("ChangeConfiguration", json!({ "key": key, "value": value })).await?;
        Ok(text(&answer["status"]))
    }

    /// Sends GetConfiguration, and returns the values of the keys that the charge point knows.
    pub(crate) async fn get(&self, keys: &[&str]) -> Result<Vec<(String, String)>> {
        let payload = if keys.is_empty() { json!({}) } else { json!({ "key": keys }) };
        let answer = self.call("GetConfiguration", payload).await?;
        let entries = answer["configurationKey"].as_array().cloned().unwrap_or_default();
        Ok(entries.iter().map(|entry| (text(&entry["key"]), text(&entry["value"]))).collect())
    }
}

impl Drop for Csms {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A JSON string's text; other values as JSON writes them.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn accept(
    listener: TcpListener,
    gate: Gate,
    mut calls: mpsc::Receiver<Call>,
    boots: mpsc::Sender<Value>,
) {
    let mut next = None;
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let admit = |request: &Request, response| gate.admit(request, response);
    loop {
        let stream = match next.take() {
            Some(stream) => stream,
            None => match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => return,
            },
        };
        // A small frame that waits for the acknowledgement of the one before waits 40 ms.
        let _ = stream.set_nodelay(true);
        let handshake = tokio_tungstenite::accept_hdr_async(stream, admit);
        let Ok(socket) = handshake.await else { continue };
        tokio::select! {
            () = serve(socket, &mut calls, &boots) => {}
            Ok((stream, _)) = listener.accept() => next = Some(stream),
        }
    }
}

/// Who is let in.
#[derive(Debug)]
struct Gate {
    path: String,
    authorization: String,
}

impl Gate {
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    fn admit(
        &self,
        request: &Request,
        mut response: Response,
    ) -> std::result::Result<Response, ErrorResponse> {
        let header =
            |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if request.uri().path() != self.path {
            return Err(refusal(StatusCode::NOT_FOUND, "unknown charge point"));
        }
        if header(AUTHORIZATION) != self.authorization {
            return Err(refusal(StatusCode::UNAUTHORIZED, "wrong credentials"));
        }
        if header(SEC_WEBSOCKET_PROTOCOL).split(',').any(|offer| offer.trim() == "ocpp1.6") {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("ocpp1.6"));
        }
        Ok(response)
    }
}

fn refusal(status: StatusCode, why: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(why.to_owned()));
    *response.status_mut() = status;
    response
}

async fn serve(
    mut socket: WebSocketStream<TcpStream>,
    calls: &mut mpsc::Receiver<Call>,
    boots: &mpsc::Sender<Value>,
) {
    let mut outstanding: HashMap<String, oneshot::Sender<Result<Value>>> = HashMap::new();
    let mut number = 0_u32;
    loop {
        let frame = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(frame))) => receive(&frame, &mut outstanding, boots),
                Some(Ok(_)) => None,
                Some(Err(_)) | None => return,
            },
            Some(call) = calls.recv() => {
                number += 1;
                outstanding.insert(number.to_string(), call.answer);
                Some(json!([2, number.to_string(), call.action, call.payload]))
            }
        };
        let Some(frame) = frame else { continue };
        if socket.send(Message::Text(Utf8Bytes::from(frame.to_string()))).await.is_err() {
            return;
        }
    }
}

/// Takes a frame from the charge point, and returns the answer that it wants, if any.
fn receive(
    frame: &str,
    outstanding: &mut HashMap<String, oneshot::Sender<Result<Value>>>,
    boots: &mpsc::Sender<Value>,
) -> Option<Value> {
    let frame: Value = serde_json::from_str(frame).ok()?;
    let id = frame[1].as_str()?;
    match frame[0].as_u64()? {
        2 => {
            let action = frame[2].as_str()?;
            if action == "BootNotification" {
                let _ = boots.try_send(frame[3].clone());
            }
            Some(match answer_to(action) {
                Some(payload) => json!([3, id, payload]),
                None => json!([4, id, "NotImplemented", "", {}]),
            })
        }
        3 => {
            let _ = outstanding.remove(id)?.send(Ok(frame[2].clone()));
            None
        }
        4 => {
            let _ =
                outstanding.remove(id)?.send(Err(format!("{}: {}", text(&frame[2]), text(&frame[3])).into()));
            None
        }
        _ => None,
    }
}

fn answer_to(action: &str) -> Option<Value> {
    let now = || json!(Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true));
    match action {
        "BootNotification" => {
            Some(json!({ "status": "Accepted", "currentTime": now(), "interval": HEARTBEAT_SECONDS }))
        }
        "Heartbeat" => Some(json!({ "currentTime": now() })),
        "DataTransfer" => Some(json!({ "status": "Accepted" })),
        "StatusNotification" | "SecurityEventNotification" => Some(json!({})),
        _ => None,
    }
}
