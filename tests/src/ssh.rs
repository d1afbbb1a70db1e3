//! The `ssh` client of the person who uses a tunnel, and key pairs made by `ssh-keygen`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::process::{Output, run};
use crate::terminal::converse;

/// A key pair in two files, without a passphrase.
#[derive(Debug, Clone)]
pub struct KeyPair {
    private: PathBuf,
}

impl KeyPair {
    /// Makes an ed25519 one at `private` and `private` + `.pub`; one that is there already is replaced.
    pub async fn generate(private: &Path) -> Self {
        Self::generate_as(private, "ed25519").await
    }

    /// Makes one of this type, as `ssh-keygen -t` calls it; one that is there already is replaced with its certificate.
    pub async fn generate_as(private: &Path, kind: &str) -> Self {
        let pair = Self { private: private.to_owned() };
        for file in [private, &pair.certificate()] {
            let _ = std::fs::remove_file(file);
        }
        keygen(
            Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-C", "test", "-f"]).arg(private),
        )
        .await;
        pair
    }

    /// Signs another key, as `ssh-keygen -s` with these options does; a certificate that it has already is replaced.
    pub async fn certify(&self, subject: &Self, options: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-I", "test", "-s"]).arg(&self.private).args(options);
        keygen(command.arg(subject.private.with_extension("pub"))).await;
    }

    /// The file of its certificate, if it has one.
    pub fn certificate(&self) -> PathBuf {
        let mut name = self.private.file_name().unwrap_or_default().to_owned();
        name.push("-cert.pub");
        self.private.with_file_name(name)
    }

    /// The public half's fingerprint as `ssh-keygen -l` prints it.
    pub async fn fingerprint(&self) -> String {
        let output =
            keygen(Command::new("ssh-keygen").arg("-lf").arg(self.private.with_extension("pub"))).await;
        output.split(' ').nth(1).expect("the length comes before it").to_owned()
    }

    /// The file of the private half.
    pub fn private(&self) -> &Path {
        &self.private
    }

    /// The public half as `authorized_keys` wants it.
    pub fn public_line(&self) -> String {
        let line = std::fs::read_to_string(self.private.with_extension("pub")).expect("it was made");
        line.trim_end().to_owned()
    }

    /// A line of `known_hosts` that says: this key is the one of 127.0.0.1 on `port`.
    pub fn known_hosts_line(&self, port: u16) -> String {
        self.known_hosts_line_at(Ipv4Addr::LOCALHOST.into(), port)
    }

    /// The same for another address.
    pub fn known_hosts_line_at(&self, address: IpAddr, port: u16) -> String {
        format!("[{address}]:{port} {}", self.type_and_key())
    }

    /// The public half without its comment.
    pub fn type_and_key(&self) -> String {
        let line = self.public_line();
        let mut fields = line.split(' ');
        let (kind, key) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        format!("{kind} {key}")
    }
}

async fn keygen(command: &mut Command) -> String {
    let output = run(command, "").await;
    assert_eq!(output.code, Some(0), "{command:?}: {}", output.stderr);
    output.stdout
}

/// Someone who logs in with `ssh`, and checks host keys.
#[derive(Debug)]
pub struct Person {
    dir: tempfile::TempDir,
    key: KeyPair,
}

impl Person {
    /// A person with a key pair of their own.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let key = KeyPair::generate(&dir.path().join("key")).await;
        Self { dir, key }
    }

    /// Their public key, for `authorized_keys`.
    pub fn public_line(&self) -> String {
        self.key.public_line()
    }

    /// Runs `command` over ssh as `user` on 127.0.0.1, `port`, where `host_key` must be the one that answers.
    pub async fn runs(&self, command: &str, user: &str, port: u16, host_key: &KeyPair) -> Output {
        run(&mut self.login(&[], command, user, port, host_key), "").await
    }

    /// The same on a terminal that the server makes, with answers to what is asked there.
    pub async fn converses(
        &self,
        command: &str,
        user: &str,
        port: u16,
        host_key: &KeyPair,
        answers: &[(&str, &str)],
    ) -> Output {
        converse(&mut self.login(&["-tt"], command, user, port, host_key), answers).await
    }

    fn login(&self, options: &[&str], command: &str, user: &str, port: u16, host_key: &KeyPair) -> Command {
        let known_hosts = self.dir.path().join("known_hosts");
        std::fs::write(&known_hosts, format!("{}\n", host_key.known_hosts_line(port)))
            .expect("it can be written");
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10", "-o"])
            .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
            .arg("-i")
            .arg(self.key.private())
            .args(options)
            .args(["-p", &port.to_string(), &format!("{user}@127.0.0.1"), command]);
        ssh
    }
}
