//! A technician who has come in through the tunnel: what they close may be the ground that they stand on.

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::ports;
use ocpp_tunnel_tests::process::Output;
use ocpp_tunnel_tests::ssh::Person;
use ocpp_tunnel_tests::sshd::Sshd;

const QUESTION: &str = "Tunnel 1 carries your own login";

/// A device whose own SSH server is published by a tunnel, and a person who may log in there.
struct Controller {
    agent: Agent,
    person: Person,
    /// The device's own.
    local: Sshd,
    /// Where the tunnels lead.
    _server: Sshd,
    published: u16,
}

impl Controller {
    async fn start() -> Self {
        // As on many controllers, technicians are root.
        let local = Sshd::start_with("PermitRootLogin prohibit-password").await;
        let person = Person::new().await;
        local.authorize(&person.public_line());
        let server = Sshd::start().await;
        let (published, other) = (ports::free(), ports::free());
        let agent = Agent::run(
            Setup::new()
                .ocpp("mode = 'off'")
                .pin(&server.known_hosts_line())
                .allow(&server.destination())
                .script(1, published, &local.address())
                .script(2, other, &local.address()),
        )
        .await;
        server.authorize(&agent.authorized_keys_line().await);
        for script in ["1", "2"] {
            let opened = agent.cli(&["open", "--script", script, "--wait"]).await;
            assert_eq!(opened.code, Some(0), "{opened:?}");
        }
        Self { agent, person, local, _server: server, published }
    }

    /// Logs in through tunnel 1 and runs this there, on a terminal.
    async fn inside(&self, line: &str, answers: &[(&str, &str)]) -> Output {
        self.person.converses(line, "root", self.published, self.local.host_key(), answers).await
    }

    async fn is_up(&self, id: &str) -> bool {
        self.agent.tunnel(id).await["state"] == "up"
    }
}

#[tokio::test]
async fn closing_the_tunnel_of_ones_own_login_asks_first() {
    let controller = Controller::start().await;
    let close = controller.agent.line(&["close", "1"]);

    for (line, answer) in [
        (close.clone(), "n\n"),
        (close.clone(), "\n"),
        (controller.agent.line(&["close", "--all"]), "no\n"),
        // As sudo does it; the shell above it still knows.
        (format!("env -u SSH_CONNECTION {close}; exit $?"), "n\n"),
    ] {
        let kept = controller.inside(&line, &[(QUESTION, answer)]).await;
        assert_eq!(kept.code, Some(1), "{line}: {kept:?}");
        assert!(kept.stdout.contains("nothing was closed: you didn't say yes"), "{kept:?}");
        assert!(kept.stdout.contains("--yes"), "{kept:?}");
        assert!(controller.is_up("1").await && controller.is_up("2").await);
    }

    // Another tunnel is no business of this login.
    let other = controller.inside(&controller.agent.line(&["close", "2"]), &[]).await;
    assert_eq!(other.code, Some(0), "{other:?}");
    assert!(other.stdout.contains("tunnel 2 closed"), "{other:?}");

    let gone = controller.inside(&close, &[(QUESTION, "y\n")]).await;
    assert_eq!(gone.code, Some(255), "the login ends with the tunnel: {gone:?}");
    assert_eq!(controller.agent.tunnel_ends("1").await.as_deref(), Some("user"));
}

#[tokio::test]
async fn where_nobody_can_be_asked_the_tunnel_of_ones_own_login_stays_unless_yes_was_said() {
    let controller = Controller::start().await;
    let run = async |line: &str| {
        controller.person.runs(line, "root", controller.published, controller.local.host_key()).await
    };
    let refused = run(&controller.agent.line(&["close", "1"])).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("no terminal"), "{refused:?}");
    assert!(refused.stderr.contains("try: `ocpp-tunnel close 1 --yes`"), "{refused:?}");
    assert!(controller.is_up("1").await);

    // A login that is claimed and isn't there, as a multiplexer's shell may have it, is no reason to ask.
    let stale = format!("SSH_CONNECTION='127.0.0.1 9 127.0.0.1 {}' ", controller.local.port());
    let output = run(&(stale + &controller.agent.line(&["close", "2"]))).await;
    assert_eq!(output.code, Some(0), "{output:?}");

    let closed = run(&controller.agent.line(&["close", "--all", "--yes"])).await;
    assert_eq!(closed.code, Some(255), "the login ends with the tunnel: {closed:?}");
    assert_eq!(controller.agent.tunnel_ends("1").await.as_deref(), Some("user"));
}

#[tokio::test]
async fn a_login_that_came_another_way_is_not_asked() {
    let controller = Controller::start().await;
    let (person, local) = (&controller.person, &controller.local);
    let line = controller.agent.line(&["close", "1"]);
    let closed = person.converses(&line, "root", local.port(), local.host_key(), &[]).await;
    assert_eq!(closed.code, Some(0), "{closed:?}");
    assert!(closed.stdout.contains("tunnel 1 closed"), "{closed:?}");
}
