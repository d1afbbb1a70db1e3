//! A line of a known-hosts file: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.
//!
//! `[@marker] names keytype base64-key [comment]`, where the names are a comma-separated list of patterns (`*`, `?`, a
//! leading `!`), or one hashed name `|1|salt|hash`.

use std::fmt;
use std::str::FromStr;

use ring::hmac;
use ssh_key::PublicKey;
use ssh_key::known_hosts::{HostPatterns, Marker};
use ssh_key::public::KeyData;

use crate::destination::{DEFAULT_PORT, Host, Server};
use crate::identity::fingerprint;
use crate::limits::KNOWN_HOSTS_LINE_BYTES;

/// What a line says of the hosts that it names.
#[derive(Clone, Debug)]
pub struct KnownHost {
    pub(super) kind: Kind,
    pub(crate) names: Names,
    pub(super) key: PublicKey,
}

/// What a key is to the hosts that a line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is theirs.
    Key,
    /// `@cert-authority`: it signs their certificates.
    Authority,
    /// `@revoked`: it must never be trusted, neither as their key nor as an authority.
    Revoked,
}

/// Which hosts a line names.
#[derive(Clone, Debug)]
pub(crate) enum Names {
    /// In the order of the line.
    Patterns(Vec<String>),
    /// HMAC-SHA1 of one name, with the salt as its key.
    Hashed { salt: Vec<u8>, hash: [u8; 20] },
}

/// A line without one name, for a host that is to be forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// The line doesn't name the host.
    Untouched,
    /// It names nobody else.
    Nothing,
    /// The names that are left, as the line's names field.
    Names(String),
    /// It names the host by a pattern, which stands for others too.
    Pattern,
}

/// Why a text is no line of a known-hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// Longer than [`KNOWN_HOSTS_LINE_BYTES`]; the number is its length.
    TooLong(usize),
    /// Not `[@marker] names keytype key`.
    Fields(String),
    /// Neither `@cert-authority` nor `@revoked`.
    Marker(String),
    /// Not `|1|salt|hash` in Base64.
    Hash(String),
    /// The key can't be read; why.
    Key(String),
}

impl KnownHost {
    /// What the key is to the hosts that the line names.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The names as they are written, one an item; a hashed name as `|1|salt|hash`.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match &self.names {
            Names::Patterns(patterns) => patterns.clone(),
            Names::Hashed { salt, hash } => {
                vec![HostPatterns::HashedName { salt: salt.clone(), hash: *hash }.to_string()]
            }
        }
    }

    /// The key's type, such as `ssh-ed25519`.
    #[must_use]
    pub fn key_type(&self) -> String {
        self.key.algorithm().to_string()
    }

    /// The key's fingerprint, as `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }

    /// Does the line speak of this server?
    ///
    /// A key belongs to a host and a port. What is said of authorities and revoked keys of a host holds for all of its
    /// ports: OpenSSH looks for authorities without the port as well, and a stolen key is stolen everywhere.
    pub(crate) fn speaks_of(&self, server: &Server) -> bool {
        let name = known_hosts_name(server);
        match self.kind {
            Kind::Key => self.names.match_any(&[&name]),
            Kind::Authority | Kind::Revoked => self.names.match_any(&[&name, &host_name(server.host())]),
        }
    }
}

impl Names {
    /// Does a pattern match one of these spellings of a host, and no negated pattern any of them?
    pub(crate) fn match_any(&self, spellings: &[&str]) -> bool {
        match self {
            Self::Patterns(patterns) => {
                let hits = |pattern: &str| {
                    let pattern = pattern.to_ascii_lowercase();
                    spellings.iter().any(|name| matches_glob(&pattern, name))
                };
                let mut found = false;
                for pattern in patterns {
                    match pattern.strip_prefix('!') {
                        Some(negated) if hits(negated) => return false,
                        Some(_) => {}
                        None => found |= hits(pattern),
                    }
                }
                found
            }
            Self::Hashed { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                spellings.iter().any(|name| hmac::verify(&key, name.as_bytes(), hash).is_ok())
            }
        }
    }

    /// Takes a host's own name, as [`known_hosts_name`] spells it, out of the list.
    pub(crate) fn without(&self, name: &str) -> Without {
        if !self.match_any(&[name]) {
            return Without::Untouched;
        }
        let Self::Patterns(patterns) = self else { return Without::Nothing };
        // Names that no host can have go as well: as the first one, they would make the line mean something else.
        let is_name = |pattern: &str| !pattern.is_empty() && !pattern.starts_with(['|', '@', '#']);
        let left: Vec<String> = patterns
            .iter()
            .filter(|pattern| is_name(pattern) && !pattern.eq_ignore_ascii_case(name))
            .cloned()
            .collect();
        let names_anybody = left.iter().any(|pattern| !pattern.starts_with('!'));
        let text = left.join(",");
        match Self::Patterns(left).match_any(&[name]) {
            true => Without::Pattern,
            false if names_anybody => Without::Names(text),
            false => Without::Nothing,
        }
    }
}

