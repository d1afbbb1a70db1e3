//! OCPP links that are dead without anybody having said so: a frozen CSMS, a network that swallows everything.

use std::time::Duration;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::network::Network;
use ocpp_tunnel_tests::proxy::{HttpProxy, Rules};
use ocpp_tunnel_tests::{LONG, wait_until};

/// Waits until the link isn't accepted any more, and returns why.
async fn gives_up(agent: &Agent, limit: Duration) -> String {
    wait_until("the agent gives the link up", limit, async || {
        let status = agent.status().await;
        status["ocpp"]["last_error"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_noticed_and_the_link_comes_back_with_it() {
    let mut csms = Csms::start(Options::default()).await;
    let network = Network::new();
    // It stands at the machine's end of the cable, and leads to the CSMS.
    let proxy = HttpProxy::start_at(network.address(), Rules::default()).await;
    let setup = Setup::new().csms(&csms).ocpp("ping_interval = '1s'");
    let runner = network.runner(setup.directory());
    let mut agent = Agent::new(setup.ocpp(&format!("proxy = '{}'", proxy.url())).runner(runner));
    agent.start().await;
    csms.wait_for("boots", 1).await;
    agent.link_is("accepted").await;

    network.drop_packets();
    let reason = gives_up(&agent, LONG * 2).await;
    assert!(reason.contains("didn't answer a ping in 20 s"), "{reason}");
    network.pass();
    agent.link_is("accepted").await;
    csms.wait_for("connections", 2).await;

    // A cable that is out and in again before anybody notices anything costs nothing.
    network.pull();
    tokio::time::sleep(Duration::from_secs(1)).await;
    network.plug();
    assert_eq!(csms.value("HeartbeatInterval").await, "300");
    assert_eq!(csms.counts().await.connections, 2);
}

#[tokio::test]
#[ignore = "soak: minutes"]
async fn a_frozen_csms_that_wants_no_pings_is_noticed_by_an_unanswered_heartbeat() {
    let mut csms = Csms::start(Options { interval: 1, ..Options::default() }).await;
    let mut agent = Agent::new(Setup::new().csms(&csms).ocpp("ping_interval = '0s'"));
    agent.start().await;
    csms.wait_for("heartbeats", 1).await;
    assert_eq!(csms.value("WebSocketPingInterval").await, "0");
    csms.freeze();
    let reason = gives_up(&agent, LONG * 3).await;
    assert!(reason.contains("didn't answer a ping in 20 s"), "{reason}");
    csms.thaw();
    agent.link_is("accepted").await;
    csms.wait_for("connections", 2).await;
}
