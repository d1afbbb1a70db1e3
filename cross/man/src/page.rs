//! The manual page: one for the whole program, as its users look for it, with a part for each command.
//!
//! What the grammar says is taken from there: synopsis, options, examples, exit codes. What only a manual needs stands here.

use clap::{Arg, Command};
use roff::{Inline, Roff, bold, italic, roman};

/// Files that a reader may look for.
const FILES: [(&str, &str); 8] = [
    ("/etc/ocpp-tunnel/config.toml", "The configuration. Another file is named with --config."),
    (
        "/etc/ocpp-tunnel/config.d/*.toml",
        "Merged over it in the order of their names, for what differs between devices.",
    ),
    (
        "/etc/ocpp-tunnel/disabled",
        "While this file exists nothing is opened, whoever asks, and what is open closes (policy.disable_file).",
    ),
    ("/var/lib/ocpp-tunnel/id_ed25519", "This device's SSH key, made at the first start."),
    ("/var/lib/ocpp-tunnel/known_hosts", "The servers' keys that were learned."),
    ("/var/lib/ocpp-tunnel/audit/", "The audit records."),
    (
        "/run/ocpp-tunnel/control.sock",
        "The socket through which these commands speak to the agent. Whoever may connect to it may command the agent: its \
         owner, root and the group ocpp-tunnel.",
    ),
    (
        "custom_script1.sh, custom_script2.sh",
        "Symlinks to this program, wherever the controller looks for them.",
    ),
];

const ENVIRONMENT: [(&str, &str); 4] = [
    ("NO_COLOR", "If it is set to anything but the empty text, nothing is coloured."),
    (
        "TERM",
        "If it is dumb or not set, there is no progress line, and status --watch writes block after block.",
    ),
    (
        "SSH_CONNECTION",
        "Set by the SSH server of the controller; close uses it to notice that it would close the tunnel of its own shell.",
    ),
    (
        "OCPP_TUNNEL_CONFIG",
        "The configuration file for custom_script1.sh and its like, which take no option.",
    ),
];

const DESCRIPTION: [&str; 3] = [
    "On a charge controller behind NAT, the agent opens outbound SSH connections to a server and publishes local services there, \
     such as the controller's SSH and its web pages. The CSMS asks for such a tunnel over OCPP 1.6J (ChangeConfiguration of \
     InvokeCustomScript1), as far as policy.allow_destinations lets it; a technician on the controller does so with open.",
    "ocpp-tunnel run is the agent. The other commands speak to it through its control socket, or do without it where they can. \
     Started as root, they become the owner of state_dir before they touch anything there.",
    "Called as custom_scriptN.sh, the program opens the tunnel of script N, with user@host[:port] as its only \
    argument. It returns at once, with status 0 whatever happens, and tells in syslog what it did.",
];

/// The whole page.
pub(super) fn render(mut definition: Command, date: &str) -> String {
    definition.build();
    let name = definition.get_name().to_owned();
    let mut page = Roff::new();
    // An argument without a character would not be one.
    let date = if date.is_empty() { " " } else { date };
    let version = definition.get_version().unwrap_or_default().to_owned();
    page.control("TH", [&*name.to_uppercase(), "1", date, &format!("{name} {version}"), "User Commands"]);

    // Neither stretched lines nor broken words: most of it is options.
    page.control("ad", ["l"]);
    page.control("nh", []);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {}", about(&definition)))]);

    page.control("SH", ["SYNOPSIS"]);
    let leaves = leaves(&definition);
    for (place, command) in leaves.iter().enumerate() {
        if place > 0 {
            page.control("br", []);
        }
        page.text(synopsis(command));
    }
    page.control("br", []);
    page.text([bold("custom_script1.sh"), roman(" "), italic("user@host[:port]")]);

    page.control("SH", ["DESCRIPTION"]);
    for paragraph in DESCRIPTION {
        paragraphs(&mut page, paragraph);
    }

    page.control("SH", ["OPTIONS"]);
    options(&mut page, definition.get_arguments());

    page.control("SH", ["COMMANDS"]);
    for command in &leaves {
        page.control("SS", [command.get_bin_name().unwrap_or_default()]);
        page.text(synopsis(command));
        paragraphs(&mut page, &long_about(command));
        options(&mut page, command.get_arguments().filter(|argument| !is_common(argument)));
        after_help(&mut page, command, |page, heading| {
            page.control("PP", []);
            page.text([roman(format!("{heading}:"))]);
        });
    }

    // Examples, exit codes and where to begin stand in the program's own help.
    after_help(&mut page, &definition, |page, heading| {
        page.control("SH", [if heading == "Exit codes" { "EXIT STATUS" } else { "EXAMPLES" }]);
    });
    for (heading, entries) in [("FILES", &FILES[..]), ("ENVIRONMENT", &ENVIRONMENT)] {
        page.control("SH", [heading]);
        for (term, text) in entries {
            page.control("TP", []);
            page.text([bold(*term)]);
            page.text([roman(*text)]);
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("ssh"),
        roman("(1), "),
        bold("sshd_config"),
        roman("(5), "),
        bold("authorized_keys"),
        roman("(5)"),
    ]);
    page.control("PP", []);
    page.text([roman("The documentation, which packages install below /usr/share/doc/ocpp-tunnel.")]);
    page.to_roff()
}

