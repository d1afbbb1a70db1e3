//! A technician authorises the controller on the server, by the account's password.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::dropbear::Dropbear;
use ocpp_tunnel_tests::ports;
use ocpp_tunnel_tests::process::Output;
use ocpp_tunnel_tests::service::{Service, exchange};
use ocpp_tunnel_tests::sshd::{Account, PASSWORD, Sshd};
use ocpp_tunnel_tests::terminal::{converse, script};

/// A controller without OCPP, which publishes a service at `remote`.
struct Controller {
    agent: Agent,
    remote: u16,
    _echo: Service,
}

impl Controller {
    async fn new(change: impl FnOnce(Setup) -> Setup) -> Self {
        let (remote, echo) = (ports::free(), Service::echo().await);
        let setup =
            Setup::new().ocpp("mode = 'off'").ocpp("identity = 'CP001'").script(1, remote, &echo.address());
        Self { agent: Agent::new(change(setup)), remote, _echo: echo }
    }

    async fn install(&self, destination: &str, answers: &[(&str, &str)]) -> Output {
        self.agent.dialogue(&["keys", "install", destination], answers).await
    }

    async fn opens(&mut self, destination: &str) {
        self.agent.start().await;
        let opened = self.agent.cli(&["open", destination, "--wait"]).await;
        assert_eq!(opened.code, Some(0), "{opened:?}");
        assert_eq!(exchange(self.remote, b"hello").await.unwrap(), b"hello");
        self.agent.terminate().await;
    }
}

const PASSWORD_PROMPT: &str = "Password of support@";
const YES: (&str, &str) = ("Type yes if it is right: ", "yes\n");

