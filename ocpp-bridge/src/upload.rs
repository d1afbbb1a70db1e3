//! Logs and diagnostics that the CSMS asks for: GetLog and LogStatusNotification (Improved security for OCPP 1.6-J, §5.9 and
//! §5.13), GetDiagnostics and DiagnosticsStatusNotification (OCPP 1.6 §6.25 and §6.17).
//!
//! The two pairs differ in names only, so that one set of types stands for both. What is uploaded, where it may go and how it gets
//! there is the embedder's matter.

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::Report;

/// An upload that the CSMS asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct UploadRequest {
    /// What is to be uploaded, and by which message it was asked for.
    pub subject: UploadSubject,
    /// The URL, as it came: at most 512 characters for GetLog, 2000 for GetDiagnostics. It often holds secrets, so that
    /// `Debug` leaves it out.
    pub location: String,
    /// Nothing that is older is wanted.
    pub oldest: Option<DateTime<Utc>>,
    /// Nothing that is newer is wanted.
    pub latest: Option<DateTime<Utc>>,
    /// How often a failed upload is to be tried again; `None` leaves it to the charge point.
    pub retries: Option<u32>,
    /// How long to wait before that; `None` leaves it to the charge point.
    pub retry_interval: Option<Duration>,
}

/// What an upload is about. It tells which messages speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadSubject {
    /// GetLog, and LogStatusNotification.
    Log {
        /// Which log.
        kind: LogKind,
        /// The CSMS's number for it, which every LogStatusNotification repeats.
        request_id: i64,
    },
    /// GetDiagnostics, and DiagnosticsStatusNotification.
    Diagnostics,
}

/// The logs that GetLog knows (`LogEnumType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// `DiagnosticsLog`.
    Diagnostics,
    /// `SecurityLog`.
    Security,
}

/// The answer to an [`UploadRequest`]. GetDiagnostics has no status: it is answered with the file's name, or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadAnswer {
    /// The upload of this file begins. The name has at most 255 characters; what is longer is cut.
    Accepted {
        /// The file's name.
        file_name: String,
    },
    /// The same, and an upload that was under way has been cancelled for it.
    AcceptedCanceled {
        /// The file's name.
        file_name: String,
    },
    /// Nothing is uploaded.
    Rejected,
}

/// How an upload goes (`UploadLogStatusEnumType`). DiagnosticsStatusNotification knows only one way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadStatus {
    /// The server, or the request, isn't understood.
    BadMessage,
    /// Nothing is being uploaded: only as the answer to a trigger.
    Idle,
    /// The server doesn't know how to take a file, or the URL's protocol isn't spoken here.
    NotSupportedOperation,
    /// The server, or our own policy, doesn't permit it.
    PermissionDenied,
    /// Done.
    Uploaded,
    /// Failed in any other way.
    UploadFailure,
    /// Under way.
    Uploading,
}

impl UploadSubject {
    /// The notification about an upload's status: the action, and the payload of its CALL.
    pub fn notification(self, status: UploadStatus) -> (&'static str, Box<RawValue>) {
        match self {
            Self::Log { request_id, .. } => ("LogStatusNotification", log_payload(status, Some(request_id))),
            Self::Diagnostics => ("DiagnosticsStatusNotification", diagnostics_payload(status)),
        }
    }
}

/// What the two status notifications say when the CSMS triggers them, while this is being uploaded: for
/// [`ChargePoint::set_report`](crate::ChargePoint::set_report).
pub fn reports(uploading: Option<UploadSubject>) -> [(Report, Box<RawValue>); 2] {
    use UploadStatus::{Idle, Uploading};
    let (log, diagnostics) = match uploading {
        Some(UploadSubject::Log { request_id, .. }) => {
            (log_payload(Uploading, Some(request_id)), diagnostics_payload(Idle))
        }
        Some(UploadSubject::Diagnostics) => (log_payload(Idle, None), diagnostics_payload(Uploading)),
        None => (log_payload(Idle, None), diagnostics_payload(Idle)),
    };
    [(Report::LogStatus, log), (Report::DiagnosticsStatus, diagnostics)]
}

/// Without a `request_id` only where it was triggered and no log is being uploaded.
fn log_payload(status: UploadStatus, request_id: Option<i64>) -> Box<RawValue> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<i64>,
    }
    raw(&Payload { status: status.word(), request_id })
}

fn diagnostics_payload(status: UploadStatus) -> Box<RawValue> {
    #[derive(Serialize)]
    struct Payload {
        status: &'static str,
    }
    let status = match status {
        UploadStatus::Idle | UploadStatus::Uploaded | UploadStatus::Uploading => status.word(),
        _ => "UploadFailed",
    };
    raw(&Payload { status })
}

/// Our types can always be written.
fn raw(payload: &impl Serialize) -> Box<RawValue> {
    to_raw_value(payload).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl UploadStatus {
    /// The status as GetLog's messages spell it.
    pub fn word(self) -> &'static str {
        match self {
            Self::BadMessage => "BadMessage",
            Self::Idle => "Idle",
            Self::NotSupportedOperation => "NotSupportedOperation",
            Self::PermissionDenied => "PermissionDenied",
            Self::Uploaded => "Uploaded",
            Self::UploadFailure => "UploadFailure",
            Self::Uploading => "Uploading",
        }
    }
}

/// Without the location.
impl fmt::Debug for UploadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadRequest")
            .field("subject", &self.subject)
            .field("oldest", &self.oldest)
            .field("latest", &self.latest)
            .field("retries", &self.retries)
            .field("retry_interval", &self.retry_interval)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notifications_are_written_as_their_schemas_want() {
        let log = UploadSubject::Log { kind: LogKind::Security, request_id: -7 };
        for (subject, status, action, payload) in [
            (
                log,
                UploadStatus::PermissionDenied,
                "LogStatusNotification",
                r#"{"status":"PermissionDenied","requestId":-7}"#,
            ),
            (
                log,
                UploadStatus::UploadFailure,
                "LogStatusNotification",
                r#"{"status":"UploadFailure","requestId":-7}"#,
            ),
            (
                UploadSubject::Diagnostics,
                UploadStatus::Uploaded,
                "DiagnosticsStatusNotification",
                r#"{"status":"Uploaded"}"#,
            ),
            (
                UploadSubject::Diagnostics,
                UploadStatus::BadMessage,
                "DiagnosticsStatusNotification",
                r#"{"status":"UploadFailed"}"#,
            ),
        ] {
            let (written_action, written) = subject.notification(status);
            assert_eq!((written_action, written.get()), (action, payload));
        }
    }

    #[test]
    fn what_is_not_being_uploaded_is_idle() {
        let said = |uploading| reports(uploading).map(|(_, payload)| payload.get().to_owned());
        let log = UploadSubject::Log { kind: LogKind::Diagnostics, request_id: 42 };
        let (idle, uploading) = (r#"{"status":"Idle"}"#, r#"{"status":"Uploading"}"#);
        assert_eq!(said(None), [idle, idle]);
        assert_eq!(said(Some(log)), [r#"{"status":"Uploading","requestId":42}"#, idle]);
        assert_eq!(said(Some(UploadSubject::Diagnostics)), [idle, uploading]);
    }

    #[test]
    fn the_location_is_not_shown() {
        let request = UploadRequest {
            subject: UploadSubject::Diagnostics,
            location: "https://user:secret@h".to_owned(),
            oldest: None,
            latest: None,
            retries: Some(1),
            retry_interval: None,
        };
        assert!(!format!("{request:?}").contains("secret"), "{request:?}");
    }
}
