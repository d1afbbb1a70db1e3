//! Which server keys are trusted: pins from the configuration, and our own file of keys learned on first use.
//!
//! A pinned host is judged by its pins alone and nothing is ever learned for it. The file is read at each
//! verification: it is small, a person may mend it while the agent runs, and nothing of it stays in memory.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ssh_key::known_hosts::{Entry, HostPatterns, KnownHosts};
use ssh_key::{Algorithm, PublicKey};

use crate::destination::{DEFAULT_PORT, Destination, Host};
use crate::failure::{Failure, FailureKind};
use crate::identity::fingerprint;
use crate::limits::{KNOWN_HOSTS_BYTES, LEARNED_HOSTS};

/// What may be trusted.
#[derive(Debug)]
pub struct HostKeys {
    pins: Vec<Pin>,
    file: PathBuf,
    policy: HostKeyPolicy,
}

/// What happens to a server that we have no key of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Its first key is learned, a different one later is refused.
    AcceptNew,
    /// It is refused.
    Strict,
}

/// A line of the known-hosts format (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT) that pins a server's key.
#[derive(Clone, Debug)]
pub struct Pin {
    patterns: Vec<String>,
    key: PublicKey,
}

/// A key that may be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// `SHA256:…`.
    pub fingerprint: String,
    /// It was seen for the first time just now.
    pub learned: bool,
}

/// Why a server's key is not trusted.
#[derive(Debug)]
pub enum HostKeyError {
    /// It differs from the key that was pinned or learned.
    Changed {
        /// The name as known_hosts spells it.
        host: String,
        /// What the server showed.
        shown: String,
        /// What it should have shown; several where several keys are known.
        known: String,
        /// The pins of the configuration said so, not the learned keys.
        pinned: bool,
    },
    /// No key is known and the policy is strict.
    Unknown {
        /// The name as known_hosts spells it.
        host: String,
        /// What the server showed.
        shown: String,
    },
    /// The known-hosts file can't be read.
    File(PathBuf, io::Error),
    /// As many servers were learned as there may be.
    Full(PathBuf),
}

/// Why a line pins nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinError {
    /// Not `patterns keytype key`.
    Line(String),
    /// Markers and hashed names pin nothing here.
    Unsupported(String),
}

impl HostKeys {
    /// Trusts `pins`, and by `policy` what `file` says or will learn.
    #[must_use]
    pub fn new(pins: Vec<Pin>, file: PathBuf, policy: HostKeyPolicy) -> Self {
        Self { pins, file, policy }
    }

    /// Judges the key that a server showed, and remembers it if that is the policy. A file that can't be written
    /// doesn't stop a tunnel: the key is trusted, and the error logged.
    ///
    /// # Errors
    /// The key must not be trusted; see [`HostKeyError`].
    pub fn verify(&self, server: &Destination, key: &PublicKey) -> Result<Trusted, HostKeyError> {
        let host = known_hosts_name(server);
        let shown = fingerprint(key);
        let pins: Vec<&PublicKey> = self.pins_of(&host).collect();
        if !pins.is_empty() {
            return judge(&host, key, &shown, &pins, true);
        }
        let entries = read_known_hosts(&self.file)?;
        let learned: Vec<&PublicKey> =
            entries.iter().filter(|pin| pin.matches(&host)).map(|pin| &pin.key).collect();
        if !learned.is_empty() {
            return judge(&host, key, &shown, &learned, false);
        }
        if self.policy == HostKeyPolicy::Strict {
            return Err(HostKeyError::Unknown { host, shown });
        }
        if entries.len() >= LEARNED_HOSTS {
            return Err(HostKeyError::Full(self.file.clone()));
        }
        if let Err(error) = self.learn(&host, key) {
            tracing::warn!(file = %self.file.display(), %error, "host-key-not-kept");
        }
        Ok(Trusted { fingerprint: shown, learned: true })
    }

    /// The key types that we know of this server. The key exchange must ask for these first: a server with several
    /// keys would otherwise show one that we have never seen.
    #[must_use]
    pub fn known_algorithms(&self, server: &Destination) -> Vec<Algorithm> {
        let host = known_hosts_name(server);
        let pins: Vec<Algorithm> = self.pins_of(&host).map(PublicKey::algorithm).collect();
        if !pins.is_empty() {
            return pins;
        }
        let entries = read_known_hosts(&self.file).unwrap_or_default();
        entries.iter().filter(|pin| pin.matches(&host)).map(|pin| pin.key.algorithm()).collect()
    }

    fn pins_of(&self, host: &str) -> impl Iterator<Item = &PublicKey> {
        self.pins.iter().filter(move |pin| pin.matches(host)).map(|pin| &pin.key)
    }

