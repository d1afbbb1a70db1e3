//! The reference pages have every word that the product can say.
#![allow(clippy::expect_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ocpp_bridge::{LinkFault, LinkState};
use ocpp_tunnel::advice;
use ocpp_tunnel::audit::Kind;
use ocpp_tunnel::policy::Refusal;
use ocpp_tunnel::supervisor::TunnelId;
use ocpp_tunnel_tests::page;
use ocpp_tunnel_tests::process::run;
use reverse_tunnel::{Destination, FailureKind, HostKeyFault, Reason, State};
use tokio::process::Command;

const TROUBLES: &str = "docs/troubleshooting.md";

#[test]
fn each_audit_record_has_its_row() {
    let rows: Vec<Vec<String>> = page::rows("docs/audit.md")
        .into_iter()
        .filter(|row| row.first().is_some_and(|cell| cell.parse::<u16>().is_ok()))
        .collect();
    let documented: Vec<Vec<&str>> =
        rows.iter().map(|row| row.iter().take(3).map(|cell| cell.trim_matches('`')).collect()).collect();
    let there: Vec<[String; 3]> = Kind::ALL
        .iter()
        .map(|kind| [(*kind as u16).to_string(), kind.word().to_owned(), kind.category().word().to_owned()])
        .collect();
    assert_eq!(documented, there);
}

/// Every value, and a match that doesn't compile when there is one more.
macro_rules! all {
    ($kind:ident: $($value:ident),*) => {{
        let _ = |value: $kind| match value {
            $($kind::$value => (),)*
        };
        [$($kind::$value),*]
    }};
}

#[test]
fn each_state_and_reason_is_explained() {
    let first: BTreeSet<String> = page::rows(TROUBLES)
        .iter()
        .flat_map(|row| page::quoted(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let reasons = all!(Reason: User, Ocpp, Support, Expired, Idle, Shutdown, Policy, HostKeyMismatch, AuthDenied,
        ForwardRefused, Replaced, DataCap);
    let links = all!(LinkState: Waiting, Connecting, Booting, Accepted, Pending, Rejected, Backoff);
    let states = {
        use State::*;
        let _ = |state| match state {
            Idle | Waiting | Resolving | Connecting | Verifying | Authenticating | Forwarding | Up
            | Backoff | Closed(_) => (),
        };
        [
            Idle,
            Waiting,
            Resolving,
            Connecting,
            Verifying,
            Authenticating,
            Forwarding,
            Up,
            Backoff,
            Closed(Reason::User),
        ]
    };
    let words = reasons.iter().map(|reason| reason.word().to_owned());
    let words = words.chain(states.iter().map(|state| state.word().to_owned()));
    for word in words.chain(links.iter().map(|link| format!("{link:?}").to_lowercase())) {
        assert!(first.contains(&word), "{TROUBLES} doesn't explain {word}");
    }
}

#[test]
fn each_cure_is_in_the_page() {
    let server: Destination = "support@support.example.com".parse().expect("it is a destination");
    let faults = all!(HostKeyFault: Changed, Pinned, Unknown, Revoked, Certificate, Clock, File);
    let kinds = {
        use FailureKind::*;
        let _ = |kind| match kind {
            Key | Dns | Tcp | Proxy | ProxyAuth | Handshake | HostKey(_) | Auth | Forward | Lost => (),
        };
        [Key, Dns, Tcp, Proxy, ProxyAuth, Handshake, Auth, Forward, Lost]
    };
    let kinds = kinds.into_iter().chain(faults.map(FailureKind::HostKey));
    let mut cures: Vec<String> = kinds.map(|kind| advice::for_failure(kind, &server).into_owned()).collect();
    let links = all!(LinkFault: Dns, Network, Certificate, TlsVersion, Tls, Credentials, Unknown, Unavailable, Protocol);
    cures.extend(links.map(|fault| advice::for_link_fault(fault).to_owned()));
    let hour = Duration::from_secs(3600);
    let malformed = "u".parse::<Destination>().expect_err("it has no host");
    let refusals = [
        Refusal::Malformed(malformed),
        Refusal::ShuttingDown,
        Refusal::Disabled("/etc/ocpp-tunnel/disabled".into()),
        Refusal::LinkProfile { link: 1, minimum: 2 },
        Refusal::NotAllowed(server),
        Refusal::TooMany { limit: 10, again_in: Duration::from_secs(300) },
        Refusal::TooMany { limit: 0, again_in: hour },
        Refusal::TooLong { asked: hour * 2, most: hour },
        Refusal::NoSuchScript(7),
        Refusal::NoDestination,
        Refusal::DataCap { cap: 500_000_000 },
        Refusal::TooManyTunnels(16),
        Refusal::Held { remote: "1111".parse().expect("it is a port"), by: TunnelId::Slot(1) },
    ];
    let _ = |refusal| match refusal {
        Refusal::Malformed(_)
        | Refusal::ShuttingDown
        | Refusal::Disabled(_)
        | Refusal::LinkProfile { .. }
        | Refusal::NotAllowed(_)
        | Refusal::TooMany { .. }
        | Refusal::TooLong { .. }
        | Refusal::NoSuchScript(_)
        | Refusal::NoDestination
        | Refusal::DataCap { .. }
        | Refusal::TooManyTunnels(_)
        | Refusal::Held { .. } => (),
    };
    cures.extend(refusals.iter().map(Refusal::cure));
    let cells: Vec<String> = page::rows(TROUBLES).into_iter().flatten().collect();
    for cure in cures {
        assert!(cells.contains(&cure), "{TROUBLES} has no cell with: {cure}");
    }
    // What they say, but for those whose text is about the value or about somebody's destination.
    let said =
        refusals.iter().filter(|refusal| !matches!(refusal, Refusal::Malformed(_) | Refusal::NotAllowed(_)));
    for text in said.map(ToString::to_string) {
        assert!(
            cells.contains(&format!("`{text}`")) || text.starts_with("0 tunnels"),
            "{TROUBLES} has no {text}"
        );
    }
}

#[test]
fn each_warning_and_error_of_the_log_is_in_the_page() {
    let rows = page::rows(TROUBLES);
    let known: BTreeSet<&str> = rows.iter().flat_map(|row| page::quoted(&row[0])).collect();
    let mut there = BTreeSet::new();
    for source in ["agent/src", "tunnel/src", "ocpp-bridge/src"] {
        for file in rust_files(&page::root().join(source)) {
            let text = std::fs::read_to_string(&file).expect("it is there");
            there.extend(events(&text));
        }
    }
    assert!(there.len() > 60, "the sources aren't read as they should be: {there:?}");
    let missing: Vec<&String> = there.iter().filter(|event| !known.contains(event.as_str())).collect();
    assert!(missing.is_empty(), "{TROUBLES} doesn't have {missing:?}");
}

/// The names of events in `tracing::warn!(…)` and `tracing::error!(…)`: the last text of each.
fn events(source: &str) -> Vec<String> {
    let calls = source.split("tracing::").skip(1);
    let calls = calls.filter_map(|call| call.strip_prefix("warn!(").or_else(|| call.strip_prefix("error!(")));
    let names = calls.filter_map(|call| {
        let (arguments, _) = call.split_once("\")")?;
        arguments.rsplit_once('"').map(|(_, name)| name.to_owned())
    });
    names.filter(|name| !name.contains('{')).collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the sources are there").flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(rust_files(&path)),
            path if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            _ => {}
        }
    }
    files
}

