//! The line that says what is being waited for. It is on stderr and only where that is a terminal that can take a line back, so
//! that it never gets into anybody's file.

use std::io::{self, Write};

use super::layout::obeys;

/// The line. It is taken back when it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    visible: bool,
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { visible: obeys(&io::stderr()), shown: false }
    }

    /// Says what is waited for, in words of ours and short enough for any terminal.
    pub(super) fn show(&mut self, what: &str) {
        if self.visible {
            self.shown = true;
            write(&format!("\r\x1b[K... {what}"));
        }
    }

    /// Takes the line back, before anything else is written.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            write("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    // A terminal that has gone needs no progress.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
