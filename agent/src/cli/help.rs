//! What the help says below a command's options: what else there is to know, and examples.
//!
//! Blocks are apart by an empty line. A block whose first line ends with a colon stays as it is, line by line; another one is a
//! paragraph. The manual page is made of the same blocks.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::layout::{size, wrap};
use crate::exit::Exit;

/// Columns where nobody's terminal says more or less.
pub(super) const COLUMNS: usize = 80;
/// A help that is wider is hard to read.
const MOST_COLUMNS: usize = 100;

/// `help COMMAND`, as many programs have it, is `COMMAND --help`.
pub(super) fn asked_for(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    // The only option that stands before a command.
    let command = if words.get(1).is_some_and(|word| word == "--config") { 3 } else { 1 };
    if words.get(command).is_some_and(|word| word == "help") {
        words.remove(command);
        words.push("--help".into());
    }
    words
}

/// Shows the help that was asked for, or what is wrong with the command line.
pub(super) fn show(mut error: clap::Error) -> Exit {
    // An option that a command hasn't is no value that somebody wanted to pass.
    if let Some(ContextValue::StyledStrs(tips)) = error.get(ContextKind::Suggested)
        && tips.iter().any(|tip| tip.to_string().contains("as a value"))
    {
        error.remove(ContextKind::Suggested);
    }
    let text = error.to_string();
    // A closed terminal is no reason to fail differently.
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let columns = size(&io::stdout()).map_or(COLUMNS, |(columns, _)| columns.min(MOST_COLUMNS));
        let _ = writeln!(io::stdout(), "{}", wrap(text.trim_end(), columns, 0));
        return Exit::Ok;
    }
    let columns = size(&io::stderr()).map_or(COLUMNS, |(columns, _)| columns.min(MOST_COLUMNS));
    let hang = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand { 0 } else { 2 };
    let _ = writeln!(io::stderr(), "{}", wrap(harmless(&text).trim_end(), columns, hang));
    Exit::Usage
}

/// Characters of a line that quotes what was typed.
const QUOTED: usize = 200;

/// What was typed is quoted in the parser's words; it must neither steer the terminal nor flood a serial line.
fn harmless(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut shown = String::new();
        for c in line.chars().take(QUOTED) {
            match c.is_control() {
                true => shown.extend(c.escape_default()),
                false => shown.push(c),
            }
        }
        if line.chars().nth(QUOTED).is_some() {
            shown.push_str("...");
        }
        lines.push(shown);
    }
    lines.join("\n")
}

/// For whoever types the program's name alone.
pub(super) const BEGIN: &str = "\
Begin with:
  ocpp-tunnel status            is it up, and if not, why
  ocpp-tunnel check             each step to the server and the CSMS
  ocpp-tunnel open USER@HOST    open a tunnel now
  ocpp-tunnel COMMAND --help    more on each command, with examples";

/// The whole program's.
pub(super) const PROGRAM: &str = "\
Begin with:
  ocpp-tunnel status            is it up, and if not, why
  ocpp-tunnel check             each step to the server and the CSMS
  ocpp-tunnel open USER@HOST    open a tunnel now
  ocpp-tunnel logs -f           what the agent does meanwhile
  ocpp-tunnel COMMAND --help    more on each command, with examples

Exit codes:
  0   done; for status: what is wanted is up
  1   error
  2   wrong command line
  3   a wanted tunnel is not up
  4   not found: a tunnel, a script, a key, records
  5   refused by the policy
  6   DNS or TCP: the server is not reached
  7   the server's host key is not the trusted one
  8   the server refuses the login
  9   the server refuses to listen
  10  no agent answers
  11  it took too long
  78  the configuration or the device's key is wrong";

pub(super) const RUN: &str = "\
Service managers start this; the log goes to standard error, too. A second agent on the same runtime_dir exits 1 and names \
the first one's process; one on the same state_dir exits 1, too. SIGHUP reads the configuration again.

Examples:
  ocpp-tunnel run
  ocpp-tunnel --config ./test.toml run";

pub(super) const OPEN: &str = "\
Without --script or --forward it is script 1. Without a running agent this process keeps the tunnel itself until Ctrl-C, \
whatever --wait says, or in the background with --background; status and close work all the same.

The line of `keys show --authorized-keys` lets the key listen on the scripts' ports alone: for the port of a --forward, add a \
permitlisten to it on the server.

Examples:
  ocpp-tunnel open support@203.0.113.7 --wait
  ocpp-tunnel open support@gw.example.com:2222 --script 2 --for 1h
  ocpp-tunnel open support@203.0.113.7 --forward 8443:192.168.1.20:443";

pub(super) const CLOSE: &str = "\
A tunnel that carries your own login is closed only after you have said yes, since your session ends with it.

