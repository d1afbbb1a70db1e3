//! The configuration in several files, and how a running agent takes up another one.

use std::time::Duration;

use nix::sys::signal::Signal;
use ocpp_tunnel_tests::process::run;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::ssh::KeyPair;
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::syslog::Syslog;
use ocpp_tunnel_tests::{LONG, SHORT, wait_until};

#[tokio::test]
async fn a_file_of_config_d_makes_one_image_this_device() {
    let mut rig = Rig::with(|setup| setup.policy("max_duration = '2h'")).await;
    rig.agent.drop_in("50-device.toml", "[policy]\nmax_duration = '1h'\n[ocpp]\nmodel = 'of-config.d'\n");
    let checked = rig.agent.cli(&["config", "check"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let lines: Vec<&str> = checked.stdout.lines().collect();
    assert!(lines[0].ends_with("/config.toml: ok"), "{checked:?}");
    assert!(lines[1].ends_with("/config.d/50-device.toml: ok"), "{checked:?}");
    let shown = rig.agent.cli(&["config", "show"]).await.stdout;
    assert!(shown.contains("max_duration = \"1h\"") && shown.contains("model = \"of-config.d\""), "{shown}");

    rig.agent.terminate().await;
    rig.agent.start().await;
    rig.csms.wait_for("boots", 2).await;
    let too_long = rig.agent.cli(&["open", &rig.sshd.destination(), "--for", "90m"]).await;
    assert_eq!(too_long.code, Some(5), "{too_long:?}");

    let link = rig.agent.config_path().with_file_name("config.d/70-link.toml");
    std::os::unix::fs::symlink("nowhere.toml", &link).unwrap();
    let dangling = rig.agent.cli(&["config", "check"]).await;
    assert_eq!(dangling.code, Some(78), "{dangling:?}");
    assert!(
        dangling.stderr.contains("70-link.toml: is a link to a file that doesn't exist\n  try: mend"),
        "{dangling:?}"
    );
    assert!(!dangling.stderr.contains("--config"), "{dangling:?}");
    std::fs::remove_file(&link).unwrap();

    rig.agent.drop_in("60-broken.toml", "[policy]\n\nmax_duration = 1\n");
    let broken = rig.agent.cli(&["config", "check"]).await;
    assert_eq!(broken.code, Some(78), "{broken:?}");
    assert!(broken.stderr.contains("/config.d/60-broken.toml:3:16: "), "{broken:?}");
}

#[tokio::test]
async fn a_tightened_policy_closes_what_it_forbids_and_drops_nothing_else() {
    let mut rig = Rig::start().await;
    let other = Sshd::start().await;
    rig.authorize(&other).await;
    rig.open(1).await;
    let local = ["open", &rig.sshd.destination(), "--script", "2", "--wait"];
    assert_eq!(rig.agent.cli(&local).await.code, Some(0));
    let logins = rig.sshd.logins();

    let allowed = format!("[policy]\nallow_destinations = ['{}']\n", other.destination());
    rig.agent.drop_in("50-tight.toml", &format!("{allowed}max_duration = '30m'\n"));
    assert_eq!(rig.agent.tunnel("1").await["state"], "up", "nobody has reloaded it yet");
    let reloaded = rig.agent.cli(&["config", "reload"]).await;
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    assert_eq!(
        reloaded.stdout, "policy.allow_destinations: in force\npolicy.max_duration: in force\n",
        "{reloaded:?}"
    );

    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("policy"));
    rig.port_is_free(1).await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Rejected");
    // Who sits at the device isn't bound by the list; but the tunnel's life is shorter now.
    assert!(rig.fetch_page().await.contains("CP001"));
    assert_eq!(rig.sshd.logins(), logins, "it is the same connection");
    let expires = rig.agent.tunnel("2").await["expires"].as_str().unwrap().to_owned();
    let left = chrono::DateTime::parse_from_rfc3339(&expires).unwrap().to_utc() - chrono::Utc::now();
    assert!((25..=30).contains(&left.num_minutes()), "{left}");

    let record = rig.agent.record("configuration-reloaded").await;
    assert_eq!((&record["key"], &record["effect"]), (&"policy.max_duration".into(), &"at-once".into()));
    assert_eq!(record["source"]["kind"], "local", "{record}");
    let why = rig.agent.records(&["--type", "tunnel-close-requested"]).await.pop().unwrap();
    assert_eq!(why["source"]["kind"], "configuration", "{why}");
}

#[tokio::test]
async fn a_mistake_in_the_files_changes_nothing_and_is_told_until_it_is_mended() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.agent.drop_in("50-bad.toml", "[policy]\nallow_destinations = []\nmax_duration = 'soon'\n");
    let reloaded = rig.agent.cli(&["config", "reload"]).await;
    assert_eq!(reloaded.code, Some(78), "{reloaded:?}");
    assert!(reloaded.stderr.contains("/config.d/50-bad.toml:3:16: policy.max_duration"), "{reloaded:?}");
    let error = rig.agent.status().await["configuration"]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("50-bad.toml:3:16"), "{error}");
    let told = rig.agent.cli(&["status"]).await.stdout;
    assert!(told.contains("configuration not reloaded, the old one is in force: "), "{told}");
    rig.agent.syslog().line_with("configuration-invalid").await;

    rig.agent.signal(Signal::SIGHUP);
    wait_until("SIGHUP is refused as well", LONG, async || {
        (rig.agent.log().matches("configuration-invalid").count() == 2).then_some(())
    })
    .await;
    assert!(rig.echoes().await);
    // Whoever opened a pipe would wait for its other end for ever.
    rig.agent.drop_in("60-pipe.toml", "");
    let pipe = rig.agent.config_path().with_file_name("config.d/60-pipe.toml");
    std::fs::remove_file(&pipe).unwrap();
    let made = tokio::process::Command::new("mkfifo").arg(&pipe).status().await.unwrap();
    assert!(made.success());
    rig.agent.drop_in("50-bad.toml", "");
    let reloaded = rig.agent.cli(&["config", "reload"]).await;
    assert!(
        reloaded.code == Some(78)
            && reloaded.stderr.contains("60-pipe.toml: can't be read: it is neither a file"),
        "{reloaded:?}"
    );
    rig.agent.signal(Signal::SIGHUP);
    wait_until("the agent refuses it as well", LONG, async || {
        (rig.agent.log().matches("configuration-invalid").count() == 4).then_some(())
    })
    .await;
    assert!(rig.echoes().await);
    std::fs::remove_file(&pipe).unwrap();
    rig.csms.change("InvokeCustomScript1", "close").await;
    rig.open(1).await;

    rig.agent.drop_in("50-bad.toml", "[policy]\nmax_duration = '1h'\n");
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    assert_eq!(rig.agent.status().await["configuration"]["error"], serde_json::Value::Null);
    let records = rig.agent.records(&["--type", "configuration-invalid"]).await;
    let sources: Vec<&str> =
        records.iter().map(|record| record["source"]["kind"].as_str().unwrap()).collect();
    assert_eq!(sources, ["local", "configuration", "local", "configuration"], "{records:?}");
    let again = rig.agent.cli(&["config", "reload"]).await;
    assert_eq!(again.stdout, "nothing has changed\n");

    // Another file that leads to the same agent isn't what that reads.
    let other = rig.agent.config_path().with_file_name("other.toml");
    std::fs::write(&other, rig.agent.configuration()).unwrap();
    let [own, other] = [rig.agent.config_path(), other].map(|path| path.display().to_string());
    let reload =
        async |path: &str| run(rig.agent.binary().args(["config", "reload", "--config", path]), "").await;
    let mistaken = reload(&other).await;
    assert_eq!(mistaken.code, Some(1), "{mistaken:?}");
    let told = format!("has its configuration from {own}, and not from {other}");
    assert!(mistaken.stderr.contains(&told), "{mistaken:?}");
    std::fs::remove_file(&other).unwrap();
    std::os::unix::fs::symlink(&own, &other).unwrap();
    assert_eq!(reload(&other).await.stdout, "nothing has changed\n");
}

