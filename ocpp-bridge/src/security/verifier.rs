//! Who may call itself our CSMS: webpki's judgement, and what becomes of it while the device's clock isn't set.
//!
//! A controller without a battery for its clock starts in 1970, and gets the time from NTP or from this very CSMS.
//! Nothing is known of the time then but that it is later than this program. So a certificate is refused if it had
//! ended by then, and one that begins later is taken to have begun: an operator renews certificates after the program was
//! built. Names and signatures are judged as ever.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::limits::MAX_CERTIFICATE_BEGINNINGS;

/// webpki, with a lower bound for the time.
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    /// Since 1970. A clock before this isn't set.
    earliest: UnixTime,
}

impl Verifier {
    pub(super) fn new(webpki: Arc<WebPkiServerVerifier>, earliest: Duration) -> Self {
        Self { webpki, earliest: UnixTime::since_unix_epoch(earliest) }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge =
            |now| self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if now >= self.earliest {
            return judge(now);
        }
        let mut now = self.earliest;
        let mut judgement = judge(now);
        for _ in 0..MAX_CERTIFICATE_BEGINNINGS {
            let Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) =
                judgement
            else {
                break;
            };
            // Later than before, so no certificate of the chain comes twice.
            now = not_before;
            judgement = judge(now);
        }
        if judgement.is_ok() {
            tracing::warn!("ocpp-certificate-taken-without-clock");
        }
        judgement
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
