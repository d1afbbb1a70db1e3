use super::*;

fn change_status(world: &mut World, key: &str, value: &str) -> String {
    world.change("1", key, value);
    world.sent_one()[2]["status"].as_str().unwrap().to_owned()
}

fn get(world: &mut World, keys: &[&str]) -> Value {
    world.receive(&json!([2, "1", "GetConfiguration", {"key": keys}]));
    world.sent_one()[2].clone()
}

#[test]
fn embedders_key_is_asked_with_its_registered_name_and_the_links_security() {
    let mut world = World::accepted();
    world.change("1", "INVOKEcustomscript1", "ops@example.com");
    let events = world.events();
    let [Event::ChangeConfiguration { key, value, security, request }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((key.as_str(), value.as_str(), *security), ("InvokeCustomScript1", "ops@example.com", SECURE));
    world.charge_point.answer_change(*request, ConfigurationStatus::RebootRequired);
    assert_eq!(world.sent(), [json!([3, "1", {"status": "RebootRequired"}])]);
}

#[test]
fn empty_value_reaches_the_embedder() {
    let mut world = World::accepted();
    world.change("1", "InvokeCustomScript1", "");
    assert_eq!(world.asked().1, "");
}

#[test]
fn read_only_and_unknown_keys_and_long_values_are_answered_without_the_embedder() {
    let mut world = World::accepted();
    assert_eq!(change_status(&mut world, "InvokeCustomScript1Status", "x"), "Rejected");
    assert_eq!(change_status(&mut world, "numberofconnectors", "1"), "Rejected");
    assert_eq!(change_status(&mut world, "SupportedFeatureProfiles", "Core"), "Rejected");
    assert_eq!(change_status(&mut world, "GetConfigurationMaxKeys", "1"), "Rejected");
    assert_eq!(change_status(&mut world, "InvokeCustomScript9", "x"), "NotSupported");
    assert_eq!(change_status(&mut world, "", "x"), "NotSupported");
    assert_eq!(change_status(&mut world, "InvokeCustomScript1", &"é".repeat(501)), "Rejected");
    assert!(world.events().is_empty());
    world.change("1", "InvokeCustomScript1", &"é".repeat(500));
    assert_eq!(world.asked().1.chars().count(), 500);
}

#[test]
fn pushed_values_are_read_and_left_out_when_there_is_none() {
    let mut world = World::accepted();
    let key = "InvokeCustomScript1Status";
    assert_eq!(get(&mut world, &[key]), json!({"configurationKey": [{"key": key, "readonly": true}]}));
    world.charge_point.set_value("invokecustomscript1status", Some("up".to_owned()));
    assert_eq!(get(&mut world, &[key])["configurationKey"][0]["value"], "up");
    world.charge_point.set_value(key, Some("x".repeat(501)));
    assert_eq!(get(&mut world, &[key])["configurationKey"][0].get("value"), None, "never cut, but left out");
    world.charge_point.set_value(key, Some(String::new()));
    assert_eq!(get(&mut world, &[key])["configurationKey"][0]["value"], "");
    world.charge_point.set_value(key, None);
    assert_eq!(get(&mut world, &[key])["configurationKey"][0].get("value"), None);
}

#[test]
fn heartbeat_interval_takes_effect_at_once() {
    let mut world = World::accepted();
    assert_eq!(get(&mut world, &["HeartbeatInterval"])["configurationKey"][0]["value"], "300");
    world.pass(20);
    assert_eq!(change_status(&mut world, "heartbeatinterval", "030"), "Accepted");
    let changed = Event::ConfigurationChanged { key: "HeartbeatInterval".to_owned(), value: "30".to_owned() };
    assert_eq!(world.events(), [changed]);
    world.pass(10);
    assert_eq!(world.sent_one()[2], "Heartbeat");
    for value in ["0", "-1", "soon", "", "1e3", "99999999999"] {
        assert_eq!(change_status(&mut world, "HeartbeatInterval", value), "Rejected", "{value}");
    }
    assert_eq!(world.charge_point.heartbeat_interval(), Duration::from_secs(30));
}

#[test]
fn the_same_value_again_is_accepted_without_an_event() {
    let mut world = World::accepted();
    assert_eq!(change_status(&mut world, "HeartbeatInterval", "300"), "Accepted");
    assert!(world.events().is_empty());
}

#[test]
fn ping_interval_zero_switches_pings_off_and_negative_is_rejected() {
    let mut world = World::accepted();
    world.charge_point.offer_ping_interval(Duration::from_millis(49_500));
    assert_eq!(world.charge_point.ping_interval(), Some(Duration::from_millis(49_500)));
    assert_eq!(get(&mut world, &["WebSocketPingInterval"])["configurationKey"][0]["value"], "50");
    assert_eq!(change_status(&mut world, "WebSocketPingInterval", "-1"), "Rejected");
    assert_eq!(world.charge_point.ping_interval(), Some(Duration::from_millis(49_500)));
    assert_eq!(change_status(&mut world, "WebSocketPingInterval", "0"), "Accepted");
    assert_eq!(world.charge_point.ping_interval(), None);
    assert_eq!(change_status(&mut world, "WebSocketPingInterval", "20"), "Accepted");
    assert_eq!(world.charge_point.ping_interval(), Some(Duration::from_secs(20)));
    world.charge_point.offer_ping_interval(Duration::from_secs(50));
    assert_eq!(world.charge_point.ping_interval(), Some(Duration::from_secs(20)), "the CSMS's choice stays");
}

#[test]
fn restored_values_take_effect() {
    let mut world = World::new();
    world.charge_point.set_value("WebSocketPingInterval", Some("7".to_owned()));
    world.charge_point.set_value("HeartbeatInterval", Some("8".to_owned()));
    world.charge_point.set_value("HeartbeatInterval", Some("nonsense".to_owned()));
    assert_eq!(world.charge_point.ping_interval(), Some(Duration::from_secs(7)));
    assert_eq!(world.charge_point.heartbeat_interval(), Duration::from_secs(8));
    assert!(world.events().is_empty());
}

#[test]
fn largest_answer_fits_a_message() {
    let mut world = World::accepted();
    for number in 0.. {
        let key = format!("{number:050}");
        if world.charge_point.registry.register(&key, Access::ReadOnly).is_err() {
            break;
        }
        world.charge_point.set_value(&key, Some("\u{1}".repeat(500)));
    }
    world.receive_text(r#"[2,"1","GetConfiguration",null]"#);
    let text = world.charge_point.poll_transmit().unwrap();
    assert!(text.len() > 100_000);
    assert!(text.len() < limits::MAX_MESSAGE_BYTES, "{}", text.len());
}
