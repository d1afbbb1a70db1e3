//! The status document: what `ocpp-tunnel status --json` prints. Scripts rely on its names.

use std::sync::Arc;
use std::time::Instant;

use ocpp_bridge::{ControllerStatus, LegFigures, LinkStatus};
use reverse_tunnel::limits::NOTICE;
use reverse_tunnel::{DeviceKeys, Identity};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::advice;
use crate::agent::Purpose;
use crate::audit::Health;
use crate::clock;
use crate::journal::RemoteView;
use crate::link_security::SecurityView;
use crate::reload::ConfigurationView;
use crate::report::ReportsView;
use crate::service::sandbox::Sandbox;
use crate::supervisor::View;
use crate::usage::UsageView;

/// The parts of an agent that can be looked at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the agent is there for.
    pub purpose: Purpose,
    /// When the agent started.
    pub started: Instant,
    /// `ocpp.mode`.
    pub mode: &'static str,
    /// The configuration, and what is wrong with its files.
    pub configuration: watch::Receiver<ConfigurationView>,
    /// What the process has given up.
    pub sandbox: Sandbox,
    /// The OCPP link; none in mode `off`.
    pub ocpp: Option<watch::Receiver<LinkStatus>>,
    /// What the link proves itself with; none in mode `off`.
    pub security: Option<watch::Receiver<SecurityView>>,
    /// What waits to be reported there; none where nothing is reported.
    pub reports: Option<watch::Receiver<ReportsView>>,
    /// How it goes with each controller; empty but in mode `bridge`.
    pub controllers: Vec<watch::Receiver<ControllerStatus>>,
    /// The tunnels.
    pub views: watch::Receiver<Vec<View>>,
    /// What they have carried this month.
    pub usage: watch::Receiver<UsageView>,
    /// Our own keys.
    pub keys: Arc<DeviceKeys>,
    /// How the audit records fare.
    pub audit: watch::Receiver<Health>,
    /// How the log's collector is reached, if there is one.
    pub remote_log: Option<RemoteView>,
}

impl Observed {
    /// The document, schema 1. Times are RFC 3339, absent values `null`.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "schema": 1,
            "agent": {
                "version": env!("CARGO_PKG_VERSION"),
                "purpose": self.purpose.word(),
                "since": clock::rfc3339(clock::wall(self.started)),
                "pid": std::process::id(),
            },
            "clock": clock::word(),
            "configuration": self.configuration(),
            "sandbox": {
                "landlock": self.sandbox.landlock.word(),
                "reason": self.sandbox.landlock.reason(),
                "no_new_privs": self.sandbox.no_new_privs,
            },
            "ocpp": self.ocpp(),
            "month": self.month(),
            "device_key": self.device_key(),
            "audit": self.audit(),
            "log": self.log(),
            "tunnels": self.views.borrow().iter().map(tunnel).collect::<Vec<_>>(),
        })
    }

    fn configuration(&self) -> Value {
        let view = self.configuration.borrow();
        json!({
            "files": view.files,
            "since": clock::rfc3339(clock::wall(view.since)),
            "restart_needed": view.restart,
            "error": view.error,
        })
    }

    fn month(&self) -> Value {
        let usage = self.usage.borrow();
        json!({
            "name": usage.month.map(|month| month.to_string()),
            "bytes": usage.bytes(),
            "cap": usage.cap,
        })
    }

    fn device_key(&self) -> Value {
        let view = self.keys.view();
        let view = view.borrow();
        json!({
            "fingerprint": view.key.as_ref().map(Identity::fingerprint),
            "error": view.fault.as_ref().map(|fault| &fault.text),
            "cure": view.fault.as_ref().map(|fault| &fault.cure),
        })
    }

    fn audit(&self) -> Value {
        let health = self.audit.borrow();
        json!({
            "state": if health.error.is_none() { "ok" } else { "failing" },
            "error": health.error,
            "lost": health.lost,
        })
    }

    fn log(&self) -> Value {
        let status = self.remote_log.as_ref().map(RemoteView::status);
        json!({
            "remote": status.map(|status| json!({
                "collector": status.collector,
                "error": status.error,
                "dropped": status.dropped,
            })),
        })
    }

    fn ocpp(&self) -> Value {
        let Some(status) = self.ocpp.as_ref().map(|status| status.borrow().clone()) else {
            return json!({
                "mode": self.mode, "state": "off", "url": null, "profile": null, "since": null, "last_error": null, "cure": null,
                "security_profile": null, "security_change": null,
                "reports": null, "controllers": [],
            });
        };
        let security = self.security.as_ref().map(|security| security.borrow().clone()).unwrap_or_default();
        json!({
            "mode": self.mode,
            "state": status.state.to_string(),
            "url": Some(&status.url).filter(|url| !url.is_empty()),
            "profile": status.profile,
            "since": clock::rfc3339(clock::wall(status.since)),
            "last_error": status.last_error,
            "cure": advice::for_link(&status),
            "security_profile": security.profile,
            "security_change": security.change,
            "reports": self.reports.as_ref().map(|reports| {
                let reports = reports.borrow();
                json!({ "waiting": reports.waiting, "dropped": reports.dropped })
            }),
            "controllers": self.controllers.iter().map(|it| controller(&it.borrow())).collect::<Vec<_>>(),
        })
    }
}

