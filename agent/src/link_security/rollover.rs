//! What the link proves itself with, and how that changes (Improved security for OCPP 1.6-J, A05): a state machine
//! without IO.
//!
//! The CSMS gives us a new authorization key or a higher security profile. It is tried beside what is in use, and only
//! once the CSMS has let us in with it the old is forgotten; when the CSMS lets us in with the old again, the new
//! is. Whoever keeps [`Kept`] after each change can lose power at any moment: what is kept holds both until then.
//!
//! | tried in this order | when there is |
//! | --- | --- |
//! | the trial: the new key or profile | a change that isn't settled |
//! | what is in use: the key that was set over OCPP last, otherwise the file's | always |
//! | the file's key | a key that was set over OCPP |
//!
//! The next is tried when the CSMS refuses the one before it, or when a trial of another profile reaches no CSMS. So the file's
//! key is a last resort against a CSMS that has forgotten the key that it once set; nothing is forgotten for it.

use ocpp_bridge::{Attempts, AuthorizationKey};

use crate::limits::PROFILE_ATTEMPTS;

/// What the link proves itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The security profile, 0 to 3.
    pub profile: u8,
    /// The key for Basic authentication, whether the profile uses it or not.
    pub key: Option<AuthorizationKey>,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The security profile that was reached over OCPP.
    pub profile: Option<u8>,
    /// The key that was set over OCPP.
    pub key: Option<AuthorizationKey>,
    /// The change that isn't settled.
    pub trial: Option<Proof>,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// What the CSMS wants us to use.
    Trial,
    /// What it let us in with before.
    InUse,
    /// The key of the configuration's file.
    File,
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The one before it isn't settled yet.
    Busy,
    /// A security profile only goes up.
    Down,
}

/// What became of a change that the CSMS asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is nothing to change.
    Unchanged,
    /// To be kept; the present link doesn't use it.
    Stored,
    /// To be kept, and tried on a new link.
    Trial,
}

