//! The device's key: is it there, can it be used, and by nobody else?

use reverse_tunnel::{DeviceKeys, Identity, KeyFault};

use crate::clock;
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) async fn look(config: &Config) -> Result<(Vec<Identity>, String), Problem> {
    let path = &config.ssh.identity_file;
    // A check makes no key.
    if !path.try_exists().unwrap_or(true) {
        let text = format!("there is no device key yet, {} doesn't exist", path.display());
        return Err(Problem::new(
            Exit::Config,
            text,
            "`ocpp-tunnel keys show` makes it, and so does the agent's start",
        ));
    }
    let comment = config.identity.as_deref().unwrap_or("ocpp-tunnel");
    let keys = DeviceKeys::open(path, comment);
    if let Some(KeyFault { text, cure }) = keys.fault() {
        return Err(Problem::new(Exit::Config, text, cure));
    }
    let offered = keys.offered();
    let mut text = String::new();
    for identity in &offered {
        if !text.is_empty() {
            text.push_str(", then ");
        }
        text.push_str(&words(identity));
    }
    if offered.len() > 1 {
        text.push_str("; a change of the key is under way");
    }
    Ok((offered, format!("{text}; {} is nobody else's", path.display())))
}

fn words(identity: &Identity) -> String {
    let line = identity.public_line();
    let kind = line.split(' ').next().unwrap_or_default();
    let certificate = match identity.certificate() {
        Ok(None) => String::new(),
        Ok(Some(certificate)) => match certificate.check_time(clock::now()) {
            Ok(()) => format!(" with the certificate {:?}", certificate.key_id()),
            Err(error) => format!(" without its certificate ({error}; {})", error.cure()),
        },
        Err(error) => format!(" without its certificate ({error}; {})", error.cure()),
    };
    format!("{kind} {}{certificate}", identity.fingerprint())
}
