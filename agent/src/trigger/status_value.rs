//! The value of a slot's `…Status` key: one line on how its tunnel is.

use std::fmt::Write;

use crate::limits::OCPP_VALUE_CHARACTERS;
use crate::supervisor::View;
use crate::{clock, journal};

/// `STATE reason=… server=… remote=… since=… expires=… error="…" refused="…" key="…"`, at most 500 characters. The note is about the device's key.
pub(super) fn status_value(view: &View, key_note: Option<&str>) -> String {
    let mut text = String::new();
    let mut add = |name: &str, value: &str| {
        // Writing to a string doesn't fail.
        let _ = write!(text, " {name}={}", journal::value(value));
    };
    let Some(status) = &view.status else {
        add_refusal(&mut add, view, key_note);
        return cut(format!("idle{text}"));
    };
    if let Some(reason) = status.state.reason() {
        add("reason", reason.word());
    }
    add("server", &status.destination.to_string());
    for forward in &status.forwards {
        add("remote", &forward.remote.to_string());
    }
    add("since", &clock::rfc3339(clock::wall(status.since)));
    if let Some(expires) = status.expires.filter(|_| view.wanted.is_some()) {
        add("expires", &clock::rfc3339(clock::wall(expires)));
    }
    if let Some(key) = status.host_key.as_ref().filter(|key| key.learned) {
        add("learned", &key.fingerprint);
    }
    if let Some(error) = &status.last_error {
        add("error", &error.text);
    }
    add_refusal(&mut add, view, key_note);
    cut(format!("{}{text}", status.state))
}

fn add_refusal(add: &mut impl FnMut(&str, &str), view: &View, key_note: Option<&str>) {
    if let Some(refusal) = &view.refusal {
        add("refused", refusal);
    }
    if let Some(note) = key_note {
        add("key", note);
    }
}

/// All of it is ASCII, so a cut splits no character.
fn cut(mut text: String) -> String {
    if text.len() > OCPP_VALUE_CHARACTERS {
        text.truncate(OCPP_VALUE_CHARACTERS - 3);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use reverse_tunnel::{Failure, FailureKind, Forward, Reason, State, Status};

    use super::*;
    use crate::supervisor::TunnelId;

    fn view(state: State) -> View {
        let forwards: Vec<Forward> = vec!["1111:127.0.0.1:22".parse().unwrap()];
        View {
            id: TunnelId::Slot(1),
            key: Some("InvokeCustomScript1".into()),
            wanted: Some("ops@gw:2222".parse().unwrap()),
            status: Some(Status {
                state,
                since: Instant::now(),
                destination: "ops@gw:2222".parse().unwrap(),
                forwards: forwards.clone(),
                listening: vec![true],
                expires: Some(Instant::now() + Duration::from_secs(60)),
                retry_at: None,
                last_error: None,
                host_key: None,
                peer: None,
            }),
            forwards,
            traffic: None,
            refusal: None,
        }
    }

    #[test]
    fn the_status_begins_with_the_state() {
        let text = status_value(&view(State::Up), None);
        assert!(text.starts_with("up server=ops@gw:2222 remote=localhost:1111 since=20"), "{text}");
        assert!(text.contains("Z expires=20") && !text.contains("error"), "{text}");

        let mut closed = view(State::Closed(Reason::HostKeyMismatch));
        closed.wanted = None;
        let text = status_value(&closed, None);
        assert!(text.starts_with("closed reason=host-key-mismatch server="), "{text}");
        assert!(!text.contains("expires"), "{text}");

        let idle = View { status: None, wanted: None, refusal: Some("no '@'".into()), ..view(State::Idle) };
        assert_eq!(status_value(&idle, None), "idle refused=\"no '@'\"");
    }

    #[test]
    fn the_status_fits_into_a_configuration_value() {
        let mut long = view(State::Backoff);
        if let Some(status) = &mut long.status {
            status.last_error = Some(Failure::new(FailureKind::Lost, "\u{e9}".repeat(600)));
        }
        let text = status_value(&long, Some("no room"));
        assert_eq!(text.chars().count(), 500);
        assert!(text.ends_with("..."), "{text}");
    }
}
