//! The identity and key of HTTP Basic authentication (OCPP-J 1.6 §6.2).

use std::fmt;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use subtle::ConstantTimeEq;

/// The fewest and the most hex digits that mean the bytes they spell: 16 to 20 bytes.
const HEX_DIGITS: std::ops::RangeInclusive<usize> = 32..=40;

/// The fewest and the most characters of the configuration key `AuthorizationKey` (Improved security for OCPP 1.6-J, §6).
const VALUE_CHARACTERS: std::ops::RangeInclusive<usize> = 16..=40;

/// The scheme of the header, and what follows it (RFC 7617 §2).
const BASIC: &[u8] = b"Basic ";

/// The longest key, in bytes; RFC 7617 gives no bound, proxies refuse long headers.
const MAX_KEY_BYTES: usize = 255;

/// A key for HTTP Basic authentication: bytes, not text.
///
/// Its `Debug` shows nothing of the key.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorizationKey(Box<[u8]>);

/// Why bytes aren't an [`AuthorizationKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationKeyError {
    /// There is no key.
    Empty,
    /// The key has more bytes than 255.
    TooLong,
    /// The value of `AuthorizationKey` doesn't have 16 to 40 characters, but so many.
    Length(usize),
    /// The value of `AuthorizationKey` has a character that isn't printable ASCII.
    Character,
}

/// Who we are for HTTP Basic authentication: the charge point's identity and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    identity: String,
    key: AuthorizationKey,
}

/// Why a name and a key aren't [`Credentials`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsError {
    /// The identity holds a colon, which ends the user name (RFC 7617 §2).
    Colon(String),
}

// === impl AuthorizationKey ===

impl AuthorizationKey {
    /// Reads a key from what a file holds.
    ///
    /// One trailing newline (LF or CR LF) is dropped. 32 to 40 hex digits, an even number of them, mean the
    /// bytes that they spell; anything else means itself.
    ///
    /// # Errors
    /// If nothing is left, or more than 255 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, AuthorizationKeyError> {
        let bytes = match bytes {
            [line @ .., b'\r', b'\n'] | [line @ .., b'\n'] => line,
            bytes => bytes,
        };
        if bytes.is_empty() {
            return Err(AuthorizationKeyError::Empty);
        }
        if HEX_DIGITS.contains(&bytes.len())
            && let Ok(decoded) = HEXLOWER_PERMISSIVE.decode(bytes)
        {
            return Ok(Self(decoded.into()));
        }
        if bytes.len() > MAX_KEY_BYTES {
            return Err(AuthorizationKeyError::TooLong);
        }
        Ok(Self(bytes.into()))
    }

    /// Reads a key from the value that the CSMS gives `AuthorizationKey`: 32 to 40 hex digits, an even number of them,
    /// mean the bytes that they spell; anything else means itself (TC_085).
    ///
    /// # Errors
    /// If it doesn't have 16 to 40 characters, or one that isn't printable ASCII: what other characters look like as
    /// bytes, CSMSs don't agree on.
    pub fn parse_value(value: &str) -> Result<Self, AuthorizationKeyError> {
        if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(AuthorizationKeyError::Character);
        }
        if !VALUE_CHARACTERS.contains(&value.len()) {
            return Err(AuthorizationKeyError::Length(value.len()));
        }
        Self::parse(value.as_bytes())
    }

    /// Takes these very bytes, however they look: what [`as_bytes`](Self::as_bytes) gave.
    ///
    /// # Errors
    /// If there are none, or more than 255.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AuthorizationKeyError> {
        match bytes.len() {
            0 => Err(AuthorizationKeyError::Empty),
            1..=MAX_KEY_BYTES => Ok(Self(bytes.into())),
            _ => Err(AuthorizationKeyError::TooLong),
        }
    }

    /// The key itself, for who keeps it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for AuthorizationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorizationKey(…)")
    }
}

// === impl AuthorizationKeyError ===

impl fmt::Display for AuthorizationKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the authorization key is empty"),
            Self::TooLong => write!(f, "the authorization key has more than {MAX_KEY_BYTES} bytes"),
            Self::Length(characters) => {
                write!(f, "the authorization key has {characters} characters; OCPP allows 16 to 40")
            }
            Self::Character => {
                f.write_str("the authorization key has a character that isn't printable ASCII")
            }
        }
    }
}

impl std::error::Error for AuthorizationKeyError {}

// === impl Credentials ===

impl Credentials {
    /// Joins an identity and its key.
    ///
    /// # Errors
    /// If the identity holds a colon: the CSMS would split it in the wrong place.
    pub fn new(identity: &str, key: AuthorizationKey) -> Result<Self, CredentialsError> {
        if identity.contains(':') {
            return Err(CredentialsError::Colon(identity.to_owned()));
        }
        Ok(Self { identity: identity.to_owned(), key })
    }

    /// Whether this value of the `Authorization` header shows them. It takes as long for one that is nearly right as for one
    /// that is all wrong.
    pub(crate) fn are_shown_by(&self, value: &[u8]) -> bool {
        let Some((scheme, shown)) = value.split_at_checked(BASIC.len()) else { return false };
        scheme.eq_ignore_ascii_case(BASIC)
            && BASE64.decode(shown.trim_ascii()).is_ok_and(|shown| bool::from(shown.ct_eq(&self.user_pass())))
    }

    fn user_pass(&self) -> Vec<u8> {
        [self.identity.as_bytes(), b":", &self.key.0].concat()
    }

