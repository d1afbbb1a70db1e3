//! What is written down of everything that was asked for, and what becomes of it when the disk fails.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use futures_util::future::join_all;
use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::Daemon;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::service::exchange;
use ocpp_tunnel_tests::{LONG, SHORT, ports, wait_until};
use serde_json::{Value, json};

fn kinds(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["type"].as_str()).collect()
}

fn numbers(records: &[Value]) -> Vec<u64> {
    records.iter().filter_map(|record| record["seq"].as_u64()).collect()
}

#[tokio::test]
async fn the_whole_life_of_a_tunnel_can_be_read_afterwards() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    assert!(rig.echoes().await);
    let destination = rig.sshd.destination();
    assert_eq!(rig.csms.change("InvokeCustomScript1", &destination).await, "Accepted");
    assert_eq!(rig.csms.change("InvokeCustomScript1", "evil@203.0.113.66").await, "Rejected");
    let opened = rig.agent.cli(&["open", &destination, "--script", "2", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert_eq!(rig.agent.cli(&["close", "2"]).await.code, Some(0));
    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    rig.port_is_free(1).await;
    rig.agent.terminate().await;

    let records = rig.agent.records(&[]).await;
    let find = |kind: &str, tunnel: &str| {
        let mut found = records.iter().filter(|record| record["type"] == kind);
        let found = found.find(|record| tunnel.is_empty() || record["tunnel"] == tunnel);
        found.unwrap_or_else(|| panic!("no {kind} of {tunnel:?} in {:?}", kinds(&records)))
    };
    let ocpp = json!({"kind": "ocpp", "profile": 1});
    let requested = find("tunnel-requested", "1");
    assert_eq!((&requested["source"], &requested["server"]), (&ocpp, &json!(destination)));
    assert_eq!(
        (&requested["category"], &requested["event"], &requested["result"]),
        (&json!("access-control"), &json!(101), &json!("success"))
    );
    assert_eq!((&requested["clock"], &requested["lifetime"]), (&json!("synced"), &json!(28_800)));
    assert!(requested["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{requested}");
    assert!(requested["uptime"].as_f64().is_some_and(|uptime| uptime > 0.0), "{requested}");

    let opened = find("tunnel-opened", "1");
    assert_eq!(opened["source"], json!({"kind": "tunnel"}));
    let forward = format!("localhost:{} -> {}", rig.remote[0], rig.echo.address());
    assert_eq!(opened["forwards"], json!([forward]));
    let connection = find("connection-ended", "1");
    assert_eq!((&connection["forward"], &connection["end"]), (&json!(forward), &json!("complete")));
    assert_eq!((&connection["bytes_in"], &connection["bytes_out"]), (&json!(14), &json!(14)));
    assert!(connection["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{connection}");
    assert!(connection["milliseconds"].is_u64(), "{connection}");
    assert_eq!(find("tunnel-extended", "1")["source"], ocpp);
    let refused = find("tunnel-refused", "1");
    assert_eq!((&refused["result"], &refused["category"]), (&json!("refused"), &json!("request-error")));
    assert!(refused["why"].as_str().is_some_and(|why| why.contains("evil@203.0.113.66")), "{refused}");
    assert_eq!(find("tunnel-closed", "1")["reason"], "ocpp");

    for kind in ["tunnel-requested", "tunnel-close-requested"] {
        let source = &find(kind, "2")["source"];
        assert_eq!((&source["kind"], &source["uid"]), (&json!("local"), &json!(0)), "{kind}");
        assert!(source["pid"].as_u64().is_some_and(|pid| pid > 1), "{source}");
    }
    assert_eq!(find("tunnel-closed", "2")["reason"], "user");
    find("device-key-made", "");
    assert_eq!(find("agent-started", "")["purpose"], "service");
    assert_eq!(kinds(&records).last(), Some(&"agent-stopped"));
    assert_eq!(numbers(&records), (1..=records.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn people_see_records_filter_and_follow_them() {
    let mut rig = Rig::start().await;
    let mut follow = rig.agent.command(&["audit", "--follow", "-n", "0", "--type", "tunnel-refused"]);
    let shown = rig.agent.directory().join("followed");
    follow.stdin(Stdio::null()).stdout(fs::File::create(&shown).unwrap());
    let _follower = Daemon::start(&mut follow, &rig.agent.directory().join("follower"));
    tokio::time::sleep(SHORT).await;
    assert_eq!(rig.csms.change("InvokeCustomScript1", "evil@203.0.113.66").await, "Rejected");
    let line = wait_until("the refusal is shown", LONG, async || {
        fs::read_to_string(&shown).ok().filter(|text| text.ends_with('\n'))
    })
    .await;
    assert!(line.contains(" tunnel-refused (refused) source=ocpp/profile-1 tunnel=1 why="), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");

    let all = rig.agent.cli(&["audit"]).await;
    assert!(all.stdout.contains("agent-started"), "{all:?}");
    let last = rig.agent.cli(&["audit", "-n", "1"]).await;
    assert_eq!(all.stdout.lines().last(), last.stdout.lines().last());
    assert_eq!(rig.agent.records(&["--since", "1h"]).await, rig.agent.records(&[]).await);
    assert!(rig.agent.records(&["--since", "2099-01-01T00:00:00Z"]).await.is_empty());
    let unknown = rig.agent.cli(&["audit", "--type", "tunnel-open"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("tunnel-opened"), "{unknown:?}");

    let never = Agent::new(Setup::new().ocpp("mode = 'off'"));
    let nothing = never.cli(&["audit"]).await;
    assert_eq!(nothing.code, Some(4), "{nothing:?}");
    assert!(nothing.stderr.contains("try: "), "{nothing:?}");
}

#[tokio::test]
async fn changes_of_configuration_and_of_keys_are_recorded_whoever_makes_them() {
    let mut rig = Rig::with(|setup| setup.ssh("host_key_policy = 'accept-new'")).await;
    assert_eq!(rig.csms.change("HeartbeatInterval", "77").await, "Accepted");
    let changed = rig.agent.record("configuration-changed").await;
    assert_eq!((&changed["key"], &changed["value"]), (&json!("HeartbeatInterval"), &json!("77")));
    assert_eq!(changed["source"], json!({"kind": "ocpp", "profile": 1}));

    let agent = &rig.agent;
    let cli = async |arguments: &[&str]| {
        let output = agent.cli(arguments).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(!output.stderr.contains("audit"), "{output:?}");
    };
    cli(&["keys", "rotate"]).await;
    let begun = rig.agent.record("device-key-rotation").await;
    cli(&["keys", "rotate", "--abort"]).await;
    let aborted = rig.agent.record("device-key-rotation-aborted").await;
    assert_eq!((&begun["key"], &begun["old"]), (&aborted["key"], &aborted["old"]));
    assert_eq!(begun["source"]["kind"], "local");
    cli(&["keys", "rotate"]).await;
    cli(&["keys", "rotate", "--finish"]).await;
    let finished = rig.agent.record("device-key-changed").await;
    assert_eq!(finished["old"], begun["old"]);
    assert_ne!(finished["key"], begun["key"]);

    let secret = "a-secret-of-20-chars";
    assert_eq!(rig.csms.change("AuthorizationKey", secret).await, "Accepted");
    let changed = wait_until("that is recorded", LONG, async || {
        Some(rig.agent.record("link-security-changed").await)
            .filter(|record| record["key"] == "AuthorizationKey")
    })
    .await;
    assert!(changed.get("value").is_none(), "{changed}");
    assert!(!rig.agent.cli(&["audit", "--json"]).await.stdout.contains(secret));

    // The agent and the command line write the same files, and never the same number.
    let records = rig.agent.records(&[]).await;
    assert_eq!(numbers(&records), (1..=records.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn host_keys_are_recorded_when_they_are_learned_trusted_and_removed() {
    let csms = Csms::start(Options::default()).await;
    let rig = Rig::unstarted(csms, |setup| setup.ocpp("mode = 'off'")).await;
    let text = rig.agent.configuration();
    let pins = text.lines().find(|line| line.starts_with("host_keys")).unwrap();
    rig.agent.configure(&text.replace(pins, "host_keys = []"));
    let mut agent = rig.agent;
    agent.start().await;
    rig.sshd.authorize(&agent.authorized_keys_line().await);
    let opened = agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let learned = agent.record("host-key-learned").await;
    assert_eq!(learned["server"], rig.sshd.destination());
    let fingerprint = learned["host_key"].as_str().unwrap().to_owned();
    assert!(fingerprint.starts_with("SHA256:"), "{learned}");

    let server = format!("127.0.0.1:{}", rig.sshd.port());
    assert_eq!(agent.cli(&["close", "--all"]).await.code, Some(0));
    agent.terminate().await;
    assert_eq!(agent.cli(&["host-keys", "remove", &server]).await.code, Some(0));
    assert_eq!(agent.record("host-keys-removed").await["server"], server);
    let trusted = agent.cli(&["host-keys", "trust", &server, "--fingerprint", &fingerprint]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    let record = agent.record("host-keys-trusted").await;
    assert_eq!((&record["server"], &record["host_keys"]), (&json!(server), &json!([fingerprint])));
}

#[tokio::test]
async fn numbers_go_on_after_a_power_cut_and_a_torn_line_is_no_disaster() {
    let mut agent = Agent::run(Setup::new().ocpp("mode = 'off'")).await;
    agent.record("agent-started").await;
    agent.kill().await;
    let before = numbers(&agent.records(&[]).await);
    let file = fs::read_dir(agent.state_dir().join("audit")).unwrap().flatten();
    let file = file.map(|entry| entry.path()).find(|path| path.extension().is_some()).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend(b"{\"seq\":3,\"time\":\"2026-11-\x1b[31m\0\0");
    fs::write(&file, bytes).unwrap();

    agent.start().await;
    let started = wait_until("its start is recorded", LONG, async || {
        agent.records(&["--type", "agent-started"]).await.into_iter().nth(1)
    })
    .await;
    assert_eq!((&started["run_before"], &started["seq_before"]), (&json!("cut-short"), &json!(before.len())));
    let number = started["seq"].as_u64().unwrap();
    assert_eq!(number, before.len() as u64 + 3, "the torn line had a number, and its loss has one");
    let people = agent.cli(&["audit"]).await;
    assert!(people.stdout.contains("\n-- 32 bytes that are no record: "), "{people:?}");
    assert!(people.stdout.contains(&format!("\n-- record {} is missing --\n", number - 2)), "{people:?}");
    assert!(people.stdout.contains(" records-lost (failure) source=agent lost=1 why="), "{people:?}");
    assert!(!people.stdout.contains('\x1b'), "{people:?}");

    agent.terminate().await;
    agent.start().await;
    let started = wait_until("its start is recorded", LONG, async || {
        agent.records(&["--type", "agent-started"]).await.into_iter().nth(2)
    })
    .await;
    assert_eq!(started["run_before"], "stopped");
}

#[tokio::test]
async fn a_flood_neither_fills_the_disk_nor_pushes_out_what_matters() {
    let setup = Setup::new().ocpp("mode = 'off'").log("audit_bytes = '64KiB'").log_level("error");
    let mut agent = Agent::run(setup).await;
    let request = r#"{"op":"open","destination":null,"script":9,"forwards":[],"lifetime":null,"wait":false}"#;
    for _ in 0..2 {
        for _ in 0..1000 {
            let answer = agent.ask(request).await;
            assert!(answer.contains("script 9 is not configured"), "{answer}");
        }
        agent.terminate().await;
        let sum = agent.record("records-summed").await;
        assert_eq!((&sum["of"], &sum["count"]), (&json!("tunnel-refused"), &json!(960)));
        agent.start().await;
    }
    agent.terminate().await;
    let records = agent.records(&[]).await;
    assert_eq!(numbers(&records), (1..=records.len() as u64).collect::<Vec<_>>(), "nothing was pushed out");
    let files = fs::read_dir(agent.state_dir().join("audit")).unwrap().flatten();
    let sizes: Vec<u64> = files.map(|file| file.metadata().unwrap().len()).collect();
    assert!(sizes.iter().sum::<u64>() <= 64 * 1024, "{sizes:?}");
}

#[tokio::test]
async fn a_read_only_disk_stops_no_tunnel_and_no_record_is_lost_when_it_recovers() {
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, |setup| {
        let state = setup.directory().join("state").display().to_string();
        setup.ocpp("mode = 'off'").mount(&format!("mount --bind {state} {state}"))
    })
    .await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.agent.record("agent-started").await;
    let remount = |options: &str| {
        let (pid, state) = (rig.agent.pid().to_string(), rig.agent.state_dir());
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--mount", "--target", &pid, "mount", "-o", &format!("remount,bind,{options}")]);
        assert!(nsenter.arg(state).status().unwrap().success());
    };
    remount("ro");
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert!(rig.echoes().await);
    let failing = wait_until("status tells of it", LONG, async || {
        Some(rig.agent.status().await["audit"].take()).filter(|audit| audit["state"] == "failing")
    })
    .await;
    assert!(failing["error"].as_str().is_some_and(|error| error.contains("Read-only")), "{failing}");
    let people = rig.agent.cli(&["status"]).await;
    assert!(people.stdout.contains("audit records can't be written: Read-only"), "{people:?}");
    assert_eq!(rig.agent.log().matches("audit-not-written").count(), 1);

    remount("rw");
    wait_until("they are written again", LONG, async || {
        (rig.agent.status().await["audit"]["state"] == "ok").then_some(())
    })
    .await;
    assert_eq!(rig.agent.status().await["audit"]["lost"], 0);
    rig.agent.record("connection-ended").await;
    let records = rig.agent.records(&[]).await;
    assert!(kinds(&records).contains(&"tunnel-opened"), "{:?}", kinds(&records));
    assert_eq!(numbers(&records), (1..=records.len() as u64).collect::<Vec<_>>());
    assert_eq!(rig.agent.log().matches("audit-written-again").count(), 1);
}

#[tokio::test]
async fn a_full_disk_leaves_whole_lines_and_is_told_of() {
    let setup = Setup::new().ocpp("mode = 'off'");
    let state = setup.directory().join("state");
    let mount = format!("mount -t tmpfs -o size=256k,mode=755 none {}", state.display());
    let agent = Agent::run(setup.mount(&mount)).await;
    // The disk as the agent sees it.
    let disk = PathBuf::from(format!("/proc/{}/root{}", agent.pid(), state.display()));
    let text = || {
        let parts = fs::read_dir(disk.join("audit")).into_iter().flatten().flatten();
        let parts = parts.map(|part| fs::read_to_string(part.path()).unwrap());
        parts.collect::<String>()
    };
    wait_until("its start is recorded", LONG, async || text().contains("agent-started").then_some(())).await;
    // A page is left of it, if anything.
    fs::write(disk.join("fill"), vec![0; 1 << 20]).unwrap_err();
    let refuse = r#"{"op":"open","destination":null,"script":9,"forwards":[],"lifetime":null,"wait":false}"#;
    let failing = wait_until("the disk is full for the records, too", LONG, async || {
        agent.ask(refuse).await;
        Some(agent.status().await["audit"].take()).filter(|audit| audit["state"] == "failing")
    })
    .await;
    assert!(failing["error"].as_str().is_some_and(|error| error.contains("No space left")), "{failing}");
    assert!(text().ends_with("}\n"), "no part of a line is left: {}", text());

    fs::remove_file(disk.join("fill")).unwrap();
    wait_until("they are written again", LONG, async || {
        (agent.status().await["audit"]["state"] == "ok").then_some(())
    })
    .await;
    let text = text();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(numbers(&records), (1..=records.len() as u64).collect::<Vec<_>>());
    assert_eq!(agent.log().matches("audit-not-written").count(), 1);
}

#[tokio::test]
async fn what_befalls_a_tunnel_is_recorded_whoever_asked_for_it() {
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, |setup| {
        let disabled = setup.directory().join("disabled").display().to_string();
        let nobody = format!("127.0.0.1:{}", ports::free());
        setup.policy(&format!("disable_file = '{disabled}'")).script(3, ports::free(), &nobody)
    })
    .await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.agent.link_is("accepted").await;
    let destination = rig.sshd.destination();
    let shim = rig.agent.shim(1, &[&destination]).await;
    assert_eq!(shim.code, Some(0), "{shim:?}");
    rig.agent.tunnel_is("1", "up").await;
    let requested = rig.agent.record("tunnel-requested").await;
    assert_eq!((&requested["source"]["kind"], &requested["tunnel"]), (&json!("local"), &json!("1")));
    rig.open(2).await;
    let opened = rig.agent.cli(&["open", &destination, "--script", "3", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let tunnel = rig.agent.tunnel("3").await;
    let remote = tunnel["forwards"][0]["remote"].as_str().unwrap().rsplit(':').next().unwrap();
    let _ = exchange(remote.parse().unwrap(), b"is anybody there?").await;
    let refused = rig.agent.record("connection-refused").await;
    assert_eq!((&refused["end"], &refused["tunnel"]), (&json!("unreachable"), &json!("3")), "{refused}");

    rig.sshd.kill_sessions();
    let lost = rig.agent.record("tunnel-lost").await;
    assert_eq!(lost["server"], destination);
    for id in ["1", "2", "3"] {
        rig.agent.tunnel_is(id, "up").await;
    }

    // After the restart, the CSMS may open nothing any more; what was asked for on site is kept.
    rig.agent.terminate().await;
    let text = rig.agent.configuration();
    let allowed = text.lines().find(|line| line.starts_with("allow_destinations")).unwrap();
    rig.agent.configure(&text.replace(allowed, "allow_destinations = []"));
    rig.agent.start().await;
    let restored = wait_until("both are restored", LONG, async || {
        let restored = rig.agent.records(&["--type", "tunnel-restored"]).await;
        (restored.len() == 2).then_some(restored)
    })
    .await;
    assert_eq!((&restored[0]["tunnel"], &restored[1]["tunnel"]), (&json!("1"), &json!("3")));
    let changed = rig.agent.records(&["--type", "configuration-reloaded"]).await;
    assert_eq!(changed.len(), 1, "one key was changed, before the second start: {changed:?}");
    let fields = ["key", "value", "effect"].map(|name| changed[0][name].as_str().unwrap());
    assert_eq!(fields, ["policy.allow_destinations", "[]", "start"]);
    assert_eq!(changed[0]["source"]["kind"], "configuration");
    let dropped = rig.agent.record("tunnel-not-restored").await;
    assert_eq!((&dropped["tunnel"], &dropped["result"]), (&json!("2"), &json!("refused")), "{dropped}");

    fs::write(rig.agent.directory().join("disabled"), "").unwrap();
    rig.agent.record("access-disabled").await;
    assert_eq!(rig.agent.tunnel_ends("1").await.as_deref(), Some("policy"));
    assert_eq!(rig.agent.record("tunnel-closed").await["reason"], "policy");
    rig.agent.terminate().await;
    rig.agent.start().await;
    rig.agent.terminate().await;
    let changed = rig.agent.records(&["--type", "configuration-reloaded"]).await;
    assert_eq!(changed.len(), 1, "nothing was changed before the third: {changed:?}");
    let records = rig.agent.records(&[]).await;
    assert_eq!(numbers(&records), (1..=records.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_flood_of_connections_is_summed_up_within_the_cap_and_the_tunnel_stays() {
    let mut rig = Rig::with(|setup| setup.log("audit_bytes = '64KiB'").log_level("error")).await;
    rig.open(1).await;
    for _ in 0..60 {
        let connections = (0..20).map(|_| exchange(rig.remote[0], b"x"));
        for answer in join_all(connections).await {
            assert_eq!(answer.unwrap(), b"x");
        }
    }
    assert!(rig.echoes().await);
    rig.agent.terminate().await;
    let sum = rig.agent.record("records-summed").await;
    assert_eq!(sum["of"], "connection-ended");
    let (count, bytes) = (sum["count"].as_u64().unwrap(), sum["bytes_in"].as_u64().unwrap());
    assert!((1150..=1161).contains(&count) && bytes >= count, "{sum}");
    let files = fs::read_dir(rig.agent.state_dir().join("audit")).unwrap().flatten();
    let size: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
    assert!(size <= 64 * 1024, "{size}");
    let records = rig.agent.records(&[]).await;
    assert_eq!(numbers(&records), (1..=records.len() as u64).collect::<Vec<_>>());
    for kind in ["tunnel-requested", "tunnel-opened"] {
        assert!(kinds(&records).contains(&kind), "what let them in is still told of: {records:#?}");
    }
}

#[tokio::test]
async fn records_that_somebody_took_away_are_missed() {
    let mut agent = Agent::run(Setup::new().ocpp("mode = 'off'")).await;
    for _ in 0..3 {
        assert_eq!(agent.cli(&["open", "evil@gw", "--script", "9"]).await.code, Some(4));
    }
    agent.terminate().await;
    assert!(!agent.cli(&["audit"]).await.stdout.contains("missing"));
    let file = fs::read_dir(agent.state_dir().join("audit")).unwrap().flatten();
    let file = file.map(|entry| entry.path()).find(|path| path.extension().is_some()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let number = |line: &&str| line.contains("\"type\":\"tunnel-refused\"");
    let taken = text.lines().find(number).unwrap();
    let seq = serde_json::from_str::<Value>(taken).unwrap()["seq"].clone();
    fs::write(&file, text.replacen(&format!("{taken}\n"), "", 1)).unwrap();
    let people = agent.cli(&["audit"]).await;
    assert!(people.stdout.contains(&format!("-- record {seq} is missing --")), "{people:?}");
}
