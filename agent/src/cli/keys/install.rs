//! `keys install` and `keys remove`: this device's key on a server, by the password of a person who is there.

use std::sync::Arc;

use reverse_tunnel::probe::{self, CommandOutput, Question, Reached};
use reverse_tunnel::{Destination, Failure, FailureKind, HostKeyPolicy, Identity, Probe};
use zeroize::Zeroizing;

use super::super::progress::Progress;
use super::super::words::{journal_lines, remark, say, show};
use super::super::{block_on, record, terminal};
use super::authorized_keys::{COMMAND, Dialect, Done, Task, done, input, key, line};
use crate::advice;
use crate::agent::{host_keys, host_keys_by};
use crate::audit::{Kind, Outcome, Record};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::journal;
use crate::way_out::WayOut;

/// Somebody must be there to type the password.
pub(super) fn check_usage(destination: &Destination, task: Task) -> Result<(), Problem> {
    let word = word(task);
    terminal::check().map_err(|_| {
        Problem::new(
            Exit::Usage,
            "nobody can be asked for the password: this is no terminal",
            format!("`ocpp-tunnel keys {word} {destination} --print` says how to do it by hand"),
        )
    })
}

/// What a person does by hand instead.
pub(super) fn print(
    config: &Config,
    identity: &Identity,
    destination: &Destination,
    task: Task,
    dialect: Dialect,
) {
    let (user, server) = (destination.user(), destination.server());
    let file = format!("~{user}/.ssh/authorized_keys on {server}");
    match task {
        Task::Install => {
            say(&line(&config.slots, identity, dialect));
            remark(&format!(
                "Append this line to {file}. The directory must have mode 0700, the file 0600, and both belong to {user}.\n\
                 `ocpp-tunnel check {destination}` tells whether it works."
            ));
            match dialect {
                Dialect::OpenSsh => {
                    remark(
                        "For dropbear's server, add --dropbear. On OpenWrt, root's file is /etc/dropbear/authorized_keys.",
                    );
                }
                Dialect::Dropbear => remark(super::DROPBEAR_REMARK),
            }
        }
        Task::Remove => {
            say(&key(identity));
            remark(&format!("Remove every line with this key from {file}."));
        }
    }
}

pub(super) fn main(
    config: &Config,
    identity: &Identity,
    destination: &Destination,
    task: Task,
) -> Result<Exit, Problem> {
    block_on(async {
        let done = terminal::restoring(change(config, identity, destination, task)).await;
        done.map_err(|error| {
            Problem::new(
                Exit::Error,
                format!("can't wait for signals: {error}"),
                "free some memory or descriptors",
            )
        })?
    })
}

