//! Logs and diagnostics that the CSMS asks for by GetLog and GetDiagnostics: what is sent, and where it may go.
//!
//! # Layout
//! - [`location`]: the URL, parsed; [`allowed`]: `policy.allow_uploads`.
//! - `content`: the file that is made.
//! - `http`: one request; `attempt`: one try, from the name to the answer; `tries`: all of them; `failure`: why one fails.
//! - `notices`: what the CSMS is told.
//!
//! One upload runs at a time, and nothing of it outlives the agent. The charge point hands a request to the trigger, which hands it
//! on to here; answers and notifications go to the charge point.

pub mod allowed;
mod attempt;
mod content;
mod failure;
mod http;
pub mod location;
mod notices;
mod tries;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocpp_bridge::charge_point::{CallId, Outcome};
use ocpp_bridge::{
    Command, LinkState, LinkStatus, RequestId, UploadAnswer, UploadRequest, UploadStatus, UploadSubject,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant as Moment, sleep_until};

use self::allowed::UploadPattern;
use self::attempt::{Place, attempt};
use self::content::Period;
use self::failure::Failure;
use self::location::{Location, LocationError};
use self::notices::Notices;
use self::tries::Patience;
use crate::audit::{self, Audit, Kind, Record};
use crate::config::{Config, Ocpp};
use crate::limits::{UPLOAD_REQUESTS, UPLOADS_PER_HOUR};
use crate::policy::Rate;

pub use content::Sources;
pub use notices::is_ours;

/// The configuration key that tells by which protocols the CSMS can have a file (OCPP 1.6 errata; GetLog relies on it).
pub const PROTOCOLS_KEY: &str = "SupportedFileTransferProtocols";

/// What the trigger hands on.
#[derive(Debug)]
enum Message {
    Asked {
        request: RequestId,
        wanted: UploadRequest,
        /// The security profile that the link fulfils.
        profile: u8,
    },
    Called {
        id: CallId,
        outcome: Outcome,
    },
}

/// The way to whoever uploads.
#[derive(Clone, Debug)]
pub struct Uploads(mpsc::Sender<Message>);

/// What has been handed on, and waits.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Message>);

/// Makes the way, whose other end is for [`spawn`].
#[must_use]
pub fn channel() -> (Uploads, Inbox) {
    let (sender, receiver) = mpsc::channel(UPLOAD_REQUESTS);
    (Uploads(sender), Inbox(receiver))
}

impl Uploads {
    /// The CSMS asks for a file. It gets its answer from whoever uploads.
    ///
    /// `profile` is the security profile that the link of the request fulfils; it is recorded.
    pub fn ask(&self, request: RequestId, wanted: UploadRequest, profile: u8) {
        self.send(Message::Asked { request, wanted, profile });
    }

    /// What became of a CALL that [`is_ours`].
    pub fn called(&self, id: CallId, outcome: Outcome) {
        self.send(Message::Called { id, outcome });
    }

    /// Never waits: whoever uploads may itself be waiting for the link.
    fn send(&self, message: Message) {
        if self.0.try_send(message).is_err() {
            tracing::warn!("upload-request-dropped");
        }
    }
}

/// The protocols that the list lets a file go by, as [`PROTOCOLS_KEY`] wants them.
#[must_use]
pub fn protocols(list: &[UploadPattern]) -> String {
    let has = |scheme| list.iter().any(|pattern| pattern.scheme() == scheme);
    let names = [(location::Scheme::Http, "HTTP"), (location::Scheme::Https, "HTTPS")];
    let names: Vec<&str> =
        names.into_iter().filter(|(scheme, _)| has(*scheme)).map(|(_, name)| name).collect();
    names.join(",")
}

