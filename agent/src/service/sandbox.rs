//! What this process gives up when it becomes an agent: the right to gain privileges, and by landlock (landlock(7)) the
//! right to change files anywhere but in `state_dir` and `runtime_dir`, to run programs, and to signal other processes. And what
//! every command of ours gives up: that anybody sees its memory.
//!
//! Reading stays as it is: name resolution, certificates and a reload need files that nobody can list beforehand. So do
//! connections: a site's targets can be anything. A kernel without landlock, or with an old one, is no error; what is in force
//! is told in the log and in `status`.

use std::path::Path;

use landlock::{
    ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{AccessFlags, access};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::instance::{make_directory, make_runtime_directory};
use crate::config::Config;

/// The newest version of landlock whose rules are used, where the kernel has them.
const NEWEST: ABI = ABI::V6;

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// `no_new_privs` (prctl(2)).
    pub no_new_privs: bool,
    /// landlock.
    pub landlock: Landlock,
}

/// How far landlock is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// Every rule is.
    Enforced,
    /// The kernel doesn't know some of the rules.
    Partial,
    /// The kernel has none, or doesn't let us.
    Off(String),
}

/// No core file, and no other process of this user, gets to see this one's memory, which holds keys and passwords: not when it
/// aborts, nor when a watchdog ends it. For every command, and before anything secret is read.
pub fn keep_secrets() {
    // Neither can fail for one's own process; nor would that be a reason not to start.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Restricts this thread and all that it starts later: must be called before the runtime is made. Makes the directories of the
/// configuration where they don't exist, since no rule can be about what isn't there.
pub fn enter(config: &Config) -> Sandbox {
    // What can't be made is told of by whoever needs it.
    let _ = make_directory(&config.state_dir);
    let _ = make_runtime_directory(&config.runtime_dir);
    let no_new_privs = rustix::thread::set_no_new_privs(true).is_ok();
    let landlock = match restrict(config) {
        Ok(RulesetStatus::FullyEnforced) => Landlock::Enforced,
        Ok(RulesetStatus::PartiallyEnforced) => Landlock::Partial,
        Ok(RulesetStatus::NotEnforced) => Landlock::Off("the kernel has none".into()),
        Err(error) => Landlock::Off(error.to_string()),
    };
    let sandbox = Sandbox { no_new_privs, landlock };
    let (landlock, why) = (sandbox.landlock.word(), sandbox.landlock.reason().unwrap_or_default());
    match &sandbox.landlock {
        Landlock::Off(_) => tracing::warn!(landlock, why, no_new_privs, "sandbox"),
        _ => tracing::info!(landlock, no_new_privs, "sandbox"),
    }
    sandbox
}

fn restrict(config: &Config) -> Result<RulesetStatus, RulesetError> {
    let writing = AccessFs::from_write(NEWEST);
    let mut ruleset =
        Ruleset::default().handle_access(writing | AccessFs::Execute)?.scope(Scope::Signal)?.create()?;
    for directory in writable(config) {
        // One that doesn't exist can't be written to either.
        if let Ok(opened) = PathFd::new(directory) {
            ruleset = ruleset.add_rule(PathBeneath::new(opened, writing))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Where files may be changed. The directory that `runtime_dir` is in is among them only if this user may change it anyway: then the
/// agent can make `runtime_dir` again after somebody removed it.
fn writable(config: &Config) -> Vec<&Path> {
    let mut directories = vec![config.state_dir.as_path(), config.runtime_dir.as_path()];
    let parent = config.runtime_dir.parent();
    directories.extend(parent.filter(|parent| access(*parent, AccessFlags::W_OK).is_ok()));
    directories
}

impl Landlock {
    /// One word for log and `status`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Partial => "partial",
            Self::Off(_) => "off",
        }
    }

    /// Why it is off.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Off(why) => Some(why),
            _ => None,
        }
    }
}
