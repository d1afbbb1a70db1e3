//! The bridge's two legs. They are the controller's own connection, so none is made for a check: the agent is asked how they
//! are. Where there is none to be asked about, it can still be seen whether the controller would find a door, and whether there is
//! a way to the CSMS's.

use ocpp_bridge::{LinkSettings, LinkState, Url, link};
use serde_json::Value;
use tokio::net::TcpListener;

use super::ocpp::{exit, settings};
use super::report::{Report, Step};
use crate::advice;
use crate::config::{Bridge, Config, Ocpp};
use crate::control::protocol::Problem;
use crate::exit::Exit;

/// Without a running agent.
pub(super) async fn alone(report: &mut Report<'_>, config: &Config, ocpp: &Ocpp, bridge: &Bridge) {
    let listen = async {
        match TcpListener::bind(bridge.listen).await {
            Ok(_) => Ok(((), format!("bridge.listen {} is free for the agent", bridge.listen))),
            Err(error) => Err(Problem::new(
                Exit::Error,
                format!("the agent couldn't listen on bridge.listen {}: {error}", bridge.listen),
                "end the program that listens there (`ss -ltnp` shows it), or set another bridge.listen",
            )),
        }
    };
    report.step(Step::Ocpp, listen).await;
    way_to_csms(report, config, ocpp).await;
}

/// With a running agent: each controller, and its connection to the CSMS.
pub(super) async fn legs(
    report: &mut Report<'_>,
    config: &Config,
    ocpp: &Ocpp,
    bridge: &Bridge,
    live: &Value,
) {
    let mut is_unknown = false;
    for controller in live["controllers"].as_array().into_iter().flatten() {
        // Turned away because of the CSMS, the controller has done what it could.
        match controller["last_error"].as_str().filter(|_| controller["controller"].is_null()) {
            Some(_) => report.unknown(
                Step::Ocpp,
                format!(
                    "the controller {} isn't connected, since its CSMS isn't",
                    word(controller, "identity")
                ),
            ),
            None => drop(report.step(Step::Ocpp, async { of_controller(bridge, controller) }).await),
        }
        match of_csms(controller, live) {
            Some(csms) => {
                report.step(Step::Ocpp, async { csms }).await;
            }
            None => is_unknown = true,
        }
    }
    if is_unknown {
        way_to_csms(report, config, ocpp).await;
    }
    let refused = [LinkState::Pending, LinkState::Rejected].map(|state| state.to_string());
    if let Some(state) = live["state"].as_str().filter(|state| refused.iter().any(|refused| refused == state))
    {
        let text = format!("the CSMS has answered the controller's BootNotification with {state}");
        let problem = Problem::new(Exit::Error, text, "ask the CSMS's operator to accept this charge point");
        report.step(Step::Ocpp, async { Err::<((), String), _>(problem) }).await;
    }
}

/// Up to the CSMS's door, by the first URL that leads there; whom it lets in can only be seen when a controller connects.
async fn way_to_csms(report: &mut Report<'_>, config: &Config, ocpp: &Ocpp) {
    let settings = match settings(config, ocpp) {
        Ok((_, settings)) => settings,
        Err(problem) => {
            report.step(Step::Ocpp, async { Err::<((), String), _>(problem) }).await;
            return;
        }
    };
    for url in &settings.urls {
        if report.step(Step::Ocpp, reach(url, &settings)).await.is_some() {
            return;
        }
    }
}

async fn reach(url: &Url, settings: &LinkSettings) -> Result<((), String), Problem> {
    let at = link::reach(url, settings).await.map_err(|error| {
        Problem::new(exit(error.fault), format!("{url}: {error}"), advice::for_link_fault(error.fault))
    })?;
    let way = match (&settings.proxy, url.is_tls()) {
        (Some(_), true) => "TLS by the proxy ",
        (Some(_), false) => "a connection by the proxy ",
        (None, true) => "TLS with ",
        (None, false) => "TCP to ",
    };
    let text =
        format!("{url} can be reached: {way}{at}; what it says to the controller is seen when that connects");
    Ok(((), text))
}

fn of_controller(bridge: &Bridge, controller: &Value) -> Result<((), String), Problem> {
    let (identity, state) = (word(controller, "identity"), word(controller, "state"));
    if let Some(since) = controller["controller"]["since"].as_str() {
        return Ok(((), format!("the controller {identity} is connected since {since}")));
    }
    let closed = controller["last_closed"]["reason"].as_str();
    let closed = closed.map_or_else(String::new, |reason| format!("; it was last closed: {reason}"));
    let text = format!(
        "the controller {identity} isn't connected ({state} since {}){closed}",
        word(controller, "since")
    );
    let cure = format!(
        "point the controller's OCPP client to {} of this device, with its identity behind it",
        bridge.listen
    );
    Err(Problem::new(Exit::Error, text, cure))
}

fn of_csms(controller: &Value, live: &Value) -> Option<Result<((), String), Problem>> {
    let (identity, url) = (word(controller, "identity"), word(controller, "url"));
    if let Some(since) = controller["csms"]["since"].as_str() {
        return Some(Ok(((), format!("{url} is connected for {identity} since {since}"))));
    }
    let error = controller["last_error"].as_str()?;
    let cure = live["cure"].as_str().unwrap_or("mend what it says");
    let cure = format!("{cure}; the controller, or the bridge in its place, tries again by itself");
    Some(Err(Problem::new(Exit::Error, format!("{url} isn't connected for {identity}: {error}"), cure)))
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("?")
}
