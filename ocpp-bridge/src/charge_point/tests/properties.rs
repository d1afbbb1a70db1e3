//! What holds whatever the CSMS, the embedder and the network do.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

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
    TakeFrames,
    TakeEvents,
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![Just("Accepted"), Just("Pending"), Just("Rejected"), Just("Odd")];
    let call = prop_oneof![
        Just(r#""GetConfiguration",{}"#),
        Just(r#""ChangeConfiguration",{"key":"InvokeCustomScript1","value":"a@x"}"#),
        Just(r#""ChangeConfiguration",{"key":"HeartbeatInterval","value":"1"}"#),
        Just(r#""ChangeConfiguration",{"key":"HeartbeatInterval","value":"604800"}"#),
        Just(r#""Reset",null"#),
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
        3 => any::<bool>().prop_map(Step::AnswerChange),
        4 => Just(Step::TakeFrames),
        2 => Just(Step::TakeEvents),
    ]
}

/// What was seen on the wire so far.
#[derive(Default)]
struct Wire {
    connected: bool,
    /// The CALL of ours without an answer, and when it was taken.
    outstanding: Option<(String, Instant)>,
    ids: HashSet<String>,
    requests: Vec<RequestId>,
}

fn take_frames(world: &mut World, wire: &mut Wire) -> Result<(), TestCaseError> {
    let rejected = world.charge_point.boot_status() == Some(RegistrationStatus::Rejected);
    for frame in world.sent() {
        prop_assert!(wire.connected);
        prop_assert!(!rejected || frame[2] == "BootNotification", "{frame}");
        if frame[0] != 2 {
            continue;
        }
        let id = frame[1].as_str().unwrap().to_owned();
        prop_assert!(wire.ids.insert(id.clone()), "the same id twice");
        let accepted = world.charge_point.boot_status() == Some(RegistrationStatus::Accepted);
        prop_assert!(accepted || frame[2] == "BootNotification", "{frame}");
        wire.outstanding = Some((id, world.now));
    }
    Ok(())
}

fn take_events(world: &mut World, wire: &mut Wire) {
    for event in world.events() {
        if let Event::ChangeConfiguration { request, .. } = event {
            wire.requests.push(request);
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_rules_and_bounds_are_kept(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        let mut wire = Wire::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Connect => {
                    world.connect();
                    wire = Wire { connected: true, requests: wire.requests, ..Wire::default() };
                }
                Step::Disconnect => {
                    world.disconnect();
                    wire.connected = false;
                    prop_assert_eq!(world.charge_point.poll_timeout(), None);
                }
                Step::Pass(seconds) => {
                    let end = world.now + Duration::from_secs(seconds);
                    while let Some(due) = world.charge_point.poll_timeout().filter(|due| *due <= end) {
                        world.now = world.now.max(due);
                        world.charge_point.handle_timeout(world.now);
                        prop_assert!(world.charge_point.poll_timeout().is_none_or(|next| next > world.now));
                        take_frames(&mut world, &mut wire)?;
                    }
                    world.now = end;
                }
                Step::Answer(payload) => {
                    take_frames(&mut world, &mut wire)?;
                    if let Some((id, _)) = wire.outstanding.take() {
                        world.receive_text(&format!(r#"[3,"{id}",{payload}]"#));
                    }
                }
                Step::Fail => {
                    take_frames(&mut world, &mut wire)?;
                    if let Some((id, _)) = wire.outstanding.take() {
                        world.receive_text(&format!(r#"[4,"{id}","InternalError","",{{}}]"#));
                    }
                }
                Step::Text(text) => world.receive_text(&text),
                Step::Call(call) => world.receive_text(&format!(r#"[2,"{number}",{call}]"#)),
                Step::AnswerChange(first) => {
                    let request = if first { wire.requests.first() } else { wire.requests.last() };
                    if let Some(&request) = request {
                        world.charge_point.answer_change(request, ConfigurationStatus::Accepted);
                    }
                }
                Step::TakeFrames => take_frames(&mut world, &mut wire)?,
                Step::TakeEvents => take_events(&mut world, &mut wire),
            }
            prop_assert!(world.charge_point.events.len() <= MAX_EVENTS);
        }
        take_events(&mut world, &mut wire);
        let distinct: HashSet<_> = wire.requests.iter().collect();
        prop_assert_eq!(distinct.len(), wire.requests.len());
    }
}
