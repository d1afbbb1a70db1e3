//! The tunnel's state machine in virtual time.

use std::time::{Duration, Instant};

use super::*;
use crate::failure::HostKeyFault;

const KEEPALIVE: Duration = Duration::from_secs(180);

/// A tunnel, its clock and everything that it wanted done.
struct Story {
    tunnel: Tunnel,
    now: Instant,
}

impl Story {
    fn new() -> Self {
        Self::with(None, Duration::ZERO)
    }

    fn with(lifetime: Option<Duration>, idle_timeout: Duration) -> Self {
        let now = Instant::now();
        let plan = Plan {
            destination: "ops@gateway.example:2222".parse().unwrap(),
            route: Route::default(),
            forwards: vec!["1111:127.0.0.1:22".parse().unwrap(), "0:127.0.0.1:80".parse().unwrap()],
            expires: lifetime.map(|lifetime| now + lifetime),
        };
        let timing = Timing {
            backoff_minimum: Duration::from_secs(5),
            backoff_maximum: Duration::from_secs(900),
            dead_after: KEEPALIVE,
            idle_timeout,
        };
        Self { tunnel: Tunnel::new(plan, timing, fastrand::Rng::with_seed(7), now), now }
    }

    /// Logged in, and the first forward asked for.
    fn forwarding() -> Self {
        let mut story = Self::new();
        story.give(Input::Start);
        story.give(Input::Resolved(vec![address(1)]));
        story.give(Input::Connected);
        story.give(Input::Verified);
        story.give(Input::Authenticated);
        story
    }

    fn up() -> Self {
        let mut story = Self::new();
        story.come_up();
        story
    }

    fn come_up(&mut self) {
        if self.tunnel.state() == State::Idle {
            self.give(Input::Start);
        } else {
            self.wait();
        }
        self.give(Input::Resolved(vec![address(1), address(2)]));
        self.give(Input::Connected);
        self.give(Input::Verified);
        self.give(Input::Authenticated);
        self.give(Input::Listening { port: 1111 });
        self.give(Input::Listening { port: 40000 });
        assert_eq!(self.tunnel.state(), State::Up);
    }

    fn give(&mut self, input: Input) -> Vec<Action> {
        self.tunnel.handle(self.now, input);
        std::iter::from_fn(|| self.tunnel.poll_action()).collect()
    }

    /// Lets time pass until the machine asks for it.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.tunnel.poll_timeout().expect("a time to wait for").max(self.now);
        self.give(Input::Timeout)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn fail(&mut self, kind: FailureKind) -> Vec<Action> {
        self.give(Input::Failed(Failure::new(kind, "it failed")))
    }
}

fn way(last: u8) -> Way {
    Way { address: address(last), port: 2222 }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 2222))
}

#[test]
fn it_comes_up_step_by_step() {
    let mut story = Story::new();
    assert_eq!(story.give(Input::Start), [Action::Resolve]);
    assert_eq!(story.give(Input::Resolved(vec![address(1)])), [Action::Connect(way(1))]);
    assert_eq!(story.give(Input::Connected), [Action::Verify]);
    assert_eq!(story.give(Input::Verified), [Action::Authenticate]);
    assert_eq!(story.give(Input::Authenticated), [Action::Listen(0)]);
    assert_eq!(story.give(Input::Listening { port: 1111 }), [Action::Listen(1)]);
    assert_eq!(story.give(Input::Listening { port: 40000 }), []);
    assert_eq!(story.tunnel.state(), State::Up);
    assert_eq!(story.tunnel.ports(), [Some(1111), Some(40000)]);
    assert_eq!(story.tunnel.poll_timeout(), None, "an idle tunnel that is up wakes nobody");
}

#[test]
fn a_tunnel_that_waits_for_another_to_end_is_on_its_way_and_can_be_closed() {
    let mut story = Story::new();
    assert_eq!(story.give(Input::Wait), []);
    assert_eq!(story.tunnel.state().word(), "connecting");
    assert_eq!(story.give(Input::Again { expires: None }), []);
    assert_eq!(story.fail(FailureKind::Lost), [], "no step is under way");
    assert_eq!(story.give(Input::Start), [Action::Resolve]);
    assert_eq!(story.give(Input::Start), [], "it starts once");

    let mut story = Story::new();
    story.give(Input::Wait);
    story.give(Input::Close(Reason::User));
    assert_eq!(story.tunnel.state(), State::Closed(Reason::User));
    assert_eq!(story.give(Input::Start), []);
}