async fn change(
    config: &Config,
    identity: &Identity,
    destination: &Destination,
    task: Task,
) -> Result<Exit, Problem> {
    let mut person = Person { destination, progress: Progress::new() };
    let (mut probe, banner) = connect(config, &mut person).await?;
    let host_key = probe.trusted().fingerprint.clone();
    if task == Task::Install {
        person.progress.show("trying the key");
        match probe.login(std::slice::from_ref(identity)).await {
            Ok(_) => {
                probe.end().await;
                drop(person);
                show(&format!("already authorised: {destination} takes the key {}", identity.fingerprint()));
                remark(&format!(
                    "`ocpp-tunnel check {destination}` tells whether it may listen on the scripts' ports."
                ));
                return Ok(Exit::Ok);
            }
            Err(failure) if failure.kind == FailureKind::Auth => {}
            Err(failure) => return Err(person.problem(&failure)),
        }
    }
    person.progress.clear();
    let logged_in = probe.login_by_password(&mut async |question| person.answer(question).await).await;
    let asked_for = match task {
        Task::Install => Kind::DeviceKeyInstalled,
        Task::Remove => Kind::DeviceKeyRemoved,
    };
    let told = |record: Record| {
        record
            .text("server", &destination.to_string())
            .text("key", &identity.fingerprint())
            .text("host_key", &host_key)
    };
    if let Err(failure) = logged_in {
        record(config, asked_for, Outcome::Failure, |record| told(record).text("why", &failure.text));
        return Err(password_problem(&failure, destination, task));
    }

    let dialect = Dialect::of_banner(&banner);
    person.progress.show("changing authorized_keys");
    let line = line(&config.slots, identity, dialect);
    let output = probe.run(COMMAND, input(task, &key(identity), &line).as_bytes()).await;
    let output = output.map_err(|failure| person.problem(&failure))?;
    probe.end().await;
    let Some(done) = done(&output.stdout) else { return Err(not_done(&output, destination, task)) };
    person.progress.clear();
    match done {
        Done::Added | Done::Removed => record(config, asked_for, Outcome::Success, told),
        // Nothing was done, and a person was let in.
        Done::Present => {
            record(config, asked_for, Outcome::Failure, |record| told(record).text("why", "it was there"));
        }
        Done::Absent => {
            record(config, asked_for, Outcome::Failure, |record| told(record).text("why", "it wasn't there"));
        }
    }
    match done {
        Done::Added | Done::Present => prove(config, identity, &mut person, done, dialect).await,
        Done::Removed => {
            show(&format!("removed: {destination} has the key {} no more", identity.fingerprint()));
            remark("Tunnels that are up stay; the next login is refused.");
            Ok(Exit::Ok)
        }
        Done::Absent => {
            let text = format!("{destination} doesn't have the key {}", identity.fingerprint());
            Err(Problem::new(
                Exit::NotFound,
                text,
                "look into the AuthorizedKeysFile of that server's sshd_config",
            ))
        }
    }
}

/// Who is asked, and who waits.
struct Person<'a> {
    destination: &'a Destination,
    progress: Progress,
}

impl Person<'_> {
    async fn answer(&mut self, question: Question) -> Option<Zeroizing<String>> {
        self.progress.clear();
        let destination = self.destination;
        let (text, echo) = match question.text {
            None => (format!("Password of {destination}: "), false),
            // The server's words: told apart from ours, and unable to move the cursor.
            Some(text) => (format!("({destination}) {}", journal::escape(&text)), question.echo),
        };
        let answer = if echo { terminal::answer(text).await } else { terminal::secret(text).await };
        match answer {
            Ok(answer) => answer,
            Err(error) => {
                remark(&format!("The answer can't be read: {error}"));
                None
            }
        }
    }

    fn problem(&self, failure: &Failure) -> Problem {
        problem(failure, self.destination)
    }
}

fn problem(failure: &Failure, destination: &Destination) -> Problem {
    let cure = advice::for_failure(failure.kind, destination);
    Problem::new(Exit::for_failure(failure.kind), failure.text.clone(), cure)
}

/// Connects, and has a person vouch for a server that nothing is known of.
async fn connect(config: &Config, person: &mut Person<'_>) -> Result<(Probe, String), Problem> {
    let destination = person.destination;
    let keys = host_keys_by(config, HostKeyPolicy::AcceptNew).without_learning();
    person.progress.show("connecting");
    let reached = reach(config, destination).await.map_err(|error| error.into_problem(destination))?;
    let (reached, banner) = reached;
    let probe = Probe::verify(reached, destination, Arc::new(keys)).await;
    let probe = probe.map_err(|failure| person.problem(&failure))?;
    person.progress.clear();
    let fingerprint = probe.trusted().fingerprint.clone();
    if let Some(place) = &probe.trusted().place {
        remark(&format!(
            "{} has the host key {fingerprint}, which is trusted ({place}).",
            destination.server()
        ));
        return Ok((probe, banner));
    }
    let question = format!(
        "{} has the host key {fingerprint}, and nothing is known of that server.\n\
         Compare it with what the server's operator told you. Type yes if it is right: ",
        destination.server()
    );
    let confirmed = terminal::confirmed(question).await.map_err(|error| {
        Problem::new(Exit::Error, format!("can't read the answer: {error}"), "try again on a terminal")
    })?;
    if !confirmed {
        let text = "the server isn't trusted: you didn't say yes; nothing was sent to it";
        return Err(Problem::new(Exit::HostKey, text, "compare and try again"));
    }
    probe.trust().map_err(|error| {
        Problem::new(Exit::Error, error.to_string(), "check ssh.known_hosts_file and its permissions")
    })?;
    record(config, Kind::HostKeysTrusted, Outcome::Success, |record| {
        record.text("server", &destination.server().to_string()).texts("host_keys", vec![fingerprint])
    });
    Ok((probe, banner))
}

