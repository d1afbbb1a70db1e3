//! TriggerMessage (OCPP 1.6 §5.17) and ExtendedTriggerMessage (security whitepaper §5): the CSMS asks to be told
//! something now. The answer goes first, then the message; what can't be told is a status of the answer.

use rust_ocpp::v1_6::{messages::trigger_message::TriggerMessageResponse, types::TriggerMessageStatus};
use serde_json::value::RawValue;

use super::{
    ChargePoint,
    dispatch::{Answer, Served},
    payload::fields,
};
use crate::{frame::MessageId, limits::MAX_TRIGGERED};

/// Status notifications whose content only the embedder knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Report {
    /// `DiagnosticsStatusNotification` (OCPP 1.6 §4.4).
    DiagnosticsStatus,
    /// `FirmwareStatusNotification` (OCPP 1.6 §4.5).
    FirmwareStatus,
    /// `LogStatusNotification` (security whitepaper §5).
    LogStatus,
}

/// What is to be sent because the CSMS asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Triggered {
    Heartbeat,
    /// StatusNotification of this connector, and then of the others up to that.
    Status {
        next: u32,
        last: u32,
    },
    Report(Report),
}

/// In the order in which they are asked for.
pub(super) type Queue = heapless::Deque<Triggered, MAX_TRIGGERED>;

pub(super) fn trigger_message(charge_point: &mut ChargePoint, _: &MessageId, payload: &RawValue) -> Served {
    serve(charge_point, payload, |message| match message {
        "DiagnosticsStatusNotification" => Some(Report::DiagnosticsStatus),
        "FirmwareStatusNotification" => Some(Report::FirmwareStatus),
        _ => None,
    })
}

pub(super) fn extended_trigger_message(
    charge_point: &mut ChargePoint,
    _: &MessageId,
    payload: &RawValue,
) -> Served {
    serve(charge_point, payload, |message| match message {
        "LogStatusNotification" => Some(Report::LogStatus),
        "FirmwareStatusNotification" => Some(Report::FirmwareStatus),
        _ => None,
    })
}

/// The two differ in the reports that they know. Their answers are alike.
fn serve(charge_point: &mut ChargePoint, payload: &RawValue, report: fn(&str) -> Option<Report>) -> Served {
    let [message, connector] = fields(payload, ["requestedMessage", "connectorId"])?;
    let message = message.text(usize::MAX)?;
    let connector = connector.optional_integer()?;
    let status = match &*message {
        "BootNotification" => charge_point.trigger_boot(),
        "Heartbeat" => charge_point.trigger(Triggered::Heartbeat),
        "StatusNotification" => charge_point.trigger_status(connector),
        message => match report(message) {
            Some(report) if charge_point.reports.contains_key(&report) => {
                charge_point.trigger(Triggered::Report(report))
            }
            // MeterValues and SignChargePointCertificate are known, but there is nothing to send.
            _ => TriggerMessageStatus::NotImplemented,
        },
    };
    tracing::debug!(%message, connector, ?status, "ocpp-trigger");
    Answer::result(&TriggerMessageResponse { status })
}

impl ChargePoint {
    /// Keeps what a status notification of the embedder says from now on, for when the CSMS triggers it. The payload, a
    /// JSON object, is sent as it is. A trigger before the first is answered `NotImplemented`.
    pub fn set_report(&mut self, report: Report, payload: Box<RawValue>) {
        self.reports.insert(report, payload);
    }

    /// `Rejected` once the CSMS has accepted us (OCPP 1.6 edition 2 errata 3.35).
    fn trigger_boot(&mut self) -> TriggerMessageStatus {
        let Some(connection) = self.connection.as_ref().filter(|_| !self.boot.is_accepted()) else {
            return TriggerMessageStatus::Rejected;
        };
        // Due since then, and not since now: what is due is sent after the answer.
        self.boot.trigger(connection.opened);
        TriggerMessageStatus::Accepted
    }

    fn trigger_status(&mut self, connector: Option<i64>) -> TriggerMessageStatus {
        let last = self.registry.connectors();
        let Some(connector) = connector else {
            return self.trigger(Triggered::Status { next: 0, last });
        };
        match u32::try_from(connector) {
            Ok(connector) if connector <= last => {
                self.trigger(Triggered::Status { next: connector, last: connector })
            }
            _ => TriggerMessageStatus::Rejected,
        }
    }

    fn trigger(&mut self, triggered: Triggered) -> TriggerMessageStatus {
        let queued = self.connection.as_mut().map(|connection| connection.triggered.push_back(triggered));
        match queued {
            Some(Ok(())) => TriggerMessageStatus::Accepted,
            _ => TriggerMessageStatus::Rejected,
        }
    }
}

// === impl Report ===

impl Report {
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::DiagnosticsStatus => "DiagnosticsStatusNotification",
            Self::FirmwareStatus => "FirmwareStatusNotification",
            Self::LogStatus => "LogStatusNotification",
        }
    }
}
