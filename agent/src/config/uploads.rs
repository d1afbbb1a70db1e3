//! `policy.allow_uploads`.

use ocpp_bridge::Url;
use toml::Spanned;

use super::Invalid;
use crate::limits::UPLOAD_PATTERNS;
use crate::upload::allowed::UploadPattern;

/// Where uploads may go if the file doesn't say: over TLS to the host of each of the CSMS's URLs, at the port of HTTPS and at its own.
/// Hosts that can't stand in the list (with an underscore, or a final dot) are left out.
pub(super) fn own_uploads(urls: &[Url]) -> impl Iterator<Item = String> {
    let mut patterns: Vec<String> = Vec::new();
    for url in urls {
        let host = match url.host() {
            host if host.contains(':') => format!("[{host}]"),
            host => host,
        };
        let Ok(host) = host.parse::<reverse_tunnel::Host>() else { continue };
        for port in [443, url.port()] {
            let pattern = UploadPattern::https(host.clone(), port).to_string();
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
    }
    patterns.into_iter()
}

pub(super) fn allowed(written: &Option<Vec<Spanned<String>>>) -> Result<Vec<UploadPattern>, Invalid> {
    let written = written.as_deref().unwrap_or_default();
    if let Some(extra) = written.get(UPLOAD_PATTERNS) {
        return Err(Invalid::value(
            extra,
            format!("more than {UPLOAD_PATTERNS} allow_uploads; use a pattern"),
        ));
    }
    let parse = |text: &Spanned<String>| {
        text.get_ref().parse().map_err(|error| {
            let text_error = format!(
                "policy.allow_uploads {:?}: {error}; write for example \"https://logs.example.com\"",
                text.get_ref()
            );
            Invalid::value(text, text_error)
        })
    };
    written.iter().map(parse).collect()
}
