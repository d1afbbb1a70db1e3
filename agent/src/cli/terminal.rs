//! The terminal of the person who started a command: questions, and answers that nobody else may read.
//!
//! It is `/dev/tty` and neither stdin nor stderr, so that a password never comes out of a file or a pipe.
//!
//! What asks for a secret runs in [`restoring`], since a process that is ended by a signal restores nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::layout::for_stream;
use crate::limits::{ANSWER_BYTES, PASSWORD_BYTES};

/// Can anybody be asked?
///
/// # Errors
/// This process has no terminal.
pub(super) fn check() -> io::Result<()> {
    open().map(drop)
}

/// Does work that may ask for a secret. A signal that would end this process does so still, with the exit code that a shell would
/// give it, once the work was dropped and so the terminal restored.
///
/// # Errors
/// The signals can't be waited for.
#[expect(clippy::disallowed_methods, reason = "no tunnel runs in this process, and the terminal is restored")]
pub(super) async fn restoring<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut work = Box::pin(work);
    let ended_by = tokio::select! {
        done = &mut work => return Ok(done),
        _ = interrupt.recv() => Signal::INT,
        _ = quit.recv() => Signal::QUIT,
        _ = hangup.recv() => Signal::HUP,
        _ = terminate.recv() => Signal::TERM,
    };
    drop(work);
    std::process::exit(128 + ended_by.as_raw());
}

/// Asks a question; only `yes` is one.
///
/// # Errors
/// The terminal is gone.
pub(super) async fn confirmed(question: String) -> io::Result<bool> {
    let most = usize::try_from(ANSWER_BYTES).unwrap_or(usize::MAX);
    let answer = in_background(move || ask_for_line(&question, most)).await?;
    Ok(answer.is_some_and(|answer| answer.trim() == "yes"))
}

/// Asks a question; `y` and `yes` are a yes.
///
/// # Errors
/// This process has no terminal, or it is gone.
pub(super) fn agreed(question: &str) -> io::Result<bool> {
    let answer = ask_for_line(question, PASSWORD_BYTES)?;
    Ok(answer.is_some_and(|answer| matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")))
}

/// Asks for an answer that may be seen. `None`: the person gave up.
///
/// # Errors
/// The terminal is gone, or the answer is too long.
pub(super) async fn answer(question: String) -> io::Result<Option<Zeroizing<String>>> {
    in_background(move || ask_for_line(&question, PASSWORD_BYTES)).await
}

/// Asks for an answer that isn't shown, and is wiped from memory when it is dropped. What was typed before the question isn't
/// the answer. `None`: the person gave up, by Ctrl-D. Ctrl-C is the signal that it is elsewhere, and ends what is done in
/// [`restoring`].
///
/// # Errors
/// The terminal is gone, or the answer is too long.
pub(super) async fn secret(question: String) -> io::Result<Option<Zeroizing<String>>> {
    let mut terminal = open()?;
    // Restored when this is dropped, too, while the other thread still reads.
    let silenced = Silenced::new(terminal.try_clone()?)?;
    ask(&mut terminal, &question)?;
    let mut keys = terminal.try_clone()?;
    let typed = in_background(move || read_secret(&mut keys)).await;
    if let Ok(Typed::Signal(signal)) = typed {
        kill_process(getpid(), signal)?;
        std::future::pending::<()>().await;
    }
    drop(silenced);
    Ok(match typed? {
        Typed::Secret(secret) => Some(secret),
        Typed::Nothing | Typed::Signal(_) => None,
    })
}

/// The connection goes on while a person thinks.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn ask_for_line(question: &str, most: usize) -> io::Result<Option<Zeroizing<String>>> {
    let mut terminal = open()?;
    ask(&mut terminal, question)?;
    read_line(&mut terminal, most)
}

fn ask(terminal: &mut File, question: &str) -> io::Result<()> {
    let question = for_stream(question, terminal);
    write!(terminal, "{question}")
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// A line, as the terminal has let the person edit it.
fn read_line(terminal: &mut impl Read, most: usize) -> io::Result<Option<Zeroizing<String>>> {
    let mut typed = Zeroizing::new(Vec::with_capacity(most));
    while let Some(byte) = next(terminal)? {
        match byte {
            b'\n' | b'\r' => return text(&typed).map(Some),
            _ => push(&mut typed, byte, most)?,
        }
    }
    Ok(None)
}

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CLEAR: u8 = 0x15;
const SUSPEND: u8 = 0x1a;
const QUIT: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// What came of asking for a secret.
enum Typed {
    Secret(Zeroizing<String>),
    /// Ctrl-D, or the terminal has gone.
    Nothing,
    /// The key for this signal.
    Signal(Signal),
}

/// A line that comes key by key, since the terminal neither edits it nor makes signals of it: a stopped process would leave it
/// silent.
fn read_secret(terminal: &mut impl Read) -> io::Result<Typed> {
    // With all its room from the start, no copy of it is left behind by growing.
    let mut typed = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES));
    while let Some(byte) = next(terminal)? {
        match byte {
            b'\n' | b'\r' => return text(&typed).map(Typed::Secret),
            INTERRUPT => return Ok(Typed::Signal(Signal::INT)),
            QUIT => return Ok(Typed::Signal(Signal::QUIT)),
            END if typed.is_empty() => return Ok(Typed::Nothing),
            SUSPEND => {}
            BACKSPACE | DELETE => remove_character(&mut typed),
            CLEAR => typed.clear(),
            _ => push(&mut typed, byte, PASSWORD_BYTES)?,
        }
    }
    Ok(Typed::Nothing)
}

