//! What a process takes of the machine, as the kernel counts it.

use std::fs;

/// A process's figures at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Open descriptors.
    pub descriptors: usize,
    /// Private memory in KiB: `RssAnon`.
    pub private_kib: u64,
    /// Threads.
    pub threads: u64,
}

impl Figures {
    /// Those of the process `pid`.
    ///
    /// # Panics
    /// If it doesn't run.
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
            let digits: String = line.chars().filter(char::is_ascii_digit).collect();
            digits.parse().expect("it is a number")
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").count();
        Self { descriptors, private_kib: number("RssAnon:"), threads: number("Threads:") }
    }

    /// How much more private memory there is than before, in KiB.
    pub fn grown_kib(&self, before: &Self) -> u64 {
        self.private_kib.saturating_sub(before.private_kib)
    }
}
