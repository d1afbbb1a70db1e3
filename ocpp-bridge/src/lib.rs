//! An OCPP 1.6J charge point endpoint, for programs that offer a CSMS configuration keys of their own.
//!
//! It is for devices and agents that are a charge point without a vehicle's side: boot, heartbeat, configuration, triggers, reset of the
//! link, DataTransfer, uploads of logs and the security profiles are whole; transactions, reservations and the like are
//! answered as the standard wants it of who hasn't got them. A device that has a vehicle's side names the actions that it serves itself
//! ([`Settings::actions`]) and sends what it has to say as CALLs of its own ([`ChargePoint::call`]).
//!
//! # Layout
//!
//! - [`configuration`]: the registry of configuration keys, the standard's and the embedder's;
//! - [`charge_point`]: the charge point as a state machine without IO: texts and time in, texts and events out;
//! - [`frame`]: OCPP-J framing, CALL, CALLRESULT and CALLERROR;
//! - [`security`]: security profiles, Basic authentication, TLS;
//! - [`link`](mod@link): the async driver that keeps a WebSocket to a CSMS up and feeds the state machine;
//! - [`bridge`]: the transparent proxy between controllers and their CSMS;
//! - [`upload`]: logs and diagnostics that the CSMS asks for;
//! - [`limits`]: every bound, with its reason.
//!
//! # Embedding it
//!
//! Most programs register their keys, spawn [`link::run`] and talk to it over channels: `examples/minimal.rs` is all
//! that takes.
//!
//! # Another transport
//!
//! Tests, and programs with a WebSocket, a runtime or a proxy of their own, drive [`ChargePoint`] directly. It has no IO and
//! no clock:
//!
//! 1. Inputs: [`handle_connected`](ChargePoint::handle_connected) once a WebSocket with the subprotocol `ocpp1.6` is
//!    up, [`handle_text`](ChargePoint::handle_text) for each text while
//!    [`wants_text`](ChargePoint::wants_text) allows it (otherwise don't read: that is how a CSMS is slowed down),
//!    [`handle_timeout`](ChargePoint::handle_timeout) when the time of
//!    [`poll_timeout`](ChargePoint::poll_timeout) has come,
//!    [`handle_disconnected`](ChargePoint::handle_disconnected) at the end; and the embedder's answers.
//! 2. After every input, outputs until there are no more: [`poll_transmit`](ChargePoint::poll_transmit), each a text to
//!    send as one message, and [`poll_event`](ChargePoint::poll_event).
//! 3. Then wait for the next input or for `poll_timeout`, which every input may change.
//!
//! Pings, reconnecting and its back-off are the transport's: [`ChargePoint::ping_interval`] says what the CSMS wants, which is
//! nothing before the key `WebSocketPingInterval` has a value: give it the transport's by
//! [`set_value`](ChargePoint::set_value). `AuthorizationKey` and `SecurityProfile` are keys that the embedder registers. Once
//! [`ChargePoint::is_resetting`] and nothing is left to transmit, the connection is to be closed and made anew.
//!
//! ```
//! use std::time::Instant;
//!
//! use ocpp_bridge::{Access, BootInfo, ChargePoint, ConfigurationStatus, Event, LinkSecurity, Registry, Settings};
//!
//! let mut registry = Registry::new(0);
//! registry.register("InvokeCustomScript1", Access::ReadWrite)?;
//! let boot = BootInfo {
//!     vendor: "ACME".to_owned(),
//!     model: "Box".to_owned(),
//!     serial_number: None,
//!     firmware_version: None,
//! };
//! let mut charge_point = ChargePoint::new(Settings::new(boot), registry, fastrand::Rng::new());
//!
//! // A WebSocket is up: BootNotification is the first thing to send.
//! charge_point.handle_connected(Instant::now(), LinkSecurity::default());
//! assert!(charge_point.poll_transmit().is_some_and(|text| text.contains("BootNotification")));
//!
//! // The CSMS asks for something that only the embedder can decide.
//! let text = r#"[2,"17","ChangeConfiguration",{"key":"invokecustomscript1","value":"ops@example.com"}]"#;
//! charge_point.handle_text(Instant::now(), text);
//! let Some(Event::ChangeConfiguration { request, key, .. }) = charge_point.poll_event() else { panic!() };
//! assert_eq!(key, "InvokeCustomScript1");
//! charge_point.answer_change(request, ConfigurationStatus::Accepted);
//! charge_point.set_value(&key, Some("ops@example.com".to_owned()));
//! assert_eq!(charge_point.poll_transmit().as_deref(), Some(r#"[3,"17",{"status":"Accepted"}]"#));
//!
//! // Until this time nothing happens by itself.
//! assert!(charge_point.poll_timeout().is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod bridge;
pub mod charge_point;
pub mod configuration;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
pub mod link;
pub mod security;
pub mod upload;

pub use chrono;
pub use fastrand;
pub use http_connect::Proxy;
pub use serde_json::value::RawValue;

pub use bridge::{
    Bridge, BridgeSettings, ControllerState, ControllerStatus, Filter, LegFigures, RescueSettings,
};
pub use charge_point::{
    BootInfo, Call, CallId, ChargePoint, Event, Full, Outcome, Reply, Report, RequestId, Settings, Vendor,
};
pub use configuration::{Access, Registry};
pub use link::{
    Attempt, AttemptError, Attempts, Backoff, Command, ConnectionProfile, LinkFault, LinkSettings, LinkState,
    LinkStatus, Url,
};
pub use rust_ocpp::v1_6::types::{ConfigurationStatus, DataTransferStatus, RegistrationStatus};
pub use security::{
    AuthorizationKey, ClientCertificate, Credentials, LinkSecurity, ServerTls, TlsSettings, Validity,
};
pub use upload::{LogKind, UploadAnswer, UploadRequest, UploadStatus, UploadSubject};
