//! `ocpp-tunnel keys`: this device's SSH key.

use std::path::Path;

use reverse_tunnel::Remote;

use super::args::Keys;
use super::words::{remark, say};
use super::{leave_root, load};
use crate::agent::load_identity;
use crate::config::Slot;
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) fn main(path: &Path, keys: Keys) -> Result<Exit, Problem> {
    let config = load(path)?;
    leave_root(&config)?;
    let public = load_identity(&config)?.public_line();
    let Keys::Show { authorized_keys, dropbear } = keys;
    if !authorized_keys {
        say(&public);
        return Ok(Exit::Ok);
    }
    say(&format!(
        "{} {public}",
        if dropbear { DROPBEAR_OPTIONS.to_owned() } else { openssh_options(&config.slots) }
    ));
    if dropbear {
        remark("Mind that dropbear's server doesn't restrict which ports this key may listen on.");
    }
    Ok(Exit::Ok)
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
    }
}
