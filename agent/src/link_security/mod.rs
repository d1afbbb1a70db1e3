//! What the OCPP link proves itself with: security profile, authorization key and certificates; and how the CSMS changes
//! the first two by the configuration keys `SecurityProfile` and `AuthorizationKey`.
//!
//! [`rollover`] decides, [`file`](self::file) keeps, [`files`] reads. A change is kept before it is answered, and the link is told to
//! connect anew after the answer. What came of that is seen in the link's status.

mod file;
mod files;
pub mod rollover;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ocpp_bridge::{AuthorizationKey, Command, ConnectionProfile, LinkStatus};
use tokio::sync::watch;

use self::file::KeptFile;
pub use self::files::{FileError, client_certificate, expected_credentials, remark, server_tls};
use self::files::{authorization_key, connection_profile};
use self::rollover::{Candidate, Change, Kept, Outcome, Proof, Refused, Rollover};
use crate::config::Ocpp;
use crate::limits::SECURITY_CHANGES_PER_HOUR;
use crate::policy::Rate;

/// The write-only key of the standard for the password.
pub const AUTHORIZATION_KEY: &str = "AuthorizationKey";
/// The key of the standard for the security profile.
pub const SECURITY_PROFILE: &str = "SecurityProfile";

/// What a person can see of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityView {
    /// The security profile that the link is made for.
    pub profile: u8,
    /// A change over OCPP that is under way, or why the last one failed.
    pub change: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct LinkSecurity {
    ocpp: Arc<Ocpp>,
    file: KeptFile,
    rollover: Rollover,
    view: watch::Sender<SecurityView>,
    /// For the link, once the answer is on its way.
    command: Option<Command>,
    /// Why the candidate before this one was left.
    left: Option<String>,
    changes: Rate,
}

/// Reads every file that the configuration names for the link, and says what is wrong with them.
///
/// # Errors
/// See [`FileError`].
pub fn check_files(ocpp: &Ocpp) -> Result<(), FileError> {
    let proof = Proof { profile: ocpp.security_profile, key: authorization_key(ocpp)? };
    connection_profile(ocpp, &proof)?;
    if let Some(bridge) = &ocpp.bridge {
        expected_credentials(ocpp, bridge)?;
        server_tls(bridge)?;
    }
    client_certificate(ocpp).map(drop)
}

/// What became of a change that the CSMS asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is what is in use already.
    Unchanged,
    /// It is kept, and in use or being tried.
    Changed,
    /// It isn't taken.
    Rejected,
}

/// The security profile that an agent would make its link for if it were started now, and what it would connect with first. Nothing is
/// changed.
///
/// # Errors
/// A file of the configuration can't be used.
pub fn present_profile(ocpp: &Ocpp, state_dir: &Path) -> Result<(u8, ConnectionProfile), FileError> {
    let configured = Proof { profile: ocpp.security_profile, key: authorization_key(ocpp)? };
    let kept = kept(ocpp, || KeptFile::in_directory(state_dir).peek());
    let proof = Rollover::new(configured, kept).proof();
    connection_profile(ocpp, &proof).map(|profile| (proof.profile, profile))
}

/// What the CSMS has set. Where a controller has the credentials, it has those as well, and not we.
fn kept(ocpp: &Ocpp, read: impl FnOnce() -> Kept) -> Kept {
    if ocpp.has_credentials() { read() } else { Kept::default() }
}

