//! What a tunnel publishes: an address on the server, and the local service that answers there.

use std::fmt::{self, Write};
use std::str::FromStr;

use crate::destination::{Host, parse_port};
use crate::limits::SOCKET_PATH_BYTES;

/// One published service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forward {
    /// Where the server listens.
    pub remote: Remote,
    /// What answers.
    pub local: LocalTarget,
}

/// Where the server is asked to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// `[bind:]port`, RFC 4254, 7.1. Port 0 lets the server choose. Without a bind address it is `localhost`, which is
    /// the one spelling that OpenSSH's `permitlisten="localhost:…"` matches.
    Tcp {
        /// The bind address as the server is told it: a name, an address without brackets, `*` or nothing.
        bind: String,
        /// 0 to 65535.
        port: u16,
    },
    /// `unix:/path`, a socket in the server's file system (OpenSSH's `streamlocal-forward@openssh.com`).
    Unix(String),
}

/// A TCP service that this device can reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalTarget {
    /// Name or address.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

/// Why a text is no forward; the message names the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardError {
    /// Not `[bind:]port` and not `unix:/path`.
    Remote(String),
    /// Not `host:port`.
    Local(String),
    /// Not `[BIND:]PORT:HOST:PORT`.
    Shape(String),
    /// Two forwards that the server can't tell apart.
    Twice(String),
}

impl FromStr for Remote {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let error = || ForwardError::Remote(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // A brace is what is left of a placeholder that nobody has filled in.
            let sound = path.starts_with('/')
                && path.len() <= SOCKET_PATH_BYTES
                && path.bytes().all(|b| b.is_ascii_graphic() && b != b'{' && b != b'}')
                && !path.split('/').any(|component| component == "." || component == "..");
            return if sound { Ok(Self::Unix(path.to_owned())) } else { Err(error()) };
        }
        let (bind, port) = text.rsplit_once(':').unwrap_or(("localhost", text));
        let port = if port == "0" { Some(0) } else { parse_port(port) }.ok_or_else(error)?;
        let bind = match bind {
            "" | "*" => bind.to_owned(),
            // A host of this name would be written as a path.
            _ if bind.eq_ignore_ascii_case("unix") => return Err(error()),
            _ => match bind.parse().map_err(|_| error())? {
                Host::V6(address) => address.to_string(),
                host => host.to_string(),
            },
        };
        Ok(Self::Tcp { bind, port })
    }
}

impl FromStr for LocalTarget {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let error = || ForwardError::Local(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        Ok(Self { host: host.parse().map_err(|_| error())?, port: parse_port(port).ok_or_else(error)? })
    }
}

impl FromStr for Forward {
    type Err = ForwardError;

    /// Parses `[BIND:]PORT:HOST:PORT`, the form of `ssh -R`.
    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let error = || ForwardError::Shape(text.to_owned());
        let (rest, _) = text.rsplit_once(':').ok_or_else(error)?;
        let host_start = match rest.strip_suffix(']') {
            Some(inner) => inner.rfind('['),
            None => rest.rfind(':').map(|colon| colon + 1),
        };
        let split = host_start.filter(|start| *start > 0).ok_or_else(error)? - 1;
        let remote = text.get(..split).ok_or_else(error)?;
        let local = text.get(split..).and_then(|rest| rest.strip_prefix(':')).ok_or_else(error)?;
        Ok(Self { remote: remote.parse()?, local: local.parse()? })
    }
}

/// A name from outside as one component of a path: `[A-Za-z0-9._-]` stay, any other byte is percent-encoded, and so are the
/// dots of `.` and `..`.
#[must_use]
pub fn path_component(name: &str) -> String {
    let dots_only = name == "." || name == "..";
    let mut component = String::new();
    for byte in name.bytes() {
        let kept =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && !dots_only);
        if kept {
            component.push(char::from(byte));
        } else {
            // Writing to a string doesn't fail.
            let _ = write!(component, "%{byte:02X}");
        }
    }
    component
}

/// Can one tunnel carry them all? Each needs a place of its own; only port 0 may be asked for again, for another service.
///
/// # Errors
/// [`ForwardError::Twice`] names the second one.
pub fn check_distinct(forwards: &[Forward]) -> Result<(), ForwardError> {
    for (index, forward) in forwards.iter().enumerate() {
        let clashes = |other: &Forward| other == forward || other.remote.is_same_place(&forward.remote);
        if forwards.iter().take(index).any(clashes) {
            return Err(ForwardError::Twice(forward.to_string()));
        }
    }
    Ok(())
}

impl Remote {
    /// Would two forwards be in each other's way on one server? Where the server chooses the port, they wouldn't.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        self == other && !matches!(self, Self::Tcp { port: 0, .. })
    }

    /// This place with the port that the server chose, where it was asked to choose.
    #[must_use]
    pub fn with_port(&self, chosen: u16) -> Self {
        match self {
            Self::Tcp { bind, port: 0 } => Self::Tcp { bind: bind.clone(), port: chosen },
            _ => self.clone(),
        }
    }
}

