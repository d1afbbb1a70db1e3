use std::time::Duration;

use reverse_tunnel::host_keys::Trusted;
use reverse_tunnel::{Failure, FailureKind, Forward, Reason, State, Status};

use super::*;
use crate::limits::{REPORT_EVENTS, REPORT_SETTLE, REPORT_TUNNELS};
use crate::supervisor::TunnelId;

const SECOND: Duration = Duration::from_secs(1);

/// A machine, a clock, and the connections that were made.
struct Story {
    reports: Reports,
    start: Instant,
    now: Instant,
    views: Vec<View>,
}

impl Story {
    /// The start of the agent has been told already, over a connection that is still there.
    fn new() -> Self {
        let mut story = Self::offline();
        story.connect();
        story.answers(r#"{"type":"StartupOfTheDevice"}"#, result("{}"));
        story.is_silent();
        story
    }

    fn offline() -> Self {
        let start = Instant::now();
        Self { reports: Reports::new(42, start), start, now: start, views: Vec::new() }
    }

    fn connect(&mut self) {
        self.now += SECOND;
        self.reports.link(Some(self.now));
    }

    fn tunnel(&mut self, number: u8, state: State) {
        self.see(view(number, state, self.now, None));
    }

    fn see(&mut self, view: View) {
        self.views.retain(|other| other.id != view.id);
        self.views.push(view);
        self.reports.observe(&self.views, self.now);
    }

    fn happened(&mut self, number: u64) {
        self.reports.new_key(&format!("SHA256:{number}"), self.now);
    }

    fn next(&mut self) -> Option<(CallId, Value)> {
        let (start, epoch) = (self.start, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let call = self.reports.poll_call(self.now, |at| epoch + (at - start))?;
        let payload: Value = serde_json::from_str(call.payload.get()).unwrap();
        match call.action {
            "DataTransfer" => {
                assert_eq!(
                    (&payload["vendorId"], &payload["messageId"]),
                    (&json!(VENDOR_ID), &json!(TUNNEL_STATUS))
                );
                Some((call.id, serde_json::from_str(payload["data"].as_str().unwrap()).unwrap()))
            }
            "SecurityEventNotification" => Some((call.id, payload)),
            other => panic!("{other}"),
        }
    }

    /// The next call, after as long as the machine itself wants to wait.
    fn call(&mut self) -> (CallId, Value) {
        let due = self.reports.poll_timeout().expect("there is something to tell");
        self.now = self.now.max(due);
        self.next().expect("it is told when it is due")
    }

    /// The next call has these fields, and is answered like this.
    fn answers(&mut self, expected: &str, outcome: Outcome) {
        let (id, call) = self.call();
        let expected: Value = serde_json::from_str(expected).unwrap();
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&call[name], value, "{call}");
        }
        assert_eq!(self.next(), None, "one call at a time");
        self.reports.called(id, &outcome, self.now);
    }

    fn is_silent(&mut self) {
        assert_eq!(self.reports.poll_timeout(), None);
        self.now += Duration::from_secs(24 * 3600);
        assert_eq!(self.next(), None);
    }
}

pub(super) fn result(payload: &str) -> Outcome {
    Outcome::Result(RawValue::from_string(payload.to_owned()).unwrap())
}

