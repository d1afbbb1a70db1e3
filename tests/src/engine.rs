//! What the stories about the tunnel itself begin with: an agent without OCPP, an SSH server, and one local service that
//! does what each connection asks for.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::agent::{Agent, Setup};
use crate::figures::Figures;
use crate::network::Network;
use crate::service::{Manner, Service, behave, round_trip};
use crate::sshd::Sshd;
use crate::{LONG, ports, wait_until};

/// They end in this order: the network last.
#[derive(Debug)]
pub struct Engine {
    /// The agent; script 1 publishes the service.
    pub agent: Agent,
    /// The SSH server, which knows the agent's key, and whose key is pinned.
    pub sshd: Sshd,
    /// The local service.
    pub service: Service,
    /// The published port on the server.
    pub remote: u16,
    /// The network between agent and server, if it isn't the loopback interface.
    pub network: Option<Network>,
}

impl Engine {
    /// On the loopback interface.
    pub async fn start(change: impl FnOnce(Setup) -> Setup) -> Self {
        let sshd = Sshd::start_with(UNLIMITED).await;
        Self::with(sshd, Service::wayward().await, None, change).await
    }

    /// With the agent in a network of its own. The server gives a dead client's port free after three seconds.
    pub async fn in_network(change: impl FnOnce(Setup) -> Setup) -> Self {
        let network = Network::new();
        let sshd =
            Sshd::start_at(network.address().into(), &format!("{UNLIMITED}ClientAliveInterval 1\n")).await;
        let service = Service::start_at(network.address().into()).await;
        Self::with(sshd, service, Some(network), change).await
    }

    /// With this server.
    pub async fn with(
        sshd: Sshd,
        service: Service,
        network: Option<Network>,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        let remote = ports::free();
        let mut setup = Setup::new()
            .ocpp("mode = 'off'")
            .pin(&sshd.known_hosts_line())
            .allow(&sshd.destination())
            .script(1, remote, &service.address());
        if let Some(network) = &network {
            let runner = network.runner(setup.directory());
            setup = setup.runner(runner);
        }
        let agent = Agent::run(change(setup)).await;
        // Without the restrictions of the line that we advise: stories publish other ports as well.
        let line = agent.authorized_keys_line().await;
        sshd.authorize(line.find("ssh-ed25519").map_or(&*line, |key| &line[key..]));
        Self { agent, sshd, service, remote, network }
    }

    /// Opens script 1 and waits until it is up.
    pub async fn open(&self) {
        let opened = self.agent.cli(&["open", &self.sshd.destination(), "--wait"]).await;
        assert_eq!(opened.code, Some(0), "{opened:?}");
    }

    /// The tunnel's entry of `status`.
    pub async fn tunnel(&self) -> Value {
        self.agent.tunnel("1").await
    }

    /// Whether bytes make their way through the published port and back, within five seconds.
    pub async fn works(&self) -> bool {
        let trip = async {
            let mut stream = behave(self.remote, Manner::Echo).await.ok()?;
            round_trip(&mut stream).await.ok()
        };
        matches!(timeout(Duration::from_secs(5), trip).await, Ok(Some(_)))
    }

    /// Waits until they do.
    pub async fn comes_back(&self) {
        wait_until("the tunnel works", LONG * 2, async || self.works().await.then_some(())).await;
    }

    /// Waits until the tunnel is anything but up.
    pub async fn notices(&self, limit: Duration) {
        wait_until("the agent notices", limit, async || (self.tunnel().await["state"] != "up").then_some(()))
            .await;
    }

    /// Waits until so many forwarded connections are open.
    pub async fn has_connections(&self, count: u64) {
        wait_until(&format!("{count} connections are open"), LONG, async || {
            (self.tunnel().await["connections"] == count).then_some(())
        })
        .await;
    }

    /// Waits until the agent has no more than so many descriptors; each look at `status` takes one for a moment.
    pub async fn has_descriptors(&self, most: usize) {
        wait_until(&format!("{most} descriptors are open at most"), LONG, async || {
            (self.figures().descriptors <= most).then_some(())
        })
        .await;
    }

    /// Waits until only the agent's one thread is left: those that look up names and write files have ended.
    pub async fn has_one_thread(&self) {
        wait_until("one thread is left", LONG, async || (self.figures().threads == 1).then_some(())).await;
    }

    /// What the agent takes now.
    pub fn figures(&self) -> Figures {
        Figures::of(self.agent.pid())
    }
}

/// `MaxStartups` counts connections that haven't authenticated, and the stories break many.
const UNLIMITED: &str = "MaxStartups 1000:1:1000\n";
