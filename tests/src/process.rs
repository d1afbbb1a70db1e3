//! Processes of a test: started with their output in a file, ended with all that they started themselves.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A process in the background. Dropping it ends it, and every process that it started.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with its standard error appended to `log`. Standard input and output are left as `command` has them.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log can be opened");
        let child =
            command.stderr(file).spawn().unwrap_or_else(|why| panic!("cannot start {command:?}: {why}"));
        let pid = child.id().expect("a process that has just been started has an id");
        Self { child, pid, log: log.to_owned() }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The running process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What the process has written to standard error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether the process hasn't ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// If it hasn't within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        ended.expect("the process ends in time").expect("its status can be read")
    }

    /// Ends the process and every process that it started, without giving them a chance to react.
    pub async fn kill_tree(&mut self) {
        kill_tree(self.pid);
        let _ = self.child.wait().await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_running() {
            kill_tree(self.pid);
        }
    }
}

/// What a finished command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit status; `None` if a signal ended the command.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Writes a program, by a process of its own: were it written here, a story that starts another program at that very moment would
/// hand its open file on, and it couldn't be started then ("Text file busy").
pub fn write_program(path: &Path, text: &str) {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut child = shell.spawn().expect("there is a shell");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin.write_all(text.as_bytes()).expect("somebody reads it");
    drop(stdin);
    assert!(child.wait().expect("it can be waited for").success(), "{} is written", path.display());
}

/// Runs a command to its end, with `input` as its standard input.
///
/// # Panics
/// If it can't be started, or takes longer than [`crate::LONG`].
pub async fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|why| panic!("cannot start {command:?}: {why}"));
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // A command that doesn't read its input may have closed it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let Ok(output) = tokio::time::timeout(crate::LONG, child.wait_with_output()).await else {
        panic!("{command:?} hasn't ended within {:?}", crate::LONG);
    };
    let output = output.expect("the output can be read");
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Ends a process and its descendants.
pub fn kill_tree(pid: u32) {
    signal_tree(pid, Signal::SIGKILL);
}

/// Sends a signal to a process and its descendants, parents first, so that none is there to start another.
pub fn signal_tree(pid: u32, signal: Signal) {
    let children = children_of(pid);
    send(pid, signal);
    for child in children {
        signal_tree(child, signal);
    }
}

/// The processes that `pid` has started and that haven't ended.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent_of(*id) == Some(pid)).collect()
}

/// The processes that run in `directory`, or have a file below it as an argument.
pub fn living_in(directory: &Path) -> Vec<u32> {
    let Some(name) = directory.to_str() else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let lives_there = |id: &u32| {
        let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let works_there = std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|path| path == directory);
        works_there || String::from_utf8_lossy(&arguments).contains(name)
    };
    ids.filter(lives_there).collect()
}

/// The processes whose root directory this is.
pub fn rooted_in(directory: &Path) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| std::fs::read_link(format!("/proc/{id}/root")).is_ok_and(|root| root == directory))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state parent …; the name may hold anything, parentheses included.
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(1)?.parse().ok()
}

fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