    /// Adds a line to the file; whoever looks finds the old file or the new one.
    fn learn(&self, host: &str, key: &PublicKey) -> io::Result<()> {
        let mut content = read_bounded(&self.file)?;
        if !content.is_empty() && !content.ends_with('\n') {
            content.push('\n');
        }
        let mut key = key.clone();
        key.set_comment("");
        let key = key.to_openssh().map_err(io::Error::other)?;
        content.push_str(&format!("{host} {}\n", key.trim_end()));

        let directory = self.file.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".known-hosts-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(directory)?;
        file.write_all(content.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.file)?;
        File::open(directory)?.sync_all()
    }
}

fn judge(
    host: &str,
    key: &PublicKey,
    shown: &str,
    known: &[&PublicKey],
    pinned: bool,
) -> Result<Trusted, HostKeyError> {
    if known.iter().any(|known| known.key_data() == key.key_data()) {
        return Ok(Trusted { fingerprint: shown.to_owned(), learned: false });
    }
    let known = known.iter().map(|key| fingerprint(key)).collect::<Vec<_>>().join(", ");
    Err(HostKeyError::Changed { host: host.to_owned(), shown: shown.to_owned(), known, pinned })
}

/// The server's name in a known-hosts file: `host`, or `[host]:port` for another port than 22.
fn known_hosts_name(server: &Destination) -> String {
    let host = match server.host() {
        Host::V6(address) => address.to_string(),
        host => host.to_string(),
    };
    if server.port() == DEFAULT_PORT { host } else { format!("[{host}]:{}", server.port()) }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut content = String::new();
    file.take(KNOWN_HOSTS_BYTES + 1).read_to_string(&mut content)?;
    if content.len() as u64 > KNOWN_HOSTS_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {KNOWN_HOSTS_BYTES} bytes"),
        ));
    }
    Ok(content)
}

/// The lines of the file that pin a key. One that we don't understand pins nothing and is left alone.
fn read_known_hosts(path: &Path) -> Result<Vec<Pin>, HostKeyError> {
    let content = read_bounded(path).map_err(|error| HostKeyError::File(path.to_owned(), error))?;
    Ok(content.lines().filter_map(|line| line.parse().ok()).collect())
}

impl Pin {
    fn matches(&self, host: &str) -> bool {
        let hit = |pattern: &str| matches_glob(&pattern.to_ascii_lowercase(), host);
        let negated = self.patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(hit);
        !negated
            && self.patterns.iter().filter(|pattern| !pattern.starts_with('!')).any(|pattern| hit(pattern))
    }
}

impl std::str::FromStr for Pin {
    type Err = PinError;

    fn from_str(line: &str) -> Result<Self, PinError> {
        let mut entries = KnownHosts::new(line);
        let (Some(Ok(entry)), None) = (entries.next(), entries.next()) else {
            return Err(PinError::Line(line.to_owned()));
        };
        Pin::try_from(entry).map_err(|()| PinError::Unsupported(line.to_owned()))
    }
}

impl TryFrom<Entry> for Pin {
    type Error = ();

    fn try_from(entry: Entry) -> Result<Self, ()> {
        match (entry.marker(), entry.host_patterns()) {
            (None, HostPatterns::Patterns(patterns)) => {
                Ok(Self { patterns: patterns.clone(), key: entry.public_key().clone() })
            }
            _ => Err(()),
        }
    }
}

/// `*` stands for any run of characters, `?` for one.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_p, star_t)) = star else { return false };
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}

impl HostKeyError {
    /// A key that must not be trusted ends a tunnel. A file that can't be read may be readable the next time.
    pub(crate) fn to_failure(&self) -> Failure {
        let kind = match self {
            Self::Changed { .. } | Self::Unknown { .. } => FailureKind::HostKey,
            Self::File(..) | Self::Full(_) => FailureKind::Handshake,
        };
        Failure::new(kind, self.to_string())
    }
}

// === impl Display ===

impl fmt::Display for HostKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { host, shown, known, pinned } => {
                let kept = if *pinned { "pinned" } else { "remembered" };
                write!(f, "{host} showed the host key {shown}, {kept} is {known}")
            }
            Self::Unknown { host, shown } => {
                write!(
                    f,
                    "no host key of {host} is known, and host_key_policy is \"strict\"; it showed {shown}"
                )
            }
            Self::File(path, error) => write!(f, "can't read the known hosts in {}: {error}", path.display()),
            Self::Full(path) => {
                write!(f, "{} holds {LEARNED_HOSTS} servers, no more are learned", path.display())
            }
        }
    }
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "{line:?} is no known_hosts line (\"host keytype key\")"),
            Self::Unsupported(line) => {
                write!(f, "{line:?} has a marker or a hashed name, which can't pin a server yet")
            }
        }
    }
}

impl std::error::Error for HostKeyError {}
impl std::error::Error for PinError {}

#[cfg(test)]
mod tests {
    use ssh_key::private::{Ed25519Keypair, KeypairData};

    use super::*;