/// What follows from what happened to the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The trial has succeeded: keep that.
    Settled,
    /// The trial has failed, and what was in use before works: keep that.
    Reverted,
    /// Connect with [`Rollover::proof`] from now on.
    Next {
        /// Without waiting: it is no repetition.
        at_once: bool,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Rollover {
    configured: Proof,
    kept: Kept,
    candidate: Candidate,
    /// Names the candidate's connections among those of others.
    number: u64,
    /// What of the candidate's attempts has been drawn a conclusion from.
    concluded: Attempts,
}

impl Rollover {
    /// Begins with what the configuration says and what was kept.
    #[must_use]
    pub fn new(configured: Proof, kept: Kept) -> Self {
        let candidate = if kept.trial.is_some() { Candidate::Trial } else { Candidate::InUse };
        Self { configured, kept, candidate, number: 0, concluded: Attempts::default() }
    }

    /// What is to survive a restart.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// What is tried, or has been let in.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        self.candidate
    }

    /// The number of its connections, for [`Attempts::profile`].
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What to connect with.
    #[must_use]
    pub fn proof(&self) -> Proof {
        self.proof_of(self.candidate)
    }

    fn proof_of(&self, candidate: Candidate) -> Proof {
        // A restart with a lower profile in the configuration doesn't lower what was reached.
        let profile = self.configured.profile.max(self.kept.profile.unwrap_or_default());
        let file = || self.configured.key.clone();
        match (candidate, &self.kept.trial) {
            (Candidate::Trial, Some(trial)) => trial.clone(),
            (Candidate::File, _) => Proof { profile, key: file() },
            _ => Proof { profile, key: self.kept.key.clone().or_else(file) },
        }
    }

    // --- what the CSMS asks for ---

    /// The CSMS sets `AuthorizationKey`.
    ///
    /// # Errors
    /// [`Refused::Busy`].
    pub fn set_key(&mut self, key: AuthorizationKey) -> Result<Change, Refused> {
        let Proof { profile, key: present } = self.proof();
        if self.candidate == Candidate::Trial {
            return Err(Refused::Busy);
        }
        if present.as_ref() == Some(&key) {
            return Ok(Change::Unchanged);
        }
        if uses_key(profile) {
            self.begin(Proof { profile, key: Some(key) });
            return Ok(Change::Trial);
        }
        self.kept.key = Some(key);
        Ok(Change::Stored)
    }

    /// The CSMS sets `SecurityProfile`; whether there is what it takes, the caller has found out.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_profile(&mut self, profile: u8) -> Result<Change, Refused> {
        let present = self.proof();
        if profile < present.profile {
            return Err(Refused::Down);
        }
        if profile == present.profile {
            return Ok(Change::Unchanged);
        }
        if self.candidate == Candidate::Trial {
            return Err(Refused::Busy);
        }
        self.begin(Proof { profile, key: present.key });
        Ok(Change::Trial)
    }

    fn begin(&mut self, trial: Proof) {
        self.kept.trial = Some(trial);
        self.switch(Candidate::Trial);
    }

    /// The trial can't even be tried: what it needs is gone.
    pub fn abandon_trial(&mut self) {
        if self.kept.trial.take().is_some() && self.candidate == Candidate::Trial {
            self.switch(Candidate::InUse);
        }
    }

    // --- what happens to the link ---

    /// Draws the conclusions from how the connections went. To be called until it has none.
    pub fn observe(&mut self, attempts: &Attempts) -> Option<Outcome> {
        if attempts.profile != self.number {
            return None;
        }
        let news = attempts.proven.filter(|_| self.concluded.proven.is_none());
        // A CSMS may let us in without asking for what a higher profile is about.
        let falls_short = news.is_some_and(|live| self.is_raising() && live < self.proof().profile);
        if news.is_some() && !falls_short {
            self.concluded = *attempts;
            return self.succeeded();
        }
        let refused = falls_short || attempts.refused > self.concluded.refused;
        let unreachable = attempts.failed.saturating_sub(self.concluded.failed) >= PROFILE_ATTEMPTS;
        if !refused && !unreachable {
            return None;
        }
        self.concluded = *attempts;
        let order = [Candidate::Trial, Candidate::InUse, Candidate::File].map(|one| (one, self.exists(one)));
        let present = order.iter().position(|(one, _)| *one == self.candidate).unwrap_or_default();
        let profile = self.proof().profile;
        // Where no CSMS was reached, another key is no better.
        let helps = |one: Candidate| refused || self.proof_of(one).profile != profile;
        let mut others = (1..order.len()).map(|step| (present + step) % order.len());
        let next = others.find(|&at| order.get(at).is_some_and(|&(one, exists)| exists && helps(one)))?;
        let (candidate, _) = *order.get(next)?;
        self.switch(candidate);
        Some(Outcome::Next { at_once: next > present })
    }

    fn succeeded(&mut self) -> Option<Outcome> {
        let trial = self.kept.trial.take();
        if self.candidate != Candidate::Trial {
            return trial.map(|_| Outcome::Reverted);
        }
        let Proof { profile, key } = trial?;
        self.candidate = Candidate::InUse;
        if profile > self.configured.profile {
            self.kept.profile = Some(profile);
        }
        if key != self.configured.key {
            self.kept.key = key;
        } else {
            self.kept.key = None;
        }
        Some(Outcome::Settled)
    }

    /// Whether the trial is one of a higher profile.
    #[must_use]
    pub fn is_raising(&self) -> bool {
        self.candidate == Candidate::Trial && self.proof().profile > self.proof_of(Candidate::InUse).profile
    }

    fn exists(&self, candidate: Candidate) -> bool {
        match candidate {
            Candidate::Trial => self.kept.trial.is_some(),
            Candidate::InUse => true,
            Candidate::File => {
                let in_use = self.proof_of(Candidate::InUse);
                uses_key(in_use.profile) && self.configured.key.is_some() && self.configured.key != in_use.key
            }
        }
    }

    fn switch(&mut self, candidate: Candidate) {
        self.candidate = candidate;
        self.number += 1;
        self.concluded = Attempts { profile: self.number, ..Attempts::default() };
    }
}

/// Whether a profile has Basic authentication.
#[must_use]
pub fn uses_key(profile: u8) -> bool {
    matches!(profile, 1 | 2)
}

#[cfg(test)]
#[path = "rollover_tests.rs"]
mod tests;
