//! `ocpp-tunnel open`: through the running agent; without one, this process becomes the agent of one tunnel.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use reverse_tunnel::{Reason, State};

use super::args::Open;
use super::words::{opened, remark, say, unexpected};
use super::{block_on, leave_root, load};
use crate::advice;
use crate::agent::{Agent, Purpose};
use crate::config::Config;
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Answer, Problem, Request};
use crate::control::server::problem_of;
use crate::exit::Exit;
use crate::journal::{self, Stderr};
use crate::limits::BACKGROUND_START;
use crate::supervisor::{OpenRequest, Source, TunnelId, View, What};

pub(super) fn main(path: &Path, open: Open) -> Result<Exit, Problem> {
    let config = load(path)?;
    if !open.detached {
        match ask(&config.control_socket(), &request(&open)) {
            Err(ClientError::NoAgent) if open.background => return in_background(path, &config, &open),
            Err(ClientError::NoAgent) => {}
            result => return answered(&config, result),
        }
    }
    alone(&config, &open)
}

/// The request that this command line stands for.
pub(super) fn request(open: &Open) -> Request {
    Request::Open {
        destination: open.destination.as_ref().map(ToString::to_string),
        script: open.script,
        forwards: open.forward.iter().map(ToString::to_string).collect(),
        lifetime: open.lifetime.map(|lifetime| lifetime.as_secs()),
        wait: open.wait,
    }
}

fn answered(config: &Config, result: Result<Answer, ClientError>) -> Result<Exit, Problem> {
    match result.map_err(|error| error.to_problem(&config.control_socket()))? {
        Answer::Opened { id, server, state, forwards } => {
            say(&opened(&id, &server, &state, &forwards));
            if state != "up" {
                remark("It is being opened; see `ocpp-tunnel status`.");
            }
            Ok(Exit::Ok)
        }
        Answer::Error(problem) => Err(problem),
        other => Err(unexpected(&other)),
    }
}

/// Becomes the agent of this one tunnel.
fn alone(config: &Config, open: &Open) -> Result<Exit, Problem> {
    journal::init(&config.log, Stderr::Nothing);
    leave_root(config)?;
    if open.detached {
        // The terminal that started us may close.
        nix::unistd::setsid().map_err(|error| {
            Problem::new(Exit::Error, format!("can't leave the terminal: {error}"), "try again")
        })?;
    }
    block_on(async {
        let mut agent = Agent::start(config, Purpose::OneTunnel)?;
        let id = match agent.supervisor().open(open_request(open)).await {
            Ok(id) => id,
            Err(refusal) => {
                agent.stop().await;
                return Err(problem_of(&refusal));
            }
        };
        if !open.detached {
            remark("No agent runs, so this process keeps the tunnel. Ctrl-C closes it.");
        }
        let exit = follow(&mut agent, id, open.detached).await;
        agent.stop().await;
        Ok(exit)
    })
}

fn open_request(open: &Open) -> OpenRequest {
    let what = match open.forward.as_slice() {
        [] => What::Script(open.script.unwrap_or(1)),
        forwards => What::Forwards(forwards.to_vec()),
    };
    let source = Source::Local { uid: Uid::current().as_raw(), pid: std::process::id().cast_signed() };
    OpenRequest { what, destination: open.destination.clone(), lifetime: open.lifetime, source }
}

/// Tells of each change until the tunnel ends or somebody wants it to.
async fn follow(agent: &mut Agent, id: TunnelId, quietly: bool) -> Exit {
    let mut views = agent.supervisor().views();
    let mut told = None;
    let mut asked = false;
    let mut ended = None;
    loop {
        let view = views.borrow_and_update().iter().find(|view| view.id == id).cloned();
        if let Some((state, text)) = view.as_ref().and_then(progress) {
            if told.as_ref() != Some(&text) && !quietly {
                say(&text);
            }
            told = Some(text);
            if let State::Closed(reason) = state {
                ended = Some(Exit::for_reason(reason));
            }
        }
        // Others may have been opened through our socket meanwhile; they are ours to keep.
        let anything_wanted = views.borrow().iter().any(|view| view.wanted.is_some());
        if let Some(exit) = ended.filter(|_| !anything_wanted) {
            return exit;
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return Exit::Error },
            () = agent.asked_to_stop(), if !asked => {
                asked = true;
                let source = Source::Local { uid: Uid::current().as_raw(), pid: std::process::id().cast_signed() };
                agent.supervisor().close(None, Reason::User, source).await;
            }
        }
    }
}

