//! The configuration: the TOML file turned into validated types.
//!
//! Every error names the file, the line and the column, what is wrong there and the cure. Secrets are not read here:
//! the command line loads the configuration too, for users who may not see them.

mod bridge;
mod changes;
mod check;
mod error;
mod file;
mod ocpp;
mod proxy;
mod slots;
mod sources;
mod uploads;
mod value;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ocpp_bridge::Url;
use reverse_tunnel::limits::LEAST_BUFFER_BYTES;
use reverse_tunnel::{Forward, HostKeyPolicy, KnownHost, Tuning};
use tracing::level_filters::LevelFilter;

pub use self::bridge::Bridge;
pub use self::changes::{Effect, effect_of};
pub use self::check::Written;
pub use self::error::ConfigError;
use self::error::Invalid;
use self::file::File;
pub use self::ocpp::Ocpp;
use self::ocpp::ocpp;
pub use self::proxy::ProxySettings;
use self::proxy::proxy;
use self::slots::slots;
use self::sources::Sources;
use self::uploads::own_uploads;
use self::value::{MOMENT, absolute, audit_bytes, duration, monthly_bytes, optional_path};
use crate::journal::Collector;
use crate::limits::{OPENS_PER_HOUR, PATTERNS};
use crate::policy::{Pattern, Policy};
use crate::upload::location::Scheme;
use crate::way_out::AlternativePort;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/ocpp-tunnel/config.toml";
/// The read-only OCPP key that shows the device's public key.
pub const CLIENT_KEY: &str = "SSHClientKey";

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Device key, known hosts.
    pub state_dir: PathBuf,
    /// Lock, control socket, wanted tunnels.
    pub runtime_dir: PathBuf,
    /// The link to the CSMS; `None` if `ocpp.mode` is `"off"`.
    pub ocpp: Option<Arc<Ocpp>>,
    /// The device's name for people: the OCPP identity, or nothing.
    pub identity: Option<String>,
    /// SSH.
    pub ssh: Ssh,
    /// What the CSMS and technicians can open.
    pub slots: Vec<Slot>,
    /// What may be opened.
    pub policy: Policy,
    /// Where the log goes.
    pub log: Log,
    /// The files that it was read from, the main one first.
    pub files: Vec<PathBuf>,
    /// As it is written, with defaults, but for what follows from other keys.
    written: File,
    /// With everything.
    shown: File,
}

/// SSH.
#[derive(Clone, Debug)]
pub struct Ssh {
    /// The device's private key.
    pub identity_file: PathBuf,
    /// The servers' keys that were learned.
    pub known_hosts_file: PathBuf,
    /// Servers' keys that the operator pinned.
    pub host_keys: Vec<KnownHost>,
    /// What happens to servers without any.
    pub host_key_policy: HostKeyPolicy,
    /// Silence after which the server is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// So many intervals of silence make a dead peer.
    pub keepalive_max: u32,
    /// Upper bound of the first wait after a failure.
    pub backoff_minimum: Duration,
    /// Upper bound of every wait.
    pub backoff_maximum: Duration,
    /// Ports that are tried when a server's own doesn't answer.
    pub alternative_ports: Vec<AlternativePort>,
    /// The HTTP proxy that tunnels go through.
    pub proxy: ProxySettings,
}

/// A tunnel that an OCPP key, or `--script`, opens.
#[derive(Clone, Debug)]
pub struct Slot {
    /// What people call it: the number that its key ends with, or else its place in the file.
    pub number: u8,
    /// The OCPP key.
    pub key: String,
    /// What it publishes.
    pub forward: Forward,
}

/// Where the log goes.
#[derive(Clone, Debug)]
pub struct Log {
    /// syslog's socket.
    pub syslog: Option<PathBuf>,
    /// The collector that the log is sent to as well.
    pub remote: Option<Collector>,
    /// What is logged.
    pub level: LevelFilter,
    /// Bytes that all audit records together may take.
    pub audit_bytes: u64,
}

impl Default for Log {
    fn default() -> Self {
        let syslog = Some("/dev/log".into());
        Self { syslog, remote: None, level: LevelFilter::INFO, audit_bytes: 1 << 20 }
    }
}

