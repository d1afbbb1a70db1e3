//! Which server keys are trusted: pins from the configuration, and our own file of keys learned on first use.
//!
//! Both are lines of the known-hosts format. A pinned host is judged by its pins alone and nothing is ever learned for it;
//! but a key that either of them revokes is never trusted.

mod certificate;
mod error;
mod file;
mod line;

use std::path::{Path, PathBuf};

use ssh_key::{Algorithm, Certificate, PublicKey};

use self::file::{Content, KnownHostsFile, line_of};
use crate::destination::Server;
use crate::identity::fingerprint;
use crate::limits::ANNOUNCED_KEYS;

pub use self::certificate::{CertificateError, Clock};
pub use self::error::{HostKeyError, Known, Place};
pub use self::file::{FileError, Rewritten};
pub use self::line::{Kind, KnownHost, LineError};
pub(crate) use self::line::{Without, known_hosts_name};

/// What may be trusted.
#[derive(Debug)]
pub struct HostKeys {
    pins: Vec<KnownHost>,
    file: KnownHostsFile,
    policy: HostKeyPolicy,
    clock: Clock,
    learns: bool,
}

/// What happens to a server that we have no key of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Its first key is learned, a different one later is refused.
    AcceptNew,
    /// It is refused.
    Strict,
}

/// What a server proves its identity with.
#[derive(Clone, Debug)]
pub enum ShownKey {
    /// A key.
    Plain(PublicKey),
    /// A key that an authority vouches for.
    Certified(Box<Certificate>),
}

/// A key that may be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// `SHA256:…`.
    pub fingerprint: String,
    /// It was seen for the first time just now.
    pub learned: bool,
    /// The line that says so; none of a server that nothing was known of.
    pub place: Option<Place>,
}

/// What is known of a key that nothing speaks against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is trusted, because of this line.
    Trusted(Place),
    /// Nothing is known of the server.
    New,
}

/// What the key exchange asks a server for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The key types that we know of this server.
    pub(crate) algorithms: Vec<Algorithm>,
    /// An authority is trusted for it, so that a certificate is worth asking for.
    pub(crate) certificates: bool,
}

/// A line, and where it stands.
type Placed<'a> = (Place, &'a KnownHost);

impl HostKeys {
    /// Trusts `pins`, and by `policy` what `file` says or will learn. Certificates are judged by `clock`.
    #[must_use]
    pub fn new(pins: Vec<KnownHost>, file: PathBuf, policy: HostKeyPolicy, clock: Clock) -> Self {
        Self { pins, file: KnownHostsFile::new(file), policy, clock, learns: true }
    }

    /// Judges as before, and writes nothing down: for who only wants to know what would happen.
    #[must_use]
    pub fn without_learning(mut self) -> Self {
        self.learns = false;
        self
    }

