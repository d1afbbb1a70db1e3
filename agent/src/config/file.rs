//! The configuration file as it is written: names, defaults, and where each value stands.
//!
//! Nothing here is judged beyond its TOML type; `super` turns it into validated types.

use std::fmt;
use std::path::PathBuf;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) state_dir: Spanned<PathBuf>,
    pub(super) runtime_dir: Spanned<PathBuf>,
    pub(super) ocpp: Spanned<Ocpp>,
    pub(super) bridge: Bridge,
    pub(super) ssh: Ssh,
    pub(super) policy: Policy,
    pub(super) log: Log,
    pub(super) script: Vec<Script>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ocpp {
    pub(super) mode: Spanned<String>,
    pub(super) url: Spanned<Urls>,
    pub(super) identity: Spanned<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity_file: Option<Spanned<PathBuf>>,
    pub(super) security_profile: Spanned<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authorization_key_file: Option<Spanned<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<Spanned<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_certificate_file: Option<Spanned<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_key_file: Option<Spanned<PathBuf>>,
    pub(super) proxy: Option<Spanned<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy_authorization_file: Option<Spanned<PathBuf>>,
    pub(super) ping_interval: Spanned<Time>,
    pub(super) backoff_minimum: Spanned<Time>,
    pub(super) backoff_random: Spanned<Time>,
    pub(super) backoff_doublings: u32,
    pub(super) boot_on_reconnect: bool,
    pub(super) vendor: Spanned<String>,
    pub(super) model: Spanned<String>,
    pub(super) connectors: Spanned<u32>,
    pub(super) report: Spanned<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Bridge {
    pub(super) listen: Spanned<String>,
    pub(super) identities: Vec<Spanned<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authorization_key_file: Option<Spanned<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate_file: Option<Spanned<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_file: Option<Spanned<PathBuf>>,
    pub(super) rescue_after: Spanned<Time>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Urls {
    One(String),
    Several(Vec<Spanned<String>>),
}

/// By hand, because serde's own way of trying one variant after the other forgets where each URL stands.
impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UrlsVisitor)
    }
}

struct UrlsVisitor;

impl<'de> Visitor<'de> for UrlsVisitor {
    type Value = Urls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL in quotes, or a list of URLs")
    }

    fn visit_str<E>(self, text: &str) -> Result<Urls, E> {
        Ok(Urls::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Urls, A::Error> {
        let mut urls = Vec::new();
        while let Some(url) = list.next_element()? {
            urls.push(url);
        }
        Ok(Urls::Several(urls))
    }
}

/// A time in words. By hand, so that who writes a number there is told what to write.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Time(pub(super) String);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TimeVisitor)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string like \"60s\", \"15m\" or \"8h\"")
    }

    fn visit_str<E>(self, text: &str) -> Result<Time, E> {
        Ok(Time(text.to_owned()))
    }
}

impl From<&str> for Time {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// An amount of data.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Bytes {
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or a string like \"500MB\" or \"2GiB\"")
    }

    fn visit_i64<E>(self, number: i64) -> Result<Bytes, E> {
        Ok(Bytes::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
        Ok(Bytes::Text(text.to_owned()))
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ssh {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity_file: Option<Spanned<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) known_hosts_file: Option<Spanned<PathBuf>>,
    pub(super) host_keys: Vec<Spanned<String>>,
    pub(super) host_key_policy: Spanned<String>,
    pub(super) keepalive_interval: Spanned<Time>,
    pub(super) keepalive_max: Spanned<u32>,
    pub(super) backoff_minimum: Spanned<Time>,
    pub(super) backoff_maximum: Spanned<Time>,
    pub(super) alternative_ports: Vec<Spanned<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy: Option<Spanned<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy_authorization_file: Option<Spanned<PathBuf>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    pub(super) key: Spanned<String>,
    pub(super) remote: Spanned<String>,
    pub(super) local: Spanned<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) allow_destinations: Vec<Spanned<String>>,
    /// Absent until `complete_uploads`.
    pub(super) allow_uploads: Option<Vec<Spanned<String>>>,
    pub(super) minimum_security_profile: Spanned<u8>,
    pub(super) max_duration: Spanned<Time>,
    pub(super) idle_timeout: Spanned<Time>,
    pub(super) opens_per_hour: Spanned<u32>,
    pub(super) max_connections: Spanned<usize>,
    pub(super) buffer_bytes: Spanned<usize>,
    pub(super) monthly_bytes: Spanned<Bytes>,
    pub(super) disable_file: Spanned<PathBuf>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) syslog: Spanned<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remote: Option<Spanned<String>>,
    pub(super) level: Spanned<String>,
    pub(super) audit_bytes: Spanned<Bytes>,
}

