//! The agent's end of the control socket.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reverse_tunnel::forward::check_distinct;
use reverse_tunnel::{Forward, Reason, State};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::document::Observed;
use super::logs;
use super::protocol::{Answer, Login, Problem, Request, closable, write_answer};
use crate::advice;
use crate::exit::Exit;
use crate::limits::{
    CONTROL_CLIENTS, CONTROL_REQUEST_BYTES, CONTROL_REQUEST_TIMEOUT, FORWARDS, LOG_FOLLOWERS, OPEN_WAIT,
    SHUTDOWN,
};
use crate::policy::Refusal;
use crate::reload::ReloadHandle;
use crate::service::instance::Made;
use crate::supervisor::{OpenRequest, Source, SupervisorHandle, TunnelId, View, What};

/// The group whose members may command the agent.
const GROUP: &str = "ocpp-tunnel";

/// The listening socket and what its clients may do.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    observed: Observed,
    supervisor: SupervisorHandle,
    reload: Option<ReloadHandle>,
    followers: Arc<Semaphore>,
}

impl ControlServer {
    /// Listens, and gives the socket's file, to be removed at the end. The caller holds the instance's lock, so a
    /// socket that is there already is a dead agent's.
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn bind(
        path: &Path,
        observed: Observed,
        supervisor: SupervisorHandle,
        reload: Option<ReloadHandle>,
    ) -> io::Result<(Self, Made)> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let socket = Made::at(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        give_to_group(path);
        let followers = Arc::new(Semaphore::new(LOG_FOLLOWERS));
        Ok((Self { listener, observed, supervisor, reload, followers }, socket))
    }

    /// Serves for ever.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(CONTROL_CLIENTS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "control-accept-failed");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let client = Client {
                observed: self.observed.clone(),
                supervisor: self.supervisor.clone(),
                reload: self.reload.clone(),
                followers: self.followers.clone(),
            };
            tokio::spawn(async move {
                if let Err(error) = client.serve(stream).await {
                    tracing::debug!(%error, "control-client-lost");
                }
                drop(place);
            });
        }
    }
}

/// Lets the members of the group in, where there is one. Without it, or without the right to give files away, only
/// the owner commands.
pub fn give_to_group(path: &Path) {
    if let Ok(Some(group)) = nix::unistd::Group::from_name(GROUP) {
        let _ = chown(path, None, Some(group.gid.as_raw()));
    }
}

struct Client {
    observed: Observed,
    supervisor: SupervisorHandle,
    reload: Option<ReloadHandle>,
    followers: Arc<Semaphore>,
}

