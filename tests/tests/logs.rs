//! The log: from the agent's memory to the command line, and over the network to a collector.

use std::fs;
use std::process::Stdio;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::collector::Collector;
use ocpp_tunnel_tests::process::Daemon;
use ocpp_tunnel_tests::{LONG, wait_until};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

fn without_ocpp() -> Setup {
    Setup::new().ocpp("mode = 'off'")
}

/// Something that the log tells of.
async fn refuse(agent: &Agent, marker: &str) {
    let refused = agent.cli(&["open", &format!("{marker}@gw"), "--script", "9"]).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
}

#[tokio::test]
async fn the_log_is_shown_from_memory_and_followed() {
    let mut agent = Agent::new(without_ocpp());
    let nobody = agent.cli(&["logs"]).await;
    assert_eq!(nobody.code, Some(10), "{nobody:?}");
    assert!(nobody.stderr.contains("  try: start it"), "{nobody:?}");

    agent.start().await;
    refuse(&agent, "first").await;
    let all = agent.cli(&["logs"]).await;
    assert_eq!(all.code, Some(0), "{all:?}");
    assert!(all.stdout.lines().any(|line| line.contains("Z  INFO agent-started version=")), "{all:?}");
    let last = agent.cli(&["logs", "-n", "1"]).await;
    assert_eq!(last.stdout.lines().count(), 1, "{last:?}");
    assert!(last.stdout.contains("Z  WARN tunnel-refused slot=9 source=uid-0/pid-"), "{last:?}");

    let shown = agent.directory().join("followed");
    let mut follow = agent.command(&["logs", "-f", "-n", "1"]);
    follow.stdin(Stdio::null()).stdout(fs::File::create(&shown).unwrap());
    let mut follower = Daemon::start(&mut follow, &agent.directory().join("follower"));
    let lines = async |least: usize| {
        wait_until("more lines are shown", LONG, async || {
            let text = fs::read_to_string(&shown).unwrap();
            (text.lines().count() >= least).then_some(text)
        })
        .await
    };
    assert_eq!(lines(1).await, last.stdout);
    refuse(&agent, "second").await;
    assert_eq!(lines(2).await.lines().count(), 2);
    agent.terminate().await;
    assert_eq!(follower.ended(LONG).await.code(), Some(10));
    assert!(fs::read_to_string(&shown).unwrap().contains(" INFO agent-stopping\n"));
}

#[tokio::test]
async fn who_follows_too_slowly_is_dropped_and_holds_nobody_up() {
    let agent = Agent::run(without_ocpp()).await;
    let socket = agent.runtime_dir().join("control.sock");
    let mut sleeper = UnixStream::connect(&socket).await.unwrap();
    sleeper.write_all(b"{\"op\":\"logs\",\"follow\":true,\"lines\":null}\n").await.unwrap();
    // Nobody listens there, so that each of them is tried at once, and says so at level debug, which isn't bound.
    let request = |port: u32| {
        format!(
            r#"{{"op":"open","destination":"nobody@127.0.0.1:{port}","script":1,"forwards":[],"lifetime":null,"wait":false}}"#
        )
    };
    for number in 0..2000 {
        agent.ask(&request(number % 2 + 1)).await;
    }
    wait_until("the log says so", LONG, async || {
        agent.log().contains("log-reader-dropped unsent=").then_some(())
    })
    .await;
    let mut late = agent.cli(&["logs"]).await.stdout;
    late.truncate(100);
    assert!(late.contains(" tunnel-"), "the last of it is kept: {late}");

    // As many as may follow, and one more.
    let mut followers = Vec::new();
    for _ in 0..4 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(b"{\"op\":\"logs\",\"follow\":true,\"lines\":0}\n").await.unwrap();
        followers.push(stream);
    }
    let refused = wait_until("one more is refused", LONG, async || {
        let follow =
            tokio::time::timeout(std::time::Duration::from_secs(1), agent.cli(&["logs", "-f"])).await;
        follow.ok().filter(|output| output.code == Some(1))
    })
    .await;
    assert!(refused.stderr.contains("follow the log already"), "{refused:?}");
    assert_eq!(agent.cli(&["logs", "-n", "1"]).await.code, Some(0), "a look is always free");
}

#[tokio::test]
async fn a_collector_gets_the_log_by_datagrams() {
    let collector = Collector::udp();
    let mut agent = Agent::run(without_ocpp().log(&format!("remote = '{}'", collector.url()))).await;
    refuse(&agent, "first").await;
    let message = collector.message_with("tunnel-refused").await;
    let parts: Vec<&str> = message.splitn(7, ' ').collect();
    assert_eq!((parts[0], parts[3], parts[5]), ("<28>1", "ocpp-tunnel", "tunnel-refused"), "{message}");
    assert_eq!(parts[4], agent.pid().to_string());
    assert!(parts[6].starts_with("[meta sequenceId=\""), "{message}");
    assert!(parts[6].contains("] tunnel-refused slot=9 source="), "{message}");
    agent.terminate().await;
    collector.message_with("agent-stopped").await;
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_the_log_again() {
    let collector = Collector::tcp();
    let agent = Agent::run(without_ocpp().log(&format!("remote = '{}'", collector.url()))).await;
    collector.message_with("] agent-started version=").await;
    assert_eq!(agent.status().await["log"]["remote"]["error"], serde_json::Value::Null);
    collector.hang_up();
    let lost = agent.syslog().line_with("log-collector-lost").await;
    assert!(lost.contains("error=\"it closed the connection\""), "{lost}");
    collector.message_with("] log-collector-reached").await;
    refuse(&agent, "first").await;
    collector.message_with("] tunnel-refused").await;
    let remote = agent.status().await["log"]["remote"].take();
    assert_eq!((&remote["collector"], &remote["dropped"]), (&collector.url().into(), &0.into()));
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_of_and_holds_nobody_up() {
    let port = ocpp_tunnel_tests::ports::free();
    let mut agent = Agent::run(without_ocpp().log(&format!("remote = 'tcp://127.0.0.1:{port}'"))).await;
    agent.syslog().line_with("log-collector-lost").await;
    for number in 0..5 {
        refuse(&agent, &format!("u{number}")).await;
    }
    let people = agent.cli(&["status"]).await;
    assert!(
        people.stdout.contains(&format!("log collector tcp://127.0.0.1:{port} isn't reached: ")),
        "{people:?}"
    );
    assert_eq!(agent.syslog().count("log-collector-lost"), 1);
    assert!(agent.terminate().await.success());
}
