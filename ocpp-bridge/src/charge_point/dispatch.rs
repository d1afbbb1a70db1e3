//! What the CSMS may ask for, in one table, and the answers.

use rust_ocpp::v1_6::messages::change_configuration::ChangeConfigurationResponse;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    ChargePoint, Event, RequestId,
    payload::{ChangeConfiguration, GetConfiguration, Refusal},
};
use crate::{
    ConfigurationStatus,
    configuration::Change,
    frame::{ErrorCode, MessageId},
};

/// The answer to a CALL of the CSMS.
#[derive(Debug)]
pub(super) enum Answer {
    /// CALLRESULT with this payload.
    Result(Box<RawValue>),
    /// CALLERROR.
    Error(Refusal),
}

/// Serves one action. `None`: the answer comes later, from the embedder.
type Handler = fn(&mut ChargePoint, &MessageId, &RawValue) -> Option<Answer>;

/// Every action of OCPP 1.6 (§6) and of its security extension (§5), in either direction, and who serves it.
#[rustfmt::skip]
static ACTIONS: [(&str, Handler); 39] = [
    ("ChangeConfiguration", change_configuration),
    ("GetConfiguration", get_configuration),
    // Core
    ("Authorize", not_supported),
    ("BootNotification", not_supported),
    ("ChangeAvailability", not_supported),
    ("ClearCache", not_supported),
    ("DataTransfer", not_supported),
    ("Heartbeat", not_supported),
    ("MeterValues", not_supported),
    ("RemoteStartTransaction", not_supported),
    ("RemoteStopTransaction", not_supported),
    ("Reset", not_supported),
    ("StartTransaction", not_supported),
    ("StatusNotification", not_supported),
    ("StopTransaction", not_supported),
    ("UnlockConnector", not_supported),
    // RemoteTrigger
    ("TriggerMessage", not_supported),
    // FirmwareManagement
    ("DiagnosticsStatusNotification", not_supported),
    ("FirmwareStatusNotification", not_supported),
    ("GetDiagnostics", not_supported),
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
    // the security extension
    ("CertificateSigned", not_supported),
    ("DeleteCertificate", not_supported),
    ("ExtendedTriggerMessage", not_supported),
    ("GetInstalledCertificateIds", not_supported),
    ("GetLog", not_supported),
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
) -> Option<Answer> {
    match ACTIONS.iter().find(|(name, _)| *name == action) {
        Some((_, handler)) => handler(charge_point, id, payload),
        None => Some(Answer::error(ErrorCode::NotImplemented, "the action is unknown")),
    }
}

fn not_supported(_: &mut ChargePoint, _: &MessageId, _: &RawValue) -> Option<Answer> {
    Some(Answer::error(ErrorCode::NotSupported, "the action isn't supported"))
}

/// OCPP 1.6 §5.3.
fn change_configuration(
    charge_point: &mut ChargePoint,
    id: &MessageId,
    payload: &RawValue,
) -> Option<Answer> {
    let request = match ChangeConfiguration::parse(payload) {
        Ok(request) => request,
        Err(refusal) => return Some(Answer::Error(refusal)),
    };
    match charge_point.registry.change(&request.key, &request.value) {
        Change::Unknown => {
            tracing::info!(key = &*request.key, "ocpp-change-unknown-key");
            Some(Answer::change(ConfigurationStatus::NotSupported))
        }
        Change::Refused(reason) => {
            tracing::info!(key = &*request.key, reason, "ocpp-change-rejected");
            Some(Answer::change(ConfigurationStatus::Rejected))
        }
        Change::Unchanged => Some(Answer::change(ConfigurationStatus::Accepted)),
        Change::Changed { name, value } => {
            tracing::info!(key = name, value, "ocpp-changed");
            charge_point.apply(name);
            charge_point.raise(Event::ConfigurationChanged { key: name.to_owned(), value });
            Some(Answer::change(ConfigurationStatus::Accepted))
        }
        Change::Ask { name } => {
            let request_id = RequestId(charge_point.next_request);
            charge_point.next_request += 1;
            let connection = charge_point.connection.as_mut()?;
            connection.keep(request_id, id.clone());
            let security = connection.security;
            let value = request.value.into_owned();
            charge_point.raise(Event::ChangeConfiguration {
                request: request_id,
                key: name,
                value,
                security,
            });
            None
        }
    }
}

/// OCPP 1.6 §5.8.
fn get_configuration(charge_point: &mut ChargePoint, _: &MessageId, payload: &RawValue) -> Option<Answer> {
    Some(match GetConfiguration::parse(payload) {
        Ok(request) => Answer::result(&charge_point.registry.get(&request.keys)),
        Err(refusal) => Answer::Error(refusal),
    })
}

// === impl Answer ===

impl Answer {
    pub(super) fn change(status: ConfigurationStatus) -> Self {
        Self::result(&ChangeConfigurationResponse { status })
    }

    fn result(payload: &impl Serialize) -> Self {
        match to_raw_value(payload) {
            Ok(payload) => Self::Result(payload),
            Err(_) => Self::error(ErrorCode::InternalError, "the answer can't be written"),
        }
    }

    pub(super) fn error(code: ErrorCode, reason: &'static str) -> Self {
        Self::Error(Refusal { code, reason })
    }
}
