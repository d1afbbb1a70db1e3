//! The filter between a controller and a CSMS that the test plays both.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json, value::to_raw_value};

use super::*;

const SECURE: LinkSecurity = LinkSecurity { tls: true, credentials: true, client_certificate: false };

struct World {
    filter: Filter,
    now: Instant,
    next_call: u64,
}

impl World {
    /// Connected, and the controller accepted.
    fn new() -> Self {
        let mut filter = Filter::new(fastrand::Rng::with_seed(7));
        filter.register("Script1", Access::ReadWrite).unwrap();
        filter.register("Script1Status", Access::ReadOnly).unwrap();
        let now = Instant::now();
        filter.begin(now, SECURE);
        let mut world = Self { filter, now, next_call: 0 };
        world.boot("Accepted");
        world
    }

    fn boot(&mut self, status: &str) {
        let boot =
            json!([2, "boot", "BootNotification", {"chargePointVendor": "A", "chargePointModel": "B"}]);
        assert_eq!(self.controller(&boot), Pass::Unchanged);
        let answer =
            json!([3, "boot", {"status": status, "interval": 300, "currentTime": "2026-11-22T00:00:00Z"}]);
        assert_eq!(self.csms(&answer), Pass::Unchanged);
        self.events();
    }

    fn csms(&mut self, message: &Value) -> Pass {
        self.filter.from_csms(self.now, &message.to_string())
    }

    fn controller(&mut self, message: &Value) -> Pass {
        self.filter.from_controller(self.now, &message.to_string())
    }

    fn change(&mut self, id: &str, key: &str, value: &str) -> Pass {
        self.csms(&json!([2, id, "ChangeConfiguration", {"key": key, "value": value}]))
    }

    fn call(&mut self) -> u64 {
        self.next_call += 1;
        let payload = to_raw_value(&json!({"vendorId": "org.ocpp-tunnel"})).unwrap();
        let call = Call { id: CallId(self.next_call), action: "DataTransfer", payload };
        self.filter.call(self.now, call).unwrap();
        self.next_call
    }

    fn upstream(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.filter.poll_upstream())
            .map(|text| serde_json::from_str(&text).unwrap())
            .collect()
    }

    /// The id of our own CALL, the only thing that was sent.
    fn own_id(&mut self) -> Value {
        let sent = self.upstream();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0][2], "DataTransfer");
        sent[0][1].clone()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.filter.poll_event()).collect()
    }

    fn outcomes(&mut self) -> Vec<(u64, Outcome)> {
        let called = |event| match event {
            Event::Called { id, outcome } => Some((id.0, outcome)),
            _ => None,
        };
        self.events().into_iter().filter_map(called).collect()
    }

    fn pass_time(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.filter.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.filter.handle_timeout(self.now);
            assert!(self.filter.poll_timeout().is_none_or(|next| next > due), "a busy loop");
        }
        self.now = end;
    }
}