/// A value that stands nowhere in the file.
fn unwritten<T>(value: impl Into<T>) -> Spanned<T> {
    Spanned::new(0..0, value.into())
}

impl File {
    /// Fills in the paths that follow `state_dir`.
    pub(super) fn complete(&mut self) {
        let state_dir = self.state_dir.get_ref().clone();
        let below = |name: &str| Some(unwritten(state_dir.join(name)));
        self.ssh.identity_file = self.ssh.identity_file.take().or_else(|| below("id_ed25519"));
        self.ssh.known_hosts_file = self.ssh.known_hosts_file.take().or_else(|| below("known_hosts"));
    }

    /// Fills in where uploads may go if the file doesn't say.
    pub(super) fn complete_uploads(&mut self, default: impl Iterator<Item = String>) {
        self.policy.allow_uploads.get_or_insert_with(|| default.map(unwritten).collect());
    }
}

impl Default for File {
    fn default() -> Self {
        let script = |number: u8, remote: u16, local: u16| Script {
            key: unwritten(format!("InvokeCustomScript{number}")),
            remote: unwritten(format!("localhost:{remote}")),
            local: unwritten(format!("127.0.0.1:{local}")),
        };
        Self {
            state_dir: unwritten("/var/lib/ocpp-tunnel"),
            runtime_dir: unwritten("/run/ocpp-tunnel"),
            ocpp: unwritten(Ocpp::default()),
            bridge: Bridge::default(),
            ssh: Ssh::default(),
            policy: Policy::default(),
            log: Log::default(),
            script: vec![script(1, 1111, 22), script(2, 1112, 80)],
        }
    }
}

impl Default for Ocpp {
    fn default() -> Self {
        Self {
            mode: unwritten("direct"),
            url: unwritten(Urls::Several(Vec::new())),
            identity: unwritten(""),
            identity_file: None,
            security_profile: unwritten(2),
            authorization_key_file: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            proxy: None,
            proxy_authorization_file: None,
            ping_interval: unwritten("50s"),
            backoff_minimum: unwritten("10s"),
            backoff_random: unwritten("15s"),
            backoff_doublings: 5,
            boot_on_reconnect: false,
            vendor: unwritten("ocpp-tunnel"),
            model: unwritten("agent"),
            connectors: unwritten(0u32),
            report: unwritten("auto"),
        }
    }
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            listen: unwritten("127.0.0.1:8887"),
            identities: Vec::new(),
            authorization_key_file: None,
            certificate_file: None,
            key_file: None,
            rescue_after: unwritten("0s"),
        }
    }
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            identity_file: None,
            known_hosts_file: None,
            host_keys: Vec::new(),
            host_key_policy: unwritten("accept-new"),
            keepalive_interval: unwritten("60s"),
            keepalive_max: unwritten(3u32),
            backoff_minimum: unwritten("5s"),
            backoff_maximum: unwritten("15m"),
            alternative_ports: Vec::new(),
            proxy: None,
            proxy_authorization_file: None,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow_destinations: Vec::new(),
            allow_uploads: None,
            minimum_security_profile: unwritten(2),
            max_duration: unwritten("8h"),
            idle_timeout: unwritten("0s"),
            opens_per_hour: unwritten(10u32),
            max_connections: unwritten(1024usize),
            buffer_bytes: unwritten(8usize << 20),
            monthly_bytes: unwritten(Bytes::Number(0)),
            disable_file: unwritten("/etc/ocpp-tunnel/disabled"),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            syslog: unwritten("/dev/log"),
            remote: None,
            level: unwritten("info"),
            audit_bytes: unwritten(Bytes::Text("1MiB".into())),
        }
    }
}
