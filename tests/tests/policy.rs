//! What the agent refuses to open, and what becomes of what is open already.

use std::time::Duration;

use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::{LONG, SHORT, ports, wait_until};

#[tokio::test]
async fn malformed_and_disallowed_destinations_are_rejected_and_nobody_notices() {
    let mut rig = Rig::start().await;
    let other = Sshd::start().await;
    rig.authorize(&other).await;
    rig.open(1).await;
    let port = rig.sshd.port();

    let malformed = [
        format!("support@127.0.0.1:{port} -oProxyCommand=id"),
        format!("-oProxyCommand@127.0.0.1:{port}"),
        format!("support@127.0.0.1.:{port}"),
        format!("support@127.0.0.1:{port}\n"),
        format!("\tsupport@127.0.0.1:{port}"),
        format!("$(id)@127.0.0.1:{port}"),
        format!("support@127.0.0.1;id:{port}"),
        format!("support@0x7f.1:{port}"),
        format!("support@2130706433:{port}"),
        format!("support@127.0.0.1:{port}:{port}"),
        "support@127.0.0.1:0".to_owned(),
        "support@127.0.0.1:65536".to_owned(),
        "support@".to_owned(),
        "@127.0.0.1".to_owned(),
        "127.0.0.1".to_owned(),
        format!("{}@127.0.0.1:{port}", "u".repeat(33)),
        "x".repeat(501),
    ];
    let disallowed = [
        other.destination(),
        format!("root@127.0.0.1:{port}"),
        "support@127.0.0.1".to_owned(),
        format!("support@localhost:{port}"),
        format!("support@[::1]:{port}"),
    ];
    for value in malformed.iter().chain(&disallowed) {
        assert_eq!(rig.csms.change("InvokeCustomScript1", value).await, "Rejected", "{value:?}");
        assert_eq!(rig.csms.change("InvokeCustomScript2", value).await, "Rejected", "{value:?}");
    }

    tokio::time::sleep(SHORT).await;
    assert_eq!(other.connections(), 0, "{}", other.log());
    assert_eq!(rig.sshd.connections(), 1, "{}", rig.sshd.log());
    assert!(rig.echoes().await, "the running tunnel is left alone");
    assert_eq!(rig.agent.tunnel("1").await["state"], "up");
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, rig.sshd.destination());
    assert_eq!(rig.csms.value("InvokeCustomScript2").await, "");
    // Why is for the operator to see.
    let status = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(status.starts_with("up ") && status.contains("is not an allowed destination"), "{status}");
    assert_eq!(rig.csms.counts().await.connections, 1);
}

#[tokio::test]
async fn an_empty_allow_list_refuses_everything_over_ocpp_and_nothing_on_site() {
    let mut rig = Rig::start().await;
    let text = rig.agent.configuration();
    let allowed = text.lines().find(|line| line.starts_with("allow_destinations")).unwrap().to_owned();
    rig.agent.terminate().await;
    rig.agent.configure(&text.replace(&allowed, "allow_destinations = []"));
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;

    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Rejected");
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    rig.echo_returns().await;
}

#[tokio::test]
async fn patterns_of_the_allow_list_allow_what_they_say() {
    let mut rig = Rig::with(|setup| setup.allow("*@127.0.0.1:*")).await;
    rig.open(1).await;
    // Allowed, though nobody is there by that name: a tunnel that can't come up yet is still accepted.
    assert_eq!(rig.csms.change("InvokeCustomScript2", "anybody@127.0.0.1:9").await, "Accepted");
    assert_eq!(rig.csms.change("InvokeCustomScript2", "anybody@127.0.0.2:9").await, "Rejected");
    assert_eq!(rig.csms.value("InvokeCustomScript2").await, "anybody@127.0.0.1:9");
}

#[tokio::test]
async fn a_trigger_over_a_link_below_the_minimum_profile_is_rejected() {
    for (password, minimum, answer) in
        [(false, "1", "Rejected"), (true, "2", "Rejected"), (true, "1", "Accepted"), (false, "0", "Accepted")]
    {
        let options = Options::default();
        let password = password.then(|| options.password.clone()).flatten();
        let csms = Csms::start(Options { password, ..options }).await;
        let minimum = format!("minimum_security_profile = {minimum}");
        let mut rig = Rig::unstarted(csms, |setup| setup.policy(&minimum)).await;
        rig.agent.start().await;
        rig.authorize(&rig.sshd).await;
        rig.agent.link_is("accepted").await;
        assert_eq!(
            rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await,
            answer,
            "{minimum}"
        );
        if answer == "Rejected" {
            tokio::time::sleep(SHORT).await;
            assert_eq!(rig.sshd.connections(), 0);
            // Closing is always allowed.
            assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
        } else {
            rig.agent.tunnel_is("1", "up").await;
        }
    }
}

