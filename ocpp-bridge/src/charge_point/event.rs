//! What the embedder gets to know.

use std::time::Duration;

use chrono::{DateTime, Utc};

#[cfg(doc)]
use super::ChargePoint;
use super::{CallId, Outcome};
use crate::{RegistrationStatus, security::LinkSecurity, upload::UploadRequest};

/// Names one request of the CSMS that the embedder is to answer. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(crate) u64);

/// What the embedder gets to know.
///
/// Events with a [`RequestId`] are to be answered, all of them: what isn't answered keeps its place until the connection ends, and
/// with [`MAX_PENDING_ANSWERS`](crate::limits::MAX_PENDING_ANSWERS) of them nothing more is read. They come only for what the
/// embedder has registered: its keys, [`Settings::vendors`](super::Settings::vendors), [`Settings::uploads`](super::Settings::uploads),
/// [`Settings::actions`](super::Settings::actions).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The CSMS wants a key of the embedder changed. To be answered by [`ChargePoint::answer_change`].
    ChangeConfiguration {
        /// To be named in the answer.
        request: RequestId,
        /// The key, as it was registered.
        key: String,
        /// The wanted value: at most 500 characters, otherwise anything.
        value: String,
        /// What protects the link over which the request came.
        security: LinkSecurity,
    },
    /// The CSMS sent a DataTransfer that the embedder has registered. To be answered by
    /// [`ChargePoint::answer_transfer`].
    DataTransfer {
        /// To be named in the answer.
        request: RequestId,
        /// The vendor id, as the CSMS wrote it.
        vendor_id: String,
        /// The message id, as the CSMS wrote it.
        message_id: Option<String>,
        /// The data: at most [`MAX_TRANSFER_CHARS`](crate::limits::MAX_TRANSFER_CHARS) characters, otherwise
        /// anything.
        data: Option<String>,
        /// What protects the link over which the request came.
        security: LinkSecurity,
    },
    /// The CSMS wants a log or diagnostics (GetLog, GetDiagnostics). To be answered by [`ChargePoint::answer_upload`].
    Upload {
        /// To be named in the answer.
        request: RequestId,
        /// What it wants, and where.
        wanted: UploadRequest,
        /// What protects the link over which the request came.
        security: LinkSecurity,
    },
    /// The CSMS calls an action that the embedder serves. To be answered by [`ChargePoint::answer_call`].
    Call {
        /// To be named in the answer.
        request: RequestId,
        /// The action.
        action: String,
        /// Its payload: any JSON, as the CSMS wrote it.
        payload: String,
        /// What protects the link over which the request came.
        security: LinkSecurity,
    },
    /// The CSMS wants a reset, and has been told `Accepted`: the connection ends and is made anew.
    Reset {
        /// A hard one; for the charge point there is no difference.
        hard: bool,
    },
    /// The CSMS answered BootNotification.
    BootStatus {
        /// Its answer.
        status: RegistrationStatus,
        /// When BootNotification is sent again; `None` once accepted.
        retry_in: Option<Duration>,
    },
    /// The CSMS's time.
    Clock(DateTime<Utc>),
    /// A key of the standard has a new value.
    ConfigurationChanged {
        /// The key, in the standard's spelling.
        key: String,
        /// Its value, in the standard's spelling.
        value: String,
    },
    /// What became of a CALL of the embedder.
    Called {
        /// Which one.
        id: CallId,
        /// What became of it.
        outcome: Outcome,
    },
}

// === impl Event ===

impl Event {
    /// Whether the CSMS waits for the embedder's answer.
    pub(super) fn is_request(&self) -> bool {
        matches!(
            self,
            Self::ChangeConfiguration { .. }
                | Self::DataTransfer { .. }
                | Self::Upload { .. }
                | Self::Call { .. }
        )
    }
}
