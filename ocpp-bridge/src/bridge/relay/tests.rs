//! Two legs in memory, with the test at both ends.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::{
    io::DuplexStream,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode},
};

use super::*;
use crate::{Access, ConfigurationStatus, LinkSecurity, link::connect::bounds};

type Peer = WebSocketStream<DuplexStream>;
type Ended = Result<Finished<&'static str>, Shutdown>;

struct World {
    controller: Peer,
    csms: Peer,
    relay: JoinHandle<Ended>,
    desk: Arc<Desk>,
    doubts: Arc<Notify>,
    interrupt: oneshot::Sender<&'static str>,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
}

/// Both ends of a WebSocket.
async fn web_socket(ours: Role, theirs: Role) -> (Peer, Peer) {
    let (one, other) = tokio::io::duplex(4096);
    let bounds = Some(bounds());
    (
        WebSocketStream::from_raw_socket(one, ours, bounds).await,
        WebSocketStream::from_raw_socket(other, theirs, bounds).await,
    )
}

impl World {
    async fn new(embedded: bool, ping_interval: Option<Duration>) -> Self {
        let (down, controller) = web_socket(Role::Server, Role::Client).await;
        let (up, csms) = web_socket(Role::Client, Role::Server).await;
        let leg = |socket, peer| Leg::new(socket, peer, now(), ping_interval, Duration::from_secs(5));
        let pair = Pair::new(leg(down, "the controller"), leg(up, "the CSMS"), embedded);
        let (commands, command_receiver) = mpsc::channel(4);
        let (event_sender, events) = mpsc::channel(4);
        let mut filter = Filter::new(fastrand::Rng::with_seed(1));
        filter.register("Script1", Access::ReadWrite).unwrap();
        filter.begin(now(), LinkSecurity::default());
        let mut all = Embedded::new(filter, command_receiver, event_sender);
        let desk = Arc::new(Desk::new("CP", None));
        let (interrupt, interrupted) = oneshot::channel();
        let doubts = Arc::new(Notify::new());
        let (told, doubted) = (Arc::clone(&desk), Arc::clone(&doubts));
        let relay = tokio::spawn(async move {
            pair.run(&mut all, &told, &doubted, async { interrupted.await.expect("the test goes on") }).await
        });
        Self { controller, csms, relay, desk, doubts, interrupt, commands, events }
    }

    async fn finished(self) -> Ended {
        let Self { controller, csms, relay, interrupt, commands, .. } = self;
        let ended = timeout(Duration::from_secs(30), relay).await.expect("it ends").unwrap();
        drop((controller, csms, interrupt, commands));
        ended
    }

