//! What the CSMS is yet to be told of uploads: in order, one at a time, and again where the link was lost.
//!
//! It decides without IO: it is told what happened, and says what to send.

use std::collections::VecDeque;
use std::time::Instant;

use ocpp_bridge::charge_point::{Call, CallId, Outcome};
use ocpp_bridge::{UploadStatus, UploadSubject};

use crate::limits::{UPLOAD_NOTICE_PAUSE, UPLOAD_NOTICES};

/// Ids of our CALLs begin here, so that they are nobody else's.
const FIRST_CALL: u64 = 1 << 63;

/// Whether a CALL is one about uploads.
#[must_use]
pub fn is_ours(id: CallId) -> bool {
    id.0 >= FIRST_CALL
}

/// Notifications that wait for the CSMS.
#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: VecDeque<Notice>,
    /// The first of those that wait has been sent, as this CALL.
    under_way: Option<CallId>,
    /// After a loss nothing is sent before.
    not_before: Option<Instant>,
    calls: u64,
}

#[derive(Debug)]
struct Notice {
    subject: UploadSubject,
    status: UploadStatus,
    /// Of a request that was refused, which its answer has told already.
    refusal: bool,
}

impl Notices {
    /// How an upload goes.
    pub(super) fn push(&mut self, subject: UploadSubject, status: UploadStatus) {
        self.add(Notice { subject, status, refusal: false });
    }

    /// Why a request was refused.
    pub(super) fn push_refusal(&mut self, subject: UploadSubject, status: UploadStatus) {
        self.add(Notice { subject, status, refusal: true });
    }

    fn add(&mut self, notice: Notice) {
        self.waiting.push_back(notice);
        if self.waiting.len() <= UPLOAD_NOTICES {
            return;
        }
        // The one that is under way stays: its outcome belongs to it. Of the others a refusal goes before news of an upload, so
        // that nobody hides how one ended by asking for what is refused.
        let first = usize::from(self.under_way.is_some());
        let oldest_refusal = self.waiting.iter().skip(first).position(|notice| notice.refusal);
        self.waiting.remove(first + oldest_refusal.unwrap_or(0));
        tracing::warn!("upload-notice-dropped");
    }

    /// The CALL to make now, while the CSMS accepts us.
    pub(super) fn next(&mut self, now: Instant) -> Option<Call> {
        if self.under_way.is_some() || self.not_before.is_some_and(|time| now < time) {
            return None;
        }
        let Notice { subject, status, .. } = self.waiting.front()?;
        let id = CallId(FIRST_CALL + self.calls);
        self.calls = (self.calls + 1) % FIRST_CALL;
        self.under_way = Some(id);
        self.not_before = None;
        let (action, payload) = subject.notification(*status);
        Some(Call { id, action, payload })
    }

    /// When to ask [`Self::next`] again although nothing has happened.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.under_way.is_none() && !self.waiting.is_empty())
    }

    /// What became of a CALL. Only what never arrived is told again: a CSMS that doesn't answer, or doesn't want to know,
    /// isn't asked twice.
    pub(super) fn called(&mut self, now: Instant, id: CallId, outcome: &Outcome) {
        if self.under_way != Some(id) {
            return;
        }
        self.under_way = None;
        match outcome {
            Outcome::Lost => self.not_before = Some(now + UPLOAD_NOTICE_PAUSE),
            Outcome::Result(_) => drop(self.waiting.pop_front()),
            Outcome::Unanswered => {
                tracing::warn!("upload-notice-unanswered");
                self.waiting.pop_front();
            }
            Outcome::Error { code, description } => {
                tracing::warn!(code, description, "upload-notice-refused");
                self.waiting.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn log(request_id: i64) -> UploadSubject {
        UploadSubject::Log { kind: ocpp_bridge::LogKind::Security, request_id }
    }

    fn result() -> Outcome {
        Outcome::Result(serde_json::value::RawValue::from_string("{}".into()).unwrap())
    }

    #[test]
    fn notices_are_told_one_after_the_other() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        notices.push(log(7), UploadStatus::Uploading);
        notices.push(UploadSubject::Diagnostics, UploadStatus::Uploaded);
        let first = notices.next(now).unwrap();
        assert!(is_ours(first.id) && !is_ours(CallId(17)));
        assert_eq!(
            (first.action, first.payload.get()),
            ("LogStatusNotification", r#"{"status":"Uploading","requestId":7}"#)
        );
        assert!(notices.next(now).is_none(), "one at a time");
        notices.called(now, CallId(17), &result());
        assert!(notices.next(now).is_none(), "that was somebody else's");
        notices.called(now, first.id, &result());
        let second = notices.next(now).unwrap();
        assert_eq!(second.action, "DiagnosticsStatusNotification");
        assert_ne!(second.id, first.id);
        notices.called(now, second.id, &Outcome::Unanswered);
        assert!(notices.next(now).is_none() && notices.due().is_none());
    }

    #[test]
    fn what_was_lost_is_told_again_after_a_pause() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        notices.push(log(7), UploadStatus::Uploaded);
        let call = notices.next(now).unwrap();
        notices.called(now, call.id, &Outcome::Lost);
        assert!(notices.next(now).is_none());
        let due = notices.due().unwrap();
        assert!(due > now && due <= now + Duration::from_secs(60));
        assert_eq!(notices.next(due).unwrap().payload.get(), call.payload.get());
    }

    #[test]
    fn the_oldest_give_way_but_for_the_one_under_way() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        notices.push(log(0), UploadStatus::Uploaded);
        let first = notices.next(now).unwrap();
        for id in 1..100 {
            notices.push(log(id), UploadStatus::Uploaded);
        }
        assert_eq!(notices.waiting.len(), UPLOAD_NOTICES);
        notices.called(now, first.id, &result());
        let next = notices.next(now).unwrap();
        assert!(next.payload.get().ends_with(&format!("{}}}", 101 - UPLOAD_NOTICES)), "{}", next.payload);
    }

    #[test]
    fn refusals_do_not_push_out_how_an_upload_ended() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        notices.push_refusal(log(0), UploadStatus::PermissionDenied);
        let first = notices.next(now).unwrap();
        notices.push(log(1), UploadStatus::Uploaded);
        for id in 2..100 {
            notices.push_refusal(log(id), UploadStatus::PermissionDenied);
        }
        assert_eq!(notices.waiting.len(), UPLOAD_NOTICES);
        notices.called(now, first.id, &result());
        assert!(notices.next(now).unwrap().payload.get().contains("\"Uploaded\""));
        for _ in 0..UPLOAD_NOTICES {
            notices.add(Notice { subject: log(1), status: UploadStatus::Uploaded, refusal: false });
        }
        notices.push_refusal(log(7), UploadStatus::PermissionDenied);
        assert!(notices.waiting.iter().all(|notice| !notice.refusal), "not even the newest");
    }
}