    /// Judges what a server showed, and remembers its key if that is the policy. A file that can't be written doesn't
    /// stop a tunnel: the key is trusted, and the error logged.
    ///
    /// # Errors
    /// The key must not be trusted; see [`HostKeyError`].
    pub fn verify(&self, server: &Server, shown: &ShownKey) -> Result<Trusted, HostKeyError> {
        let trusted = Trusted { fingerprint: shown.fingerprint(), learned: false, place: None };
        if let Verdict::Trusted(place) = self.judge(server, shown)? {
            return Ok(Trusted { place: Some(place), ..trusted });
        }
        if self.policy == HostKeyPolicy::Strict {
            return Err(HostKeyError::Unknown { host: known_hosts_name(server), shown: trusted.fingerprint });
        }
        if !self.learns {
            return Ok(trusted);
        }
        match self.trust(server, &[shown.key()]) {
            Err(error @ FileError::Full(_)) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "host-key-not-kept"),
            Ok(_) => {}
        }
        Ok(Trusted { learned: true, ..trusted })
    }

    /// Judges what a server showed, and remembers nothing.
    ///
    /// # Errors
    /// Something speaks against the key; never [`HostKeyError::Unknown`].
    pub fn judge(&self, server: &Server, shown: &ShownKey) -> Result<Verdict, HostKeyError> {
        let content = self.file.read()?;
        let (pins, learned) = self.lines_of(server, &content);
        let (host, key) = (known_hosts_name(server), shown.key());
        let authority = shown.authority();
        for (place, line) in pins.iter().chain(&learned).filter(|(_, line)| line.kind == Kind::Revoked) {
            let by = |key: &PublicKey| key.key_data() == line.key.key_data();
            if by(&key) || authority.as_ref().is_some_and(by) {
                return Err(HostKeyError::Revoked {
                    host,
                    fingerprint: line.fingerprint(),
                    authority: !by(&key),
                    place: place.clone(),
                });
            }
        }
        let known = known(pins, learned);
        if known.is_empty() {
            return Ok(Verdict::New);
        }
        let is_key = |line: &KnownHost| line.kind == Kind::Key && line.key.key_data() == key.key_data();
        if let Some((place, _)) = known.iter().find(|(_, line)| is_key(line)) {
            return Ok(Verdict::Trusted(place.clone()));
        }
        let authorities: Vec<&Placed<'_>> =
            known.iter().filter(|(_, line)| line.kind == Kind::Authority).collect();
        match shown {
            ShownKey::Certified(certificate) if !authorities.is_empty() => {
                let keys: Vec<&PublicKey> = authorities.iter().map(|(_, line)| &line.key).collect();
                let signer = certificate::check(certificate, server.host(), &keys, self.clock)
                    .map_err(|error| HostKeyError::Certificate { host: host.clone(), error })?;
                let place = authorities.get(signer).map(|(place, _)| place.clone());
                place.map(Verdict::Trusted).ok_or_else(|| changed(host, shown, &known))
            }
            _ => Err(changed(host, shown, &known)),
        }
    }

    /// What the key exchange must ask this server for first: one with several keys would otherwise show one that we have
    /// never seen.
    pub(crate) fn expected(&self, server: &Server) -> Expected {
        let content = self.file.read().unwrap_or_default();
        let (pins, learned) = self.lines_of(server, &content);
        let mut expected = Expected::default();
        for (_, line) in known(pins, learned) {
            match line.kind {
                Kind::Authority => expected.certificates = true,
                _ => expected.algorithms.push(line.key.algorithm()),
            }
        }
        expected
    }

    /// Where the configuration pins the server, by a key or an authority.
    #[must_use]
    pub fn pinned(&self, server: &Server) -> Option<Place> {
        let content = Content::default();
        let (pins, _) = self.lines_of(server, &content);
        known(pins, Vec::new()).into_iter().map(|(place, _)| place).next()
    }

    /// Every line: the pins, then those of the file.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn all(&self) -> Result<Vec<(Place, KnownHost)>, FileError> {
        let lines = self.file.read()?.hosts;
        let pins = self.pins.iter().cloned().enumerate().map(|(index, pin)| (Place::Pin(index + 1), pin));
        let lines = lines.into_iter().map(|(number, line)| (self.in_file(number), line));
        Ok(pins.chain(lines).collect())
    }

    /// The lines of the file that aren't understood, and so say nothing.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn not_understood(&self) -> Result<Vec<(Place, LineError)>, FileError> {
        let errors = self.file.read()?.errors;
        Ok(errors.into_iter().map(|(number, error)| (self.in_file(number), error)).collect())
    }

    /// Adds keys of a server to the file, whatever the policy.
    ///
    /// # Errors
    /// The file can't be written, or is full.
    pub fn trust(&self, server: &Server, keys: &[PublicKey]) -> Result<Rewritten, FileError> {
        self.file.rewrite(server, |_| false, keys)
    }

    /// Takes every key of a server out of the file. Authorities and revoked keys stay.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn forget(&self, server: &Server) -> Result<Rewritten, FileError> {
        self.file.rewrite(server, |_| true, &[])
    }

    /// The known-hosts file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Which of the keys that a server announced it shall prove: all of them, if that could change what we know. None
    /// where nothing may be learned: by the policy, of a pinned host, of one that a person described by a pattern or an
    /// authority, and where `used`, the key of this session, isn't one that was learned and is announced again.
    pub(crate) fn to_prove(
        &self,
        server: &Server,
        used: &PublicKey,
        announced: Vec<PublicKey>,
    ) -> Option<Vec<PublicKey>> {
        if !self.learns || self.policy == HostKeyPolicy::Strict || announced.len() > ANNOUNCED_KEYS {
            return None;
        }
        let content = self.file.read().ok()?;
        let (pins, learned) = self.lines_of(server, &content);
        let revoked = |key: &PublicKey| {
            let mut lines = pins.iter().chain(&learned);
            lines.any(|(_, line)| line.kind == Kind::Revoked && line.key.key_data() == key.key_data())
        };
        let mut keys: Vec<PublicKey> = Vec::new();
        for key in announced {
            let is_new = keys.iter().all(|other| other.key_data() != key.key_data());
            if is_new && can_prove(&key) && !revoked(&key) {
                keys.push(key);
            }
        }
        if !known(pins, Vec::new()).is_empty() {
            return None;
        }
        let known = known(Vec::new(), learned);
        let name = known_hosts_name(server);
        let is_learned =
            |line: &KnownHost| line.kind == Kind::Key && line.names.without(&name) != Without::Pattern;
        if !known.iter().all(|(_, line)| is_learned(line)) {
            return None;
        }
        let is_known = |key: &PublicKey| known.iter().any(|(_, line)| line.key.key_data() == key.key_data());
        let is_announced = |key: &PublicKey| keys.iter().any(|other| other.key_data() == key.key_data());
        let same = keys.iter().all(is_known) && known.iter().all(|(_, line)| is_announced(&line.key));
        (is_known(used) && is_announced(used) && !same).then_some(keys)
    }

    /// Makes keys that the server has proved all that is learned of it.
    pub(crate) fn replace(&self, server: &Server, proved: &[PublicKey]) -> Result<Rewritten, FileError> {
        let is_gone = |key: &PublicKey| proved.iter().all(|proved| proved.key_data() != key.key_data());
        self.file.rewrite(server, is_gone, proved)
    }

    /// The pins that speak of a server, and the lines of the file that do.
    fn lines_of<'a>(&'a self, server: &Server, content: &'a Content) -> (Vec<Placed<'a>>, Vec<Placed<'a>>) {
        let pins = self.pins.iter().enumerate().map(|(index, pin)| (Place::Pin(index + 1), pin));
        let learned = content.hosts.iter().map(|(number, line)| (self.in_file(*number), line));
        let speaks = |(_, line): &Placed<'_>| line.speaks_of(server);
        (pins.filter(speaks).collect(), learned.filter(speaks).collect())
    }

    fn in_file(&self, number: usize) -> Place {
        Place::File(self.file.path().to_owned(), number)
    }
}

