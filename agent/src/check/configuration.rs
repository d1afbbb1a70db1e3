//! The configuration: the file, and every file and directory that it names.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::report::{Report, Step};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::link_security::{check_files, client_certificate, remark};
use crate::proxy::with_credentials;
use crate::way_out::WayOut;

pub(super) async fn look(report: &mut Report<'_>, path: &Path) {
    let examined = async {
        examine(path).map(|(files, remarks)| {
            let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            (remarks, format!("{} is sound", files.join(", ")))
        })
    };
    for remark in report.step(Step::Configuration, examined).await.unwrap_or_default() {
        report.unknown(Step::Configuration, remark);
    }
}

/// Looks at all of it, and gives the files that were read and what an operator might not expect.
///
/// # Errors
/// The file or one that it names can't be used; exit code 78.
pub fn examine(path: &Path) -> Result<(Vec<PathBuf>, Vec<String>), Problem> {
    let config = Config::check(path).map_err(|error| {
        let cure = if error.is_missing() { "name another one with --config FILE" } else { "" };
        Problem::new(Exit::Config, error.to_string(), cure)
    })?;
    let problem =
        |error: &dyn Display| Problem::new(Exit::Config, format!("{}: {error}", path.display()), "");
    if let Some(ocpp) = &config.ocpp {
        check_files(ocpp).map_err(|error| problem(&error))?;
        with_credentials(&ocpp.proxy, "ocpp.proxy_authorization_file").map_err(|error| problem(&error))?;
    }
    WayOut::new(&config.ssh).map_err(|error| problem(&error))?;
    let certificate = config.ocpp.as_deref().map(client_certificate).transpose();
    let certificate = certificate.map_err(|error| problem(&error))?.flatten();
    let remarks = config.remarks().into_iter().chain(certificate.as_ref().and_then(remark)).collect();
    Ok((config.files, remarks))
}
