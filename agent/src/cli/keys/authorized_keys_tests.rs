use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI-ours";
const LINE: &str = "restrict,permitlisten=\"localhost:1\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI-ours CP 001 $(touch x) `touch y`";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI-other somebody";

#[test]
fn the_key_may_only_listen_where_the_scripts_do() {
    let slot = |remote: &str| Slot {
        number: 1,
        key: "K".into(),
        forward: format!("{remote}:127.0.0.1:22").parse().unwrap(),
    };
    assert_eq!(
        openssh_options(&[slot("localhost:1111"), slot("0"), slot("[::1]:7")]),
        "restrict,port-forwarding,permitlisten=\"localhost:1111\",permitlisten=\"localhost:*\",\
         permitlisten=\"[::1]:7\",permitopen=\"localhost:9\""
    );
    assert_eq!(
        openssh_options(&[slot("unix:/run/cp.sock")]),
        "restrict,port-forwarding,permitlisten=\"localhost:9\",permitopen=\"localhost:9\""
    );
}

#[test]
fn dropbear_is_told_by_its_version_line() {
    for (banner, dialect) in [
        ("SSH-2.0-dropbear_2022.83", Dialect::Dropbear),
        ("SSH-2.0-dropbear", Dialect::Dropbear),
        ("SSH-2.0-OpenSSH_9.2p1 Debian-2 dropbear", Dialect::OpenSsh),
        ("SSH-2.0-x", Dialect::OpenSsh),
        ("", Dialect::OpenSsh),
    ] {
        assert_eq!(Dialect::of_banner(banner), dialect, "{banner}");
    }
}

#[test]
fn the_command_is_read_alike_by_every_shell_that_an_account_may_have() {
    let inner = COMMAND.strip_prefix("exec sh -c '").and_then(|rest| rest.strip_suffix('\'')).unwrap();
    assert!(!inner.contains(['\'', '\n']), "it would end there");
    // csh expands `!` before anything but a space, even in single quotes.
    assert!(inner.match_indices('!').all(|(at, _)| inner[at + 1..].starts_with(' ')));
    assert!(!inner.contains("\\\\") && !inner.contains("\\'"), "fish would read that differently");
}

/// A home, and the shells that the account may have: this machine's, and BusyBox's where that is installed.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(".ssh/authorized_keys")
    }

    fn with(text: &str) -> Self {
        let home = Self::new();
        fs::create_dir(home.0.path().join(".ssh")).unwrap();
        fs::write(home.file(), text).unwrap();
        home
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn run(&self, task: Task) -> Option<Done> {
        self.run_with("PATH=/usr/sbin:/usr/bin:/sbin:/bin", task)
    }

    /// Everything in it is BusyBox's.
    fn run_with(&self, path: &str, task: Task) -> Option<Done> {
        let (name, path) = path.split_once('=').unwrap();
        let mut child = Command::new("sh")
            .args(["-c", COMMAND])
            .env_clear()
            .env("HOME", self.0.path())
            .env(name, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input(task, KEY, LINE).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let done = done(&output.stdout);
        assert_eq!(done.is_some(), output.status.success(), "{output:?}");
        done
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_line_is_added_once_with_the_right_modes_and_taken_out_again() {
    let home = Home::new();
    assert_eq!(home.run(Task::Remove), Some(Done::Absent));
    assert!(!home.file().exists(), "removing makes nothing");
    assert_eq!(home.run(Task::Install), Some(Done::Added));
    assert_eq!(home.text(), format!("{LINE}\n"));
    assert_eq!((mode(&home.0.path().join(".ssh")), mode(&home.file())), (0o700, 0o600));
    fs::set_permissions(home.file(), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(home.run(Task::Install), Some(Done::Present));
    assert_eq!(mode(&home.file()), 0o600);
    assert_eq!(home.text(), format!("{LINE}\n"));
    assert_eq!(home.run(Task::Remove), Some(Done::Removed));
    assert_eq!((home.text().as_str(), mode(&home.file())), ("", 0o600));
    let left: Vec<_> =
        fs::read_dir(home.0.path().join(".ssh")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["authorized_keys"], "no lock and no temporary file is left");
    assert_eq!(fs::read_dir(home.0.path()).unwrap().count(), 1, "nothing of the line was run");
}

#[test]
fn other_peoples_lines_stay_also_without_a_last_newline() {
    let home = Home::with(&format!("# {KEY} is not here\n\n{OTHER}"));
    assert_eq!(home.run(Task::Install), Some(Done::Added));
    assert_eq!(home.text(), format!("# {KEY} is not here\n\n{OTHER}\n{LINE}\n"));
    assert_eq!(home.run(Task::Remove), Some(Done::Removed));
    assert_eq!(home.text(), format!("\n{OTHER}\n"));
}

#[test]
fn what_a_link_leads_to_is_changed_and_the_link_stays() {
    let home = Home::with("");
    let real = home.0.path().join("the keys");
    fs::write(&real, format!("{OTHER}\n")).unwrap();
    fs::remove_file(home.file()).unwrap();
    symlink(&real, home.file()).unwrap();
    assert_eq!(home.run(Task::Install), Some(Done::Added));
    assert!(home.file().is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap(), format!("{OTHER}\n{LINE}\n"));
}

#[test]
fn a_file_that_can_not_be_replaced_stays_as_it_is() {
    // A directory in its place: not even root writes there.
    let home = Home::with("");
    fs::remove_file(home.file()).unwrap();
    fs::create_dir(home.file()).unwrap();
    assert_eq!(home.run(Task::Install), None);
    let left: Vec<_> =
        fs::read_dir(home.0.path().join(".ssh")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["authorized_keys"]);
}

#[test]
fn chargers_that_come_at_once_all_get_their_line() {
    let home = Home::new();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let home = &home;
            scope.spawn(move || {
                let (key, line) =
                    (format!("ssh-ed25519 KEY{number}"), format!("ssh-ed25519 KEY{number} CP{number}"));
                let mut child = Command::new("sh")
                    .args(["-c", COMMAND])
                    .env("HOME", home.0.path())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                child.stdin.take().unwrap().write_all(input(Task::Install, &key, &line).as_bytes()).unwrap();
                assert_eq!(done(&child.wait_with_output().unwrap().stdout), Some(Done::Added));
            });
        }
    });
    assert_eq!(home.text().lines().count(), 4);
}

#[test]
fn busybox_does_the_same() {
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        return; // The stories say so where it is missing.
    }
    let bin = tempfile::tempdir().unwrap();
    for applet in
        ["sh", "mkdir", "chmod", "rmdir", "sleep", "readlink", "grep", "cat", "tail", "printf", "mv", "rm"]
    {
        symlink(busybox, bin.path().join(applet)).unwrap();
    }
    let path = format!("PATH={}", bin.path().display());
    let home = Home::with(OTHER);
    for (task, expected) in [
        (Task::Install, Done::Added),
        (Task::Install, Done::Present),
        (Task::Remove, Done::Removed),
        (Task::Remove, Done::Absent),
    ] {
        assert_eq!(home.run_with(&path, task), Some(expected), "{task:?}");
    }
    assert_eq!(home.text(), format!("{OTHER}\n"));
}
