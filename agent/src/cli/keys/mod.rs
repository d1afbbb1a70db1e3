//! `ocpp-tunnel keys`: this device's SSH key, here and on the servers.

mod authorized_keys;
mod install;

use std::path::Path;

use reverse_tunnel::device_keys::{Rotation, RotationError};
use reverse_tunnel::{Destination, DeviceKeys, Identity};

use self::authorized_keys::{Dialect, Task};
use super::args::Keys;
use super::words::{journal_lines, remark, say};
use super::{leave_root, load, record, terminal};
use crate::agent::{device_keys, usable};
use crate::audit::{Kind, Outcome};
use crate::clock;
use crate::config::Config;
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;

/// What a person should know of a key in dropbear's file.
const DROPBEAR_REMARK: &str =
    "Mind that dropbear's server doesn't restrict which ports this key may listen on.";

pub(super) fn main(path: &Path, keys: Keys) -> Result<Exit, Problem> {
    match &keys {
        Keys::Install { destination, print: false, .. } => install::check_usage(destination, Task::Install)?,
        Keys::Remove { destination, print: false } => install::check_usage(destination, Task::Remove)?,
        _ => {}
    }
    let config = load(path)?;
    leave_root(&config)?;
    let device = device_keys(&config)?;
    let identity = usable(&device)?;
    match keys {
        Keys::Show { authorized_keys, dropbear } => {
            show(&config, &device, &identity, authorized_keys, dropbear);
            Ok(Exit::Ok)
        }
        Keys::Install { destination, print, dropbear } => {
            on_server(&config, &identity, &destination, Task::Install, print.then_some(dialect(dropbear)))
        }
        Keys::Remove { destination, print } => {
            on_server(&config, &identity, &destination, Task::Remove, print.then_some(Dialect::OpenSsh))
        }
        Keys::Rotate { abort: true, .. } => abort(&config, &device),
        Keys::Rotate { finish: true, yes, .. } => finish(&config, &device, yes),
        Keys::Rotate { dropbear, .. } => rotate(&config, &device, dropbear),
    }
}

/// The key that the servers are to know: during a rotation, the new one. `print`: nothing is done but said.
fn on_server(
    config: &Config,
    identity: &Identity,
    destination: &Destination,
    task: Task,
    print: Option<Dialect>,
) -> Result<Exit, Problem> {
    match print {
        None => install::main(config, identity, destination, task),
        Some(dialect) => {
            install::print(config, identity, destination, task, dialect);
            Ok(Exit::Ok)
        }
    }
}

fn dialect(dropbear: bool) -> Dialect {
    if dropbear { Dialect::Dropbear } else { Dialect::OpenSsh }
}

fn show(config: &Config, device: &DeviceKeys, identity: &Identity, authorized_keys: bool, dropbear: bool) {
    if authorized_keys {
        say_authorized_keys(config, identity, dropbear);
    } else {
        say(&identity.public_line());
    }
    if let Some(rotation) = device.rotation() {
        remark("This is the new key of a rotation that is under way.");
        remark_waiting(&rotation);
    }
    remark_certificate(identity);
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

fn finish(config: &Config, device: &DeviceKeys, yes: bool) -> Result<Exit, Problem> {
    if let Some(rotation) = device.rotation().filter(|rotation| !rotation.waiting.is_empty() && !yes) {
        confirm(&rotation)?;
    }
    let rotation = device.finish()?;
    record_rotation(config, Kind::DeviceKeyChanged, &rotation);
    tell_agent(config);
    remark(&format!("This device's key is {} now.", rotation.new.fingerprint()));
    if !rotation.waiting.is_empty() {
        remark(&format!(
            "Make sure that it is authorised on: {}\nThe old key is kept as {}.old; moved back, it is the device's key again.",
            list(&rotation.waiting),
            config.ssh.identity_file.display()
        ));
    }
    Ok(Exit::Ok)
}

/// Servers that took the old key last may let nobody in by the new one. A script has said all that there is to say.
fn confirm(rotation: &Rotation) -> Result<(), Problem> {
    let again = "`ocpp-tunnel keys rotate --finish --yes`";
    let servers = list(&rotation.waiting);
    let question = format!(
        "These servers took the old key last: {servers}\nWhere the new one isn't authorised, this device can't log in any more.\n\
         End the rotation? [y/N] "
    );
    match terminal::agreed(&question) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Problem::new(Exit::Error, "the rotation goes on: you didn't say yes", again)),
        Err(_) => Ok(()),
    }
}

fn record_rotation(config: &Config, kind: Kind, rotation: &Rotation) {
    record(config, kind, Outcome::Success, |record| {
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
    say(&authorized_keys::line(&config.slots, identity, dialect(dropbear)));
    if dropbear {
        remark(DROPBEAR_REMARK);
    }
}

impl From<RotationError> for Problem {
    fn from(error: RotationError) -> Self {
        let exit = match error {
            RotationError::NotRotating => Exit::NotFound,
            RotationError::Key(_) => Exit::Config,
            RotationError::File(..) => Exit::Error,
            RotationError::Locked(_) => Exit::Timeout,
        };
        Self::new(exit, error.to_string(), error.cure())
    }
}
