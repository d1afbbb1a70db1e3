//! An OCPP 1.6J charge point endpoint, for programs that offer a CSMS configuration keys of their own.
//!
//! # Layout
//!
//! - [`configuration`]: the registry of configuration keys, the standard's and the embedder's;
//! - [`charge_point`]: the charge point as a state machine without IO: texts and time in, texts and events out;
//! - [`frame`]: OCPP-J framing, CALL, CALLRESULT and CALLERROR;
//! - [`security`]: security profiles, Basic authentication, TLS;
//! - [`link`](mod@link): the async driver that keeps a WebSocket to a CSMS up and feeds the state machine;
//! - [`limits`]: every bound, with its reason.
//!
//! Most programs register their keys, spawn [`link::run`] and talk to it over channels. Tests, and
//! programs with a transport of their own, drive [`ChargePoint`] directly.
#![forbid(unsafe_code)]

pub mod charge_point;
pub mod configuration;
pub mod frame;
pub mod limits;
pub mod link;
pub mod security;

pub use charge_point::{BootInfo, ChargePoint, Event, RequestId, Settings};
pub use configuration::{Access, Registry};
pub use link::{Backoff, Command, LinkSettings, LinkState, LinkStatus, Url};
pub use rust_ocpp::v1_6::types::{ConfigurationStatus, RegistrationStatus};
pub use security::{AuthorizationKey, Credentials, LinkSecurity, TlsSettings};
