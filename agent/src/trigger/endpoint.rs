//! What speaks OCPP for the agent: a charge point of its own, or a bridge between controllers and their CSMS. Both take the
//! same commands and raise the same events.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ocpp_bridge::configuration::RegisterError;
use ocpp_bridge::{
    Access, BootInfo, Bridge, BridgeSettings, ChargePoint, Command, ConnectionProfile, ControllerStatus,
    Event, Filter, LinkSettings, LinkStatus, Registry, RescueSettings,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{LinkError, status_key};
use crate::config::{self, CLIENT_KEY, Config, Ocpp};
use crate::kept_configuration::KeptConfiguration;
use crate::link_security::{AUTHORIZATION_KEY, SECURITY_PROFILE, expected_credentials, server_tls};
use crate::proxy::with_credentials;
use crate::upload::PROTOCOLS_KEY;

/// The far ends of the channels.
pub(super) struct Ends {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) status: watch::Sender<LinkStatus>,
}

/// It runs, until nobody holds the near end of the commands.
pub(super) struct Endpoint {
    pub(super) task: JoinHandle<()>,
    pub(super) controllers: Vec<watch::Receiver<ControllerStatus>>,
    pub(super) listens: Option<SocketAddr>,
}

pub(super) fn link_settings(
    ocpp: &Arc<Ocpp>,
    profile: ConnectionProfile,
    network: watch::Receiver<()>,
) -> Result<LinkSettings, LinkError> {
    let ConnectionProfile { urls, credentials, tls } = profile;
    let mut settings = LinkSettings::new(urls, ocpp.identity.clone());
    (settings.credentials, settings.tls) = (credentials, tls);
    settings.ping_interval = ocpp.ping_interval;
    settings.backoff = ocpp.backoff;
    settings.proxy =
        with_credentials(&ocpp.proxy, "ocpp.proxy_authorization_file").map_err(LinkError::Proxy)?;
    settings.network = Some(network);
    Ok(settings)
}

pub(super) fn charge_point(
    config: &Config,
    ocpp: &Ocpp,
    settings: LinkSettings,
    kept: &mut KeptConfiguration,
    ends: Ends,
) -> Result<Endpoint, LinkError> {
    let mut registry = Registry::new(ocpp.connectors);
    register_keys(config, ocpp, |key, access| registry.register(key, access))?;
    registry.register(PROTOCOLS_KEY, Access::ReadOnly).map_err(clash)?;
    let mut charge_point_settings = ocpp_bridge::Settings::new(boot_info(ocpp));
    charge_point_settings.boot_on_reconnect = ocpp.boot_on_reconnect;
    charge_point_settings.uploads = true;
    let mut charge_point = ChargePoint::new(charge_point_settings, registry, fastrand::Rng::new());
    kept.restore(&mut charge_point);
    let Ends { events, commands, status } = ends;
    let task = tokio::spawn(ocpp_bridge::link::run(settings, charge_point, events, commands, status));
    Ok(Endpoint { task, controllers: Vec::new(), listens: None })
}

pub(super) fn bridge(
    config: &Config,
    ocpp: &Ocpp,
    bridge: &config::Bridge,
    settings: LinkSettings,
    ends: Ends,
) -> Result<Endpoint, LinkError> {
    let mut filter = Filter::new(fastrand::Rng::new());
    register_keys(config, ocpp, |key, access| filter.register(key, access))?;
    let settings = BridgeSettings {
        link: settings,
        expected: expected_credentials(ocpp, bridge).map_err(LinkError::Security)?,
        others: bridge.identities.clone(),
        tls: server_tls(bridge).map_err(LinkError::Security)?,
        rescue: bridge
            .rescue_after
            .map(|after| RescueSettings { after, without_credentials: ocpp.security_profile == 0 }),
    };
    let cannot_listen = |error| LinkError::Listen(bridge.listen, error);
    let listener = listen(bridge.listen).map_err(cannot_listen)?;
    let listens = listener.local_addr().map_err(cannot_listen)?;
    let Ends { events, commands, status } = ends;
    let relay = Bridge::new(settings, filter, events, commands, status);
    let controllers = relay.controllers();
    tracing::info!(%listens, controllers = controllers.len(), "bridge-listening");
    Ok(Endpoint { task: tokio::spawn(relay.run(listener)), controllers, listens: Some(listens) })
}

/// What the CSMS is told about this charge point.
pub(crate) fn boot_info(ocpp: &Ocpp) -> BootInfo {
    BootInfo {
        vendor: ocpp.vendor.clone(),
        model: ocpp.model.clone(),
        serial_number: None,
        firmware_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The keys that are ours, whoever else has some.
fn register_keys(
    config: &Config,
    ocpp: &Ocpp,
    mut register: impl FnMut(&str, Access) -> Result<(), RegisterError>,
) -> Result<(), LinkError> {
    for slot in &config.slots {
        register(&slot.key, Access::ReadWrite).map_err(clash)?;
        register(&status_key(slot), Access::ReadOnly).map_err(clash)?;
    }
    register(CLIENT_KEY, Access::ReadOnly).map_err(clash)?;
    if ocpp.has_credentials() {
        register(AUTHORIZATION_KEY, Access::WriteOnly).map_err(clash)?;
        register(SECURITY_PROFILE, Access::ReadWrite).map_err(clash)?;
    }
    Ok(())
}

fn clash(error: RegisterError) -> LinkError {
    LinkError::Keys(error.to_string())
}
