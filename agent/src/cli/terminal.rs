//! The terminal of the person who started a command: questions, and answers that nobody else may read.
//!
//! It is `/dev/tty` and neither stdin nor stderr, so that a password never comes out of a file or a pipe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
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

/// Asks a question; only `yes` is one.
///
/// # Errors
/// The terminal is gone.
pub(super) fn confirmed(question: &str) -> io::Result<bool> {
    let mut terminal = open()?;
    ask(&mut terminal, question)?;
    let answer = read_line(&mut terminal, usize::try_from(ANSWER_BYTES).unwrap_or(usize::MAX))?;
    Ok(answer.is_some_and(|answer| answer.trim() == "yes"))
}

/// Asks a question; `y` and `yes` are a yes.
///
/// # Errors
/// This process has no terminal, or it is gone.
pub(super) fn agreed(question: &str) -> io::Result<bool> {
    let answer = answer(question)?;
    Ok(answer.is_some_and(|answer| matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")))
}

/// Asks for an answer that may be seen. `None`: the person gave up.
///
/// # Errors
/// The terminal is gone, or the answer is too long.
pub(super) fn answer(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    let mut terminal = open()?;
    ask(&mut terminal, question)?;
    read_line(&mut terminal, PASSWORD_BYTES)
}

/// Asks for an answer that isn't shown, and is wiped from memory when it is dropped. What was typed before the question isn't
/// the answer. `None`: the person gave up, by Ctrl-C or Ctrl-D.
///
/// # Errors
/// The terminal is gone, or the answer is too long.
pub(super) fn secret(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    let mut terminal = open()?;
    let silenced = Silenced::new(terminal.try_clone()?)?;
    ask(&mut terminal, question)?;
    let secret = read_secret(&mut terminal);
    drop(silenced);
    writeln!(terminal)?;
    secret
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
const QUIT: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// A line that comes key by key, since the terminal neither edits it nor makes signals of it: it is never left silent.
fn read_secret(terminal: &mut impl Read) -> io::Result<Option<Zeroizing<String>>> {
    // With all its room from the start, no copy of it is left behind by growing.
    let mut typed = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES));
    while let Some(byte) = next(terminal)? {
        match byte {
            b'\n' | b'\r' => return text(&typed).map(Some),
            INTERRUPT | QUIT => return Ok(None),
            END if typed.is_empty() => return Ok(None),
            BACKSPACE | DELETE => remove_character(&mut typed),
            CLEAR => typed.clear(),
            _ => push(&mut typed, byte, PASSWORD_BYTES)?,
        }
    }
    Ok(None)
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

/// A terminal that shows nothing of what is typed, until this is dropped.
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret_of(typed: &[u8]) -> Option<String> {
        read_secret(&mut &typed[..]).unwrap().map(|secret| secret.to_string())
    }

    #[test]
    fn keys_edit_a_secret_and_give_it_up() {
        assert_eq!(secret_of(b"correct horse\nrest").as_deref(), Some("correct horse"));
        assert_eq!(secret_of(b"\r").as_deref(), Some(""));
        assert_eq!(secret_of("wrönk\x7f\x7f\x7f\x08ong\n".as_bytes()).as_deref(), Some("wong"));
        assert_eq!(secret_of(b"\x7f\x7fa\n").as_deref(), Some("a"));
        assert_eq!(secret_of(b"wrong\x15right\n").as_deref(), Some("right"));
        for given_up in [&b"abc\x03"[..], b"\x04", b"abc\x1c", b"abc", b""] {
            assert_eq!(secret_of(given_up), None, "{given_up:?}");
        }
        assert!(read_secret(&mut &[b'x'; PASSWORD_BYTES + 1][..]).is_err());
        assert!(read_secret(&mut &b"\xff\n"[..]).is_err());
    }
}
