//! Whose host keys are trusted, as known_hosts lines, certificates, announcements and people say.

use std::os::unix::fs::{MetadataExt, chown};

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::asyncssh::AsyncSsh;
use ocpp_tunnel_tests::process::{Output, run};
use ocpp_tunnel_tests::service::Service;
use ocpp_tunnel_tests::ssh::KeyPair;
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::{LONG, SHORT, ports, wait_until};
use serde_json::Value;
use tokio::process::Command;

/// A server, and an agent that nobody but its command line commands.
struct Rig {
    agent: Agent,
    sshd: Sshd,
    _echo: Service,
}

impl Rig {
    async fn start() -> Self {
        Self::with(|_, setup| setup).await
    }

    async fn with(change: impl FnOnce(&Sshd, Setup) -> Setup) -> Self {
        let mut rig = Self::unstarted(change).await;
        rig.agent.start().await;
        rig
    }

    async fn unstarted(change: impl FnOnce(&Sshd, Setup) -> Setup) -> Self {
        let sshd = Sshd::start().await;
        let echo = Service::echo().await;
        let setup = Setup::new().ocpp("mode = 'off'").script(1, ports::free(), &echo.address());
        let agent = Agent::new(change(&sshd, setup));
        sshd.authorize(&agent.authorized_keys_line().await);
        Self { agent, sshd, _echo: echo }
    }

    fn remember(&self, lines: &str) {
        self.agent.write_known_hosts(&format!("{lines}\n"));
    }

    fn remembered(&self) -> String {
        std::fs::read_to_string(self.agent.known_hosts()).unwrap_or_default()
    }

    /// `127.0.0.1:PORT`.
    fn server(&self) -> String {
        self.sshd.address()
    }

    /// Opens a tunnel and closes it again.
    async fn opens(&self) -> Output {
        let opened = self.agent.cli(&["open", &self.sshd.destination(), "--wait"]).await;
        assert_eq!(self.agent.cli(&["close", "1"]).await.code, Some(0));
        opened
    }

    /// That no tunnel opens, for this reason, and that the server gets to see nothing of us.
    async fn is_refused(&self, why: &str) {
        let before = self.sshd.log().len();
        let opened = self.opens().await;
        assert_eq!(opened.code, Some(7), "{why}: {opened:?}");
        assert!(opened.stderr.contains(why), "{why}: {opened:?}");
        let log = self.sshd.log();
        for trace in ["userauth-request", "Accepted publickey", "Failed publickey", "tcpip-forward"] {
            assert!(!log[before..].contains(trace), "{trace}: {}", &log[before..]);
        }
        let tunnel = self.agent.tunnel("1").await;
        assert_eq!(tunnel["reason"], "host-key-mismatch", "{tunnel}");
    }
}

/// Whether `ssh-keygen` finds a key of the host in the file; the lines that it prints.
async fn ssh_keygen_finds(rig: &Rig) -> Option<String> {
    let host = format!("[127.0.0.1]:{}", rig.sshd.port());
    let mut command = Command::new("ssh-keygen");
    let output = run(command.args(["-F", &host, "-f"]).arg(rig.agent.known_hosts()), "").await;
    (output.code == Some(0)).then_some(output.stdout)
}

#[tokio::test]
async fn lines_of_every_form_mean_what_they_mean_to_openssh() {
    let rig = Rig::with(|_, setup| setup.ssh("host_key_policy = 'strict'")).await;
    let (port, key) = (rig.sshd.port(), rig.sshd.host_key().type_and_key());
    for (names, found) in [
        (format!("[127.0.0.1]:{port}"), true),
        (format!("gw.example,[127.0.0.1]:{port},192.0.2.1"), true),
        (format!("[127.0.0.?]:{port}"), true),
        (format!("[127.*]:{port}"), true),
        ("*".to_owned(), true),
        (format!("*,![127.0.0.1]:{}", port + 1), true),
        (format!("*,![127.0.0.1]:{port}"), false),
        (format!("[127.0.0.1]:{port},!*"), false),
        (format!("![127.0.0.1]:{port}"), false),
        ("127.0.0.1".to_owned(), false),
        (format!("[127.0.0.1]:{}", port + 1), false),
    ] {
        rig.remember(&format!("# {names}\n\n{names}\t{key} comment"));
        assert_eq!(ssh_keygen_finds(&rig).await.is_some(), found, "{names}: ssh-keygen");
        match found {
            true => assert_eq!(rig.opens().await.code, Some(0), "{names}"),
            false => rig.is_refused("no host key of [127.0.0.1]:").await,
        }
        let before = rig.remembered();
        assert!(before.contains(&names), "nothing is changed: {before}");
    }
}

