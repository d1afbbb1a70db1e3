//! A small system of its own to install packages in: Debian's, or one of BusyBox alone.
//!
//! It is a directory that commands run in by `chroot`, in namespaces that end with it. There is no service manager in it.
//! Programs for ARM run in it by an emulator, where the kernel lets a user namespace have its own (Linux 6.7).

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::process::{self, Daemon, Output, run, write_program};

/// The emulator of programs for ARM.
const EMULATOR: &str = "/usr/bin/qemu-arm-static";

/// Whose programs run there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// This machine's.
    Native,
    /// This machine's and those for ARM.
    Arm,
}

/// The system. Dropping it ends every process in it, and removes it.
#[derive(Debug)]
pub struct Root {
    dir: TempDir,
    machine: Machine,
    holder: Daemon,
}

impl Root {
    /// Debian's, unpacked from a tarball of `mmdebstrap`.
    pub async fn debian(tarball: &Path, machine: Machine) -> Self {
        let dir = directory();
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--file"]).arg(tarball).arg("--directory").arg(dir.path().join("root"));
        let unpacked = run(&mut tar, "").await;
        assert_eq!(unpacked.code, Some(0), "{unpacked:?}");
        // Debian's own way to say that nothing may be started.
        let policy = dir.path().join("root/usr/sbin/policy-rc.d");
        write_program(&policy, "#!/bin/sh\nexit 101\n");
        Self::hold(dir, machine).await
    }

    /// One whose every command is BusyBox's, which is linked statically in Debian's `busybox-static`.
    pub async fn busybox(machine: Machine) -> Self {
        let dir = directory();
        let root = dir.path().join("root");
        for name in [
            "bin",
            "dev",
            "etc/init.d",
            "proc",
            "root",
            "run",
            "sbin",
            "tmp",
            "usr/bin",
            "usr/sbin",
            "var/lib",
        ] {
            std::fs::create_dir_all(root.join(name)).expect("it can be made");
        }
        symlink("../run", root.join("var/run")).expect("it can be made");
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("there is a BusyBox here");
        std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
            .expect("it can be written");
        std::fs::write(root.join("etc/group"), "root:x:0:\n").expect("it can be written");
        std::fs::write(root.join("etc/shadow"), "root:*:::::::\n").expect("it can be written");
        for (name, minor) in [("null", "3"), ("zero", "5"), ("urandom", "9")] {
            let mut node = Command::new("mknod");
            let made =
                run(node.args(["-m", "666"]).arg(root.join("dev").join(name)).args(["c", "1", minor]), "");
            assert_eq!(made.await.code, Some(0), "a device can be made");
        }
        let root = Self::hold(dir, machine).await;
        root.does(&["/bin/busybox", "--install", "-s"]).await;
        root
    }

    async fn hold(dir: TempDir, machine: Machine) -> Self {
        let binfmt = dir.path().join("binfmt");
        std::fs::create_dir(&binfmt).expect("it can be made");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if machine == Machine::Arm {
            command.arg("--user");
        }
        command
            .arg("sh")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/root.sh"))
            .arg(dir.path().join("root"));
        if machine == Machine::Arm {
            command.arg(EMULATOR).arg(&binfmt);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Daemon::start(&mut command, &dir.path().join("log"));
        if machine == Machine::Arm {
            map_ids(holder.pid()).await;
        }
        let stdin = holder.child().stdin.as_mut().expect("it is a pipe");
        stdin.write_all(b"\n").await.expect("it reads");
        let stdout = holder.child().stdout.take().expect("it is a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await.expect("it says something");
        assert_eq!(line, "ready\n", "{}", holder.log());
        Self { dir, machine, holder }
    }

    /// The path outside of what has this path inside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join("root").join(inside.trim_start_matches('/'))
    }

    /// A command in it, in its own `/root`, with the usual search path and nothing else of the environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_as("0:0", arguments)
    }

    /// As [`Self::command`], for a user and a group by their numbers.
    pub fn command_as(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.pid().to_string(), "--mount"]);
        if self.machine == Machine::Arm {
            command.arg("--user");
        }
        command.args(["/usr/sbin/chroot", &format!("--userspec={user}")]).arg(self.path(""));
        command.args(arguments).env_clear().env("HOME", "/root").env("LC_ALL", "C");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs a command in it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), "").await
    }

    /// Runs a command in it that has to succeed; returns all that it said.
    ///
    /// # Panics
    /// If it fails.
    pub async fn does(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output.stdout + &output.stderr
    }

    /// A file's text.
    ///
    /// # Panics
    /// If it can't be read.
    pub fn read(&self, inside: &str) -> String {
        std::fs::read_to_string(self.path(inside)).unwrap_or_else(|why| panic!("{inside}: {why}"))
    }

    /// Writes a file, and makes its directory if there is none.
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("it is below the root")).expect("it can be made");
        std::fs::write(path, text).expect("it can be written");
    }

    /// Whether there is such a file; a symlink may lead nowhere.
    pub fn has(&self, inside: &str) -> bool {
        self.path(inside).symlink_metadata().is_ok()
    }

    /// Mode, user and group of a file, as `750 100:101`.
    ///
    /// # Panics
    /// If there is none.
    pub fn owner(&self, inside: &str) -> String {
        use std::os::unix::fs::MetadataExt;
        let of = self.path(inside).metadata().unwrap_or_else(|why| panic!("{inside}: {why}"));
        format!("{:o} {}:{}", of.mode() & 0o7777, of.uid(), of.gid())
    }

    /// User and group of an account, as `100:101`; none if there is no such account.
    pub fn account(&self, name: &str) -> Option<String> {
        let passwd = self.read("/etc/passwd");
        let mut fields =
            passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').skip(2);
        Some(format!("{}:{}", fields.next()?, fields.next()?))
    }

    /// Every path in it, but for what is mounted there.
    pub async fn files(&self) -> BTreeSet<String> {
        let mut find = Command::new("find");
        find.arg(self.path("")).args(["-xdev", "-path", "*/root/proc", "-prune", "-o", "-printf", "/%P\n"]);
        let found = run(&mut find, "").await;
        assert_eq!(found.code, Some(0), "{found:?}");
        found.stdout.lines().map(str::to_owned).collect()
    }

    /// The processes that live in it, by their command lines.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let command_line = |id: u32| {
            let text = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            (id, String::from_utf8_lossy(&text).replace('\0', " "))
        };
        process::rooted_in(&self.path("")).into_iter().map(command_line).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for pid in process::rooted_in(&self.path("")) {
            process::kill_tree(pid);
        }
        if std::thread::panicking() {
            eprintln!("--- the root's log:\n{}", self.holder.log());
        }
    }
}

fn directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    std::fs::create_dir(dir.path().join("root")).expect("it can be made");
    dir
}

/// Gives every id in a user namespace its own meaning, which only the outer root can.
async fn map_ids(pid: u32) {
    let ours = std::fs::read_link("/proc/self/ns/user").expect("there is one");
    crate::wait_until("there is a user namespace", crate::LONG, async || {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/user")).ok()?;
        (theirs != ours).then_some(())
    })
    .await;
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{file}"), "0 0 65536\n").expect("root may: the tests need root");
    }
}
