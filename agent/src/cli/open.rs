//! `ocpp-tunnel open`: through the running agent; without one, this process becomes the agent of one tunnel.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use reverse_tunnel::forward::check_distinct;
use reverse_tunnel::{Reason, State};
use tokio::time::timeout;

use super::args::Open;
use super::progress::Progress;
use super::words::{opened, remark, show, unexpected};
use super::{block_on, leave_root, load};
use crate::advice;
use crate::agent::{Agent, Purpose, StartError};
use crate::config::Config;
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Answer, Problem, Request};
use crate::control::server::problem_of;
use crate::exit::Exit;
use crate::journal::{self, Stderr};
use crate::limits::{BACKGROUND_REQUEST, BACKGROUND_START, FORWARDS, START_RACE};
use crate::service::sandbox;
use crate::supervisor::{OpenRequest, Source, TunnelId, View, What};

pub(super) fn main(path: &Path, open: Open) -> Result<Exit, Problem> {
    // A usage error is found before any file is read.
    check_distinct(&open.forward)
        .map_err(|error| Problem::new(Exit::Usage, error.to_string(), "give each one a place of its own"))?;
    if open.forward.len() > FORWARDS {
        let text = format!("{} forwards, and a tunnel has at most {FORWARDS}", open.forward.len());
        return Err(Problem::new(Exit::Usage, text, "open a second tunnel for the others"));
    }
    let config = load(path)?;
    if open.detached {
        return detached(&config);
    }
    let deadline = Instant::now() + START_RACE;
    let mut progress = Progress::new();
    loop {
        if open.wait {
            progress.show("waiting for the tunnel");
        }
        let answer = ask(&config.control_socket(), &request(&open));
        progress.clear();
        match answer {
            Err(ClientError::NoAgent) if open.background => {
                return in_background(path, &config, &open).and_then(tell);
            }
            Err(ClientError::NoAgent) => match alone(&config, &open)? {
                Alone::Ended(exit) => return Ok(exit),
                // Somebody else has become the agent since, and will soon answer.
                Alone::Late(_) if Instant::now() < deadline => pause(),
                Alone::Late(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.to_problem(&config.control_socket())),
            Ok(answer) => return tell(answer),
        }
    }
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

fn tell(answer: Answer) -> Result<Exit, Problem> {
    match answer {
        Answer::Opened { id, server, state, forwards } => {
            show(&opened(&id, &server, &state, &forwards));
            if state != "up" {
                remark("It is being opened; see `ocpp-tunnel status`.");
            }
            Ok(Exit::Ok)
        }
        Answer::Error(problem) => Err(problem),
        other => Err(unexpected(&other)),
    }
}

/// What came of becoming the agent.
enum Alone {
    /// We were, and it is over.
    Ended(Exit),
    /// Another process was first.
    Late(StartError),
}

/// Becomes the agent of this one tunnel, unless another process does at the same time.
fn alone(config: &Config, open: &Open) -> Result<Alone, Problem> {
    journal::init(&config.log, Stderr::Nothing);
    leave_root(config)?;
    let sandbox = sandbox::enter(config);
    block_on(async {
        let mut agent = match Agent::start(config, sandbox, Purpose::OneTunnel) {
            Err(error) if error.is_late() => return Ok(Alone::Late(error)),
            agent => agent?,
        };
        let exit = match agent.supervisor().open(open_request(open)).await {
            Ok(id) => {
                remark("No agent runs, so this process keeps the tunnel. Ctrl-C closes it.");
                Ok(Alone::Ended(follow(&mut agent, id).await))
            }
            Err(refusal) => Err(problem_of(&refusal)),
        };
        agent.stop().await;
        exit
    })
}

/// Becomes the agent of the tunnel that the process which started us asks for through the control socket. Where another
/// process was first, that process is asked instead, and nothing is wrong.
fn detached(config: &Config) -> Result<Exit, Problem> {
    journal::init(&config.log, Stderr::Nothing);
    leave_root(config)?;
    // The terminal that started us may close.
    nix::unistd::setsid().map_err(|error| {
        Problem::new(Exit::Error, format!("can't leave the terminal: {error}"), "try again")
    })?;
    let sandbox = sandbox::enter(config);
    block_on(async {
        let mut agent = match Agent::start(config, sandbox, Purpose::OneTunnel) {
            Err(error) if error.is_late() => return Ok(Exit::Ok),
            agent => agent?,
        };
        let mut views = agent.supervisor().views();
        let anything_wanted = |views: &Vec<View>| views.iter().any(|view| view.wanted.is_some());
        let over = async {
            if timeout(BACKGROUND_REQUEST, views.wait_for(anything_wanted)).await.is_ok() {
                let _ = views.wait_for(|views| !anything_wanted(views)).await;
            }
        };
        tokio::select! {
            () = over => {}
            () = agent.asked_to_stop() => {}
        }
        agent.stop().await;
        Ok(Exit::Ok)
    })
}

fn open_request(open: &Open) -> OpenRequest {
    let what = match open.forward.as_slice() {
        [] => What::Script(open.script.unwrap_or(1)),
        forwards => What::Forwards(forwards.to_vec()),
    };
    OpenRequest {
        what,
        destination: open.destination.clone(),
        lifetime: open.lifetime,
        source: Source::this_process(),
    }
}

/// Tells of each change until the tunnel ends or somebody wants it to.
async fn follow(agent: &mut Agent, id: TunnelId) -> Exit {
    let mut views = agent.supervisor().views();
    let mut told = String::new();
    let (mut ended, mut was_up) = (None, false);
    loop {
        let all = views.borrow_and_update().clone();
        let view = all.iter().find(|view| view.id == id);
        was_up |= view.is_some_and(View::is_up);
        if let Some((view, (state, text))) = view.and_then(|view| Some((view, progress(view)?))) {
            if told != text {
                show(&text);
                told = text;
            }
            // Whoever gave up on one that never came up is told so.
            let failed =
                view.status.as_ref().and_then(|status| status.last_error.as_ref()).filter(|_| !was_up);
            let failed = failed.map(|error| Exit::for_failure(error.kind));
            ended = state.reason().map(Exit::for_reason);
            ended = ended.map(|exit| failed.filter(|_| exit == Exit::Ok).unwrap_or(exit));
        }
        // Others may have been opened through our socket meanwhile; they are ours to keep.
        if let Some(exit) = ended.filter(|_| all.iter().all(|view| view.wanted.is_none())) {
            return exit;
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return Exit::Error },
            () = agent.asked_to_stop() => {
                agent.supervisor().close(None, Reason::User, Source::this_process()).await;
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
        State::Idle | State::Waiting | State::Resolving => opened(&id, &server, "connecting", &[]),
        State::Up => opened(&id, &server, "up", &forwards),
        State::Backoff => {
            let error = status.last_error.as_ref()?;
            let wait = status.retry_at?.saturating_duration_since(status.since).as_secs().max(1);
            let cure = advice::for_failure(error.kind, &status.destination);
            let state = format!("down: {error}\n  next try in {wait} s\n  try: {cure}");
            opened(&id, &server, &state, &[])
        }
        // It is asked to listen again and again, in this state.
        State::Forwarding => {
            let error = status.last_error.as_ref()?;
            let cure = advice::for_failure(error.kind, &status.destination);
            opened(&id, &server, &format!("not up yet: {error}\n  it keeps trying\n  try: {cure}"), &[])
        }
        State::Closed(reason) => match (advice::fatal(status), advice::for_end(status)) {
            (Some(error), Some(cure)) => {
                opened(&id, &server, &format!("closed ({reason}): {error}\n  try: {cure}"), &[])
            }
            (None, Some(cure)) => opened(&id, &server, &format!("closed ({reason})\n  try: {cure}"), &[]),
            _ => opened(&id, &server, &format!("closed ({reason})"), &[]),
        },
        _ => return None,
    };
    Some((status.state, text))
}

/// Starts this program once more, without a terminal, to keep the tunnel, and asks that one for it.
pub(super) fn in_background(path: &Path, config: &Config, open: &Open) -> Result<Answer, Problem> {
    let mut child = spawn_detached(path)?;
    let deadline = Instant::now() + BACKGROUND_START;
    loop {
        match ask(&config.control_socket(), &request(open)) {
            Err(ClientError::NoAgent) if Instant::now() < deadline => pause(),
            result => return result.map_err(|error| error.to_problem(&config.control_socket())),
        }
        match child.try_wait() {
            // Another process was first; it will answer soon, or has ended since.
            Ok(Some(status)) if status.success() => child = spawn_detached(path)?,
            Ok(Some(status)) => return Err(start_problem(child, status.code())),
            _ => {}
        }
    }
}

fn spawn_detached(path: &Path) -> Result<Child, Problem> {
    let problem = |error: std::io::Error| {
        Problem::new(Exit::Error, format!("can't start in the background: {error}"), "leave out --background")
    };
    let program = std::env::current_exe().map_err(problem)?;
    let mut process = Process::new(program);
    // The program may have been called by a script's name, which decides what it does.
    process.arg0("ocpp-tunnel").arg("--config").arg(path).args(["open", "--detached"]);
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
