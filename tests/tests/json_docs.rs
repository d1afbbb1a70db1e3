//! docs/json.md against what commands really print: whatever appears is documented with its type, and whatever is documented
//! appears somewhere.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::{BTreeMap, BTreeSet};

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::ports;
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::wire::WireCsms;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/json.md");

/// A part of the page: each field's path and type.
fn documented(heading: &str) -> BTreeMap<&'static str, &'static str> {
    let part = PAGE.split("\n## ").find(|part| part.lines().next() == Some(heading));
    let part = part.unwrap_or_else(|| panic!("the page has a part {heading:?}"));
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (path, rest) = row.split_once("` | ").expect("a path, and a second column");
        (path, rest.split_once(" | ").expect("a third column").0)
    })
    .collect()
}

/// Each path with the types that it has.
fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    if !path.is_empty() {
        found.entry(path.to_owned()).or_default().insert(kind);
    }
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Array(members) => members.iter().for_each(|member| walk(&format!("{path}[]"), member, found)),
        Value::Object(members) => members.iter().for_each(|(name, member)| walk(&at(name), member, found)),
        _ => {}
    }
}

/// Does a value of this kind fit what the page says?
fn fits(kind: &str, documented: &str) -> bool {
    documented.split(" or ").any(|one| match one {
        "time" | "words" => kind == "string",
        other => kind == other,
    })
}

/// The page and these documents say the same.
fn agree(heading: &str, documents: &[Value]) {
    let page = documented(heading);
    let mut found = BTreeMap::new();
    documents.iter().for_each(|document| walk("", document, &mut found));
    for (path, kinds) in &found {
        let Some(types) = page.get(path.as_str()) else { panic!("{heading}: {path} isn't documented") };
        for kind in kinds {
            assert!(fits(kind, types), "{heading}: {path} is a {kind}, documented is {types}");
        }
    }
    for path in page.keys() {
        assert!(found.contains_key(*path), "{heading}: {path} is documented and never appears");
    }
}

async fn json(agent: &Agent, arguments: &[&str]) -> Value {
    let output = agent.cli(arguments).await;
    serde_json::from_str(&output.stdout).unwrap_or_else(|why| panic!("{arguments:?}: {why}: {output:?}"))
}

#[tokio::test]
async fn every_field_of_every_document_is_on_the_page_and_no_other() {
    let collector = ports::free();
    let mut rig = Rig::with(|setup| setup.log(&format!("remote = 'udp://127.0.0.1:{collector}'"))).await;
    let destination = rig.sshd.destination();
    rig.open(1).await;
    let forward = format!("{}:127.0.0.1:9", ports::free());
    // It is refused by the server, so that there is an error and a cure.
    rig.agent.cli(&["open", &destination, "--forward", &forward, "--wait"]).await;
    let drop_in = "[ocpp]\nmodel = 'another'\n[policy]\nmonthly_bytes = '1GB'\n";
    rig.agent.drop_in("50-test.toml", drop_in);
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    let direct = rig.agent.status().await;
    assert_eq!(direct["configuration"]["restart_needed"], json!(["ocpp.model"]), "{direct:#}");

    let mut csms = WireCsms::start().await;
    let port = ports::free();
    let bridge = Agent::run(
        Setup::new()
            .ocpp("mode = 'bridge'")
            .ocpp(&format!("url = '{}'", csms.url()))
            .ocpp("identity = 'CP001'")
            .ocpp("security_profile = 0")
            .policy("minimum_security_profile = 0")
            .bridge(&format!("listen = '127.0.0.1:{port}'")),
    )
    .await;
    let empty = bridge.status().await;
    let (mut controller, mut upstream) = csms.let_in(port, "CP001", &[]).await;
    controller.send(r#"[2,"1","Heartbeat",{}]"#).await;
    upstream.text().await;
    upstream.send(r#"[3,"1",{"currentTime":"2026-11-22T00:00:00Z"}]"#).await;
    controller.text().await;
    let connected = bridge.status().await;
    controller.close(1000, "").await;
    let closed = ocpp_tunnel_tests::wait_until("the end is told", ocpp_tunnel_tests::LONG, async || {
        let status = bridge.status().await;
        status["ocpp"]["controllers"][0]["last_closed"].is_object().then_some(status)
    })
    .await;
    agree("Status", &[direct, empty, connected, closed]);

    let good = json(&rig.agent, &["check", "--json"]).await;
    let nobody = format!("support@127.0.0.1:{}", ports::free());
    let bad = json(&rig.agent, &["check", "--json", &nobody]).await;
    agree("Check", &[good, bad, json(&bridge, &["check", "--json"]).await]);

    agree("Host-keys list", &[json(&rig.agent, &["host-keys", "list", "--json"]).await]);
    let server = destination.split_once('@').unwrap().1;
    let scan = ["host-keys", "scan", server, "--json"];
    agree("Host-keys scan", &[json(&rig.agent, &scan).await, json(&bridge, &scan).await]);

    // What a type has beside the common fields is on another page.
    let page = documented("Audit");
    let mut records = rig.agent.records(&[]).await;
    for record in &mut records {
        let members = record.as_object_mut().expect("a record is an object");
        members.retain(|name, _| page.contains_key(name.as_str()));
        assert_eq!(members.len(), 9, "each record has all of them: {members:?}");
    }
    agree("Audit", &records);
}