impl LinkSecurity {
    /// Takes what the configuration says and what was kept in `state_dir`; and what to connect with first.
    ///
    /// # Errors
    /// A file of the configuration can't be used.
    pub fn open(ocpp: Arc<Ocpp>, state_dir: &Path) -> Result<(Self, ConnectionProfile), FileError> {
        let configured = Proof { profile: ocpp.security_profile, key: authorization_key(&ocpp)? };
        let file = KeptFile::in_directory(state_dir);
        let kept = kept(&ocpp, || file.load());
        if let Some(profile) = kept.profile.filter(|profile| *profile > configured.profile) {
            tracing::info!(profile, configured = configured.profile, "security-profile-kept");
        }
        let rollover = Rollover::new(configured.clone(), kept);
        let view = watch::Sender::new(SecurityView::default());
        let mut security =
            Self { ocpp, file, rollover, view, command: None, left: None, changes: Rate::default() };
        let is_raised = security.rollover.kept().profile.is_some_and(|kept| kept > configured.profile);
        let profile = security.first_profile(configured).map_err(|error| match is_raised {
            true => FileError::Kept(security.file.path().to_owned(), Box::new(error)),
            false => error,
        })?;
        security.warn_of_certificate();
        security.show(security.under_way());
        Ok((security, profile))
    }

    fn first_profile(&mut self, configured: Proof) -> Result<ConnectionProfile, FileError> {
        match connection_profile(&self.ocpp, &self.rollover.proof()) {
            Err(error) if self.rollover.candidate() == Candidate::Trial => {
                self.abandon(&error);
                // The link hasn't begun, so its numbers haven't either.
                self.rollover = Rollover::new(configured, self.rollover.kept().clone());
                connection_profile(&self.ocpp, &self.rollover.proof())
            }
            first => first,
        }
    }

    fn warn_of_certificate(&self) {
        if self.rollover.proof().profile == 3
            && let Ok(Some(certificate)) = client_certificate(&self.ocpp)
            && let Some(remark) = remark(&certificate)
        {
            tracing::warn!(remark, "client-certificate-validity");
        }
    }

