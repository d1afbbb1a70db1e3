//! The table `[bridge]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ocpp_bridge::limits::MAX_CONTROLLERS;
use toml::Spanned;

use super::error::Invalid;
use super::file;
use super::ocpp::is_identity;
use super::value::{duration, optional_path};

/// Where controllers connect, and which.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Where they connect.
    pub listen: SocketAddr,
    /// The controllers besides `ocpp.identity`; everything of theirs passes.
    pub identities: Vec<String>,
    /// The password that the controller `ocpp.identity` must show, where the bridge has credentials of its own for the CSMS.
    pub authorization_key_file: Option<PathBuf>,
    /// Certificate and key for TLS towards the controllers.
    pub tls_files: Option<(PathBuf, PathBuf)>,
    /// How long that controller must be away until the bridge connects by itself.
    pub rescue_after: Option<Duration>,
}

impl Bridge {
    /// The CSMS sees what the controller shows, and not what the bridge has.
    #[must_use]
    pub fn passes_credentials(&self) -> bool {
        self.authorization_key_file.is_none()
    }
}

pub(super) fn bridge(
    ocpp: &Spanned<file::Ocpp>,
    written: &file::Bridge,
    identity: &str,
) -> Result<Bridge, Invalid> {
    let text = written.listen.get_ref();
    let listen = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0).ok_or_else(|| {
        let text =
            format!("bridge.listen {text:?} is no address with a port; write for example \"127.0.0.1:8887\"");
        Invalid::value(&written.listen, text)
    })?;
    let rescue_after = duration(&written.rescue_after, "bridge.rescue_after", Duration::ZERO)?;
    let bridge = Bridge {
        listen,
        identities: identities(&written.identities, identity)?,
        authorization_key_file: optional_path(
            &written.authorization_key_file,
            "bridge.authorization_key_file",
        )?,
        tls_files: tls_files(written)?,
        rescue_after: Some(rescue_after).filter(|after| !after.is_zero()),
    };
    own_credentials(ocpp, &bridge)?;
    if let Some(file) = written.authorization_key_file.as_ref().filter(|_| identity.contains(':')) {
        let text = "ocpp.identity has a colon, which Basic authentication can't carry; remove bridge.authorization_key_file, or rename the charge point";
        return Err(Invalid::value(file, text));
    }
    Ok(bridge)
}

fn identities(written: &[Spanned<String>], own: &str) -> Result<Vec<String>, Invalid> {
    if let Some(surplus) = written.get(MAX_CONTROLLERS - 1) {
        let text = format!(
            "a bridge serves {MAX_CONTROLLERS} controllers, ocpp.identity among them; remove some of bridge.identities"
        );
        return Err(Invalid::value(surplus, text));
    }
    let mut identities: Vec<String> = Vec::new();
    for entry in written {
        let identity = entry.get_ref();
        if !is_identity(identity) {
            let text = format!(
                "bridge.identities {identity:?} is empty, too long or has a control character; set another one"
            );
            return Err(Invalid::value(entry, text));
        }
        if identity == own || identities.contains(identity) {
            let text =
                format!("bridge.identities {identity:?} is there already, or is ocpp.identity; remove it");
            return Err(Invalid::value(entry, text));
        }
        identities.push(identity.clone());
    }
    Ok(identities)
}

/// A certificate and its key come together.
fn tls_files(written: &file::Bridge) -> Result<Option<(PathBuf, PathBuf)>, Invalid> {
    match (&written.certificate_file, &written.key_file) {
        (Some(file), None) => Err(Invalid::value(
            file,
            "bridge.certificate_file is set and bridge.key_file is not; set it to the certificate's private key",
        )),
        (None, Some(file)) => Err(Invalid::value(
            file,
            "bridge.key_file is set and bridge.certificate_file is not; set it to the key's certificate",
        )),
        (certificate, key) => {
            let certificate = optional_path(certificate, "bridge.certificate_file")?;
            Ok(certificate.zip(optional_path(key, "bridge.key_file")?))
        }
    }
}

/// With credentials of its own the bridge speaks for whoever connects to it, so that one has to show some as well.
fn own_credentials(written: &Spanned<file::Ocpp>, bridge: &Bridge) -> Result<(), Invalid> {
    let ocpp = written.get_ref();
    if !bridge.passes_credentials() {
        return Ok(());
    }
    let cure = "set bridge.authorization_key_file to a file with the password that the controller shows to the bridge";
    let named = [
        ("ocpp.authorization_key_file", &ocpp.authorization_key_file),
        ("ocpp.client_certificate_file", &ocpp.client_certificate_file),
        ("ocpp.client_key_file", &ocpp.client_key_file),
    ];
    for (name, file) in named {
        if let Some(file) = file {
            let text =
                format!("with {name}, whoever reaches bridge.listen could play the charge point; {cure}");
            return Err(Invalid::value(file, text));
        }
    }
    if *ocpp.security_profile.get_ref() == 3 {
        let text = format!(
            "security profile 3 needs the bridge's own certificate; set ocpp.client_certificate_file and ocpp.client_key_file, and {cure}"
        );
        return Err(Invalid::at(Some(written.span()), text));
    }
    Ok(())
}
