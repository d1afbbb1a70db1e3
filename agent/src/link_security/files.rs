//! The files that a link needs, read and joined to what it connects with.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ocpp_bridge::{
    AuthorizationKey, ClientCertificate, ConnectionProfile, Credentials, ServerTls, TlsSettings, Url,
};

use reverse_tunnel::open_file;

use super::rollover::{Proof, uses_key};
use crate::clock;
use crate::config::{Bridge, Ocpp};
use crate::limits::{CERTIFICATE_NOTICE, SECRET_BYTES};

/// Why the link can't be set up.
#[derive(Debug)]
pub enum FileError {
    /// A file of the configuration can't be read.
    Read(&'static str, PathBuf, io::Error),
    /// A file of the configuration can't be used.
    Content(&'static str, PathBuf, String),
    /// Others than its owner may read a private key; the number is its mode.
    Exposed(&'static str, PathBuf, u32),
    /// A security profile needs something that the configuration doesn't name: the profile, and the key's name.
    Missing(u8, &'static str),
    /// The identity and the key can't be sent.
    Credentials(String),
    /// The profile that the CSMS has set, and that is kept in this file, can't be used.
    Kept(PathBuf, Box<Self>),
}

const KEY_FILE: &str = "ocpp.authorization_key_file";
const CA_FILE: &str = "ocpp.ca_file";
const CERTIFICATE_FILE: &str = "ocpp.client_certificate_file";
const CLIENT_KEY_FILE: &str = "ocpp.client_key_file";
const BRIDGE_KEY_FILE: &str = "bridge.authorization_key_file";
const BRIDGE_CERTIFICATE_FILE: &str = "bridge.certificate_file";
const BRIDGE_TLS_KEY_FILE: &str = "bridge.key_file";

/// The key in the configuration's file, if that names one.
///
/// # Errors
/// The file can't be read, or holds no key.
pub(super) fn authorization_key(ocpp: &Ocpp) -> Result<Option<AuthorizationKey>, FileError> {
    let Some(path) = &ocpp.authorization_key_file else { return Ok(None) };
    AuthorizationKey::parse(&read(KEY_FILE, path)?).map(Some).map_err(|error| content(KEY_FILE, path, &error))
}

/// Our certificate with its key, if the configuration names them.
///
/// # Errors
/// A file can't be read, or is of no use, or others may read the key.
pub fn client_certificate(ocpp: &Ocpp) -> Result<Option<ClientCertificate>, FileError> {
    let (Some(path), Some(key_path)) = (&ocpp.client_certificate_file, &ocpp.client_key_file) else {
        return Ok(None);
    };
    let certificates = read(CERTIFICATE_FILE, path)?;
    let key = read_private(CLIENT_KEY_FILE, key_path)?;
    ClientCertificate::new(&certificates, &key).map(Some).map_err(|error| match error.is_about_key() {
        true => content(CLIENT_KEY_FILE, key_path, &error),
        false => content(CERTIFICATE_FILE, path, &error),
    })
}

/// What the controller must show to the bridge, if the configuration wants it to.
///
/// # Errors
/// The file can't be read, or holds no key.
pub fn expected_credentials(ocpp: &Ocpp, bridge: &Bridge) -> Result<Option<Credentials>, FileError> {
    let Some(path) = &bridge.authorization_key_file else { return Ok(None) };
    let key = AuthorizationKey::parse(&read(BRIDGE_KEY_FILE, path)?)
        .map_err(|error| content(BRIDGE_KEY_FILE, path, &error))?;
    Credentials::new(&ocpp.identity, key).map(Some).map_err(|error| FileError::Credentials(error.to_string()))
}

/// TLS towards the controllers, if the configuration names its files.
///
/// # Errors
/// A file can't be read, or is of no use, or others may read the key.
pub fn server_tls(bridge: &Bridge) -> Result<Option<ServerTls>, FileError> {
    let Some((path, key_path)) = &bridge.tls_files else { return Ok(None) };
    let certificates = read(BRIDGE_CERTIFICATE_FILE, path)?;
    let key = read_private(BRIDGE_TLS_KEY_FILE, key_path)?;
    ServerTls::new(&certificates, &key).map(Some).map_err(|error| match error.is_about_key() {
        true => content(BRIDGE_TLS_KEY_FILE, key_path, &error),
        false => content(BRIDGE_CERTIFICATE_FILE, path, &error),
    })
}

/// What an operator should know of our certificate: that it has ended, will soon, or hasn't begun.
#[must_use]
pub fn remark(certificate: &ClientCertificate) -> Option<String> {
    let (now, validity) = (clock::since_epoch(), certificate.validity());
    let shown = |at| clock::rfc3339(std::time::SystemTime::UNIX_EPOCH + at);
    let end = shown(validity.not_after);
    if now > validity.not_after {
        return Some(format!(
            "the client certificate has expired, on {end}: the CSMS will refuse it; renew it"
        ));
    }
    if now + CERTIFICATE_NOTICE > validity.not_after {
        return Some(format!("the client certificate expires on {end}; renew it before"));
    }
    (now < validity.not_before && clock::is_set()).then(|| {
        format!(
            "the client certificate isn't valid before {}: the CSMS will refuse it",
            shown(validity.not_before)
        )
    })
}

/// What to connect with for this proof.
///
/// # Errors
/// The profile needs something that isn't there, or that can't be used.
pub(super) fn connection_profile(ocpp: &Ocpp, proof: &Proof) -> Result<ConnectionProfile, FileError> {
    let urls = urls(ocpp, proof.profile);
    let credentials = match &proof.key {
        Some(key) if uses_key(proof.profile) => Some(
            Credentials::new(&ocpp.identity, key.clone())
                .map_err(|error| FileError::Credentials(error.to_string()))?,
        ),
        // The controller has them.
        None if !ocpp.has_credentials() => None,
        None if uses_key(proof.profile) => return Err(FileError::Missing(proof.profile, KEY_FILE)),
        _ => None,
    };
    let mut tls = None;
    if urls.iter().any(Url::is_tls) {
        let ca = ocpp.ca_file.as_deref().map(|path| read(CA_FILE, path)).transpose()?;
        let path = ocpp.ca_file.clone().unwrap_or_default();
        tls = Some(
            TlsSettings::new(ca.as_deref(), clock::EARLIEST)
                .map_err(|error| content(CA_FILE, &path, &error))?,
        );
    }
    if proof.profile == 3 {
        let certificate = client_certificate(ocpp)?.ok_or(FileError::Missing(3, CERTIFICATE_FILE))?;
        tls = tls.map(|tls| tls.with_client_certificate(certificate));
    }
    Ok(ConnectionProfile { urls, credentials, tls })
}

/// From profile 2 on, the `wss://` URLs alone; where there is none, all of them with TLS.
fn urls(ocpp: &Ocpp, profile: u8) -> Vec<Url> {
    if profile < 2 {
        return ocpp.urls.clone();
    }
    let secure: Vec<Url> = ocpp.urls.iter().filter(|url| url.is_tls()).cloned().collect();
    if secure.is_empty() { ocpp.urls.iter().map(Url::with_tls).collect() } else { secure }
}

fn read(name: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    open(name, path).and_then(|file| read_open(name, path, file))
}

/// A private key is nobody else's, as with SSH.
fn read_private(name: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let file = open(name, path)?;
    let metadata = file.metadata().map_err(|error| FileError::Read(name, path.to_owned(), error))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(FileError::Exposed(name, path.to_owned(), metadata.mode() & 0o7777));
    }
    read_open(name, path, file)
}

fn open(name: &'static str, path: &Path) -> Result<File, FileError> {
    open_file(path).map_err(|error| FileError::Read(name, path.to_owned(), error))
}

fn read_open(name: &'static str, path: &Path, file: File) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    match file.take(SECRET_BYTES + 1).read_to_end(&mut bytes) {
        Err(error) => Err(FileError::Read(name, path.to_owned(), error)),
        Ok(_) if bytes.len() as u64 > SECRET_BYTES => {
            Err(content(name, path, &format_args!("it has more than {SECRET_BYTES} bytes")))
        }
        Ok(_) => Ok(bytes),
    }
}

fn content(name: &'static str, path: &Path, error: &dyn fmt::Display) -> FileError {
    FileError::Content(name, path.to_owned(), error.to_string())
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(name, path, error) => write!(
                f,
                "{name} {} can't be read: {error}; put it there, or mend its permissions",
                path.display()
            ),
            Self::Content(name, path, error) => {
                let cure = match (*name, error.as_str()) {
                    (CLIENT_KEY_FILE, "the key is encrypted") => {
                        "; decrypt it with `openssl pkey`, there is nobody to type a passphrase"
                    }
                    (CLIENT_KEY_FILE | CERTIFICATE_FILE, _) => {
                        "; put the PEM files of one certificate and its key there"
                    }
                    _ => "",
                };
                write!(f, "{name} {} can't be used: {error}{cure}", path.display())
            }
            Self::Exposed(name, path, mode) => {
                let path = path.display();
                write!(f, "{name} {path} may be read by others (mode {mode:04o}); `chmod 600 {path}`")
            }
            Self::Missing(profile, name) => {
                write!(f, "security profile {profile} needs {name}, which isn't set; set it")
            }
            Self::Credentials(error) => f.write_str(error),
            Self::Kept(path, error) => write!(
                f,
                "{error}; the CSMS has set this profile: remove {} to begin anew with that of the configuration",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FileError {}