impl Config {
    /// Reads and validates a file, and `config.d/*.toml` beside it.
    ///
    /// # Errors
    /// A file can't be read, isn't TOML, has an unknown key, a wrong type or an impossible combination.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_sources(&Sources::read(path)?)
    }

    pub(crate) fn parse(path: &Path, source: &str) -> Result<Self, ConfigError> {
        Self::from_sources(&Sources::single(path, source))
    }

    /// The control socket's path as far as the files tell it, also where they have mistakes: for who has to ask the agent nevertheless.
    #[must_use]
    pub fn control_socket_of(path: &Path) -> PathBuf {
        let written = sources::runtime_dir_of(path);
        Self::socket_in(&written.unwrap_or_else(|| File::default().runtime_dir.into_inner()))
    }

    fn socket_in(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("control.sock")
    }

    fn from_sources(sources: &Sources) -> Result<Self, ConfigError> {
        let written = sources.parse()?;
        Self::validate(written, sources.paths()).map_err(|invalid| sources.error(invalid))
    }

    fn validate(written: File, files: Vec<PathBuf>) -> Result<Self, Invalid> {
        let mut file = written.clone();
        file.complete();
        let (ocpp, identity) = ocpp(&file.ocpp, &file.bridge)?;
        file.complete_uploads(own_uploads(ocpp.as_ref().map_or(&[], |ocpp| &ocpp.urls)));
        let slots = slots(&file.script, identity.as_deref())?;
        Ok(Self {
            state_dir: absolute(&file.state_dir, "state_dir")?,
            runtime_dir: absolute(&file.runtime_dir, "runtime_dir")?,
            ocpp,
            identity,
            ssh: ssh(&file.ssh)?,
            slots,
            policy: policy(&file.policy)?,
            log: log(&file.log)?,
            files,
            written,
            shown: file,
        })
    }

    /// The slot that people call by this number.
    #[must_use]
    pub fn slot(&self, number: u8) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.number == number)
    }

    /// The whole configuration as TOML, defaults included. It names files that hold secrets, never the secrets.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // A struct of strings, numbers and tables always has a form in TOML.
        toml::to_string(&self.shown).unwrap_or_default()
    }

    /// What an operator might not expect of this configuration.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.policy.allow.is_empty() && self.ocpp.is_some() {
            remarks.push("policy.allow_destinations is empty: the CSMS can open nothing".into());
        }
        let minimum = self.policy.minimum_security_profile;
        if let Some(ocpp) = self.ocpp.as_ref().filter(|ocpp| ocpp.security_profile < minimum) {
            remarks.push(format!(
                "ocpp.security_profile {} is below policy.minimum_security_profile {minimum}: the CSMS can open nothing",
                ocpp.security_profile
            ));
        }
        if let Some(bridge) = self.ocpp.as_ref().and_then(|ocpp| ocpp.bridge.as_ref())
            && !bridge.listen.ip().is_loopback()
            && bridge.tls_files.is_none()
        {
            remarks.push(format!(
                "bridge.listen {} is no loopback address, and there is no bridge.certificate_file: the controllers' \
                 passwords cross the site's network in the clear",
                bridge.listen
            ));
        }
        let appended = |ocpp: &Arc<Ocpp>| {
            let ends =
                |url: &&Url| url.to_string().trim_end_matches('/').ends_with(&format!("/{}", ocpp.identity));
            ocpp.urls
                .iter()
                .find(ends)
                .map(|url| format!("{url} ends with ocpp.identity, which is appended to it once more"))
        };
        remarks.extend(self.ocpp.as_ref().and_then(appended));
        let passwords = self.ocpp.iter().flat_map(|ocpp| {
            let bridge = ocpp.bridge.as_ref().and_then(|bridge| bridge.authorization_key_file.as_ref());
            ocpp.authorization_key_file.iter().chain(bridge)
        });
        for file in passwords.filter(|file| fs::metadata(file).is_ok_and(|file| file.mode() & 0o004 != 0)) {
            remarks.push(format!("every user may read the password in {0}: chmod o-r {0}", file.display()));
        }
        if self.policy.allow_uploads.iter().any(|pattern| pattern.scheme() == Scheme::Http) {
            remarks.push("policy.allow_uploads has http://: logs go there in the clear".into());
        }
        if self.ssh.host_keys.is_empty() && self.ssh.host_key_policy == HostKeyPolicy::AcceptNew {
            remarks.push("no ssh.host_keys are pinned: a server's first key is trusted".into());
        }
        let learns = self.ssh.host_key_policy == HostKeyPolicy::AcceptNew;
        if learns && !self.ssh.known_hosts_file.starts_with(&self.state_dir) {
            remarks.push(
                "ssh.known_hosts_file is not below state_dir: the agent reads it, and can't learn a key"
                    .into(),
            );
        }
        if !self.ssh.identity_file.starts_with(&self.state_dir) {
            remarks.push(
                "ssh.identity_file is not below state_dir: the agent reads it, and can't finish a change of keys by itself"
                    .into(),
            );
        }
        remarks
    }

    /// Intervals and bounds of each tunnel.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        Tuning {
            keepalive_interval: self.ssh.keepalive_interval,
            keepalive_max: self.ssh.keepalive_max,
            backoff_minimum: self.ssh.backoff_minimum,
            backoff_maximum: self.ssh.backoff_maximum,
            idle_timeout: self.policy.idle_timeout,
            max_connections: self.policy.max_connections,
            buffer_bytes: self.policy.buffer_bytes,
        }
    }

    /// The control socket's path.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        Self::socket_in(&self.runtime_dir)
    }
}

