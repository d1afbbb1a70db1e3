//! What differs between two configurations, and which of it a running agent can take up.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{Config, ConfigError};

/// When a changed key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// With the reload.
    AtOnce,
    /// For tunnels that are opened from then on.
    NextTunnel,
    /// When the agent starts anew.
    Restart,
}

/// What takes effect before a restart; everything else waits for it. docs/configuration.md has the whole table.
const AT_ONCE: [&str; 12] = [
    "log.level",
    "log.syslog",
    "policy.allow_destinations",
    "policy.allow_uploads",
    "policy.disable_file",
    "policy.max_duration",
    "policy.minimum_security_profile",
    "policy.monthly_bytes",
    "policy.opens_per_hour",
    "ssh.host_key_policy",
    "ssh.host_keys",
    "ssh.known_hosts_file",
];
const NEXT_TUNNEL: [&str; 10] = [
    "policy.buffer_bytes",
    "policy.idle_timeout",
    "policy.max_connections",
    "ssh.alternative_ports",
    "ssh.backoff_maximum",
    "ssh.backoff_minimum",
    "ssh.keepalive_interval",
    "ssh.keepalive_max",
    "ssh.proxy",
    "ssh.proxy_authorization_file",
];

/// When a change of this key, `section.name`, takes effect.
#[must_use]
pub fn effect_of(key: &str) -> Effect {
    if AT_ONCE.contains(&key) {
        Effect::AtOnce
    } else if NEXT_TUNNEL.contains(&key) {
        Effect::NextTunnel
    } else {
        Effect::Restart
    }
}

impl Config {
    /// The keys, `section.name`, whose values differ, in the order of their names. What only follows from another key is not among them.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (mine, theirs) = (self.table(), other.table());
        let keys: BTreeSet<String> = keys(&mine).chain(keys(&theirs)).collect();
        keys.into_iter().filter(|key| find(&mine, key) != find(&theirs, key)).collect()
    }

    /// This configuration, with what `new` changes of those keys that need no restart.
    ///
    /// # Errors
    /// The values of both don't go together.
    pub fn with_changes_of(&self, new: &Self) -> Result<Self, ConfigError> {
        let (mut table, changed) = (self.table(), new.table());
        for key in self.differences(new).iter().filter(|key| effect_of(key) != Effect::Restart) {
            // Both are of the same form, and whole tables never differ in what they are.
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            let Some(Value::Table(section)) = table.get_mut(section) else { continue };
            match find(&changed, key) {
                Some(value) => section.insert(name.to_owned(), value.clone()),
                None => section.remove(name),
            };
        }
        let path = new.files.first().cloned().unwrap_or_default();
        let mut config = Self::parse(&path, &table.to_string())?;
        config.files.clone_from(&new.files);
        Ok(config)
    }

    /// How a key is written, with defaults; empty where it has no value.
    #[must_use]
    pub fn shown_value(&self, key: &str) -> String {
        find(&self.table(), key).map(ToString::to_string).unwrap_or_default()
    }

    /// What is written in its files, as one; [`Self::parse`] makes the same of it.
    pub(crate) fn written_toml(&self) -> String {
        self.table().to_string()
    }

    fn table(&self) -> Table {
        // A struct of strings, numbers and tables always has a form in TOML.
        Table::try_from(&self.written).unwrap_or_default()
    }
}

/// Every key, `section.name`; at the top, `name`.
fn keys(table: &Table) -> impl Iterator<Item = String> {
    table.iter().flat_map(|(name, value)| match value {
        Value::Table(section) => section.keys().map(|key| format!("{name}.{key}")).collect(),
        _ => vec![name.clone()],
    })
}

fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, name)) => table.get(section)?.get(name),
        None => table.get(key),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("c.toml"), &format!("state_dir = '/a'\n{text}")).unwrap()
    }

    #[test]
    fn nothing_differs_but_what_was_written_differently() {
        let old = config("ocpp.mode = 'off'\n[ssh]\nkeepalive_max = 3");
        let other = Config::parse(
            Path::new("c.toml"),
            "state_dir = '/b'\nocpp.mode = 'off'\nocpp.proxy = 'http://p:1'\n[policy]\nallow_destinations = ['a@b']",
        );
        // Not `ssh.known_hosts_file`, which only follows.
        assert_eq!(
            old.differences(&other.unwrap()),
            ["ocpp.proxy", "policy.allow_destinations", "state_dir"]
        );
        assert!(old.differences(&config("ocpp.mode = 'off'")).is_empty());
    }

    #[test]
    fn what_needs_a_restart_stays_as_it_was() {
        let old = config("ocpp.mode = 'off'\n[ssh]\nproxy = 'http://p:1'");
        let new = config(
            "ocpp.mode = 'off'\n[ssh]\nidentity_file = '/k'\nkeepalive_max = 7\n[policy]\nmax_duration = '1h'",
        );
        let both = old.with_changes_of(&new).unwrap();
        assert_eq!(both.ssh.identity_file, Path::new("/a/id_ed25519"));
        assert_eq!(both.ssh.keepalive_max, 7);
        assert_eq!(both.ssh.proxy.proxy, None);
        assert_eq!(both.policy.max_duration.as_secs(), 3600);
        assert_eq!(both.differences(&new), ["ssh.identity_file"]);
    }

    /// The table in docs/configuration.md names every key that there is, with the effect that it has.
    #[test]
    fn the_documentation_tells_the_effect_of_every_key() {
        let documentation = include_str!("../../../docs/configuration.md");
        let (_, table) = documentation.split_once("### What a reload changes").unwrap();
        let told = |key: &str| {
            let row = table.lines().find(|row| {
                row.starts_with('|')
                    && row.split('|').nth(1).is_some_and(|names| names.contains(&format!("`{key}`")))
            });
            row.unwrap_or_else(|| panic!("{key} isn't in the table")).to_owned()
        };
        let config = Config::parse(Path::new("c.toml"), &super::super::tests::shipped::every_key()).unwrap();
        let table = config.table();
        for key in keys(&table).chain(["ocpp.identity_file".to_owned()]) {
            let effect = match effect_of(&key) {
                Effect::AtOnce => "at once",
                Effect::NextTunnel => "next tunnel",
                Effect::Restart => "restart",
            };
            assert!(told(&key).contains(&format!("| {effect}")), "{key}: {}", told(&key));
        }
        for key in AT_ONCE.iter().chain(&NEXT_TUNNEL) {
            assert!(keys(&table).any(|known| known == *key), "{key} doesn't exist");
        }
    }
}
