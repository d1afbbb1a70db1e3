//! The table `[ocpp]`.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ocpp_bridge::limits::MAX_CONNECTORS;
use ocpp_bridge::{Backoff, Url};
use reverse_tunnel::open_file;
use toml::Spanned;

use super::bridge::{Bridge, bridge};
use super::error::Invalid;
use super::file::{self, Urls};
use super::proxy::{ProxySettings, proxy};
use super::value::{MOMENT, absolute, duration, optional_path};
use crate::limits::{CONFIG_BYTES, IDENTITY_BYTES};
use crate::link_security::rollover::uses_key;

/// The link to the CSMS.
#[derive(Debug)]
pub struct Ocpp {
    /// Tried in turn.
    pub urls: Vec<Url>,
    /// Our name there.
    pub identity: String,
    /// 0 to 3. The CSMS may have raised it: see [`crate::link_security`].
    pub security_profile: u8,
    /// Present in profiles 1 and 2.
    pub authorization_key_file: Option<PathBuf>,
    /// Absent: the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Present in profile 3, and always together with the key.
    pub client_certificate_file: Option<PathBuf>,
    /// The private key of that certificate.
    pub client_key_file: Option<PathBuf>,
    /// The HTTP proxy on the way to the CSMS.
    pub proxy: ProxySettings,
    /// Between two pings.
    pub ping_interval: Duration,
    /// Between two connections.
    pub backoff: Backoff,
    /// BootNotification after each reconnect.
    pub boot_on_reconnect: bool,
    /// BootNotification's `chargePointVendor`.
    pub vendor: String,
    /// BootNotification's `chargePointModel`.
    pub model: String,
    /// The key `NumberOfConnectors`.
    pub connectors: u32,
    /// Tell the CSMS of its own accord what happens.
    pub report: bool,
    /// We stand between controllers and the CSMS, and have no charge point of our own.
    pub bridge: Option<Bridge>,
}

impl Ocpp {
    /// Whether the link's credentials are ours, and not a controller's: then the CSMS changes them by our keys.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        has_credentials(self.bridge.as_ref())
    }
}

fn has_credentials(bridge: Option<&Bridge>) -> bool {
    bridge.is_none_or(|bridge| !bridge.passes_credentials())
}

pub(super) fn ocpp(
    written: &Spanned<file::Ocpp>,
    bridge_written: &file::Bridge,
) -> Result<(Option<Arc<Ocpp>>, Option<String>), Invalid> {
    let ocpp = written.get_ref();
    let mode = ocpp.mode.get_ref().as_str();
    match mode {
        "direct" | "bridge" | "off" => {}
        other => {
            return Err(Invalid::value(
                &ocpp.mode,
                format!("ocpp.mode {other:?} doesn't exist; use \"direct\", \"bridge\" or \"off\""),
            ));
        }
    }
    if !matches!(ocpp.report.get_ref().as_str(), "auto" | "off") {
        return Err(Invalid::value(
            &ocpp.report,
            "ocpp.report is neither \"auto\" nor \"off\"; use one of them",
        ));
    }
    let identity = identity(ocpp)?;
    if mode == "off" {
        return Ok((None, identity));
    }
    let Some(identity) = identity else {
        let text = "ocpp.identity is missing; set it to this charge point's identity, or identity_file, or mode = \"off\"";
        return Err(Invalid::at(Some(written.span()), text));
    };
    let profile = *ocpp.security_profile.get_ref();
    if profile > 3 {
        let text = format!("ocpp.security_profile {profile} doesn't exist; use 0 to 3");
        return Err(Invalid::value(&ocpp.security_profile, text));
    }
    let urls = urls(written, profile)?;
    let bridge = match mode {
        "bridge" => Some(bridge(written, bridge_written, &identity)?),
        _ => None,
    };
    let has_own_key = has_credentials(bridge.as_ref());
    if uses_key(profile) && has_own_key && ocpp.authorization_key_file.is_none() {
        let text = format!(
            "security profile {profile} needs a password; set ocpp.authorization_key_file to a file that holds it"
        );
        return Err(Invalid::at(Some(written.span()), text));
    }
    client_files(written, profile)?;
    if uses_key(profile) && has_own_key && identity.contains(':') {
        let text =
            "ocpp.identity has a colon, which Basic authentication can't carry; rename the charge point";
        return Err(Invalid::value(&ocpp.identity, text));
    }
    let name = |value: &Spanned<String>, what: &str| match value.get_ref().chars().count() {
        1..=20 => Ok(value.get_ref().clone()),
        n => Err(Invalid::value(value, format!("ocpp.{what} has {n} characters; OCPP allows 1 to 20"))),
    };
    let connectors = *ocpp.connectors.get_ref();
    if connectors > MAX_CONNECTORS {
        let text = format!("ocpp.connectors is {connectors}; use 0 to {MAX_CONNECTORS}");
        return Err(Invalid::value(&ocpp.connectors, text));
    }
    let link = Ocpp {
        urls,
        identity: identity.clone(),
        security_profile: profile,
        authorization_key_file: optional_path(&ocpp.authorization_key_file, "ocpp.authorization_key_file")?,
        ca_file: optional_path(&ocpp.ca_file, "ocpp.ca_file")?,
        client_certificate_file: optional_path(
            &ocpp.client_certificate_file,
            "ocpp.client_certificate_file",
        )?,
        client_key_file: optional_path(&ocpp.client_key_file, "ocpp.client_key_file")?,
        proxy: proxy("ocpp", &ocpp.proxy, &ocpp.proxy_authorization_file)?,
        ping_interval: duration(&ocpp.ping_interval, "ocpp.ping_interval", Duration::ZERO)?,
        backoff: Backoff {
            minimum: duration(&ocpp.backoff_minimum, "ocpp.backoff_minimum", MOMENT)?,
            random: duration(&ocpp.backoff_random, "ocpp.backoff_random", Duration::ZERO)?,
            doublings: ocpp.backoff_doublings,
        },
        boot_on_reconnect: ocpp.boot_on_reconnect,
        vendor: name(&ocpp.vendor, "vendor")?,
        model: name(&ocpp.model, "model")?,
        connectors,
        report: ocpp.report.get_ref() == "auto",
        bridge,
    };
    Ok((Some(Arc::new(link)), Some(identity)))
}

