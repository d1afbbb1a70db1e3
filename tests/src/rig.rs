//! What most stories begin with: a CSMS, an SSH server, two local services, and an agent between them.

use std::time::Duration;

use crate::agent::{Agent, Setup};
use crate::csms::{Csms, Options};
use crate::ports;
use crate::service::{Service, exchange, fetch};
use crate::sshd::Sshd;
use crate::{LONG, wait_until};

/// The text of the page behind script 2.
pub const PAGE: &str = "<h1>Charge controller CP001</h1>";

/// The usual peers. The server's key is pinned, its account is allowed, and the agent's key is authorised there.
#[derive(Debug)]
pub struct Rig {
    /// The agent, connected to the CSMS.
    pub agent: Agent,
    /// The CSMS: plain WebSocket with Basic auth.
    pub csms: Csms,
    /// The SSH server.
    pub sshd: Sshd,
    /// The local service of script 1, which sends back what it gets.
    pub echo: Service,
    /// The local service of script 2, a web server.
    pub page: Service,
    /// The ports that the server is asked for, by scripts 1 and 2.
    pub remote: [u16; 2],
}

impl Rig {
    /// Starts them.
    pub async fn start() -> Self {
        Self::with(|setup| setup).await
    }

    /// Starts them, with changes to the agent's configuration.
    pub async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let csms = Csms::start(Options::default()).await;
        let mut rig = Self::unstarted(csms, change).await;
        rig.agent.start().await;
        rig.authorize(&rig.sshd).await;
        rig.csms.wait_for("boots", 1).await;
        rig.agent.link_is("accepted").await;
        rig
    }

    /// Starts the peers, and not the agent.
    pub async fn unstarted(csms: Csms, change: impl FnOnce(Setup) -> Setup) -> Self {
        Self::unstarted_with(Setup::new(), csms, change).await
    }

    /// The same, with what was set already.
    pub async fn unstarted_with(setup: Setup, csms: Csms, change: impl FnOnce(Setup) -> Setup) -> Self {
        let sshd = Sshd::start().await;
        let (echo, page) = (Service::echo().await, Service::page(PAGE).await);
        let remote = [ports::free(), ports::free()];
        let setup = setup
            .csms(&csms)
            .pin(&sshd.known_hosts_line())
            .allow(&sshd.destination())
            .script(1, remote[0], &echo.address())
            .script(2, remote[1], &page.address());
        Self { agent: Agent::new(change(setup)), csms, sshd, echo, page, remote }
    }

    /// Lets the agent's key into a server.
    pub async fn authorize(&self, sshd: &Sshd) {
        sshd.authorize(&self.agent.authorized_keys_line().await);
    }

    /// Opens script `number` to the server over OCPP and waits until it is up.
    pub async fn open(&mut self, number: u8) {
        let key = format!("InvokeCustomScript{number}");
        assert_eq!(self.csms.change(&key, &self.sshd.destination()).await, "Accepted");
        self.agent.tunnel_is(&number.to_string(), "up").await;
    }

    /// Whether bytes make their way through script 1's port and back.
    pub async fn echoes(&self) -> bool {
        let answer =
            tokio::time::timeout(Duration::from_secs(5), exchange(self.remote[0], b"are you there?")).await;
        matches!(answer, Ok(Ok(answer)) if answer == b"are you there?")
    }

    /// Waits until bytes make their way through script 1's port and back.
    pub async fn echo_returns(&self) {
        wait_until("bytes come back through the tunnel", LONG, async || self.echoes().await.then_some(()))
            .await;
    }

    /// Fetches the page through script 2's port, and returns the answer.
    pub async fn fetch_page(&self) -> String {
        fetch(self.remote[1]).await.expect("the page comes through the tunnel")
    }

    /// Waits until nothing holds the port of script `number` on the server any more.
    pub async fn port_is_free(&self, number: usize) {
        let port = self.remote[number - 1];
        wait_until(&format!("remote port {port} is free"), LONG, async || ports::is_free(port).then_some(()))
            .await;
    }
}