#[tokio::test]
async fn a_hashed_line_is_accepted_and_forgotten() {
    let rig = Rig::with(|_, setup| setup.ssh("host_key_policy = 'strict'")).await;
    rig.remember(&format!(
        "{}\ngw.example {}",
        rig.sshd.known_hosts_line(),
        rig.sshd.host_key().type_and_key()
    ));
    let mut hash = Command::new("ssh-keygen");
    let hashed = run(hash.args(["-q", "-H", "-f"]).arg(rig.agent.known_hosts()), "").await;
    assert_eq!(hashed.code, Some(0), "{hashed:?}");
    let content = rig.remembered();
    assert!(!content.contains("127.0.0.1") && content.matches("|1|").count() == 2, "{content}");

    assert_eq!(rig.opens().await.code, Some(0));
    let removed = rig.agent.cli(&["host-keys", "remove", &rig.server()]).await;
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert_eq!(rig.remembered(), content.lines().nth(1).unwrap().to_owned() + "\n", "the other host's stays");
    assert_eq!(ssh_keygen_finds(&rig).await, None);
    rig.is_refused("no host key of [127.0.0.1]:").await;
}

#[tokio::test]
async fn a_revoked_key_is_refused_even_where_it_is_pinned() {
    let rig = Rig::with(|sshd, setup| setup.pin(&sshd.known_hosts_line())).await;
    assert_eq!(rig.opens().await.code, Some(0));
    rig.remember(&format!("@revoked * {}", rig.sshd.host_key().type_and_key()));
    rig.is_refused("showed the revoked host key").await;
    rig.is_refused(&rig.sshd.host_key().fingerprint().await).await;
    let scanned = rig.agent.cli(&["host-keys", "scan", &rig.server()]).await;
    assert_eq!(scanned.code, Some(7), "{scanned:?}");
    assert!(scanned.stdout.contains("REVOKED"), "{scanned:?}");
}

#[tokio::test]
async fn a_certified_host_is_accepted_and_a_wrong_certificate_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = KeyPair::generate(&dir.path().join("ca")).await;
    let stranger = KeyPair::generate_as(&dir.path().join("stranger"), "ecdsa").await;
    let pin = format!("@cert-authority 127.0.0.* {}", authority.type_and_key());
    let mut rig = Rig::with(|_, setup| setup.pin(&pin)).await;
    rig.is_refused("known is the authority SHA256:").await;

    for (signer, options, why) in [
        (&authority, &["-h", "-n", "127.0.0.1", "-V", "-1d:+1d"][..], None),
        (&authority, &["-h", "-n", "gw.example,127.0.0.1", "-V", "always:forever"], None),
        (&authority, &["-h", "-n", "127.0.0.2"], Some("it is for 127.0.0.2, not for 127.0.0.1")),
        (&authority, &["-h"], Some("it names no host")),
        (
            &authority,
            &["-h", "-n", "127.0.0.1", "-V", "20200101:20210101"],
            Some(
                "it is valid from 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z, and this device's clock says 20",
            ),
        ),
        (&authority, &["-h", "-n", "127.0.0.1", "-V", "+1d:+2d"], Some("it is valid from 20")),
        (&stranger, &["-h", "-n", "127.0.0.1"], Some("it is signed by SHA256:")),
        (&authority, &["-n", "127.0.0.1"], Some("it is a user's, not a host's")),
        (
            &authority,
            &["-h", "-n", "127.0.0.1", "-O", "critical:nonsense@example.com=x"],
            Some("it has the unknown critical option nonsense@example.com"),
        ),
    ] {
        signer.certify(rig.sshd.host_key(), options).await;
        rig.sshd.kill().await;
        rig.sshd.resume().await;
        match why {
            None => {
                let opened = rig.opens().await;
                assert_eq!(opened.code, Some(0), "{options:?}: {opened:?}");
            }
            Some(why) => rig.is_refused(why).await,
        }
    }
    assert!(!rig.remembered().contains("127.0.0.1"), "nothing is learned");

    // A good one again, and its authority is compromised.
    authority.certify(rig.sshd.host_key(), &["-h", "-n", "127.0.0.1"]).await;
    rig.sshd.kill().await;
    rig.sshd.resume().await;
    assert_eq!(rig.opens().await.code, Some(0));
    rig.remember(&format!("@revoked * {}", authority.type_and_key()));
    rig.is_refused("of the revoked authority").await;
}