    /// What a person can see.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<SecurityView> {
        self.view.subscribe()
    }

    /// The value of the key `SecurityProfile`.
    #[must_use]
    pub fn profile_value(&self) -> String {
        self.rollover.proof().profile.to_string()
    }

    /// Judges a change that the CSMS asks for. `None`: the key isn't one of these.
    ///
    /// After the answer, [`Self::take_command`] has what the link is to do. `now` is the monotonic clock's.
    pub fn change(&mut self, key: &str, value: &str, now: Instant) -> Option<Judgement> {
        // A clone that isn't kept is a change that didn't happen.
        let mut rollover = self.rollover.clone();
        let judged = match key {
            AUTHORIZATION_KEY => set_key(&mut rollover, value),
            SECURITY_PROFILE => self.set_profile(&mut rollover, value),
            _ => return None,
        };
        let kept = judged.and_then(|change| match change {
            Change::Unchanged => Ok(change),
            Change::Stored | Change::Trial => self.keep_change(rollover.kept(), now).map(|()| change),
        });
        match kept {
            Ok(change) => {
                tracing::info!(key, ?change, "security-change-accepted");
                self.rollover = rollover;
                if change == Change::Trial {
                    self.left = None;
                    self.connect(true);
                }
                if change != Change::Unchanged {
                    self.show(self.under_way());
                }
                Some(if change == Change::Unchanged { Judgement::Unchanged } else { Judgement::Changed })
            }
            Err(reason) => {
                tracing::warn!(key, reason, "security-change-rejected");
                Some(Judgement::Rejected)
            }
        }
    }

    /// Each change is written before it is answered, so their number is bound, for the flash's sake.
    fn keep_change(&mut self, kept: &Kept, now: Instant) -> Result<(), String> {
        self.changes.check(SECURITY_CHANGES_PER_HOUR, now).map_err(|wait| {
            let minutes = wait.as_secs().div_ceil(60);
            format!("{SECURITY_CHANGES_PER_HOUR} changes in an hour are enough: wait {minutes} minutes")
        })?;
        self.file
            .save(kept)
            .map_err(|error| format!("it can't be kept in {}: {error}", self.file.path().display()))?;
        self.changes.record(now);
        Ok(())
    }

    fn set_profile(&self, rollover: &mut Rollover, value: &str) -> Result<Change, String> {
        let profile = match value.parse::<u8>() {
            Ok(profile @ 0..=3) => profile,
            _ => return Err("the value is none of 0, 1, 2 and 3".into()),
        };
        let change = rollover.set_profile(profile).map_err(|refused| refused.to_string())?;
        if change == Change::Trial {
            connection_profile(&self.ocpp, &rollover.proof()).map_err(|error| error.to_string())?;
        }
        Ok(change)
    }

    /// What the link is to do now, if anything.
    pub fn take_command(&mut self) -> Option<Command> {
        self.command.take()
    }

    /// Draws the conclusions from the link's status; [`Self::take_command`] has what follows for the link.
    pub fn observe(&mut self, status: &LinkStatus) {
        while let Some(outcome) = self.rollover.observe(&status.attempts) {
            match outcome {
                Outcome::Settled => {
                    tracing::info!(profile = self.rollover.proof().profile, "security-change-settled");
                    self.keep();
                    self.show(None);
                }
                Outcome::Reverted => {
                    let why = self.left.take().unwrap_or_default();
                    tracing::warn!(why, "security-change-reverted");
                    self.keep();
                    self.show(Some(format!("given up, the old settings are in use again: {why}")));
                }
                Outcome::Next { at_once } => {
                    let short = || "the link with the CSMS fulfils a lower profile".into();
                    let why = status.last_error.clone().unwrap_or_else(short);
                    tracing::warn!(now = ?self.rollover.candidate(), why, "security-settings-refused");
                    self.left = Some(why);
                    self.connect(at_once);
                    self.show(self.under_way());
                }
            }
        }
    }

    /// Tells the link to connect with the present candidate.
    fn connect(&mut self, at_once: bool) {
        let profile = match connection_profile(&self.ocpp, &self.rollover.proof()) {
            Err(error) if self.rollover.candidate() == Candidate::Trial => {
                self.abandon(&error);
                connection_profile(&self.ocpp, &self.rollover.proof())
            }
            profile => profile,
        };
        match profile {
            Ok(profile) => {
                let number = self.rollover.number();
                self.command = Some(Command::Connect { profile: Box::new(profile), number, at_once });
            }
            // Files that were there at the start are gone. The link goes on with what it has.
            Err(error) => tracing::error!(%error, "security-settings-unusable"),
        }
    }

    /// What the trial needs is gone.
    fn abandon(&mut self, error: &FileError) {
        tracing::warn!(%error, "security-change-abandoned");
        self.left = Some(error.to_string());
        self.rollover.abandon_trial();
        self.keep();
    }

    /// A failure isn't the end: what is kept then holds the old and the new, and both are tried after a restart.
    fn keep(&self) {
        if let Err(error) = self.file.save(self.rollover.kept()) {
            tracing::error!(file = %self.file.path().display(), %error, "security-change-not-kept");
        }
    }

    fn under_way(&self) -> Option<String> {
        let why = self.left.as_deref().unwrap_or_default();
        match (self.rollover.candidate(), &self.rollover.kept().trial) {
            (Candidate::Trial, Some(trial)) => Some(format!("trying {}", self.describe(trial))),
            (Candidate::InUse, Some(trial)) => {
                Some(format!("trying the old settings again, since {} failed: {why}", self.describe(trial)))
            }
            (Candidate::File, _) => Some(format!(
                "the key that was set over OCPP is refused, so that of ocpp.authorization_key_file is used: {why}"
            )),
            _ => None,
        }
    }

    fn describe(&self, trial: &Proof) -> String {
        let Kept { profile, .. } = self.rollover.kept();
        if trial.profile > profile.unwrap_or_default().max(self.ocpp.security_profile) {
            return format!("security profile {}", trial.profile);
        }
        "a new authorization key".into()
    }

    fn show(&self, change: Option<String>) {
        self.view.send_replace(SecurityView { profile: self.rollover.proof().profile, change });
    }
}

fn set_key(rollover: &mut Rollover, value: &str) -> Result<Change, String> {
    let key = AuthorizationKey::parse_value(value).map_err(|error| error.to_string())?;
    rollover.set_key(key).map_err(|refused| refused.to_string())
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "the change before it is still being tried",
            Self::Down => "the security profile only goes up",
        })
    }
}

#[cfg(test)]
mod tests;