/// Serves the requests until the trigger drops its [`Uploads`]; what is being uploaded then is cancelled.
pub fn spawn(
    inbox: Inbox,
    config: watch::Receiver<Arc<Config>>,
    ocpp: &Ocpp,
    sources: Sources,
    audit: Audit,
    commands: mpsc::Sender<Command>,
    link: watch::Receiver<LinkStatus>,
) {
    let uploader = Uploader {
        config,
        ca_file: ocpp.ca_file.clone(),
        sources,
        audit,
        commands,
        begun: Rate::default(),
        running: None,
        notices: Notices::default(),
    };
    tokio::spawn(uploader.run(inbox, link));
}

struct Uploader {
    /// For the list of places, which a reload may change.
    config: watch::Receiver<Arc<Config>>,
    ca_file: Option<PathBuf>,
    sources: Sources,
    audit: Audit,
    commands: mpsc::Sender<Command>,
    begun: Rate,
    running: Option<Running>,
    notices: Notices,
}

/// The upload that is under way. Dropping it cancels it.
struct Running {
    subject: UploadSubject,
    work: Pin<Box<dyn Future<Output = UploadStatus> + Send>>,
}

/// Why nothing is uploaded.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Location(LocationError),
    NotAllowed(Location),
    TooMany(Duration),
}

impl Uploader {
    async fn run(mut self, mut inbox: Inbox, mut link: watch::Receiver<LinkStatus>) {
        self.show(None).await;
        loop {
            if link.borrow_and_update().state == LinkState::Accepted
                && let Some(call) = self.notices.next(now())
            {
                self.tell(Command::Call(call)).await;
            }
            let due = self.notices.due();
            tokio::select! {
                message = inbox.0.recv() => match message {
                    Some(Message::Asked { request, wanted, profile }) => {
                        self.asked(request, wanted, profile).await;
                    }
                    Some(Message::Called { id, outcome }) => self.notices.called(now(), id, &outcome),
                    None => return,
                },
                status = finished(&mut self.running) => {
                    self.end(status);
                    self.show(None).await;
                }
                Ok(()) = link.changed() => {}
                () = sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => {}
            }
        }
    }

    async fn asked(&mut self, request: RequestId, wanted: UploadRequest, profile: u8) {
        let subject = wanted.subject;
        let source = audit::Source::Ocpp { profile: Some(profile) };
        let place = match self.admit(&wanted.location) {
            Ok(place) => place,
            Err(refusal) => {
                tracing::warn!(log = name(subject), why = %refusal, cure = refusal.cure(), "upload-refused");
                let record = Record::new(Kind::UploadRefused, source, audit::Outcome::Refused);
                self.audit.record(record.text("log", name(subject)).text("why", &refusal.to_string()));
                self.answer(request, subject, UploadAnswer::Rejected).await;
                self.notices.push_refusal(subject, refusal.status());
                return;
            }
        };
        let file_name = self.sources.file_name(subject);
        let server = place.location.to_string();
        let answer = match &self.running {
            None => UploadAnswer::Accepted { file_name: file_name.clone() },
            Some(cancelled) => {
                tracing::info!(log = name(cancelled.subject), "upload-cancelled");
                self.end(UploadStatus::UploadFailure);
                UploadAnswer::AcceptedCanceled { file_name: file_name.clone() }
            }
        };
        tracing::info!(log = name(subject), file = file_name, server, "upload-begun");
        let record = Record::new(Kind::UploadBegun, source, audit::Outcome::Success);
        self.audit.record(record.text("log", name(subject)).text("file", &file_name).text("server", &server));
        self.answer(request, subject, answer).await;
        self.show(Some(subject)).await;
        self.notices.push(subject, UploadStatus::Uploading);
        let work = Box::pin(upload(self.sources.clone(), place, wanted, file_name));
        self.running = Some(Running { subject, work });
    }

    /// The upload that is under way has ended.
    fn end(&mut self, status: UploadStatus) {
        let Some(Running { subject, .. }) = self.running.take() else { return };
        let outcome = match status {
            UploadStatus::Uploaded => audit::Outcome::Success,
            _ => audit::Outcome::Failure,
        };
        let record = Record::new(Kind::UploadEnded, audit::Source::Agent, outcome);
        self.audit.record(record.text("log", name(subject)).text("status", status.word()));
        self.notices.push(subject, status);
    }