fn next(terminal: &mut impl Read) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match terminal.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn push(typed: &mut Vec<u8>, byte: u8, most: usize) -> io::Result<()> {
    if typed.len() >= most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    typed.push(byte);
    Ok(())
}

/// A character of UTF-8 may have several bytes.
fn remove_character(typed: &mut Vec<u8>) {
    const CONTINUES: u8 = 0b1000_0000;
    while typed.pop().is_some_and(|byte| byte & 0b1100_0000 == CONTINUES) {}
}

fn text(typed: &[u8]) -> io::Result<Zeroizing<String>> {
    let text = std::str::from_utf8(typed).map_err(|_| io::Error::other("it isn't UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A terminal that shows nothing of what is typed, not even the end of the line, until this is dropped.
struct Silenced {
    terminal: File,
    before: Termios,
}

impl Silenced {
    fn new(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut silent = before.clone();
        silent
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        // It fails where the terminal is gone.
        let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Now, &self.before);
        let _ = writeln!(self.terminal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret, or the number of the signal: 0 for none.
    fn secret_of(typed: &[u8]) -> Result<String, i32> {
        match read_secret(&mut &typed[..]).unwrap() {
            Typed::Secret(secret) => Ok(secret.to_string()),
            Typed::Nothing => Err(0),
            Typed::Signal(signal) => Err(signal.as_raw()),
        }
    }

    #[test]
    fn keys_edit_a_secret_and_give_it_up() {
        for (typed, secret) in [
            (&b"correct horse\nrest"[..], "correct horse"),
            (b"\r", ""),
            ("wrönk\x7f\x7f\x7f\x08ong\n".as_bytes(), "wong"),
            (b"\x7f\x7fa\n", "a"),
            (b"wrong\x15right\n", "right"),
            (b"not\x1a stopped\n", "not stopped"),
        ] {
            assert_eq!(secret_of(typed).as_deref(), Ok(secret));
        }
        for (given_up, signal) in [(&b"abc\x03"[..], 2), (b"\x04", 0), (b"abc\x1c", 3), (b"abc", 0), (b"", 0)]
        {
            assert_eq!(secret_of(given_up), Err(signal), "{given_up:?}");
        }
        assert!(read_secret(&mut &[b'x'; PASSWORD_BYTES + 1][..]).is_err());
        assert!(read_secret(&mut &b"\xff\n"[..]).is_err());
    }
}