#[test]
fn every_address_is_tried_and_the_good_one_first_the_next_time() {
    let mut story = Story::new();
    story.give(Input::Start);
    story.give(Input::Resolved(vec![address(1), address(2)]));
    assert_eq!(story.fail(FailureKind::Tcp), [Action::Disconnect, Action::Connect(way(2))]);
    story.give(Input::Connected);
    story.give(Input::Verified);
    story.fail(FailureKind::Lost);
    assert_eq!(story.tunnel.state(), State::Backoff);
    assert_eq!(story.wait(), [Action::Resolve]);
    let actions = story.give(Input::Resolved(vec![address(1), address(2)]));
    assert_eq!(actions, [Action::Connect(way(2))]);
}

#[test]
fn each_step_has_its_time() {
    let mut story = Story::new();
    story.give(Input::Start);
    let began = story.now;
    story.wait();
    assert_eq!(story.now - began, RESOLVE_TIMEOUT);
    assert_eq!(story.tunnel.last_error().unwrap().kind, FailureKind::Dns);

    story.wait();
    story.give(Input::Resolved(vec![address(1)]));
    let began = story.now;
    story.wait();
    assert_eq!((story.now - began, story.tunnel.state()), (CONNECT_TIMEOUT, State::Backoff));

    story.wait();
    story.give(Input::Resolved(vec![address(1)]));
    story.give(Input::Connected);
    let began = story.now;
    story.wait();
    assert_eq!((story.now - began, story.tunnel.state()), (KEEPALIVE, State::Backoff));
    assert_eq!(
        story.tunnel.last_error().unwrap().text,
        "192.0.2.1:2222 did not finish the SSH key exchange in 180 s"
    );

    for answers in [0, 1, 2] {
        story.wait();
        story.give(Input::Resolved(vec![address(1)]));
        story.give(Input::Connected);
        story.give(Input::Verified);
        for answer in [Input::Authenticated, Input::Listening { port: 1111 }].into_iter().take(answers) {
            story.give(answer);
        }
        let began = story.now;
        story.wait();
        assert_eq!((story.now - began, story.tunnel.state()), (KEEPALIVE, State::Backoff), "{answers}");
        assert_eq!(story.tunnel.last_error().unwrap().text, "192.0.2.1:2222 stopped answering in 180 s");
    }
}

#[test]
fn names_are_resolved_anew_for_each_try_and_old_addresses_are_not_tried_again() {
    let mut story = Story::new();
    story.give(Input::Start);
    for last in 1..5 {
        assert_eq!(story.give(Input::Resolved(vec![address(last)])), [Action::Connect(way(last))]);
        assert_eq!(story.fail(FailureKind::Tcp), [Action::Disconnect, Action::Disconnect]);
        assert_eq!(story.wait(), [Action::Resolve]);
    }
}

#[test]
fn alternative_ports_are_tried_after_the_own_one_and_the_good_one_first_the_next_time() {
    let mut story = Story::new();
    story.tunnel.plan.route.alternative_ports = vec![443];
    story.give(Input::Start);
    let on_443 = Way { address: SocketAddr::from(([192, 0, 2, 1], 443)), port: 443 };
    assert_eq!(story.give(Input::Resolved(vec![address(1)])), [Action::Connect(way(1))]);
    assert_eq!(story.tunnel.peer().unwrap().to_string(), "192.0.2.1:2222");
    assert_eq!(story.wait(), [Action::Disconnect, Action::Connect(on_443)]);
    assert_eq!(story.tunnel.peer().unwrap().to_string(), "192.0.2.1:443");
    story.give(Input::Connected);
    story.give(Input::Verified);
    story.fail(FailureKind::Lost);
    assert_eq!(story.tunnel.peer(), None, "there is no connection while it waits");
    story.wait();
    assert_eq!(story.give(Input::Resolved(vec![address(1)])), [Action::Connect(on_443)]);
    // The firewall has changed its mind.
    assert_eq!(story.fail(FailureKind::Tcp), [Action::Disconnect, Action::Connect(way(1))]);
}

#[test]
fn a_proxy_that_forbids_a_port_is_asked_for_the_next_one() {
    let mut story = Story::new();
    story.tunnel.plan.route.alternative_ports = vec![443];
    story.tunnel.plan.route.proxy = Some("http://proxy:3128".parse::<crate::Proxy>().unwrap().into());
    story.give(Input::Start);
    let proxy = SocketAddr::from(([10, 0, 0, 1], 3128));
    let through = |port| Action::Connect(Way { address: proxy, port });
    assert_eq!(story.give(Input::Resolved(vec![proxy])), [through(2222)]);
    assert_eq!(story.fail(FailureKind::Proxy), [Action::Disconnect, through(443)]);
    story.wait();
    let error = story.tunnel.last_error().unwrap();
    assert_eq!(error.kind, FailureKind::Proxy);
    assert_eq!(error.text, "no connection to gateway.example:443 through the proxy 10.0.0.1:3128 in 20 s");
}

