use ocpp_bridge::{AuthorizationKey, ClientCertificate, Credentials, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::csms::{Answer, Csms, Peer};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A CSMS's side of TLS, with a certificate for these names.
    fn acceptor(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = named("127.0.0.1");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        acceptor(certificate.der().clone(), &key)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }

    fn client(&self) -> ClientCertificate {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().signed_by(&key, &self.issuer).unwrap();
        ClientCertificate::new(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    fn settings(&self, csms: &Csms) -> LinkSettings {
        let mut settings = settings(&csms.url.replace("ws://", "wss://"));
        settings.tls = Some(TlsSettings::new(Some(self.pem.as_bytes()), Duration::ZERO).unwrap());
        settings.credentials =
            Some(Credentials::new("CP", AuthorizationKey::parse(b"secret").unwrap()).unwrap());
        settings
    }
}

/// What a CSMS says to a charge point that it wants a certificate of `clients` from.
async fn error_with_client_auth(
    clients: &Ca,
    own: Option<&Ca>,
    version: &'static SupportedProtocolVersion,
) -> String {
    let ca = Ca::new("Test CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(clients.roots(), Arc::clone(&provider)).build();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca.issuer).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let csms = Csms::start().await;
    let mut settings = ca.settings(&csms);
    settings.tls = settings.tls.map(|tls| match own {
        Some(own) => tls.with_client_certificate(own.client()),
        None => tls,
    });
    let mut agent = Agent::start(settings);
    let (mut tcp, acceptor) = (csms.tcp().await, TlsAcceptor::from(Arc::new(config)));
    assert!(acceptor.accept(&mut tcp).await.is_err(), "the handshake must fail");
    // What the agent has sent by then is read, lest the kernel drop the alert.
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
    });
    agent.until(|status| status.last_error.is_some()).await.last_error.unwrap()
}

#[tokio::test]
async fn a_client_certificate_of_an_unknown_ca_is_refused_in_either_version() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (theirs, ours) = (Ca::new("Their clients' CA"), Ca::new("Our CA"));
        let error = error_with_client_auth(&theirs, Some(&ours), version).await;
        assert!(error.starts_with("TLS: the CSMS refused our client certificate"), "{version:?}: {error}");
    }
}

#[tokio::test]
async fn a_csms_that_wants_a_client_certificate_is_told_from_others_in_either_version() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let error = error_with_client_auth(&Ca::new("Their clients' CA"), None, version).await;
        assert!(
            error.starts_with("TLS: the CSMS wants a client certificate, and got none"),
            "{version:?}: {error}"
        );
    }
}

#[tokio::test]
async fn while_the_clock_isnt_set_a_later_certificate_is_taken_and_one_that_had_ended_is_not() {
    // This program knows that it is 2090 at the least, and the clock doesn't.
    let earliest = Duration::from_secs(3_786_912_000);
    let ca = Ca::new("Test CA");
    let meet = async |from: i32, to: i32| {
        let acceptor = ca.acceptor(&["127.0.0.1"], |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        });
        let csms = Csms::start().await;
        let mut settings = ca.settings(&csms);
        settings.tls = Some(TlsSettings::new(Some(ca.pem.as_bytes()), earliest).unwrap());
        let mut agent = Agent::start(settings);
        match acceptor.accept(csms.tcp().await).await {
            Ok(_) => Ok(()),
            Err(_) => Err(agent.until_error("TLS: ").await.last_error.unwrap()),
        }
    };
    meet(2080, 2100).await.unwrap();
    // Renewed after the program was built.
    meet(2091, 2092).await.unwrap();
    let error = meet(2020, 2089).await.unwrap_err();
    assert!(
        error.contains("it ended 2089-01-01T00:00:00Z, and it is 2090-01-01T00:00:00Z at the least, although this clock isn't set"),
        "{error}"
    );
    // A name is a name at any time.
    let acceptor =
        ca.acceptor(&["csms.example.com"], |params| params.not_after = rcgen::date_time_ymd(2100, 1, 1));
    let csms = Csms::start().await;
    let mut settings = ca.settings(&csms);
    settings.tls = Some(TlsSettings::new(Some(ca.pem.as_bytes()), earliest).unwrap());
    let mut agent = Agent::start(settings);
    assert!(acceptor.accept(csms.tcp().await).await.is_err());
    agent.until_error("isn't for 127.0.0.1").await;
}

