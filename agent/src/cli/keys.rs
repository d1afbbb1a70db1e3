//! `ocpp-tunnel keys`: this device's SSH key.

use std::path::Path;

use reverse_tunnel::device_keys::{Rotation, RotationError};
use reverse_tunnel::{Destination, DeviceKeys, Identity, Remote};

use super::args::Keys;
use super::words::{journal_lines, remark, say};
use super::{leave_root, load, record};
use crate::agent::device_keys;
use crate::audit::Kind;
use crate::clock;
use crate::config::{Config, Slot};
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;

pub(super) fn main(path: &Path, keys: Keys) -> Result<Exit, Problem> {
    let config = load(path)?;
    leave_root(&config)?;
    let device = device_keys(&config)?;
    match keys {
        Keys::Show { authorized_keys, dropbear } => {
            show(&config, &device, authorized_keys, dropbear);
            Ok(Exit::Ok)
        }
        Keys::Rotate { abort: true, .. } => abort(&config, &device),
        Keys::Rotate { finish: true, .. } => finish(&config, &device),
        Keys::Rotate { dropbear, .. } => rotate(&config, &device, dropbear),
    }
}

fn show(config: &Config, device: &DeviceKeys, authorized_keys: bool, dropbear: bool) {
    let identity = device.to_authorise().borrow().clone();
    if authorized_keys {
        say_authorized_keys(config, &identity, dropbear);
    } else {
        say(&identity.public_line());
    }
    if let Some(rotation) = device.rotation() {
        remark("This is the new key of a rotation that is under way.");
        remark_waiting(&rotation);
    }
    remark_certificate(&identity);
}

fn rotate(config: &Config, device: &DeviceKeys, dropbear: bool) -> Result<Exit, Problem> {
    let was_rotating = device.rotation().is_some();
    let rotation = device.rotate()?;
    if !was_rotating {
        record_rotation(config, Kind::DeviceKeyRotation, &rotation);
    }
    say_authorized_keys(config, &rotation.new, dropbear);
    remark(&format!(
        "Add this line to the account on each server, and leave the old one there until the rotation is over.\n\
         The old key is {}. Both are offered until then, the new one first.",
        rotation.old.fingerprint()
    ));
    remark_waiting(&rotation);
    tell_agent(config);
    Ok(Exit::Ok)
}

fn abort(config: &Config, device: &DeviceKeys) -> Result<Exit, Problem> {
    let rotation = device.abort()?;
    record_rotation(config, Kind::DeviceKeyRotationAborted, &rotation);
    tell_agent(config);
    remark(&format!(
        "The new key {} is given up; this device stays with {}.",
        rotation.new.fingerprint(),
        rotation.old.fingerprint()
    ));
    if !rotation.done.is_empty() {
        remark(&format!("Make sure that the old key is still authorised on: {}", list(&rotation.done)));
    }
    Ok(Exit::Ok)
}

fn finish(config: &Config, device: &DeviceKeys) -> Result<Exit, Problem> {
    let rotation = device.finish()?;
    record_rotation(config, Kind::DeviceKeyChanged, &rotation);
    tell_agent(config);
    remark(&format!("This device's key is {} now.", rotation.new.fingerprint()));
    if !rotation.waiting.is_empty() {
        remark(&format!("Make sure that it is authorised on: {}", list(&rotation.waiting)));
    }
    Ok(Exit::Ok)
}

fn record_rotation(config: &Config, kind: Kind, rotation: &Rotation) {
    record(config, kind, |record| {
        record.text("key", &rotation.new.fingerprint()).text("old", &rotation.old.fingerprint())
    });
}

/// A running agent looks at the files before each login; what it shows to the CSMS changes at once with this.
fn tell_agent(config: &Config) {
    let socket = config.control_socket();
    match ask(&socket, &Request::Keys) {
        Ok(Answer::Done) | Err(ClientError::NoAgent) => {}
        Ok(other) => remark(&journal_lines(&format!("The running agent doesn't know of it yet: {other:?}"))),
        Err(error) => {
            let problem = error.to_problem(&socket);
            remark(&journal_lines(&format!("The running agent doesn't know of it yet: {}", problem.text)));
        }
    }
}