// === impl Display ===

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { bind, port } if bind.contains(':') => write!(f, "[{bind}]:{port}"),
            Self::Tcp { bind, port } => write!(f, "{bind}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl fmt::Display for LocalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.remote, self.local)
    }
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(text) => write!(
                f,
                "{text:?} is neither \"[bind:]port\" with a port up to 65535 nor \"unix:/path\" of at most {SOCKET_PATH_BYTES} bytes without \
                 \".\", \"..\", braces or white space"
            ),
            Self::Local(text) => write!(f, "{text:?} is not \"host:port\""),
            Self::Twice(text) => {
                write!(f, "{text:?} asks for a place on the server that another forward has")
            }
            Self::Shape(text) => write!(f, "{text:?} is not \"[BIND:]PORT:HOST:PORT\""),
        }
    }
}

impl std::error::Error for ForwardError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_print_as_they_are_asked_for() {
        for (text, printed) in [
            ("1111", "localhost:1111"),
            ("localhost:1111", "localhost:1111"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("*:80", "*:80"),
            (":80", ":80"),
            ("[::1]:80", "[::1]:80"),
            ("unix:/run/cp/CP001-ssh.sock", "unix:/run/cp/CP001-ssh.sock"),
        ] {
            assert_eq!(text.parse::<Remote>().map(|r| r.to_string()).as_deref(), Ok(printed), "{text}");
        }
    }

    #[test]
    fn other_remotes_are_refused() {
        for text in [
            "",
            "localhost",
            "localhost:",
            "a b:1",
            "localhost:65536",
            "unix:relative",
            "unix:/a b",
            "unix:/run/../etc/x",
            "unix:/run/./x",
            "unix:/run/{identity}.sock",
            "::1:80",
        ] {
            assert_eq!(text.parse::<Remote>(), Err(ForwardError::Remote(text.to_owned())));
        }
    }

    #[test]
    fn the_form_of_ssh_is_understood() {
        for (text, remote, local) in [
            ("1111:127.0.0.1:22", "localhost:1111", "127.0.0.1:22"),
            ("localhost:1111:slave:22", "localhost:1111", "slave:22"),
            ("[::1]:1111:[::1]:22", "[::1]:1111", "[::1]:22"),
            ("0:[fe80::1]:22", "localhost:0", "[fe80::1]:22"),
            ("unix:/tmp/s:localhost:80", "unix:/tmp/s", "localhost:80"),
        ] {
            let forward: Forward = text.parse().unwrap();
            assert_eq!(
                (forward.remote.to_string(), forward.local.to_string()),
                (remote.into(), local.into())
            );
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "1111", "1111:22", "1111::22", ":1111:", "[::1]:22", "a:b:c:d"] {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_chosen_port_takes_the_place_of_zero_only() {
        let chosen: Remote = "localhost:0".parse().unwrap();
        assert_eq!(chosen.with_port(4711).to_string(), "localhost:4711");
        let fixed: Remote = "localhost:1111".parse().unwrap();
        assert_eq!(fixed.with_port(4711).to_string(), "localhost:1111");
    }

    #[test]
    fn a_name_becomes_one_component_of_a_path() {
        for (name, component) in [
            ("CP001", "CP001"),
            ("DE*ABC*E1_2-3.4", "DE%2AABC%2AE1_2-3.4"),
            ("../../etc/cron.d/x", "..%2F..%2Fetc%2Fcron.d%2Fx"),
            ("a b\n", "a%20b%0A"),
            ("Gerät", "Ger%C3%A4t"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("...", "..."),
            ("100%", "100%25"),
        ] {
            assert_eq!(path_component(name), component);
        }
    }

    #[test]
    fn two_forwards_want_two_places() {
        let check = |texts: &[&str]| {
            check_distinct(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Forward>>())
        };
        assert_eq!(check(&["1:a:1", "2:a:1", "0:a:1", "0:a:2", "[::1]:1:a:1"]), Ok(()));
        assert!(check(&["1:a:1", "localhost:1:a:2"]).is_err());
        assert!(check(&["0:a:1", "0:a:1"]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_name_leaves_its_component(name in proptest::prelude::any::<String>()) {
            let component = path_component(&name);
            proptest::prop_assert!(component.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-%".contains(&b)));
            proptest::prop_assert!(component != "." && component != "..");
            let decoded: Vec<u8> = percent_decode(&component);
            proptest::prop_assert_eq!(decoded, name.into_bytes());
        }
    }

    fn percent_decode(text: &str) -> Vec<u8> {
        let mut bytes = text.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            let hex = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
            decoded.push(match byte {
                b'%' => hex(bytes.next().unwrap()) * 16 + hex(bytes.next().unwrap()),
                byte => byte,
            });
        }
        decoded
    }
}
