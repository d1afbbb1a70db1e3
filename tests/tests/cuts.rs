//! Cuts at random moments, of every kind, while traffic flows: the tunnel comes back each time, and `status` never lies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]
#![allow(clippy::print_stdout, reason = "what was measured, for who asks with --nocapture or sees it fail")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ocpp_tunnel_tests::engine::Engine;
use ocpp_tunnel_tests::service::{Manner, behave, round_trip};
use ocpp_tunnel_tests::{LONG, wait_until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// `keepalive_interval × keepalive_max` plus two seconds, and what a busy machine needs to show it.
const NOTICED: Duration = Duration::from_millis(3000 + 2000 + 500);

/// Numbers that look random and come again with the same seed: SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// Loads a tunnel both ways until it is told to stop, and begins again whenever it is cut.
async fn load(port: u16, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let once = async {
            let mut down = behave(port, Manner::Flood).await?;
            let mut up = behave(port, Manner::Slow).await?;
            let mut echo = behave(port, Manner::Echo).await?;
            let mut buffer = vec![0; 64 * 1024];
            while !stop.load(Ordering::Relaxed) {
                down.read_exact(&mut buffer).await?;
                up.write_all(&buffer[..1000]).await?;
                round_trip(&mut echo).await?;
            }
            std::io::Result::Ok(())
        };
        // Whoever isn't told that a connection is dead lets go of it.
        let _ = timeout(Duration::from_secs(2), once).await;
        sleep(Duration::from_millis(20)).await;
    }
}

/// Reads `status` all the time, and holds what it says against what it said before.
struct Watch {
    bytes: (u64, u64),
}

impl Watch {
    fn look(&mut self, tunnel: &Value) {
        let count = |name: &str| tunnel[name].as_u64().unwrap_or_else(|| panic!("{tunnel}"));
        let now = (count("bytes_in"), count("bytes_out"));
        assert!(now.0 >= self.bytes.0 && now.1 >= self.bytes.1, "{:?} went back: {tunnel}", self.bytes);
        self.bytes = now;
        let (up, error) = (tunnel["state"] == "up", tunnel["last_error"].is_string());
        assert!(!(up && error), "it is up, and yet something is wrong: {tunnel}");
        assert!(up || error, "it isn't up, and doesn't say why: {tunnel}");
    }
}

async fn survives(cuts: u64) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = seed.unwrap_or(now.as_secs());
    println!("the seed is {seed}; SEED={seed} in the environment repeats these cuts");
    let mut dice = Dice(seed);

    let mut engine = Engine::in_network(|setup| {
        setup.ssh("keepalive_interval = '1s'").ssh("keepalive_max = 3").log_level("info")
    })
    .await;
    engine.open().await;
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..3).map(|_| tokio::spawn(load(engine.remote, Arc::clone(&stop)))).collect();
    let mut watch = Watch { bytes: (0, 0) };
    let mut settled = None;
    for number in 0..cuts {
        sleep(Duration::from_millis(dice.roll(600))).await;
        watch.look(&engine.tunnel().await);
        let kind = ["session killed", "reset", "link down", "packets lost", "server restarted"]
            [dice.roll(5) as usize];
        let began = Instant::now();
        let network = engine.network.as_ref().unwrap();
        match kind {
            "session killed" => engine.sshd.kill_sessions(),
            "reset" => network.reset(),
            "link down" => network.pull(),
            "packets lost" => network.drop_packets(),
            _ => engine.sshd.kill().await,
        }
        // A short cut may be over before anybody notices; a long one has to be noticed in time.
        let long = dice.roll(3) > 0;
        if long || kind == "session killed" || kind == "server restarted" {
            wait_until(&format!("cut {number}, {kind}, is noticed"), NOTICED, async || {
                let tunnel = engine.tunnel().await;
                watch.look(&tunnel);
                // A session that was killed may be replaced between two looks.
                (tunnel["state"] != "up" || (kind == "session killed" && engine.works().await)).then_some(())
            })
            .await;
        } else {
            sleep(Duration::from_millis(dice.roll(1500))).await;
        }
        let noticed = began.elapsed();
        engine.network.as_ref().unwrap().pass();
        engine.network.as_ref().unwrap().plug();
        if kind == "server restarted" {
            engine.sshd.resume().await;
        }
        wait_until(&format!("the tunnel works after cut {number}, {kind}"), LONG * 2, async || {
            let tunnel = engine.tunnel().await;
            watch.look(&tunnel);
            (engine.works().await && tunnel["state"] == "up").then_some(())
        })
        .await;
        println!("cut {number}, {kind}: noticed after {noticed:?}, back after {:?}", began.elapsed());
        // What the first cuts made the allocator take is there for all others.
        if number == cuts / 3 {
            settled = Some(at_rest(&engine, &stop).await);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    let before = settled.unwrap();
    let after = at_rest(&engine, &stop).await;
    println!("before {before:?}, after {after:?}");
    engine.has_one_thread().await;
    assert!(after.grown_kib(&before) < 4096, "{before:?}, {after:?}");
    engine.has_connections(0).await;
    engine.has_descriptors(20).await;
    assert!(engine.works().await);
}

/// What the agent takes while it has a moment without cuts.
async fn at_rest(engine: &Engine, stop: &AtomicBool) -> ocpp_tunnel_tests::figures::Figures {
    if stop.load(Ordering::Relaxed) {
        engine.has_connections(0).await;
    }
    sleep(Duration::from_millis(300)).await;
    engine.figures()
}

#[tokio::test]
async fn ten_cuts_at_random_moments_under_load_are_survived() {
    survives(10).await;
}

#[tokio::test]
#[ignore = "soak: minutes"]
async fn fifty_cuts_at_random_moments_under_load_are_survived() {
    survives(50).await;
}