    async fn ended(self) -> String {
        match self.finished().await {
            Ok(Finished::Ended { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }
}

async fn text(peer: &mut Peer) -> String {
    let next = timeout(Duration::from_secs(30), peer.next()).await.expect("something comes");
    match next {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn close_frame(peer: &mut Peer) -> Option<CloseFrame> {
    match timeout(Duration::from_secs(30), peer.next()).await.expect("something comes") {
        Some(Ok(Message::Close(frame))) => frame,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn whatever_is_sent_arrives_as_it_was_both_ways() {
    for embedded in [false, true] {
        let mut world = World::new(embedded, None).await;
        let long = format!("[2,\"1\" , \"MeterValues\",{{\"x\":\"{}\"}}]", "ü".repeat(100_000));
        for sent in ["no JSON", " [2,\"7\",\"DataTransfer\",{\"a\" : 1.50}]", "[]", "", &long] {
            world.controller.send(Message::text(sent)).await.unwrap();
            assert_eq!(text(&mut world.csms).await, sent);
            world.csms.send(Message::text(sent)).await.unwrap();
            assert_eq!(text(&mut world.controller).await, sent);
        }
        world.controller.send(Message::binary(vec![0, 255])).await.unwrap();
        assert_eq!(world.csms.next().await.unwrap().unwrap(), Message::binary(vec![0, 255]));
    }
}

#[tokio::test]
async fn a_close_code_is_passed_on_in_both_directions() {
    for side in [Side::Controller, Side::Csms] {
        let mut world = World::new(true, None).await;
        let frame = CloseFrame { code: CloseCode::Restart, reason: "back soon".into() };
        let (one, other) = match side {
            Side::Controller => (&mut world.controller, &mut world.csms),
            Side::Csms => (&mut world.csms, &mut world.controller),
        };
        one.close(Some(frame.clone())).await.unwrap();
        assert_eq!(close_frame(other).await, Some(frame.clone()));
        assert_eq!(close_frame(one).await, Some(frame), "and answered");
        let by = match side {
            Side::Controller => "the controller",
            Side::Csms => "the CSMS",
        };
        assert_eq!(world.ended().await, format!("{by} closed the connection: 1012 \"back soon\""));
    }
}

#[tokio::test]
async fn what_was_sent_before_a_break_arrives_before_it() {
    let World { mut controller, mut csms, relay, interrupt, commands, .. } = World::new(false, None).await;
    let sending = async {
        for number in 0..200 {
            controller.send(Message::text(format!("[{number}]"))).await.unwrap();
        }
        drop(controller);
    };
    let hearing = async {
        for number in 0..200 {
            assert_eq!(text(&mut csms).await, format!("[{number}]"));
        }
    };
    tokio::join!(sending, hearing);
    let ended = timeout(Duration::from_secs(30), relay).await.expect("it ends").unwrap();
    assert!(matches!(ended, Ok(Finished::Ended { .. })), "{ended:?}");
    drop((interrupt, commands));
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives_before_it() {
    let mut world = World::new(false, None).await;
    for number in 0..50 {
        world.controller.feed(Message::text(format!("[{number}]{}", "x".repeat(1000)))).await.unwrap();
        if number % 10 == 9 {
            world.controller.flush().await.unwrap();
            for number in number - 9..=number {
                assert!(text(&mut world.csms).await.starts_with(&format!("[{number}]")));
            }
        }
    }
    world.controller.send(Message::text("last")).await.unwrap();
    world.controller.close(None).await.unwrap();
    assert_eq!(text(&mut world.csms).await, "last");
    assert_eq!(close_frame(&mut world.csms).await, None);
}

#[tokio::test]
async fn a_loss_is_passed_on_as_a_loss() {
    let mut world = World::new(true, None).await;
    drop(std::mem::replace(&mut world.csms, web_socket(Role::Client, Role::Server).await.0));
    let next = timeout(Duration::from_secs(5), world.controller.next()).await.expect("it ends");
    assert!(matches!(next, None | Some(Err(_))), "{next:?}");
    assert_eq!(world.ended().await, "the CSMS closed the connection without saying why");
}

#[tokio::test]
async fn who_does_not_read_slows_the_other_down() {
    let mut world = World::new(true, None).await;
    let flood = async {
        for number in 0_u64.. {
            world
                .controller
                .send(Message::text(format!("[2,\"{number}\",\"MeterValues\",{{}}]{}", " ".repeat(4000))))
                .await
                .unwrap();
        }
    };
    assert!(timeout(Duration::from_secs(1), flood).await.is_err());
    // What is buffered on the way is little, and nothing of it is lost.
    let mut arrived = 0;
    while let Ok(Some(Ok(Message::Text(text)))) = timeout(Duration::from_millis(200), world.csms.next()).await
    {
        assert!(text.starts_with(&format!("[2,\"{arrived}\"")), "{text}");
        arrived += 1;
    }
    assert!((2..20).contains(&arrived), "{arrived}");
}

#[tokio::test]
async fn ours_is_answered_here_and_theirs_goes_on() {
    let mut world = World::new(true, None).await;
    let change =
        |id: &str, key: &str| json!([2, id, "ChangeConfiguration", {"key": key, "value": "v"}]).to_string();
    world.csms.send(Message::text(change("1", "Script1"))).await.unwrap();
    world.csms.send(Message::text(change("2", "Theirs"))).await.unwrap();
    assert_eq!(text(&mut world.controller).await, change("2", "Theirs"));
    let event = loop {
        match world.events.recv().await.unwrap() {
            Event::BootStatus { .. } => {}
            event => break event,
        }
    };
    let Event::ChangeConfiguration { request, .. } = event else { panic!("{event:?}") };
    let answer = Command::AnswerChange { request, status: ConfigurationStatus::Accepted };
    world.commands.send(answer).await.unwrap();
    assert_eq!(text(&mut world.csms).await, json!([3, "1", {"status": "Accepted"}]).to_string());
}

#[tokio::test(start_paused = true)]
async fn each_leg_has_pings_of_its_own_and_silence_ends_both() {
    let mut world = World::new(true, Some(Duration::from_secs(50))).await;
    let began = tokio::time::Instant::now();
    // Reading answers pings; the CSMS does, the controller stops.
    let reads = tokio::spawn(async move {
        while let Some(Ok(message)) = world.csms.next().await {
            assert!(matches!(message, Message::Ping(_)), "{message:?}");
        }
    });
    let ended = world.relay.await.unwrap();
    let Ok(Finished::Ended { reason, unproven: false }) = ended else { panic!("{ended:?}") };
    assert_eq!(reason, "the controller didn't answer a ping in 5 s");
    assert_eq!(began.elapsed().as_secs(), 55);
    sleep(Duration::from_secs(5)).await;
    assert!(reads.is_finished(), "the CSMS has heard of it");
    drop((world.controller, world.commands, world.interrupt));
}

#[tokio::test(start_paused = true)]
async fn a_doubt_has_the_controller_pinged_at_once() {
    let mut world = World::new(true, None).await;
    let began = tokio::time::Instant::now();
    sleep(Duration::from_secs(1)).await;
    world.doubts.notify_waiters();
    // The CSMS reads, the controller doesn't.
    assert!(matches!(world.csms.next().await, None | Some(Err(_))));
    assert_eq!(began.elapsed().as_secs(), 6);
    assert_eq!(world.ended().await, "the controller didn't answer a ping in 5 s");
}

#[tokio::test]
async fn the_end_of_the_embedder_is_told_to_both() {
    let mut world = World::new(true, None).await;
    drop(std::mem::replace(&mut world.commands, mpsc::channel(1).0));
    for peer in [&mut world.controller, &mut world.csms] {
        assert_eq!(close_frame(peer).await.unwrap().code, CloseCode::Away);
        peer.flush().await.unwrap();
    }
    assert!(matches!(world.finished().await, Err(Shutdown)));
}

#[tokio::test]
async fn an_interruption_ends_both_without_waiting_for_them() {
    let mut world = World::new(true, None).await;
    std::mem::replace(&mut world.interrupt, oneshot::channel().0).send("newer").unwrap();
    let relay = std::mem::replace(&mut world.relay, tokio::spawn(std::future::pending()));
    let finished = timeout(Duration::from_secs(1), relay).await.expect("nobody is waited for").unwrap();
    let Ok(Finished::Interrupted("newer", closing)) = finished else { panic!("{finished:?}") };
    for peer in [&mut world.controller, &mut world.csms] {
        assert_eq!(close_frame(peer).await.unwrap().code, CloseCode::Away);
        peer.flush().await.unwrap();
    }
    closing.await.unwrap();
}

#[tokio::test]
async fn what_passes_is_counted_and_timed_on_each_leg() {
    for embedded in [false, true] {
        let mut world = World::new(embedded, None).await;
        let call = r#"[2,"1","Heartbeat",{}]"#;
        world.controller.send(Message::text(call)).await.unwrap();
        assert_eq!(text(&mut world.csms).await, call);
        world.csms.send(Message::text(r#"[3,"1",{}]"#)).await.unwrap();
        assert_eq!(text(&mut world.controller).await, r#"[3,"1",{}]"#);
        let status = world.desk.watch();
        let (controller, csms) = (status.borrow().controller.unwrap(), status.borrow().csms.unwrap());
        assert_eq!((controller.frames_in, controller.bytes_in), (1, call.len() as u64));
        assert_eq!((csms.frames_out, csms.bytes_out), (1, call.len() as u64));
        assert_eq!((csms.frames_in, controller.frames_out), (1, 1));
        assert!(csms.last_frame >= Some(csms.since) && csms.round_trip.is_some());
        assert_eq!(controller.round_trip, None, "it was asked nothing");
    }
}
