//! What a CSMS can do wrong, and what comes of it: the agent stays up and small, says what is wrong, and tries again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]
#![allow(clippy::print_stdout, reason = "what was measured, for who asks with --nocapture or sees it fail")]

use std::time::Duration;

use futures_util::{StreamExt, stream};
use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::bad_csms::{
    BINARY, BadCsms, CLOSE, GOES_ON, PING, Step, TEXT, TEXT_BEGINS, booted, frame, sound,
};
use ocpp_tunnel_tests::figures::Figures;
use ocpp_tunnel_tests::{LONG, wait_until};
use serde_json::json;
use tokio::time::{Instant, sleep};

/// What the agent's private memory may grow by, whatever the CSMS does: the largest message once as it is read and once as
/// it is looked at, answers that wait, and what the allocator keeps.
const GROWTH_KIB: u64 = 2 * 1024;

/// How long a link is watched that is to last.
const WATCHED: Duration = Duration::from_secs(3);

/// What comes of a script.
enum Outcome {
    /// `status` says this, and it is tried again.
    Fails(&'static str),
    /// The link lasts, and what is asked afterwards is answered.
    Answers,
    /// The link lasts.
    Lasts,
}

struct Row {
    what: &'static str,
    script: Vec<Step>,
    outcome: Outcome,
    tls: bool,
}

fn row(what: &'static str, script: impl Into<Vec<Step>>, outcome: Outcome) -> Row {
    Row { what, script: script.into(), outcome, tls: false }
}

/// A CSMS that accepts the boot, then sends this, and says nothing more.
fn sends(what: &'static str, bytes: Vec<u8>, error: &'static str) -> Row {
    row(what, [booted(300), vec![Step::Bytes(bytes), Step::Listen]].concat(), Outcome::Fails(error))
}

/// A CSMS that accepts the boot, then does this.
fn does(what: &'static str, steps: &[Step], outcome: Outcome) -> Row {
    row(what, [&booted(300), steps].concat(), outcome)
}

fn answers_handshake(with: &str) -> Vec<Step> {
    vec![Step::Request, Step::Bytes(with.as_bytes().to_vec()), Step::Listen]
}

/// Plays rows side by side, each with an agent of its own.
async fn play(rows: Vec<Row>, at_once: usize, limit: Duration) {
    stream::iter(rows).for_each_concurrent(at_once, |row| play_one(row, limit)).await;
}

async fn play_one(row: Row, limit: Duration) {
    let what = row.what;
    let csms = BadCsms::start(row.script).await;
    let url = if row.tls { csms.tls_url() } else { csms.url() };
    let setup = Setup::new()
        .ocpp(&format!("url = '{url}'"))
        .ocpp("identity = 'CP001'")
        .ocpp("security_profile = 0")
        .ocpp("ping_interval = '1s'");
    let mut agent = Agent::new(setup);
    agent.start().await;
    let before = Figures::of(agent.pid());
    let mut most = before;
    let look = |most: &mut Figures| {
        let now = Figures::of(agent.pid());
        if now.private_kib > most.private_kib {
            *most = now;
        }
    };
    match row.outcome {
        Outcome::Fails(error) => {
            let began = Instant::now();
            loop {
                look(&mut most);
                let ocpp = agent.status().await["ocpp"].take();
                let said = ocpp["last_error"].as_str().unwrap_or_default().to_owned();
                if said.contains(error) {
                    println!("{what}: {said}");
                    assert!(!said.chars().any(char::is_control) && said.len() < 400, "{what}: {said:?}");
                    break;
                }
                assert!(began.elapsed() < limit, "{what}: waited in vain for {error:?}: {ocpp}");
            }
            wait_until(&format!("{what}: it is tried again"), LONG, async || {
                (csms.connections() > 1).then_some(())
            })
            .await;
        }
        Outcome::Answers => {
            wait_until(&format!("{what}: what is asked afterwards is answered"), limit, async || {
                look(&mut most);
                (csms.answers() > 0).then_some(())
            })
            .await;
            assert_eq!(agent.link_is("accepted").await["last_error"], json!(null), "{what}");
            assert_eq!(csms.connections(), 1, "{what}");
        }
        Outcome::Lasts => {
            agent.link_is("accepted").await;
            let began = Instant::now();
            while began.elapsed() < WATCHED {
                look(&mut most);
                assert_eq!(agent.status().await["ocpp"]["state"], "accepted", "{what}");
                sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(csms.connections(), 1, "{what}");
        }
    }
    look(&mut most);
    println!("{what}: {} KiB private at first, at most {} more", before.private_kib, most.grown_kib(&before));
    assert!(most.grown_kib(&before) < GROWTH_KIB, "{what}: {before:?}, {most:?}");
    assert!(agent.is_running(), "{what}");
    assert!(agent.terminate().await.success(), "{what}");
}

#[tokio::test]
async fn a_handshake_that_is_wrong_is_told_and_tried_again() {
    let endless = Step::Flood { bytes: vec![b'x'; 1000], per_second: 0, reading: true };
    let fields = Step::Flood { bytes: b"a: b\r\n".repeat(100), per_second: 0, reading: true };
    let begun = Step::Bytes(b"HTTP/1.1 101 Yes\r\nX: ".to_vec());
    let rows = vec![
        row(
            "a wrong accept key",
            answers_handshake(
                "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\r\n",
            ),
            Outcome::Fails("with the wrong key"),
        ),
        row(
            "an extension that wasn't asked for",
            [Step::Request, Step::Accept("Sec-WebSocket-Extensions: permessage-deflate\r\n"), Step::Listen],
            Outcome::Fails("chose a WebSocket extension"),
        ),
        row(
            "101 without an upgrade",
            answers_handshake("HTTP/1.1 101 Yes\r\n\r\n"),
            Outcome::Fails("the WebSocket handshake failed: "),
        ),
        row(
            "a header that never ends",
            [Step::Request, begun.clone(), endless.clone()],
            Outcome::Fails("has no end"),
        ),
        row(
            "header fields without end",
            [Step::Request, begun, fields],
            Outcome::Fails("has too many headers"),
        ),
        row("something else than HTTP", [endless], Outcome::Fails("doesn't speak HTTP on this port")),
        row(
            "a redirect with a terminal's commands",
            answers_handshake("HTTP/1.1 301 x\r\nLocation: wss://other.example/\x07\r\n\r\n"),
            Outcome::Fails("doesn't speak HTTP on this port"),
        ),
        row(
            "a redirect",
            answers_handshake("HTTP/1.1 301 x\r\nLocation: wss://other.example/\r\n\r\n"),
            Outcome::Fails(
                "redirects elsewhere, which OCPP doesn't follow (HTTP 301, to \"wss://other.example/\")",
            ),
        ),
        row(
            "nothing but an end",
            [Step::Request],
            Outcome::Fails("closed the connection in the WebSocket handshake"),
        ),
    ];
    play(rows, 4, LONG * 2).await;
}

#[tokio::test]
async fn frames_that_are_wrong_end_the_link_and_status_says_why() {
    let fragments = Step::Flood { bytes: sound(GOES_ON, &[b' '; 4000]), per_second: 0, reading: true };
    let masked = [&[TEXT, 0x80 | 2, 1, 2, 3, 4][..], b"xy"].concat();
    let close = |code: u16, reason: &[u8]| sound(CLOSE, &[&code.to_be_bytes(), reason].concat());
    let rows = vec![
        sends("a frame of 2^62 bytes", frame(TEXT, b"[", 1 << 62), "a message that is too long"),
        sends("a frame of a bit more than may be", frame(TEXT, b"[", 262_145), "a message that is too long"),
        does(
            "a message in fragments without end",
            &[Step::Bytes(sound(TEXT_BEGINS, b"[")), fragments],
            Outcome::Fails("a message that is too long"),
        ),
        sends("a binary message", sound(BINARY, &[0; 10]), "a binary message"),
        sends("a text that isn't UTF-8", sound(TEXT, b"[2,\"\xff\xfe\"]"), "a text that isn't UTF-8"),
        sends("a masked frame", masked, "masked frame"),
        sends("a compressed frame", sound(0xc1, b"xyz"), "eserved bits"),
        sends("an unknown opcode", sound(0x83, b"xyz"), "WebSocket: "),
        sends("an unknown control frame", sound(0x8b, b"xyz"), "WebSocket: "),
        sends("a continuation of nothing", sound(GOES_ON, b"xyz"), "WebSocket: "),
        sends("a ping of 126 bytes", sound(PING, &[b'x'; 126]), "WebSocket: "),
        sends("half a ping", sound(0x09, b"x"), "WebSocket: "),
        sends("a close frame of one byte", sound(CLOSE, b"x"), "WebSocket: "),
        sends("a service restart", close(1012, b"nightly"), "1012 (service restart), \"nightly\""),
        sends(
            "its policy",
            close(1008, b"duplicate\x1b[2J"),
            "1008 (against its policy), \"duplicate\\u{1b}[2J\"",
        ),
        sends("a code that nobody may send", close(1005, b""), "closed the connection: "),
        does("an end without a word", &[], Outcome::Fails("dropped the connection")),
    ];
    play(rows, 4, LONG * 2).await;
}

#[tokio::test]
async fn messages_that_make_no_sense_leave_the_link_up() {
    let deep = "[".repeat(100_000);
    let deep_payload =
        format!(r#"[2,"1","GetConfiguration",{}{}]"#, r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
    let calls: Vec<u8> = (0..10_000)
        .flat_map(|id| sound(TEXT, format!(r#"[2,"{id}","GetConfiguration",{{"key":["x"]}}]"#).as_bytes()))
        .collect();
    let accepted = r#"[3,"ID",{"status":"Accepted","interval":300,"currentTime":"2026-11-21T10:00:00Z"}]"#;
    let answers = [
        r#"[3,"nobody",{"status":"Accepted"}]"#,
        r#"[4,"nobody","GenericError","",{}]"#,
        r#"[3,"",{}]"#,
        accepted,
        accepted,
        r#"[4,"ID","GenericError","late",{}]"#,
    ];
    let reply = Step::Reply(answers.map(String::from).to_vec());
    let rows = vec![
        does("deep JSON", &[Step::Text(deep), Step::Ask, Step::Listen], Outcome::Answers),
        does("a deep payload", &[Step::Text(deep_payload), Step::Ask, Step::Listen], Outcome::Answers),
        does("ten thousand calls at once", &[Step::Bytes(calls), Step::Ask, Step::Listen], Outcome::Answers),
        row(
            "answers to nobody, two answers, and an error after them",
            [Step::Request, Step::Accept(""), reply, Step::Ask, Step::Listen],
            Outcome::Answers,
        ),
        does(
            "one id for two calls",
            &[Step::Text(r#"[2,"asked","Nonsense",{}]"#.into()), Step::Ask, Step::Listen],
            Outcome::Answers,
        ),
        does(
            "texts as long as may be, all the time",
            &[Step::Flood { bytes: sound(TEXT, &[b'['; 262_144]), per_second: 0, reading: true }],
            Outcome::Lasts,
        ),
        does(
            "pings all the time",
            &[Step::Flood { bytes: sound(PING, &[b'x'; 125]).repeat(50), per_second: 0, reading: true }],
            Outcome::Lasts,
        ),
        does(
            "pings all the time, and nobody reads the pongs",
            &[Step::Flood { bytes: sound(PING, &[b'x'; 125]).repeat(50), per_second: 0, reading: false }],
            Outcome::Lasts,
        ),
    ];
    play(rows, 3, LONG * 2).await;
}

#[tokio::test]
async fn a_csms_that_stops_in_the_middle_is_given_up() {
    let asking = sound(TEXT, br#"[2,"1","GetConfiguration",{}]"#).repeat(20);
    let mut rows = vec![
        row("nothing after TCP", [Step::Hang], Outcome::Fails("WebSocket: no answer from 127.0.0.1:")),
        row(
            "a header that comes byte by byte",
            [
                Step::Request,
                Step::Bytes(b"HTTP/1.1 101 Yes\r\nX: ".to_vec()),
                Step::Flood { bytes: b"x".to_vec(), per_second: 2, reading: true },
            ],
            Outcome::Fails("WebSocket: no answer from 127.0.0.1:"),
        ),
        does("silence", &[Step::Hang], Outcome::Fails("didn't answer a ping in 20 s")),
        does(
            "fragments of no bytes without end",
            &[
                Step::Bytes(sound(TEXT_BEGINS, b"")),
                Step::Flood { bytes: sound(GOES_ON, b"").repeat(100), per_second: 1000, reading: true },
            ],
            Outcome::Fails("didn't answer a ping in 20 s"),
        ),
        does(
            "questions, and nobody reads the answers",
            &[Step::Flood { bytes: asking, per_second: 0, reading: false }],
            Outcome::Fails("didn't answer a ping in 20 s"),
        ),
    ];
    let tls = row("TLS that isn't answered", [Step::Hang], Outcome::Fails("TLS: no answer from 127.0.0.1:"));
    rows.push(Row { tls: true, ..tls });
    play(rows, 10, LONG * 3).await;
}

#[tokio::test]
#[ignore = "soak: minutes"]
async fn a_csms_that_pings_and_never_reads_is_given_up() {
    let pings = Step::Flood { bytes: sound(PING, &[b'x'; 125]).repeat(50), per_second: 0, reading: false };
    let rows = vec![does(
        "pings all the time, and nobody reads the pongs",
        &[pings],
        Outcome::Fails("nothing that was sent arrived any more"),
    )];
    play(rows, 1, LONG * 8).await;
}