/// The lines that a server is known by: its pins, or else what was learned.
fn known<'a>(mut pins: Vec<Placed<'a>>, mut learned: Vec<Placed<'a>>) -> Vec<Placed<'a>> {
    let says_who_it_is = |(_, line): &Placed<'_>| line.kind != Kind::Revoked;
    pins.retain(says_who_it_is);
    learned.retain(says_who_it_is);
    if pins.is_empty() { learned } else { pins }
}

fn changed(host: String, shown: &ShownKey, known: &[Placed<'_>]) -> HostKeyError {
    let known = known.iter().map(|(place, line)| Known {
        fingerprint: line.fingerprint(),
        key_type: line.key_type(),
        authority: line.kind == Kind::Authority,
        place: place.clone(),
    });
    HostKeyError::Changed { host, shown: shown.fingerprint(), known: known.collect() }
}

/// A key of a type that we ask for in the key exchange, and whose signature we can check.
fn can_prove(key: &PublicKey) -> bool {
    matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. })
}

impl ShownKey {
    /// The key that the server has proved to hold.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        match self {
            Self::Plain(key) => key.clone(),
            Self::Certified(certificate) => certificate.public_key().clone().into(),
        }
    }

    /// That key's fingerprint, as `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key())
    }

    /// That key's type, such as `ssh-ed25519`.
    #[must_use]
    pub fn key_type(&self) -> String {
        self.key().algorithm().to_string()
    }

    /// The fingerprint of the authority that signed its certificate, if it has one. The signature isn't checked here.
    #[must_use]
    pub fn signed_by(&self) -> Option<String> {
        self.authority().as_ref().map(fingerprint)
    }

    /// The line of a known-hosts file that pins that key for a server.
    #[must_use]
    pub fn known_hosts_line(&self, server: &Server) -> String {
        // russh has read the key, so it can be written.
        line_of(server, &self.key()).unwrap_or_default()
    }

    fn authority(&self) -> Option<PublicKey> {
        match self {
            Self::Plain(_) => None,
            Self::Certified(certificate) => Some(certificate.signature_key().clone().into()),
        }
    }
}

#[cfg(test)]
mod tests;
