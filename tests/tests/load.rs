//! Connections that stall, crawl, come in thousands or end in every possible way, through one tunnel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]
#![allow(clippy::print_stdout, reason = "what was measured, for who asks with --nocapture or sees it fail")]

use std::time::Duration;

use ocpp_tunnel_tests::engine::Engine;
use ocpp_tunnel_tests::figures::Figures;
use ocpp_tunnel_tests::service::{Manner, behave, checksum, round_trip};
use ocpp_tunnel_tests::{LONG, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// What others may notice of a connection that stalls or crawls.
const MEDIAN: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(3);
/// What slow services may cost: the budget of 8 MiB, and what its bookkeeping takes.
const GROWTH_KIB: u64 = 10 * 1024;

/// Sends messages there and back for as long as `until` lasts; how long each of them took.
async fn echoing(port: u16, until: impl Fn() -> bool) -> Vec<Duration> {
    let mut stream = behave(port, Manner::Echo).await.unwrap();
    let mut trips = Vec::new();
    while until() {
        trips.push(timeout(LONG, round_trip(&mut stream)).await.expect("an answer").unwrap());
        sleep(Duration::from_millis(20)).await;
    }
    trips
}

/// How much the agent's private memory grew at most while something went on, in KiB.
async fn growth_during<T>(engine: &Engine, work: impl Future<Output = T>) -> (T, u64) {
    let before = engine.figures();
    let mut largest = 0;
    let watch = async {
        loop {
            largest = engine.figures().grown_kib(&before).max(largest);
            sleep(Duration::from_millis(20)).await;
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = watch => unreachable!("it watches for ever"),
    };
    (result, largest)
}

fn judge(mut trips: Vec<Duration>) {
    trips.sort_unstable();
    let (median, latest) = (trips[trips.len() / 2], *trips.last().unwrap());
    println!("{} round trips: median {median:?}, latest {latest:?}", trips.len());
    assert!(median < MEDIAN, "the median of {} round trips is {median:?}", trips.len());
    assert!(latest < LATEST, "the latest of {} round trips took {latest:?}", trips.len());
}

#[tokio::test]
async fn a_stalled_connection_costs_the_others_neither_time_nor_the_device_memory() {
    let engine = Engine::start(|setup| setup).await;
    engine.open().await;
    assert!(engine.works().await);
    let before = engine.figures();
    let end = Instant::now() + Duration::from_secs(6);
    let mut active = JoinSet::new();
    for _ in 0..20 {
        active.spawn(echoing(engine.remote, move || Instant::now() < end));
    }
    let mut stalled = behave(engine.remote, Manner::Stall).await.unwrap();
    let write = async {
        let block = vec![7; 256 * 1024];
        while stalled.write_all(&block).await.is_ok() {}
    };
    let (heard, grown) = growth_during(&engine, timeout(LONG, write)).await;
    heard.expect("whoever writes to a stalled service hears of its end");
    let mut trips = Vec::new();
    while let Some(of_one) = active.join_next().await {
        trips.extend(of_one.unwrap());
    }
    judge(trips);
    println!("grown by {grown} KiB at most, by {} KiB in the end", engine.figures().grown_kib(&before));
    assert!(grown > GROWTH_KIB / 2, "the budget was used: {grown} KiB");
    assert!(grown < GROWTH_KIB, "grown by {grown} KiB");

    let tunnel = engine.tunnel().await;
    assert_eq!((&tunnel["state"], &tunnel["stalled"]), (&"up".into(), &1.into()), "{tunnel}");
    assert_eq!(engine.sshd.logins(), 1, "it is the same SSH connection");
    engine.agent.syslog().line_with("connection-reset-stalled").await;
}

/// Sends so many bytes to a service that takes 200 KB a second while another connection echoes.
async fn a_slow_reader_gets(bytes: u64) {
    let engine = Engine::start(|setup| setup).await;
    engine.open().await;
    let slow = behave(engine.remote, Manner::Slow).await.unwrap();
    let (mut from, mut to) = slow.into_split();
    let send = tokio::spawn(async move {
        let (mut sum, mut state) = (0, 1_u64);
        for _ in 0..bytes / 50_000 {
            let block: Vec<u8> = (0..50_000)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    state.to_be_bytes()[0]
                })
                .collect();
            sum = block.iter().fold(sum, |sum, byte| checksum(sum, *byte));
            to.write_all(&block).await.unwrap();
        }
        to.shutdown().await.unwrap();
        sum
    });
    let receive = tokio::spawn(async move { from.read_u64().await });
    let (trips, largest) = growth_during(&engine, echoing(engine.remote, || !receive.is_finished())).await;
    println!("grown by {largest} KiB at most");
    assert_eq!(receive.await.unwrap().unwrap(), send.await.unwrap(), "every byte has come, in its place");
    judge(trips);
    assert!(largest < GROWTH_KIB, "grown by {largest} KiB");
    let tunnel = engine.tunnel().await;
    assert_eq!((&tunnel["state"], &tunnel["stalled"]), (&"up".into(), &0.into()), "{tunnel}");
    assert_eq!(engine.sshd.logins(), 1, "it is the same SSH connection");
}