#[tokio::test]
async fn each_command_that_a_page_names_is_one() {
    let mut seen = BTreeSet::new();
    for page in page::pages() {
        let text = page::text(&page);
        let prose: String = text.split("```").step_by(2).collect();
        for span in page::quoted(&prose) {
            let Some(line) = span.strip_prefix("ocpp-tunnel ") else { continue };
            if seen.insert(line.to_owned()) {
                let words = line.replace(['[', ']'], "");
                let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
                let mut known: Vec<&str> = words.split_whitespace().take_while(is_word).collect();
                // Up to the first value, and without the option that it is for.
                if words.split_whitespace().nth(known.len()).is_some() {
                    known.pop_if(|last| last.starts_with('-'));
                }
                let mut command = Command::new(binary());
                command.args(known).arg("--help");
                let done = run(&mut command, "").await;
                assert_eq!(done.code, Some(0), "{page}: `{span}`: {}", done.stderr);
            }
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

fn binary() -> PathBuf {
    ocpp_tunnel_tests::agent::Agent::beside("ocpp-tunnel")
}

#[test]
fn each_link_leads_to_a_file_and_to_a_heading_in_it() {
    let others = ["SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "ARCHITECTURE.md", "cross/README.md"];
    for page in page::pages().into_iter().chain(others.map(String::from)) {
        let text = page::text(&page);
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let directory = page::root().join(&page).parent().map(Path::to_owned).unwrap_or_default();
            let target = if file.is_empty() { page::root().join(&page) } else { directory.join(file) };
            assert!(target.exists(), "{page}: {link} leads nowhere");
            if !heading.is_empty() {
                let there = std::fs::read_to_string(&target).expect("it can be read");
                assert!(headings(&there).contains(heading), "{page}: {link}: there is no such heading");
            }
        }
    }
}

/// The anchors of a page's headings, as they are made from their text.
fn headings(text: &str) -> BTreeSet<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let titles =
        prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |title: &str| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    titles.map(anchor).collect()
}