#[tokio::test]
async fn an_rsa_authority_vouches_for_every_type_of_key() {
    let dir = tempfile::tempdir().unwrap();
    let authority = KeyPair::generate_as(&dir.path().join("ca"), "rsa").await;
    let mut rig = Rig::with(|_, setup| setup.ssh("host_key_policy = 'strict'")).await;
    rig.remember(&format!("@cert-authority * {}", authority.type_and_key()));
    for kind in ["ecdsa", "rsa"] {
        rig.sshd.kill().await;
        rig.sshd.host_keys().clear();
        rig.sshd.add_host_key(kind).await;
        authority.certify(rig.sshd.host_key(), &["-h", "-n", "127.0.0.1"]).await;
        rig.sshd.resume().await;
        let opened = rig.opens().await;
        assert_eq!(opened.code, Some(0), "{kind}: {opened:?}");
    }
    // With SHA-1 the authority could be anybody.
    authority.certify(rig.sshd.host_key(), &["-h", "-n", "127.0.0.1", "-t", "ssh-rsa"]).await;
    rig.sshd.kill().await;
    rig.sshd.resume().await;
    rig.is_refused("its authority signed it with SHA-1").await;
}

#[tokio::test]
async fn who_reads_of_a_changed_key_finds_out_how_to_mend_it() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.opens().await.code, Some(0));
    rig.remember(&format!("# ours\n{}", rig.remembered().trim_end()));
    let old = rig.sshd.host_key().fingerprint().await;
    rig.sshd.kill().await;
    rig.sshd.change_host_key().await;
    rig.sshd.resume().await;
    let new = rig.sshd.host_key().fingerprint().await;
    let server = rig.server();

    let place = format!("{}:2", rig.agent.known_hosts().display());
    rig.is_refused(&format!("showed the host key {new}, known is {old} ({place})")).await;
    let (remove, trust) =
        (format!("ocpp-tunnel host-keys remove {server}"), format!("ocpp-tunnel host-keys trust {server}"));
    let opened = rig.opens().await;
    assert!(opened.stderr.contains(&remove) && opened.stderr.contains(&trust), "{opened:?}");

    // What it says is done, word by word; first in the wrong order.
    let trusted = rig.agent.cli(&["host-keys", "trust", &server, "--fingerprint", &new]).await;
    assert_eq!(trusted.code, Some(7), "{trusted:?}");
    assert!(trusted.stderr.contains(&remove), "{trusted:?}");
    let removed = rig.agent.cli(&["host-keys", "remove", &server]).await;
    assert_eq!((removed.code, removed.stdout.contains("removed 1 key of")), (Some(0), true), "{removed:?}");
    assert_eq!(rig.agent.cli(&["host-keys", "remove", &server]).await.code, Some(4));
    let trusted = rig.agent.cli(&["host-keys", "trust", &server, "--fingerprint", &new]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    assert_eq!(rig.remembered(), format!("# ours\n{}\n", rig.sshd.known_hosts_line()));
    assert_eq!(rig.opens().await.code, Some(0), "the running agent reads the file again");
}