/// A certificate and its key come together, and profile 3 doesn't go without.
fn client_files(written: &Spanned<file::Ocpp>, profile: u8) -> Result<(), Invalid> {
    let ocpp = written.get_ref();
    match (&ocpp.client_certificate_file, &ocpp.client_key_file) {
        (None, None) if profile == 3 => {
            let text = "security profile 3 needs a client certificate; set ocpp.client_certificate_file and \
                        ocpp.client_key_file to its PEM files";
            Err(Invalid::at(Some(written.span()), text))
        }
        (Some(file), None) => Err(Invalid::value(
            file,
            "ocpp.client_certificate_file is set and ocpp.client_key_file is not; set it to the certificate's private key",
        )),
        (None, Some(file)) => Err(Invalid::value(
            file,
            "ocpp.client_key_file is set and ocpp.client_certificate_file is not; set it to the key's certificate",
        )),
        _ => Ok(()),
    }
}

fn identity(ocpp: &file::Ocpp) -> Result<Option<String>, Invalid> {
    let (identity, place) = match (&ocpp.identity_file, ocpp.identity.get_ref().as_str()) {
        (None, "") => return Ok(None),
        (None, identity) => (identity.to_owned(), ocpp.identity.span()),
        (Some(file), "") => {
            let path = absolute(file, "ocpp.identity_file")?;
            let text = open_file(&path)
                .and_then(|file| io::read_to_string(file.take(CONFIG_BYTES)))
                .map_err(|error| {
                    let text = format!(
                        "can't read ocpp.identity_file {}: {error}; put the identity there",
                        path.display()
                    );
                    Invalid::value(file, text)
                })?;
            (text.trim_end_matches(['\r', '\n']).to_owned(), file.span())
        }
        (Some(file), _) => {
            return Err(Invalid::value(
                file,
                "both ocpp.identity and ocpp.identity_file are set; remove one",
            ));
        }
    };
    if !is_identity(&identity) {
        let text = format!(
            "the identity {identity:?} is empty, too long or has a control character; set another one"
        );
        return Err(Invalid::at(Some(place), text));
    }
    Ok(Some(identity))
}

pub(super) fn is_identity(text: &str) -> bool {
    !text.is_empty() && text.len() <= IDENTITY_BYTES && !text.chars().any(char::is_control)
}

fn urls(written: &Spanned<file::Ocpp>, profile: u8) -> Result<Vec<Url>, Invalid> {
    let url = &written.get_ref().url;
    let texts: Vec<Spanned<String>> = match url.get_ref() {
        Urls::One(text) => vec![Spanned::new(url.span(), text.clone())],
        Urls::Several(texts) => texts.clone(),
    };
    if texts.is_empty() {
        let text = "ocpp.url is missing; set it to the CSMS's WebSocket URL, without the identity, or mode = \"off\"";
        return Err(Invalid::at(Some(written.span()), text));
    }
    let mut urls = Vec::new();
    for text in &texts {
        let url = Url::parse(text.get_ref()).map_err(|error| {
            Invalid::value(
                text,
                format!("ocpp.url {:?}: {error}; write ws:// or wss://, host and path", text.get_ref()),
            )
        })?;
        if profile >= 2 && !url.is_tls() {
            let text_error = format!(
                "security profile {profile} needs TLS, and {:?} has none; write wss:// or lower ocpp.security_profile",
                text.get_ref()
            );
            return Err(Invalid::value(text, text_error));
        }
        urls.push(url);
    }
    Ok(urls)
}