#[tokio::test]
async fn what_needs_a_restart_is_told_and_stays_as_it_was_until_then() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    let script = "[[script]]\nkey = 'Other9'\nremote = 'localhost:7'\nlocal = '127.0.0.1:7'\n";
    rig.agent.drop_in("50.toml", &format!("[ssh]\nkeepalive_max = 7\n[ocpp]\nmodel = 'another'\n{script}"));
    let reloaded = rig.agent.cli(&["config", "reload"]).await;
    assert_eq!(
        reloaded.stdout,
        "ssh.keepalive_max: in force for tunnels that are opened from now on\n\
         ocpp.model: waits for a restart\n\
         script: waits for a restart\n",
        "{reloaded:?}"
    );
    let waiting = &rig.agent.status().await["configuration"]["restart_needed"];
    assert_eq!(*waiting, serde_json::json!(["ocpp.model", "script"]));
    let told = rig.agent.cli(&["status"]).await.stdout;
    assert!(told.contains("restart the agent to put in force: ocpp.model, script\n"), "{told}");
    assert_eq!(rig.csms.value("InvokeCustomScript1").await, rig.sshd.destination());
    assert!(rig.echoes().await);

    rig.agent.terminate().await;
    rig.agent.start().await;
    assert_eq!(rig.agent.status().await["configuration"]["restart_needed"], serde_json::json!([]));
    assert_eq!(rig.agent.tunnel("1").await, serde_json::Value::Null, "script 1 is no more");
}

