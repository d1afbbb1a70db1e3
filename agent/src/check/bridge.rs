//! The bridge's two legs. They are the controller's own connection, so none is made for a check: the agent is asked how they
//! are, and without one it can only be seen whether the controller would find a door.

use ocpp_bridge::LinkState;
use serde_json::Value;
use tokio::net::TcpListener;

use super::report::{Report, Step};
use crate::config::Bridge;
use crate::control::protocol::Problem;
use crate::exit::Exit;

/// Without a running agent.
pub(super) async fn alone(report: &mut Report<'_>, bridge: &Bridge) {
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
    report.skip(Step::Ocpp, "the connection to the CSMS is the controller's, and is made when an agent runs and the controller connects");
}

/// With a running agent: each controller, and its connection to the CSMS.
pub(super) async fn legs(report: &mut Report<'_>, bridge: &Bridge, ocpp: &Value) {
    for controller in ocpp["controllers"].as_array().into_iter().flatten() {
        report.step(Step::Ocpp, async { of_controller(bridge, controller) }).await;
        match of_csms(controller) {
            Some(csms) => {
                report.step(Step::Ocpp, async { csms }).await;
            }
            None => report.skip(Step::Ocpp, "the CSMS is connected to when the controller is there"),
        }
    }
    let refused = [LinkState::Pending, LinkState::Rejected].map(|state| state.to_string());
    if let Some(state) = ocpp["state"].as_str().filter(|state| refused.iter().any(|refused| refused == state))
    {
        let text = format!("the CSMS has answered the controller's BootNotification with {state}");
        let problem = Problem::new(Exit::Error, text, "ask the CSMS's operator to accept this charge point");
        report.step(Step::Ocpp, async { Err::<((), String), _>(problem) }).await;
    }
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

fn of_csms(controller: &Value) -> Option<Result<((), String), Problem>> {
    let (identity, url) = (word(controller, "identity"), word(controller, "url"));
    if let Some(since) = controller["csms"]["since"].as_str() {
        return Some(Ok(((), format!("{url} is connected for {identity} since {since}"))));
    }
    let error = controller["last_error"].as_str()?;
    let cure = "mend what it says; the controller, or the bridge in its place, tries again by itself";
    Some(Err(Problem::new(Exit::Error, format!("{url} isn't connected for {identity}: {error}"), cure)))
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("?")
}
