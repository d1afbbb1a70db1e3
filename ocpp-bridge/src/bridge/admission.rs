//! One controller's way in: its request, who it is, the CSMS's answer, and only then our own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{http::StatusCode, protocol::Role},
};

use super::{
    door::{Knock, KnockError, refuse},
    seat::{Notice, Ready, SeatHandle},
    upstream::Failure,
};
use crate::{
    limits::{HANDSHAKE_TIMEOUT, REQUEST_TIMEOUT, TLS_TIMEOUT},
    link::connect::{Transport, bounds, tune},
    security::ServerTls,
};

/// What every admission needs.
#[derive(Debug)]
pub(super) struct Reception {
    pub(super) seats: Vec<SeatHandle>,
    pub(super) tls: Option<ServerTls>,
    /// Why each controller was refused last, and under no name whoever is none of them, so that a thousand equal refusals
    /// make one line.
    logged: Mutex<BTreeMap<Option<String>, Refused>>,
}

/// Why a controller isn't let in, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    identity: Option<String>,
    reason: String,
}

// === impl Reception ===

impl Reception {
    pub(super) fn new(tls: Option<ServerTls>) -> Self {
        Self { seats: Vec::new(), tls, logged: Mutex::default() }
    }

    /// Brings a connection to the seat of its controller, or refuses it.
    pub(super) async fn admit(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let Err(refused) = self.admit_inner(tcp).await else { return };
        let known = |name: &String| self.seats.iter().any(|seat| seat.identity == *name);
        let place = refused.identity.clone().filter(known);
        let before =
            self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(place, refused.clone());
        if before.as_ref() != Some(&refused) {
            let Refused { identity, reason } = refused;
            tracing::info!(%peer, identity, reason, "bridge-refused");
        }
    }

    async fn admit_inner(&self, tcp: TcpStream) -> Result<(), Refused> {
        tune(&tcp);
        let mut stream = self.secured(tcp).await?;
        let mut knock = match timeout(REQUEST_TIMEOUT, Knock::read(&mut stream)).await {
            Ok(Ok(knock)) => knock,
            Ok(Err(error)) => {
                if matches!(error, KnockError::Malformed(_)) {
                    refuse(&mut stream, StatusCode::BAD_REQUEST, None).await;
                }
                return Err(Refused::new(None, error.to_string()));
            }
            Err(_) => return Err(Refused::new(None, "it sent no request in time")),
        };
        let identity = knock.identity();
        let known = identity.as_ref().and_then(|name| self.seats.iter().find(|seat| seat.identity == *name));
        let Some(seat) = known else {
            refuse(&mut stream, StatusCode::NOT_FOUND, None).await;
            let reason = match &identity {
                Some(_) => "the bridge serves no controller of this name".to_owned(),
                None => format!(
                    "the path is {}, and has to be a slash and the controller's identity",
                    knock.path()
                ),
            };
            return Err(Refused::new(identity, reason));
        };
        if let Err(reason) = knock.acceptance(None) {
            refuse(&mut stream, StatusCode::BAD_REQUEST, None).await;
            return Err(Refused::new(identity, reason));
        }
        if let Some(expected) = &seat.expected
            && !knock.authorization().is_some_and(|shown| expected.are_shown_by(shown.as_bytes()))
        {
            refuse(&mut stream, StatusCode::UNAUTHORIZED, None).await;
            return Err(Refused::new(identity, "the controller shows no credentials, or wrong ones"));
        }

        seat.arrived().await;
        let fields = knock.passed_on();
        let upstream = seat.upstream();
        let connected = tokio::select! {
            connected = upstream.connect(fields, &seat.desk) => connected,
            () = leaves(&mut stream, &mut knock.early) => {
                seat.desk.waiting();
                return Err(Refused::new(identity, "the controller left before the CSMS had answered"));
            }
        };
        let (csms, url) = match connected {
            Ok(connected) => connected,
            Err(Failure { status, retry_after }) => {
                refuse(&mut stream, status, retry_after).await;
                return Err(Refused::new(identity, format!("the CSMS can't be connected to: HTTP {status}")));
            }
        };
        let authorization = knock.authorization().cloned();
        let answered = match knock.acceptance(csms.subprotocol.as_ref()) {
            Ok(answer) => {
                let answering = async {
                    stream.write_all(&answer).await?;
                    stream.flush().await
                };
                timeout(HANDSHAKE_TIMEOUT, answering).await
            }
            Err(reason) => return Err(Refused::new(identity, reason)),
        };
        if !matches!(answered, Ok(Ok(()))) {
            return Err(Refused::new(identity, "the controller left before it was answered"));
        }
        let controller =
            WebSocketStream::from_partially_read(stream, knock.early, Role::Server, Some(bounds())).await;
        seat.notify(Notice::Ready(Box::new(Ready { controller, csms, url, authorization }))).await;
        Ok(())
    }

    async fn secured(&self, tcp: TcpStream) -> Result<Box<dyn Transport>, Refused> {
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        match timeout(TLS_TIMEOUT, tls.acceptor().accept(tcp)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(Refused::new(None, format!("TLS: {error}"))),
            Err(_) => Err(Refused::new(None, "TLS: the controller said nothing in time")),
        }
    }
}

/// Returns when the controller has gone. What it sends early is kept, a piece of it: it has nothing to say as yet.
async fn leaves(stream: &mut Box<dyn Transport>, early: &mut Vec<u8>) {
    let mut piece = [0; 256];
    if let Ok(read @ 1..) = stream.read(&mut piece).await {
        early.extend_from_slice(piece.get(..read).unwrap_or_default());
        std::future::pending::<()>().await;
    }
}

// === impl Refused ===

impl Refused {
    fn new(identity: Option<String>, reason: impl Into<String>) -> Self {
        Self { identity, reason: reason.into() }
    }
}