#[tokio::test]
async fn list_shows_every_line_and_where_it_comes_from() {
    let pin = KeyPair::generate(&tempfile::tempdir().unwrap().keep().join("pin")).await;
    let rig =
        Rig::unstarted(|_, setup| setup.pin(&format!("gw.example,192.0.2.1 {}", pin.type_and_key()))).await;
    rig.remember(&format!("# a comment\n@revoked * {}\nnonsense", rig.sshd.host_key().type_and_key()));
    let listed = rig.agent.cli(&["host-keys", "list", "--json"]).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let document: Value = serde_json::from_str(&listed.stdout).unwrap();
    let file = rig.agent.known_hosts();
    assert_eq!(
        document,
        serde_json::json!({"schema": 1, "host_keys": [
            {"source": "config", "place": "ssh.host_keys, line 1", "names": ["gw.example", "192.0.2.1"],
             "type": "ssh-ed25519", "fingerprint": pin.fingerprint().await, "marker": null},
            {"source": "file", "place": format!("{}:2", file.display()), "names": ["*"],
             "type": "ssh-ed25519", "fingerprint": rig.sshd.host_key().fingerprint().await, "marker": "@revoked"},
        ]})
    );
    assert!(listed.stderr.contains(&format!("{}:3 says nothing", file.display())), "{listed:?}");

    let words = rig.agent.cli(&["host-keys", "list"]).await;
    for part in ["gw.example,192.0.2.1", "@revoked *", &pin.fingerprint().await, "known_hosts:2"] {
        assert!(words.stdout.contains(part), "{part}: {words:?}");
    }
    std::fs::remove_dir_all(pin.private().parent().unwrap()).unwrap();
}

#[tokio::test]
async fn scan_shows_a_key_of_every_type_without_logging_in() {
    let mut rig = Rig::unstarted(|_, setup| setup).await;
    rig.sshd.kill().await;
    for kind in ["ecdsa", "rsa"] {
        rig.sshd.add_host_key(kind).await;
    }
    rig.sshd.resume().await;
    rig.remember(&rig.sshd.known_hosts_line());
    let scanned = rig.agent.cli(&["host-keys", "scan", &rig.server(), "--json"]).await;
    assert_eq!(scanned.code, Some(0), "{scanned:?}");
    let document: Value = serde_json::from_str(&scanned.stdout).unwrap();
    let (port, mut expected) = (rig.sshd.port(), Vec::new());
    for (key, kind, trust) in
        [(0, "ssh-ed25519", "trusted"), (1, "ecdsa-sha2-nistp256", "unknown"), (2, "ssh-rsa", "unknown")]
    {
        let fingerprint = rig.sshd.host_keys()[key].fingerprint().await;
        let line = rig.sshd.host_keys()[key].known_hosts_line(port);
        let why = (key == 0).then(|| format!("{}:1", rig.agent.known_hosts().display()));
        expected.push(serde_json::json!({
            "type": kind, "fingerprint": fingerprint, "authority": null, "trust": trust, "why": why,
            "line": line
        }));
    }
    assert_eq!(document["host_keys"], Value::from(expected), "{document}");
    assert!(!rig.sshd.log().contains("userauth-request"), "{}", rig.sshd.log());
    assert!(rig.remembered().lines().count() == 1, "nothing is learned");

    let nobody = format!("127.0.0.1:{}", ports::free());
    assert_eq!(rig.agent.cli(&["host-keys", "scan", &nobody]).await.code, Some(6));
    // Whoever waits for a request, as a web server does, is waited for in turn.
    let page = Service::page("no SSH").await;
    assert_eq!(rig.agent.cli(&["host-keys", "scan", &page.address()]).await.code, Some(11));
    for wrong in ["::1", "ops@127.0.0.1", "127.0.0.1:0", "-h:1"] {
        assert_eq!(rig.agent.cli(&["host-keys", "scan", "--", wrong]).await.code, Some(2), "{wrong}");
    }
}

