use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use ocpp_bridge::{
    Call, CallId, ConfigurationStatus, LinkSecurity, Outcome, RegistrationStatus,
    limits::{self, MAX_CALLS},
};
use serde_json::{json, value::to_raw_value};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::*;
use crate::csms::Csms;

#[tokio::test]
async fn change_configuration_goes_to_the_embedder_and_back() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    assert_eq!(
        agent.event().await,
        Event::BootStatus { status: RegistrationStatus::Accepted, retry_in: None }
    );
    assert!(matches!(agent.event().await, Event::Clock(_)));

    let change = json!({"key": "invokecustomscript1", "value": "ops@example.com"});
    peer.send(json!([2, "1", "ChangeConfiguration", change])).await;
    let Event::ChangeConfiguration { request, key, value, security } = agent.event().await else { panic!() };
    assert_eq!((key.as_str(), value.as_str()), ("InvokeCustomScript1", "ops@example.com"));
    assert_eq!(security, LinkSecurity::default());

    // Another CALL overtakes the one that the embedder thinks about.
    let answer = peer.call("2", "SendLocalList", json!({})).await;
    assert_eq!((&answer[1], &answer[2]), (&json!("2"), &json!("NotSupported")));

    let status = Some("up".to_owned());
    agent.command(Command::SetValue { key: "InvokeCustomScript1Status".to_owned(), value: status }).await;
    agent.command(Command::AnswerChange { request, status: ConfigurationStatus::Accepted }).await;
    assert_eq!(peer.receive().await, json!([3, "1", {"status": "Accepted"}]));
    let answer = peer.call("3", "GetConfiguration", json!({"key": ["InvokeCustomScript1Status"]})).await;
    assert_eq!(answer[2]["configurationKey"][0]["value"], "up");
}

#[tokio::test]
async fn answers_to_boot_notification_are_shown() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept().await;
    let status = agent.until_state(LinkState::Booting).await;
    assert_eq!((status.boot, status.profile), (None, Some(0)));
    peer.answer_boot(json!({"status": "Pending", "interval": 1})).await;
    assert_eq!(agent.until_state(LinkState::Pending).await.boot, Some(RegistrationStatus::Pending));
    peer.answer_boot(json!({"status": "Rejected", "interval": 1})).await;
    agent.until_state(LinkState::Rejected).await;
    peer.answer_boot(json!({"status": "Accepted", "interval": 1})).await;
    agent.until_state(LinkState::Accepted).await;
    assert_eq!(peer.receive().await[2], "Heartbeat");
}

#[tokio::test]
async fn silent_csms_is_noticed_by_its_missing_pong() {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    settings.ping_interval = Duration::from_millis(50);
    settings.pong_timeout = Duration::from_millis(200);
    let mut agent = Agent::start(settings);
    let _half_open = csms.accept_boot().await;
    agent.until_error("didn't answer a ping in 0.2 s").await;
    let mut peer = csms.accept().await;
    let pinged = peer.socket.next().await.unwrap().unwrap();
    assert!(pinged.is_ping(), "{pinged:?}");
}

#[tokio::test]
async fn pings_keep_an_answering_csms() {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    settings.ping_interval = Duration::from_millis(20);
    let mut agent = Agent::start(settings);
    let mut peer = csms.accept_boot().await;
    for _ in 0..10 {
        let message = timeout(PATIENCE, peer.socket.next()).await.unwrap().unwrap().unwrap();
        assert!(message.is_ping(), "{message:?}");
    }
    assert_eq!(agent.until_state(LinkState::Accepted).await.last_error, None);
}

