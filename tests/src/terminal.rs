//! A person at a terminal, who types when asked.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::LONG;
use crate::agent::Agent;
use crate::process::{Output, run};

impl Agent {
    /// Runs a command of the command line on a terminal, types `input` there, and returns what it showed.
    pub async fn on_a_terminal(&self, arguments: &[&str], input: &str) -> Output {
        run(&mut self.terminal(arguments), input).await
    }

    /// Runs a command on a terminal; each time that the next of these questions is shown, its answer is typed. Returns
    /// all that was shown, with whatever the terminal echoed.
    ///
    /// # Panics
    /// If a question doesn't come, or the command doesn't end.
    pub async fn dialogue(&self, arguments: &[&str], answers: &[(&str, &str)]) -> Output {
        let mut command = self.terminal(arguments);
        converse(command.env("TERM", "xterm"), answers).await
    }

    /// Runs a command on a VT100 of this many columns and 24 rows, and returns what it showed, as the lines that were written.
    pub async fn on_a_vt100(&self, columns: u16, arguments: &[&str], answers: &[(&str, &str)]) -> Output {
        let line = format!("stty columns {columns} rows 24; {}", self.line(arguments));
        let mut output = converse(script(&line).env("TERM", "vt100"), answers).await;
        // The terminal's own ends of lines.
        output.stdout = output.stdout.replace("\r\n", "\n");
        output
    }

    fn terminal(&self, arguments: &[&str]) -> Command {
        script(&self.line(arguments))
    }

    /// The command for a shell.
    pub fn line(&self, arguments: &[&str]) -> String {
        let command = self.command(arguments);
        let words = std::iter::once(command.as_std().get_program()).chain(command.as_std().get_args());
        words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }
}

/// A shell's line on a terminal.
///
/// Ctrl-C works there even where the tests were started in the background by a shell, which has all that it starts so ignore it.
/// The shell is always bash: after a Ctrl-C it ends as its command does, while dash ends by the signal whatever its command made of
/// it.
pub fn script(line: &str) -> Command {
    let mut script = Command::new("env");
    script.args([
        "--default-signal=INT,QUIT",
        "SHELL=/bin/bash",
        "script",
        "--quiet",
        "--return",
        "--command",
        line,
        "/dev/null",
    ]);
    script
}

/// Runs a command that asks; each time that the next of these questions is shown, its answer is typed.
///
/// # Panics
/// If a question doesn't come, or the command doesn't end.
pub async fn converse(command: &mut Command, answers: &[(&str, &str)]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|why| panic!("cannot start {command:?}: {why}"));
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let mut stdout = child.stdout.take().expect("standard output is a pipe");
    let (mut shown, mut answered) = (Vec::new(), 0);
    let mut waiting = answers.iter();
    let mut next = waiting.next();
    let conversation = async {
        while stdout.read_buf(&mut shown).await.expect("the terminal can be read") > 0 {
            let Some((question, answer)) = next else { continue };
            let new = String::from_utf8_lossy(shown.get(answered..).unwrap_or_default()).into_owned();
            if new.contains(question) {
                answered = shown.len();
                stdin.write_all(answer.as_bytes()).await.expect("somebody reads what is typed");
                next = waiting.next();
            }
        }
    };
    let ended = timeout(LONG, conversation).await;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(ended.is_ok(), "{command:?} hasn't ended, the terminal shows:\n{shown}");
    assert!(next.is_none(), "the question {next:?} didn't come, the terminal shows:\n{shown}");
    let code = child.wait().await.expect("its status can be read").code();
    Output { code, stdout: shown, stderr: String::new() }
}
