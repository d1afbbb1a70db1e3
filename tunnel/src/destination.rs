//! Where a tunnel goes: `user@host[:port]`, parsed once into a type that can hold nothing else.
//!
//! The grammar is narrower than what `ssh` takes, on purpose: the text comes from the CSMS or a terminal, and no
//! value of this type can be mistaken for an option, a command or a path.

mod error;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

pub use self::error::DestinationError;
use crate::limits::{DESTINATION_CHARACTERS, HOST_BYTES, LABEL_BYTES, USER_BYTES};

/// The port of a destination that names none (RFC 4253, 4.1).
pub const DEFAULT_PORT: u16 = 22;

/// An account on an SSH server. `destination.to_string().parse()` gives it back unchanged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// At most [`USER_BYTES`].
    user: Box<str>,
    server: Server,
}

/// An SSH server: a destination without its account. `server.to_string().parse()` gives it back unchanged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Server {
    host: Host,
    port: u16,
}

/// The host part of a destination, in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name by RFC 1123, 2.1, at most 253 bytes.
    Name(Box<str>),
    /// A canonical dotted quad.
    V4(Ipv4Addr),
    /// Written in brackets, without a zone.
    V6(Ipv6Addr),
}

impl Destination {
    /// The account's name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The server.
    #[must_use]
    pub fn host(&self) -> &Host {
        self.server.host()
    }

    /// The server's SSH port, 1 to 65535.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The server without the account.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }
}

impl Server {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The SSH port, 1 to 65535.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Parses `host[:port]`; `position` is where `text` begins, for the error.
    fn parse(text: &str, position: usize) -> Result<Self, DestinationError> {
        let (host, port) = split_host(text);
        let port = match port {
            "" => DEFAULT_PORT,
            port => {
                let position = position + host.chars().count();
                port.strip_prefix(':').and_then(parse_port).ok_or(DestinationError::Port { position })?
            }
        };
        Ok(Self { host: Host::parse(host, position)?, port })
    }
}

impl FromStr for Server {
    type Err = DestinationError;

    /// Parses `host[:port]`, with an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let characters = text.chars().count();
        if characters > DESTINATION_CHARACTERS {
            return Err(DestinationError::TooLong(characters));
        }
        Self::parse(text, 1)
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    /// Parses `user@host[:port]`. U+0020 around it is trimmed.
    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let characters = text.chars().count();
        if characters > DESTINATION_CHARACTERS {
            return Err(DestinationError::TooLong(characters));
        }
        let trimmed = text.trim_matches(' ');
        let start = text.chars().take_while(|c| *c == ' ').count() + 1;

        if let Some((index, character)) =
            trimmed.chars().enumerate().find(|(_, c)| c.is_whitespace() || c.is_control())
        {
            return Err(DestinationError::Forbidden { character, position: start + index });
        }
        let Some((user, rest)) = trimmed.split_once('@') else {
            return Err(DestinationError::NoAt);
        };
        let user = parse_user(user, start)?;
        let server = Server::parse(rest, start + user.len() + 1)?;
        Ok(Self { user, server })
    }
}

impl Host {
    /// Parses a name, a dotted quad or a bracketed IPv6 address; `position` is where `text` begins, for the error.
    ///
    /// # Errors
    /// See [`DestinationError`].
    pub fn parse(text: &str, position: usize) -> Result<Self, DestinationError> {
        if text.is_empty() {
            return Err(DestinationError::NoHost);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            return address.map(Host::V6).ok_or(DestinationError::NotIpv6 { position });
        }
        check_name(text, position)?;
        if looks_numeric(text) {
            return text.parse().map(Host::V4).map_err(|_| DestinationError::NotDottedQuad { position });
        }
        Ok(Host::Name(text.to_ascii_lowercase().into()))
    }
}

impl FromStr for Host {
    type Err = DestinationError;

    /// Parses the host part alone, without a port.
    fn from_str(text: &str) -> Result<Self, DestinationError> {
        Self::parse(text, 1)
    }
}

/// May this character stand at this index, from 0, of a user name?
#[must_use]
pub fn is_user_character(index: usize, c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (index > 0 && (c == '.' || c == '-'))
}