#[tokio::test]
async fn ping_interval_of_the_csms_takes_effect_at_once_and_0_switches_off() {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    settings.ping_interval = Duration::ZERO;
    let _agent = Agent::start(settings);
    let mut peer = csms.accept_boot().await;
    let change = |value: &str| json!({"key": "WebSocketPingInterval", "value": value});
    assert_eq!(peer.call("1", "ChangeConfiguration", change("-1")).await[2]["status"], "Rejected");
    assert_eq!(peer.call("2", "ChangeConfiguration", change("1")).await[2]["status"], "Accepted");
    let message = timeout(PATIENCE, peer.socket.next()).await.unwrap().unwrap().unwrap();
    assert!(message.is_ping(), "{message:?}");
    assert_eq!(peer.call("3", "ChangeConfiguration", change("0")).await[2]["status"], "Accepted");
    let nothing = timeout(Duration::from_millis(1500), peer.socket.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn closed_connection_is_replaced_and_its_reason_shown() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    agent.until_state(LinkState::Accepted).await;
    peer.socket
        .close(Some(CloseFrame { code: CloseCode::Restart, reason: "update\n".into() }))
        .await
        .unwrap();
    assert!(matches!(peer.next().await, Some(Message::Close(_))), "our side of the closing handshake");
    drop(peer);
    let status = agent.until_error("closed the connection: 1012 (service restart), \"update\\n\"").await;
    assert_eq!(status.boot, Some(RegistrationStatus::Accepted));
    let mut peer = csms.accept().await;
    agent.until_state(LinkState::Accepted).await;
    let answer = peer.call("1", "GetConfiguration", json!({"key": []})).await;
    assert_eq!(answer[0], 3, "no BootNotification after a reconnect: {answer}");
}

#[tokio::test]
async fn boot_on_reconnect_registers_anew() {
    let csms = Csms::start().await;
    let _agent =
        Agent::start_with(settings(&csms.url), charge_point(|settings| settings.boot_on_reconnect = true));
    drop(csms.accept_boot().await);
    csms.accept_boot().await;
}

#[tokio::test]
async fn answer_to_a_request_of_a_lost_connection_is_dropped() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    peer.send(json!([2, "1", "ChangeConfiguration", {"key": "InvokeCustomScript1", "value": "a@x"}])).await;
    let request = loop {
        if let Event::ChangeConfiguration { request, .. } = agent.event().await {
            break request;
        }
    };
    drop(peer);
    let mut peer = csms.accept().await;
    agent.command(Command::AnswerChange { request, status: ConfigurationStatus::Accepted }).await;
    let answer = peer.call("1", "SendLocalList", json!({})).await;
    assert_eq!(answer[2], "NotSupported", "the late answer would have come first: {answer}");
}

#[tokio::test]
async fn binary_message_is_refused_with_1003() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    peer.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(peer.close_code().await, CloseCode::Unsupported);
    drop(peer);
    agent.until_error("binary").await;
    csms.accept().await;
}

#[tokio::test]
async fn message_of_256_kib_is_read_and_a_longer_one_refused_with_1009() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    let mut longest = r#"[2,"1","SendLocalList",{}]"#.to_owned();
    longest.extend(std::iter::repeat_n(' ', limits::MAX_MESSAGE_BYTES - longest.len()));
    peer.socket.send(Message::text(longest.clone())).await.unwrap();
    assert_eq!(peer.receive().await[2], "NotSupported");
    longest.push(' ');
    let _ = peer.socket.send(Message::text(longest)).await;
    agent.until_error("too long").await;
    csms.accept().await;
}

#[tokio::test]
async fn slow_embedder_holds_up_the_csms_and_loses_nothing() {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    settings.ping_interval = Duration::from_millis(50);
    settings.pong_timeout = Duration::from_millis(100);
    let mut agent = Agent::start(settings);
    let mut peer = csms.accept_boot().await;
    // Many more than events, pending answers and outbox hold.
    let count = 100;
    for id in 0..count {
        let change = json!({"key": "InvokeCustomScript1", "value": id.to_string()});
        peer.send(json!([2, id.to_string(), "ChangeConfiguration", change])).await;
    }
    // Longer than a CSMS that is listened to may be silent.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(agent.status.borrow().last_error, None);
    let mut asked = 0;
    while asked < count {
        if let Event::ChangeConfiguration { request, value, .. } = agent.event().await {
            assert_eq!(value, asked.to_string());
            agent.command(Command::AnswerChange { request, status: ConfigurationStatus::Accepted }).await;
            assert_eq!(peer.receive().await, json!([3, value, {"status": "Accepted"}]));
            asked += 1;
        }
    }
}

