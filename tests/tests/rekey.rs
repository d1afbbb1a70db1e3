//! New keys are agreed on while bytes flow (RFC 4253, section 9).
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::Duration;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::service::{Service, exchange};
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const MEGABYTE: usize = 1 << 20;

/// A tunnel to an echo through a server with this limit, and the port that leads there.
async fn tunnel(limit: &str) -> (Agent, Sshd, Service, u16) {
    let sshd = Sshd::start_with(&format!("RekeyLimit {limit}\n")).await;
    let echo = Service::echo().await;
    let remote = ports::free();
    let setup = Setup::new().ocpp("mode = 'off'").pin(&sshd.known_hosts_line());
    let agent = Agent::run(setup.script(1, remote, &echo.address())).await;
    sshd.authorize(&agent.authorized_keys_line().await);
    let output = agent.cli(&["open", &sshd.destination(), "--wait"]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    (agent, sshd, echo, remote)
}

/// How often the server has taken new keys into use, the first ones included.
fn key_exchanges(sshd: &Sshd) -> usize {
    sshd.log().matches("SSH2_MSG_NEWKEYS received").count()
}

/// Bytes that repeat nowhere, so that none can be lost, doubled or swapped unnoticed.
fn numbers(length: usize) -> Vec<u8> {
    (0..length as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// A person at a prompt: a few bytes there and back again, all the time. Gives the number of rounds when it is told to stop.
fn typist(remote: u16) -> (JoinHandle<usize>, tokio::sync::oneshot::Sender<()>) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let mut stream = TcpStream::connect(("127.0.0.1", remote)).await.unwrap();
        for round in 0_usize.. {
            let word = round.to_be_bytes();
            let there_and_back = async {
                stream.write_all(&word).await.unwrap();
                let mut answer = [0; size_of::<usize>()];
                stream.read_exact(&mut answer).await.unwrap();
                answer
            };
            let answer = tokio::time::timeout(LONG, there_and_back).await.expect("it isn't held up");
            assert_eq!(answer, word);
            if tokio::time::timeout(Duration::from_millis(10), &mut stopped).await.is_ok() {
                return round;
            }
        }
        unreachable!()
    });
    (task, stop)
}

#[tokio::test]
async fn fifty_megabytes_pass_both_ways_while_the_server_wants_new_keys_for_each() {
    let (agent, sshd, _echo, remote) = tunnel("1M").await;
    let (typing, stop) = typist(remote);
    let sent = numbers(50 * MEGABYTE);
    let received = tokio::time::timeout(LONG * 4, exchange(remote, &sent)).await.expect("in time").unwrap();
    assert!(received == sent, "{} of {} bytes came back, or other ones", received.len(), sent.len());
    stop.send(()).unwrap();
    let rounds = typing.await.unwrap();
    assert!(rounds > 10, "{rounds} rounds");
    let exchanges = key_exchanges(&sshd);
    assert!(exchanges > 20, "only {exchanges} key exchanges");
    assert_eq!((sshd.connections(), sshd.logins()), (1, 1), "all of them on one connection");
    assert_eq!(agent.tunnel("1").await["state"], "up");
}

#[tokio::test]
async fn many_connections_at_once_survive_new_keys() {
    let (_agent, sshd, _echo, remote) = tunnel("1M").await;
    let sent = numbers(8 * MEGABYTE);
    let exchanges = (0..8).map(|_| {
        let sent = sent.clone();
        tokio::spawn(async move {
            let received =
                tokio::time::timeout(LONG * 4, exchange(remote, &sent)).await.expect("in time").unwrap();
            assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
        })
    });
    for exchange in exchanges.collect::<Vec<_>>() {
        exchange.await.unwrap();
    }
    assert!(key_exchanges(&sshd) > 20);
    assert_eq!(sshd.connections(), 1);
}

#[tokio::test]
async fn a_server_that_wants_new_keys_from_time_to_time_gets_them() {
    let (agent, sshd, _echo, remote) = tunnel("1G 2s").await;
    let (typing, stop) = typist(remote);
    wait_until("three more key exchanges", LONG, async || (key_exchanges(&sshd) > 3).then_some(())).await;
    stop.send(()).unwrap();
    typing.await.unwrap();
    let sent = numbers(MEGABYTE);
    assert!(exchange(remote, &sent).await.unwrap() == sent);
    assert_eq!((sshd.connections(), agent.tunnel("1").await["state"].as_str()), (1, Some("up")));
}
