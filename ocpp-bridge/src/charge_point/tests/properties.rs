//! What holds whatever the CSMS, the embedder and the network do.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::limits::MAX_CALLS;

#[derive(Debug, Clone)]
enum Step {
    Connect,
    Disconnect,
    Pass(u64),
    /// The CSMS answers our last CALL with this payload.
    Answer(String),
    Fail,
    Text(String),
    Call(String),
    AnswerChange(bool),
    /// The embedder asks the CSMS something.
    OwnCall,
    TakeFrames,
    TakeEvents,
    /// The process ends, and another one begins with the values that the embedder has kept.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![Just("Accepted"), Just("Pending"), Just("Rejected"), Just("Odd")];
    let call = prop_oneof![
        Just(r#""GetConfiguration",{}"#),
        Just(r#""ChangeConfiguration",{"key":"InvokeCustomScript1","value":"a@x"}"#),
        Just(r#""ChangeConfiguration",{"key":"HeartbeatInterval","value":"1"}"#),
        Just(r#""ChangeConfiguration",{"key":"HeartbeatInterval","value":"604800"}"#),
        Just(r#""ClearCache",null"#),
        Just(r#""ChangeConfiguration",{"key":"MessageTimeout","value":"5"}"#),
        Just(r#""TriggerMessage",{"requestedMessage":"Heartbeat"}"#),
        Just(r#""TriggerMessage",{"requestedMessage":"StatusNotification"}"#),
        Just(r#""TriggerMessage",{"requestedMessage":"BootNotification"}"#),
        Just(r#""ExtendedTriggerMessage",{"requestedMessage":"LogStatusNotification"}"#),
        Just(r#""Nonsense",[]"#),
        Just(r#""GetConfiguration",{"#),
    ];
    prop_oneof![
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        3 => (0..2000_u64).prop_map(Step::Pass),
        4 => (status, -1..900_i32).prop_map(|(status, interval)| Step::Answer(json!({
            "status": status, "interval": interval, "currentTime": "2026-11-21T10:00:00Z"
        }).to_string())),
        1 => Just(Step::Fail),
        1 => ".{0,40}".prop_map(Step::Text),
        6 => call.prop_map(|call| Step::Call(call.to_owned())),
        1 => Just(Step::Call(r#""Reset",{"type":"Soft"}"#.to_owned())),
        3 => any::<bool>().prop_map(Step::AnswerChange),
        4 => Just(Step::OwnCall),
        4 => Just(Step::TakeFrames),
        2 => Just(Step::TakeEvents),
        1 => Just(Step::Restart),
    ]
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    connected: bool,
    /// The CALL of ours without an answer, and when it was taken.
    outstanding: Option<(String, Instant)>,
    /// The ids of our CALLs on this connection.
    ids: HashSet<String>,
    /// The actions that were triggered on this connection and not sent yet.
    triggered: Vec<&'static str>,
    requests: Vec<RequestId>,
    /// The embedder's CALLs that were taken, and what became of them.
    calls: BTreeMap<u64, Option<Outcome>>,
    /// The standard's values that the CSMS changed, as the embedder keeps them.
    kept: BTreeMap<String, String>,
}

/// A message may be sent unasked once the CSMS has accepted us, and triggered ones while it hasn't decided.
fn may_send(world: &World, seen: &mut Seen, action: &str) -> bool {
    let triggered = seen.triggered.iter().position(|name| *name == action);
    match world.charge_point.boot_status() {
        _ if action == "BootNotification" => true,
        Some(RegistrationStatus::Accepted) => true,
        Some(RegistrationStatus::Pending) => triggered.map(|index| seen.triggered.remove(index)).is_some(),
        _ => false,
    }
}

fn take_frames(world: &mut World, seen: &mut Seen) -> Result<(), TestCaseError> {
    let rejected = world.charge_point.boot_status() == Some(RegistrationStatus::Rejected);
    for frame in world.sent() {
        prop_assert!(seen.connected);
        prop_assert!(!rejected || frame[2] == "BootNotification", "{frame}");
        if frame[0] != 2 {
            continue;
        }
        let id = frame[1].as_str().unwrap().to_owned();
        prop_assert!(seen.ids.insert(id.clone()), "the same id twice");
        prop_assert!(may_send(world, seen, frame[2].as_str().unwrap()), "{frame}");
        if let Some((earlier, at)) = &seen.outstanding {
            // A CALL that was answered is forgotten; one that wasn't has to wait for its time-out.
            let waited = world.now.duration_since(*at);
            prop_assert!(waited >= world.charge_point.call_timeout, "{earlier} is outstanding: {frame}");
        }
        seen.outstanding = Some((id, world.now));
    }
    Ok(())
}

fn take_events(world: &mut World, seen: &mut Seen) -> Result<(), TestCaseError> {
    for event in world.events() {
        match event {
            Event::ChangeConfiguration { request, .. } => seen.requests.push(request),
            Event::Called { id, outcome } => {
                let place = seen.calls.get_mut(&id.0);
                prop_assert!(place.is_some(), "{id:?} was never taken");
                prop_assert!(place.is_none_or(|place| place.replace(outcome).is_none()), "{id:?} ends twice");
            }
            Event::ConfigurationChanged { key, value } => drop(seen.kept.insert(key, value)),
            _ => {}
        }
    }
    Ok(())
}

/// The first thing that a charge point does in each of its lives.
fn start() -> World {
    let mut world = World::with_connectors(1, |_| {});
    world.charge_point.set_report(Report::LogStatus, serde_json::from_str("{}").unwrap());
    world
}

proptest! {
    #[test]
    fn whatever_happens_rules_and_bounds_are_kept(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = start();
        let mut seen = Seen::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Connect => {
                    world.connect();
                    let Seen { requests, calls, kept, .. } = seen;
                    seen = Seen { connected: true, requests, calls, kept, ..Seen::default() };
                }
                Step::Disconnect => {
                    world.disconnect();
                    seen.connected = false;
                    prop_assert_eq!(world.charge_point.poll_timeout(), None);
                }
                Step::Pass(seconds) => {
                    take_frames(&mut world, &mut seen)?;
                    let end = world.now + Duration::from_secs(seconds);
                    while let Some(due) = world.charge_point.poll_timeout().filter(|due| *due <= end) {
                        world.now = world.now.max(due);
                        world.charge_point.handle_timeout(world.now);
                        prop_assert!(world.charge_point.poll_timeout().is_none_or(|next| next > world.now));
                        take_frames(&mut world, &mut seen)?;
                    }
                    world.now = end;
                }
                Step::Answer(payload) => {
                    take_frames(&mut world, &mut seen)?;
                    if let Some((id, _)) = seen.outstanding.take() {
                        world.receive_text(&format!(r#"[3,"{id}",{payload}]"#));
                    }
                }
                Step::Fail => {
                    take_frames(&mut world, &mut seen)?;
                    if let Some((id, _)) = seen.outstanding.take() {
                        world.receive_text(&format!(r#"[4,"{id}","InternalError","",{{}}]"#));
                    }
                }
                Step::Text(text) => world.receive_text(&text),
                Step::Call(call) => {
                    // What was sent before must not count as triggered by this.
                    take_frames(&mut world, &mut seen)?;
                    world.receive_text(&format!(r#"[2,"{number}",{call}]"#));
                    let messages = ["Heartbeat", "StatusNotification", "LogStatusNotification"];
                    if let Some(message) = messages.into_iter().find(|message| call.contains(&format!(r#":"{message}""#))) {
                        // Of both connectors, if it is a status.
                        seen.triggered.extend([message; 2]);
                    }
                }
                Step::OwnCall => {
                    if world.call(number as u64).is_ok() {
                        seen.calls.insert(number as u64, None);
                    }
                }
                Step::AnswerChange(first) => {
                    let request = if first { seen.requests.first() } else { seen.requests.last() };
                    if let Some(&request) = request {
                        world.charge_point.answer_change(request, ConfigurationStatus::Accepted);
                    }
                }
                Step::TakeFrames => take_frames(&mut world, &mut seen)?,
                Step::TakeEvents => take_events(&mut world, &mut seen)?,
                Step::Restart => {
                    take_events(&mut world, &mut seen)?;
                    let now = world.now;
                    world = start();
                    world.now = now;
                    seen = Seen { kept: seen.kept, ..Seen::default() };
                    for (key, value) in &seen.kept {
                        prop_assert_eq!(world.charge_point.restore_value(key, value), Ok(()), "{} = {}", key, value);
                        let shown = world.charge_point.registry.get(&[key]);
                        let shown = shown.configuration_key.unwrap_or_default();
                        prop_assert_eq!(shown.first().and_then(|shown| shown.value.as_ref()), Some(value));
                    }
                    prop_assert!(world.events().is_empty() && world.sent().is_empty());
                    prop_assert_eq!(world.charge_point.poll_timeout(), None);
                }
            }
            let outcomes = world.charge_point.untaken_outcomes();
            prop_assert!(outcomes <= MAX_CALLS);
            prop_assert!(world.charge_point.events.len() - outcomes <= MAX_EVENTS);
        }
        world.disconnect();
        take_events(&mut world, &mut seen)?;
        let without = seen.calls.iter().find(|(_, outcome)| outcome.is_none());
        prop_assert_eq!(without, None, "a CALL has come to no end");
        let distinct: HashSet<_> = seen.requests.iter().collect();
        prop_assert_eq!(distinct.len(), seen.requests.len());
    }
}
