//! `ocpp-tunnel-man DIRECTORY`: writes what packages install beside the binary and what is generated from the command line's
//! grammar, so that neither can contradict it:
//!
//! - `DIRECTORY/man/ocpp-tunnel.1`: the manual page, as roff;
//! - `DIRECTORY/completions/ocpp-tunnel.bash`, `_ocpp-tunnel` (zsh) and `ocpp-tunnel.fish`.
//!
//! The same grammar gives the same bytes: the page's date is that of `SOURCE_DATE_EPOCH` (seconds since 1970), and there is
//! none without it.
#![forbid(unsafe_code)]

mod page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap_complete::{Shell, generate, generate_to};

const NAME: &str = "ocpp-tunnel";

#[expect(clippy::print_stderr, reason = "this is a program of its own")]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        eprintln!("usage: ocpp-tunnel-man DIRECTORY");
        return ExitCode::from(2);
    };
    match write_all(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ocpp-tunnel-man: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(directory: &Path) -> io::Result<()> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let page = page::render(ocpp_tunnel::cli::definition(), &date()?);
    fs::write(man.join(format!("{NAME}.1")), page)?;
    fs::write(completions.join(format!("{NAME}.bash")), bash()?)?;
    for shell in [Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut ocpp_tunnel::cli::definition(), NAME, &completions)?;
    }
    Ok(())
}

/// clap_complete 4.6 writes the hyphen of a program's name in two ways, and then nothing after a command's name is completed
/// (clap-rs/clap#6421). Once it writes one, this changes nothing.
fn bash() -> io::Result<String> {
    let mut script = Vec::new();
    generate(Shell::Bash, &mut ocpp_tunnel::cli::definition(), NAME, &mut script);
    let script = String::from_utf8(script).map_err(io::Error::other)?;
    Ok(script.replace(&NAME.replace('-', "__subcmd__"), &NAME.replace('-', "__")))
}

/// The day of `SOURCE_DATE_EPOCH` as `YYYY-MM-DD`; empty without it.
fn date() -> io::Result<String> {
    let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(String::new()) };
    let moment = epoch.parse().ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let moment = moment.ok_or_else(|| {
        io::Error::other(format!("SOURCE_DATE_EPOCH is {epoch:?}, and no number of seconds since 1970"))
    })?;
    Ok(humantime::format_rfc3339(moment).to_string().chars().take(10).collect())
}
