//! The command line's grammar. Manual page and completions are generated from it too.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use reverse_tunnel::{Destination, Forward, Server};

use super::help;
use crate::audit::Kind;
use crate::clock;

/// Opens SSH reverse tunnels from a charge controller, on request
#[derive(Debug, Parser)]
#[command(name = "ocpp-tunnel", version, disable_help_subcommand = true, after_help = help::BEGIN, after_long_help = help::PROGRAM)]
pub(super) struct Arguments {
    /// Configuration [default: /etc/ocpp-tunnel/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent in the foreground, until SIGTERM
    #[command(after_help = help::RUN)]
    Run,
    /// Open a tunnel, through the running agent or without one
    #[command(after_help = help::OPEN)]
    Open(Open),
    /// Close a tunnel, or all of them
    #[command(after_help = help::CLOSE)]
    Close(Close),
    /// Show the tunnels and the OCPP link: what is up, and why not
    #[command(after_help = help::STATUS)]
    Status(Status),
    /// This device's SSH key: show, install on a server, change
    #[command(subcommand, after_help = help::KEYS)]
    Keys(Keys),
    /// The servers' keys: which are trusted, and who says so
    #[command(subcommand, after_help = help::HOST_KEYS)]
    HostKeys(HostKeys),
    /// Look at each step to the server and the CSMS; changes nothing
    #[command(after_help = help::CHECK)]
    Check(Check),
    /// Show what the running agent has logged last
    #[command(after_help = help::LOGS)]
    Logs(Logs),
    /// Show the audit records: who asked for what, and what came of it
    #[command(after_help = help::AUDIT)]
    Audit(Audit),
    /// Check, show or reload the configuration
    #[command(subcommand, after_help = help::CONFIG)]
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
pub(super) struct Open {
    /// Where to; if absent, the only exact entry of policy.allow_destinations
    #[arg(value_name = "USER@HOST[:PORT]")]
    pub(super) destination: Option<Destination>,
    /// The script whose service is published
    #[arg(long, value_name = "N", conflicts_with = "forward", value_parser = number::<u8>)]
    pub(super) script: Option<u8>,
    /// What to publish instead of a script's service; may be repeated
    #[arg(long, value_name = "[BIND:]PORT:HOST:PORT")]
    pub(super) forward: Vec<Forward>,
    /// For how long, such as 30m or 1h; if absent, as long as the policy allows
    #[arg(long = "for", value_name = "TIME", value_parser = lifetime)]
    pub(super) lifetime: Option<Duration>,
    /// Return when the tunnel is up, or its first attempt failed
    #[arg(long)]
    pub(super) wait: bool,
    /// Where no agent runs, keep the tunnel in the background
    #[arg(long)]
    pub(super) background: bool,
    /// What --background starts.
    #[arg(long, hide = true)]
    pub(super) detached: bool,
}

#[derive(Debug, Args)]
pub(super) struct Close {
    /// 1, 2, … for a script's tunnel; t1, t2, … for another one
    pub(super) id: Option<String>,
    /// Close every tunnel
    #[arg(long, conflicts_with = "id")]
    pub(super) all: bool,
    /// Don't ask, even if it carries your own login
    #[arg(short, long)]
    pub(super) yes: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Status {
    /// Print JSON; with --watch, a line for each change
    #[arg(long)]
    pub(super) json: bool,
    /// Go on, and show what changes
    #[arg(short, long)]
    pub(super) watch: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Logs {
    /// Go on as new lines come
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Begin with the last N lines only
    #[arg(short = 'n', long, value_name = "N", value_parser = number::<usize>)]
    pub(super) lines: Option<usize>,
}

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
    #[arg(long = "type", value_name = "TYPE", value_parser = kind(), hide_possible_values = true)]
    pub(super) kinds: Vec<Kind>,
    /// Begin with the last N of them only
    #[arg(short = 'n', long, value_name = "N", value_parser = number::<usize>)]
    pub(super) lines: Option<usize>,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Keys {
    /// Print the public key
    #[command(after_help = help::KEYS_SHOW)]
    Show {
        /// As a line for authorized_keys that allows nothing but our forwards
        #[arg(long)]
        authorized_keys: bool,
        /// In the form that dropbear's server understands
        #[arg(long, requires = "authorized_keys")]
        dropbear: bool,
    },
    /// Authorise this device on a server, by the account's password
    #[command(after_help = help::KEYS_INSTALL)]
    Install {
        /// The account on the server
        #[arg(value_name = "USER@HOST[:PORT]")]
        destination: Destination,
        /// Connect to nobody, and print the line and what to do with it
        #[arg(long)]
        print: bool,
        /// Print the line in the form that dropbear's server understands
        #[arg(long, requires = "print")]
        dropbear: bool,
    },
    /// Take this device's key off a server again, by the account's password
    #[command(after_help = help::KEYS_REMOVE)]
    Remove {
        /// The account on the server
        #[arg(value_name = "USER@HOST[:PORT]")]
        destination: Destination,
        /// Connect to nobody, and print what to remove
        #[arg(long)]
        print: bool,
    },
    /// Make a new key; both are offered until every server takes the new one
    #[command(after_help = help::KEYS_ROTATE)]
    Rotate {
        /// Give the new key up and stay with the old one
        #[arg(long)]
        abort: bool,
        /// Change over now, also where a server still needs the old key
        #[arg(long, conflicts_with = "abort")]
        finish: bool,
        /// Don't ask before a server is left that still needs the old key
        #[arg(short, long, requires = "finish")]
        yes: bool,
        /// Print the line in the form that dropbear's server understands
        #[arg(long, conflicts_with_all = ["abort", "finish"])]
        dropbear: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct Check {
    /// The server; if absent, the only exact entry of policy.allow_destinations
    #[arg(value_name = "USER@HOST[:PORT]")]
    pub(super) destination: Option<Destination>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum HostKeys {
    /// Show every pinned and every learned key
    #[command(after_help = help::HOST_KEYS_LIST)]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the keys that a server has, without logging in
    #[command(after_help = help::HOST_KEYS_SCAN)]
    Scan {
        /// The server; an IPv6 address in brackets
        #[arg(value_name = "HOST[:PORT]")]
        server: Server,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Scan a server and learn its keys, once you have compared them
    #[command(after_help = help::HOST_KEYS_TRUST)]
    Trust {
        /// The server; an IPv6 address in brackets
        #[arg(value_name = "HOST[:PORT]")]
        server: Server,
        /// Learn this key and no other, without asking; may be repeated
        #[arg(long, value_name = "SHA256:HASH", value_parser = fingerprint)]
        fingerprint: Vec<String>,
    },
    /// Forget the learned keys of a server
    #[command(after_help = help::HOST_KEYS_REMOVE)]
    Remove {
        /// The server; an IPv6 address in brackets
        #[arg(value_name = "HOST[:PORT]")]
        server: Server,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the configuration and the files that it names
    #[command(after_help = help::CONFIG_CHECK)]
    Check,
    /// Print the configuration with all defaults and without secrets
    #[command(after_help = help::CONFIG_SHOW)]
    Show,
    /// Have the running agent read its configuration again
    #[command(after_help = help::CONFIG_RELOAD)]
    Reload,
}

/// The error of `FromStr` names neither the value nor a cure.
fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "write a whole number, such as 1".to_owned())
}

/// At least a second: a tunnel that ends at once helps nobody.
fn lifetime(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "write a number and s, m, h or d, such as 30m, 1h or 1h30m".to_owned())?;
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

/// The words are told to clap, which suggests one for a mistyped one; so do the shells.
fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.word()))
        .try_map(|word| Kind::from_word(&word).ok_or("there is no such type"))
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
