//! The configuration: the file, and every file and directory that it names.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};

use super::report::{Report, Step};
use crate::config::{Config, Written};
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::link_security::{check_files, client_certificate, remark};
use crate::proxy::with_credentials;
use crate::way_out::WayOut;

pub(super) async fn look(report: &mut Report<'_>, path: &Path, written: &Written) {
    let examined = async {
        examine(path, written).map(|(files, remarks)| {
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
pub fn examine(path: &Path, written: &Written) -> Result<(Vec<PathBuf>, Vec<String>), Problem> {
    let config = written.check().map_err(|error| error.problem())?;
    let problem =
        |error: &dyn Display| Problem::new(Exit::Config, format!("{}: {error}", path.display()), "");
    if let Some(ocpp) = &config.ocpp {
        check_files(ocpp).map_err(|error| problem(&error))?;
        with_credentials(&ocpp.proxy, "ocpp.proxy_authorization_file").map_err(|error| problem(&error))?;
    }
    WayOut::new(&config.ssh).map_err(|error| problem(&error))?;
    let certificate = config.ocpp.as_deref().map(client_certificate).transpose();
    let certificate = certificate.map_err(|error| problem(&error))?.flatten();
    let remarks = config.remarks().into_iter().chain(certificate.as_ref().and_then(remark));
    let remarks = remarks.chain(unreadable(&config)).collect();
    Ok((config.files, remarks))
}

/// Root has read them, and the agent has to read them again.
fn unreadable(config: &Config) -> Vec<String> {
    let mut files = config.files.iter();
    let file = files.find(|file| access(*file, AccessFlags::R_OK).is_err());
    let (user, state_dir) = (Uid::current(), config.state_dir.display());
    let words = |file: &PathBuf| {
        let file = file.display();
        format!(
            "{file} can't be read by user {user}, which the agent is once it runs, so that no reload works: \
             chown --reference={state_dir} {file}"
        )
    };
    file.map(words).into_iter().collect()
}