/// Every command that does something, in the order of the help.
fn leaves(command: &Command) -> Vec<&Command> {
    let mut found = Vec::new();
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        if command.has_subcommands() {
            found.extend(leaves(command));
        } else {
            found.push(command);
        }
    }
    found
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn long_about(command: &Command) -> String {
    command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default()
}

/// `--config`, `--help` and `--version`, which are told of once.
fn is_common(argument: &Arg) -> bool {
    argument.is_global_set() || matches!(argument.get_id().as_str(), "help" | "version")
}

/// The command in bold, and what it takes.
fn synopsis(command: &Command) -> Vec<Inline> {
    let mut line = vec![bold(command.get_bin_name().unwrap_or_default())];
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set() && !is_common(argument))
    {
        let (open, close) = if argument.is_required_set() { ("", "") } else { ("[", "]") };
        line.push(roman(format!(" {open}")));
        line.extend(term(argument, argument.get_long().is_none()));
        line.push(roman(close));
        if matches!(argument.get_action(), clap::ArgAction::Append) {
            line.push(roman("..."));
        }
    }
    line
}

/// `--option VALUE`, with the short form before it if `short` says so; or the name of an argument.
fn term(argument: &Arg, short: bool) -> Vec<Inline> {
    let mut term = Vec::new();
    if let Some(letter) = argument.get_short().filter(|_| short) {
        term.push(bold(format!("-{letter}")));
    }
    if let Some(long) = argument.get_long() {
        if !term.is_empty() {
            term.push(roman(", "));
        }
        term.push(bold(format!("--{long}")));
    }
    if argument.is_positional() || argument.get_action().takes_values() {
        let names = argument.get_value_names().unwrap_or_default();
        let names = names.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" ");
        if !term.is_empty() {
            term.push(roman(" "));
        }
        term.push(italic(names));
    }
    term
}

fn options<'a>(page: &mut Roff, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments.filter(|argument| !argument.is_hide_set()) {
        page.control("TP", []);
        page.text(term(argument, true));
        let help = argument.get_long_help().or(argument.get_help());
        page.text([roman(one_line(&help.map(ToString::to_string).unwrap_or_default()))]);
        if !argument.is_positional() && argument.get_action().takes_values() {
            let values: Vec<String> =
                argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            if !values.is_empty() {
                page.control("RS", []);
                page.control("PP", []);
                page.text([roman(format!("One of: {}.", values.join(", ")))]);
                page.control("RE", []);
            }
        }
    }
}

fn paragraphs(page: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        page.control("PP", []);
        page.text([roman(one_line(paragraph))]);
    }
}

/// Blocks of a help's end: a heading with a colon and indented lines, which stay as they are, or a paragraph.
fn after_help(page: &mut Roff, command: &Command, mut heading: impl FnMut(&mut Roff, &str)) {
    let text = command.get_after_long_help().or(command.get_after_help());
    let text = text.map(ToString::to_string).unwrap_or_default();
    for block in text.split("\n\n").filter(|block| !block.is_empty()) {
        let Some((first, lines)) = block.split_once(":\n").filter(|(first, _)| !first.contains('\n')) else {
            paragraphs(page, block);
            continue;
        };
        heading(page, first);
        page.control("PP", []);
        page.control("nf", []);
        for line in lines.lines() {
            page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        page.control("fi", []);
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
