//! How long each side takes to answer the other's CALLs.

use std::time::{Duration, Instant};

use super::relay::Side;
use crate::{
    frame::{Frame, MessageId, ParseError},
    limits::MAX_TIMED_CALLS,
};

/// The CALLs that wait for their answers, and how long the last answer took.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    /// What the controller has to answer.
    controller: Answers,
    /// What the CSMS has to answer.
    csms: Answers,
}

#[derive(Debug, Default)]
struct Answers {
    awaited: heapless::Vec<(MessageId, Instant), MAX_TIMED_CALLS>,
    last: Option<Duration>,
}

// === impl RoundTrips ===

impl RoundTrips {
    /// A connection has begun.
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// Looks at a text that nobody else reads.
    pub(super) fn passed(&mut self, from: Side, now: Instant, text: &str) {
        match Frame::parse(text) {
            Ok(Frame::Call { id, .. }) | Err(ParseError::Call { id, .. }) => self.called(from, now, &id),
            Ok(Frame::CallResult { id, .. } | Frame::CallError { id, .. })
            | Err(ParseError::Answer { id, .. }) => self.answered(from, now, &id),
            Err(ParseError::Unreadable(_)) => {}
        }
    }

    /// This side has made a CALL.
    pub(super) fn called(&mut self, by: Side, now: Instant, id: &MessageId) {
        let awaited = &mut self.of(by.other()).awaited;
        if awaited.is_full() {
            // The oldest is the least likely to get its answer.
            awaited.remove(0);
        }
        let _ = awaited.push((id.clone(), now));
    }

    /// This side has answered one.
    pub(super) fn answered(&mut self, by: Side, now: Instant, id: &MessageId) {
        let answers = self.of(by);
        if let Some(index) = answers.awaited.iter().position(|(awaited, _)| awaited == id) {
            let (_, called) = answers.awaited.remove(index);
            answers.last = Some(now.saturating_duration_since(called));
        }
    }

    /// How long this side took for its last answer.
    pub(super) fn last(&self, of: Side) -> Option<Duration> {
        match of {
            Side::Controller => self.controller.last,
            Side::Csms => self.csms.last,
        }
    }

    fn of(&mut self, side: Side) -> &mut Answers {
        match side {
            Side::Controller => &mut self.controller,
            Side::Csms => &mut self.csms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_measures_each_sides_answers_by_their_ids() {
        let (mut times, now) = (RoundTrips::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        times.passed(Side::Controller, at(0), r#"[2,"1","Heartbeat",{}]"#);
        times.passed(Side::Csms, at(1), r#"[2,"1","Reset",{}]"#);
        times.passed(Side::Csms, at(2), r#"[3,"1",{}]"#);
        assert_eq!(times.last(Side::Csms), Some(Duration::from_secs(2)));
        assert_eq!(times.last(Side::Controller), None);
        times.passed(Side::Controller, at(4), r#"[4,"1","GenericError","",{}]"#);
        assert_eq!(times.last(Side::Controller), Some(Duration::from_secs(3)));
        times.passed(Side::Controller, at(5), r#"[3,"1",{}]"#);
        times.passed(Side::Controller, at(5), "no JSON");
        assert_eq!(times.last(Side::Controller), Some(Duration::from_secs(3)), "each is answered once");
    }

    #[test]
    fn more_calls_than_it_times_do_no_harm() {
        let (mut times, now) = (RoundTrips::default(), Instant::now());
        for number in 0..10 * MAX_TIMED_CALLS {
            times.passed(Side::Csms, now, &format!(r#"[2,"{number}","Reset",{{}}]"#));
        }
        times.passed(Side::Controller, now, r#"[3,"0",{}]"#);
        assert_eq!(times.last(Side::Controller), None);
    }
}
