//! What a tunnel may carry and how long it may live: across restarts, power cuts and changed configurations.

use std::time::Duration;

use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::service::exchange;
use ocpp_tunnel_tests::{LONG, wait_until};

/// Sends so many bytes through script 1's tunnel and gets them back. The tunnel may close meanwhile.
async fn pass(rig: &Rig, bytes: usize) {
    let _ = exchange(rig.remote[0], &vec![7; bytes]).await;
}

#[expect(clippy::expect_used, reason = "a helper of tests fails the test")]
async fn month_bytes(rig: &Rig) -> u64 {
    rig.agent.status().await["month"]["bytes"].as_u64().expect("status tells of the month")
}

/// Waits until the log has said it so often.
async fn logged(rig: &Rig, text: &str, times: usize) {
    wait_until(&format!("the log says {text:?}"), LONG, async || {
        (rig.agent.log().matches(text).count() == times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_month_that_is_used_up_ends_tunnels_and_refuses_new_ones_across_restarts() {
    let mut rig = Rig::with(|setup| setup.policy("monthly_bytes = '100kB'")).await;
    rig.open(1).await;
    pass(&rig, 20_000).await;
    wait_until("both ways are counted", LONG, async || (month_bytes(&rig).await == 40_000).then_some(()))
        .await;
    assert_eq!(rig.agent.status().await["month"]["cap"], 100_000);
    let told = rig.agent.cli(&["status"]).await.stdout;
    assert!(told.contains(": 40 kB of 100 kB"), "{told}");
    assert_eq!(rig.agent.log().matches("data-cap").count(), 0);

    pass(&rig, 21_000).await;
    logged(&rig, "data-cap-near percent=80", 1).await;
    pass(&rig, 7_000).await;
    logged(&rig, "data-cap-near percent=95", 1).await;
    assert!(rig.echoes().await, "it may be used to the end");
    pass(&rig, 4_000).await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("data-cap"));
    rig.port_is_free(1).await;
    logged(&rig, "data-cap-reached", 1).await;
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, "");
    refuses(&mut rig).await;

    rig.agent.terminate().await;
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    refuses(&mut rig).await;
    rig.agent.kill().await;
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    refuses(&mut rig).await;
    assert!(month_bytes(&rig).await >= 100_000);

    // Nor does a tunnel without an agent get around it.
    rig.agent.terminate().await;
    let alone = rig.agent.cli(&["open", &rig.sshd.destination()]).await;
    assert_eq!(alone.code, Some(5), "{alone:?}");
    let text = rig.agent.configuration();
    rig.agent.configure(&text.replace("monthly_bytes = '100kB'", "monthly_bytes = '1MB'"));
    rig.agent.start().await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn a_transfer_at_full_speed_is_cut_at_the_cap() {
    const CAP: u64 = 5_000_000;
    let mut rig = Rig::with(|setup| setup.policy(&format!("monthly_bytes = {CAP}"))).await;
    rig.open(1).await;
    pass(&rig, 200_000_000).await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("data-cap"));
    let passed = month_bytes(&rig).await;
    // Two packets of the largest size, and what arrives before the server has read the goodbye.
    assert!((CAP..CAP + 512 * 1024).contains(&passed), "{passed}");
    let log = rig.sshd.log();
    assert!(log.contains("Received disconnect"), "what waits at the cap doesn't hold up the goodbye: {log}");
}

async fn refuses(rig: &mut Rig) {
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Rejected");
    let status = rig.csms.value("InvokeCustomScript1Status").await;
    assert!(status.contains("100 kB are used up"), "{status}");
    let opened = rig.agent.cli(&["open", &rig.sshd.destination()]).await;
    assert_eq!(opened.code, Some(5), "{opened:?}");
    assert!(opened.stderr.contains("policy.monthly_bytes"), "the message names the cure: {opened:?}");
}

#[tokio::test]
async fn a_power_cut_forgets_no_more_than_was_not_written_yet() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.agent.status().await["month"]["cap"], serde_json::Value::Null, "no cap unless asked for");
    rig.open(1).await;
    pass(&rig, 5_000).await;
    wait_until("it is counted", LONG, async || (month_bytes(&rig).await == 10_000).then_some(())).await;
    let file = rig.agent.state_dir().join("usage.json");
    assert!(!file.exists(), "the flash is not written for every byte");
    // A tunnel that closes has its bytes written down.
    assert_eq!(rig.agent.cli(&["close", "1"]).await.code, Some(0));
    wait_until("the count is written", LONG, async || file.exists().then_some(())).await;
    rig.open(1).await;
    pass(&rig, 500).await;
    wait_until("it is counted", LONG, async || (month_bytes(&rig).await == 11_000).then_some(())).await;
    rig.agent.kill().await;
    rig.agent.start().await;
    assert_eq!(month_bytes(&rig).await, 10_000);

    // The end of the agent counts as well.
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
    let used = month_bytes(&rig).await;
    assert!(used > 10_000);
    rig.agent.terminate().await;
    rig.agent.start().await;
    assert!(month_bytes(&rig).await >= used);
}

#[tokio::test]
async fn a_count_that_makes_no_sense_is_set_aside() {
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, |setup| setup.policy("monthly_bytes = 100000")).await;
    rig.authorize(&rig.sshd).await;
    let file = rig.agent.state_dir().join("usage.json");
    std::fs::write(&file, "{\"bytes\": 99").unwrap();
    rig.agent.start().await;
    assert_eq!(month_bytes(&rig).await, 0);
    logged(&rig, "usage-corrupt", 1).await;
    assert_eq!(std::fs::read_to_string(file.with_extension("json.corrupt")).unwrap(), "{\"bytes\": 99");
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn ten_minutes_before_its_end_a_tunnel_says_so() {
    let rig = Rig::start().await;
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--for", "10m 4s", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert_eq!(rig.agent.tunnel("1").await["ends_soon"], false);
    logged(&rig, "tunnel-ends-in-ten-minutes slot=1", 1).await;
    assert_eq!(rig.agent.tunnel("1").await["ends_soon"], true);
    let told = rig.agent.cli(&["status"]).await.stdout;
    assert!(told.contains("soon"), "{told}");

    // Whoever opens it again has time again.
    let again = rig.agent.cli(&["open", &rig.sshd.destination()]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(rig.agent.tunnel("1").await["ends_soon"], false);
    assert_eq!(rig.sshd.logins(), 1, "nothing reconnects");
}

#[tokio::test]
async fn a_shorter_maximum_binds_what_is_restored_too() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.agent.terminate().await;
    let text = rig.agent.configuration();
    rig.agent.configure(&text.replace("[policy]\n", "[policy]\nmax_duration = '3s'\n"));
    let begin = std::time::Instant::now();
    rig.agent.start().await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("expired"));
    assert!(begin.elapsed() < LONG);
    assert!(begin.elapsed() >= Duration::from_secs(2));
    rig.port_is_free(1).await;
}
