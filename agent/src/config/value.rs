//! Single values of the file: paths, times and amounts of data.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::error::Invalid;
use super::file::{Bytes, Time};
use crate::bytes::{self, AmountError};
use crate::limits::{AUDIT_BYTES_LEAST, AUDIT_BYTES_MOST, MONTHLY_BYTES};

/// The shortest time that any waiting may be set to: enough for tests, harmless in the field.
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// A relative path would lead the agent and the command line to different places.
pub(super) fn absolute(path: &Spanned<PathBuf>, name: &str) -> Result<PathBuf, Invalid> {
    if path.get_ref().is_absolute() {
        return Ok(path.get_ref().clone());
    }
    let text = format!("{name} {:?} is relative; write the whole path, from /", path.get_ref());
    Err(Invalid::value(path, text))
}

pub(super) fn optional_path(path: &Option<Spanned<PathBuf>>, name: &str) -> Result<Option<PathBuf>, Invalid> {
    path.as_ref().map(|path| absolute(path, name)).transpose()
}

pub(super) fn duration(time: &Spanned<Time>, name: &str, least: Duration) -> Result<Duration, Invalid> {
    let text = &time.get_ref().0;
    let invalid = |what: String| Invalid::value(time, format!("{name} {text:?}: {what}"));
    let duration = humantime::parse_duration(text).map_err(|_| {
        invalid("this is no time; write a number and s, m, h or d, such as \"90s\", \"15m\" or \"8h\"".into())
    })?;
    if duration < least || duration > LONGEST {
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(LONGEST));
        return Err(invalid(format!("out of range; use {least} to {most}")));
    }
    Ok(duration)
}

/// The longest time that anything may be set to; far below what overflows a clock.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);

/// All audit records together.
pub(super) fn audit_bytes(written: &Spanned<Bytes>) -> Result<u64, Invalid> {
    let (amount, text) = amount(written);
    let amount = amount.map_err(|error| {
        Invalid::value(written, format!("log.audit_bytes {text}: {error}; write for example \"1MiB\""))
    })?;
    if !(AUDIT_BYTES_LEAST..=AUDIT_BYTES_MOST).contains(&amount) {
        let text = format!("log.audit_bytes {text} is out of range; use 64KiB to 64MiB");
        return Err(Invalid::value(written, text));
    }
    Ok(amount)
}

/// The amount, and how it was written.
fn amount(written: &Spanned<Bytes>) -> (Result<u64, AmountError>, String) {
    match written.get_ref() {
        Bytes::Number(number) => (u64::try_from(*number).map_err(|_| AmountError), number.to_string()),
        Bytes::Text(text) => (bytes::parse(text), format!("{text:?}")),
    }
}

/// `None` for 0: no cap.
pub(super) fn monthly_bytes(written: &Spanned<Bytes>) -> Result<Option<u64>, Invalid> {
    let (amount, text) = amount(written);
    let amount = amount.map_err(|error| {
        let text =
            format!("policy.monthly_bytes {text}: {error}; write for example \"500MB\", or 0 for no cap");
        Invalid::value(written, text)
    })?;
    if amount > MONTHLY_BYTES {
        let text = format!("policy.monthly_bytes {text} is more than 1000TB; write 0 for no cap");
        return Err(Invalid::value(written, text));
    }
    Ok(Some(amount).filter(|amount| *amount > 0))
}