fn parse_user(user: &str, start: usize) -> Result<Box<str>, DestinationError> {
    if user.is_empty() {
        return Err(DestinationError::NoUser);
    }
    if let Some((index, character)) = user.chars().enumerate().find(|(i, c)| !is_user_character(*i, *c)) {
        return Err(DestinationError::User { character, position: start + index });
    }
    if user.len() > USER_BYTES {
        return Err(DestinationError::UserTooLong(user.len()));
    }
    Ok(user.into())
}

/// Splits `host[:port]` behind the host, where only a bracketed host may hold colons: `[::1]:22` gives `[::1]` and `:22`.
#[must_use]
pub fn split_host(text: &str) -> (&str, &str) {
    let host_end = match text.strip_prefix('[') {
        Some(_) => text.find(']').map_or(text.len(), |index| index + 1),
        None => text.find(':').unwrap_or(text.len()),
    };
    text.split_at(host_end)
}

/// Parses a port from 1 to 65535 in its shortest decimal form.
#[must_use]
pub fn parse_port(text: &str) -> Option<u16> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| canonical)
}

fn check_name(name: &str, position: usize) -> Result<(), DestinationError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if let Some((index, character)) = name.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        return Err(DestinationError::Host { character, position: position + index });
    }
    if name.len() > HOST_BYTES {
        return Err(DestinationError::HostTooLong(name.len()));
    }
    let mut offset = 0;
    for label in name.split('.') {
        let sound =
            (1..=LABEL_BYTES).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
        if !sound {
            return Err(DestinationError::Label { label: label.to_owned(), position: position + offset });
        }
        offset += label.len() + 1;
    }
    Ok(())
}

/// Would a resolver take this host for an address? `inet_aton` takes `1`, `0x7f.1` and `127.1`, so a host whose
/// last label is a number must be the one spelling that means the same to everybody.
fn looks_numeric(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name).as_bytes();
    last.iter().all(u8::is_ascii_digit) || matches!(last, [b'0', b'x' | b'X', ..])
}