/// Where the tunnel stands, in a line or more; nothing for the steps in between.
fn progress(view: &View) -> Option<(State, String)> {
    let status = view.status.as_ref()?;
    let forwards: Vec<String> =
        status.forwards.iter().map(|forward| format!("{} -> {}", forward.remote, forward.local)).collect();
    let (id, server) = (view.id.to_string(), status.destination.to_string());
    let text = match status.state {
        State::Idle | State::Resolving => opened(&id, &server, "connecting", &[]),
        State::Up => opened(&id, &server, "up", &forwards),
        State::Backoff => {
            let error = status.last_error.as_ref()?;
            let wait = status.retry_at?.saturating_duration_since(status.since).as_secs();
            let state = format!("down: {error}\n  next try in {wait} s; {}", advice::for_failure(error.kind));
            opened(&id, &server, &state, &[])
        }
        State::Closed(reason) => match (&status.last_error, advice::for_reason(reason)) {
            (Some(error), Some(cure)) => {
                opened(&id, &server, &format!("closed ({reason}): {error}\n  try: {cure}"), &[])
            }
            _ => opened(&id, &server, &format!("closed ({reason})"), &[]),
        },
        _ => return None,
    };
    Some((status.state, text))
}

/// Starts this program once more, without a terminal, and returns when that one answers.
fn in_background(path: &Path, config: &Config, open: &Open) -> Result<Exit, Problem> {
    let mut child = spawn_detached(path, open)?;
    let deadline = Instant::now() + BACKGROUND_START;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(start_problem(child, status.code()));
        }
        // The child has opened its tunnel when it answers, so that asking for it again only waits for it.
        match ask(&config.control_socket(), &request(open)) {
            Err(ClientError::NoAgent) if Instant::now() < deadline => pause(),
            result => return answered(config, result),
        }
    }
}

/// Starts a process that keeps the tunnel of this command line after we have gone.
pub(super) fn spawn_detached(path: &Path, open: &Open) -> Result<Child, Problem> {
    let problem = |error: std::io::Error| {
        Problem::new(Exit::Error, format!("can't start in the background: {error}"), "leave out --background")
    };
    let program = std::env::current_exe().map_err(problem)?;
    let mut process = Process::new(program);
    // The program may have been called by a script's name, which decides what it does.
    process.arg0("ocpp-tunnel").arg("--config").arg(path).args(["open", "--detached"]);
    process.args(open.destination.iter().map(ToString::to_string));
    if let Some(script) = open.script {
        process.arg("--script").arg(script.to_string());
    }
    for forward in &open.forward {
        process.arg("--forward").arg(forward.to_string());
    }
    if let Some(lifetime) = open.lifetime {
        process.arg("--for").arg(format!("{}s", lifetime.as_secs()));
    }
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    process.spawn().map_err(problem)
}

/// What a child said that ended before it answered.
fn start_problem(child: Child, code: Option<i32>) -> Problem {
    let mut said = String::new();
    if let Some(stderr) = child.stderr {
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    let (text, cure) = said.trim().split_once("\n  try: ").unwrap_or((said.trim(), ""));
    let text = text.strip_prefix("ocpp-tunnel: ").unwrap_or(text);
    let exit = code.and_then(|code| u8::try_from(code).ok()).map_or(Exit::Error, Exit::from_code);
    Problem::new(if exit == Exit::Ok { Exit::Error } else { exit }, text, cure)
}

#[expect(clippy::disallowed_methods, reason = "no tunnel runs in this process")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
