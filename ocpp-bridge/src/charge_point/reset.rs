//! Reset (OCPP 1.6 §5.14): the link begins anew, as after a start of the agent.
//!
//! Hard and soft are the same here: there is no transaction to end first. Neither restarts the device or the embedder,
//! and what the embedder has open stays so.

use rust_ocpp::v1_6::{messages::reset::ResetResponse, types::ResetResponseStatus};
use serde_json::value::RawValue;

use super::{
    ChargePoint, Event,
    dispatch::{Answer, Served},
    payload::fields,
};
use crate::frame::MessageId;

/// The answer is the last thing that is said on this connection: without a registration nothing is sent unasked, and
/// BootNotification isn't due before the next connection.
pub(super) fn reset(charge_point: &mut ChargePoint, _: &MessageId, payload: &RawValue) -> Served {
    let [kind] = fields(payload, ["type"])?;
    let hard = kind.word(&[("Hard", true), ("Soft", false)])?;
    tracing::info!(hard, "ocpp-reset");
    charge_point.lose_calls();
    charge_point.boot.reset();
    charge_point.unannounced = None;
    if let Some(connection) = &mut charge_point.connection {
        connection.is_reset = true;
    }
    charge_point.raise(Event::Reset { hard });
    Answer::result(&ResetResponse { status: ResetResponseStatus::Accepted })
}

impl ChargePoint {
    /// Whether the CSMS has asked for a reset: once what there is to transmit has been, the connection is to be closed,
    /// and made anew. Until then no text is wanted, and no CALL is made.
    pub fn is_resetting(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_reset)
    }
}
