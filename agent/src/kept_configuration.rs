//! What the CSMS changed of the standard's configuration keys, kept in `state_dir`, so that it survives restarts and
//! power cuts.
//!
//! The slots' destinations aren't here: they may not survive a reboot, see [`crate::wanted`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ocpp_bridge::ChargePoint;
use serde::{Deserialize, Serialize};

use crate::limits::{
    KEPT_CONFIGURATION_BYTES, KEPT_CONFIGURATION_DELAY, KEPT_CONFIGURATION_INTERVAL, KEPT_CONFIGURATION_KEYS,
};
use crate::whole_file::{self, Survives};

/// The values, and the file that they are in.
#[derive(Debug)]
pub struct KeptConfiguration {
    path: PathBuf,
    values: BTreeMap<String, String>,
    /// When to write what the file doesn't hold yet; none while it holds everything.
    write_at: Option<Instant>,
    /// When it was written last, or that was tried.
    tried_at: Option<Instant>,
    /// The last try failed.
    failed: bool,
}

#[derive(Deserialize, Serialize)]
struct Document {
    values: BTreeMap<String, String>,
}

impl KeptConfiguration {
    /// What `state_dir` holds. A file that makes no sense is set aside as `configuration.json.corrupt`, and told of in
    /// the log; one that can't be read is only told of.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("configuration.json");
        let values = match load(&path) {
            Ok(Some(values)) => values,
            Ok(None) => {
                let set_aside = whole_file::set_aside(&path);
                tracing::warn!(file = %path.display(), set_aside = set_aside.is_ok(), "configuration-corrupt");
                BTreeMap::new()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "configuration-unreadable");
                BTreeMap::new()
            }
        };
        Self { path, values, write_at: None, tried_at: None, failed: false }
    }

    /// Puts the values into effect. One that doesn't fit any more, after an update for instance, is dropped.
    pub fn restore(&mut self, charge_point: &mut ChargePoint) {
        self.values.retain(|key, value| match charge_point.restore_value(key, value) {
            Ok(()) => true,
            Err(why) => {
                tracing::warn!(key, value, why, "configuration-not-restored");
                false
            }
        });
    }

    /// The CSMS has changed a value. It is written a little later, with what else changes meanwhile.
    pub fn keep(&mut self, key: String, value: String, now: Instant) {
        // The standard has fewer keys; a file that somebody filled with others must not grow for ever.
        if self.values.len() >= KEPT_CONFIGURATION_KEYS && !self.values.contains_key(&key) {
            tracing::warn!(key, "configuration-not-kept");
            return;
        }
        self.values.insert(key, value);
        self.write_at.get_or_insert(now + KEPT_CONFIGURATION_DELAY);
        self.pace();
    }

    /// When [`Self::write_if_due`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.write_at
    }

    /// Writes what the file doesn't hold yet, if it is time.
    pub fn write_if_due(&mut self, now: Instant) {
        if self.write_at.is_some_and(|at| at <= now) {
            self.write(now);
        }
    }

    /// Writes at once what the file doesn't hold yet: the agent stops.
    pub fn settle(&mut self, now: Instant) {
        if self.write_at.is_some() {
            self.write(now);
        }
    }

    /// A failure is told of once, until it has worked again; meanwhile it is tried again and again, but not often.
    fn write(&mut self, now: Instant) {
        let result = self.save();
        if let Err(error) = &result
            && !self.failed
        {
            tracing::warn!(file = %self.path.display(), %error, "configuration-not-kept");
        }
        self.failed = result.is_err();
        self.tried_at = Some(now);
        self.write_at = self.failed.then_some(now);
        self.pace();
    }

    fn save(&self) -> io::Result<()> {
        let document = Document { values: self.values.clone() };
        whole_file::replace(&self.path, &serde_json::to_vec_pretty(&document)?, Survives::PowerCut)
    }

    /// A CSMS that changes values all the time must not wear out the flash.
    fn pace(&mut self) {
        let earliest = self.tried_at.map(|at| at + KEPT_CONFIGURATION_INTERVAL);
        self.write_at = self.write_at.map(|at| earliest.map_or(at, |earliest| at.max(earliest)));
    }
}