fn ssh(ssh: &file::Ssh) -> Result<Ssh, Invalid> {
    let host_keys = ssh.host_keys.iter().map(|line| {
        line.get_ref().parse::<KnownHost>().map_err(|error| {
            Invalid::value(
                line,
                format!("ssh.host_keys: {error}; copy a line from known_hosts, `ssh-keyscan` or `ocpp-tunnel host-keys scan --json`"),
            )
        })
    });
    let host_key_policy = match ssh.host_key_policy.get_ref().as_str() {
        "accept-new" => HostKeyPolicy::AcceptNew,
        "strict" => HostKeyPolicy::Strict,
        other => {
            let text =
                format!("ssh.host_key_policy {other:?} doesn't exist; use \"accept-new\" or \"strict\"");
            return Err(Invalid::value(&ssh.host_key_policy, text));
        }
    };
    let keepalive_max = *ssh.keepalive_max.get_ref();
    if !(1..=100).contains(&keepalive_max) {
        return Err(Invalid::value(
            &ssh.keepalive_max,
            format!("ssh.keepalive_max is {keepalive_max}; use 1 to 100"),
        ));
    }
    let keepalive_interval =
        duration(&ssh.keepalive_interval, "ssh.keepalive_interval", Duration::from_millis(100))?;
    let backoff_minimum = duration(&ssh.backoff_minimum, "ssh.backoff_minimum", MOMENT)?;
    let backoff_maximum = duration(&ssh.backoff_maximum, "ssh.backoff_maximum", MOMENT)?;
    if backoff_maximum < backoff_minimum {
        // One of them may be the default, which stands nowhere.
        let minimum_is_written = !ssh.backoff_minimum.span().is_empty();
        let place = if minimum_is_written { &ssh.backoff_minimum } else { &ssh.backoff_maximum };
        let text = format!(
            "ssh.backoff_minimum {:?} is above ssh.backoff_maximum {:?}; lower the one, or raise the other",
            ssh.backoff_minimum.get_ref().0,
            ssh.backoff_maximum.get_ref().0
        );
        return Err(Invalid::value(place, text));
    }
    if let Some(extra) = ssh.alternative_ports.get(PATTERNS) {
        return Err(Invalid::value(extra, format!("more than {PATTERNS} alternative_ports; use a pattern")));
    }
    let alternative_ports = ssh.alternative_ports.iter().map(|entry| {
        entry.get_ref().parse::<AlternativePort>().map_err(|error| {
            let text = format!(
                "ssh.alternative_ports {:?}: {error}; write for example \"*.example.com:443\"",
                entry.get_ref()
            );
            Invalid::value(entry, text)
        })
    });
    Ok(Ssh {
        // `File::complete` has filled both in.
        identity_file: optional_path(&ssh.identity_file, "ssh.identity_file")?.unwrap_or_default(),
        known_hosts_file: optional_path(&ssh.known_hosts_file, "ssh.known_hosts_file")?.unwrap_or_default(),
        host_keys: host_keys.collect::<Result<_, _>>()?,
        host_key_policy,
        keepalive_interval,
        keepalive_max,
        backoff_minimum,
        backoff_maximum,
        alternative_ports: alternative_ports.collect::<Result<_, _>>()?,
        proxy: proxy("ssh", &ssh.proxy, &ssh.proxy_authorization_file)?,
    })
}

