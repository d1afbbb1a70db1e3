//! `cargo demo`: the main story, played on one machine with nothing installed.
//!
//! The agent is the real binary. Everything around it is built in: a CSMS ([`csms`]), an SSH server for tunnels
//! ([`ssh_server`]), and what would run on the charge controller ([`controller`]). [`story`] plays, [`screen`] prints.
//! With `--keep` it all stays up until Ctrl-C.

mod agent;
mod controller;
mod csms;
mod screen;
mod ssh_server;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use screen::Screen;
use story::Story;
use tokio::signal::unix::{SignalKind, signal};

/// Nobody tells the demo's failures apart: they are printed.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long any single thing may take.
const PATIENCE: Duration = Duration::from_secs(20);

const USAGE: &str = "usage: cargo demo [-- --keep]

Plays how a CSMS opens reverse tunnels to a charge controller over OCPP.
  --keep   leave it all up until Ctrl-C, and say what to try";

fn main() -> ExitCode {
    let screen = Screen::new();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--keep"] => true,
        ["--help" | "-h"] => {
            screen.line(USAGE);
            return ExitCode::SUCCESS;
        }
        _ => {
            screen.failure(USAGE);
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            screen.failure(&format!("the demo cannot start: {why}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(play(screen, keep))
}

async fn play(mut screen: Screen, keep: bool) -> ExitCode {
    let mut story = match Story::prepare(&screen).await {
        Ok(story) => story,
        Err(why) => {
            screen.failure(&format!("The demo cannot begin: {why}"));
            return ExitCode::FAILURE;
        }
    };
    let played = tokio::select! {
        played = story.play(&mut screen, keep) => played,
        // With --keep, the story has its own use for it.
        () = interrupted(), if !keep => {
            screen.failure("Interrupted.");
            return ExitCode::from(130);
        }
    };
    let Err(why) = played else { return ExitCode::SUCCESS };
    screen.failure(&format!("That went wrong: {why}"));
    screen.line("The agent's log:");
    screen.output(&story.agent_log(), usize::MAX);
    ExitCode::FAILURE
}

/// Waits for Ctrl-C, or for another signal that wants the demo to end: the agent mustn't be left behind.
pub(crate) async fn interrupted() {
    let (Ok(mut terminate), Ok(mut hang_up)) =
        (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}

/// Awaits something that may not take for ever.
pub(crate) async fn within<T>(what: &str, something: impl Future<Output = T>) -> Result<T> {
    let done = tokio::time::timeout(PATIENCE, something).await;
    done.map_err(|_| format!("waited {} s in vain for {what}", PATIENCE.as_secs()).into())
}
