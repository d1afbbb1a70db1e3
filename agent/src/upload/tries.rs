//! How often an upload is tried, and how it ends.

use std::time::Duration;

use ocpp_bridge::{UploadRequest, UploadStatus};
use tokio::time::sleep;

use super::failure::Failure;
use crate::limits::{
    UPLOAD_RETRIES, UPLOAD_RETRIES_MOST, UPLOAD_RETRY_LEAST, UPLOAD_RETRY_MOST, UPLOAD_RETRY_WAIT,
};

/// How patient an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Tries after the first.
    retries: u32,
    /// Between two.
    wait: Duration,
}

impl Patience {
    /// What the CSMS asks for, within our bounds.
    pub(super) fn of(wanted: &UploadRequest) -> Self {
        Self {
            retries: wanted.retries.map_or(UPLOAD_RETRIES, |retries| retries.min(UPLOAD_RETRIES_MOST)),
            wait: wanted
                .retry_interval
                .map_or(UPLOAD_RETRY_WAIT, |wait| wait.clamp(UPLOAD_RETRY_LEAST, UPLOAD_RETRY_MOST)),
        }
    }

    /// Tries until it works, until trying again is pointless, or until patience ends.
    pub(super) async fn carry_out<F: Future<Output = Result<(), Failure>>>(
        self,
        server: &str,
        mut attempt: impl FnMut() -> F,
    ) -> UploadStatus {
        let mut left = self.retries;
        loop {
            let failure = match attempt().await {
                Ok(()) => {
                    tracing::info!(server, "upload-done");
                    return UploadStatus::Uploaded;
                }
                Err(failure) => failure,
            };
            if left == 0 || !failure.is_passing() {
                tracing::warn!(server, why = %failure, "upload-failed");
                return failure.status();
            }
            left -= 1;
            let again_in = self.wait.as_secs();
            tracing::info!(server, why = %failure, again_in, "upload-tried");
            sleep(self.wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use ocpp_bridge::UploadSubject;
    use tokio::time::Instant;

    use super::*;

    fn patience(retries: Option<u32>, seconds: Option<u64>) -> Patience {
        Patience::of(&UploadRequest {
            subject: UploadSubject::Diagnostics,
            location: String::new(),
            oldest: None,
            latest: None,
            retries,
            retry_interval: seconds.map(Duration::from_secs),
        })
    }

    /// The status, the tries and the seconds that an upload takes whose tries end in these HTTP statuses, the last for ever.
    async fn story(patience: Patience, answers: &[u16]) -> (UploadStatus, usize, u64) {
        let began = Instant::now();
        let mut tries = 0;
        let status = patience
            .carry_out("https://h", || {
                let answer = answers[tries.min(answers.len() - 1)];
                tries += 1;
                std::future::ready(if answer == 200 { Ok(()) } else { Err(Failure::Refused(answer)) })
            })
            .await;
        (status, tries, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_after_the_interval_and_what_does_not_is_not() {
        let four = patience(Some(3), Some(10));
        assert_eq!(story(four, &[200]).await, (UploadStatus::Uploaded, 1, 0));
        assert_eq!(story(four, &[503, 500, 200]).await, (UploadStatus::Uploaded, 3, 20));
        assert_eq!(story(four, &[503]).await, (UploadStatus::UploadFailure, 4, 30));
        assert_eq!(story(four, &[503, 413]).await, (UploadStatus::UploadFailure, 2, 10));
        assert_eq!(story(four, &[403]).await, (UploadStatus::PermissionDenied, 1, 0));
        assert_eq!(story(patience(Some(0), None), &[503]).await, (UploadStatus::UploadFailure, 1, 0));
    }

    #[test]
    fn patience_has_bounds() {
        let ours = Patience { retries: UPLOAD_RETRIES, wait: UPLOAD_RETRY_WAIT };
        assert_eq!(patience(None, None), ours);
        let most = Patience { retries: UPLOAD_RETRIES_MOST, wait: UPLOAD_RETRY_MOST };
        assert_eq!(patience(Some(u32::MAX), Some(u64::from(u32::MAX))), most);
        assert_eq!(patience(Some(1), Some(0)), Patience { retries: 1, wait: UPLOAD_RETRY_LEAST });
    }
}
