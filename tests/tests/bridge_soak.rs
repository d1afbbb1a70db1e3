//! Thirty-two controllers that talk through the bridge, hang up, and break their connections, as their CSMS does; the
//! CSMS goes away, and the agent too.
#![allow(clippy::print_stdout, reason = "what was counted, for who asks with --nocapture or sees it fail")]

use std::time::Duration;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::figures::Figures;
use ocpp_tunnel_tests::fleet::{Fleet, identity};
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::time::{Instant, sleep};

const CONTROLLERS: usize = 32;
/// What a controller may take of memory while it talks: each message is up to 20 KB, and in more than one buffer. What it
/// takes at rest, with messages as they are, is for the benchmark.
const CONTROLLER_KIB: u64 = 256;
/// What may stay behind after thousands of connections: the allocator's own.
const LEFT_KIB: u64 = 512;

#[tokio::test]
async fn nothing_is_lost_doubled_or_reordered_by_thirty_two_controllers_that_come_and_go() {
    soak(Duration::from_secs(20)).await;
}

#[tokio::test]
#[ignore = "soak: ten minutes of controllers that come and go"]
async fn ten_minutes_of_thirty_two_controllers_that_come_and_go() {
    soak(Duration::from_secs(600)).await;
}

/// A third of the time the agent is restarted and killed; then it lives on, so that its figures can be compared.
async fn soak(length: Duration) {
    let mut fleet = Fleet::start().await;
    let port = ports::free();
    let others: Vec<String> = (2..=CONTROLLERS).map(|number| format!("'{}'", identity(number))).collect();
    let setup = Setup::new()
        .ocpp(&format!("url = 'ws://127.0.0.1:{}'", fleet.port()))
        .ocpp(&format!("identity = '{}'", identity(1)))
        .ocpp("mode = 'bridge'")
        .ocpp("security_profile = 0")
        .bridge(&format!("listen = '127.0.0.1:{port}'"))
        .bridge(&format!("identities = [{}]", others.join(", ")))
        .log_level("info");
    let mut agent = Agent::run(setup).await;

    fleet.talk(CONTROLLERS, port);
    let end = Instant::now() + length / 3;
    let (mut pause, mut kill) = (length / 12, false);
    while Instant::now() < end {
        sleep(pause.min(Duration::from_secs(15))).await;
        let restart = async || {
            if kill {
                agent.kill().await;
            } else {
                agent.terminate().await;
            }
            agent.start().await;
        };
        fleet.disturb(restart).await;
        (kill, pause) = (!kill, length / 12);
    }
    fleet.hush().await;
    let restarts = fleet.tally();
    println!("after restarts: {restarts:?}");

    // From here on, one process.
    agent.terminate().await;
    agent.start().await;
    let fresh = Figures::of(agent.pid());
    fleet.talk(CONTROLLERS, port);
    sleep(length / 6).await;
    fleet.hush().await;
    let warm = at_rest(&agent, fresh.descriptors).await;

    fleet.talk(CONTROLLERS, port);
    let end = Instant::now() + length / 2;
    let mut most = warm.private_kib;
    while Instant::now() < end {
        for _ in 0..20 {
            sleep(length / 200).await;
            most = most.max(Figures::of(agent.pid()).private_kib);
        }
        fleet.outage(Duration::from_millis(500)).await;
    }
    fleet.hush().await;
    let after = at_rest(&agent, fresh.descriptors).await;

    let tally = fleet.tally();
    println!("{tally:?}\nfresh {fresh:?}, warm {warm:?}, after {after:?}, private at most {most} KiB");
    assert!(tally.faults.is_empty(), "{:#?}", tally.faults);
    let seconds = length.as_secs();
    assert!(
        tally.connections > seconds * 4 && tally.closed > seconds && tally.texts > seconds * 500,
        "{tally:?}"
    );
    assert!(restarts.closed > 0 && tally.own_answers > 0, "{tally:?}");
    assert!(after.threads <= fresh.threads, "{after:?}, {fresh:?}");
    let grown = after.grown_kib(&warm);
    assert!(grown <= LEFT_KIB, "{grown} KiB stay behind");
    let taken = most.saturating_sub(fresh.private_kib) / CONTROLLERS as u64;
    assert!(taken <= CONTROLLER_KIB, "{taken} KiB a controller");
}

/// The agent's figures once no connection is left.
async fn at_rest(agent: &Agent, descriptors: usize) -> Figures {
    wait_until("every descriptor is closed", LONG, async || {
        let figures = Figures::of(agent.pid());
        (figures.descriptors <= descriptors).then_some(figures)
    })
    .await
}
