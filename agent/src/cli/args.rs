//! The command line's grammar. Man page and completions are generated from it too.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand};
use reverse_tunnel::{Destination, Forward, Server};

use crate::audit::Kind;
use crate::clock;

/// Opens SSH reverse tunnels from a charge controller: when the CSMS asks for one over OCPP, or a technician does here.
#[derive(Debug, Parser)]
#[command(name = "ocpp-tunnel", version, max_term_width = 100, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// The configuration file [default: /etc/ocpp-tunnel/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent in the foreground, until SIGTERM
    Run,
    /// Open a tunnel, through the running agent or without one
    #[command(after_help = OPEN_EXAMPLES)]
    Open(Open),
    /// Close a tunnel, or all of them
    Close(Close),
    /// Show the tunnels and the OCPP link; exits 3 if a wanted tunnel isn't up, 10 if no agent runs
    Status(Status),
    /// Show what the running agent has logged last: 64 KB of it are kept in memory; exits 10 if no agent runs
    Logs(Logs),
    /// Show the audit records: who asked for what, and what became of it; without a running agent, too
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit(Audit),
    /// This device's SSH key
    #[command(subcommand)]
    Keys(Keys),
    /// The servers' keys: which are trusted, and by whom they were made so
    #[command(subcommand)]
    HostKeys(HostKeys),
    /// Look at each step to the server and the CSMS: what fails, and what to do about it. Changes nothing
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Check, show or reload the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

const CHECK_EXAMPLES: &str = "\
Examples:
  ocpp-tunnel check
  ocpp-tunnel check support@203.0.113.7
  ocpp-tunnel check --json

The exit code is that of the first step that fails: 1 clock, OCPP, local service; 5 policy; 6 DNS or TCP; 7 host key;
8 authentication; 9 forward refused, or open to everybody; 78 configuration or device key.";

const OPEN_EXAMPLES: &str = "\
Examples:
  ocpp-tunnel open support@203.0.113.7 --wait
  ocpp-tunnel open support@gw.example.com:2222 --script 2 --for 1h
  ocpp-tunnel open support@203.0.113.7 --forward 8443:192.168.1.20:443";

#[derive(Debug, Args)]
pub(super) struct Open {
    /// Where to: user@host[:port]; the only exact entry of policy.allow_destinations if absent
    pub(super) destination: Option<Destination>,
    /// Which script's service to publish
    #[arg(long, value_name = "N", conflicts_with = "forward")]
    pub(super) script: Option<u8>,
    /// What to publish instead; may be repeated
    #[arg(long, value_name = "[BIND:]PORT:HOST:PORT")]
    pub(super) forward: Vec<Forward>,
    /// For how long, such as 30m or 1h; as long as the policy allows if absent
    #[arg(long = "for", value_name = "TIME", value_parser = lifetime)]
    pub(super) lifetime: Option<Duration>,
    /// Return when the tunnel is up, or its first attempt failed
    #[arg(long)]
    pub(super) wait: bool,
    /// Where no agent runs: keep the tunnel in the background
    #[arg(long)]
    pub(super) background: bool,
    /// What --background starts.
    #[arg(long, hide = true)]
    pub(super) detached: bool,
}

#[derive(Debug, Args)]
pub(super) struct Close {
    /// 1, 2, … for a script's tunnel; t1, t2, … for another one
    #[arg(required_unless_present = "all")]
    pub(super) id: Option<String>,
    /// Close every tunnel
    #[arg(long, conflicts_with = "id")]
    pub(super) all: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Status {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Logs {
    /// Go on as new lines come
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Begin with the last N lines only
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) lines: Option<usize>,
}

const AUDIT_EXAMPLES: &str = "\
Examples:
  ocpp-tunnel audit --since 2h
  ocpp-tunnel audit --type tunnel-refused --type tunnel-requested -n 20
  ocpp-tunnel audit --json --since 2026-11-22T00:00:00Z
  ocpp-tunnel audit -f -n 0";

#[derive(Clone, Debug, Args)]
pub(super) struct Audit {
    /// Print the records as they were written, a line of JSON each
    #[arg(long)]
    pub(super) json: bool,
    /// Go on as new records come
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only records from this time on: 2h (ago), or as RFC 3339
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(super) since: Option<SystemTime>,
    /// Only records of this type; may be repeated
    #[arg(long = "type", value_name = "TYPE", value_parser = kind)]
    pub(super) kinds: Vec<Kind>,
    /// Begin with the last N of them only
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) lines: Option<usize>,
}