enum ReachError {
    WayOut(String),
    Failed(Failure),
}

impl ReachError {
    fn into_problem(self, destination: &Destination) -> Problem {
        match self {
            Self::WayOut(text) => {
                Problem::new(Exit::Config, text, "check it with `ocpp-tunnel config check`")
            }
            Self::Failed(failure) => problem(&failure, destination),
        }
    }
}

impl From<Failure> for ReachError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn reach(config: &Config, destination: &Destination) -> Result<(Reached, String), ReachError> {
    let server = destination.server();
    let way_out = WayOut::new(&config.ssh).map_err(|error| ReachError::WayOut(error.to_string()))?;
    let route = way_out.route(server.host());
    let addresses = probe::addresses(server, &route).await?;
    let mut reached = Reached::connect(server, &route, &addresses).await?;
    let banner = reached.banner().await?;
    Ok((reached, banner))
}

/// A second connection, which logs in with the key and nothing else.
async fn prove(
    config: &Config,
    identity: &Identity,
    person: &mut Person<'_>,
    done: Done,
    dialect: Dialect,
) -> Result<Exit, Problem> {
    let destination = person.destination;
    person.progress.show("logging in with the key");
    let (reached, _) = reach(config, destination).await.map_err(|error| error.into_problem(destination))?;
    let keys = Arc::new(host_keys(config).without_learning());
    let probe = Probe::verify(reached, destination, keys).await;
    let mut probe = probe.map_err(|failure| person.problem(&failure))?;
    let login = probe.login(std::slice::from_ref(identity)).await;
    probe.end().await;
    person.progress.clear();
    let fingerprint = identity.fingerprint();
    match login {
        Ok(_) => {
            let what = if done == Done::Added { "installed" } else { "already authorised" };
            show(&format!("{what}: {destination} takes the key {fingerprint}"));
            if dialect == Dialect::Dropbear {
                remark(super::DROPBEAR_REMARK);
            }
            Ok(Exit::Ok)
        }
        Err(failure) if failure.kind == FailureKind::Auth => Err(Problem::new(
            Exit::Auth,
            format!(
                "the line is in ~/.ssh/authorized_keys of {destination}, and the server refuses the key {fingerprint} all the same"
            ),
            "see the server's log: AuthorizedKeysFile, PubkeyAuthentication, and the permissions of the account's home; \
             on OpenWrt, root's file is /etc/dropbear/authorized_keys",
        )),
        Err(failure) => Err(person.problem(&failure)),
    }
}

fn password_problem(failure: &Failure, destination: &Destination, task: Task) -> Problem {
    if failure.kind != FailureKind::Auth {
        return problem(failure, destination);
    }
    let cure = format!(
        "try again, or ask the server's operator: `ocpp-tunnel keys {} {destination} --print` says what to do by hand",
        word(task)
    );
    Problem::new(Exit::Auth, failure.text.clone(), cure)
}

/// The server has let us in, and the command didn't do its work.
fn not_done(output: &CommandOutput, destination: &Destination, task: Task) -> Problem {
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let said: String = String::from_utf8_lossy(said).trim().chars().take(200).collect();
    let text = match output.status {
        None => format!("{destination} may log in, and the server runs no command for it"),
        Some(status) => format!(
            "the server couldn't change ~/.ssh/authorized_keys of {destination} (status {status}): {said}"
        ),
    };
    let cure = format!(
        "`ocpp-tunnel keys {} {destination} --print` says what to do by hand, with an account that may",
        word(task)
    );
    Problem::new(Exit::Error, journal_lines(&text), cure)
}

fn word(task: Task) -> &'static str {
    match task {
        Task::Install => "install",
        Task::Remove => "remove",
    }
}
