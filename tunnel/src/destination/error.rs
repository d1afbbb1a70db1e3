//! Why a text is no destination, in words that name the place.

use std::fmt;

use crate::limits::{DESTINATION_CHARACTERS, HOST_BYTES, USER_BYTES};

/// Why a text is no destination. Positions count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's line says what its fields are")]
pub enum DestinationError {
    /// More characters than [`DESTINATION_CHARACTERS`].
    TooLong(usize),
    /// White space or a control character inside.
    Forbidden { character: char, position: usize },
    /// No `@`.
    NoAt,
    /// Nothing before the `@`.
    NoUser,
    /// A user longer than [`USER_BYTES`].
    UserTooLong(usize),
    /// A character that a user name can't have there.
    User { character: char, position: usize },
    /// Nothing after the `@`.
    NoHost,
    /// A name longer than [`HOST_BYTES`].
    HostTooLong(usize),
    /// A label that is empty, too long, or begins or ends with a hyphen.
    Label { label: String, position: usize },
    /// A character that a host name can't have.
    Host { character: char, position: usize },
    /// A host that looks like a number but isn't a canonical dotted quad.
    NotDottedQuad { position: usize },
    /// Brackets that hold no IPv6 address.
    NotIpv6 { position: usize },
    /// What follows the host isn't a port from 1 to 65535.
    Port { position: usize },
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => {
                write!(f, "{length} characters, at most {DESTINATION_CHARACTERS} are allowed")
            }
            Self::Forbidden { character, position } => {
                write!(f, "white space or a control character ({character:?}) at character {position}")
            }
            Self::NoAt => f.write_str("no '@': a destination is user@host[:port]"),
            Self::NoUser => f.write_str("no user before the '@'"),
            Self::UserTooLong(length) => {
                write!(f, "a user of {length} characters, at most {USER_BYTES} are allowed")
            }
            Self::User { character, position } => {
                write!(f, "{character:?} at character {position} can't stand there in a user name")
            }
            Self::NoHost => f.write_str("no host after the '@'"),
            Self::HostTooLong(length) => {
                write!(f, "a host of {length} characters, at most {HOST_BYTES} are allowed")
            }
            Self::Label { label, position } => write!(
                f,
                "the host's label {label:?} at character {position} is empty, too long, or begins or ends with a hyphen"
            ),
            Self::Host { character, position } => {
                write!(f, "{character:?} at character {position} can't stand in a host name")
            }
            Self::NotDottedQuad { position } => write!(
                f,
                "the host at character {position} ends in a number but is no IPv4 address of four decimal numbers"
            ),
            Self::NotIpv6 { position } => {
                write!(f, "the brackets at character {position} hold no IPv6 address without a zone")
            }
            Self::Port { position } => {
                write!(
                    f,
                    "':' and a port from 1 to 65535 expected at character {position}; an IPv6 address stands in brackets"
                )
            }
        }
    }
}

impl std::error::Error for DestinationError {}