    /// May a file go there, now?
    fn admit(&mut self, url: &str) -> Result<Place, Refusal> {
        let location = Location::parse(url).map_err(Refusal::Location)?;
        let Some(reach) = allowed::reach(&self.config.borrow().policy.allow_uploads, &location) else {
            return Err(Refusal::NotAllowed(location));
        };
        self.begun.check(UPLOADS_PER_HOUR, now()).map_err(Refusal::TooMany)?;
        self.begun.record(now());
        Ok(Place { location, reach, ca_file: self.ca_file.clone() })
    }

    async fn answer(&mut self, request: RequestId, subject: UploadSubject, answer: UploadAnswer) {
        self.tell(Command::AnswerUpload { request, subject, answer }).await;
    }

    /// What the CSMS is told when it triggers a status.
    async fn show(&mut self, uploading: Option<UploadSubject>) {
        for (report, payload) in ocpp_bridge::upload::reports(uploading) {
            self.tell(Command::SetReport { report, payload }).await;
        }
    }

    /// A link that has ended needs no command.
    async fn tell(&mut self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}

/// Waits for the end of the upload that is under way; where there is none, for ever.
async fn finished(running: &mut Option<Running>) -> UploadStatus {
    match running {
        Some(running) => running.work.as_mut().await,
        None => std::future::pending().await,
    }
}

/// A whole upload. The file is made once, so that every try sends the same.
async fn upload(sources: Sources, place: Place, wanted: UploadRequest, file_name: String) -> UploadStatus {
    let server = place.location.to_string();
    let period = Period { oldest: wanted.oldest, latest: wanted.latest };
    let subject = wanted.subject;
    let made = tokio::task::spawn_blocking(move || sources.file(subject, file_name, period)).await;
    let file = match made.map_err(std::io::Error::other).flatten() {
        Ok(file) => file,
        Err(error) => {
            let failure = Failure::Content(error.to_string());
            tracing::warn!(server, why = %failure, "upload-failed");
            return failure.status();
        }
    };
    Patience::of(&wanted).carry_out(&server, || attempt(&place, &file)).await
}

fn now() -> Instant {
    Moment::now().into_std()
}

/// What the log calls it.
fn name(subject: UploadSubject) -> &'static str {
    match subject {
        UploadSubject::Diagnostics => "GetDiagnostics",
        UploadSubject::Log { kind: ocpp_bridge::LogKind::Diagnostics, .. } => "DiagnosticsLog",
        UploadSubject::Log { kind: ocpp_bridge::LogKind::Security, .. } => "SecurityLog",
    }
}

// === impl Refusal ===

impl Refusal {
    /// What the CSMS is told besides `Rejected`, which gives no reason.
    fn status(&self) -> UploadStatus {
        match self {
            Self::Location(LocationError::Scheme(_)) => UploadStatus::NotSupportedOperation,
            Self::Location(LocationError::ClearPassword) | Self::NotAllowed(_) => {
                UploadStatus::PermissionDenied
            }
            Self::Location(_) => UploadStatus::BadMessage,
            Self::TooMany(_) => UploadStatus::UploadFailure,
        }
    }

    fn cure(&self) -> String {
        match self {
            Self::Location(LocationError::Scheme(_)) => "let the CSMS ask for an upload to https://".into(),
            Self::Location(_) => "let the CSMS send a URL like https://logs.example.com/in/".into(),
            Self::NotAllowed(location) => format!("add \"{location}\" to policy.allow_uploads"),
            Self::TooMany(again_in) => format!("wait {} minutes", again_in.as_secs().div_ceil(60)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Location(error) => error.fmt(f),
            Self::NotAllowed(location) => write!(f, "{location} is not an allowed place for uploads"),
            Self::TooMany(_) => {
                write!(f, "{UPLOADS_PER_HOUR} uploads were begun in an hour, as many as allowed")
            }
        }
    }
}