impl FromStr for KnownHost {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Self, LineError> {
        if line.len() > KNOWN_HOSTS_LINE_BYTES {
            return Err(LineError::TooLong(line.len()));
        }
        let mut fields = line.split([' ', '\t', '\r']).filter(|field| !field.is_empty()).peekable();
        let kind = match fields.next_if(|field| field.starts_with('@')) {
            None => Kind::Key,
            Some(marker) => match marker.parse() {
                Ok(Marker::CertAuthority) => Kind::Authority,
                Ok(Marker::Revoked) => Kind::Revoked,
                Err(_) => return Err(LineError::Marker(marker.to_owned())),
            },
        };
        let (Some(names), Some(key_type), Some(key)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(LineError::Fields(line.to_owned()));
        };
        // A hash that is too short would be filled up with zeros.
        let parsed = names.parse().ok().filter(|parsed: &HostPatterns| {
            matches!(parsed, HostPatterns::Patterns(_)) || parsed.to_string() == names
        });
        let names = match parsed {
            Some(HostPatterns::Patterns(patterns)) => Names::Patterns(patterns),
            Some(HostPatterns::HashedName { salt, hash }) => Names::Hashed { salt, hash },
            None => return Err(LineError::Hash(names.to_owned())),
        };
        let key = PublicKey::from_openssh(&format!("{key_type} {key}"))
            .map_err(|error| LineError::Key(error.to_string()))?;
        if matches!(key.key_data(), KeyData::Certificate(_)) {
            return Err(LineError::Key("it is a certificate".to_owned()));
        }
        Ok(Self { kind, names, key })
    }
}

/// A server's name in a known-hosts file: `host`, or `[host]:port` for another port than 22.
pub(crate) fn known_hosts_name(server: &Server) -> String {
    let host = host_name(server.host());
    if server.port() == DEFAULT_PORT { host } else { format!("[{host}]:{}", server.port()) }
}

/// A host as a known-hosts file and a certificate's principals spell it: an IPv6 address has no brackets.
pub(super) fn host_name(host: &Host) -> String {
    match host {
        Host::V6(address) => address.to_string(),
        host => host.to_string(),
    }
}

/// `*` stands for any run of characters, `?` for one.
pub(super) fn matches_glob(pattern: &str, text: &str) -> bool {
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

// === impl Display ===

impl Kind {
    /// The marker that a line begins with, if any.
    #[must_use]
    pub fn marker(self) -> Option<&'static str> {
        match self {
            Self::Key => None,
            Self::Authority => Some("@cert-authority"),
            Self::Revoked => Some("@revoked"),
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => {
                write!(f, "a line of {length} bytes, at most {KNOWN_HOSTS_LINE_BYTES} are read")
            }
            Self::Fields(line) => write!(f, "{line:?} is no known_hosts line (\"host keytype key\")"),
            Self::Marker(marker) => {
                write!(f, "the marker {marker:?} is neither \"@cert-authority\" nor \"@revoked\"")
            }
            Self::Hash(names) => write!(f, "{names:?} is no hashed name (\"|1|salt|hash\")"),
            Self::Key(error) => write!(f, "the line holds no usable key: {error}"),
        }
    }
}

