//! The configuration that the agent ran with last: what an operator changed before a restart is recorded like what a reload takes up.

use std::path::{Path, PathBuf};

use crate::audit::{Audit, Kind, Outcome, Record, Source};
use crate::config::Config;
use crate::limits::CONFIG_BYTES;
use crate::whole_file::{self, Survives};

/// In `state_dir`; it holds what was written in the configuration's files, which has no secrets.
const NAME: &str = "last-configuration.toml";

/// It begins with this, so that it is never empty.
const HEADER: &str =
    "# What was in force when the agent ran last. Written by it, and only read to tell what has changed.\n";

/// The file that says what was in force.
#[derive(Debug)]
pub(crate) struct LastConfiguration {
    path: PathBuf,
    /// What it holds, if that is known.
    content: String,
}

impl LastConfiguration {
    /// Records how `config` differs from what was in force in the last run, and keeps it for the next one. The first run has nothing to
    /// compare with.
    pub(crate) fn open(state_dir: &Path, config: &Config, audit: &Audit) -> Self {
        let mut last = Self::read(state_dir);
        for key in last.differences(config) {
            let record = Record::new(Kind::ConfigurationReloaded, Source::Configuration, Outcome::Success)
                .text("key", &key)
                .text("value", &config.shown_value(&key))
                .text("effect", "start");
            audit.record(record);
        }
        last.keep(config);
        last
    }

    fn read(state_dir: &Path) -> Self {
        let path = state_dir.join(NAME);
        let bytes = whole_file::read(&path, CONFIG_BYTES).unwrap_or_default();
        let content = String::from_utf8(bytes).unwrap_or_default();
        Self { path, content }
    }

    /// What `config` has otherwise. What an earlier version wrote may not be a configuration any more: then all that can be said is that
    /// it differs.
    fn differences(&self, config: &Config) -> Vec<String> {
        match Config::parse(&self.path, &self.content) {
            _ if self.content.is_empty() || self.content == written(config) => Vec::new(),
            Ok(before) => before.differences(config),
            Err(_) => vec!["*".to_owned()],
        }
    }

    /// This is in force now, or will be after a restart.
    pub(crate) fn keep(&mut self, config: &Config) {
        let content = written(config);
        if content == self.content {
            return;
        }
        // A disk that can't be written is told of by those that need it; here the price is a record twice.
        if let Err(error) = whole_file::replace(&self.path, content.as_bytes(), Survives::PowerCut) {
            tracing::debug!(%error, "last-configuration-not-kept");
        }
        self.content = content;
    }
}

/// The keys that are written otherwise in `config` than in what the running service has read, as far as that is known.
pub(crate) fn unread(config: &Config) -> Vec<String> {
    LastConfiguration::read(&config.state_dir).differences(config)
}

fn written(config: &Config) -> String {
    format!("{HEADER}{}", config.written_toml())
}
