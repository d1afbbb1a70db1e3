use std::time::Instant;

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::csms::{Csms, Peer};

/// Accepts a charge point that sends a Heartbeat a second and waits 100 ms for its answer, and pings by itself never.
async fn quick_heartbeats() -> (Csms, Agent, Peer) {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    settings.ping_interval = Duration::ZERO;
    settings.pong_timeout = Duration::from_millis(300);
    let agent = Agent::start_with(
        settings,
        charge_point(|settings| settings.call_timeout = Duration::from_millis(100)),
    );
    let mut peer = csms.accept().await;
    peer.answer_boot(json!({"status": "Accepted", "interval": 1, "currentTime": "2026-11-21T10:00:00Z"}))
        .await;
    (csms, agent, peer)
}

#[tokio::test]
async fn a_csms_that_answers_nothing_is_pinged_even_where_pings_are_switched_off() {
    let (_csms, mut agent, _peer) = quick_heartbeats().await;
    agent.until_state(LinkState::Accepted).await;
    let start = Instant::now();
    // Nobody reads from the peer, so nobody answers pings.
    agent.until_error("didn't answer a ping in 0.3 s").await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_csms_that_answers_nothing_but_pings_is_given_up_after_three_calls() {
    let (csms, mut agent, mut peer) = quick_heartbeats().await;
    for _ in 0..3 {
        assert_eq!(peer.receive().await[2], "Heartbeat");
    }
    assert_eq!(peer.close_code().await, CloseCode::Protocol);
    drop(peer);
    agent.until_error("left 3 of our messages in a row unanswered").await;
    csms.accept().await;
}

#[tokio::test]
async fn a_csms_that_leaves_the_boot_unanswered_is_told_of_while_the_link_lasts() {
    let csms = Csms::start().await;
    let mut agent = Agent::start_with(
        settings(&csms.url),
        charge_point(|settings| settings.call_timeout = Duration::from_millis(100)),
    );
    let mut peer = csms.accept().await;
    assert_eq!(peer.receive().await[2], "BootNotification");
    let status = agent.until_error("unanswered").await;
    assert_eq!((status.state, status.profile), (LinkState::Booting, Some(0)));
}

#[tokio::test]
async fn a_csms_that_ignores_heartbeats_but_has_something_to_say_is_kept() {
    let (_csms, mut agent, mut peer) = quick_heartbeats().await;
    agent.until_state(LinkState::Accepted).await;
    for id in 0..5 {
        assert_eq!(peer.receive().await[2], "Heartbeat");
        let answer = peer.call(&id.to_string(), "GetConfiguration", json!({"key": ["x"]})).await;
        assert_eq!(answer[0], 3);
    }
    assert_eq!(agent.status.borrow().last_error, None);
}