#[tokio::test]
async fn embedder_that_listens_no_more_does_not_stop_the_link() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    agent.events.close();
    let mut peer = csms.accept_boot().await;
    for id in 0..50 {
        let change = json!({"key": "HeartbeatInterval", "value": (id + 1000).to_string()});
        assert_eq!(peer.call("1", "ChangeConfiguration", change).await[2]["status"], "Accepted");
    }
}

#[tokio::test]
async fn csms_that_does_not_read_holds_up_only_itself() {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    settings.ping_interval = Duration::from_millis(100);
    settings.pong_timeout = Duration::from_millis(500);
    let mut agent = Agent::start(settings);
    let mut peer = csms.accept_boot().await;
    agent.until_state(LinkState::Accepted).await;
    // Asks for all keys again and again without reading an answer, until the link gives up.
    let asking = async {
        loop {
            let message = json!([2, "1", "GetConfiguration", {}]).to_string();
            if peer.socket.send(Message::text(message)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        status = agent.until(|status| status.last_error.is_some()) => {
            assert_eq!(status.last_error.as_deref(), Some("the CSMS didn't answer a ping in 0.5 s"));
        }
    }
}

#[tokio::test]
async fn csms_that_reads_late_gets_every_answer() {
    let csms = Csms::start().await;
    let mut settings = settings(&csms.url);
    // No ping is to wake anybody.
    settings.ping_interval = Duration::ZERO;
    let _agent = Agent::start(settings);
    let (mut sender, mut receiver) = csms.accept_boot().await.socket.split();
    // More answers than the sockets' buffers hold.
    let count = 8000;
    let asking = async {
        for id in 0..count {
            let message = json!([2, id.to_string(), "GetConfiguration", {}]).to_string();
            sender.send(Message::text(message)).await.unwrap();
        }
    };
    let reading = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for id in 0..count {
            let message =
                timeout(PATIENCE, receiver.next()).await.expect("the link is stuck").unwrap().unwrap();
            assert!(message.to_text().unwrap().starts_with(&format!("[3,\"{id}\",")));
        }
    };
    tokio::join!(asking, reading);
}

#[tokio::test]
async fn shutdown_sends_what_is_left_and_a_close_frame() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    peer.send(json!([2, "1", "ChangeConfiguration", {"key": "InvokeCustomScript1", "value": ""}])).await;
    loop {
        if let Event::ChangeConfiguration { request, .. } = agent.event().await {
            agent.command(Command::AnswerChange { request, status: ConfigurationStatus::Rejected }).await;
            break;
        }
    }
    let stopping = tokio::spawn(agent.stop());
    assert_eq!(peer.receive().await, json!([3, "1", {"status": "Rejected"}]));
    assert_eq!(peer.close_code().await, CloseCode::Away);
    drop(peer);
    assert!(stopping.await.unwrap() < Duration::from_secs(1));
}