pub(super) fn accepted() -> Outcome {
    result(r#"{"status":"Accepted"}"#)
}

pub(super) fn error(code: &str) -> Outcome {
    Outcome::Error { code: code.into(), description: String::new() }
}

pub(super) fn view(number: u8, state: State, since: Instant, last_error: Option<Failure>) -> View {
    let forwards: Vec<Forward> = vec![format!("111{number}:127.0.0.1:22").parse().unwrap()];
    let destination = || "ops@gw:2222".parse().unwrap();
    let status = Status {
        state,
        since,
        destination: destination(),
        forwards: forwards.clone(),
        listening: vec![state == State::Up],
        expires: None,
        retry_at: None,
        last_error,
        host_key: None,
        peer: None,
    };
    View {
        id: TunnelId::Slot(number),
        key: None,
        wanted: Some(destination()),
        status: Some(status),
        forwards,
        traffic: None,
        refusal: None,
    }
}

#[test]
fn a_tunnel_that_opens_and_closes_is_told_in_two_reports() {
    let mut story = Story::new();
    for state in
        [State::Resolving, State::Connecting, State::Verifying, State::Authenticating, State::Forwarding]
    {
        story.tunnel(1, state);
    }
    story.is_silent();
    story.tunnel(1, State::Up);
    let call = story.reports.poll_call(story.now + REPORT_SETTLE, |_| SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(
        call.payload.get(),
        r#"{"data":"{\"slot\":1,\"state\":\"up\",\"server\":\"ops@gw:2222\",\"remote\":[\"localhost:1111\"],\"time\":\"1970-01-01T00:00:00.000Z\"}","messageId":"TunnelStatus","vendorId":"org.ocpp-tunnel"}"#
    );
    story.reports.called(call.id, &accepted(), story.now);
    story.is_silent();
    story.tunnel(1, State::Closed(Reason::Ocpp));
    story.answers(r#"{"slot":1,"state":"closed","reason":"ocpp","error":null}"#, accepted());
    story.is_silent();
}

#[test]
fn a_tunnel_that_is_away_for_a_moment_is_no_news() {
    let mut story = Story::new();
    story.tunnel(1, State::Up);
    story.answers(r#"{"state":"up"}"#, accepted());
    let lost = Failure::new(FailureKind::Lost, "gone");
    story.see(view(1, State::Backoff, story.now, Some(lost.clone())));
    story.tunnel(1, State::Connecting);
    story.tunnel(1, State::Up);
    story.is_silent();

    // For longer it is; once, although it is tried again and again.
    for _ in 0..3 {
        story.tunnel(1, State::Connecting);
        story.see(view(1, State::Backoff, story.now, Some(lost.clone())));
    }
    story.answers(r#"{"state":"backoff","error":"gone"}"#, accepted());
    for _ in 0..3 {
        story.tunnel(1, State::Connecting);
        story.see(view(1, State::Backoff, story.now, Some(lost.clone())));
    }
    story.is_silent();
    // Another sort of failure is news.
    story.see(view(1, State::Backoff, story.now, Some(Failure::new(FailureKind::Dns, "no\naddress"))));
    story.answers(r#"{"state":"backoff","error":"no\\naddress"}"#, accepted());
    story.tunnel(1, State::Up);
    story.answers(r#"{"state":"up"}"#, accepted());
}

#[test]
fn a_tunnel_that_moves_is_not_said_to_be_up_meanwhile() {
    let mut story = Story::new();
    story.tunnel(1, State::Up);
    story.answers(r#"{"state":"up"}"#, accepted());
    let elsewhere = |state, now| {
        let mut view = view(1, state, now, None);
        view.status.as_mut().unwrap().destination = "ops@other".parse().unwrap();
        view
    };
    story.see(elsewhere(State::Connecting, story.now));
    story.answers(r#"{"state":"connecting","server":"ops@other"}"#, accepted());
    story.see(elsewhere(State::Up, story.now));
    story.answers(r#"{"state":"up","server":"ops@other"}"#, accepted());
}

#[test]
fn a_learned_host_key_is_told_with_the_state() {
    let mut story = Story::new();
    let mut view = view(1, State::Up, story.now, None);
    view.status.as_mut().unwrap().host_key =
        Some(Trusted { fingerprint: "SHA256:abc".into(), learned: true, place: None });
    story.see(view);
    story.answers(r#"{"state":"up","learned":"SHA256:abc"}"#, accepted());
    story.is_silent();
    story.tunnel(1, State::Up);
    story.is_silent();
}

#[test]
fn forwards_that_are_refused_are_told_before_the_tunnel_gives_up() {
    let mut story = Story::new();
    let refused = || Some(Failure::new(FailureKind::Forward, "port 1111 is taken"));
    story.see(view(1, State::Forwarding, story.now, refused()));
    story.answers(r#"{"state":"forwarding","error":"port 1111 is taken"}"#, accepted());
    story.see(view(1, State::Closed(Reason::ForwardRefused), story.now, refused()));
    story
        .answers(r#"{"state":"closed","reason":"forward-refused","error":"port 1111 is taken"}"#, accepted());
    // One that was closed while it waited didn't end by that.
    story.see(view(1, State::Closed(Reason::User), story.now, refused()));
    story.answers(r#"{"state":"closed","reason":"user","error":null}"#, accepted());
}

#[test]
fn any_other_answer_ends_the_tunnels_states_for_this_connection() {
    for refusal in [
        result(r#"{"status":"UnknownVendorId"}"#),
        result(r#"{"status":"Rejected"}"#),
        result("{}"),
        result("[]"),
        error("NotSupported"),
        error("InternalError"),
    ] {
        let mut story = Story::new();
        story.tunnel(1, State::Up);
        story.answers(r#"{"slot":1,"state":"up"}"#, refusal);
        story.tunnel(1, State::Closed(Reason::User));
        story.tunnel(2, State::Up);
        story.is_silent();
        // What the other kind has to say is another matter.
        story.happened(1);
        story.answers(r#"{"type":"ReconfigurationOfSecurityParameters"}"#, result("{}"));
        story.is_silent();
        assert_eq!(story.reports.view().waiting, 2);

        story.reports.link(None);
        story.is_silent();
        story.connect();
        story.answers(r#"{"slot":1,"state":"closed"}"#, accepted());
        story.answers(r#"{"slot":2,"state":"up"}"#, accepted());
        story.is_silent();
    }
}

#[test]
fn a_csms_without_security_events_is_not_asked_again_on_this_connection() {
    for code in ["NotSupported", "NotImplemented"] {
        let mut story = Story::offline();
        story.happened(1);
        story.connect();
        story.answers(r#"{"type":"StartupOfTheDevice"}"#, error(code));
        story.happened(2);
        story.reports.missed(3, story.now);
        story.is_silent();
        assert_eq!(story.reports.view(), ReportsView::default(), "nobody wants to know");

        story.reports.link(None);
        story.happened(3);
        story.connect();
        story.answers(r#"{"techInfo":"sshKey=SHA256:3"}"#, result("{}"));
        story.is_silent();
    }
}

#[test]
fn an_event_that_the_csms_can_not_take_does_not_hold_up_the_others() {
    let mut story = Story::new();
    story.happened(1);
    story.happened(2);
    story.answers(r#"{"techInfo":"sshKey=SHA256:1"}"#, error("FormationViolation"));
    story.answers(r#"{"techInfo":"sshKey=SHA256:2"}"#, result("{}"));
    story.is_silent();
}

#[test]
fn what_happened_offline_comes_afterwards_in_order_and_with_its_own_time() {
    let mut story = Story::offline();
    let start = story.now;
    for number in 1..=3 {
        story.now = start + SECOND * 10 * u32::from(number);
        story.happened(number.into());
        story.now += SECOND;
        story.tunnel(number, State::Up);
    }
    story.now += Duration::from_secs(3600);
    assert_eq!((story.reports.poll_timeout(), story.next()), (None, None));
    story.connect();
    story.answers(r#"{"type":"StartupOfTheDevice","timestamp":"2027-01-15T08:00:00.000Z"}"#, result("{}"));
    story.answers(r#"{"techInfo":"sshKey=SHA256:1","timestamp":"2027-01-15T08:00:10.000Z"}"#, result("{}"));
    story.answers(r#"{"slot":1,"time":"2027-01-15T08:00:11.000Z"}"#, accepted());
    story.answers(r#"{"techInfo":"sshKey=SHA256:2","timestamp":"2027-01-15T08:00:20.000Z"}"#, result("{}"));
    story.answers(r#"{"slot":2,"time":"2027-01-15T08:00:21.000Z"}"#, accepted());
    story.answers(r#"{"techInfo":"sshKey=SHA256:3","timestamp":"2027-01-15T08:00:30.000Z"}"#, result("{}"));
    story.answers(r#"{"slot":3,"time":"2027-01-15T08:00:31.000Z"}"#, accepted());
    story.is_silent();
}

#[test]
fn what_is_lost_with_the_connection_is_told_again_on_the_next() {
    let mut story = Story::new();
    story.happened(1);
    story.happened(2);
    let (id, _) = story.call();
    story.reports.link(None);
    story.reports.called(id, &Outcome::Lost, story.now);
    story.tunnel(1, State::Up);
    story.connect();
    story.answers(r#"{"techInfo":"sshKey=SHA256:1"}"#, result("{}"));
    story.answers(r#"{"techInfo":"sshKey=SHA256:2"}"#, result("{}"));

    // The news of the loss may come when the next connection is there already.
    let (id, report) = story.call();
    assert_eq!(report["state"], "up");
    story.connect();
    story.reports.called(id, &Outcome::Lost, story.now);
    let before = story.now;
    story.answers(r#"{"state":"up"}"#, accepted());
    assert_eq!(story.now, before, "at once");
    // What isn't ours, or no longer, is ignored.
    story.reports.called(id, &accepted(), story.now);
    story.reports.called(CallId(0), &accepted(), story.now);
    story.is_silent();
}

#[test]
fn a_csms_that_does_not_answer_is_asked_less_and_less() {
    let mut story = Story::new();
    story.happened(1);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let before = story.now;
        story.answers(r#"{"techInfo":"sshKey=SHA256:1"}"#, Outcome::Unanswered);
        waits.push((story.now - before).as_secs());
        // Only this kind has to wait.
        let state = if waits.len() % 2 == 0 { State::Up } else { State::Closed(Reason::User) };
        story.tunnel(1, state);
        story.now += REPORT_SETTLE;
        let (id, report) = story.next().unwrap();
        assert_eq!(report["slot"], 1);
        story.reports.called(id, &accepted(), story.now);
        story.now -= REPORT_SETTLE;
    }
    assert_eq!(waits, [0, 60, 120, 240, 480, 960, 1920, 3840, 3840]);
    story.connect();
    let before = story.now;
    story.answers(r#"{"techInfo":"sshKey=SHA256:1"}"#, result("{}"));
    assert_eq!(story.now, before, "another connection, another chance");
}

/// Some CSMSs ignore what they don't know, and the link counts as dead after three calls in a row without an answer.
#[test]
fn reports_that_are_ignored_do_not_end_the_link() {
    let mut story = Story::new();
    story.happened(1);
    story.tunnel(1, State::Up);
    for _ in 0..3 {
        story.answers(r#"{"techInfo":"sshKey=SHA256:1"}"#, Outcome::Unanswered);
        story.answers(r#"{"slot":1}"#, Outcome::Unanswered);
        story.is_silent();
        // A Heartbeat was answered.
        story.reports.heard();
    }
}

#[test]
fn the_oldest_events_make_room_and_the_csms_is_told_how_many() {
    let mut story = Story::new();
    story.happened(0);
    let (id, _) = story.call();
    for number in 1..=REPORT_EVENTS as u64 + 4 {
        story.happened(number);
    }
    assert_eq!(story.reports.view(), ReportsView { waiting: REPORT_EVENTS, dropped: 5 });
    story.reports.called(id, &Outcome::Unanswered, story.now);
    story.reports.heard();
    let (id, call) = story.call();
    assert_eq!((&call["type"], &call["techInfo"]), (&json!("SecurityEventsDropped"), &json!("count=5")));
    // More are dropped while the CSMS is told; the one that was under way before may go, too.
    story.happened(1000);
    story.reports.missed(2, story.now);
    story.reports.called(id, &result("{}"), story.now);
    story.answers(r#"{"type":"SecurityEventsDropped","techInfo":"count=3"}"#, result("{}"));
    for number in (6..=REPORT_EVENTS as u64 + 4).chain([1000]) {
        story.answers(&format!(r#"{{"techInfo":"sshKey=SHA256:{number}"}}"#), result("{}"));
    }
    story.is_silent();
    assert_eq!(story.reports.view(), ReportsView { waiting: 0, dropped: 8 });
}

#[test]
fn the_same_event_again_and_again_takes_one_place() {
    let mut story = Story::new();
    story.happened(1);
    let (id, _) = story.call();
    for _ in 0..1000 {
        story.happened(1);
    }
    assert_eq!(story.reports.view(), ReportsView { waiting: 2, dropped: 0 });
    story.reports.called(id, &result("{}"), story.now);
    story.answers(r#"{"techInfo":"sshKey=SHA256:1 times=1000"}"#, result("{}"));
    story.is_silent();
}

#[test]
fn tunnels_that_are_gone_do_not_pile_up() {
    let mut story = Story::offline();
    for number in 0..1000 {
        story.now += SECOND;
        let mut gone = view(1, State::Closed(Reason::User), story.now, None);
        gone.id = TunnelId::AdHoc(number);
        story.views = vec![gone];
        story.reports.observe(&story.views, story.now);
    }
    let view = story.reports.view();
    assert_eq!((view.waiting, view.dropped), (REPORT_TUNNELS + 1, 1000 - REPORT_TUNNELS as u64));
    story.connect();
    story.answers(r#"{"type":"StartupOfTheDevice"}"#, result("{}"));
    story.answers(&format!(r#"{{"id":"t{}","state":"closed"}}"#, 1000 - REPORT_TUNNELS), accepted());
}
