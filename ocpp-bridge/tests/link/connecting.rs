use std::time::Instant;

use ocpp_bridge::{AuthorizationKey, Credentials};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::csms::{Answer, Csms, Peer};

#[tokio::test]
async fn identity_credentials_and_subprotocol_arrive() {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    let key = AuthorizationKey::parse(b"0001020304050607FFFFFFFFFFFFFFFFFFFFFFFF").unwrap();
    settings.identity = "AL/1000 ä".to_owned();
    settings.credentials = Some(Credentials::new("AL1000", key).unwrap());
    let mut agent = Agent::start(settings);
    let peer = csms.accept_boot().await;
    assert_eq!(peer.path, "/ocpp/AL%2F1000%20%C3%A4");
    assert_eq!(peer.headers["authorization"], "Basic QUwxMDAwOgABAgMEBQYH////////////////");
    assert_eq!(peer.headers["sec-websocket-protocol"], "ocpp1.6");
    let status = agent.until_state(LinkState::Accepted).await;
    assert_eq!((status.profile, status.url, status.last_error), (Some(1), csms.url.clone(), None));
}

#[tokio::test]
async fn without_credentials_there_is_no_header_and_profile_0() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let peer = csms.accept_boot().await;
    assert!(!peer.headers.contains_key("authorization"));
    assert_eq!(agent.until_state(LinkState::Accepted).await.profile, Some(0));
}

#[tokio::test]
async fn a_wait_ends_when_the_network_returns_and_lasts_without_it() {
    let csms = Csms::start().await;
    let (network, receiver) = watch::channel(());
    let mut settings = settings(&csms.url);
    settings.backoff = Backoff { minimum: Duration::from_secs(3600), random: Duration::ZERO, doublings: 0 };
    settings.network = Some(receiver);
    // What was told before the link began is no news.
    network.send_replace(());
    let mut agent = Agent::start(settings);
    csms.refuse(Answer::Status(503)).await;
    agent.until_state(LinkState::Backoff).await;
    network.send_replace(());
    csms.refuse(Answer::Status(503)).await;
    agent.until_state(LinkState::Backoff).await;
    drop(network);
    assert!(timeout(Duration::from_millis(300), csms.accept()).await.is_err(), "nobody told of anything");
    assert_eq!(agent.status.borrow().state, LinkState::Backoff);
}

#[tokio::test]
async fn refusals_are_told_apart_and_tried_again_until_accepted() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    for (status, words) in [
        (401, "refused the credentials"),
        (404, "unknown charge point"),
        (403, "refuses this charge point"),
        (429, "too many requests"),
        (503, "isn't available"),
        (500, "failed"),
        (301, "redirects"),
    ] {
        csms.refuse(Answer::Status(status)).await;
        let shown = agent.until_error(words).await;
        assert_eq!(shown.profile, None);
    }
    let mut peer = csms.accept().await;
    let booting = agent.until_state(LinkState::Booting).await;
    assert!(booting.last_error.is_some(), "an error stays until the CSMS accepts us");
    peer.answer_boot(json!({"status": "Pending", "interval": 300})).await;
    assert!(agent.until_state(LinkState::Pending).await.last_error.is_some());
    drop(peer);
    csms.accept().await;
}

#[tokio::test]
async fn accepted_clears_the_last_error() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    csms.refuse(Answer::Status(401)).await;
    agent.until_error("credentials").await;
    let _peer = csms.accept_boot().await;
    assert_eq!(agent.until_state(LinkState::Accepted).await.last_error, None);
}

#[tokio::test]
async fn csms_without_our_subprotocol_is_refused_in_plain_words() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    csms.refuse(Answer::Subprotocol(None)).await;
    agent.until_error("accepted no subprotocol").await;
    csms.refuse(Answer::Subprotocol(Some("ocpp2.0.1"))).await;
    agent.until_error("chose another subprotocol").await;
}

