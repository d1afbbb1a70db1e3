//! GetLog (Improved security for OCPP 1.6-J, §5.9) and GetDiagnostics (OCPP 1.6 §5.9): read strictly, decided by the embedder.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    ChargePoint, Event, RequestId, boot,
    connection::Asked,
    dispatch::{Answer, Served, not_supported},
    payload::{Field, Refusal, fields},
};
use crate::{
    frame::{ErrorCode, MessageId},
    limits::{MAX_DIAGNOSTICS_LOCATION_CHARS, MAX_FILE_NAME_CHARS, MAX_LOG_LOCATION_CHARS},
    upload::{LogKind, UploadAnswer, UploadRequest, UploadSubject},
};

/// `GetLog.req`.
pub(super) fn get_log(charge_point: &mut ChargePoint, id: &MessageId, payload: &RawValue) -> Served {
    if !charge_point.settings.uploads {
        return not_supported(charge_point, id, payload);
    }
    let [kind, request_id, retries, retry_interval, log] =
        fields(payload, ["logType", "requestId", "retries", "retryInterval", "log"])?;
    let kind = kind.word(&[("DiagnosticsLog", LogKind::Diagnostics), ("SecurityLog", LogKind::Security)])?;
    let request_id = request_id.integer()?;
    log.optional_object()?;
    let [location, oldest, latest] =
        fields(log.required()?, ["remoteLocation", "oldestTimestamp", "latestTimestamp"])?;
    let wanted = UploadRequest {
        subject: UploadSubject::Log { kind, request_id },
        location: location.text(MAX_LOG_LOCATION_CHARS)?.into_owned(),
        oldest: moment(oldest)?,
        latest: moment(latest)?,
        retries: count(retries)?,
        retry_interval: seconds(retry_interval)?,
    };
    Ok(ask(charge_point, id, wanted))
}

/// `GetDiagnostics.req`.
pub(super) fn get_diagnostics(charge_point: &mut ChargePoint, id: &MessageId, payload: &RawValue) -> Served {
    if !charge_point.settings.uploads {
        return not_supported(charge_point, id, payload);
    }
    let [location, retries, retry_interval, start, stop] =
        fields(payload, ["location", "retries", "retryInterval", "startTime", "stopTime"])?;
    let wanted = UploadRequest {
        subject: UploadSubject::Diagnostics,
        location: location.text(MAX_DIAGNOSTICS_LOCATION_CHARS)?.into_owned(),
        oldest: moment(start)?,
        latest: moment(stop)?,
        retries: count(retries)?,
        retry_interval: seconds(retry_interval)?,
    };
    Ok(ask(charge_point, id, wanted))
}

/// The answer comes from the embedder.
fn ask(charge_point: &mut ChargePoint, id: &MessageId, wanted: UploadRequest) -> Option<Answer> {
    let (request, security) = charge_point.ask(id, asked(wanted.subject))?;
    charge_point.raise(Event::Upload { request, wanted, security });
    None
}

fn asked(subject: UploadSubject) -> Asked {
    match subject {
        UploadSubject::Log { .. } => Asked::Log,
        UploadSubject::Diagnostics => Asked::Diagnostics,
    }
}

impl ChargePoint {
    /// Answers [`Event::Upload`], as [`answer_change`](Self::answer_change) does ChangeConfiguration. `subject` is that of
    /// the request.
    pub fn answer_upload(&mut self, request: RequestId, subject: UploadSubject, answer: UploadAnswer) {
        self.answer_asked(request, asked(subject), payload(subject, answer));
    }
}

fn payload(subject: UploadSubject, answer: UploadAnswer) -> Answer {
    #[derive(Serialize)]
    struct Log {
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Diagnostics {
        #[serde(skip_serializing_if = "Option::is_none")]
        file_name: Option<String>,
    }
    let (status, file_name) = match answer {
        UploadAnswer::Accepted { file_name } => ("Accepted", Some(file_name)),
        UploadAnswer::AcceptedCanceled { file_name } => ("AcceptedCanceled", Some(file_name)),
        UploadAnswer::Rejected => ("Rejected", None),
    };
    let file_name = file_name.map(|name| name.chars().take(MAX_FILE_NAME_CHARS).collect());
    match subject {
        UploadSubject::Log { .. } => Answer::of(&Log { status, filename: file_name }),
        UploadSubject::Diagnostics => Answer::of(&Diagnostics { file_name }),
    }
}

/// A number of times. What is beyond any sense is taken as the most there is.
fn count(field: Field<'_>) -> Result<Option<u32>, Refusal> {
    let Some(number) = field.optional_integer()? else { return Ok(None) };
    match u32::try_from(number) {
        Ok(count) => Ok(Some(count)),
        Err(_) if number > 0 => Ok(Some(u32::MAX)),
        Err(_) => Err(field.refused(ErrorCode::PropertyConstraintViolation, "is below zero")),
    }
}

fn seconds(field: Field<'_>) -> Result<Option<Duration>, Refusal> {
    Ok(count(field)?.map(|seconds| Duration::from_secs(seconds.into())))
}

fn moment(field: Field<'_>) -> Result<Option<DateTime<Utc>>, Refusal> {
    let Some(text) = field.optional_text(usize::MAX)? else { return Ok(None) };
    match boot::time(&text) {
        Some(time) => Ok(Some(time)),
        None => Err(field.refused(ErrorCode::PropertyConstraintViolation, "isn't a time of ISO 8601")),
    }
}