// === impl Display ===

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.server())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        if self.port == DEFAULT_PORT {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::V4(address) => address.fmt(f),
            Host::V6(address) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, DestinationError> {
        text.parse::<Destination>().map(|d| d.to_string())
    }

    #[test]
    fn takes_what_people_write() {
        for (text, printed) in [
            ("support@203.0.113.7", "support@203.0.113.7"),
            ("user@5.tcp.eu.ngrok.io", "user@5.tcp.eu.ngrok.io"),
            ("  u@Host.Example.COM:2222 ", "u@host.example.com:2222"),
            ("u@host:22", "u@host"),
            ("user.name-x@gateway", "user.name-x@gateway"),
            ("u@[2001:DB8::1]:2200", "u@[2001:db8::1]:2200"),
            ("u@[::1]", "u@[::1]"),
            ("1@3com", "1@3com"),
            ("u@xn--bcher-kva.example", "u@xn--bcher-kva.example"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(printed), "{text}");
        }
    }

    #[test]
    fn a_server_is_a_destination_without_its_account() {
        for (text, printed) in [
            ("Host.example", "host.example"),
            ("h:22", "h"),
            ("[::1]:22", "[::1]"),
            ("[::1]:2222", "[::1]:2222"),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!(server.to_string(), printed, "{text}");
            assert_eq!(format!("u@{text}").parse::<Destination>().unwrap().server(), &server, "{text}");
        }
        for text in ["", "u@h", "h:", "h:0", "::1", "-h", " h"] {
            assert!(text.parse::<Server>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_the_vendors_filter_let_through() {
        for text in [
            "u@1.2.3.4. -oProxyCommand=id",
            "-oProxyCommand@host.com",
            "u@host.com;reboot",
            "u@$(reboot).com",
            "u@`id`.com",
            "\"u\"@host.com",
            "u@host.com\n",
            "u@host\u{a0}.com",
            "u@\u{2028}host",
            "u@host.com -y",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn refuses_hosts_that_a_resolver_would_read_as_another_address() {
        for text in [
            "u@1",
            "u@127.1",
            "u@0x7f.1",
            "u@0x7f000001",
            "u@1.2.3.4.5",
            "u@01.2.3.4",
            "u@1.2.3.256",
            "u@a.0x1",
        ] {
            assert!(
                matches!(parse(text), Err(DestinationError::NotDottedQuad { .. })),
                "{text}: {:?}",
                parse(text)
            );
        }
    }

    #[test]
    fn errors_name_the_place() {
        for (text, error) in [
            ("", DestinationError::NoAt),
            ("host", DestinationError::NoAt),
            ("@host", DestinationError::NoUser),
            ("u@", DestinationError::NoHost),
            ("u@:22", DestinationError::NoHost),
            (" u b@h", DestinationError::Forbidden { character: ' ', position: 3 }),
            ("u$@h", DestinationError::User { character: '$', position: 2 }),
            ("u@h_x", DestinationError::Host { character: '_', position: 4 }),
            ("u@a..b", DestinationError::Label { label: String::new(), position: 5 }),
            ("u@host.", DestinationError::Label { label: String::new(), position: 8 }),
            ("u@-a", DestinationError::Label { label: "-a".into(), position: 3 }),
            ("u@h:0", DestinationError::Port { position: 4 }),
            ("u@h:65536", DestinationError::Port { position: 4 }),
            ("u@h:+22", DestinationError::Port { position: 4 }),
            ("u@h:022", DestinationError::Port { position: 4 }),
            ("u@h:", DestinationError::Port { position: 4 }),
            ("u@[::1", DestinationError::NotIpv6 { position: 3 }),
            ("u@[fe80::1%eth0]", DestinationError::NotIpv6 { position: 3 }),
            ("u@[::1]x", DestinationError::Port { position: 8 }),
            ("u@::1", DestinationError::Port { position: 3 }),
            ("a@b@c", DestinationError::Host { character: '@', position: 4 }),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
        let long = format!("{}@h", "u".repeat(33));
        assert_eq!(parse(&long), Err(DestinationError::UserTooLong(33)));
        let label = "a".repeat(64);
        assert!(matches!(parse(&format!("u@{label}")), Err(DestinationError::Label { .. })));
        let host = format!("{}a", "abc.".repeat(64));
        assert_eq!(parse(&format!("u@{host}")), Err(DestinationError::HostTooLong(257)));
        assert_eq!(parse(&" ".repeat(501)), Err(DestinationError::TooLong(501)));
    }

    #[test]
    fn the_longest_of_everything_parses() {
        let host = format!("{}a", "ab.".repeat(84));
        assert_eq!(host.len(), 253);
        let text = format!("{}@{host}:65535", "u".repeat(32));
        assert_eq!(parse(&text).as_deref(), Ok(text.as_str()));
    }

    proptest! {
        #[test]
        fn printing_and_parsing_give_it_back(
            user in "[A-Za-z0-9_][A-Za-z0-9._-]{0,31}",
            host in prop_oneof![
                "[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?(\\.[A-Za-z]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?){0,4}",
                any::<Ipv4Addr>().prop_map(|a| a.to_string()),
                any::<Ipv6Addr>().prop_map(|a| format!("[{a}]")),
            ],
            port in prop_oneof![Just(String::new()), (1u16..).prop_map(|p| format!(":{p}"))],
        ) {
            let text = format!("{user}@{host}{port}");
            // A single label of digits is the one generated shape that isn't a host.
            if let Ok(destination) = text.parse::<Destination>() {
                prop_assert_eq!(destination.to_string().parse::<Destination>(), Ok(destination));
            } else {
                prop_assert!(looks_numeric(&host.to_lowercase()), "{} was refused", text);
            }
        }

        #[test]
        fn nothing_dangerous_ever_parses(
            before in "[a-z0-9@.:-]{0,12}",
            bad in prop_oneof![
                any::<char>().prop_filter("white space or control", |c| c.is_whitespace() || c.is_control()),
                prop::sample::select(vec!['"', '\'', '`', '$', ';', '|', '&', '<', '>', '(', ')', '\\', '/', '=', '*', '%']),
            ],
            after in "[a-z0-9@.:-]{1,12}",
        ) {
            let text = format!("u{before}{bad}{after}");
            prop_assert!(parse(&text).is_err(), "{:?} parsed", text);
        }

        #[test]
        fn a_leading_hyphen_never_parses(rest in "\\PC{0,40}") {
            let text = format!("-{rest}");
            prop_assert!(parse(&text).is_err());
        }

        #[test]
        fn any_text_gets_an_answer(text in any::<String>()) {
            if let Ok(printed) = parse(&text) {
                prop_assert_eq!(parse(&printed), Ok(printed.clone()));
                prop_assert!(printed.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