const INSTALL_EXAMPLES: &str = "\
Examples:
  ocpp-tunnel keys install support@203.0.113.7
  ocpp-tunnel keys install support@gw.example.com:2222 --print";

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Keys {
    /// Print the public key
    Show {
        /// As a line for the server's authorized_keys that allows nothing but our forwards
        #[arg(long)]
        authorized_keys: bool,
        /// In the form that dropbear's server understands
        #[arg(long, requires = "authorized_keys")]
        dropbear: bool,
    },
    /// Authorise this device on a server, by its account's password, which is asked for on the terminal
    #[command(after_help = INSTALL_EXAMPLES)]
    Install {
        /// The account: user@host[:port]
        destination: Destination,
        /// Connect to nobody, and print the line and what to do with it
        #[arg(long)]
        print: bool,
        /// Print the line in the form that dropbear's server understands
        #[arg(long, requires = "print")]
        dropbear: bool,
    },
    /// Take this device's key off a server again, by its account's password
    Remove {
        /// The account: user@host[:port]
        destination: Destination,
        /// Connect to nobody, and print what to remove
        #[arg(long)]
        print: bool,
    },
    /// Change to a new key: both are offered until every server has taken the new one. Prints the line to authorise
    Rotate {
        /// Give the new key up and stay with the old one
        #[arg(long)]
        abort: bool,
        /// Change over now, also where a server still needs the old key
        #[arg(long, conflicts_with = "abort")]
        finish: bool,
        /// Print the line in the form that dropbear's server understands
        #[arg(long, conflicts_with_all = ["abort", "finish"])]
        dropbear: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct Check {
    /// The server: user@host[:port]; the only exact entry of policy.allow_destinations if absent, or else none
    pub(super) destination: Option<Destination>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum HostKeys {
    /// Show every pinned and every learned key
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the keys that a server has, without logging in; exits 7 if one contradicts what is known
    Scan {
        /// The server; an IPv6 address in brackets
        #[arg(value_name = "HOST[:PORT]")]
        server: Server,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Scan a server and learn its keys, after you have compared their fingerprints
    Trust {
        /// The server; an IPv6 address in brackets
        #[arg(value_name = "HOST[:PORT]")]
        server: Server,
        /// Learn the key with this fingerprint and no other, without asking; may be repeated
        #[arg(long, value_name = "SHA256:FINGERPRINT", value_parser = fingerprint)]
        fingerprint: Vec<String>,
    },
    /// Forget the learned keys of a server
    Remove {
        /// The server; an IPv6 address in brackets
        #[arg(value_name = "HOST[:PORT]")]
        server: Server,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the configuration and the files that it names
    Check,
    /// Print the configuration with all defaults and without secrets
    Show,
    /// Have the running agent read its configuration again; exits 78 if that has a mistake, and changes nothing then
    Reload,
}

/// At least a second: a tunnel that ends at once helps nobody.
fn lifetime(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 30m or 1h"))?;
    if duration < Duration::from_secs(1) {
        return Err("it must be at least 1s".into());
    }
    Ok(duration)
}

/// So long ago, or that moment.
fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(moment) = humantime::parse_rfc3339_weak(text) {
        return Ok(moment);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "write a time like 2h or 3days, or 2026-11-22T06:00:00Z".to_owned())?;
    clock::now().checked_sub(ago).ok_or_else(|| "that is before all records".into())
}

fn kind(text: &str) -> Result<Kind, String> {
    let words = || Kind::ALL.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", ");
    Kind::from_word(text).ok_or_else(|| format!("there is no such type; there are {}", words()))
}

/// As `ssh-keygen -l` prints it: a SHA-256 hash in Base64 without padding.
fn fingerprint(text: &str) -> Result<String, String> {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    match text.strip_prefix("SHA256:") {
        Some(hash) if hash.len() == 43 && hash.chars().all(is_base64) => Ok(text.to_owned()),
        _ => Err("write SHA256: and 43 characters, as `ssh-keygen -l` prints them".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        let good = "SHA256:bPGahMcWimQBTdksNSUoI+j8Sfbbx1OSgE7hHiSDBTg";
        assert_eq!(fingerprint(good).as_deref(), Ok(good));
        for bad in ["", "SHA256:", &good[7..], &format!("{good}="), &good.replace("SHA256", "MD5")] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_configuration_may_stand_before_or_after_the_command() {
        for line in [["ocpp-tunnel", "--config", "/c", "status"], ["ocpp-tunnel", "status", "--config", "/c"]]
        {
            assert_eq!(Arguments::try_parse_from(line).unwrap().config, Some("/c".into()));
        }
    }
}