fn remark_waiting(rotation: &Rotation) {
    if rotation.waiting.is_empty() {
        remark("It is over when a tunnel to a server that takes the new key is up.");
    } else {
        remark(&format!(
            "These servers took the old key last, and it is kept until they take the new one: {}",
            list(&rotation.waiting)
        ));
        remark("Where one of them is gone for good, `ocpp-tunnel keys rotate --finish` ends the rotation.");
    }
}

fn remark_certificate(identity: &Identity) {
    let usable = identity.certificate().map(|certificate| {
        certificate.map(|certificate| (certificate, certificate.check_time(clock::now())))
    });
    let text = match usable {
        Ok(None) => return,
        Err(error) => format!("{error}, so the plain key is used; {}", error.cure()),
        Ok(Some((_, Err(error)))) => format!("{error}, so the plain key is used; {}", error.cure()),
        Ok(Some((certificate, Ok(())))) => {
            let accounts = match certificate.principals() {
                [] => "every account".to_owned(),
                principals => principals.join(", "),
            };
            let end = certificate
                .ends()
                .map_or("without an end".to_owned(), |end| format!("until {}", clock::rfc3339(end)));
            let (id, file) = (certificate.key_id(), certificate.path().display());
            format!("The certificate {file} is offered first: {id:?}, for {accounts}, {end}")
        }
    };
    remark(&journal_lines(&text));
}

fn list(servers: &[Destination]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn say_authorized_keys(config: &Config, identity: &Identity, dropbear: bool) {
    let options = if dropbear { DROPBEAR_OPTIONS.to_owned() } else { openssh_options(&config.slots) };
    say(&format!("{options} {}", identity.public_line()));
    if dropbear {
        remark("Mind that dropbear's server doesn't restrict which ports this key may listen on.");
    }
}

impl From<RotationError> for Problem {
    fn from(error: RotationError) -> Self {
        let exit = match error {
            RotationError::NotRotating => Exit::NotFound,
            RotationError::Key(_) => Exit::Config,
            RotationError::File(..) => Exit::Error,
        };
        Self::new(exit, error.to_string(), error.cure())
    }
}

/// dropbear refuses a line with an option that it doesn't know, and knows none for listening.
const DROPBEAR_OPTIONS: &str = "no-pty,no-X11-forwarding,no-agent-forwarding,permitopen=\"localhost:9\"";

/// Nothing but listening where our scripts want to. `permitopen` names a port that nobody uses: without it, the key
/// would open connections into the server's network.
fn openssh_options(slots: &[Slot]) -> String {
    let mut options = "restrict,port-forwarding".to_owned();
    for slot in slots {
        if let Remote::Tcp { bind, port } = &slot.forward.remote {
            let bind = if bind.contains(':') { format!("[{bind}]") } else { bind.clone() };
            let port = if *port == 0 { "*".to_owned() } else { port.to_string() };
            options.push_str(&format!(",permitlisten=\"{bind}:{port}\""));
        }
    }
    if !options.contains("permitlisten") {
        // Without any, every port is allowed.
        options.push_str(",permitlisten=\"localhost:9\"");
    }
    options.push_str(",permitopen=\"localhost:9\"");
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_may_only_listen_where_the_scripts_do() {
        let slot = |remote: &str| Slot {
            number: 1,
            key: "K".into(),
            forward: format!("{remote}:127.0.0.1:22").parse().unwrap(),
        };
        assert_eq!(
            openssh_options(&[slot("localhost:1111"), slot("0"), slot("[::1]:7")]),
            "restrict,port-forwarding,permitlisten=\"localhost:1111\",permitlisten=\"localhost:*\",\
             permitlisten=\"[::1]:7\",permitopen=\"localhost:9\""
        );
        assert_eq!(
            openssh_options(&[slot("unix:/run/cp.sock")]),
            "restrict,port-forwarding,permitlisten=\"localhost:9\",permitopen=\"localhost:9\""
        );
    }
}
