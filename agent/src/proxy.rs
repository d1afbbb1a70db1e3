//! The file of a proxy's user and password, which is read when the agent starts.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use http_connect::{Proxy, ProxyError};
use reverse_tunnel::open_file;

use crate::config::ProxySettings;
use crate::limits::SECRET_BYTES;

/// Why a proxy's credentials can't be used. The first field is the key that names the file.
#[derive(Debug)]
pub enum ProxyFileError {
    /// The file can't be read.
    File(&'static str, PathBuf, io::Error),
    /// The file holds something else.
    Content(&'static str, PathBuf, ProxyError),
}

/// The proxy, with its user and password where there is a file of them; `name` is the key that names it.
///
/// # Errors
/// That file can't be used.
pub fn with_credentials(
    settings: &ProxySettings,
    name: &'static str,
) -> Result<Option<Proxy>, ProxyFileError> {
    let (Some(bare), Some(path)) = (&settings.proxy, &settings.authorization_file) else {
        return Ok(settings.proxy.clone());
    };
    let text = read(path).map_err(|error| ProxyFileError::File(name, path.clone(), error))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let with = bare.clone().with_credentials(line);
    with.map(Some).map_err(|error| ProxyFileError::Content(name, path.clone(), error))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_file(path)?.take(SECRET_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

impl fmt::Display for ProxyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, path, error) => write!(
                f,
                "{name} {} can't be read: {error}; put it there, or mend its permissions",
                path.display()
            ),
            Self::Content(name, path, error) => write!(f, "{name} {} can't be used: {error}", path.display()),
        }
    }
}

impl std::error::Error for ProxyFileError {}