impl Client {
    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let peer = stream.peer_cred()?;
        let source = Source::Local { uid: peer.uid(), pid: peer.pid().unwrap_or(0) };
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(CONTROL_REQUEST_BYTES));
        timeout(CONTROL_REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
        let answer = match serde_json::from_str(&line) {
            Ok(request @ (Request::Open { wait: true, .. } | Request::Logs { follow: true, .. })) => {
                let mut more = String::new();
                tokio::select! {
                    answer = self.answer(request, source, &mut writer) => answer?,
                    // A client that has gone waits for nothing, and must not keep its place.
                    _ = reader.read_line(&mut more) => return Ok(()),
                }
            }
            Ok(request) => self.answer(request, source, &mut writer).await?,
            Err(error) => Answer::Error(Problem::new(
                Exit::Error,
                format!("the agent doesn't understand the request: {error}"),
                "restart the agent if it was updated",
            )),
        };
        write_answer(&mut writer, &answer).await
    }

    /// The last answer; `writer` is for those before it.
    async fn answer(
        &self,
        request: Request,
        source: Source,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<Answer> {
        Ok(match request {
            Request::Status => Answer::Status(self.observed.document()),
            Request::Open { destination, script, forwards, lifetime, wait } => {
                let asked = Instant::now();
                let result = self.open(destination, script, &forwards, lifetime, source).await;
                match result {
                    Ok(id) if wait => self.wait_until_up(id, asked).await,
                    Ok(id) => self.opened(id),
                    Err(problem) => Answer::Error(problem),
                }
            }
            Request::Close { id, login } => self.close(id, login, source).await,
            Request::Logs { follow, lines } => self.logs(follow, lines, writer).await?,
            Request::Reload => self.reload(source).await,
            Request::Keys => {
                self.observed.keys.refresh();
                Answer::Done
            }
        })
    }

    async fn reload(&self, source: Source) -> Answer {
        let Some(reload) = &self.reload else {
            return Answer::Error(Problem::new(
                Exit::Error,
                "this agent keeps a tunnel that `open` asked for, with the configuration of its start",
                "close the tunnel and open it again",
            ));
        };
        match reload.reload(source.into()).await {
            Ok(reloaded) => Answer::Reloaded(reloaded),
            Err(problem) => Answer::Error(problem),
        }
    }

    async fn logs(
        &self,
        follow: bool,
        lines: Option<usize>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<Answer> {
        let place = self.followers.try_acquire();
        if follow && place.is_err() {
            return Ok(Answer::Error(Problem::new(
                Exit::Error,
                format!("{LOG_FOLLOWERS} others follow the log already"),
                "end one of them, or leave out --follow",
            )));
        }
        logs::send(writer, follow, lines).await
    }

    async fn open(
        &self,
        destination: Option<String>,
        script: Option<u8>,
        forwards: &[String],
        lifetime: Option<u64>,
        source: Source,
    ) -> Result<TunnelId, Problem> {
        let usage =
            |error: &dyn std::fmt::Display| Problem::new(Exit::Usage, error.to_string(), "see --help");
        let destination = match destination.map(|text| text.parse()).transpose() {
            Ok(destination) => destination,
            Err(error) => {
                // The command line finds that itself. This comes from a vendor's script name, with what the CSMS may have sent.
                let problem = usage(&error);
                if let Some(slot) = script {
                    self.supervisor.refuse(slot, Refusal::Malformed(error), source).await;
                }
                return Err(problem);
            }
        };
        if forwards.len() > FORWARDS {
            return Err(usage(&format_args!("more than {FORWARDS} forwards")));
        }
        let forwards: Vec<Forward> = forwards
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(|error| usage(&error))?;
        check_distinct(&forwards).map_err(|error| usage(&error))?;
        let what =
            if forwards.is_empty() { What::Script(script.unwrap_or(1)) } else { What::Forwards(forwards) };
        let request = OpenRequest { what, destination, lifetime: lifetime.map(Duration::from_secs), source };
        self.supervisor.open(request).await.map_err(|refusal| problem_of(&refusal))
    }

    /// Waits until the tunnel is up, has failed once since it was asked for, or has taken too long. It goes on by itself either way.
    async fn wait_until_up(&self, id: TunnelId, asked: Instant) -> Answer {
        let mut views = self.supervisor.views();
        let settled = views.wait_for(|views| find(views, id).is_none_or(|view| is_settled(view, asked)));
        let timed_out = timeout(OPEN_WAIT, settled).await.is_err();
        let view = find(&self.supervisor.views().borrow(), id).cloned();
        let Some(status) = view.as_ref().and_then(|view| view.status.as_ref()) else {
            return self.opened(id);
        };
        if view.as_ref().is_some_and(View::is_up) {
            return self.opened(id);
        }
        let state = status.state;
        if let Some(error) = &status.last_error {
            let exit = state.reason().map_or(Exit::for_failure(error.kind), Exit::for_reason);
            let goes_on = if state.reason().is_none() { "; it keeps trying" } else { "" };
            let text = format!("tunnel {id} is not up: {error}{goes_on}");
            let cure = advice::for_failure(error.kind, &status.destination);
            return Answer::Error(Problem::new(exit, text, cure));
        }
        if timed_out {
            let text = format!("tunnel {id} is not up after {} s, it is {state}", OPEN_WAIT.as_secs());
            return Answer::Error(Problem::new(
                Exit::Timeout,
                text,
                "see `ocpp-tunnel status`; it keeps trying",
            ));
        }
        let reason = state.reason().map_or_else(String::new, |reason| format!(": {reason}"));
        let exit =
            state.reason().map(Exit::for_reason).filter(|exit| *exit != Exit::Ok).unwrap_or(Exit::NotUp);
        let cure = advice::for_end(status).unwrap_or("open it again".into());
        Answer::Error(Problem::new(exit, format!("tunnel {id} is closed{reason}"), cure))
    }

    fn opened(&self, id: TunnelId) -> Answer {
        let views = self.supervisor.views();
        let views = views.borrow();
        let view = find(&views, id);
        let status = view.and_then(|view| view.status.as_ref());
        let forwards = status.map(|status| &status.forwards).or(view.map(|view| &view.forwards));
        Answer::Opened {
            id: id.to_string(),
            server: view.and_then(|view| view.wanted.as_ref()).map(ToString::to_string).unwrap_or_default(),
            state: status.map_or("idle", |status| status.state.word()).to_owned(),
            forwards: forwards
                .into_iter()
                .flatten()
                .map(|forward| format!("{} -> {}", forward.remote, forward.local))
                .collect(),
        }
    }

    async fn close(&self, id: Option<String>, login: Option<Login>, source: Source) -> Answer {
        let views = self.supervisor.views().borrow().clone();
        let open = views.iter().filter(|view| view.status.is_some() && !is_closed(view));
        let problem = |exit, text: String| {
            let open: Vec<String> = open.clone().map(|view| view.id.to_string()).collect();
            Answer::Error(Problem::new(exit, text, closable(&open)))
        };
        let id = match id.map(|id| id.parse::<TunnelId>()).transpose() {
            Ok(id) => id,
            Err(error) => return problem(Exit::Usage, error),
        };
        if let Some(id) = id.filter(|id| find(&views, *id).is_none()) {
            return problem(Exit::NotFound, format!("there is no tunnel {id}"));
        }
        let carries = |view: &&View| {
            let traffic = view.traffic.as_ref().filter(|_| id.is_none_or(|id| id == view.id));
            login.zip(traffic).is_some_and(|(login, traffic)| traffic.carries(login.client, login.server))
        };
        if let Some(view) = views.iter().find(carries) {
            return Answer::Carries(view.id.to_string());
        }
        let closing = self.supervisor.close(id, Reason::User, source).await;
        let mut views = self.supervisor.views();
        let closed = views.wait_for(|views| closing.iter().all(|id| find(views, *id).is_none_or(is_closed)));
        let _ = timeout(SHUTDOWN, closed).await;
        Answer::Closed(closing.iter().map(ToString::to_string).collect())
    }
}

fn find(views: &[View], id: TunnelId) -> Option<&View> {
    views.iter().find(|view| view.id == id)
}

fn is_closed(view: &View) -> bool {
    view.status.as_ref().is_none_or(|status| status.state.reason().is_some())
}

/// Up, ended, or with something to tell about why not. What failed before it was asked for again is over: the request has begun
/// another attempt. Only a server that is asked to listen is asked again and again without one.
fn is_settled(view: &View, asked: Instant) -> bool {
    view.status.as_ref().is_some_and(|status| {
        view.is_up()
            || status.state.reason().is_some()
            || (status.last_error.is_some()
                && status.retry_at.is_some()
                && (status.since >= asked || status.state == State::Forwarding))
    })
}

/// A refusal as the command line tells it.
#[must_use]
pub fn problem_of(refusal: &Refusal) -> Problem {
    let exit = match refusal {
        Refusal::Malformed(_) | Refusal::NoDestination => Exit::Usage,
        Refusal::NoSuchScript(_) => Exit::NotFound,
        Refusal::Held { .. } => Exit::Forward,
        _ => Exit::Refused,
    };
    Problem::new(exit, refusal.to_string(), refusal.cure())
}
