//! A certificate authority, the certificate of a server on 127.0.0.1 that it vouches for, and those of its clients.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};

/// What is wrong with the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It ended in 2020.
    Expired,
    /// It begins in 3000.
    NotYetValid,
    /// It is for csms.example.com.
    OtherName,
    /// It names 127.0.0.1 in its CN, and nowhere else.
    CnOnly,
}

/// An authority, and the files of its server.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// A certificate and its private key, which only its owner may read.
#[derive(Debug)]
pub struct Files {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The key, PKCS#8.
    pub key: PathBuf,
}

impl Authority {
    /// Makes them in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self::with_fault(dir, Fault::None)
    }

    /// Makes them in `dir`, with something wrong.
    pub fn with_fault(dir: &Path, fault: Fault) -> Self {
        let root_key = KeyPair::generate().expect("a key can be made");
        let mut root = CertificateParams::default();
        // Each has a name of its own.
        root.distinguished_name = named(&dir.display().to_string());
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key).expect("it can be signed");

        let name = match fault {
            Fault::OtherName => vec!["csms.example.com".to_owned()],
            Fault::CnOnly => Vec::new(),
            _ => vec!["127.0.0.1".to_owned()],
        };
        let mut server = CertificateParams::new(name).expect("an address is a name");
        server.distinguished_name = named("127.0.0.1");
        match fault {
            Fault::Expired => server.not_after = date_time_ymd(2020, 1, 2),
            Fault::NotYetValid => server.not_before = date_time_ymd(3000, 1, 2),
            _ => {}
        }
        let issuer = Issuer::new(root, root_key);
        let Files { certificate, key } = issue(&issuer, server, dir, "server");
        let root = dir.join("ca.pem");
        std::fs::write(&root, root_certificate.pem()).expect("it can be written");
        Self { issuer, root, certificate, key }
    }

    /// Makes a client's certificate and key in `dir`.
    pub fn client(&self, dir: &Path, name: &str) -> Files {
        let mut client = CertificateParams::default();
        client.distinguished_name = named(name);
        issue(&self.issuer, client, dir, "client")
    }

    /// Makes a client's certificate that ended in 2020, and its key, in `dir`.
    pub fn expired_client(&self, dir: &Path, name: &str) -> Files {
        let mut client = CertificateParams::default();
        client.distinguished_name = named(name);
        client.not_after = date_time_ymd(2020, 1, 2);
        issue(&self.issuer, client, dir, "client")
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

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn issue(issuer: &Issuer<'_, KeyPair>, params: CertificateParams, dir: &Path, name: &str) -> Files {
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = params.signed_by(&key, issuer).expect("it can be signed");
    let file = |extension: &str, text: &str| {
        let path = dir.join(format!("{name}.{extension}"));
        std::fs::write(&path, text).expect("it can be written");
        path
    };
    let files =
        Files { certificate: file("pem", &certificate.pem()), key: file("key", &key.serialize_pem()) };
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&files.key, private).expect("it is ours");
    files
}