#[test]
fn a_wait_ends_when_the_network_returns() {
    let mut story = Story::new();
    story.give(Input::Start);
    story.fail(FailureKind::Dns);
    assert_eq!(story.tunnel.state(), State::Backoff);
    assert_eq!(story.give(Input::Network), [Action::Resolve]);
    // The lost queries of the old network are not waited for.
    assert_eq!(story.give(Input::Network), [Action::Disconnect, Action::Resolve]);
    story.give(Input::Resolved(vec![address(1), address(2)]));
    story.fail(FailureKind::Tcp);
    assert_eq!(story.give(Input::Network), [Action::Disconnect, Action::Resolve]);
    assert_eq!(story.give(Input::Resolved(vec![address(1), address(2)])), [Action::Connect(way(1))]);
}

#[test]
fn a_connection_that_stands_is_left_alone_when_the_network_changes() {
    for steps in 0..4 {
        let mut story = Story::new();
        story.give(Input::Start);
        story.give(Input::Resolved(vec![address(1)]));
        story.give(Input::Connected);
        let inputs = [
            Input::Verified,
            Input::Authenticated,
            Input::Listening { port: 1 },
            Input::Listening { port: 2 },
        ];
        for input in inputs.into_iter().take(steps) {
            story.give(input);
        }
        let before = (story.tunnel.state(), story.tunnel.poll_timeout());
        assert_eq!(story.give(Input::Network), [], "after {steps} steps");
        assert_eq!((story.tunnel.state(), story.tunnel.poll_timeout()), before);
    }
}

#[test]
fn a_network_that_returns_again_and_again_does_not_make_the_back_off_forget() {
    let mut story = Story::new();
    story.give(Input::Start);
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        story.fail(FailureKind::Dns);
        longest = longest.max(story.tunnel.retry_at().unwrap() - story.now);
        story.give(Input::Network);
    }
    assert!(longest > Duration::from_secs(600), "{longest:?}");
}

#[test]
fn the_back_off_doubles_with_full_jitter_up_to_its_maximum() {
    let mut story = Story::new();
    story.give(Input::Start);
    let mut longest = Duration::ZERO;
    for failure in 0..200 {
        story.fail(FailureKind::Dns);
        let wait = story.tunnel.retry_at().unwrap() - story.now;
        let bound = Duration::from_secs(5 * (1 << failure.min(16))).min(Duration::from_secs(900));
        assert!(wait <= bound, "wait {failure} of {wait:?} is above {bound:?}");
        longest = longest.max(wait);
        story.wait();
    }
    assert!(longest > Duration::from_secs(700), "no wait came near the maximum: {longest:?}");
}

#[test]
fn a_tunnel_that_was_up_for_a_minute_starts_again_quickly() {
    let mut story = Story::new();
    story.give(Input::Start);
    for _ in 0..10 {
        story.fail(FailureKind::Dns);
        story.wait();
    }
    story.give(Input::Resolved(vec![address(1)]));
    story.give(Input::Connected);
    story.give(Input::Verified);
    story.give(Input::Authenticated);
    story.give(Input::Listening { port: 1 });
    story.give(Input::Listening { port: 2 });
    story.pass(SETTLED);
    story.fail(FailureKind::Lost);
    assert!(story.tunnel.retry_at().unwrap() - story.now <= Duration::from_secs(5));
}

#[test]
fn a_tunnel_that_flaps_waits_longer_and_longer() {
    let mut story = Story::new();
    let mut bounds = Vec::new();
    for _ in 0..12 {
        story.come_up();
        story.pass(Duration::from_secs(1));
        story.fail(FailureKind::Lost);
        bounds.push(story.tunnel.retry_at().unwrap() - story.now);
    }
    assert!(bounds.iter().max().unwrap() > &Duration::from_secs(60), "{bounds:?}");
}

#[test]
fn a_wrong_host_key_ends_it_at_once() {
    let mut story = Story::new();
    story.give(Input::Start);
    story.give(Input::Resolved(vec![address(1), address(2)]));
    story.give(Input::Connected);
    assert_eq!(story.fail(FailureKind::HostKey(HostKeyFault::Changed)), [Action::Disconnect]);
    assert_eq!(story.tunnel.state(), State::Closed(Reason::HostKeyMismatch));
    assert_eq!(story.tunnel.poll_timeout(), None);
}

