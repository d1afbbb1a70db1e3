use super::*;

#[test]
fn unanswered_calls_are_counted_until_the_csms_says_something() {
    let mut world = World::accepted();
    for unanswered in 1..=4 {
        world.pass(300);
        assert_eq!(world.sent_one()[2], "Heartbeat");
        world.pass(30);
        assert_eq!(world.charge_point.unanswered_calls(), unanswered);
        // Heartbeats are counted from sending to sending.
        world.now -= Duration::from_secs(30);
    }
    world.receive(&json!([2, "1", "GetConfiguration", {}]));
    assert_eq!(world.charge_point.unanswered_calls(), 0);
    world.sent();
    world.pass(330);
    assert_eq!(world.charge_point.unanswered_calls(), 1);
    world.disconnect();
    world.connect();
    assert_eq!(world.charge_point.unanswered_calls(), 0);
}

#[test]
fn a_call_is_not_counted_as_unanswered_while_the_embedder_keeps_us_from_reading() {
    let mut world = World::accepted();
    for id in 0..limits::MAX_PENDING_ANSWERS {
        world.change(&id.to_string(), "InvokeCustomScript1", "a@b");
    }
    assert!(world.charge_point.is_embedder_busy());
    world.pass(330);
    assert_eq!(world.charge_point.unanswered_calls(), 0);
}
