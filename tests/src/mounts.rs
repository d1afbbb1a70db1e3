//! A mount namespace that lasts as long as its value: what an agent and its commands live in together, such as a disk that
//! is full or can't be written.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::process::{Daemon, run, write_program};
use crate::{LONG, wait_until};

/// The namespace.
#[derive(Debug)]
pub struct Mounts {
    holder: Daemon,
}

impl Mounts {
    /// Makes one, where this shell command was run; files of its own go to `directory`.
    ///
    /// # Panics
    /// If the command fails.
    pub async fn new(directory: &Path, shell: &str) -> Self {
        let ready = directory.join("mounted");
        let script = format!("{shell} && : >{} && exec sleep infinity", ready.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let mut holder = Daemon::start(&mut command, &directory.join("mounts-log"));
        wait_until("everything is mounted", LONG, async || {
            assert!(holder.is_running(), "{}", holder.log());
            ready.exists().then_some(())
        })
        .await;
        Self { holder }
    }

    /// A disk of this size in memory at `path`.
    pub async fn disk(directory: &Path, path: &Path, size: &str) -> Self {
        let path = path.display();
        let shell = format!("mkdir -p {path} && mount -t tmpfs -o size={size},mode=755 none {path}");
        Self::new(directory, &shell).await
    }

    /// A program in `directory` that runs its arguments there.
    pub fn runner(&self, directory: &Path) -> PathBuf {
        let path = directory.join("in-mounts");
        let pid = self.holder.pid();
        write_program(&path, &format!("#!/bin/sh\nexec nsenter --mount --target {pid} \"$@\"\n"));
        path
    }

    /// A path of the namespace, as it is to be found from outside.
    pub fn path(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.pid(), path.display()))
    }

    /// Runs a shell command there.
    ///
    /// # Panics
    /// If it fails.
    pub async fn run(&self, shell: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.holder.pid().to_string(), "sh", "-c", shell]);
        let ran = run(&mut command, "").await;
        assert_eq!(ran.code, Some(0), "{shell}: {ran:?}");
    }
}
