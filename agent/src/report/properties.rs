//! Whatever happens, in whatever order: nothing is told out of order or forgotten, and in the end the CSMS knows how the
//! tunnels are.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use reverse_tunnel::{Reason, State};

use super::tests::{accepted, error, result, view};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Happened,
    Tunnel {
        number: u8,
        state: u8,
    },
    Connect,
    Disconnect,
    /// The next call, if there is one, is answered in this way, or the connection goes with it.
    Serve(Answer),
    /// So many seconds.
    Wait(u16),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Accepted,
    Refused,
    Failed,
    Unanswered,
    Lost,
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        6 => Just(Answer::Accepted),
        1 => Just(Answer::Refused),
        1 => Just(Answer::Failed),
        1 => Just(Answer::Unanswered),
        1 => Just(Answer::Lost),
    ];
    prop_oneof![
        4 => Just(Step::Happened),
        3 => (1..4_u8, 0..4_u8).prop_map(|(number, state)| Step::Tunnel { number, state }),
        1 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        8 => answer.prop_map(Step::Serve),
        3 => (0..200_u16).prop_map(Step::Wait),
    ]
}

struct World {
    reports: Reports,
    now: Instant,
    views: BTreeMap<u8, View>,
    /// The number of the last event.
    happened: u64,
    /// What the CSMS has answered, and been told to be dropped.
    events_told: Vec<u64>,
    dropped_told: u64,
    /// What it has last heard of each tunnel.
    states_told: BTreeMap<u64, String>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            reports: Reports::new(0, now),
            now,
            views: BTreeMap::new(),
            happened: 0,
            events_told: Vec::new(),
            dropped_told: 0,
            states_told: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Happened => {
                self.happened += 1;
                self.reports.new_key(&format!("SHA256:{}", self.happened), self.now);
            }
            Step::Tunnel { number, state } => {
                let states = [State::Connecting, State::Up, State::Backoff, State::Closed(Reason::User)];
                self.views.insert(number, view(number, states[usize::from(state)], self.now, None));
                let views: Vec<View> = self.views.values().cloned().collect();
                self.reports.observe(&views, self.now);
            }
            Step::Connect => {
                self.now += Duration::from_millis(1);
                self.reports.link(Some(self.now));
            }
            Step::Disconnect => self.reports.link(None),
            Step::Serve(answer) => self.serve(answer),
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds.into()),
        }
    }

    fn serve(&mut self, answer: Answer) {
        let online = self.reports.link.is_some();
        let Some(call) = self.reports.poll_call(self.now, |_| SystemTime::UNIX_EPOCH) else { return };
        assert!(online, "nothing is sent without a link");
        assert!(self.reports.poll_call(self.now, |_| SystemTime::UNIX_EPOCH).is_none(), "one call at a time");
        let payload: Value = serde_json::from_str(call.payload.get()).unwrap();
        let outcome = match (answer, call.action) {
            (Answer::Accepted, "DataTransfer") => accepted(),
            (Answer::Accepted, _) => result("{}"),
            (Answer::Refused, "DataTransfer") => result(r#"{"status":"UnknownVendorId"}"#),
            // `NotSupported` would end the count below.
            (Answer::Refused | Answer::Failed, _) => error("InternalError"),
            (Answer::Unanswered, _) => Outcome::Unanswered,
            (Answer::Lost, _) => Outcome::Lost,
        };
        if matches!(answer, Answer::Lost) {
            self.reports.link(None);
        }
        self.reports.called(call.id, &outcome, self.now);
        if matches!(outcome, Outcome::Result(_) | Outcome::Error { .. }) {
            self.told(call.action, &payload);
        }
    }

    fn told(&mut self, action: &str, payload: &Value) {
        if action == "DataTransfer" {
            let data: Value = serde_json::from_str(payload["data"].as_str().unwrap()).unwrap();
            let state = data["state"].as_str().unwrap().to_owned();
            self.states_told.insert(data["slot"].as_u64().unwrap(), state);
            return;
        }
        let text = payload["techInfo"].as_str().unwrap();
        if let Some(count) = text.strip_prefix("count=") {
            self.dropped_told += count.parse::<u64>().unwrap();
        } else if let Some(number) = text.strip_prefix("sshKey=SHA256:") {
            self.events_told.push(number.parse().unwrap());
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_told_out_of_order_or_forgotten(steps in proptest::collection::vec(step(), 0..300)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        // A good connection, for long enough.
        world.take(&Step::Connect);
        for _ in 0..1000 {
            world.take(&Step::Wait(1));
            world.take(&Step::Serve(Answer::Accepted));
        }
        prop_assert_eq!(world.reports.poll_timeout(), None);
        prop_assert_eq!(world.reports.view().waiting, 0);

        prop_assert!(world.events_told.is_sorted_by(|one, next| one < next), "{:?}", world.events_told);
        // The start of the agent is an event as well, and may be among the dropped ones.
        let all = world.events_told.len() as u64 + world.dropped_told;
        prop_assert!(all == world.happened || all == world.happened + 1, "{} of {}", all, world.happened);
        for (number, view) in &world.views {
            let state = view.status.as_ref().unwrap().state;
            let told = world.states_told.get(&u64::from(*number)).map(String::as_str);
            match state {
                // Not said to be up, whatever it was before.
                State::Connecting => prop_assert_ne!(told, Some("up")),
                state => prop_assert_eq!(told, Some(state.word())),
            }
        }
    }
}