#[tokio::test]
async fn a_slow_reader_gets_everything_while_others_go_on() {
    a_slow_reader_gets(2_000_000).await;
}

#[tokio::test]
#[ignore = "soak: two minutes"]
async fn a_slow_reader_gets_more_than_the_budget_while_others_go_on() {
    a_slow_reader_gets(20_000_000).await;
}

#[tokio::test]
async fn each_end_may_finish_first_and_still_hears_the_other_out() {
    let engine = Engine::start(|setup| setup).await;
    engine.open().await;
    // The client has ended when the service answers.
    let mut stream = behave(engine.remote, Manner::AnswerLast).await.unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(answer, b"question");

    // The service has ended, and still takes what the client sends.
    let mut stream = behave(engine.remote, Manner::EndFirst).await.unwrap();
    assert_eq!(timeout(LONG, stream.read(&mut [0; 8])).await.expect("in time").unwrap(), 0);
    engine.has_connections(1).await;
    let before = engine.tunnel().await["bytes_in"].as_u64().unwrap();
    stream.write_all(&[1; 100_000]).await.unwrap();
    wait_until("the service has got it", LONG, async || {
        (engine.tunnel().await["bytes_in"] == before + 100_000).then_some(())
    })
    .await;
    drop(stream);
    engine.has_connections(0).await;
}

#[tokio::test]
async fn a_connection_that_either_end_breaks_frees_both() {
    let engine = Engine::start(|setup| setup).await;
    engine.open().await;
    assert!(engine.works().await);
    engine.has_connections(0).await;
    let before = engine.figures();

    for manner in [Manner::Close, Manner::Reset] {
        let mut stream = behave(engine.remote, manner).await.unwrap();
        let ended = timeout(LONG, stream.read(&mut [0; 8])).await.expect("the client hears of it");
        assert!(matches!(ended, Ok(0) | Err(_)), "{manner:?}");
        drop(stream);
        engine.has_connections(0).await;
    }
    // The client goes while the service sends all that it can, and the writer waits for a window that never opens.
    let stream = behave(engine.remote, Manner::Flood).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    engine.has_connections(0).await;
    // Neither end says anything when the service's end is reset, so the client is told.
    let mut quiet = behave(engine.remote, Manner::Reset).await.unwrap();
    engine.has_connections(0).await;
    assert!(matches!(timeout(LONG, quiet.read(&mut [0; 8])).await, Ok(Ok(0) | Err(_))));
    drop(quiet);
    engine.has_descriptors(before.descriptors).await;
    assert!(engine.works().await);
}

#[tokio::test]
async fn a_service_that_hangs_after_its_client_has_left_keeps_nothing_for_ever() {
    let engine = Engine::start(|setup| setup.policy("max_connections = 2")).await;
    engine.open().await;
    // It sends, so that the server notices its client's end, and reads nothing.
    let mut hanging = behave(engine.remote, Manner::Flood).await.unwrap();
    // More than the kernel holds for the service, less than the budget: it waits in the agent.
    let write = async {
        for _ in 0..24 {
            hanging.write_all(&[7; 256 * 1024]).await.unwrap();
        }
    };
    timeout(LONG, write).await.expect("the budget takes it");
    let before = engine.figures();
    assert_eq!(engine.tunnel().await["connections"], 1);
    hanging.set_zero_linger().unwrap();
    drop(hanging);
    engine.has_connections(0).await;
    engine.agent.syslog().line_with("connection-dropped-hanging").await;
    engine.has_descriptors(before.descriptors - 1).await;
    assert_eq!(engine.tunnel().await["stalled"], 0, "nobody waited for it");
    assert!(engine.works().await);
}

#[tokio::test]
async fn one_connection_too_many_is_refused_and_the_others_live() {
    let engine = Engine::start(|setup| setup.policy("max_connections = 2")).await;
    engine.open().await;
    let mut first = behave(engine.remote, Manner::Echo).await.unwrap();
    let mut second = behave(engine.remote, Manner::Echo).await.unwrap();
    round_trip(&mut first).await.unwrap();
    round_trip(&mut second).await.unwrap();
    let mut third = behave(engine.remote, Manner::Echo).await.unwrap();
    assert!(timeout(LONG, round_trip(&mut third)).await.expect("it hears so at once").is_err());
    engine.agent.syslog().line_with("channel-refused-full").await;
    assert_eq!(engine.tunnel().await["connections"], 2);
    round_trip(&mut first).await.unwrap();
    round_trip(&mut second).await.unwrap();
    drop(first);
    engine.has_connections(1).await;
    assert!(engine.works().await, "there is room again");
    round_trip(&mut second).await.unwrap();
}

/// Opens and ends so many connections, `at_once` at a time, ended by either side.
async fn many(engine: &Engine, count: usize, at_once: usize) {
    let mut going = JoinSet::new();
    for number in 0..count {
        if going.len() >= at_once {
            going.join_next().await.unwrap().unwrap();
        }
        let port = engine.remote;
        going.spawn(async move {
            let ended = timeout(LONG * 2, one(port, number)).await;
            ended.unwrap_or_else(|_| panic!("connection {number} hangs"));
        });
    }
    while let Some(ended) = going.join_next().await {
        ended.unwrap();
    }
}

