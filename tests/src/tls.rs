//! A certificate authority, and the certificate of a server on 127.0.0.1 that it vouches for.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The files of an authority and of one server.
#[derive(Debug)]
pub struct Authority {
    root: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    /// Makes them in `dir`.
    pub fn new(dir: &Path) -> Self {
        let root_key = KeyPair::generate().expect("a key can be made");
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key).expect("it can be signed");

        let key = KeyPair::generate().expect("a key can be made");
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address is a name");
        let certificate = server.signed_by(&key, &Issuer::new(root, root_key)).expect("it can be signed");

        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("it can be written");
            path
        };
        Self {
            root: file("ca.pem", &root_certificate.pem()),
            certificate: file("server.pem", &certificate.pem()),
            key: file("server.key", &key.serialize_pem()),
        }
    }

    /// The authority's own certificate, for those who are to trust it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The server's certificate.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The server's private key.
    pub fn key(&self) -> &Path {
        &self.key
    }
}
