//! `ocpp-tunnel logs`: the log that the agent keeps in memory.

use std::io;
use std::path::Path;

use super::args::Logs;
use super::no_answer;
use super::words::{journal_lines, remark, say_or_end, unexpected};
use crate::config::Config;
use crate::control::client::{Answers, ClientError};
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::limits::CONTROL_ANSWER_TIMEOUT;

pub(super) fn main(path: &Path, Logs { follow, lines }: Logs) -> Result<Exit, Problem> {
    // The log is where a mistake that came into the files since the agent's start is told of.
    let socket = Config::control_socket_of(path);
    let problem = |error: ClientError| no_answer(path, &socket, &error);
    let mut answers = Answers::to(&socket, &Request::Logs { follow, lines }).map_err(problem)?;
    let patience = (!follow).then_some(CONTROL_ANSWER_TIMEOUT);
    loop {
        if follow && !answers.wait(&io::stdout()) {
            return Ok(Exit::Ok);
        }
        match answers.next(patience).map_err(problem)? {
            Answer::Log { missed, text } => {
                if missed > 0 {
                    remark(&format!("({missed} lines were overwritten before they could be shown)"));
                }
                if !say_or_end(&journal_lines(&text)) {
                    return Ok(Exit::Ok);
                }
            }
            Answer::Done => return Ok(Exit::Ok),
            Answer::Error(problem) => return Err(problem),
            other => return Err(unexpected(&other)),
        }
    }
}
