//! What the fuzz targets in `fuzz/` call, one function a target: any bytes in, and what must hold for all of them.
//! Built for tests, which play the inputs in `fuzz/corpus/`, and with `--cfg fuzzing`; never for the product.

use crate::destination::Destination;
use crate::forward::Forward;
use crate::host_keys::{KnownHost, Without, known_hosts_name};
use crate::limits::VERSION_CHARACTERS;
use crate::{dropbear_key, identity, probe, ssh};

/// A destination is what it is written as, and holds nothing that means something to a shell.
pub fn destination(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(destination) = text.parse::<Destination>() else { return };
    let written = destination.to_string();
    assert!(
        written.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@:[]".contains(&byte)),
        "{written}"
    );
    assert!(!destination.user().starts_with('-') && !destination.host().to_string().starts_with('-'));
    assert_eq!(written.parse().as_ref(), Ok(&destination), "{written}");
}

/// A forward is what it is written as.
pub fn forward(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(forward) = text.parse::<Forward>() else { return };
    let written = forward.to_string();
    assert!(!written.chars().any(char::is_control), "{written:?}");
    assert_eq!(written.parse().as_ref(), Ok(&forward), "{written}");
}

/// A line of a known-hosts file can be shown; forgetting a host that it names leaves a line that says the same of the others,
/// and nothing of that host.
pub fn known_hosts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(line) = text.parse::<KnownHost>() else { return };
    assert!(line.fingerprint().starts_with("SHA256:"));
    assert!(!line.key_type().is_empty() && !line.names().is_empty());
    let names = line.names();
    for named in names.iter().filter_map(|name| format!("user@{name}").parse::<Destination>().ok()) {
        let name = known_hosts_name(named.server());
        let Without::Names(left) = line.names.without(&name) else { continue };
        let marker = line.kind().marker().map(|marker| format!("{marker} ")).unwrap_or_default();
        let mut fields = text.split([' ', '\t', '\r']).filter(|field| !field.is_empty());
        let key: Vec<&str> = fields.by_ref().skip(usize::from(!marker.is_empty()) + 1).take(2).collect();
        let written = format!("{marker}{left} {}", key.join(" "));
        let read = written.parse::<KnownHost>();
        let says_the_same = |read: &KnownHost| {
            read.kind() == line.kind()
                && read.fingerprint() == line.fingerprint()
                && read.names().iter().all(|name| names.contains(name))
                && !read.names.match_any(&[&name])
        };
        assert!(read.as_ref().is_ok_and(says_the_same), "{written}: {read:?}");
    }
}

/// A private key of any format: what is taken can sign, and its public half can be written.
pub fn private_key(bytes: &[u8]) {
    let Ok(key) = identity::decode(bytes) else { return };
    if identity::check_strength(key.key_data()).is_err() || ssh::check_pair(&key).is_err() {
        return;
    }
    assert!(key.public_key().to_openssh().is_ok_and(|line| !line.contains('\n')));
}

/// A key file of dropbear's: what is taken has halves that belong together.
pub fn dropbear_key(bytes: &[u8]) {
    let Ok(key) = dropbear_key::parse(bytes) else { return };
    assert!(key.public_key().to_openssh().is_ok());
}

/// What a server says before the key exchange: what is taken for its version is a whole line of it.
pub fn banner(bytes: &[u8]) {
    let Some(line) = probe::version_line(bytes) else { return };
    assert!(line.starts_with("SSH-") && line.chars().count() <= VERSION_CHARACTERS && !line.contains('\n'));
    assert!(bytes.contains(&b'\n'));
}

#[cfg(test)]
mod tests {
    use ocpp_tunnel_corpus::play;

    #[test]
    fn destinations_hold_for_every_input_in_the_corpus() {
        play("destination", super::destination);
    }

    #[test]
    fn forwards_hold_for_every_input_in_the_corpus() {
        play("forward", super::forward);
    }

    #[test]
    fn known_hosts_lines_hold_for_every_input_in_the_corpus() {
        play("known_hosts", super::known_hosts);
    }

    #[test]
    fn private_keys_hold_for_every_input_in_the_corpus() {
        play("private_key", super::private_key);
    }

    #[test]
    fn dropbear_keys_hold_for_every_input_in_the_corpus() {
        play("dropbear_key", super::dropbear_key);
    }

    #[test]
    fn banners_hold_for_every_input_in_the_corpus() {
        play("banner", super::banner);
    }
}
