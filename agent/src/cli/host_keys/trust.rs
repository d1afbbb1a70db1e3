//! `host-keys trust`: learns a server's keys after a person has compared their fingerprints, and never without.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use reverse_tunnel::{HostKeys, Route, Server};

use super::super::layout::for_stream;
use super::super::words::{self, remark};
use super::super::{block_on, record};
use super::scan::{Scanned, Trust, scan_server, show};
use super::{file_problem, pinned_remark};
use crate::agent::make_state_directory;
use crate::audit::{Kind, Outcome};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::limits::ANSWER_BYTES;

/// Somebody must vouch for the keys: by their fingerprints, or on a terminal.
pub(super) fn check_usage(server: &Server, fingerprints: &[String]) -> Result<(), Problem> {
    if !fingerprints.is_empty() || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Problem::new(
        Exit::Usage,
        "nobody can be asked whether the keys are right: this is no terminal",
        format!(
            "`ocpp-tunnel host-keys trust {server} --fingerprint SHA256:FINGERPRINT`, with what the server's operator told you"
        ),
    ))
}

pub(super) fn main(
    config: &Config,
    keys: &HostKeys,
    server: &Server,
    route: &Route,
    fingerprints: &[String],
) -> Result<Exit, Problem> {
    if let Some(place) = keys.pinned(server) {
        let text = format!("{}, so nothing is learned for it", pinned_remark(server, &place));
        return Err(Problem::new(Exit::HostKey, text, "change ssh.host_keys in the configuration"));
    }
    let scanned = block_on_scan(keys, server, route)?;
    show(server, &scanned);
    let chosen = choose(server, &scanned, fingerprints)?;
    if chosen.is_empty() {
        remark("They are trusted already.");
        return Ok(Exit::Ok);
    }
    if fingerprints.is_empty() && !confirmed()? {
        return Err(Problem::new(Exit::Error, "not trusted: you didn't say yes", "compare and try again"));
    }
    make_state_directory(config)?;
    let fingerprints: Vec<String> = chosen.iter().map(|key| key.shown.fingerprint()).collect();
    let chosen: Vec<_> = chosen.into_iter().map(|key| key.shown.key()).collect();
    let done = keys.trust(server, &chosen).map_err(|error| file_problem(&error))?;
    record(config, Kind::HostKeysTrusted, Outcome::Success, |record| {
        record.text("server", &server.to_string()).texts("host_keys", fingerprints)
    });
    words::show(&format!("learned {} of {server} in {}", count(done.added), keys.path().display()));
    Ok(Exit::Ok)
}

fn block_on_scan(keys: &HostKeys, server: &Server, route: &Route) -> Result<Vec<Scanned>, Problem> {
    let mut scanned = Vec::new();
    block_on(async {
        scanned = scan_server(keys, server, route).await?;
        Ok(Exit::Ok)
    })?;
    Ok(scanned)
}

/// The keys to learn: those with these fingerprints, or else all that aren't trusted yet. A key that something speaks
/// against is never among them.
fn choose<'a>(
    server: &Server,
    scanned: &'a [Scanned],
    fingerprints: &[String],
) -> Result<Vec<&'a Scanned>, Problem> {
    let is_named =
        |key: &&Scanned| fingerprints.is_empty() || fingerprints.contains(&key.shown.fingerprint());
    let named: Vec<&Scanned> = scanned.iter().filter(is_named).collect();
    let is_shown = |fingerprint: &&String| named.iter().any(|key| key.shown.fingerprint() == **fingerprint);
    if let Some(missing) = fingerprints.iter().find(|fingerprint| !is_shown(fingerprint)) {
        let text = format!("{server} showed no host key {missing}; nothing was learned");
        let cure = "ask the server's operator for the fingerprint; if it is right, somebody is in between";
        return Err(Problem::new(Exit::HostKey, text, cure));
    }
    for key in &named {
        let (text, cure) = match &key.trust {
            Trust::Trusted(_) | Trust::Unknown => continue,
            Trust::Changed(known) => (
                format!("{server} showed {}, known is {known}", key.shown.fingerprint()),
                format!("if the key was changed on purpose, `ocpp-tunnel host-keys remove {server}` first"),
            ),
            Trust::Revoked(place) => (
                format!("{server} showed the revoked host key {} ({place})", key.shown.fingerprint()),
                "give the server another host key".to_owned(),
            ),
            Trust::Refused(why) => (
                format!("{server} showed a certificate, but {why}"),
                "let the authority sign the server's key again".to_owned(),
            ),
        };
        return Err(Problem::new(Exit::HostKey, format!("{text}; nothing was learned"), cure));
    }
    Ok(named.into_iter().filter(|key| matches!(key.trust, Trust::Unknown)).collect())
}

fn confirmed() -> Result<bool, Problem> {
    let question =
        "Compare them with what the server's operator told you. Type yes to trust those that aren't yet: ";
    let question = for_stream(question, &io::stderr());
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    let mut answer = String::new();
    io::stdin().lock().take(ANSWER_BYTES).read_line(&mut answer).map_err(|error| {
        Problem::new(Exit::Error, format!("can't read the answer: {error}"), "use --fingerprint")
    })?;
    Ok(answer.trim() == "yes")
}

fn count(keys: usize) -> String {
    if keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") }
}