#[tokio::test]
async fn the_disable_file_closes_what_is_open_and_refuses_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disabled");
    let line = format!("disable_file = '{}'", file.display());
    let mut rig = Rig::with(|setup| setup.policy(&line)).await;
    rig.open(1).await;
    rig.echo_returns().await;

    std::fs::write(&file, "").unwrap();
    rig.port_is_free(1).await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("policy"));
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Rejected");
    let opened = rig.agent.cli(&["open", &rig.sshd.destination()]).await;
    assert_eq!(opened.code, Some(5), "{opened:?}");
    assert!(opened.stderr.contains(&file.display().to_string()), "the message names the cure: {opened:?}");
    assert_eq!(rig.sshd.connections(), 1);

    // What was open doesn't come back by itself: somebody has to want it again.
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(SHORT).await;
    assert!(!ports::answers(rig.remote[0]));
    wait_until("opening works again", LONG, async || {
        (rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await.code == Some(0)).then_some(())
    })
    .await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn opens_per_hour_counts_new_opens_and_not_repeated_triggers() {
    let mut rig = Rig::with(|setup| setup.policy("opens_per_hour = 2")).await;
    rig.open(1).await;
    for _ in 0..5 {
        assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Accepted");
    }
    rig.open(2).await;
    assert_eq!(rig.csms.change("InvokeCustomScript2", "").await, "Accepted");
    rig.port_is_free(2).await;
    assert_eq!(rig.csms.change("InvokeCustomScript2", &rig.sshd.destination()).await, "Rejected");
    assert!(rig.echoes().await, "the tunnel that runs is left alone");
    // The limit binds what comes over OCPP.
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--script", "2", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
}

#[tokio::test]
async fn a_tunnel_ends_when_its_time_is_over() {
    let mut rig = Rig::with(|setup| setup.policy("max_duration = '3s'")).await;
    rig.open(1).await;
    rig.echo_returns().await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("expired"));
    rig.port_is_free(1).await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, "");
}

#[tokio::test]
async fn for_shortens_the_time_and_cannot_exceed_the_maximum() {
    let rig = Rig::with(|setup| setup.policy("max_duration = '1h'")).await;
    let too_long = rig.agent.cli(&["open", &rig.sshd.destination(), "--for", "2h"]).await;
    assert_eq!(too_long.code, Some(5), "{too_long:?}");
    assert!(rig.agent.tunnel("1").await["state"] != "up");

    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--for", "2s", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let begin = std::time::Instant::now();
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("expired"));
    assert!(begin.elapsed() < Duration::from_secs(10));
    rig.port_is_free(1).await;
}

#[tokio::test]
async fn a_csms_that_has_not_accepted_us_gets_no_tunnel() {
    let csms = Csms::start(Options { boot: "Rejected", interval: 600, ..Options::default() }).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.csms.wait_for("boots", 1).await;
    rig.agent.link_is("rejected").await;

    let (key, destination) = ("InvokeCustomScript1", rig.sshd.destination());
    let call = format!(r#"[2,"33","ChangeConfiguration",{{"key":"{key}","value":"{destination}"}}]"#);
    let answers = rig.csms.raw(&call, SHORT).await;
    assert!(answers.is_empty(), "{answers:?}");
    assert_eq!(rig.sshd.connections(), 0);
}

#[tokio::test]
async fn a_csms_that_says_pending_is_answered() {
    let csms = Csms::start(Options { boot: "Pending", interval: 600, ..Options::default() }).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    rig.agent.start().await;
    rig.csms.wait_for("boots", 1).await;
    rig.agent.link_is("pending").await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, "");
    assert_eq!(rig.csms.change("HeartbeatInterval", "77").await, "Accepted");
    assert_eq!(rig.csms.value("HeartbeatInterval").await, "77");
}

#[tokio::test]
async fn a_boot_that_was_pending_is_repeated_after_its_interval() {
    let csms = Csms::start(Options { boot: "Pending", interval: 1, ..Options::default() }).await;
    let mut rig = Rig::unstarted(csms, |setup| setup).await;
    rig.agent.start().await;
    rig.csms.wait_for("boots", 1).await;
    rig.csms.answer_boot("Accepted", 300).await;
    rig.csms.wait_for("boots", 2).await;
    rig.agent.link_is("accepted").await;
    assert_eq!(rig.csms.counts().await.connections, 1, "on the same connection");
}
