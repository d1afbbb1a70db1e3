//! What the stories of the bridge begin with: the usual peers, with the agent between a controller and the CSMS.

use serde_json::Value;

use crate::agent::Setup;
use crate::charge_point::{self, ChargePoint};
use crate::csms::{self, Csms};
use crate::peer::Library;
use crate::rig::Rig;
use crate::{LONG, ports, wait_until};

/// The peers, and the bridge between them.
#[derive(Debug)]
pub struct Site {
    /// Everything but the controller. The agent runs in mode `bridge`.
    pub rig: Rig,
    /// Where controllers connect.
    pub port: u16,
}

impl Site {
    /// Starts them. The controller's credentials are passed on to the CSMS.
    pub async fn start(options: csms::Options) -> Self {
        Self::with(options, |setup| setup).await
    }

    /// Starts them, with changes to the agent's configuration.
    pub async fn with(options: csms::Options, change: impl FnOnce(Setup) -> Setup) -> Self {
        let port = ports::free();
        let csms = Csms::start(options).await;
        let mut rig = Rig::unstarted(csms, |setup| change(setup.between(port))).await;
        rig.agent.start().await;
        rig.authorize(&rig.sshd).await;
        Self { rig, port }
    }

    /// Where controllers connect, without their identity.
    pub fn endpoint(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// How CP001 connects, with the CSMS's password.
    pub fn controller(&self, library: Library) -> charge_point::Options {
        charge_point::Options::new(library, self.endpoint())
    }

    /// Starts CP001, and waits until it has booted.
    pub async fn booted(&self, library: Library) -> ChargePoint {
        ChargePoint::booted(self.controller(library)).await
    }

    /// The entry of `status` for a controller.
    pub async fn legs(&self, identity: &str) -> Value {
        let status = self.rig.agent.status().await;
        let controllers = status["ocpp"]["controllers"].as_array().cloned().unwrap_or_default();
        controllers.into_iter().find(|controller| controller["identity"] == identity).unwrap_or_default()
    }

    /// Waits until the bridge stands so with a controller, and returns its entry of `status`.
    pub async fn legs_are(&self, identity: &str, state: &str) -> Value {
        wait_until(&format!("{identity} is {state}"), LONG, async || {
            let legs = self.legs(identity).await;
            (legs["state"] == state).then_some(legs)
        })
        .await
    }
}
