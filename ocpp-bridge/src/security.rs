//! Security profiles (Improved security for OCPP 1.6-J, §2): what protects a link, and the credentials
//! and TLS settings that do it.
//!
//! Everything here is given as bytes; where they are kept, and how they change, is the embedder's matter.

mod client_certificate;
mod credentials;
mod server;
mod tls;
mod validity;
mod verifier;
mod words;

pub(crate) use client_certificate::ClientAuth;
pub use client_certificate::{ClientCertificate, ClientCertificateError};
pub use credentials::{AuthorizationKey, AuthorizationKeyError, Credentials, CredentialsError};
pub use server::{ServerTls, ServerTlsError};
pub use tls::{TlsSettings, TlsSettingsError};
pub use validity::Validity;
pub(crate) use words::{explain as explain_tls_error, gist as tls_gist, is_end, is_tls_error};

/// What protects a live link, as opposed to what the configuration wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkSecurity {
    /// The link is inside TLS, and the CSMS's certificate was verified.
    pub tls: bool,
    /// We sent credentials, and the CSMS let us in.
    pub credentials: bool,
    /// We proved our identity by a client certificate.
    pub client_certificate: bool,
}

impl LinkSecurity {
    /// The highest security profile, 0 to 3, that this link fulfils.
    ///
    /// TLS without credentials and without a client certificate is no profile of the standard: 0, like a
    /// plain link.
    pub fn profile(self) -> u8 {
        match self {
            Self { tls: true, client_certificate: true, .. } => 3,
            Self { tls: true, credentials: true, .. } => 2,
            Self { credentials: true, .. } => 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LinkSecurity;

    #[test]
    fn profile_is_judged_by_what_the_link_has() {
        let link =
            |tls, credentials, client_certificate| LinkSecurity { tls, credentials, client_certificate };
        assert_eq!(link(false, false, false).profile(), 0);
        assert_eq!(link(true, false, false).profile(), 0);
        assert_eq!(link(false, false, true).profile(), 0);
        assert_eq!(link(false, true, false).profile(), 1);
        assert_eq!(link(false, true, true).profile(), 1);
        assert_eq!(link(true, true, false).profile(), 2);
        assert_eq!(link(true, false, true).profile(), 3);
        assert_eq!(link(true, true, true).profile(), 3);
    }
}