fn typed(password: &str) -> String {
    format!("{password}\n")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Whatever ends it at the password's prompt, the terminal shows again what is typed.
#[tokio::test]
async fn no_signal_leaves_the_terminal_silent() {
    let sshd = Sshd::start_with_password("").await;
    let controller = Controller::new(|setup| setup).await;
    let install = controller.agent.line(&["keys", "install", &sshd.destination()]);
    let given_up = controller.install(&sshd.destination(), &[YES, (PASSWORD_PROMPT, "\u{4}")]).await;
    assert_eq!(given_up.code, Some(8), "{given_up:?}");
    assert!(given_up.stdout.contains("no password was given"), "{given_up:?}");
    let ended_by = async |how: &str, key: &str, code: i32| {
        let line = format!(
            "trap : INT QUIT; stty -a >$T/before; {how} {install}; echo ended $?; stty -a >$T/after; cmp $T/before $T/after && echo same"
        );
        let mut command = script(&line);
        let shown = converse(command.env("T", controller.agent.directory()), &[(PASSWORD_PROMPT, key)]).await;
        let rows: Vec<&str> = shown.stdout.lines().map(str::trim_end).collect();
        assert!(rows.ends_with(&[&format!("ended {code}"), "same"]), "{how} {key:?}: {}", shown.stdout);
        assert!(!shown.stdout.contains("secret"), "{}", shown.stdout);
    };
    ended_by("", "secret\u{3}", 130).await;
    ended_by("", "secret\u{1c}", 131).await;
    for (signal, code) in [("INT", 130), ("QUIT", 131), ("HUP", 129), ("TERM", 143)] {
        // A login over the loopback interface takes a fraction of that.
        ended_by(&format!("timeout --foreground --preserve-status -s {signal} 3"), "secret", code).await;
    }
}

#[tokio::test]
async fn a_person_installs_the_key_by_the_accounts_password_and_takes_it_off_again() {
    let sshd = Sshd::start_with_password("").await;
    let file = sshd.authorized_keys();
    let colleague = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNvbGxlYWd1ZQ colleague";
    sshd.authorize(colleague);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o664)).unwrap();
    std::fs::set_permissions(file.parent().unwrap(), PermissionsExt::from_mode(0o775)).unwrap();
    let mut controller = Controller::new(|setup| setup).await;
    let (agent, destination) = (&controller.agent, sshd.destination());
    let line = agent.authorized_keys_line().await;

    let password = typed(PASSWORD);
    let shown = controller.install(&destination, &[YES, (PASSWORD_PROMPT, &password)]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains(&sshd.host_key().fingerprint().await), "{shown:?}");
    assert!(shown.stdout.contains("installed: "), "{shown:?}");
    assert!(!shown.stdout.contains("correct horse"), "a password is never shown: {shown:?}");
    assert_eq!(text(&file), format!("{colleague}\n{line}"), "the restricted line, and others' stay");
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert!(
        text(&agent.known_hosts()).contains(&sshd.host_key().type_and_key()),
        "the server was vouched for"
    );
    assert_eq!(agent.record("device-key-installed").await["server"], *destination);
    assert_eq!(agent.record("host-keys-trusted").await["result"], "success");
    assert_eq!(sshd.logins(), 1, "the login with the key was proved");
    for file in std::fs::read_dir(agent.state_dir()).unwrap() {
        let path = file.unwrap().path();
        assert!(!path.is_file() || !text(&path).contains(PASSWORD), "{path:?}");
    }

    // Once is enough, and nobody is asked for anything.
    let again = controller.install(&destination, &[]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("already authorised"), "{again:?}");
    assert_eq!(text(&file), format!("{colleague}\n{line}"));
    controller.opens(&destination).await;

    let agent = &controller.agent;
    let removed = agent.dialogue(&["keys", "remove", &destination], &[(PASSWORD_PROMPT, &password)]).await;
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert_eq!(text(&file), format!("{colleague}\n"));
    assert_eq!(agent.record("device-key-removed").await["server"], *destination);
    let gone = agent.dialogue(&["keys", "remove", &destination], &[(PASSWORD_PROMPT, &password)]).await;
    assert_eq!(gone.code, Some(4), "{gone:?}");
    let records = agent.records(&["--type", "device-key-removed"]).await;
    let results: Vec<&str> = records.iter().map(|record| record["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["success", "failure"], "{records:#?}");
    let checked = agent.cli(&["check", &destination]).await;
    assert_eq!(checked.code, Some(8), "{checked:?}");
}

#[tokio::test]
async fn a_wrong_password_or_none_changes_nothing() {
    let sshd = Sshd::start_with_password("").await;
    let controller = Controller::new(|setup| setup.pin(&sshd.known_hosts_line())).await;
    // Ctrl-C, Ctrl-D at the beginning, and a word that is wrong.
    for (answer, code) in [("correct\x03", 130), ("\x04", 8), ("wrong\n", 8)] {
        let shown = controller.install(&sshd.destination(), &[(PASSWORD_PROMPT, answer)]).await;
        assert_eq!(shown.code, Some(code), "{answer:?}: {shown:?}");
        assert_eq!(shown.stdout.contains("--print"), code == 8, "{answer:?}: {shown:?}");
        assert!(
            !shown.stdout.contains("correct") && !shown.stdout.contains("wrong"),
            "{answer:?}: {shown:?}"
        );
    }
    assert_eq!(text(&sshd.authorized_keys()), "");
    let records = controller.agent.records(&["--type", "device-key-installed"]).await;
    let results: Vec<&str> = records.iter().map(|record| record["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["failure", "failure"], "of Ctrl-C there is none: {records:#?}");
    assert!(records[1]["why"].as_str().unwrap().contains("refused"), "{records:#?}");
    assert_eq!(sshd.log().matches("Failed password").count(), 1, "{}", sshd.log());
    // A mistake can be mended while typing.
    let mended = format!("wrong\x15{PASSWORD}x\x7f\n");
    let shown = controller.install(&sshd.destination(), &[(PASSWORD_PROMPT, &mended)]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let mut sshd = Sshd::start_with_password("").await;
    let controller = Controller::new(|setup| setup).await;
    let destination = sshd.destination();
    for answer in ["no\n", "y\n", "\n"] {
        let shown = controller.install(&destination, &[(YES.0, answer)]).await;
        assert_eq!(shown.code, Some(7), "{shown:?}");
    }
    assert!(!controller.agent.known_hosts().exists());
    assert!(!sshd.log().contains("userauth-request"), "{}", sshd.log());

    // One that is known, and shows another key, isn't even asked about.
    let known = sshd.known_hosts_line();
    sshd.kill().await;
    sshd.change_host_key().await;
    sshd.resume().await;
    controller.agent.write_known_hosts(&format!("{known}\n"));
    let shown = controller.install(&destination, &[]).await;
    assert_eq!(shown.code, Some(7), "{shown:?}");
    assert!(shown.stdout.contains("host-keys remove"), "{shown:?}");
    assert!(!sshd.log().contains("userauth-request"), "{}", sshd.log());
}

#[tokio::test]
async fn a_server_that_asks_in_its_own_words_is_answered() {
    let account = Account { password: true, ..Account::default() };
    let settings = "UsePAM yes\nKbdInteractiveAuthentication yes\n";
    let sshd = Sshd::start_for(account, Ipv4Addr::LOCALHOST.into(), settings).await;
    let mut controller = Controller::new(|setup| setup.pin(&sshd.known_hosts_line())).await;
    let password = typed(PASSWORD);
    let prompt = format!("({}) Password: ", sshd.destination());
    let shown = controller.install(&sshd.destination(), &[(&prompt, &password)]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(!shown.stdout.contains("correct horse"), "{shown:?}");
    assert!(sshd.log().contains("Accepted keyboard-interactive/pam"), "{}", sshd.log());
    controller.opens(&sshd.destination()).await;
}

#[tokio::test]
async fn dropbear_gets_the_line_that_it_understands_with_a_warning() {
    let dropbear = Dropbear::start_with_password().await;
    let mut controller = Controller::new(|setup| setup.pin(&dropbear.known_hosts_line())).await;
    let password = typed(PASSWORD);
    let shown = controller.install(&dropbear.destination(), &[(PASSWORD_PROMPT, &password)]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("doesn't restrict which ports"), "{shown:?}");
    let line = controller.agent.cli(&["keys", "show", "--authorized-keys", "--dropbear"]).await.stdout;
    assert_eq!(text(&dropbear.authorized_keys()), line);
    controller.opens(&dropbear.destination()).await;
    let remove = ["keys", "remove", &dropbear.destination()];
    let removed = controller.agent.dialogue(&remove, &[(PASSWORD_PROMPT, &password)]).await;
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert_eq!(text(&dropbear.authorized_keys()), "");
}

#[tokio::test]
async fn what_the_server_does_not_allow_is_said_with_the_way_by_hand() {
    // No passwords at all.
    let sshd = Sshd::start().await;
    let controller = Controller::new(|setup| setup.pin(&sshd.known_hosts_line())).await;
    let shown = controller.install(&sshd.destination(), &[]).await;
    assert_eq!(shown.code, Some(8), "{shown:?}");
    assert!(shown.stdout.contains("takes no password") && shown.stdout.contains("--print"), "{shown:?}");

    // An account that runs nothing.
    let account = Account { password: true, shell: "/usr/sbin/nologin" };
    let sshd = Sshd::start_for(account, Ipv4Addr::LOCALHOST.into(), "PasswordAuthentication yes\n").await;
    let controller = Controller::new(|setup| setup.pin(&sshd.known_hosts_line())).await;
    let shown = controller.install(&sshd.destination(), &[(PASSWORD_PROMPT, &typed(PASSWORD))]).await;
    assert_eq!(shown.code, Some(1), "{shown:?}");
    assert!(shown.stdout.contains("not available") && shown.stdout.contains("--print"), "{shown:?}");
    assert_eq!(text(&sshd.authorized_keys()), "");

    // A line that is there and doesn't help.
    let sshd = Sshd::start_with_password("PubkeyAuthentication no\n").await;
    let controller = Controller::new(|setup| setup.pin(&sshd.known_hosts_line())).await;
    let shown = controller.install(&sshd.destination(), &[(PASSWORD_PROMPT, &typed(PASSWORD))]).await;
    assert_eq!(shown.code, Some(8), "{shown:?}");
    assert!(
        shown.stdout.contains("refuses the key") && shown.stdout.contains("PubkeyAuthentication"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn root_asks_as_the_owner_of_the_state_directory_and_leaves_no_file_of_its_own() {
    let sshd = Sshd::start_with_password("").await;
    let controller = Controller::new(|setup| setup).await;
    let state = controller.agent.state_dir();
    assert_eq!(controller.agent.cli(&["keys", "show"]).await.code, Some(0));
    let chown = ["-R", "61234:61234", &state.display().to_string()].map(String::from);
    let output = ocpp_tunnel_tests::process::run(tokio::process::Command::new("chown").args(chown), "").await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let shown = controller.install(&sshd.destination(), &[YES, (PASSWORD_PROMPT, &typed(PASSWORD))]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(controller.agent.known_hosts().exists());
    for directory in [state.join("audit"), state] {
        for file in std::fs::read_dir(directory).unwrap() {
            let file = file.unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&file.metadata().unwrap()), 61_234, "{file:?}");
        }
    }
}

#[tokio::test]
async fn without_a_terminal_the_line_is_printed_and_nobody_is_asked() {
    let controller = Controller::new(|setup| setup).await;
    let agent = &controller.agent;
    // In a session of its own, it has no terminal, wherever the test runs.
    let mut command = tokio::process::Command::new("setsid");
    let install = agent.command(&["keys", "install", "support@203.0.113.7"]);
    command.arg("--wait").arg(install.as_std().get_program()).args(install.as_std().get_args());
    let refused = ocpp_tunnel_tests::process::run(&mut command, "password\n").await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--print"), "{refused:?}");

    let printed = agent.cli(&["keys", "install", "support@203.0.113.7", "--print"]).await;
    assert_eq!((printed.code, printed.stdout), (Some(0), agent.authorized_keys_line().await));
    assert!(printed.stderr.contains("~support/.ssh/authorized_keys on 203.0.113.7"), "{}", printed.stderr);
    let printed = agent.cli(&["keys", "install", "support@203.0.113.7", "--print", "--dropbear"]).await;
    assert_eq!(printed.stdout, agent.cli(&["keys", "show", "--authorized-keys", "--dropbear"]).await.stdout);
    let printed = agent.cli(&["keys", "remove", "support@203.0.113.7", "--print"]).await;
    assert!(agent.cli(&["keys", "show"]).await.stdout.starts_with(printed.stdout.trim()), "{printed:?}");
    for wrong in [&["keys", "install"][..], &["keys", "install", "host"], &["keys", "remove", "a@b c"]] {
        assert_eq!(agent.cli(wrong).await.code, Some(2), "{wrong:?}");
    }
}
