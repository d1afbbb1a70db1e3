//! The HTTP proxies of tunnels and of the OCPP link: the same two keys in two sections.

use std::path::PathBuf;

use http_connect::{Proxy, ProxyError};
use toml::Spanned;

use super::error::Invalid;
use super::value::optional_path;

/// An HTTP proxy, and the file of its user and password.
#[derive(Clone, Debug, Default)]
pub struct ProxySettings {
    /// The proxy, without its credentials.
    pub proxy: Option<Proxy>,
    /// Where `user:password` stands.
    pub authorization_file: Option<PathBuf>,
}

/// The keys `proxy` and `proxy_authorization_file` of a section.
pub(super) fn proxy(
    section: &str,
    url: &Option<Spanned<String>>,
    file: &Option<Spanned<PathBuf>>,
) -> Result<ProxySettings, Invalid> {
    let proxy = url.as_ref().map(|url| {
        url.get_ref().parse::<Proxy>().map_err(|error| {
            let cure = match error {
                ProxyError::Url(_) => "write for example \"http://proxy.example.com:3128\"".to_owned(),
                _ => format!(
                    "write user:password into a file and name it in {section}.proxy_authorization_file"
                ),
            };
            Invalid::value(url, format!("{section}.proxy: {error}; {cure}"))
        })
    });
    if let (None, Some(file)) = (&proxy, file) {
        let text = format!(
            "{section}.proxy_authorization_file is set and {section}.proxy is not; set it, or remove this"
        );
        return Err(Invalid::value(file, text));
    }
    let authorization_file = optional_path(file, &format!("{section}.proxy_authorization_file"))?;
    Ok(ProxySettings { proxy: proxy.transpose()?, authorization_file })
}