#[test]
fn a_host_key_that_cannot_be_judged_yet_is_tried_again() {
    for fault in [HostKeyFault::Clock, HostKeyFault::File] {
        let mut story = Story::new();
        story.give(Input::Start);
        story.give(Input::Resolved(vec![address(1)]));
        story.give(Input::Connected);
        story.fail(FailureKind::HostKey(fault));
        assert_eq!(story.tunnel.state(), State::Backoff);
    }
}

#[test]
fn a_refused_key_is_tried_for_two_minutes() {
    let mut story = Story::new();
    story.give(Input::Start);
    let mut first = None;
    let mut tries = 0;
    while story.tunnel.state().reason().is_none() {
        story.give(Input::Resolved(vec![address(1)]));
        story.give(Input::Connected);
        story.give(Input::Verified);
        first.get_or_insert(story.now);
        tries += 1;
        story.fail(FailureKind::Auth);
        if story.tunnel.state() == State::Backoff {
            story.wait();
        }
    }
    assert_eq!(story.tunnel.state(), State::Closed(Reason::AuthDenied));
    assert_eq!(story.now - first.unwrap(), PATIENCE);
    assert!(tries > 3, "{tries} tries");
}

#[test]
fn a_refused_port_is_asked_for_again_on_the_same_connection_for_two_minutes() {
    let mut story = Story::forwarding();
    let began = story.now;
    assert_eq!(story.fail(FailureKind::Forward), [Action::Listen(1)], "the other one isn't held up");
    assert_eq!(story.give(Input::Listening { port: 40000 }), []);
    assert_eq!(story.tunnel.ports(), [None, Some(40000)]);
    for _ in 0..23 {
        assert_eq!(story.tunnel.state(), State::Forwarding, "one of two isn't up");
        assert_eq!(story.tunnel.retry_at(), Some(story.now + FORWARD_RETRY));
        assert_eq!(story.wait(), [Action::Listen(0)]);
        assert_eq!(story.fail(FailureKind::Forward), []);
    }
    assert_eq!(story.wait(), [Action::Listen(0)]);
    assert_eq!(story.fail(FailureKind::Forward), [Action::Disconnect]);
    assert_eq!(story.tunnel.state(), State::Closed(Reason::ForwardRefused));
    assert_eq!(story.now - began, PATIENCE);
}

#[test]
fn it_is_up_when_the_last_of_the_refused_forwards_is_open() {
    let mut story = Story::forwarding();
    assert_eq!(story.fail(FailureKind::Forward), [Action::Listen(1)]);
    assert_eq!(story.fail(FailureKind::Forward), [], "both are refused");
    assert_eq!(story.wait(), [Action::Listen(0)]);
    assert_eq!(story.give(Input::Listening { port: 1111 }), [Action::Listen(1)]);
    assert_eq!(story.fail(FailureKind::Forward), []);
    assert!(story.tunnel.last_error().is_some());
    assert_eq!(story.wait(), [Action::Listen(1)], "only what is missing is asked for");
    assert_eq!(story.give(Input::Listening { port: 40000 }), []);
    assert_eq!((story.tunnel.state(), story.tunnel.ports()), (State::Up, &[Some(1111), Some(40000)][..]));
    assert_eq!(story.tunnel.last_error(), None);
}

#[test]
fn patience_is_not_used_up_by_an_outage_in_between() {
    let mut story = Story::new();
    story.give(Input::Start);
    story.give(Input::Resolved(vec![address(1)]));
    story.give(Input::Connected);
    story.give(Input::Verified);
    story.fail(FailureKind::Auth);
    story.wait();
    story.fail(FailureKind::Dns);
    story.pass(PATIENCE * 2);
    story.wait();
    story.give(Input::Resolved(vec![address(1)]));
    story.give(Input::Connected);
    story.give(Input::Verified);
    story.fail(FailureKind::Auth);
    assert_eq!(story.tunnel.state(), State::Backoff);
}

#[test]
fn asking_again_moves_the_end_and_wakes_a_waiting_tunnel_but_leaves_a_running_one_alone() {
    let mut story = Story::up();
    let expires = Some(story.now + Duration::from_secs(3600));
    assert_eq!(story.give(Input::Again { expires }), []);
    assert_eq!((story.tunnel.state(), story.tunnel.plan().expires), (State::Up, expires));

    story.fail(FailureKind::Lost);
    assert_eq!(story.give(Input::Again { expires }), [Action::Resolve]);

    story.give(Input::Resolved(vec![address(1)]));
    story.give(Input::Connected);
    story.give(Input::Verified);
    story.give(Input::Authenticated);
    story.fail(FailureKind::Forward);
    story.give(Input::Listening { port: 40000 });
    assert_eq!(story.give(Input::Again { expires }), [Action::Listen(0)]);
}