/// `None` if what the file holds is no configuration.
fn load(path: &Path) -> io::Result<Option<BTreeMap<String, String>>> {
    let bytes = whole_file::read(path, KEPT_CONFIGURATION_BYTES)?;
    Ok(serde_json::from_slice::<Document>(&bytes).ok().map(|document| document.values))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use ocpp_bridge::{BootInfo, Registry, Settings};

    use super::*;

    fn charge_point() -> ChargePoint {
        let boot = BootInfo {
            vendor: "ACME".into(),
            model: "Box".into(),
            serial_number: None,
            firmware_version: None,
        };
        ChargePoint::new(Settings::new(boot), Registry::new(0), fastrand::Rng::with_seed(1))
    }

    fn values(kept: &KeptConfiguration) -> Vec<(&str, &str)> {
        kept.values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    #[test]
    fn what_was_changed_is_in_effect_again_and_what_does_not_fit_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut kept = KeptConfiguration::open(directory.path());
        for (key, value) in [
            ("HeartbeatInterval", "77"),
            ("WebSocketPingInterval", "0"),
            // Neither of these is one that the CSMS could have changed.
            ("NumberOfConnectors", "7"),
            ("NoSuchKey", "1"),
            ("MeterValueSampleInterval", "often"),
        ] {
            kept.keep(key.into(), value.into(), now);
        }
        kept.settle(now);

        let mut kept = KeptConfiguration::open(directory.path());
        let mut charge_point = charge_point();
        kept.restore(&mut charge_point);
        assert_eq!(values(&kept), [("HeartbeatInterval", "77"), ("WebSocketPingInterval", "0")]);
        assert_eq!(charge_point.heartbeat_interval(), Duration::from_secs(77));
        assert_eq!(charge_point.ping_interval(), None);
        assert!(charge_point.poll_event().is_none(), "nobody changed anything");
    }

    #[test]
    fn changes_are_written_together_and_not_often() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("configuration.json");
        let mut now = Instant::now();
        let mut kept = KeptConfiguration::open(directory.path());
        assert_eq!(kept.due(), None);
        kept.keep("HeartbeatInterval".into(), "60".into(), now);
        assert_eq!(kept.due(), Some(now + KEPT_CONFIGURATION_DELAY));
        kept.write_if_due(now);
        assert!(!path.exists());
        now += KEPT_CONFIGURATION_DELAY;
        kept.write_if_due(now);
        assert!(path.exists() && kept.due().is_none());

        let written = now;
        for second in 0..30 {
            now = written + Duration::from_secs(second);
            kept.keep("HeartbeatInterval".into(), (61 + second).to_string(), now);
            kept.write_if_due(now);
        }
        assert_eq!(values(&KeptConfiguration::open(directory.path())), [("HeartbeatInterval", "60")]);
        assert_eq!(kept.due(), Some(written + KEPT_CONFIGURATION_INTERVAL));
        kept.write_if_due(written + KEPT_CONFIGURATION_INTERVAL);
        assert_eq!(values(&KeptConfiguration::open(directory.path())), [("HeartbeatInterval", "90")]);
    }

    #[test]
    fn a_disk_that_can_not_be_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path().join("gone");
        let now = Instant::now();
        let mut kept = KeptConfiguration::open(&state_dir);
        kept.keep("HeartbeatInterval".into(), "60".into(), now);
        kept.settle(now);
        assert_eq!((kept.failed, kept.due()), (true, Some(now + KEPT_CONFIGURATION_INTERVAL)));
        fs::create_dir(&state_dir).unwrap();
        kept.write_if_due(now + KEPT_CONFIGURATION_INTERVAL);
        assert_eq!((kept.failed, kept.due()), (false, None));
        assert_eq!(values(&KeptConfiguration::open(&state_dir)), [("HeartbeatInterval", "60")]);
    }

    #[test]
    fn what_makes_no_sense_is_set_aside() {
        let long = format!("{{\"values\":{{\"HeartbeatInterval\":\"{}\"}}}}", "7".repeat(300_000));
        for text in ["", "{", "{\"values\":{\"HeartbeatInterval\":7}}", "\u{0}\u{0}", &long] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("configuration.json");
            fs::write(&path, text).unwrap();
            assert_eq!(values(&KeptConfiguration::open(directory.path())), []);
            assert!(!path.exists());
            let aside = directory.path().join("configuration.json.corrupt");
            assert_eq!(fs::read_to_string(aside).unwrap(), text);
        }
    }

    #[test]
    fn the_keys_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = KeptConfiguration::open(directory.path());
        for index in 0..2 * KEPT_CONFIGURATION_KEYS {
            kept.keep(format!("Key{index}"), "\u{1f50c}".repeat(500), Instant::now());
        }
        kept.settle(Instant::now());
        let again = KeptConfiguration::open(directory.path());
        assert_eq!(again.values.len(), KEPT_CONFIGURATION_KEYS, "what is written can be read again");
    }
}
