//! What the CSMS changed survives a restart of the agent.

use std::os::unix::fs::PermissionsExt;

use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::{LONG, wait_until};

/// Set to values that are neither the standard's defaults nor the configuration's.
const CHANGED: [(&str, &str); 3] =
    [("WebSocketPingInterval", "33"), ("MeterValueSampleInterval", "61"), ("LocalPreAuthorize", "true")];

#[tokio::test]
async fn values_that_the_csms_changed_survive_a_restart_and_win_over_the_configuration_file() {
    let mut rig = Rig::with(|setup| setup.ocpp("ping_interval = '45s'")).await;
    assert_eq!(rig.csms.value("WebSocketPingInterval").await, "45");
    for (key, value) in CHANGED {
        assert_eq!(rig.csms.change(key, value).await, "Accepted", "{key}");
    }
    assert_eq!(rig.csms.change("MeterValueSampleInterval", "often").await, "Rejected");

    assert_eq!(rig.agent.terminate().await.code(), Some(0));
    let file = rig.agent.state_dir().join("configuration.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    rig.agent.start().await;
    rig.csms.wait_for("boots", 2).await;
    for (key, value) in CHANGED {
        assert_eq!(rig.csms.value(key).await, value, "{key}");
    }
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, "", "slots are none of it");
}

#[tokio::test]
async fn a_power_cut_a_moment_later_forgets_nothing() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.csms.change("WebSocketPingInterval", "33").await, "Accepted");
    let file = rig.agent.state_dir().join("configuration.json");
    wait_until("the change is written", LONG, async || file.exists().then_some(())).await;
    rig.agent.kill().await;
    rig.agent.start().await;
    rig.csms.wait_for("boots", 2).await;
    assert_eq!(rig.csms.value("WebSocketPingInterval").await, "33");
}

#[tokio::test]
async fn a_corrupt_file_is_set_aside_and_a_value_that_does_not_fit_is_dropped() {
    let mut rig = Rig::start().await;
    let file = rig.agent.state_dir().join("configuration.json");
    for (text, set_aside) in [
        ("{\"values\": {\"WebSocketPingInterval\": \"33", true),
        ("{\"values\": {\"WebSocketPingInterval\": \"-5\", \"NoSuchKey\": \"1\"}}", false),
    ] {
        rig.agent.terminate().await;
        std::fs::write(&file, text).unwrap();
        rig.agent.start().await;
        rig.agent.link_is("accepted").await;
        assert_eq!(rig.csms.value("WebSocketPingInterval").await, "50", "the default");
        assert_eq!(!file.exists(), set_aside, "{text}");
    }
    let aside = rig.agent.state_dir().join("configuration.json.corrupt");
    assert!(std::fs::read_to_string(aside).unwrap().ends_with("\"33"));
    let syslog = rig.agent.syslog();
    syslog.line_with("configuration-corrupt").await;
    let dropped = syslog.line_with("configuration-not-restored key=WebSocketPingInterval").await;
    assert!(dropped.contains("value=-5"), "{dropped}");
    syslog.line_with("configuration-not-restored key=NoSuchKey").await;
}

/// Root may write anywhere, so what stands in the way is a directory of the file's name.
#[tokio::test]
async fn a_disk_that_can_not_be_written_stops_nothing() {
    let mut rig = Rig::start().await;
    let file = rig.agent.state_dir().join("configuration.json");
    std::fs::create_dir(&file).unwrap();
    assert_eq!(rig.csms.change("WebSocketPingInterval", "33").await, "Accepted");
    rig.agent.syslog().line_with("configuration-not-kept").await;
    assert_eq!(rig.csms.value("WebSocketPingInterval").await, "33", "it is in effect all the same");
    rig.open(1).await;
    rig.echo_returns().await;
}