    fn key(seed: u8) -> PublicKey {
        let pair = KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32]));
        ssh_key::PrivateKey::new(pair, "").unwrap().public_key().clone()
    }

    fn line(host: &str, seed: u8) -> String {
        format!("{host} {}", key(seed).to_openssh().unwrap())
    }

    fn server(text: &str) -> Destination {
        text.parse().unwrap()
    }

    fn in_directory(pins: &[String], policy: HostKeyPolicy) -> (tempfile::TempDir, HostKeys) {
        let directory = tempfile::tempdir().unwrap();
        let pins = pins.iter().map(|pin| pin.parse().unwrap()).collect();
        let keys = HostKeys::new(pins, directory.path().join("known_hosts"), policy);
        (directory, keys)
    }

    #[test]
    fn the_first_key_is_learned_and_another_one_refused() {
        let (_directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
        let gateway = server("ops@gateway.example:2222");
        assert!(keys.verify(&gateway, &key(1)).unwrap().learned);
        assert!(!keys.verify(&gateway, &key(1)).unwrap().learned);
        let error = keys.verify(&gateway, &key(2)).unwrap_err();
        assert!(matches!(error, HostKeyError::Changed { pinned: false, .. }), "{error}");
        assert!(
            keys.verify(&server("ops@gateway.example"), &key(2)).unwrap().learned,
            "another port is another server"
        );
        let file = fs::read_to_string(&keys.file).unwrap();
        assert_eq!(file, format!("{}\n{}\n", line("[gateway.example]:2222", 1), line("gateway.example", 2)));
    }

    #[test]
    fn strict_learns_nothing() {
        let (_directory, keys) = in_directory(&[], HostKeyPolicy::Strict);
        let error = keys.verify(&server("ops@192.0.2.1"), &key(1)).unwrap_err();
        assert!(matches!(error, HostKeyError::Unknown { .. }), "{error}");
        assert!(!keys.file.exists());
    }

    #[test]
    fn pins_alone_judge_a_pinned_host() {
        let (_directory, keys) = in_directory(
            &[line("[gateway.example]:2222", 1), line("[gateway.example]:2222", 2)],
            HostKeyPolicy::AcceptNew,
        );
        let gateway = server("ops@gateway.example:2222");
        fs::write(&keys.file, line("[gateway.example]:2222", 3)).unwrap();
        assert!(!keys.verify(&gateway, &key(2)).unwrap().learned);
        let error = keys.verify(&gateway, &key(3)).unwrap_err();
        assert!(matches!(error, HostKeyError::Changed { pinned: true, .. }), "{error}");
        assert_eq!(keys.known_algorithms(&gateway), [Algorithm::Ed25519, Algorithm::Ed25519]);
    }

    #[test]
    fn patterns_match_as_in_known_hosts() {
        let pin: Pin = line("*.example.com,!bad.example.com,[192.0.2.?]:2222,::1", 1).parse().unwrap();
        for host in ["a.example.com", "a.b.example.com", "[192.0.2.7]:2222", "::1"] {
            assert!(pin.matches(host), "{host}");
        }
        for host in ["example.com", "bad.example.com", "192.0.2.7", "[a.example.com]:2222", ""] {
            assert!(!pin.matches(host), "{host}");
        }
    }

    #[test]
    fn lines_that_pin_nothing_are_told_apart() {
        assert!(matches!("gateway".parse::<Pin>(), Err(PinError::Line(_))));
        assert!(matches!("".parse::<Pin>(), Err(PinError::Line(_))));
        let authority = format!("@cert-authority {}", line("*", 1));
        assert!(matches!(authority.parse::<Pin>(), Err(PinError::Unsupported(_))));
    }

    #[test]
    fn a_file_with_foreign_lines_is_kept_as_it_is() {
        let (_directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
        fs::write(&keys.file, "# a comment\nnonsense\n|1|aaaa|bbbb ssh-ed25519 x").unwrap();
        assert!(keys.verify(&server("ops@192.0.2.1"), &key(1)).unwrap().learned);
        let file = fs::read_to_string(&keys.file).unwrap();
        assert!(file.starts_with("# a comment\nnonsense\n|1|aaaa|bbbb ssh-ed25519 x\n192.0.2.1 ssh-ed25519"));
    }

    #[test]
    fn the_file_is_bounded() {
        let (_directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
        let full: String = (0..LEARNED_HOSTS).map(|n| line(&format!("host{n}"), 1) + "\n").collect();
        fs::write(&keys.file, full).unwrap();
        let error = keys.verify(&server("ops@192.0.2.1"), &key(1)).unwrap_err();
        assert!(matches!(error, HostKeyError::Full(_)), "{error}");
        fs::write(&keys.file, vec![b'#'; KNOWN_HOSTS_BYTES as usize + 1]).unwrap();
        let error = keys.verify(&server("ops@192.0.2.1"), &key(1)).unwrap_err();
        assert!(matches!(error, HostKeyError::File(..)), "{error}");
    }

    #[test]
    fn an_unwritable_file_stops_no_tunnel() {
        let keys = HostKeys::new(vec![], "/nonexistent/known_hosts".into(), HostKeyPolicy::AcceptNew);
        assert!(keys.verify(&server("ops@192.0.2.1"), &key(1)).unwrap().learned);
    }
}
