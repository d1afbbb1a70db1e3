//! What went wrong with an attempt, in words for people and in a kind for exit codes.

use std::fmt;
use std::io;

/// One thing that went wrong. The text is a sentence's worth of words in lower case that names the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort of thing it was.
    pub kind: FailureKind,
    /// What happened.
    pub text: String,
}

/// The sorts of failures that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// This device has no key to log in with.
    Key,
    /// The name has no address, or the resolver did not answer.
    Dns,
    /// No TCP connection to any address.
    Tcp,
    /// The proxy can't be reached, or doesn't connect us.
    Proxy,
    /// The proxy wants a user and password, or others than ours.
    ProxyAuth,
    /// The server does not speak SSH as we do, or stopped in the middle.
    Handshake,
    /// The server's host key is not the one that we trust, or can't be judged.
    HostKey(HostKeyFault),
    /// The server does not take our key.
    Auth,
    /// The server does not let us listen.
    Forward,
    /// An established connection went away.
    Lost,
}

/// What is wrong with a host key. Each has another cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyFault {
    /// It isn't the one that was learned.
    Changed,
    /// It isn't the one that the configuration pins.
    Pinned,
    /// It is the first one that was seen, and none is learned.
    Unknown,
    /// It was declared to be compromised.
    Revoked,
    /// Its certificate isn't good.
    Certificate,
    /// Its certificate can't be judged before somebody sets the clock.
    Clock,
    /// The file of known keys can't be used.
    File,
}

impl HostKeyFault {
    /// Will another try find the same?
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Clock | Self::File)
    }
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl From<http_connect::ConnectError> for Failure {
    fn from(error: http_connect::ConnectError) -> Self {
        use http_connect::ConnectError;
        let kind = match error {
            ConnectError::Unauthorized(_) => FailureKind::ProxyAuth,
            ConnectError::Refused(_) | ConnectError::Broken(_) => FailureKind::Proxy,
        };
        Self::new(kind, error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The error's words without `(os error N)`.
pub(crate) fn os_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
