//! The line for the server's `authorized_keys`, and the command that puts it there or takes it out again.

use reverse_tunnel::{Identity, Remote};

use crate::config::Slot;

/// What a server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenSsh,
    /// dropbear's server refuses a line with an option that it doesn't know, and knows none for listening.
    Dropbear,
}

const DROPBEAR_OPTIONS: &str = "no-pty,no-X11-forwarding,no-agent-forwarding,permitopen=\"localhost:9\"";

impl Dialect {
    /// As a server's version line tells it: `SSH-2.0-dropbear_2022.83`.
    pub(super) fn of_banner(banner: &str) -> Self {
        let software = banner.splitn(3, '-').nth(2).unwrap_or_default();
        if software.starts_with("dropbear") { Self::Dropbear } else { Self::OpenSsh }
    }
}

/// The whole line, with what the key may do before it.
pub(super) fn line(slots: &[Slot], identity: &Identity, dialect: Dialect) -> String {
    let options = match dialect {
        Dialect::Dropbear => DROPBEAR_OPTIONS.to_owned(),
        Dialect::OpenSsh => openssh_options(slots),
    };
    // The comment comes from the key's file, or is the charge point's name, and must not end the line.
    let public: String =
        identity.public_line().chars().filter(|c| *c == ' ' || c.is_ascii_graphic()).collect();
    format!("{options} {public}")
}

/// Type and key, which tell the line from others.
pub(super) fn key(identity: &Identity) -> String {
    identity.public_line().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

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

/// What is to be done with the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Install,
    Remove,
}

/// What the command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Added,
    /// The key was there already.
    Present,
    Removed,
    /// The key wasn't there.
    Absent,
}

/// The command that the server runs. It is always this text: what to do, the key and the line come as its input, where
/// nothing interprets them.
///
/// The account's own shell reads it first, so it is one line in single quotes with neither a quote nor an exclamation mark in it,
/// which every shell takes alike. Then it is POSIX shell, as BusyBox has it. The file is replaced as a whole, under a
/// lock, since chargers may share an account; where it is a link, what it leads to is replaced.
pub(super) const COMMAND: &str = concat!(
    "exec sh -c 'umask 077; cd || exit 1; ",
    "IFS= read -r task && IFS= read -r key && IFS= read -r line || exit 1; ",
    "f=.ssh/authorized_keys; ",
    "if [ $task = remove ] && [ ! -e $f ]; then echo ocpp-tunnel-absent; exit 0; fi; ",
    "mkdir -p .ssh && chmod 700 .ssh || exit 1; ",
    "l=.ssh/ocpp-tunnel.lock; i=0; ",
    "until mkdir $l 2>/dev/null; do ",
    "i=$((i+1)); ",
    "if [ $i -gt 10 ]; then echo \"somebody else changes the file; if not, rmdir $l\" >&2; exit 1; fi; ",
    "sleep 1; done; ",
    "trap \"rmdir $l\" 0; trap \"exit 1\" 1 2 13 15; ",
    "[ -e $f ] || : > $f || exit 1; ",
    "if [ -h $f ]; then f=$(readlink -f $f) || exit 1; fi; ",
    "n=$f.ocpp-tunnel; ",
    "there() { grep -v \"^[[:space:]]*#\" \"$f\" | grep -qF -e \"$key\"; }; ",
    "replace() { chmod 600 \"$n\" && mv -f \"$n\" \"$f\" && return 0; rm -f \"$n\"; exit 1; }; ",
    "case $task in ",
    "install) if there; then chmod 600 \"$f\" && echo ocpp-tunnel-present; else ",
    "{ cat \"$f\" && { [ -z \"$(tail -c 1 \"$f\")\" ] || echo; } && printf \"%s\\n\" \"$line\"; } > \"$n\" ",
    "|| { rm -f \"$n\"; exit 1; }; ",
    "replace && echo ocpp-tunnel-added; fi ;; ",
    "remove) if there; then grep -vF -e \"$key\" \"$f\" > \"$n\"; ",
    "if [ $? -gt 1 ]; then rm -f \"$n\"; exit 1; fi; ",
    "replace && echo ocpp-tunnel-removed; else echo ocpp-tunnel-absent; fi ;; ",
    "*) exit 1 ;; esac'",
);

/// That command's input.
pub(super) fn input(task: Task, key: &str, line: &str) -> String {
    let word = match task {
        Task::Install => "install",
        Task::Remove => "remove",
    };
    format!("{word}\n{key}\n{line}\n")
}

/// What it did, by its output, in which the account may have said something before.
pub(super) fn done(stdout: &[u8]) -> Option<Done> {
    String::from_utf8_lossy(stdout).lines().find_map(|line| match line.trim() {
        "ocpp-tunnel-added" => Some(Done::Added),
        "ocpp-tunnel-present" => Some(Done::Present),
        "ocpp-tunnel-removed" => Some(Done::Removed),
        "ocpp-tunnel-absent" => Some(Done::Absent),
        _ => None,
    })
}

#[cfg(test)]
#[path = "authorized_keys_tests.rs"]
mod tests;