    /// The value of the `Authorization` header.
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(&self.user_pass()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

// === impl CredentialsError ===

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Colon(identity) => {
                write!(
                    f,
                    "the identity {identity:?} holds a colon, which HTTP Basic authentication can't carry"
                )
            }
        }
    }
}

impl std::error::Error for CredentialsError {}

#[cfg(test)]
mod tests {
    use super::{AuthorizationKey, AuthorizationKeyError, Credentials};

    fn basic(identity: &str, key: &[u8]) -> String {
        Credentials::new(identity, AuthorizationKey::parse(key).unwrap()).unwrap().basic()
    }

    #[test]
    fn header_of_the_standards_example() {
        // OCPP-J 1.6 §6.2.2
        let expected = "Basic QUwxMDAwOgABAgMEBQYH////////////////";
        assert_eq!(basic("AL1000", b"0001020304050607FFFFFFFFFFFFFFFFFFFFFFFF"), expected);
        assert_eq!(basic("AL1000", b"0001020304050607ffffffffffffffffffffffff\n"), expected);
    }

    #[test]
    fn what_is_shown_is_held_against_them() {
        let credentials = Credentials::new("CP", AuthorizationKey::parse(b"secret").unwrap()).unwrap();
        for value in ["Basic Q1A6c2VjcmV0", "basic Q1A6c2VjcmV0", "BASIC  Q1A6c2VjcmV0 "] {
            assert!(credentials.are_shown_by(value.as_bytes()), "{value}");
        }
        let others = [
            "",
            "Basic",
            "Basic ",
            "Basic Q1A6c2VjcmU=",
            "Basic Q1A6c2VjcmV0cw==",
            "Bearer Q1A6c2VjcmV0",
            "Basic !",
        ];
        for value in others {
            assert!(!credentials.are_shown_by(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn sixteen_to_twenty_characters_mean_themselves() {
        assert_eq!(basic("CP", b"0123456789abcdef"), "Basic Q1A6MDEyMzQ1Njc4OWFiY2RlZg==");
        assert_eq!(basic("CP", b"secret\r\n"), basic("CP", b"secret"));
    }

    #[test]
    fn only_32_to_40_digits_in_pairs_are_hex() {
        let key = |text: &[u8]| AuthorizationKey::parse(text).unwrap();
        assert_eq!(key(&[b'a'; 32]), AuthorizationKey([0xaa; 16].into()));
        assert_eq!(key(&[b'a'; 40]), AuthorizationKey([0xaa; 20].into()));
        for digits in [30, 31, 33, 39, 41, 42] {
            assert_eq!(key(&vec![b'a'; digits]), AuthorizationKey(vec![b'a'; digits].into()), "{digits}");
        }
        assert_eq!(key(&[b'g'; 32]), AuthorizationKey([b'g'; 32].into()));
    }

    #[test]
    fn values_over_ocpp_have_16_to_40_printable_characters() {
        let key = AuthorizationKey::parse_value;
        assert_eq!(key("0123456789abcdef"), Ok(AuthorizationKey((*b"0123456789abcdef").into())));
        assert_eq!(key(&"fF".repeat(16)), Ok(AuthorizationKey([0xff; 16].into())));
        assert_eq!(key(&"fF".repeat(20)), Ok(AuthorizationKey([0xff; 20].into())));
        assert_eq!(key(&"g".repeat(40)), Ok(AuthorizationKey([b'g'; 40].into())));
        for characters in [0, 1, 15, 41, 500] {
            assert_eq!(key(&"a".repeat(characters)), Err(AuthorizationKeyError::Length(characters)));
        }
        for value in ["0123456789abcdef\n", "0123456789abcdé!", "0123456789\tabcdef"] {
            assert_eq!(key(value), Err(AuthorizationKeyError::Character), "{value:?}");
        }
    }

    #[test]
    fn kept_bytes_are_taken_as_they_are() {
        for bytes in [&b"0001020304050607FFFFFFFFFFFFFFFFFFFFFFFF"[..], b"\n", &[0xff; 20]] {
            let key = AuthorizationKey::from_bytes(bytes).unwrap();
            assert_eq!(key.as_bytes(), bytes);
        }
        assert_eq!(AuthorizationKey::from_bytes(b""), Err(AuthorizationKeyError::Empty));
        assert_eq!(AuthorizationKey::from_bytes(&[1; 256]), Err(AuthorizationKeyError::TooLong));
    }

    #[test]
    fn one_newline_is_dropped_and_only_one() {
        let key = |text: &[u8]| AuthorizationKey::parse(text).unwrap();
        assert_eq!(key(b"k\n\n"), AuthorizationKey((*b"k\n").into()));
        assert_eq!(AuthorizationKey::parse(b"\n"), Err(AuthorizationKeyError::Empty));
        assert_eq!(AuthorizationKey::parse(b""), Err(AuthorizationKeyError::Empty));
        assert_eq!(AuthorizationKey::parse(&[b'k'; 256]), Err(AuthorizationKeyError::TooLong));
    }

    #[test]
    fn colon_in_the_identity_is_refused() {
        assert!(Credentials::new("a:b", AuthorizationKey::parse(b"k").unwrap()).is_err());
    }

    #[test]
    fn debug_shows_no_key() {
        let credentials =
            Credentials::new("CP001", AuthorizationKey::parse(b"hunter2hunter2").unwrap()).unwrap();
        let shown = format!("{credentials:?} {:?}", credentials.key);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains("104"), "{shown}");
    }
}