async fn one(port: u16, number: usize) {
    let manner = [Manner::Echo, Manner::Close, Manner::AnswerLast, Manner::Reset, Manner::Flood][number % 5];
    let Ok(mut stream) = behave(port, manner).await else { panic!("connection {number} is refused") };
    match manner {
        Manner::Echo => drop(round_trip(&mut stream).await.unwrap()),
        Manner::AnswerLast => {
            stream.write_all(b"question").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"question");
        }
        Manner::Flood => drop(stream.read_exact(&mut [0; 100]).await.unwrap()),
        _ => drop(stream.read(&mut [0; 8]).await),
    }
}

/// Nothing may be left of so many connections.
async fn leaves_nothing(count: usize, at_once: usize) {
    let engine = Engine::start(|setup| setup.log_level("info")).await;
    engine.open().await;
    // The allocator and russh's buffers settle first.
    many(&engine, 200.min(count), 50).await;
    engine.has_connections(0).await;
    let before = engine.figures();
    let began = Instant::now();
    many(&engine, count, at_once).await;
    println!("{count} connections, {at_once} at once, took {:?}", began.elapsed());
    engine.has_connections(0).await;
    engine.has_descriptors(before.descriptors).await;
    let after = engine.figures();
    println!("before {before:?}, after {after:?}");
    engine.has_one_thread().await;
    assert!(after.grown_kib(&before) < 1024, "{before:?}, {after:?}");
    assert_eq!(engine.sshd.logins(), 1, "it is the same SSH connection");
    assert!(engine.works().await);
}

#[tokio::test]
async fn a_thousand_connections_in_a_row_leave_nothing_behind() {
    leaves_nothing(1000, 1).await;
}

#[tokio::test]
#[ignore = "soak: minutes"]
async fn ten_thousand_connections_in_a_row_leave_nothing_behind() {
    leaves_nothing(10_000, 1).await;
}

/// So many connections live at the same time, and all of them work. Twice, since an allocator keeps some of what the first
/// time took for the second one.
async fn at_once(count: usize) {
    let engine = Engine::start(|setup| setup.log_level("info")).await;
    engine.open().await;
    assert!(engine.works().await);
    engine.has_connections(0).await;
    let before = engine.figures();
    let full = live(&engine, count).await;
    let between = engine.figures();
    live(&engine, count).await;
    let after = engine.figures();
    println!("before {before:?}, full {full:?}, between {between:?}, after {after:?}");
    engine.has_one_thread().await;
    engine.has_descriptors(before.descriptors).await;
    assert!(after.grown_kib(&between) < 1024, "{before:?}, {full:?}, {between:?}, {after:?}");
    assert_eq!(engine.sshd.logins(), 1, "it is the same SSH connection");
}

async fn live(engine: &Engine, count: usize) -> Figures {
    let mut streams: Vec<TcpStream> = Vec::new();
    while streams.len() < count {
        // sshd lets 128 connections wait; the kernel breaks what comes beyond that.
        let mut opening = JoinSet::new();
        for _ in 0..50 {
            let port = engine.remote;
            opening.spawn(async move {
                let mut stream = behave(port, Manner::Echo).await.unwrap();
                timeout(LONG * 2, round_trip(&mut stream)).await.expect("it lives").unwrap();
                stream
            });
        }
        streams.extend(opening.join_all().await);
    }
    engine.has_connections(count as u64).await;
    let full = engine.figures();
    assert!(full.descriptors >= count, "{full:?}");
    for stream in &mut streams {
        timeout(LONG, round_trip(stream)).await.expect("it lives").unwrap();
    }
    drop(streams);
    engine.has_connections(0).await;
    full
}

#[tokio::test]
async fn two_hundred_connections_at_once_all_live_and_leave_nothing_behind() {
    at_once(200).await;
}

#[tokio::test]
#[ignore = "soak: a thousand sockets at each end"]
async fn a_thousand_connections_at_once_all_live_and_leave_nothing_behind() {
    at_once(1000).await;
}

#[tokio::test]
#[ignore = "soak: half a minute"]
async fn what_russh_keeps_of_connections_that_we_close_first_is_bounded() {
    let engine = Engine::start(|setup| setup.log_level("info")).await;
    engine.open().await;
    // Their service is gone, and these clients never hear of it, because they never look.
    let mut deaf = Vec::new();
    for _ in 0..1150 / 50 {
        for _ in 0..50 {
            deaf.extend(behave(engine.remote, Manner::Reset).await.ok());
        }
        sleep(Duration::from_millis(500)).await;
    }
    engine.agent.syslog().line_with("connections were cut short").await;
    drop(deaf);
    wait_until("the tunnel is back", LONG, async || engine.works().await.then_some(())).await;
    assert_eq!(engine.sshd.logins(), 2, "it was made anew once");
}