impl std::error::Error for LineError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";

    fn named(names: &str) -> KnownHost {
        format!("{names} {KEY}").parse().unwrap()
    }

    fn speaks_of(line: &KnownHost, server: &str) -> bool {
        line.speaks_of(&server.parse().unwrap())
    }

    #[test]
    fn patterns_match_as_in_openssh() {
        let line = named("*.Example.com,!bad.example.com,[192.0.2.?]:2222,::1");
        for server in ["a.example.com", "A.b.example.com", "192.0.2.7:2222", "[::1]"] {
            assert!(speaks_of(&line, server), "{server}");
        }
        for server in ["example.com", "bad.example.com", "192.0.2.7", "a.example.com:2222", "[::1]:2222"] {
            assert!(!speaks_of(&line, server), "{server}");
        }
        assert!(!speaks_of(&named("!a.example"), "b.example"), "a negation alone names nobody");
        assert!(speaks_of(&named("*"), "a.example:2222"), "as in OpenSSH");
    }

    /// Made by `ssh-keygen -H` from lines for `gateway.example`, `[gateway.example]:2222` and `[::1]:2222`.
    #[test]
    fn hashed_names_match_as_in_openssh() {
        for (hashed, server, other) in HASHED {
            let line = named(hashed);
            assert!(speaks_of(&line, server), "{server}");
            assert!(!speaks_of(&line, other), "{other}");
            assert_eq!(line.names(), [hashed]);
        }
    }

    const HASHED: [(&str, &str, &str); 3] = [
        (
            "|1|sTEvGDwfejyI9SHK7/mR8vce168=|mdLOWTGPHIiZS20w0DGu3zdKz4U=",
            "gateway.example",
            "gateway.example:2222",
        ),
        (
            "|1|YYA+svyyIsWH+WV/YUYyYMcRQ7U=|R7xRVNRjkUZNW9fyQD5VlZ2JbvI=",
            "Gateway.example:2222",
            "gateway.example",
        ),
        ("|1|ZzXAsgjWBkv7FbIm7uR4C0LnneA=|mv5bQbUWMUoiYOfnSSzD9EQY4Sc=", "[::1]:2222", "[::1]"),
    ];

    #[test]
    fn what_is_said_of_authorities_and_revoked_keys_holds_for_every_port() {
        for marker in ["@cert-authority", "@revoked"] {
            let line: KnownHost = format!("{marker} *.example.com,!bad.example.com {KEY}").parse().unwrap();
            assert_eq!(line.kind().marker(), Some(marker));
            assert!(speaks_of(&line, "gw.example.com") && speaks_of(&line, "gw.example.com:2222"));
            assert!(!speaks_of(&line, "bad.example.com:2222") && !speaks_of(&line, "example.org"));
            let hashed: KnownHost = format!("{marker} {} {KEY}", HASHED[0].0).parse().unwrap();
            assert!(speaks_of(&hashed, "gateway.example:2222"));
        }
    }

    #[test]
    fn white_space_and_comments_are_taken_as_in_openssh() {
        for text in [
            format!("\t host \t {} a comment with # in it", KEY.replace(' ', "\t ")),
            format!("@cert-authority\thost {KEY}\r"),
        ] {
            let line: KnownHost = text.parse().unwrap();
            assert!(speaks_of(&line, "host"), "{text}");
            assert_eq!(line.key_type(), "ssh-ed25519");
            assert_eq!(line.fingerprint(), "SHA256:bPGahMcWimQBTdksNSUoI+j8Sfbbx1OSgE7hHiSDBTg");
        }
    }

    #[test]
    fn what_is_no_line_is_told_apart() {
        for (text, expected) in [
            ("", "\"\" is no known_hosts line"),
            ("gateway", "\"gateway\" is no known_hosts line"),
            ("gateway ssh-ed25519", "\"gateway ssh-ed25519\" is no"),
            ("@revoke host ssh-ed25519 AAAA", "the marker \"@revoke\" is neither"),
            ("|1|aaaa|bbbb ssh-ed25519 AAAA", "\"|1|aaaa|bbbb\" is no hashed name"),
            ("host ssh-ed25519 AAAA", "the line holds no usable key"),
            (
                "host ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio",
                "the line holds",
            ),
        ] {
            let error = text.parse::<KnownHost>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let long = format!("host {KEY} {}", "x".repeat(KNOWN_HOSTS_LINE_BYTES));
        assert!(matches!(long.parse::<KnownHost>(), Err(LineError::TooLong(_))));
    }

    #[test]
    fn a_name_is_taken_out_and_patterns_are_left_alone() {
        for (names, expected) in [
            ("gw.example", Without::Nothing),
            ("GW.example", Without::Nothing),
            ("gw.example,192.0.2.1", Without::Names("192.0.2.1".into())),
            ("gw.example,!bad.example", Without::Nothing),
            ("gw.example,", Without::Nothing),
            ("gw.example,,@revoked,#,|1|,192.0.2.1", Without::Names("192.0.2.1".into())),
            ("*.example", Without::Pattern),
            ("gw.example,*.example", Without::Pattern),
            ("other.example", Without::Untouched),
            ("*,!gw.example", Without::Untouched),
            ("[gw.example]:2222", Without::Untouched),
        ] {
            assert_eq!(named(names).names.without("gw.example"), expected, "{names}");
        }
        assert_eq!(named(HASHED[0].0).names.without("gateway.example"), Without::Nothing);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*", names in "[a-z*?!,|\\[\\]:0-9=+/]{0,40}", marker in "(@[a-z-]* )?") {
            let _ = text.parse::<KnownHost>();
            let server: Server = "gw.example.com:2222".parse().unwrap();
            for text in [format!("{marker}{names} {KEY}"), format!("{marker}{names} {text}"), format!("h ssh-rsa {text}")] {
                if let Ok(line) = text.parse::<KnownHost>() {
                    line.speaks_of(&server);
                    line.names.without("gw.example.com");
                }
            }
        }

        #[test]
        fn keys_from_random_bytes_never_panic(
            algorithm in "(ssh-ed25519|ssh-rsa|ssh-dss|ecdsa-sha2-nistp256|ssh-ed25519-cert-v01@openssh.com|sk-x@y)",
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut blob = u32::try_from(algorithm.len()).unwrap().to_be_bytes().to_vec();
            blob.extend(algorithm.as_bytes());
            blob.extend(rest);
            let base64 = HostPatterns::HashedName { salt: blob, hash: [0; 20] }.to_string();
            let base64 = base64.split('|').nth(2).unwrap();
            let _ = format!("h {algorithm} {base64}").parse::<KnownHost>();
        }
    }
}
