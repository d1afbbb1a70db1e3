//! SSH reverse tunnels that recover by themselves and tell the truth about their state.
//!
//! A tunnel connects to an OpenSSH-like server, asks it to listen, and hands each connection that arrives there to a
//! local service. This crate knows no OCPP and no policy: whoever calls [`spawn`] has decided that the tunnel may be.
//!
//! # Layout
//! - [`destination`], [`forward`]: what people and the CSMS write, parsed into strict types.
//! - [`route`]: the ports that are tried, and the HTTP proxy on the way.
//! - `connect`: from a route to a connection.
//! - [`state`]: what a tunnel does next, as a state machine without IO.
//! - [`task`]: the driver that runs one on tokio.
//! - `ssh`: the SSH connection; the only module that names russh's types.
//! - `stream`: the connection's socket: prompt while it shakes hands, reading ahead.
//! - `local_service`: where a forwarded connection leads, and where it must not.
//! - `pump`: the bytes of forwarded connections; `budget`: the memory that slow ones may take.
//! - `traffic`: what one tunnel carries; [`meter`]: what all of them do together; [`events`]: connections and keys, for whoever keeps records.
//! - [`probe`]: one connection, a step at a time, for who looks into a failure or installs our key.
//! - [`host_keys`]: whom we trust; [`scan`](mod@scan): a server's host keys, before it is trusted.
//! - [`device_keys`]: who we are, and how that changes; [`identity`], `dropbear_key`, `openssh_key` and [`certificate`] read the files.
//! - `files`: files are opened so that nothing can keep us waiting.
//! - [`limits`]: every bound.
//!
//! `spawn` → `task` asks [`state::Tunnel`] what to do → resolve, connect, `ssh::Session` → the server opens a channel
//! → `pump` connects it to the local service.
#![forbid(unsafe_code)]

mod budget;
pub mod certificate;
mod connect;
pub mod destination;
pub mod device_keys;
mod dropbear_key;
pub mod events;
pub mod failure;
mod files;
pub mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod host_keys;
pub mod identity;
mod key_ledger;
pub mod limits;
mod local_service;
pub mod meter;
mod openssh_key;
pub mod probe;
mod pump;
mod queue;
pub mod route;
pub mod scan;
mod ssh;
pub mod state;
mod stream;
pub mod task;
mod traffic;

pub use certificate::UserCertificate;
pub use destination::{Destination, Host, Server};
pub use device_keys::{DeviceKeys, KeyFault, KeyView};
pub use events::{ConnectionEnd, End, Event, Events};
pub use failure::{Failure, FailureKind, HostKeyFault};
pub use files::open_file;
pub use forward::{Forward, LocalTarget, Remote};
pub use host_keys::{Clock, HostKeyPolicy, HostKeys, KnownHost};
pub use http_connect::Proxy;
pub use identity::Identity;
pub use local_service::OwnListeners;
pub use meter::Meter;
pub use probe::Probe;
pub use route::{Peer, Route};
pub use state::{Plan, Reason, State};
pub use task::{Notice, Settings, Status, Tuning, TunnelHandle, spawn};
pub use traffic::Traffic;
