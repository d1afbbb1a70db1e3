//! What a charge point has a say in, and this one hasn't: it is an agent beside the controller, and serves no
//! vehicle. Each request is read strictly, and then refused by the status that the standard has for it.

use rust_ocpp::v1_6::{
    messages::{
        change_availability::ChangeAvailabilityResponse, clear_cache::ClearCacheResponse,
        remote_start_transaction::RemoteStartTransactionResponse,
        remote_stop_transaction::RemoteStopTransactionResponse, unlock_connector::UnlockConnectorResponse,
    },
    types::{AvailabilityStatus, ClearCacheStatus, RemoteStartStopStatus, UnlockStatus},
};
use serde_json::value::RawValue;

use super::{
    ChargePoint,
    dispatch::{Answer, Served},
    payload::fields,
};
use crate::{frame::MessageId, limits::MAX_ID_TAG_CHARS};

/// OCPP 1.6 §5.2.
///
/// The agent can't take the charger out of service, nor a connector into it: what isn't so already is `Rejected`, and
/// what is so is `Accepted`, as the standard wants it. The agent itself, connector 0, is always operative,
/// connectors with a number never are.
pub(super) fn change_availability(
    charge_point: &mut ChargePoint,
    _: &MessageId,
    payload: &RawValue,
) -> Served {
    let [connector, kind] = fields(payload, ["connectorId", "type"])?;
    let connector = connector.integer()?;
    let operative = kind.word(&[("Operative", true), ("Inoperative", false)])?;
    let connectors = i64::from(charge_point.registry.connectors());
    let is_so = match connector {
        // For the charge point and every connector of it.
        0 => operative && connectors == 0,
        connector => !operative && (1..=connectors).contains(&connector),
    };
    let status = if is_so { AvailabilityStatus::Accepted } else { AvailabilityStatus::Rejected };
    Answer::result(&ChangeAvailabilityResponse { status })
}

/// OCPP 1.6 §5.4: there is no cache.
pub(super) fn clear_cache(_: &mut ChargePoint, _: &MessageId, payload: &RawValue) -> Served {
    let [] = fields(payload, [])?;
    Answer::result(&ClearCacheResponse { status: ClearCacheStatus::Rejected })
}

/// OCPP 1.6 §5.11.
pub(super) fn remote_start_transaction(_: &mut ChargePoint, _: &MessageId, payload: &RawValue) -> Served {
    let [connector, tag, profile] = fields(payload, ["connectorId", "idTag", "chargingProfile"])?;
    connector.optional_integer()?;
    tag.text(MAX_ID_TAG_CHARS)?;
    profile.optional_object()?;
    Answer::result(&RemoteStartTransactionResponse { status: RemoteStartStopStatus::Rejected })
}

/// OCPP 1.6 §5.12.
pub(super) fn remote_stop_transaction(_: &mut ChargePoint, _: &MessageId, payload: &RawValue) -> Served {
    let [transaction] = fields(payload, ["transactionId"])?;
    transaction.integer()?;
    Answer::result(&RemoteStopTransactionResponse { status: RemoteStartStopStatus::Rejected })
}

/// OCPP 1.6 §5.18.
pub(super) fn unlock_connector(_: &mut ChargePoint, _: &MessageId, payload: &RawValue) -> Served {
    let [connector] = fields(payload, ["connectorId"])?;
    connector.integer()?;
    Answer::result(&UnlockConnectorResponse { status: UnlockStatus::NotSupported })
}