#[test]
fn it_ends_in_time_in_every_state_and_says_so_ten_minutes_before() {
    let mut story = Story::with(Some(Duration::from_secs(3600)), Duration::ZERO);
    let began = story.now;
    story.come_up();
    assert_eq!(story.wait(), [Action::Announce]);
    assert_eq!(story.now - began, Duration::from_secs(3000));
    assert_eq!(story.wait(), [Action::Disconnect]);
    assert_eq!(story.now - began, Duration::from_secs(3600));
    assert_eq!(story.tunnel.state(), State::Closed(Reason::Expired));

    let mut story = Story::with(Some(Duration::from_secs(30)), Duration::ZERO);
    story.give(Input::Start);
    while story.tunnel.state().reason().is_none() {
        story.wait();
    }
    assert_eq!(story.tunnel.state(), State::Closed(Reason::Expired));
}

#[test]
fn an_unused_tunnel_ends_after_its_idle_timeout() {
    let idle = Duration::from_secs(600);
    let mut story = Story::with(None, idle);
    story.come_up();
    story.give(Input::Connections(1));
    assert_eq!(story.tunnel.poll_timeout(), None);
    story.pass(Duration::from_secs(10_000));
    story.give(Input::Connections(0));
    let unused = story.now;
    story.wait();
    assert_eq!((story.now - unused, story.tunnel.state()), (idle, State::Closed(Reason::Idle)));
}

#[test]
fn closing_works_in_every_state_and_the_first_reason_stays() {
    for steps in 0..7 {
        let mut story = Story::new();
        let inputs = [
            Input::Start,
            Input::Resolved(vec![address(1)]),
            Input::Connected,
            Input::Verified,
            Input::Authenticated,
            Input::Listening { port: 1 },
            Input::Listening { port: 2 },
        ];
        for input in inputs.into_iter().take(steps) {
            story.give(input);
        }
        assert_eq!(story.give(Input::Close(Reason::Ocpp)), [Action::Disconnect], "after {steps} steps");
        assert_eq!(story.give(Input::Close(Reason::User)), []);
        assert_eq!(story.fail(FailureKind::Lost), []);
        assert_eq!(story.tunnel.state(), State::Closed(Reason::Ocpp));
    }
}

#[test]
fn a_late_answer_to_a_step_that_was_given_up_changes_nothing() {
    let mut story = Story::up();
    story.fail(FailureKind::Lost);
    for late in [Input::Connected, Input::Verified, Input::Authenticated, Input::Listening { port: 9 }] {
        assert_eq!(story.give(late), []);
        assert_eq!(story.tunnel.state(), State::Backoff);
    }
    assert_eq!(story.tunnel.ports(), [None, None]);
}

#[test]
fn random_inputs_never_confuse_it() {
    let mut rng = fastrand::Rng::with_seed(1);
    for seed in 0..300 {
        let mut story = Story::with(Some(Duration::from_secs(7200)), Duration::from_secs(900));
        story.tunnel.rng = fastrand::Rng::with_seed(seed);
        story.give(Input::Start);
        for _ in 0..200 {
            let kinds = [
                FailureKind::Dns,
                FailureKind::Tcp,
                FailureKind::Handshake,
                FailureKind::Auth,
                FailureKind::Forward,
                FailureKind::Lost,
            ];
            let input = match rng.u8(0..13) {
                0 => Input::Resolved((0..rng.u8(0..4)).map(address).collect()),
                1 => Input::Connected,
                2 => Input::Verified,
                3 => Input::Authenticated,
                4 | 5 => Input::Listening { port: rng.u16(1..) },
                6 => Input::Failed(Failure::new(kinds[rng.usize(0..kinds.len())], "it failed")),
                7 => Input::Connections(rng.usize(0..3)),
                9 => Input::Network,
                8 => Input::Again { expires: Some(story.now + Duration::from_secs(rng.u64(1..7200))) },
                _ => Input::Timeout,
            };
            if rng.bool()
                && let Some(at) = story.tunnel.poll_timeout()
            {
                story.now = at.max(story.now);
            }
            story.give(input);
            let open = story.tunnel.ports().iter().flatten().count();
            match story.tunnel.state() {
                State::Up => assert_eq!(open, 2),
                State::Forwarding => assert!(open < 2),
                _ => assert_eq!(open, 0),
            }
            let live = !matches!(story.tunnel.state(), State::Closed(_));
            assert_eq!(story.tunnel.poll_timeout().is_some(), live, "{:?}", story.tunnel);
        }
    }
}
