//! What the CSMS may ask for, in one table, and the answers.

use rust_ocpp::v1_6::messages::change_configuration::ChangeConfigurationResponse;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    ChargePoint, Event,
    connection::Asked,
    payload::{ChangeConfiguration, GetConfiguration, Refusal},
    reset::reset,
    served::by_embedder,
    station::{
        change_availability, clear_cache, remote_start_transaction, remote_stop_transaction, unlock_connector,
    },
    transfer::data_transfer,
    trigger::{extended_trigger_message, trigger_message},
    uploads::{get_diagnostics, get_log},
};
use crate::{
    ConfigurationStatus,
    configuration::Change,
    frame::{ErrorCode, Frame, MessageId},
};

/// The answer to a CALL of the CSMS.
#[derive(Debug)]
pub(crate) enum Answer {
    /// CALLRESULT with this payload.
    Result(Box<RawValue>),
    /// CALLERROR.
    Error(Refusal),
}

/// What comes of one CALL. `None`: the answer comes later, from the embedder.
pub(super) type Served = Result<Option<Answer>, Refusal>;

type Handler = fn(&mut ChargePoint, &MessageId, &RawValue) -> Served;

/// Every action of OCPP 1.6 (§6) and of its security extension (§5), in either direction, and who serves it.
#[rustfmt::skip]
static ACTIONS: [(&str, Handler); 39] = [
    // Core: what a CSMS asks for
    ("ChangeAvailability", change_availability),
    ("ChangeConfiguration", change_configuration),
    ("ClearCache", clear_cache),
    ("DataTransfer", data_transfer),
    ("GetConfiguration", get_configuration),
    ("RemoteStartTransaction", remote_start_transaction),
    ("RemoteStopTransaction", remote_stop_transaction),
    ("Reset", reset),
    ("UnlockConnector", unlock_connector),
    // Core: what only a charge point says
    ("Authorize", not_supported),
    ("BootNotification", not_supported),
    ("Heartbeat", not_supported),
    ("MeterValues", not_supported),
    ("StartTransaction", not_supported),
    ("StatusNotification", not_supported),
    ("StopTransaction", not_supported),
    // RemoteTrigger
    ("TriggerMessage", trigger_message),
    // FirmwareManagement
    ("DiagnosticsStatusNotification", not_supported),
    ("FirmwareStatusNotification", not_supported),
    ("GetDiagnostics", get_diagnostics),
    ("UpdateFirmware", not_supported),
    // LocalAuthListManagement
    ("GetLocalListVersion", not_supported),
    ("SendLocalList", not_supported),
    // Reservation
    ("CancelReservation", not_supported),
    ("ReserveNow", not_supported),
    // SmartCharging
    ("ClearChargingProfile", not_supported),
    ("GetCompositeSchedule", not_supported),
    ("SetChargingProfile", not_supported),
    // the security extension; what it has for certificates and firmware has its place here, and no handler yet
    ("CertificateSigned", not_supported),
    ("DeleteCertificate", not_supported),
    ("ExtendedTriggerMessage", extended_trigger_message),
    ("GetInstalledCertificateIds", not_supported),
    ("GetLog", get_log),
    ("InstallCertificate", not_supported),
    ("LogStatusNotification", not_supported),
    ("SecurityEventNotification", not_supported),
    ("SignCertificate", not_supported),
    ("SignedFirmwareStatusNotification", not_supported),
    ("SignedUpdateFirmware", not_supported),
];

/// Finds who serves an action, and lets them.
pub(super) fn serve(
    charge_point: &mut ChargePoint,
    id: &MessageId,
    action: &str,
    payload: &RawValue,
) -> Served {
    if let Some(served) = by_embedder(charge_point, id, action, payload) {
        return served;
    }
    match ACTIONS.iter().find(|(name, _)| *name == action) {
        Some((_, handler)) => handler(charge_point, id, payload),
        None => Err(Refusal::new(ErrorCode::NotImplemented, "the action is unknown")),
    }
}

/// OCPP-J 1.6 §4.2.3, errata 3.7: the action is known, and not supported.
pub(super) fn not_supported(_: &mut ChargePoint, _: &MessageId, _: &RawValue) -> Served {
    Err(Refusal::new(ErrorCode::NotSupported, "the action isn't supported"))
}

/// OCPP 1.6 §5.3.
fn change_configuration(charge_point: &mut ChargePoint, id: &MessageId, payload: &RawValue) -> Served {
    let request = ChangeConfiguration::parse(payload)?;
    let status = match charge_point.registry.change(&request.key, &request.value) {
        Change::Unknown => {
            tracing::info!(key = &*request.key, "ocpp-change-unknown-key");
            ConfigurationStatus::NotSupported
        }
        Change::Refused(reason) => {
            tracing::info!(key = &*request.key, reason, "ocpp-change-rejected");
            ConfigurationStatus::Rejected
        }
        Change::Unchanged => ConfigurationStatus::Accepted,
        Change::Changed { name, value } => {
            tracing::info!(key = name, value, "ocpp-changed");
            charge_point.apply(name);
            charge_point.raise(Event::ConfigurationChanged { key: name.to_owned(), value });
            ConfigurationStatus::Accepted
        }
        Change::Ask { name } => {
            let Some((request_id, security)) = charge_point.ask(id, Asked::Change) else { return Ok(None) };
            charge_point.raise(Event::ChangeConfiguration {
                request: request_id,
                key: name,
                value: request.value.into_owned(),
                security,
            });
            return Ok(None);
        }
    };
    Answer::result(&ChangeConfigurationResponse { status })
}

/// OCPP 1.6 §5.8.
fn get_configuration(charge_point: &mut ChargePoint, _: &MessageId, payload: &RawValue) -> Served {
    let request = GetConfiguration::parse(payload)?;
    Answer::result(&charge_point.registry.get(&request.keys))
}

// === impl Answer ===

impl Answer {
    /// CALLRESULT.
    pub(crate) fn of(payload: &impl Serialize) -> Self {
        match to_raw_value(payload) {
            Ok(payload) => Self::Result(payload),
            Err(_) => Self::error(ErrorCode::InternalError, "the answer can't be written"),
        }
    }

    pub(super) fn result(payload: &impl Serialize) -> Served {
        Ok(Some(Self::of(payload)))
    }

    /// The text that answers the CALL of this id.
    pub(crate) fn encode(self, id: MessageId) -> String {
        match self {
            Self::Result(payload) => Frame::CallResult { id, payload: &payload }.encode(),
            Self::Error(refusal) => {
                Frame::CallError { id, code: refusal.code, description: refusal.reason }.encode()
            }
        }
    }

    pub(crate) fn error(code: ErrorCode, reason: &'static str) -> Self {
        Self::Error(Refusal::new(code, reason))
    }
}