#[test]
fn a_change_of_ours_is_put_to_the_embedder_and_answered_upstream() {
    let mut world = World::new();
    assert_eq!(world.change("7", "SCRIPT1", "ops@gw"), Pass::Nothing);
    let events = world.events();
    let [Event::ChangeConfiguration { request, key, value, security }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((key.as_str(), value.as_str(), *security), ("Script1", "ops@gw", SECURE));
    assert!(world.upstream().is_empty());
    world.filter.answer_change(*request, ConfigurationStatus::Accepted);
    world.filter.answer_change(*request, ConfigurationStatus::Accepted);
    assert_eq!(world.upstream(), [json!([3, "7", {"status": "Accepted"}])]);
}

#[test]
fn a_read_only_key_of_ours_is_refused_and_others_are_the_controllers() {
    let mut world = World::new();
    assert_eq!(world.change("7", "Script1Status", "up"), Pass::Nothing);
    assert_eq!(world.upstream(), [json!([3, "7", {"status": "Rejected"}])]);
    assert_eq!(world.change("8", "HeartbeatInterval", "60"), Pass::Unchanged);
    assert_eq!(world.change("9", "Script2", "ops@gw"), Pass::Unchanged);
    assert!(world.events().is_empty() && world.upstream().is_empty());
}

#[test]
fn the_configuration_is_shown_as_one() {
    let mut world = World::new();
    world.filter.set_value("Script1", Some("ops@gw".to_owned()));

    assert_eq!(world.csms(&json!([2, "1", "GetConfiguration", {"key": ["Script1"]}])), Pass::Nothing);
    let ours = json!({"key": "Script1", "readonly": false, "value": "ops@gw"});
    assert_eq!(world.upstream(), [json!([3, "1", {"configurationKey": [ours]}])]);

    assert_eq!(world.csms(&json!([2, "2", "GetConfiguration", {}])), Pass::Unchanged);
    let Pass::Changed(text) = world.controller(&json!([3, "2", {"configurationKey": [{"key": "A"}]}])) else {
        panic!()
    };
    let keys = json!([{"key": "A"}, ours, {"key": "Script1Status", "readonly": true}]);
    assert_eq!(text, json!([3, "2", {"configurationKey": keys}]).to_string());

    let mixed = json!([2, "3", "GetConfiguration", {"key": ["A", "script1"]}]);
    assert_eq!(world.csms(&mixed), Pass::Changed(r#"[2,"3","GetConfiguration",{"key":["A"]}]"#.to_owned()));
    let Pass::Changed(text) = world.controller(&json!([3, "3", {"unknownKey": ["A"]}])) else { panic!() };
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer, json!([3, "3", {"configurationKey": [ours], "unknownKey": ["A"]}]));

    assert_eq!(world.controller(&json!([3, "3", {}])), Pass::Unchanged, "it was answered");
}

#[test]
fn an_answer_to_something_else_is_left_alone() {
    let mut world = World::new();
    world.csms(&json!([2, "1", "GetConfiguration", {}]));
    assert_eq!(world.controller(&json!([4, "1", "NotSupported", "", {}])), Pass::Unchanged);
    assert_eq!(world.controller(&json!([3, "1", {"configurationKey": []}])), Pass::Unchanged);
    world.csms(&json!([2, "2", "GetConfiguration", {}]));
    world.filter.end();
    world.filter.begin(world.now, SECURE);
    assert_eq!(world.controller(&json!([3, "2", {"configurationKey": []}])), Pass::Unchanged);
}

#[test]
fn a_call_of_ours_waits_until_the_controller_is_idle_and_its_answer_stays_here() {
    let mut world = World::new();
    assert_eq!(world.controller(&json!([2, "1", "Heartbeat", {}])), Pass::Unchanged);
    let call = world.call();
    assert!(world.upstream().is_empty());
    assert_eq!(world.csms(&json!([3, "1", {"currentTime": "2026-11-22T00:00:00Z"}])), Pass::Unchanged);
    let id = world.own_id();
    assert_eq!(world.csms(&json!([3, id, {"status": "Accepted"}])), Pass::Nothing);
    let outcomes = world.outcomes();
    assert!(matches!(outcomes.as_slice(), [(one, Outcome::Result(_))] if *one == call), "{outcomes:?}");
    assert_eq!(world.csms(&json!([3, id, {"status": "Accepted"}])), Pass::Unchanged, "not ours any more");
}

#[test]
fn a_call_of_the_controller_waits_for_the_answer_to_ours() {
    let mut world = World::new();
    world.call();
    let id = world.own_id();
    let held = json!([2, "1", "MeterValues", {"x": 1}]);
    assert_eq!(world.controller(&held), Pass::Nothing);
    assert!(!world.filter.wants_controller());
    assert!(world.upstream().is_empty());
    world.csms(&json!([4, id, "GenericError", "", {}]));
    assert_eq!(world.upstream(), [held]);
    assert!(world.filter.wants_controller());
    world.call();
    assert!(world.upstream().is_empty(), "its own CALL is outstanding now");
}

#[test]
fn it_does_not_wait_for_long() {
    let mut world = World::new();
    let call = world.call();
    let id = world.own_id();
    let held = json!([2, "1", "MeterValues", {}]);
    world.controller(&held);
    world.pass_time(HOLD_TIMEOUT);
    assert_eq!(world.upstream(), [held]);
    assert_eq!(world.controller(&json!([2, "2", "MeterValues", {}])), Pass::Unchanged, "once is enough");
    world.pass_time(CALL_TIMEOUT);
    assert_eq!(world.outcomes(), [(call, Outcome::Unanswered)]);
    assert_eq!(world.csms(&json!([3, id, {}])), Pass::Nothing, "late, and still not the controller's");
}

#[test]
fn answers_of_the_controller_never_wait() {
    let mut world = World::new();
    world.call();
    world.own_id();
    assert_eq!(world.controller(&json!([3, "9", {"status": "Accepted"}])), Pass::Unchanged);
}

#[test]
fn pending_and_rejected_are_respected() {
    let mut world = World::new();
    world.boot("Pending");
    let call = world.call();
    assert_eq!(world.outcomes(), [(call, Outcome::Lost)]);
    assert_eq!(world.change("1", "Script1", ""), Pass::Nothing, "a CSMS may configure a pending controller");
    let events = world.events();
    let [Event::ChangeConfiguration { request, .. }] = events.as_slice() else { panic!("{events:?}") };
    world.boot("Rejected");
    world.filter.answer_change(*request, ConfigurationStatus::Accepted);
    assert!(world.upstream().is_empty());
    assert_eq!(world.change("2", "Script1", "ops@gw"), Pass::Unchanged, "the controller knows what to do");
    assert!(world.events().is_empty());
    world.boot("Accepted");
    let call = world.call();
    world.own_id();
    world.controller(&json!([2, "boot", "BootNotification", {}]));
    world.pass_time(HOLD_TIMEOUT);
    world.csms(&json!([3, "boot", {"status": "Pending", "interval": 300}]));
    assert_eq!(world.outcomes(), [(call, Outcome::Lost)]);
}

#[test]
fn every_call_has_one_outcome_however_the_connection_ends() {
    let mut world = World::new();
    let calls: Vec<u64> = (0..3).map(|_| world.call()).collect();
    world.filter.end();
    let outcomes = world.outcomes();
    assert_eq!(outcomes, calls.iter().map(|call| (*call, Outcome::Lost)).collect::<Vec<_>>());
    let call = world.call();
    assert_eq!(world.outcomes(), [(call, Outcome::Lost)], "there is no connection");
}

/// Something that happens between a controller and its CSMS, or to us.
#[derive(Debug, Clone)]
enum Step {
    Csms(String),
    Controller(String),
    /// The CSMS answers our own CALL, if one is outstanding.
    AnswerOurs,
    OurCall,
    OurChange,
    Time(u16),
    Loss,
}

fn step() -> impl Strategy<Value = Step> {
    let id = prop::sample::select(vec!["1", "2", "3"]);
    let action =
        prop::sample::select(vec!["Heartbeat", "MeterValues", "DataTransfer", "Reset", "BootNotification"]);
    let text = prop_oneof![
        (id.clone(), action).prop_map(|(id, action)| format!("[2, \"{id}\",\"{action}\" ,{{\"a\":1.50}}]")),
        id.clone().prop_map(|id| format!("[3,\"{id}\",{{ \"status\":\"Accepted\",\"interval\":300 }}]")),
        id.clone().prop_map(|id| format!("[4,\"{id}\",\"GenericError\",\"ü\\u00fc\",{{}}]")),
        id.prop_map(|id| format!(
            "[2,\"{id}\",\"ChangeConfiguration\",{{\"key\":\"Script2\",\"value\":\"\"}}]"
        )),
        "\\PC{0,20}",
    ];
    prop_oneof![
        4 => text.clone().prop_map(Step::Csms),
        4 => text.prop_map(Step::Controller),
        1 => Just(Step::AnswerOurs),
        1 => Just(Step::OurCall),
        1 => Just(Step::OurChange),
        1 => (0..20_000_u16).prop_map(Step::Time),
        1 => Just(Step::Loss),
    ]
}

proptest! {
    /// Whatever isn't ours arrives as it was sent, in order, as if there were no filter.
    #[test]
    fn both_sides_see_what_they_would_see_without_it(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        let (mut sent_down, mut seen_down) = (Vec::new(), Vec::new());
        let (mut sent_up, mut seen_up) = (Vec::new(), Vec::new());
        let mut own: Option<String> = None;
        let (mut made, mut ended) = (0, 0);
        for step in steps {
            match step {
                Step::Csms(text) => {
                    prop_assert!(world.filter.wants_csms());
                    prop_assert_eq!(world.filter.from_csms(world.now, &text), Pass::Unchanged);
                    sent_down.push(text.clone());
                    seen_down.push(text);
                }
                Step::Controller(text) => {
                    if !world.filter.wants_controller() {
                        continue;
                    }
                    sent_up.push(text.clone());
                    match world.filter.from_controller(world.now, &text) {
                        Pass::Unchanged => seen_up.push(text),
                        Pass::Nothing => prop_assert!(own.is_some() && !world.filter.wants_controller()),
                        Pass::Changed(text) => prop_assert!(false, "{}", text),
                    }
                }
                Step::AnswerOurs => {
                    if let Some(id) = own.take() {
                        let text = format!("[3,{id},{{}}]");
                        prop_assert_eq!(world.filter.from_csms(world.now, &text), Pass::Nothing);
                    }
                }
                Step::OurCall => {
                    world.call();
                    made += 1;
                }
                Step::OurChange => {
                    if world.filter.wants_csms() && !world.filter.watch.is_rejected() {
                        prop_assert_eq!(world.change("ours", "Script1", "x"), Pass::Nothing);
                    }
                }
                Step::Time(milliseconds) => world.pass_time(Duration::from_millis(milliseconds.into())),
                Step::Loss => {
                    world.filter.end();
                    own = None;
                    // What was held is lost with the connection, as it may be at any moment on the way.
                    sent_up.truncate(seen_up.len());
                    world.filter.begin(world.now, SECURE);
                }
            }
            for event in world.events() {
                match event {
                    Event::Called { .. } => {
                        ended += 1;
                        own = None;
                    }
                    Event::ChangeConfiguration { request, .. } => {
                        world.filter.answer_change(request, ConfigurationStatus::Accepted);
                    }
                    _ => {}
                }
            }
            while let Some(text) = world.filter.poll_upstream() {
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                if message[2] == "DataTransfer" && message[3]["vendorId"] == "org.ocpp-tunnel" {
                    prop_assert!(own.replace(message[1].to_string()).is_none(), "one at a time");
                } else if message[1] != "ours" {
                    seen_up.push(text);
                }
            }
            prop_assert_eq!(&sent_down, &seen_down);
            prop_assert!(sent_up.starts_with(&seen_up), "{:?} {:?}", sent_up, seen_up);
            let held = usize::from(!world.filter.wants_controller());
            prop_assert!(sent_up.len() - seen_up.len() <= held);
        }
        world.filter.end();
        ended += world.outcomes().len();
        prop_assert_eq!(made, ended, "every CALL of ours has one outcome");
    }
}
