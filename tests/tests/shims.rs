//! `custom_script1.sh` and `custom_script2.sh`, which must never do what the vendor's scripts could be made to do.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::{PAGE, Rig};
use ocpp_tunnel_tests::{LONG, SHORT, ports, wait_until};

const NOT_INVOKED: &str = "Ebee custom script not invoked: Argument does not match user@domain";

#[tokio::test]
async fn a_shim_opens_its_tunnel_through_the_running_agent() {
    let rig = Rig::start().await;
    let destination = rig.sshd.destination();
    let shim = rig.agent.shim(1, &[&destination]).await;
    assert_eq!(shim.code, Some(0), "{shim:?}");
    rig.agent.tunnel_is("1", "up").await;
    rig.echo_returns().await;
    rig.agent.syslog().line_with(&format!("Ebee custom script invoked with parameter {destination}")).await;
    rig.agent.syslog().line_with("Ebee custom script invocation completed").await;

    let shim = rig.agent.shim(2, &[&destination]).await;
    assert_eq!(shim.code, Some(0), "{shim:?}");
    rig.agent.tunnel_is("2", "up").await;
    assert!(rig.fetch_page().await.ends_with(PAGE));
}

#[tokio::test]
async fn a_shim_needs_neither_an_agent_nor_a_csms() {
    let csms = Csms::start(Options::default()).await;
    let rig = Rig::unstarted(csms, |setup| setup).await;
    rig.authorize(&rig.sshd).await;
    let begin = std::time::Instant::now();
    let shim = rig.agent.shim(2, &[&rig.sshd.destination()]).await;
    assert_eq!(shim.code, Some(0), "{shim:?}");
    assert!(begin.elapsed() < LONG / 3, "it returns at once");
    rig.agent.tunnel_is("2", "up").await;
    assert!(rig.fetch_page().await.ends_with(PAGE));
    assert!(!ports::answers(rig.remote[0]));

    assert_eq!(rig.agent.cli(&["close", "--all"]).await.code, Some(0));
    rig.port_is_free(2).await;
    wait_until("nothing runs any more", LONG, async || {
        (rig.agent.cli(&["status"]).await.code == Some(10)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_shim_without_a_configuration_names_what_it_does_read() {
    let csms = Csms::start(Options::default()).await;
    let rig = Rig::unstarted(csms, |setup| setup).await;
    std::fs::remove_file(rig.agent.config_path()).unwrap();
    let shim = rig.agent.shim(1, &[&rig.sshd.destination()]).await;
    assert_eq!(shim.code, Some(0), "{shim:?}");
    assert!(shim.stderr.contains("/etc/ocpp-tunnel/config.toml: doesn't exist"), "{shim:?}");
    assert!(shim.stderr.contains("OCPP_TUNNEL_CONFIG") && !shim.stderr.contains("--config"), "{shim:?}");
    // The others are told of the option that they have.
    let status = rig.agent.cli(&["status"]).await;
    assert_eq!(status.code, Some(78), "{status:?}");
    assert!(status.stderr.contains("--config FILE"), "{status:?}");
    // So that what is printed when this story fails can be printed.
    rig.agent.configure("");
}

#[tokio::test]
async fn hostile_arguments_start_nothing_and_are_logged() {
    let mut rig = Rig::start().await;
    let destination = rig.sshd.destination();
    let port = rig.sshd.port();
    let before = entries(&rig);
    let hostile: Vec<Vec<String>> = vec![
        vec![],
        vec![String::new()],
        vec!["u@1.2.3.4. -oProxyCommand=touch${IFS}owned".into()],
        vec!["support@127.0.0.1. -oProxyCommand=touch owned".into()],
        vec!["-oProxyCommand@host.com".into()],
        vec![format!("-p{port}"), destination.clone()],
        vec![destination.clone(), destination.clone()],
        vec![destination.clone(), "-oProxyCommand=touch owned".into()],
        vec!["--help".into()],
        vec!["-h".into()],
        vec!["--version".into()],
        vec!["--config=/dev/null".into()],
        vec!["--config".into(), "/dev/null".into()],
        vec!["run".into()],
        vec!["status".into()],
        vec!["open".into(), destination.clone()],
        vec!["--".into(), destination.clone()],
        vec![format!("{destination}\n{destination}")],
        vec![format!("{destination}\n")],
        vec![format!("$(touch owned)@127.0.0.1:{port}")],
        vec![format!("support@$(touch owned):{port}")],
        vec![format!("support@`touch owned`:{port}")],
        vec![format!("support@127.0.0.1:{port};touch owned")],
        vec![format!("support@127.0.0.1:{port}|touch owned")],
        vec![format!("support@127.0.0.1:{port}&&touch owned")],
        vec![format!("'support'@127.0.0.1:{port}")],
        vec![format!("support@127.0.0.1:{port} touch owned")],
        vec!["x".repeat(100_000)],
    ];
    let count = hostile.len();
    for (done, arguments) in hostile.iter().enumerate() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let shim = rig.agent.shim(1 + u8::from(done % 2 == 0), &arguments).await;
        assert_eq!(shim.code, Some(0), "{arguments:.120?}: {shim:?}");
        wait_until(&format!("the refusal of {arguments:.120?} is logged"), LONG, async || {
            (rig.agent.syslog().count(NOT_INVOKED) > done).then_some(())
        })
        .await;
    }

    tokio::time::sleep(SHORT).await;
    let syslog = rig.agent.syslog();
    assert_eq!(syslog.count(NOT_INVOKED), count);
    assert_eq!(syslog.count("Ebee custom script invoked"), 0, "{:#?}", syslog.lines());
    assert_eq!(syslog.count("Ebee custom script invocation completed"), 0);
    assert!(syslog.lines().iter().all(|line| line.len() < 200 && !line.contains('\n')));
    assert_eq!(rig.sshd.connections(), 0, "{}", rig.sshd.log());
    let mut after = entries(&rig);
    after.retain(|name| !name.starts_with("custom_script"));
    assert_eq!(after, before, "no file was made");
    assert!(rig.agent.status().await["tunnels"].as_array().is_none_or(|tunnels| {
        tunnels.iter().all(|tunnel| tunnel["state"] == "idle" || tunnel["state"] == "closed")
    }));

    // Each is in the audit records, alone or, as a flood is, summed up; also where no agent runs.
    let refused = |records: &[serde_json::Value]| -> u64 {
        records.iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum()
    };
    rig.agent.terminate().await;
    let types = ["--type", "tunnel-refused", "--type", "records-summed"];
    let records = rig.agent.records(&types).await;
    assert_eq!(refused(&records), count as u64, "{records:?}");
    assert_eq!((&records[0]["source"]["kind"], &records[0]["tunnel"]), (&"local".into(), &"2".into()));
    let shim = rig.agent.shim(1, &["-oProxyCommand=touch owned@host"]).await;
    assert_eq!(shim.code, Some(0), "{shim:?}");
    let records = rig.agent.records(&types).await;
    assert_eq!(refused(&records), count as u64 + 1, "{records:?}");
    let last = records.last().unwrap();
    assert_eq!((&last["tunnel"], &last["result"]), (&"1".into(), &"refused".into()), "{last}");
}

fn entries(rig: &Rig) -> Vec<String> {
    let entries = std::fs::read_dir(rig.agent.directory()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