#[tokio::test]
async fn trust_wants_a_fingerprint_or_a_yes() {
    let mut rig = Rig::unstarted(|_, setup| setup.ssh("host_key_policy = 'strict'")).await;
    rig.sshd.kill().await;
    rig.sshd.add_host_key("rsa").await;
    rig.sshd.resume().await;
    let server = rig.server();
    let (first, second) =
        (rig.sshd.host_keys()[0].fingerprint().await, rig.sshd.host_keys()[1].fingerprint().await);

    // Neither: nothing is even asked of the server.
    let connections = rig.sshd.connections();
    let asked = rig.agent.cli(&["host-keys", "trust", &server]).await;
    assert_eq!((asked.code, rig.sshd.connections()), (Some(2), connections), "{asked:?}");
    let nonsense = rig.agent.cli(&["host-keys", "trust", &server, "--fingerprint", "SHA256:x"]).await;
    assert_eq!(nonsense.code, Some(2), "{nonsense:?}");
    // Another's fingerprint, beside a right one.
    let other = format!("SHA256:{}", "A".repeat(43));
    let wrong = rig
        .agent
        .cli(&["host-keys", "trust", &server, "--fingerprint", &first, "--fingerprint", &other])
        .await;
    assert_eq!(wrong.code, Some(7), "{wrong:?}");
    // Anything but yes.
    for answer in ["no\n", "y\n", "\n"] {
        let asked = rig.agent.on_a_terminal(&["host-keys", "trust", &server], answer).await;
        assert_eq!(asked.code, Some(1), "{answer:?}: {asked:?}");
        assert!(asked.stdout.contains(&first) && asked.stdout.contains(&second), "{asked:?}");
    }
    assert_eq!(rig.remembered(), "");

    // The one that was named, and no other.
    let trusted = rig.agent.cli(&["host-keys", "trust", &server, "--fingerprint", &first]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    assert_eq!(rig.remembered(), rig.sshd.known_hosts_line() + "\n");
    // The rest, by a yes.
    let trusted = rig.agent.on_a_terminal(&["host-keys", "trust", &server], "yes\n").await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    let port = rig.sshd.port();
    let rsa = rig.sshd.host_keys()[1].known_hosts_line(port);
    assert_eq!(rig.remembered(), format!("{}\n{rsa}\n", rig.sshd.known_hosts_line()));
    let again = rig.agent.on_a_terminal(&["host-keys", "trust", &server], "").await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("trusted already"), "{again:?}");
    assert_eq!(rig.opens_alone().await, Some(0));
}

impl Rig {
    /// Opens a tunnel without a running agent.
    async fn opens_alone(&self) -> Option<i32> {
        let destination = self.sshd.destination();
        let opened = self.agent.cli(&["open", &destination, "--background", "--wait"]).await;
        assert_eq!(self.agent.cli(&["close", "--all"]).await.code, Some(0), "{opened:?}");
        opened.code
    }
}

#[tokio::test]
async fn a_pinned_host_is_never_learned() {
    let rig = Rig::unstarted(|sshd, setup| setup.pin(&sshd.known_hosts_line())).await;
    let fingerprint = rig.sshd.host_key().fingerprint().await;
    let trusted = rig.agent.cli(&["host-keys", "trust", &rig.server(), "--fingerprint", &fingerprint]).await;
    assert_eq!(trusted.code, Some(7), "{trusted:?}");
    assert!(trusted.stderr.contains("is pinned by the configuration (ssh.host_keys, line 1)"), "{trusted:?}");
    assert_eq!(rig.remembered(), "");
    let removed = rig.agent.cli(&["host-keys", "remove", &rig.server()]).await;
    assert_eq!(removed.code, Some(4), "{removed:?}");
    assert!(removed.stderr.contains("is pinned by the configuration"), "{removed:?}");
}