Examples:
  ocpp-tunnel close 1
  ocpp-tunnel close t1
  ocpp-tunnel close --all --yes";

pub(super) const STATUS: &str = "\
Exits 0 if every wanted tunnel is up or none is wanted, 3 if one isn't, 10 if no agent runs. With --watch it looks once a \
second and shows what has changed, until Ctrl-C.

Examples:
  ocpp-tunnel status
  ocpp-tunnel status --watch
  ocpp-tunnel status --json";

pub(super) const LOGS: &str = "\
The last 64 KB are kept in memory, and end with the agent. Exits 10 if no agent runs.

Examples:
  ocpp-tunnel logs -n 20
  ocpp-tunnel logs -f";

pub(super) const AUDIT: &str = "\
Works without a running agent, too.

Examples:
  ocpp-tunnel audit --since 2h
  ocpp-tunnel audit --type tunnel-refused --type tunnel-requested -n 20
  ocpp-tunnel audit --json --since 2026-11-22T00:00:00Z
  ocpp-tunnel audit -f -n 0";

pub(super) const KEYS: &str = "\
Examples:
  ocpp-tunnel keys show
  ocpp-tunnel keys install support@203.0.113.7
  ocpp-tunnel keys rotate";

pub(super) const KEYS_SHOW: &str = "\
Examples:
  ocpp-tunnel keys show
  ocpp-tunnel keys show --authorized-keys
  ocpp-tunnel keys show --authorized-keys --dropbear";

pub(super) const KEYS_INSTALL: &str = "\
Shows the server's fingerprint, asks for the password once on the terminal, adds one line to the account's \
authorized_keys and proves the login with the key. The password is neither shown nor kept.

Examples:
  ocpp-tunnel keys install support@203.0.113.7
  ocpp-tunnel keys install support@gw.example.com:2222 --print";

pub(super) const KEYS_REMOVE: &str = "\
Examples:
  ocpp-tunnel keys remove support@203.0.113.7
  ocpp-tunnel keys remove support@gw.example.com:2222 --print";

pub(super) const KEYS_ROTATE: &str = "\
Examples:
  ocpp-tunnel keys rotate
  ocpp-tunnel keys rotate --finish
  ocpp-tunnel keys rotate --abort";

pub(super) const HOST_KEYS: &str = "\
Examples:
  ocpp-tunnel host-keys scan gw.example.com:2222
  ocpp-tunnel host-keys trust gw.example.com:2222";

pub(super) const HOST_KEYS_LIST: &str = "\
Examples:
  ocpp-tunnel host-keys list
  ocpp-tunnel host-keys list --json";

pub(super) const HOST_KEYS_SCAN: &str = "\
Exits 7 if a key contradicts what is known.

Examples:
  ocpp-tunnel host-keys scan 203.0.113.7
  ocpp-tunnel host-keys scan [2001:db8::7]:2222 --json";

pub(super) const HOST_KEYS_TRUST: &str = "\
Examples:
  ocpp-tunnel host-keys trust 203.0.113.7
  ocpp-tunnel host-keys trust gw.example.com:2222 \\
      --fingerprint SHA256:bPGahMcWimQBTdksNSUoI+j8Sfbbx1OSgE7hHiSDBTg";

pub(super) const HOST_KEYS_REMOVE: &str = "\
Examples:
  ocpp-tunnel host-keys remove 203.0.113.7
  ocpp-tunnel host-keys remove gw.example.com:2222";

pub(super) const CHECK: &str = "\
Each line is ok, FAIL with what to do, or -- where nothing can be said. The exit code is that of the first step that \
fails: 1 clock, no SSH server, OCPP, local service; 5 policy; 6 DNS or TCP; 7 host key; 8 login; 9 forward refused, or open \
to everybody; 10 or 11 the agent doesn't answer; 78 configuration or device key.

Examples:
  ocpp-tunnel check
  ocpp-tunnel check support@203.0.113.7
  ocpp-tunnel check --json";

pub(super) const CONFIG: &str = "\
Examples:
  ocpp-tunnel config check
  ocpp-tunnel config show
  ocpp-tunnel config reload";

pub(super) const CONFIG_CHECK: &str = "\
Exits 78 if there is a mistake, and names its file, line and column.

Examples:
  ocpp-tunnel config check
  ocpp-tunnel config check --config ./new.toml";

pub(super) const CONFIG_SHOW: &str = "\
Examples:
  ocpp-tunnel config show
  ocpp-tunnel config show --config ./new.toml";

pub(super) const CONFIG_RELOAD: &str = "\
Says for each changed key whether it is in force. A file with a mistake changes nothing, and exits 78.

Examples:
  ocpp-tunnel config reload";