#[tokio::test]
async fn another_ca_of_the_same_name_is_told_from_an_unknown_one() {
    let acceptor = Ca::new("One CA").acceptor(&["127.0.0.1"], |_| {});
    let error = error_with(acceptor, &Ca::new("One CA")).await;
    assert!(error.contains("another CA of the same name"), "{error}");
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Meets the agent once with this acceptor, and returns what the agent says then.
async fn error_with(acceptor: TlsAcceptor, ca: &Ca) -> String {
    let csms = Csms::start().await;
    let mut agent = Agent::start(ca.settings(&csms));
    assert!(acceptor.accept(csms.tcp().await).await.is_err(), "the handshake must fail");
    agent.until_error("TLS: ").await.last_error.unwrap()
}

#[tokio::test]
async fn verified_csms_and_credentials_make_profile_2() {
    let ca = Ca::new("Test CA");
    let acceptor = ca.acceptor(&["127.0.0.1"], |_| {});
    let csms = Csms::start().await;
    let mut agent = Agent::start(ca.settings(&csms));
    let stream = acceptor.accept(csms.tcp().await).await.unwrap();
    let mut peer = Peer::accept(stream, Answer::Subprotocol(Some("ocpp1.6"))).await.unwrap();
    peer.answer_boot(serde_json::json!({"status": "Accepted", "interval": 300})).await;
    let status = agent.until_state(LinkState::Accepted).await;
    assert_eq!(status.profile, Some(2));
    drop(peer);
    agent.until_error("the CSMS dropped the connection").await;
}

#[tokio::test]
async fn wrong_ca_is_an_unknown_issuer() {
    let acceptor = Ca::new("Their CA").acceptor(&["127.0.0.1"], |_| {});
    let error = error_with(acceptor, &Ca::new("Our CA")).await;
    assert!(error.contains("unknown issuer"), "{error}");
}

#[tokio::test]
async fn wrong_name_says_both_names() {
    let ca = Ca::new("Test CA");
    let error = error_with(ca.acceptor(&["csms.example.com"], |_| {}), &ca).await;
    assert!(error.ends_with("isn't for 127.0.0.1, but for csms.example.com"), "{error}");
}

#[tokio::test]
async fn certificate_with_only_a_cn_says_so() {
    let ca = Ca::new("Test CA");
    let error = error_with(ca.acceptor(&[], |_| {}), &ca).await;
    assert!(error.contains("has only a CN, no subjectAltName"), "{error}");
}

#[tokio::test]
async fn ca_certificate_as_the_servers_own_says_so() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let (pem, acceptor) = (certificate.pem(), acceptor(certificate.der().clone(), &key));
    let error = error_with(acceptor, &Ca { issuer: Issuer::new(params, key), pem }).await;
    assert_eq!(error, "TLS: the CSMS's certificate is a CA's, which can't be a server's own");
}

#[tokio::test]
async fn certificate_out_of_its_time_says_when_and_what_time_we_have() {
    let ca = Ca::new("Test CA");
    let expired = ca.acceptor(&["127.0.0.1"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 2));
    let error = error_with(expired, &ca).await;
    assert!(error.contains("has expired: it ended 2020-01-02T00:00:00Z, and this clock says 20"), "{error}");

    let early = ca.acceptor(&["127.0.0.1"], |params| params.not_before = rcgen::date_time_ymd(3020, 1, 2));
    let error = error_with(early, &ca).await;
    assert!(
        error.contains("isn't valid yet: it starts 3020-01-02T00:00:00Z, and this clock says 20"),
        "{error}"
    );
}

#[tokio::test]
async fn port_without_tls_says_so() {
    let ca = Ca::new("Test CA");
    let csms = Csms::start().await;
    let mut agent = Agent::start(ca.settings(&csms));
    let mut tcp = csms.tcp().await;
    tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
    agent.until_error("doesn't speak TLS on this port").await;
    drop(csms.tcp().await);
    agent.until_error("TLS: the").await;
}

#[tokio::test]
async fn wss_without_tls_settings_is_an_error_of_its_own() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url.replace("ws://", "wss://")));
    agent.until_error("TLS isn't set up").await;
}

#[test]
fn ca_files_that_are_none_are_told_apart() {
    let error = |pem: &[u8]| TlsSettings::new(Some(pem), Duration::ZERO).unwrap_err().to_string();
    assert_eq!(error(b""), "the CA file holds no certificate");
    assert_eq!(error(b"hello\n"), "the CA file holds no certificate");
    assert_eq!(
        error(Ca::new("CA").pem.replace("END", "").as_bytes()).split(':').next(),
        Some("the CA file isn't PEM")
    );
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(error(garbage.as_bytes()).starts_with("certificate 1 of the CA file can't be used"));
    let key = KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(error(key.as_bytes()), "the CA file holds no certificate");
}

#[test]
fn system_or_built_in_roots_are_there() {
    TlsSettings::new(None, Duration::ZERO).unwrap();
}
