//! The log in the hands of the syslog daemons that are out there: what they make of it, and what happens while they are away.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::syslog_daemon::{SyslogDaemon, setting};

/// An agent that logs to this daemon.
fn agent(daemon: &SyslogDaemon) -> Agent {
    let agent = Agent::new(Setup::new().ocpp("mode = 'off'"));
    agent.drop_in("10-log.toml", &setting(&daemon.socket()));
    agent
}

/// Something that the log tells of, with this word in it.
async fn refuse(agent: &Agent, word: &str) {
    let refused = agent.cli(&["open", &format!("{word}@gw.example.com"), "--script", "9"]).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
}

#[tokio::test]
async fn busyboxs_syslogd_gets_whole_lines_and_knows_tag_facility_and_severity() {
    let daemon = SyslogDaemon::busybox().await;
    let mut agent = agent(&daemon);
    agent.start().await;
    let tag = format!(" ocpp-tunnel[{}]: ", agent.pid());
    let started = daemon.line_with("agent-started").await;
    assert!(started.contains(" daemon.info ") && started.contains(&tag), "{started}");
    refuse(&agent, "first").await;
    let refused = daemon.line_with("tunnel-refused").await;
    assert!(refused.contains(" daemon.warn ") && refused.contains(&tag), "{refused}");
    assert!(agent.terminate().await.success());
    daemon.line_with("agent-stopped").await;
    for line in daemon.lines().iter().filter(|line| !line.contains("syslogd")) {
        let (_, text) = line.split_once(&tag).unwrap_or_else(|| panic!("no part of a line: {line}"));
        assert!(!text.is_empty() && text.is_ascii(), "{line}");
        // Without the priority and with the host's name it is what was sent.
        assert!(line.len() < 200 + 64, "{line}");
    }
}

#[tokio::test]
async fn busyboxs_syslogd_may_come_late_and_go_away() {
    let mut daemon = SyslogDaemon::busybox_stopped();
    let mut agent = agent(&daemon);
    agent.start().await;
    refuse(&agent, "early").await;
    daemon.start().await;
    refuse(&agent, "second").await;
    let dropped = daemon.line_with("log-dropped lines=").await;
    assert!(dropped.contains("daemon.warn"), "{dropped}");
    daemon.kill().await;
    for word in ["lost1", "lost2"] {
        refuse(&agent, word).await;
    }
    let before = daemon.lines().len();
    daemon.start().await;
    refuse(&agent, "third").await;
    let dropped = daemon.line_with("log-dropped lines=2").await;
    let lines = daemon.lines();
    assert!(lines[before..].contains(&dropped), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("tunnel-refused")).count(), 2, "{lines:?}");
}

#[tokio::test]
async fn rsyslog_understands_every_field_of_a_local_line() {
    let mut daemon = SyslogDaemon::rsyslog().await;
    let mut agent = agent(&daemon);
    agent.start().await;
    let pid = agent.pid().to_string();
    let fields = |line: &str| line.splitn(6, '|').map(str::to_owned).collect::<Vec<_>>();
    let started = fields(&daemon.line_with("agent-started").await);
    assert_eq!(started[..4], ["daemon", "info", "ocpp-tunnel", &pid], "{started:?}");
    assert!(started[5].starts_with(" agent-started version="), "{started:?}");
    refuse(&agent, "first").await;
    let refused = fields(&daemon.line_with("tunnel-refused").await);
    assert_eq!(refused[..4], ["daemon", "warning", "ocpp-tunnel", &pid], "{refused:?}");

    daemon.kill().await;
    refuse(&agent, "lost").await;
    daemon.start().await;
    refuse(&agent, "second").await;
    daemon.line_with("log-dropped lines=1").await;
    assert!(agent.terminate().await.success());
    daemon.line_with("agent-stopped").await;
    for line in daemon.lines() {
        let fields = fields(&line);
        assert_eq!((fields.len(), fields[2].as_str(), &fields[3]), (6, "ocpp-tunnel", &pid), "{line}");
    }
}

#[tokio::test]
async fn rsyslog_takes_what_comes_over_the_network_for_rfc_5424() {
    for scheme in ["udp", "tcp"] {
        let daemon = SyslogDaemon::rsyslog().await;
        let setup = Setup::new().ocpp("mode = 'off'").log(&format!("remote = '{}'", daemon.url(scheme)));
        let mut agent = Agent::run(setup).await;
        refuse(&agent, "first").await;
        let pid = agent.pid().to_string();
        let line = daemon.line_with("|tunnel-refused|").await;
        let fields: Vec<&str> = line.splitn(8, '|').collect();
        assert_eq!(
            fields[..6],
            ["1", "daemon", "warning", "ocpp-tunnel", &pid, "tunnel-refused"],
            "{scheme}: {line}"
        );
        let elements = fields[6];
        assert!(elements.starts_with("[meta sequenceId=\""), "{scheme}: {line}");
        assert!(elements.contains("][origin software=\"ocpp-tunnel\" swVersion=\""), "{scheme}: {line}");
        assert!(fields[7].contains("tunnel-refused slot=9 source="), "{scheme}: {line}");
        assert!(agent.terminate().await.success());
        daemon.line_with("|agent-stopped|").await;
        for line in daemon.lines() {
            assert!(line.starts_with("1|daemon|") && line.contains("|[meta "), "{scheme}: {line}");
        }
    }
}