#[tokio::test]
async fn what_is_no_csms_is_said_to_be_none() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut tcp = csms.tcp().await;
    tcp.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
    agent.until_error("doesn't speak HTTP").await;
    let mut tcp = csms.tcp().await;
    let mut request = [0; 4096];
    let _ = tcp.read(&mut request).await.unwrap();
    drop(tcp);
    agent.until_error("closed the connection in the WebSocket handshake").await;
}

#[tokio::test]
async fn refused_connection_names_the_address() {
    let csms = Csms::start().await;
    let url = csms.url.clone();
    let port = csms.port();
    drop(csms);
    let mut agent = Agent::start(settings(&url));
    let status = agent.until_error("TCP: no connection to").await;
    assert!(status.last_error.unwrap().contains(&format!("127.0.0.1:{port}")));
    agent.until_state(LinkState::Backoff).await;
}

#[tokio::test]
async fn every_address_and_every_url_is_tried() {
    let dead = Csms::start().await;
    let dead_url = dead.url.clone();
    drop(dead);
    let csms = Csms::start().await;
    let mut settings = settings(&dead_url);
    // `localhost` may be ::1 first, where nobody listens.
    let url = format!("ws://localhost:{}/ocpp", csms.port());
    settings.urls.push(Url::parse(&url).unwrap());
    let mut agent = Agent::start(settings);
    let peer = csms.accept_boot().await;
    let status = agent.until_state(LinkState::Accepted).await;
    assert_eq!(status.url, url);
    drop(peer);
    // The one that worked is tried first.
    agent.until(|status| status.state != LinkState::Accepted).await;
    agent
        .until(|status| {
            matches!(status.state, LinkState::Connecting | LinkState::Accepted) && status.url == url
        })
        .await;
    let _peer = csms.accept().await;
}

#[tokio::test]
async fn waits_grow_until_a_connection_was_good() {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    settings.backoff = Backoff { minimum: Duration::from_millis(50), random: Duration::ZERO, doublings: 5 };
    let _agent = Agent::start(settings);
    let mut last = Instant::now();
    for failures in 0..5 {
        csms.refuse(Answer::Status(503)).await;
        let now = Instant::now();
        if failures > 0 {
            assert!(
                now - last >= Duration::from_millis(50 << (failures - 1)),
                "{failures}: {:?}",
                now - last
            );
        }
        last = now;
    }
    drop(csms.accept_boot().await);
    let lost = Instant::now();
    let _peer: Peer = csms.accept().await;
    assert!(
        lost.elapsed() < Duration::from_millis(700),
        "800 ms without a good connection: {:?}",
        lost.elapsed()
    );
}

#[tokio::test]
async fn a_busy_csms_is_left_alone_as_long_as_it_wants_and_others_are_tried_meanwhile() {
    let (busy, other) = (Csms::start().await, Csms::start().await);
    let (network, receiver) = watch::channel(());
    let mut settings = settings(&busy.url);
    settings.urls.push(Url::parse(&other.url).unwrap());
    settings.network = Some(receiver);
    let mut agent = Agent::start(settings);
    busy.refuse(Answer::Busy(503, 2)).await;
    let asked = Instant::now();
    agent.until_error("isn't available (HTTP 503, to be asked again in 2 s)").await;
    for _ in 0..3 {
        other.refuse(Answer::Status(500)).await;
        network.send_replace(());
    }
    assert!(asked.elapsed() < Duration::from_secs(1), "the other isn't held up: {:?}", asked.elapsed());
    let other_fails = async {
        loop {
            other.refuse(Answer::Status(500)).await;
        }
    };
    tokio::select! {
        _ = busy.accept() => {}
        () = other_fails => {}
    }
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn news_of_the_network_do_not_make_a_busy_csms_less_busy() {
    let csms = Csms::start().await;
    let (network, receiver) = watch::channel(());
    let mut settings = settings(&csms.url);
    settings.network = Some(receiver);
    let mut agent = Agent::start(settings);
    csms.refuse(Answer::Busy(429, 1)).await;
    let asked = Instant::now();
    agent.until_state(LinkState::Backoff).await;
    network.send_replace(());
    csms.accept().await;
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
}
