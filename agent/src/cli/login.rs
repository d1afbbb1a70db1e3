//! The SSH login that this command runs in: what the controller's own SSH server has said of it.
//!
//! OpenSSH's sshd and dropbear set `SSH_CONNECTION` for each session: the client's address and port, and their own. For a login
//! through a tunnel the client is the agent. `sudo`, `su` and cron drop the variable, so that it is looked for in the environments
//! that the ancestors of this process were started with as well, as far as this user may read them: root all, others their own.
//! `tmux` and the like outlive a login, and then tell of one that is over; the agent only heeds those that are alive.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use crate::control::protocol::Login;
use crate::limits::{ANCESTORS, ENVIRONMENT_BYTES, PROCESS_STATUS_BYTES};

const VARIABLE: &str = "SSH_CONNECTION";

/// The login, if this process runs in one.
pub(super) fn this_login() -> Option<Login> {
    let own = std::env::var(VARIABLE).ok();
    own.as_deref().and_then(parse).or_else(|| {
        let ancestors = std::iter::successors(parent("self"), |pid| parent(&pid.to_string()));
        ancestors.take_while(|pid| *pid > 1).take(ANCESTORS).find_map(login_of)
    })
}

/// `203.0.113.9 40000 192.0.2.1 22`, and nothing else.
fn parse(text: &str) -> Option<Login> {
    let mut words = text.split(' ');
    let mut address = || {
        let (ip, port) = (words.next()?, words.next()?);
        Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
    };
    let login = Login { client: address()?, server: address()? };
    words.next().is_none().then_some(login)
}

fn login_of(pid: u32) -> Option<Login> {
    let environment = read(&format!("/proc/{pid}/environ"), ENVIRONMENT_BYTES)?;
    let prefix = format!("{VARIABLE}=");
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(prefix.as_bytes()))?;
    parse(std::str::from_utf8(value).ok()?)
}

/// The parent's number is the second word after the name, which is in parentheses and may hold anything (proc(5)).
fn parent(process: &str) -> Option<u32> {
    let status = read(&format!("/proc/{process}/stat"), PROCESS_STATUS_BYTES)?;
    let after = status.iter().rposition(|byte| *byte == b')')?;
    std::str::from_utf8(&status[after + 1..]).ok()?.split_whitespace().nth(1)?.parse().ok()
}

fn read(path: &str, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_two_addresses_and_nothing_else() {
        let login = parse("127.0.0.1 40000 127.0.0.1 22").unwrap();
        assert_eq!(login.client, "127.0.0.1:40000".parse().unwrap());
        assert_eq!(login.server, "127.0.0.1:22".parse().unwrap());
        assert_eq!(parse("::1 40000 ::1 22").unwrap().server, "[::1]:22".parse().unwrap());
        for bad in [
            "",
            "127.0.0.1 40000 127.0.0.1",
            "127.0.0.1 40000 127.0.0.1 22 ",
            "127.0.0.1 40000 127.0.0.1 22 23",
            "127.0.0.1 70000 127.0.0.1 22",
            "127.0.0.1  40000 127.0.0.1 22",
            "UNKNOWN 65535 UNKNOWN 65535",
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_parent_is_read_from_the_kernel() {
        assert_eq!(parent("self"), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent("1"), Some(0));
        assert_eq!(parent("0"), None);
    }
}
