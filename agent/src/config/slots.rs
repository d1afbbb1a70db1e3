//! The scripts: slots with an OCPP key, a place on the server and a local service.

use ocpp_bridge::{Access, Registry};
use reverse_tunnel::forward::path_component;
use reverse_tunnel::{Forward, Remote};
use toml::Spanned;

use super::{CLIENT_KEY, Invalid, Slot, file};
use crate::limits::{SLOT_KEY_CHARACTERS, SLOTS};
use crate::link_security::{AUTHORIZATION_KEY, SECURITY_PROFILE};

/// `identity` is the charge point's, for the remotes that are named after it.
pub(super) fn slots(scripts: &[file::Script], identity: Option<&str>) -> Result<Vec<Slot>, Invalid> {
    // The registry knows which keys are the standard's, and refuses one that is there already.
    let mut registry = Registry::new(0);
    for name in [CLIENT_KEY, AUTHORIZATION_KEY, SECURITY_PROFILE] {
        let _ = registry.register(name, Access::ReadOnly);
    }
    let mut slots: Vec<Slot> = Vec::new();
    for (index, script) in scripts.iter().enumerate() {
        let key = script.key.get_ref();
        if index >= SLOTS {
            return Err(Invalid::value(&script.key, format!("more than {SLOTS} scripts; remove some")));
        }
        if key.chars().count() > SLOT_KEY_CHARACTERS {
            let text = format!("the key {key:?} is longer than {SLOT_KEY_CHARACTERS} characters; shorten it");
            return Err(Invalid::value(&script.key, text));
        }
        for name in [key.clone(), format!("{key}Status")] {
            registry.register(&name, Access::ReadWrite).map_err(|error| {
                Invalid::value(
                    &script.key,
                    format!("the key {name:?} can't be used: {error}; choose another one"),
                )
            })?;
        }
        let number = number_of(key).unwrap_or(u8::try_from(index + 1).unwrap_or(u8::MAX));
        if let Some(other) = slots.iter().find(|slot| slot.number == number) {
            let text = format!("{key:?} and {:?} would both be script {number}; rename one", other.key);
            return Err(Invalid::value(&script.key, text));
        }
        let forward = Forward {
            remote: remote(&script.remote, identity)?,
            local: script.local.get_ref().parse().map_err(|error| {
                Invalid::value(
                    &script.local,
                    format!("script.local: {error}; write for example \"127.0.0.1:22\""),
                )
            })?,
        };
        if let Some(other) = slots.iter().find(|slot| slot.forward.remote.is_same_place(&forward.remote)) {
            let text = format!(
                "script.remote {:?} is also that of {:?}, and a server has each only once; choose another one",
                script.remote.get_ref(),
                other.key
            );
            return Err(Invalid::value(&script.remote, text));
        }
        slots.push(Slot { number, key: key.clone(), forward });
    }
    Ok(slots)
}

/// A remote as it is written, with the identity in the place of `{identity}` where it is a socket's path.
fn remote(written: &Spanned<String>, identity: Option<&str>) -> Result<Remote, Invalid> {
    let text = written.get_ref();
    let expanded = match identity {
        _ if !text.starts_with("unix:") || !text.contains(IDENTITY) => text.clone(),
        Some(identity) => text.replace(IDENTITY, &path_component(identity)),
        None => {
            let text =
                format!("script.remote {text:?} needs an identity; set ocpp.identity or ocpp.identity_file");
            return Err(Invalid::value(written, text));
        }
    };
    expanded.parse().map_err(|error| {
        let example = "write for example \"localhost:1111\" or \"unix:/run/chargers/{identity}-ssh.sock\"";
        Invalid::value(written, format!("script.remote: {error}; {example}"))
    })
}

/// What stands for the identity, made safe for a path.
const IDENTITY: &str = "{identity}";

/// The number that a key ends with, 1 to 255.
fn number_of(key: &str) -> Option<u8> {
    let digits = key.len() - key.bytes().rev().take_while(u8::is_ascii_digit).count();
    key.get(digits..)?.parse().ok().filter(|number| *number > 0)
}
