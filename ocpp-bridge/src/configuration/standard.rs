//! The standard's configuration keys as one table: name, type and range, access, default (OCPP 1.6 §9.1).

use rust_ocpp::v1_6::types::{Measurand, Phase};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error},
};

use super::{HEARTBEAT_INTERVAL, MESSAGE_TIMEOUT, NUMBER_OF_CONNECTORS, WEB_SOCKET_PING_INTERVAL};
use crate::limits::{MAX_CALL_TIMEOUT, MAX_INTERVAL, MAX_LIST_ITEMS};

/// One key of the standard.
#[derive(Debug)]
pub(super) struct Standard {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) readonly: bool,
    /// `None`: the charge point sets the value when it starts.
    pub(super) default: Option<&'static str>,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number from `min` to `max`.
    Integer { min: u32, max: u32 },
    /// A comma-separated list of measurands, each with an optional phase: `Voltage.L1`.
    Measurands,
    /// A comma-separated list of phase rotations, each with an optional connector: `1.RST`.
    PhaseRotations,
    /// A comma-separated list of feature profiles.
    Profiles,
    /// A text without control characters, as it is.
    Text,
}

/// The 21 required keys of the Core profile, two that concern the link, and two of the security extension (§6 there).
/// `AuthorizationKey` and `SecurityProfile` are the embedder's.
#[rustfmt::skip]
pub(super) static STANDARD: [Standard; 25] = [
    read_only("AdditionalRootCertificateCheck", Kind::Boolean, Some("false")),
    read_write("AuthorizeRemoteTxRequests", Kind::Boolean, Some("false")),
    read_write("ClockAlignedDataInterval", SECONDS, Some("0")),
    read_write("ConnectionTimeOut", SECONDS, Some("60")),
    read_write("ConnectorPhaseRotation", Kind::PhaseRotations, Some("NotApplicable")),
    read_write("CpoName", Kind::Text, Some("")),
    read_only("GetConfigurationMaxKeys", COUNT, None),
    read_write(HEARTBEAT_INTERVAL, INTERVAL, None),
    read_write("LocalAuthorizeOffline", Kind::Boolean, Some("false")),
    read_write("LocalPreAuthorize", Kind::Boolean, Some("false")),
    read_write(MESSAGE_TIMEOUT, Kind::Integer { min: 1, max: LONGEST_CALL_TIMEOUT }, None),
    read_write("MeterValuesAlignedData", Kind::Measurands, Some("")),
    read_write("MeterValuesSampledData", Kind::Measurands, Some("Energy.Active.Import.Register")),
    read_write("MeterValueSampleInterval", SECONDS, Some("0")),
    read_only(NUMBER_OF_CONNECTORS, COUNT, None),
    read_write("ResetRetries", COUNT, Some("0")),
    read_write("StopTransactionOnEVSideDisconnect", Kind::Boolean, Some("true")),
    read_write("StopTransactionOnInvalidId", Kind::Boolean, Some("true")),
    read_write("StopTxnAlignedData", Kind::Measurands, Some("")),
    read_write("StopTxnSampledData", Kind::Measurands, Some("")),
    read_only("SupportedFeatureProfiles", Kind::Profiles, Some("Core,RemoteTrigger")),
    read_write("TransactionMessageAttempts", COUNT, Some("3")),
    read_write("TransactionMessageRetryInterval", SECONDS, Some("60")),
    read_write("UnlockConnectorOnEVSideDisconnect", Kind::Boolean, Some("true")),
    read_write(WEB_SOCKET_PING_INTERVAL, Kind::Integer { min: 0, max: LONGEST_INTERVAL }, None),
];

#[expect(clippy::cast_possible_truncation, reason = "a week has fewer than 2^32 seconds")]
const LONGEST_INTERVAL: u32 = MAX_INTERVAL.as_secs() as u32;

#[expect(clippy::cast_possible_truncation, reason = "ten minutes have fewer than 2^32 seconds")]
const LONGEST_CALL_TIMEOUT: u32 = MAX_CALL_TIMEOUT.as_secs() as u32;

/// A time that is sent every so many seconds: never 0, which would be all the time.
const INTERVAL: Kind = Kind::Integer { min: 1, max: LONGEST_INTERVAL };
const SECONDS: Kind = Kind::Integer { min: 0, max: i32::MAX.unsigned_abs() };
const COUNT: Kind = Kind::Integer { min: 0, max: i32::MAX.unsigned_abs() };

const fn read_write(name: &'static str, kind: Kind, default: Option<&'static str>) -> Standard {
    Standard { name, kind, readonly: false, default }
}

const fn read_only(name: &'static str, kind: Kind, default: Option<&'static str>) -> Standard {
    Standard { name, kind, readonly: true, default }
}

// === impl Kind ===

impl Kind {
    /// The value in the standard's spelling.
    ///
    /// # Errors
    /// Why it can't be a value of this kind.
    pub(super) fn normalise(self, value: &str) -> Result<String, &'static str> {
        match self {
            Self::Boolean => boolean(value),
            Self::Integer { min, max } => integer(value, min, max),
            Self::Measurands => list(value, is_measurand, "the value isn't a list of measurands"),
            Self::PhaseRotations => {
                list(value, is_phase_rotation, "the value isn't a list of phase rotations")
            }
            Self::Profiles => list(value, |_| true, "the value isn't a list of feature profiles"),
            Self::Text if value.chars().any(char::is_control) => Err("the value has a control character"),
            Self::Text => Ok(value.to_owned()),
        }
    }
}

fn boolean(value: &str) -> Result<String, &'static str> {
    ["true", "false"]
        .into_iter()
        .find(|word| word.eq_ignore_ascii_case(value))
        .map(str::to_owned)
        .ok_or("the value is neither true nor false")
}

fn integer(value: &str, min: u32, max: u32) -> Result<String, &'static str> {
    let number: i64 = value.parse().map_err(|_| "the value isn't a whole number")?;
    if !(i64::from(min)..=i64::from(max)).contains(&number) {
        return Err("the value is out of range");
    }
    Ok(number.to_string())
}

fn list(value: &str, is_item: fn(&str) -> bool, reason: &'static str) -> Result<String, &'static str> {
    if value.is_empty() {
        return Ok(String::new());
    }
    if value.split(',').count() > MAX_LIST_ITEMS {
        return Err("the list has too many items");
    }
    let items: Vec<&str> = value.split(',').map(str::trim).collect();
    if !items.iter().all(|item| is_item(item)) {
        return Err(reason);
    }
    Ok(items.join(","))
}

fn is_measurand(item: &str) -> bool {
    let known =
        |name: &str| Measurand::deserialize(IntoDeserializer::<Error>::into_deserializer(name)).is_ok();
    let phase = |name: &str| Phase::deserialize(IntoDeserializer::<Error>::into_deserializer(name)).is_ok();
    known(item) || item.rsplit_once('.').is_some_and(|(name, suffix)| known(name) && phase(suffix))
}

fn is_phase_rotation(item: &str) -> bool {
    const ROTATIONS: [&str; 8] = ["NotApplicable", "Unknown", "RST", "RTS", "SRT", "STR", "TRS", "TSR"];
    let rotation = match item.split_once('.') {
        Some((connector, rotation)) if connector.parse::<u32>().is_ok() => rotation,
        Some(_) => return false,
        None => item,
    };
    ROTATIONS.contains(&rotation)
}