/// A controller's two legs; times are whole milliseconds.
fn controller(status: &ControllerStatus) -> Value {
    let wall = |moment: Instant| clock::rfc3339(clock::wall(moment));
    let leg = |figures: LegFigures| {
        json!({
            "since": wall(figures.since),
            "frames_in": figures.frames_in,
            "bytes_in": figures.bytes_in,
            "frames_out": figures.frames_out,
            "bytes_out": figures.bytes_out,
            "last_frame": figures.last_frame.map(wall),
            "round_trip_ms": figures.round_trip.map(|time| time.as_millis()),
        })
    };
    json!({
        "identity": status.identity,
        "state": status.state.to_string(),
        "since": wall(status.since),
        "url": Some(&status.url).filter(|url| !url.is_empty()),
        "subprotocol": status.subprotocol,
        "controller": status.controller.map(leg),
        "csms": status.csms.map(leg),
        "last_closed": status.last_closed.as_ref().map(|(at, reason)| json!({ "at": wall(*at), "reason": reason })),
        "last_error": status.last_error,
    })
}

fn tunnel(view: &View) -> Value {
    let status = view.status.as_ref();
    let forwards = status.map_or(&view.forwards, |status| &status.forwards);
    let wall = |moment: Instant| clock::rfc3339(clock::wall(moment));
    let traffic = view.traffic.as_ref();
    let peer = status.and_then(|status| status.peer.as_ref());
    json!({
        "id": view.id.to_string(),
        "slot": match view.id {
            crate::supervisor::TunnelId::Slot(number) => Some(number),
            crate::supervisor::TunnelId::AdHoc(_) => None,
        },
        "key": view.key,
        "state": status.map_or("idle", |status| status.state.word()),
        "reason": status.and_then(|status| status.state.reason()).map(|reason| reason.word()),
        "server": status.map(|status| status.destination.to_string()),
        "forwards": forwards.iter().enumerate().map(|(index, forward)| json!({
            "remote": forward.remote.to_string(),
            "local": forward.local.to_string(),
            "listening": status.is_some_and(|status| status.listening.get(index) == Some(&true)),
        })).collect::<Vec<_>>(),
        "since": status.map(|status| wall(status.since)),
        "expires": status.filter(|_| view.wanted.is_some()).and_then(|status| status.expires).map(wall),
        "connections": traffic.map_or(0, |traffic| traffic.connections()),
        "bytes_in": traffic.map_or(0, |traffic| traffic.bytes_in()),
        "bytes_out": traffic.map_or(0, |traffic| traffic.bytes_out()),
        "stalled": traffic.map_or(0, |traffic| traffic.stalled()),
        "ends_soon": ends_soon(view),
        "retry_at": status.and_then(|status| status.retry_at).map(wall),
        "last_error": status.and_then(|status| status.last_error.as_ref()).map(|error| error.text.clone()),
        "cure": status.and_then(advice::for_tunnel),
        "host_key": status.and_then(|status| status.host_key.as_ref()).map(|key| key.fingerprint.clone()),
        "address": peer.map(|peer| peer.server.clone()),
        "proxy": peer.and_then(|peer| peer.proxy).map(|proxy| proxy.to_string()),
        "refused": view.refusal,
    })
}

/// Does a wanted tunnel end within ten minutes unless it is asked for again?
fn ends_soon(view: &View) -> bool {
    let expires = view.status.as_ref().filter(|_| view.wanted.is_some()).and_then(|status| status.expires);
    expires.is_some_and(|expires| expires.saturating_duration_since(Instant::now()) <= NOTICE)
}
