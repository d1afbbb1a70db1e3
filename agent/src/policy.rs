//! What may be opened: by whom, where to, how often and how long.
//!
//! A message on the OCPP link proves no one's intent, so what comes over it must pass the allow-list, a minimum of
//! link security and a rate. A local request has been authorised by the control socket's permissions.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use reverse_tunnel::destination::{
    DEFAULT_PORT, DestinationError, is_user_character, parse_port, split_host,
};
use reverse_tunnel::limits::USER_BYTES;
use reverse_tunnel::{Destination, Host, Remote};

use crate::supervisor::TunnelId;
use crate::upload::allowed::UploadPattern;
use crate::{advice, bytes};

/// The policy of the configuration file.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What the CSMS may ask for.
    pub allow: Vec<Pattern>,
    /// Where logs and diagnostics may be uploaded.
    pub allow_uploads: Vec<UploadPattern>,
    /// A link below this opens nothing; 0 to 3.
    pub minimum_security_profile: u8,
    /// The longest life of a tunnel, and its life where none is asked for.
    pub max_duration: Duration,
    /// A tunnel that nobody uses for this long closes; zero: never.
    pub idle_timeout: Duration,
    /// Opens over OCPP in any hour.
    pub opens_per_hour: u32,
    /// Forwarded connections at once in a tunnel.
    pub max_connections: usize,
    /// Bytes that a tunnel's local services may leave waiting.
    pub buffer_bytes: usize,
    /// Payload of all tunnels in a month, both ways, in bytes; none: as much as there is.
    pub monthly_bytes: Option<u64>,
    /// While this file exists nothing is open.
    pub disable_file: PathBuf,
}

/// One entry of the allow-list: `user@host[:port]` with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// `*` stands for any run of characters.
    user: String,
    host: HostPattern,
    port: PortPattern,
}

/// The host of an entry: `*`, `*.example.com` or one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Every name and address.
    Any,
    /// `.example.com`: one or more labels before it.
    Below(String),
    /// This one.
    Is(Host),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Any,
    Is(u16),
}

/// Why something isn't opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The value is no destination.
    Malformed(DestinationError),
    /// The agent is stopping.
    ShuttingDown,
    /// The disable file exists.
    Disabled(PathBuf),
    /// The OCPP link is less secure than it must be.
    LinkProfile {
        /// What the link fulfils.
        link: u8,
        /// What it must fulfil.
        minimum: u8,
    },
    /// No pattern matches.
    NotAllowed(Destination),
    /// Too many opens over OCPP.
    TooMany {
        /// How many are allowed in an hour.
        limit: u32,
        /// When one is allowed again.
        again_in: Duration,
    },
    /// A longer life than allowed was asked for.
    TooLong {
        /// The time asked for.
        asked: Duration,
        /// The most.
        most: Duration,
    },
    /// No such script.
    NoSuchScript(u8),
    /// No destination was named, and the allow-list doesn't hold exactly one that could be meant.
    NoDestination,
    /// The month's bytes are used up.
    DataCap {
        /// How many there are.
        cap: u64,
    },
    /// As many tunnels with forwards of their own are open as there may be.
    TooManyTunnels(usize),
    /// Another tunnel to that server has the port, or is to have it.
    Held {
        /// The port, or the socket.
        remote: Remote,
        /// Whose it is.
        by: TunnelId,
    },
}

/// When something was done over OCPP in the last hour, lest it be done too often.
#[derive(Debug, Default)]
pub struct Rate(VecDeque<Instant>);

const HOUR: Duration = Duration::from_secs(3600);

impl Policy {
    /// May this be opened for anybody?
    ///
    /// # Errors
    /// Not while the disable file exists.
    pub fn check_enabled(&self) -> Result<(), Refusal> {
        match self.is_disabled() {
            true => Err(Refusal::Disabled(self.disable_file.clone())),
            false => Ok(()),
        }
    }

