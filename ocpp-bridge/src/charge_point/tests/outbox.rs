//! CALLs of the embedder.

use super::*;
use crate::limits::{MAX_CALL_TIMEOUT, MAX_CALLS, MAX_RESULT_BYTES};

fn result(json: &str) -> Outcome {
    Outcome::Result(serde_json::from_str(json).unwrap())
}

#[test]
fn calls_are_sent_one_at_a_time_in_their_order_and_each_gets_its_answer() {
    let mut world = World::accepted();
    for number in 1..=3 {
        world.call(number).unwrap();
    }
    for number in 1..=3 {
        let call = world.sent_one();
        assert_eq!(
            (&call[0], &call[2], &call[3]),
            (&json!(2), &json!("DataTransfer"), &json!({"number": number}))
        );
        world.receive(&json!([3, call[1], {"status": "Accepted"}]));
        assert_eq!(world.outcomes(), [(number, result(r#"{"status":"Accepted"}"#))]);
    }
    assert!(world.sent().is_empty());
}

#[test]
fn calls_of_the_csms_are_served_while_ours_waits() {
    let mut world = World::accepted();
    world.call(1).unwrap();
    world.call(2).unwrap();
    let call = world.sent_one();
    world.receive(&json!([2, "a", "GetConfiguration", {"key": ["ResetRetries"]}]));
    world.change("b", "InvokeCustomScript1", "a@x");
    world.receive(&json!([2, "c", "GetConfiguration", {"key": ["ResetRetries"]}]));
    let (request, _) = world.asked();
    world.charge_point.answer_change(request, ConfigurationStatus::Accepted);
    let answered: Vec<Value> = world.sent().into_iter().map(|frame| frame[1].clone()).collect();
    assert_eq!(answered, ["a", "c", "b"]);
    world.receive(&json!([3, call[1], {}]));
    assert_eq!(world.outcomes().len(), 1);
    assert_eq!(world.sent_one()[3], json!({"number": 2}));
}

#[test]
fn errors_are_handed_on_and_bounded() {
    let mut world = World::accepted();
    world.call(1).unwrap();
    let call = world.sent_one();
    world.receive(&json!([4, call[1], "NotSupported", "é".repeat(300), {}]));
    let description = "é".repeat(255);
    let code = "NotSupported".to_owned();
    assert_eq!(world.outcomes(), [(1, Outcome::Error { code, description })]);
}

#[test]
fn unreadable_and_giant_answers_are_errors() {
    let giant = format!(r#"{{"data":"{}"}}"#, "x".repeat(MAX_RESULT_BYTES));
    for answer in [r#"[3,"ID"]"#, r#"[3,"ID",{"status":"#, &format!(r#"[3,"ID",{giant}]"#)] {
        let mut world = World::accepted();
        world.call(1).unwrap();
        let id = world.sent_one()[1].as_str().unwrap().to_owned();
        world.receive_text(&answer.replace("ID", &id));
        let outcomes = world.outcomes();
        assert!(
            matches!(outcomes.as_slice(), [(1, Outcome::Error { code, .. })] if code == "GenericError"),
            "{outcomes:?}"
        );
    }
}

#[test]
fn unanswered_call_gives_way_to_the_next_after_message_timeout() {
    let mut world = World::accepted();
    world.call(1).unwrap();
    world.call(2).unwrap();
    let first = world.sent_one();
    world.pass(29);
    assert!(world.sent().is_empty() && world.outcomes().is_empty());
    world.pass(1);
    assert_eq!(world.outcomes(), [(1, Outcome::Unanswered)]);
    assert_eq!(world.sent_one()[3], json!({"number": 2}));

    world.receive(&json!([3, first[1], {}]));
    assert!(world.outcomes().is_empty(), "an answer that comes too late is nobody's");
}

#[test]
fn message_timeout_is_in_effect_at_once_and_has_a_range() {
    let mut world = World::accepted();
    world.receive(&json!([2, "1", "GetConfiguration", {"key": ["MessageTimeout"]}]));
    assert_eq!(world.sent_one()[2]["configurationKey"][0]["value"], "30");

    world.call(1).unwrap();
    world.sent();
    world.pass(6);
    world.change("2", "MessageTimeout", "7");
    assert_eq!(world.sent_one()[2]["status"], "Accepted");
    world.pass(1);
    assert_eq!(world.outcomes(), [(1, Outcome::Unanswered)], "the outstanding CALL has no more time either");

    let longest = MAX_CALL_TIMEOUT.as_secs();
    for value in ["0", "-1", "x", "", &(longest + 1).to_string()] {
        world.change("3", "MessageTimeout", value);
        assert_eq!(world.sent_one()[2]["status"], "Rejected", "{value}");
    }
    world.change("4", "MessageTimeout", &longest.to_string());
    assert_eq!(world.sent_one()[2]["status"], "Accepted");
    world.call(2).unwrap();
    world.sent();
    world.pass(299);
    assert!(world.outcomes().is_empty());
}

#[test]
fn heartbeat_that_is_due_goes_before_what_waits() {
    let mut world = World::accepted();
    world.call(1).unwrap();
    world.call(2).unwrap();
    let first = world.sent_one();
    world.change("1", "HeartbeatInterval", "20");
    world.sent();
    world.pass(20);
    world.receive(&json!([3, first[1], {}]));
    let heartbeat = world.sent_one();
    assert_eq!(heartbeat[2], "Heartbeat");
    world.receive(&json!([3, heartbeat[1], {}]));
    assert_eq!(world.sent_one()[3], json!({"number": 2}));
}

#[test]
fn lost_connection_loses_every_call_once() {
    let mut world = World::accepted();
    for number in 1..=3 {
        world.call(number).unwrap();
    }
    let first = world.sent_one();
    world.disconnect();
    assert_eq!(world.outcomes(), [(1, Outcome::Lost), (2, Outcome::Lost), (3, Outcome::Lost)]);
    world.connect();
    world.receive(&json!([3, first[1], {}]));
    assert!(world.sent().is_empty() && world.outcomes().is_empty());

    // A driver may forget to say that a connection has ended before the next.
    world.call(4).unwrap();
    world.connect();
    assert_eq!(world.outcomes(), [(4, Outcome::Lost)]);
}

#[test]
fn without_a_connection_or_acceptance_a_call_is_lost_at_once() {
    let mut world = World::new();
    world.call(1).unwrap();
    assert_eq!(world.outcomes(), [(1, Outcome::Lost)]);
    world.connect();
    world.boot_id();
    world.call(2).unwrap();
    assert_eq!(world.outcomes(), [(2, Outcome::Lost)]);
    for (number, status) in [(3, "Pending"), (4, "Rejected")] {
        let mut world = World::new();
        world.connect();
        world.answer_boot(&json!({"status": status, "interval": 10}));
        world.call(number).unwrap();
        assert_eq!(world.outcomes(), [(number, Outcome::Lost)]);
        assert!(world.sent().is_empty());
    }
}

#[test]
fn places_are_bounded_and_taken_until_the_outcome_is() {
    let mut world = World::accepted();
    for number in 0..MAX_CALLS as u64 {
        world.call(number).unwrap();
    }
    assert_eq!(world.call(99), Err(Full));
    world.disconnect();
    assert_eq!(world.call(99), Err(Full), "nobody has taken the outcomes");
    let outcomes = world.outcomes();
    assert_eq!(outcomes.len(), MAX_CALLS);
    assert!(outcomes.iter().all(|(number, outcome)| *number != 99 && *outcome == Outcome::Lost));
    world.call(100).unwrap();
    assert_eq!(world.outcomes(), [(100, Outcome::Lost)]);
}

#[test]
fn outcomes_that_wait_do_not_stop_the_reading() {
    let mut world = World::accepted();
    for number in 0..MAX_CALLS as u64 {
        world.call(number).unwrap();
    }
    world.disconnect();
    world.connect();
    assert!(world.charge_point.wants_text());
    world.receive(&json!([2, "1", "GetConfiguration", {"key": ["ResetRetries"]}]));
    assert_eq!(world.sent_one()[1], "1");
}
