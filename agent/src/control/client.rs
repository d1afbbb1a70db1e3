//! The command line's end of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::limits::{CONTROL_ANSWER_TIMEOUT, CONTROL_LINE_BYTES, OPEN_WAIT, RELOAD_TIMEOUT};

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// No agent listens there.
    NoAgent,
    /// The socket may not be used.
    Forbidden(io::Error),
    /// The agent did not answer in time.
    Timeout,
    /// The agent has ended.
    HungUp,
    /// The connection broke, or the answer makes no sense.
    Broken(String),
}

/// Asks the agent and waits for its answer.
///
/// # Errors
/// See [`ClientError`].
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    if let Request::Open { .. } = request {
        // What an agent that is stopped or stuck finds when it goes on, it would do: long after it was asked for, and unseen.
        Answers::to(socket, &Request::Status)?.next(Some(CONTROL_ANSWER_TIMEOUT))?;
    }
    let patience = match request {
        Request::Open { wait: true, .. } => OPEN_WAIT + CONTROL_ANSWER_TIMEOUT,
        Request::Reload => RELOAD_TIMEOUT,
        _ => CONTROL_ANSWER_TIMEOUT,
    };
    Answers::to(socket, request)?.next(Some(patience))
}

/// The answers to a request that has several.
#[derive(Debug)]
pub struct Answers(BufReader<UnixStream>);

impl Answers {
    /// Asks the agent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn to(socket: &Path, request: &Request) -> Result<Self, ClientError> {
        let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoAgent,
            io::ErrorKind::PermissionDenied => ClientError::Forbidden(error),
            _ => ClientError::Broken(error.to_string()),
        })?;
        let sent = stream.set_write_timeout(Some(CONTROL_ANSWER_TIMEOUT)).and_then(|()| {
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            stream.write_all(&line)
        });
        sent.map_err(|error| ClientError::of(&error))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Waits until there is another answer, or whoever reads this output has gone; false then.
    #[must_use]
    pub fn wait(&self, output: &impl AsFd) -> bool {
        if !self.0.buffer().is_empty() {
            return true;
        }
        // What is asked for of the output is nothing: that its reader has gone is told all the same.
        let mut both =
            [PollFd::new(self.0.get_ref(), PollFlags::IN), PollFd::new(output, PollFlags::empty())];
        let _ = poll(&mut both, None);
        let [_, output] = both;
        !output.revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Waits for the next answer, for ever if there is no `patience`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Answer, ClientError> {
        self.read(patience).map_err(|error| ClientError::of(&error))
    }

    fn read(&mut self, patience: Option<Duration>) -> io::Result<Answer> {
        self.0.get_ref().set_read_timeout(patience)?;
        let mut answer = String::new();
        self.0.by_ref().take(CONTROL_LINE_BYTES).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent hung up"));
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

impl ClientError {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::UnexpectedEof => Self::HungUp,
            _ => Self::Broken(error.to_string()),
        }
    }

    /// The error as the command line tells it.
    #[must_use]
    pub fn to_problem(&self, socket: &Path) -> Problem {
        let socket = socket.display();
        match self {
            Self::NoAgent => Problem::new(
                Exit::NoAgent,
                format!("no agent answers at {socket}"),
                "start it with `ocpp-tunnel run`, or name its configuration with --config",
            ),
            Self::Forbidden(error) => Problem::new(
                Exit::NoAgent,
                format!("{socket} may not be used: {error}"),
                "run as root or as a member of the group ocpp-tunnel",
            ),
            Self::Timeout => {
                Problem::new(Exit::Timeout, format!("the agent at {socket} doesn't answer"), "restart it")
            }
            Self::HungUp => {
                Problem::new(Exit::NoAgent, format!("the agent at {socket} hung up"), "see its log")
            }
            Self::Broken(error) => Problem::new(
                Exit::Error,
                format!("the agent at {socket} gave no answer: {error}"),
                "try again",
            ),
        }
    }
}
