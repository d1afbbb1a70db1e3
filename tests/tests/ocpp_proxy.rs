//! A site that lets nothing out but an HTTP proxy: the OCPP link goes through it.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::proxy::{HttpProxy, Rules};
use ocpp_tunnel_tests::{LONG, wait_until};

async fn started(setup: Setup) -> Agent {
    let mut agent = Agent::new(setup);
    agent.start().await;
    agent
}

async fn fails_with(agent: &Agent, part: &str) -> String {
    wait_until(&format!("the link fails with {part:?}"), LONG, async || {
        let status = agent.status().await;
        let error = status["ocpp"]["last_error"].as_str().unwrap_or_default().to_owned();
        error.contains(part).then_some(error)
    })
    .await
}

#[tokio::test]
async fn the_link_goes_through_a_proxy_that_resolves_the_csmss_name() {
    let mut csms = Csms::start(Options::default()).await;
    let proxy = HttpProxy::start(Rules::default()).await;
    // No resolver knows this name.
    let url = format!("ws://csms.invalid:{}/ocpp", csms.port());
    let setup = Setup::new().csms(&csms).ocpp(&format!("url = '{url}'"));
    let agent = started(setup.ocpp(&format!("proxy = '{}'", proxy.url()))).await;
    csms.wait_for("boots", 1).await;
    assert_eq!(agent.link_is("accepted").await["url"], url);
    assert_eq!(csms.value("HeartbeatInterval").await, "300");
    let requests = proxy.requests();
    let request = format!("CONNECT csms.invalid:{0} HTTP/1.1\r\nHost: csms.invalid:{0}\r\n\r\n", csms.port());
    assert_eq!(requests.first(), Some(&request));
    // A connection that is lost comes back the same way.
    csms.drop_connection().await;
    csms.wait_for("connections", 2).await;
    assert_eq!(proxy.requests().len(), 2);
}

#[tokio::test]
async fn tls_reaches_through_the_proxy_to_the_csms_and_checks_its_name() {
    let mut csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let proxy = HttpProxy::start(Rules::default()).await;
    let setup = || Setup::new().csms(&csms).ocpp(&format!("proxy = '{}'", proxy.url()));
    let agent = started(setup()).await;
    assert_eq!(agent.link_is("accepted").await["profile"], 2);
    drop(agent);
    // The proxy leads to the same CSMS, whose certificate names another host.
    let url = format!("wss://csms.invalid:{}/ocpp", csms.port());
    let agent = started(setup().ocpp(&format!("url = '{url}'"))).await;
    let error = fails_with(&agent, "TLS: ").await;
    assert!(error.contains("name") || error.contains("127.0.0.1"), "{error}");
    assert_eq!(csms.counts().await.connections, 1);
}

#[tokio::test]
async fn the_proxys_password_stands_in_a_file_and_is_never_shown() {
    let csms = Csms::start(Options::default()).await;
    let rules = Rules { credentials: Some("c2l0ZTpPcGVuIHNlc2FtZQ==".into()), ..Rules::default() };
    let proxy = HttpProxy::start(rules).await;
    let setup = Setup::new().csms(&csms).ocpp(&format!("proxy = '{}'", proxy.url()));
    let file = setup.directory().join("proxy-password");
    std::fs::write(&file, "site:wrong\n").unwrap();
    let mut agent = started(setup.ocpp(&format!("proxy_authorization_file = '{}'", file.display()))).await;
    let error = fails_with(&agent, "doesn't take our user and password (407)").await;
    assert!(error.starts_with(&format!("the proxy {}", proxy.address())), "{error}");

    std::fs::write(&file, "site:Open sesame\n").unwrap();
    agent.terminate().await;
    agent.start().await;
    agent.link_is("accepted").await;
    let shown = agent.cli(&["config", "show"]).await.stdout;
    assert!(shown.contains("proxy-password") && !shown.contains("sesame"), "{shown}");
    assert!(!agent.log().contains("sesame") && !agent.log().contains("c2l0ZTp"), "{}", agent.log());

    std::fs::write(&file, "no colon").unwrap();
    let checked = agent.cli(&["config", "check"]).await;
    assert_eq!(checked.code, Some(78), "{checked:?}");
    assert!(checked.stderr.contains("ocpp.proxy_authorization_file"), "{checked:?}");
    assert!(checked.stderr.contains("does not hold one line user:password"), "{checked:?}");
}

#[tokio::test]
async fn what_the_proxy_does_not_want_is_said_and_tried_again() {
    let csms = Csms::start(Options::default()).await;
    let proxy = HttpProxy::start(Rules { only_port: Some(443), ..Rules::default() }).await;
    let agent = started(Setup::new().csms(&csms).ocpp(&format!("proxy = '{}'", proxy.url()))).await;
    fails_with(&agent, &format!("forbids connections to 127.0.0.1:{} (403)", csms.port())).await;
    proxy.change(Rules::default());
    agent.link_is("accepted").await;
    let address = proxy.address();
    drop(proxy);
    // What goes through it goes with it; the next try finds nobody.
    fails_with(&agent, &format!("TCP: no connection to the proxy {address}")).await;
}