    /// Does the disable file exist? One that can't be looked for counts as there.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disable_file.try_exists().unwrap_or(true)
    }

    /// May the CSMS have this, over a link that fulfils this security profile?
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn check_remote(&self, destination: &Destination, link_profile: u8) -> Result<(), Refusal> {
        self.check_enabled()?;
        if link_profile < self.minimum_security_profile {
            return Err(Refusal::LinkProfile { link: link_profile, minimum: self.minimum_security_profile });
        }
        self.check_allowed(destination)
    }

    /// Does the allow-list hold this?
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`].
    pub fn check_allowed(&self, destination: &Destination) -> Result<(), Refusal> {
        if self.allow.iter().any(|pattern| pattern.matches(destination)) {
            return Ok(());
        }
        Err(Refusal::NotAllowed(destination.clone()))
    }

    /// How long a tunnel lives that was asked for this long.
    ///
    /// # Errors
    /// [`Refusal::TooLong`].
    pub fn lifetime(&self, asked: Option<Duration>) -> Result<Duration, Refusal> {
        match asked {
            Some(asked) if asked > self.max_duration => {
                Err(Refusal::TooLong { asked, most: self.max_duration })
            }
            asked => Ok(asked.unwrap_or(self.max_duration)),
        }
    }

    /// The destination that is meant when none is named: the only entry of the allow-list without a wildcard.
    #[must_use]
    pub fn only_destination(&self) -> Option<Destination> {
        let mut exact = self.allow.iter().filter_map(Pattern::exact);
        exact.next().filter(|_| exact.next().is_none())
    }
}

impl Rate {
    /// May it be done once more now?
    ///
    /// # Errors
    /// How long it may not.
    pub fn check(&mut self, limit: u32, now: Instant) -> Result<(), Duration> {
        while self.0.front().is_some_and(|at| now.saturating_duration_since(*at) >= HOUR) {
            self.0.pop_front();
        }
        if self.0.len() < limit as usize {
            return Ok(());
        }
        let oldest = self.0.front().map_or(Duration::ZERO, |at| now.saturating_duration_since(*at));
        Err(HOUR.saturating_sub(oldest))
    }

    /// It was done. Call [`Self::check`] first: it keeps the record bounded.
    pub fn record(&mut self, now: Instant) {
        self.0.push_back(now);
    }
}

impl Pattern {
    /// Does this entry allow this destination?
    #[must_use]
    pub fn matches(&self, destination: &Destination) -> bool {
        let port = match self.port {
            PortPattern::Any => true,
            PortPattern::Is(port) => port == destination.port(),
        };
        self.host.matches(destination.host()) && port && matches_user(&self.user, destination.user())
    }

    fn exact(&self) -> Option<Destination> {
        match (&self.host, self.port) {
            (HostPattern::Is(host), PortPattern::Is(port)) => {
                format!("{}@{host}:{port}", self.user).parse().ok()
            }
            _ => None,
        }
    }
}

impl HostPattern {
    /// Parses a pattern; `position` is where `text` begins, for the error.
    ///
    /// # Errors
    /// See [`DestinationError`].
    pub fn parse(text: &str, position: usize) -> Result<Self, DestinationError> {
        let Some(suffix) = text.strip_prefix("*.") else {
            return if text == "*" { Ok(Self::Any) } else { Host::parse(text, position).map(Self::Is) };
        };
        match Host::parse(suffix, position + 2)? {
            Host::Name(name) => Ok(Self::Below(format!(".{name}"))),
            // An address has no labels before it.
            _ => Err(DestinationError::Host { character: '*', position }),
        }
    }

    /// Is this one of its hosts?
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Is(only), host) => only == host,
            (Self::Below(suffix), Host::Name(name)) => {
                name.len() > suffix.len() && name.ends_with(suffix.as_str())
            }
            (Self::Below(_), _) => false,
        }
    }
}

/// `*` in the pattern stands for any run of characters.
fn matches_user(pattern: &str, user: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else { return pattern == user };
    let Some(mut user) = user.strip_prefix(head) else { return false };
    while let Some((middle, tail)) = rest.split_once('*') {
        let Some(at) = user.find(middle) else { return false };
        user = user.get(at + middle.len()..).unwrap_or_default();
        rest = tail;
    }
    user.ends_with(rest)
}

impl FromStr for Pattern {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (user, rest) = text.split_once('@').ok_or(DestinationError::NoAt)?;
        if user.is_empty() {
            return Err(DestinationError::NoUser);
        }
        if user.len() > USER_BYTES {
            return Err(DestinationError::UserTooLong(user.len()));
        }
        let strange = user.chars().enumerate().find(|(index, c)| *c != '*' && !is_user_character(*index, *c));
        if let Some((index, character)) = strange {
            return Err(DestinationError::User { character, position: index + 1 });
        }
        let host_start = user.len() + 2;
        let (host, port) = split_host(rest);
        let port = match port {
            "" => PortPattern::Is(DEFAULT_PORT),
            ":*" => PortPattern::Any,
            port => {
                let position = host_start + host.chars().count();
                let port = port.strip_prefix(':').and_then(parse_port);
                PortPattern::Is(port.ok_or(DestinationError::Port { position })?)
            }
        };
        Ok(Self { user: user.to_owned(), host: HostPattern::parse(host, host_start)?, port })
    }
}

impl Refusal {
    /// What the person who reads the log can do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::Malformed(_) => "send user@host[:port], or \"close\"".into(),
            Self::ShuttingDown => "ask again when the agent has started".into(),
            Self::Disabled(file) => format!("remove {} on the device", file.display()),
            Self::LinkProfile { minimum, .. } => {
                format!(
                    "connect to the CSMS with security profile {minimum}, or lower policy.minimum_security_profile"
                )
            }
            Self::NotAllowed(destination) => format!("add \"{destination}\" to policy.allow_destinations"),
            Self::TooMany { limit: 0, .. } => "raise policy.opens_per_hour".into(),
            Self::TooMany { again_in, .. } => {
                format!("wait {} minutes, or raise policy.opens_per_hour", again_in.as_secs().div_ceil(60))
            }
            Self::TooLong { .. } => "ask for less, or raise policy.max_duration".into(),
            Self::NoSuchScript(_) => "see `ocpp-tunnel status` for the scripts that there are".into(),
            Self::NoDestination => "name one as user@host[:port]".into(),
            Self::DataCap { .. } => advice::DATA_CAP.into(),
            Self::TooManyTunnels(_) => "close one with `ocpp-tunnel close ID`".into(),
            Self::Held { by, .. } => format!("`ocpp-tunnel close {by}`, or choose another port"),
        }
    }
}

/// As people write it: in the largest unit of hours, minutes and seconds of which it is a whole number.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds % 3600, seconds % 60) {
        _ if duration.subsec_nanos() != 0 => humantime::format_duration(duration).to_string(),
        (0, _) => format!("{}h", seconds / 3600),
        (_, 0) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(f),
            Self::ShuttingDown => f.write_str("the agent is stopping"),
            Self::Disabled(file) => write!(f, "remote access is disabled by {}", file.display()),
            Self::LinkProfile { link, minimum } => {
                write!(f, "the OCPP link has security profile {link}, {minimum} is needed")
            }
            Self::NotAllowed(destination) => write!(f, "{destination} is not an allowed destination"),
            Self::TooMany { limit, .. } => {
                write!(f, "{limit} tunnels were opened in an hour, as many as allowed")
            }
            Self::TooLong { asked, most } => {
                write!(f, "{} is longer than the {} allowed", span(*asked), span(*most))
            }
            Self::NoSuchScript(number) => write!(f, "script {number} is not configured"),
            Self::NoDestination => f.write_str(
                "no destination was named, and the allow-list doesn't hold exactly one without wildcards",
            ),
            Self::DataCap { cap } => write!(f, "this month's {} are used up", bytes::words(*cap)),
            Self::TooManyTunnels(limit) => {
                write!(f, "{limit} tunnels of this kind are open, as many as allowed")
            }
            Self::Held { remote, by } => write!(f, "{remote} of that server is tunnel {by}'s already"),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    fn destination(text: &str) -> Destination {
        text.parse().unwrap()
    }

    fn policy(allow: &[&str]) -> Policy {
        Policy {
            allow: allow.iter().map(|text| pattern(text)).collect(),
            allow_uploads: Vec::new(),
            minimum_security_profile: 2,
            max_duration: HOUR,
            idle_timeout: Duration::ZERO,
            opens_per_hour: 2,
            max_connections: 1,
            buffer_bytes: 1,
            monthly_bytes: None,
            disable_file: "/nonexistent/disabled".into(),
        }
    }

    #[test]
    fn patterns_match_the_parsed_parts() {
        for (pattern_text, yes, no) in [
            (
                "support@203.0.113.7",
                &["support@203.0.113.7", "support@203.0.113.7:22"][..],
                &["support@203.0.113.7:23", "Support@203.0.113.7", "support@203.0.113.70"][..],
            ),
            (
                "*@*.example.com:2222",
                &["a@x.example.com:2222", "b@x.y.Example.COM:2222"],
                &[
                    "a@example.com:2222",
                    "a@x.example.com",
                    "a@xexample.com:2222",
                    "a@x.example.com.evil.org:2222",
                ],
            ),
            ("sop*@gw:*", &["sop@gw", "sop001@gw:1", "sop-x@gw:65535"], &["so@gw", "xsop@gw"]),
            ("s*p*1@*", &["sp1@anything", "s.op-01@[::1]", "sxpx1@10.0.0.1"], &["sp@a", "p1@a", "sp1x@a"]),
            ("u@[2001:db8::1]:22", &["u@[2001:DB8:0::1]"], &["u@[2001:db8::2]"]),
        ] {
            for text in yes {
                assert!(
                    pattern(pattern_text).matches(&destination(text)),
                    "{pattern_text} should match {text}"
                );
            }
            for text in no {
                assert!(
                    !pattern(pattern_text).matches(&destination(text)),
                    "{pattern_text} should not match {text}"
                );
            }
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for text in [
            "",
            "host",
            "@host",
            "u@",
            "u@*x",
            "u@x*",
            "u@a.*.com",
            "u@*.",
            "u@*.1.2.3.4",
            "u@h:",
            "u@h:0",
            "-*@h",
            "u;@h",
            "u@h:*1",
            "u@**",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_only_exact_destination_is_the_default_one() {
        let only = |allow: &[&str]| policy(allow).only_destination().map(|d| d.to_string());
        assert_eq!(only(&["a@h:2222", "*@*.example.com"]).as_deref(), Some("a@h:2222"));
        assert_eq!(only(&["a@h", "b@h"]), None);
        assert_eq!(only(&["a*@h", "a@*.h", "a@*", "a@h:*"]), None);
        assert_eq!(only(&[]), None);
    }

    #[test]
    fn an_empty_list_allows_nothing_and_a_weak_link_neither() {
        let mut policy = policy(&[]);
        let to = destination("a@h");
        assert_eq!(policy.check_remote(&to, 3), Err(Refusal::NotAllowed(to.clone())));
        policy.allow.push(pattern("a@h"));
        assert_eq!(policy.check_remote(&to, 2), Ok(()));
        assert_eq!(policy.check_remote(&to, 1), Err(Refusal::LinkProfile { link: 1, minimum: 2 }));
        let file = tempfile::NamedTempFile::new().unwrap();
        policy.disable_file = file.path().to_owned();
        assert_eq!(policy.check_remote(&to, 2), Err(Refusal::Disabled(file.path().to_owned())));
        assert_eq!(policy.lifetime(None), Ok(HOUR));
        assert_eq!(policy.lifetime(Some(HOUR * 2)), Err(Refusal::TooLong { asked: HOUR * 2, most: HOUR }));
    }

    #[test]
    fn the_rate_counts_any_hour() {
        let mut opens = Rate::default();
        let start = Instant::now();
        for minute in [0, 10] {
            let now = start + Duration::from_secs(60 * minute);
            assert_eq!(opens.check(2, now), Ok(()));
            opens.record(now);
        }
        let refused = opens.check(2, start + Duration::from_secs(60 * 59));
        assert_eq!(refused, Err(Duration::from_secs(60)));
        assert_eq!(opens.check(2, start + HOUR), Ok(()));
        let again_in = Rate::default().check(0, start).unwrap_err();
        let never = Refusal::TooMany { limit: 0, again_in };
        assert_eq!(never.cure(), "raise policy.opens_per_hour", "waiting would not help");
    }

    proptest! {
        #[test]
        fn every_exact_destination_matches_itself_as_a_pattern(user in "[a-z_][a-z0-9._-]{0,8}", host in "[a-z][a-z0-9]{0,8}(\\.[a-z]{1,5}){0,2}", port in 1u16..) {
            let text = format!("{user}@{host}:{port}");
            prop_assert!(pattern(&text).matches(&destination(&text)));
            prop_assert!(pattern("*@*:*").matches(&destination(&text)));
        }

        #[test]
        fn any_pattern_text_gets_an_answer(text in any::<String>()) {
            let _ = text.parse::<Pattern>();
        }
    }
}