#[tokio::test]
async fn sighup_moves_the_log_and_changes_its_level_without_a_restart() {
    let rig = Rig::with(|setup| setup.log_level("warn")).await;
    let path = rig.agent.directory().join("another-syslog");
    let another = Syslog::start(&path);
    rig.agent.drop_in("50.toml", &format!("[log]\nlevel = 'info'\nsyslog = '{}'\n", path.display()));
    rig.agent.signal(Signal::SIGHUP);
    another.line_with("configuration-reloaded").await;
    let line = another.line_with("applied=").await;
    assert!(line.contains("log.level log.syslog"), "{line}");
    assert_eq!(rig.agent.syslog().count("configuration-reloaded"), 0);
    rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    another.line_with("tunnel-up").await;
    assert_eq!(rig.agent.record("configuration-reloaded").await["source"]["kind"], "configuration");
}

#[tokio::test]
async fn a_new_pin_holds_for_the_next_connection_of_a_tunnel_that_is_up() {
    let mut rig = Rig::with(|setup| setup.pin_nothing()).await;
    rig.open(1).await;
    let wrong = KeyPair::generate(&rig.agent.directory().join("wrong")).await;
    let pin = wrong.known_hosts_line(rig.sshd.port());
    rig.agent.drop_in("50.toml", &format!("[ssh]\nhost_keys = ['{pin}']\n"));
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    tokio::time::sleep(SHORT).await;
    assert!(rig.echoes().await, "a connection that was verified goes on");

    rig.sshd.kill_sessions();
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("host-key-mismatch"));
}

#[tokio::test]
async fn a_new_cap_and_a_new_disable_file_hold_for_what_is_open() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    assert!(rig.echoes().await);
    rig.agent.drop_in("50.toml", "[policy]\nmonthly_bytes = 1\n");
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("data-cap"));
    assert_eq!(rig.csms.change("InvokeCustomScript1", &rig.sshd.destination()).await, "Rejected");

    rig.agent.drop_in("50.toml", "");
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    rig.open(1).await;
    let disabled = rig.agent.directory().join("off");
    std::fs::write(&disabled, "").unwrap();
    rig.agent.drop_in("50.toml", &format!("[policy]\ndisable_file = '{}'\n", disabled.display()));
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("policy"));
}

#[tokio::test]
async fn where_files_may_be_uploaded_changes_at_once() {
    let mut rig = Rig::start().await;
    rig.agent.drop_in("50.toml", "[policy]\nallow_uploads = ['http://logs.example.com']\n");
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while rig.csms.value("SupportedFileTransferProtocols").await != "HTTP" {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn an_agent_of_one_tunnel_keeps_the_configuration_of_its_start() {
    let mut rig = Rig::start().await;
    rig.agent.terminate().await;
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--background", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let reloaded = rig.agent.cli(&["config", "reload"]).await;
    assert_eq!(reloaded.code, Some(1), "{reloaded:?}");
    assert!(reloaded.stderr.contains("close the tunnel and open it again"), "{reloaded:?}");
    rig.agent.cli(&["close", "--all"]).await;
    wait_until("it has ended", LONG, async || {
        (rig.agent.cli(&["config", "reload"]).await.code == Some(10)).then_some(())
    })
    .await;
}
