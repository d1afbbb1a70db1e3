//! The embedder changes how the link connects.

use ocpp_bridge::{AuthorizationKey, ConfigurationStatus, ConnectionProfile, Credentials};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::csms::{Answer, Csms};

fn connect(url: &str, key: &str, number: u64, at_once: bool) -> Command {
    let credentials = Credentials::new("CP", AuthorizationKey::parse(key.as_bytes()).unwrap()).unwrap();
    let profile =
        ConnectionProfile { urls: vec![Url::parse(url).unwrap()], credentials: Some(credentials), tls: None };
    Command::Connect { profile: Box::new(profile), number, at_once }
}

/// `Basic`, for `CP:key`.
const CP_KEY: &str = "Basic Q1A6a2V5";

#[tokio::test]
async fn the_answer_goes_out_before_the_link_is_made_anew() {
    let (old, new) = (Csms::start().await, Csms::start().await);
    let mut settings = settings(&old.url);
    settings.backoff.minimum = Duration::from_secs(3600);
    let mut agent = Agent::start(settings);
    let mut peer = old.accept_boot().await;
    let change = json!({"key": "InvokeCustomScript1", "value": "x"});
    peer.send(json!([2, "1", "ChangeConfiguration", change])).await;
    loop {
        if let Event::ChangeConfiguration { request, .. } = agent.event().await {
            agent.command(Command::AnswerChange { request, status: ConfigurationStatus::Accepted }).await;
            agent.command(connect(&new.url, "key", 1, true)).await;
            break;
        }
    }
    assert_eq!(peer.receive().await, json!([3, "1", {"status": "Accepted"}]));
    assert_eq!(peer.close_code().await, CloseCode::Restart);
    drop(peer);
    let peer = new.accept().await;
    assert_eq!(peer.headers["authorization"], CP_KEY);
    let status = agent.until(|status| status.profile == Some(1)).await;
    assert_eq!((status.url, status.last_error), (new.url, None), "it is no failure");
}

#[tokio::test]
async fn a_change_that_may_wait_waits_for_the_next_connection() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    agent.command(connect(&csms.url, "key", 1, false)).await;
    assert_eq!(peer.call("1", "GetConfiguration", json!({"key": ["x"]})).await[0], 3);
    drop(peer);
    assert_eq!(csms.accept().await.headers["authorization"], CP_KEY);
    agent.until(|status| status.attempts.profile == 1).await;
}

#[tokio::test]
async fn a_change_ends_a_wait_and_a_try_that_hangs() {
    let (old, new) = (Csms::start().await, Csms::start().await);
    let mut settings = settings(&old.url);
    settings.backoff.minimum = Duration::from_secs(3600);
    let mut agent = Agent::start(settings.clone());
    old.refuse(Answer::Status(401)).await;
    agent.until_state(LinkState::Backoff).await;
    agent.command(connect(&new.url, "key", 1, true)).await;
    new.accept().await;

    let agent = Agent::start(settings);
    let hanging = old.tcp().await;
    agent.command(connect(&new.url, "key", 1, true)).await;
    new.accept().await;
    drop(hanging);
}

#[tokio::test]
async fn attempts_tell_refusals_from_failures_and_begin_anew_with_a_profile() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    for (status, refused) in [(503, 0), (401, 1), (403, 2), (404, 3), (500, 3)] {
        let before = agent.status.borrow().attempts.failed;
        csms.refuse(Answer::Status(status)).await;
        let now = agent.until(|status| status.attempts.failed > before).await.attempts;
        assert_eq!((now.failed, now.refused, now.proven), (before + 1, refused, None), "HTTP {status}");
    }
    agent.command(connect(&csms.url, "key", 7, false)).await;
    let fresh = agent.until(|status| status.attempts.profile == 7).await.attempts;
    assert!(fresh.failed <= 1 && fresh.refused == 0, "{fresh:?}");
}

#[tokio::test]
async fn a_connection_proves_good_when_the_csms_says_something() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    // Let in, looked up, and sent away.
    csms.accept().await.socket.close(None).await.unwrap();
    let attempts = agent.until(|status| status.attempts.failed > 0).await.attempts;
    assert_eq!((attempts.refused, attempts.proven), (1, None));
    let peer = csms.accept_boot().await;
    agent.until(|status| status.attempts.proven == Some(0)).await;
    drop(peer);
    csms.accept().await;
    assert_eq!(agent.status.borrow().attempts.refused, 1, "the loss of a good one refuses nobody");
}

#[tokio::test(start_paused = true)]
async fn a_connection_proves_good_when_the_csms_lets_it_live() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let _peer = csms.accept().await;
    let start = tokio::time::Instant::now();
    agent.until(|status| status.attempts.proven == Some(0)).await;
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
}