fn policy(policy: &file::Policy) -> Result<Policy, Invalid> {
    if let Some(extra) = policy.allow_destinations.get(PATTERNS) {
        return Err(Invalid::value(extra, format!("more than {PATTERNS} allow_destinations; use a pattern")));
    }
    let allow = policy.allow_destinations.iter().map(|text| {
        text.get_ref().parse::<Pattern>().map_err(|error| {
            let text_error =
                format!("policy.allow_destinations {:?}: {error}; write user@host[:port]", text.get_ref());
            Invalid::value(text, text_error)
        })
    });
    let minimum_security_profile = *policy.minimum_security_profile.get_ref();
    if minimum_security_profile > 3 {
        let text =
            format!("policy.minimum_security_profile {minimum_security_profile} doesn't exist; use 0 to 3");
        return Err(Invalid::value(&policy.minimum_security_profile, text));
    }
    let max_connections = *policy.max_connections.get_ref();
    if !(1..=65_535).contains(&max_connections) {
        let text = format!("policy.max_connections is {max_connections}; use 1 to 65535");
        return Err(Invalid::value(&policy.max_connections, text));
    }
    let buffer_bytes = *policy.buffer_bytes.get_ref();
    if !(LEAST_BUFFER_BYTES..=1 << 30).contains(&buffer_bytes) {
        let text = format!("policy.buffer_bytes is {buffer_bytes}; use {LEAST_BUFFER_BYTES} to {}", 1 << 30);
        return Err(Invalid::value(&policy.buffer_bytes, text));
    }
    let opens_per_hour = *policy.opens_per_hour.get_ref();
    if opens_per_hour > OPENS_PER_HOUR {
        let text = format!("policy.opens_per_hour is {opens_per_hour}; use 0 to {OPENS_PER_HOUR}");
        return Err(Invalid::value(&policy.opens_per_hour, text));
    }
    Ok(Policy {
        allow: allow.collect::<Result<_, _>>()?,
        allow_uploads: uploads::allowed(&policy.allow_uploads)?,
        minimum_security_profile,
        max_duration: duration(&policy.max_duration, "policy.max_duration", Duration::from_secs(1))?,
        idle_timeout: duration(&policy.idle_timeout, "policy.idle_timeout", Duration::ZERO)?,
        opens_per_hour,
        max_connections,
        buffer_bytes,
        monthly_bytes: monthly_bytes(&policy.monthly_bytes)?,
        disable_file: absolute(&policy.disable_file, "policy.disable_file")?,
    })
}

fn log(log: &file::Log) -> Result<Log, Invalid> {
    let level = match log.level.get_ref().as_str() {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        other => {
            let text =
                format!("log.level {other:?} doesn't exist; use \"error\", \"warn\", \"info\" or \"debug\"");
            return Err(Invalid::value(&log.level, text));
        }
    };
    let syslog = match log.syslog.get_ref().as_str() {
        "off" => None,
        path if path.starts_with('/') => Some(PathBuf::from(path)),
        other => {
            let text = format!("log.syslog {other:?} is neither a path from / nor \"off\"; use one of them");
            return Err(Invalid::value(&log.syslog, text));
        }
    };
    let remote = log.remote.as_ref().map(|remote| {
        remote.get_ref().parse::<Collector>().map_err(|error| {
            let text = format!(
                "log.remote {:?}: {error}; write for example \"udp://log.example.com:514\" or \"tcp://192.0.2.7:601\"",
                remote.get_ref()
            );
            Invalid::value(remote, text)
        })
    });
    Ok(Log { syslog, remote: remote.transpose()?, level, audit_bytes: audit_bytes(&log.audit_bytes)? })
}

#[cfg(test)]
mod tests;