#[tokio::test]
async fn shutdown_waits_two_seconds_at_most_for_a_csms_that_does_not_close() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let _peer = csms.accept_boot().await;
    agent.until_state(LinkState::Accepted).await;
    let took = agent.stop().await;
    assert!((Duration::from_millis(1900)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn shutdown_is_immediate_in_a_handshake_and_in_back_off() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let stuck = csms.tcp().await;
    agent.until_state(LinkState::Connecting).await;
    assert!(agent.stop().await < Duration::from_secs(1));
    drop(stuck);

    let mut settings = settings(&csms.url);
    settings.backoff.minimum = Duration::from_secs(3600);
    drop(csms);
    let start = Instant::now();
    let mut agent = Agent::start(settings);
    agent.until_state(LinkState::Backoff).await;
    assert!(agent.stop().await < Duration::from_secs(1));
    assert!(start.elapsed() < PATIENCE);
}

#[tokio::test]
async fn states_are_printed_in_lower_case() {
    assert_eq!(format!("{:>10}|{}", LinkState::Accepted, LinkState::Backoff), "  accepted|backoff");
}

#[tokio::test]
async fn calls_of_the_embedder_are_sent_and_their_outcomes_come_back() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    agent.until_state(LinkState::Accepted).await;
    let call = |number: u64| {
        let payload = to_raw_value(&json!({"vendorId": "x"})).unwrap();
        Command::Call(Call { id: CallId(number), action: "DataTransfer", payload })
    };
    // More than there is place for, and a command behind them.
    let count = MAX_CALLS as u64 + 3;
    for number in 0..count {
        agent.command(call(number)).await;
    }
    let first = peer.receive().await;
    assert_eq!(first[2], "DataTransfer");
    peer.send(json!([3, first[1], {"status": "Accepted"}])).await;
    peer.receive().await;
    peer.socket.close(None).await.unwrap();

    let mut outcomes = std::collections::BTreeMap::new();
    while outcomes.len() < count as usize {
        if let Event::Called { id, outcome } = agent.event().await {
            assert!(outcomes.insert(id.0, outcome).is_none(), "{id:?} has two outcomes");
        }
    }
    assert!(matches!(&outcomes[&0], Outcome::Result(payload) if payload.get() == r#"{"status":"Accepted"}"#));
    assert!(outcomes.range(1..).all(|(_, outcome)| *outcome == Outcome::Lost), "{outcomes:?}");
}

#[tokio::test]
async fn reset_closes_the_connection_in_good_order_and_boots_anew() {
    let csms = Csms::start().await;
    let mut agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    agent.until_state(LinkState::Accepted).await;
    let answer = peer.call("r", "Reset", json!({"type": "Soft"})).await;
    assert_eq!(answer, json!([3, "r", {"status": "Accepted"}]));
    assert_eq!(peer.close_code().await, CloseCode::Away);
    drop(peer);
    let _peer = csms.accept_boot().await;
    let status = agent.until_state(LinkState::Accepted).await;
    assert_eq!(status.last_error, None, "what was asked for is no error");
    while agent.event().await != (Event::Reset { hard: false }) {}
}

#[tokio::test]
async fn before_a_reset_the_csms_can_answer_what_it_was_asked() {
    let csms = Csms::start().await;
    let agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    let payload = to_raw_value(&json!({"vendorId": "acme"})).unwrap();
    agent.command(Command::Call(Call { id: CallId(1), action: "DataTransfer", payload })).await;
    let asked = peer.receive().await;
    assert_eq!(asked[2], "DataTransfer");
    let answer = peer.call("r", "Reset", json!({"type": "Hard"})).await;
    assert_eq!(answer, json!([3, "r", {"status": "Accepted"}]));
    assert!(timeout(Duration::from_millis(300), peer.next()).await.is_err(), "it waits for the answer");
    peer.send(json!([3, asked[1], {"status": "Accepted"}])).await;
    assert_eq!(peer.close_code().await, CloseCode::Away);

    // One that never answers isn't waited for.
    let mut peer = csms.accept_boot().await;
    let payload = to_raw_value(&json!({"vendorId": "acme"})).unwrap();
    agent.command(Command::Call(Call { id: CallId(2), action: "DataTransfer", payload })).await;
    assert_eq!(peer.receive().await[2], "DataTransfer");
    peer.call("r", "Reset", json!({"type": "Hard"})).await;
    assert_eq!(peer.close_code().await, CloseCode::Away);
}

#[tokio::test]
async fn a_trigger_is_answered_first_over_the_wire_too() {
    let csms = Csms::start().await;
    let _agent = Agent::start(settings(&csms.url));
    let mut peer = csms.accept_boot().await;
    let answer = peer.call("t", "TriggerMessage", json!({"requestedMessage": "Heartbeat"})).await;
    assert_eq!(answer, json!([3, "t", {"status": "Accepted"}]));
    assert_eq!(peer.receive().await[2], "Heartbeat");
}