#[tokio::test]
async fn an_ipv6_server_is_written_in_brackets() {
    let port = ports::free();
    let sshd = Sshd::start_with(&format!("ListenAddress [::1]:{port}")).await;
    let agent = Agent::new(Setup::new().ocpp("mode = 'off'"));
    let server = format!("[::1]:{port}");
    let fingerprint = sshd.host_key().fingerprint().await;
    let trusted = agent.cli(&["host-keys", "trust", &server, "--fingerprint", &fingerprint]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    let content = std::fs::read_to_string(agent.known_hosts()).unwrap();
    assert_eq!(content, format!("[::1]:{port} {}\n", sshd.host_key().type_and_key()));
    assert_eq!(agent.cli(&["host-keys", "remove", &server]).await.code, Some(0));
    assert_eq!(std::fs::read_to_string(agent.known_hosts()).unwrap(), "");
}

#[tokio::test]
async fn root_leaves_no_file_of_its_own_in_the_state_directory() {
    const OWNER: u32 = 61_235;
    let rig = Rig::unstarted(|_, setup| setup).await;
    let audit = rig.agent.state_dir().join("audit");
    let records = || std::fs::read_dir(&audit).unwrap().flatten().map(|file| file.path());
    for file in [rig.agent.state_dir(), rig.agent.state_dir().join("id_ed25519"), audit.clone()]
        .into_iter()
        .chain(records())
    {
        chown(file, Some(OWNER), Some(OWNER)).unwrap();
    }
    std::fs::create_dir_all(rig.agent.runtime_dir()).unwrap();
    let fingerprint = rig.sshd.host_key().fingerprint().await;
    let trusted = rig.agent.cli(&["host-keys", "trust", &rig.server(), "--fingerprint", &fingerprint]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    assert_eq!(std::fs::metadata(rig.agent.known_hosts()).unwrap().uid(), OWNER);
    assert_eq!(rig.agent.cli(&["host-keys", "remove", &rig.server()]).await.code, Some(0));
    assert_eq!(std::fs::metadata(rig.agent.known_hosts()).unwrap().uid(), OWNER);
    let names: Vec<_> = std::fs::read_dir(rig.agent.state_dir()).unwrap().flatten().collect();
    assert_eq!(names.len(), 3, "no temporary file is left: {names:?}");
    assert_eq!(rig.agent.record("host-keys-removed").await["server"], rig.server());
    assert!(records().all(|file| std::fs::metadata(file).unwrap().uid() == OWNER));
}

#[tokio::test]
async fn a_server_exchanges_its_keys_while_the_old_one_is_trusted() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.opens().await.code, Some(0));
    let old = rig.sshd.known_hosts_line();
    assert_eq!(rig.remembered(), format!("{old}\n"));

    // The operator adds new keys beside the old one …
    rig.sshd.kill().await;
    for kind in ["rsa", "ecdsa"] {
        rig.sshd.add_host_key(kind).await;
    }
    rig.sshd.resume().await;
    let port = rig.sshd.port();
    let lines: Vec<String> = rig.sshd.host_keys().iter().map(|key| key.known_hosts_line(port)).collect();
    let destination = rig.sshd.destination();
    let opened = rig.agent.cli(&["open", &destination, "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    wait_until("all three keys are known", LONG, async || {
        (rig.remembered() == lines.join("\n") + "\n").then_some(())
    })
    .await;
    assert!(rig.sshd.log().contains("hostkeys-prove-00@openssh.com"), "{}", rig.sshd.log());

    // … and later takes the old one away.
    rig.sshd.kill().await;
    rig.sshd.host_keys().remove(0);
    rig.sshd.resume().await;
    rig.agent.tunnel_is("1", "up").await;
    wait_until("the old key is forgotten", LONG, async || {
        (rig.remembered() == lines[1..].join("\n") + "\n").then_some(())
    })
    .await;
    let log = rig.agent.syslog().lines().join("\n");
    assert!(log.contains("host-keys-exchanged"), "{log}");
}

#[tokio::test]
async fn an_announced_key_without_proof_is_not_learned() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = KeyPair::generate(&dir.path().join("foreign")).await;
    let echo = Service::echo().await;
    let server = AsyncSsh::start_announcing(ports::free(), &foreign).await;
    let setup = Setup::new().ocpp("mode = 'off'").script(1, ports::free(), &echo.address());
    let agent = Agent::run(setup).await;
    let opened = agent.cli(&["open", &server.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    wait_until("the proof is judged", LONG, async || {
        agent.log().contains("host-keys-not-proved").then_some(())
    })
    .await;
    let content = std::fs::read_to_string(agent.known_hosts()).unwrap();
    assert_eq!(content, server.known_hosts_line() + "\n");
    assert_eq!(agent.tunnel("1").await["state"], "up");
}

#[tokio::test]
async fn a_strict_agent_learns_no_announced_key() {
    let mut rig = Rig::with(|_, setup| setup.ssh("host_key_policy = 'strict'")).await;
    rig.sshd.kill().await;
    rig.sshd.add_host_key("ecdsa").await;
    rig.sshd.resume().await;
    rig.remember(&rig.sshd.known_hosts_line());
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    tokio::time::sleep(SHORT).await;
    assert_eq!(rig.remembered(), rig.sshd.known_hosts_line() + "\n");
    assert!(!rig.sshd.log().contains("hostkeys-prove-00@openssh.com"), "{}", rig.sshd.log());
}
