//! What the fuzz targets in `fuzz/` call, one function a target: any bytes in, and what must hold for all of them.
//! Built for tests, which play the inputs in `fuzz/corpus/`, and with `--cfg fuzzing`; never for the product.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use crate::bridge::{Filter, Pass};
use crate::frame::{Frame, ParseError};
use crate::limits::{MAX_DESCRIPTION_CHARS, MAX_ID_CHARS, MAX_MESSAGE_BYTES};
use crate::{
    Access, BootInfo, Call, CallId, ChargePoint, ConfigurationStatus, DataTransferStatus, Event,
    LinkSecurity, Registry, Settings, Url, Vendor,
};

/// So many texts are handed to a charge point: more show nothing new, and a fuzzer would only make them longer.
const TEXTS: usize = 64;

/// A frame is bounded, and what is written of it is read as the same.
pub fn frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let frame = match Frame::parse(text) {
        Ok(frame) => frame,
        Err(ParseError::Unreadable(_)) => return,
        Err(ParseError::Call { id, .. } | ParseError::Answer { id, .. }) => {
            assert!(id.as_str().chars().count() <= MAX_ID_CHARS);
            return;
        }
    };
    let written = frame.encode();
    let read = Frame::parse(&written);
    match (&frame, &read) {
        (
            Frame::Call { id, action, payload },
            Ok(Frame::Call { id: read_id, action: read_action, payload: read_payload }),
        ) => {
            assert_eq!((id, action, payload.get()), (read_id, read_action, read_payload.get()));
            assert!(id.as_str().chars().count() <= MAX_ID_CHARS);
        }
        (Frame::CallResult { id, payload }, Ok(Frame::CallResult { id: read_id, payload: read_payload })) => {
            assert_eq!((id, payload.get()), (read_id, read_payload.get()));
        }
        (
            Frame::CallError { id, code, description },
            Ok(Frame::CallError { id: read_id, code: read_code, description: read_description }),
        ) => {
            assert_eq!((id, code, description), (read_id, read_code, read_description));
            assert!(description.chars().count() <= MAX_DESCRIPTION_CHARS);
        }
        _ => assert!(read.is_ok(), "{written}"),
    }
}

/// Whatever a CSMS says, a charge point sends frames of a bounded size, none of its own ids twice in a connection, and
/// each CALL of the embedder's has one outcome.
///
/// Each line is a text from the CSMS, in which `$ID` stands for the id of the charge point's last CALL. The line `wait`
/// lets time pass until something is due, `reconnect` begins a new connection, `call` is a CALL of the embedder's.
pub fn charge_point(bytes: &[u8]) {
    let Ok(script) = std::str::from_utf8(bytes) else { return };
    let mut registry = Registry::new(2);
    assert!(registry.register("Mine", Access::ReadWrite).is_ok());
    let boot = BootInfo {
        vendor: "ACME".to_owned(),
        model: "Box".to_owned(),
        serial_number: None,
        firmware_version: None,
    };
    let mut settings = Settings::new(boot);
    settings.uploads = true;
    settings.vendors = vec![Vendor { id: "com.example".to_owned(), messages: vec![String::new()] }];
    let mut peer = Peer {
        charge_point: ChargePoint::new(settings, registry, fastrand::Rng::with_seed(1)),
        own_ids: HashSet::new(),
        last_id: String::new(),
        waiting: HashSet::new(),
        calls: 0,
    };
    let mut now = Instant::now();
    peer.charge_point.handle_connected(now, LinkSecurity::default());
    peer.take_all();
    for line in script.lines().take(TEXTS) {
        match line {
            "wait" => {
                now = peer.charge_point.poll_timeout().unwrap_or(now).max(now);
                peer.charge_point.handle_timeout(now);
            }
            "reconnect" => peer.reconnect(now),
            "call" => peer.call(now),
            text => peer.charge_point.handle_text(now, &text.replace("$ID", &peer.last_id)),
        }
        peer.take_all();
        if peer.charge_point.is_resetting() {
            peer.reconnect(now);
        }
        now += Duration::from_millis(10);
    }
    peer.charge_point.handle_disconnected(now);
    peer.take_all();
    assert!(peer.waiting.is_empty(), "no outcome: {:?}", peer.waiting);
}

/// A charge point and what it has said in this connection.
struct Peer {
    charge_point: ChargePoint,
    own_ids: HashSet<String>,
    last_id: String,
    /// The embedder's CALLs without an outcome.
    waiting: HashSet<CallId>,
    calls: u64,
}

impl Peer {
    fn reconnect(&mut self, now: Instant) {
        self.charge_point.handle_disconnected(now);
        self.take_all();
        self.own_ids.clear();
        self.charge_point.handle_connected(now, LinkSecurity::default());
    }

    fn call(&mut self, now: Instant) {
        let Ok(payload) = RawValue::from_string(r#"{"vendorId":"com.example"}"#.to_owned()) else { return };
        self.calls += 1;
        let id = CallId(self.calls);
        if self.charge_point.call(now, Call { id, action: "DataTransfer", payload }).is_ok() {
            self.waiting.insert(id);
        }
    }

    /// Takes what waits, and answers as an embedder that allows everything.
    fn take_all(&mut self) {
        while let Some(event) = self.charge_point.poll_event() {
            match event {
                Event::ChangeConfiguration { request, key, value, .. } => {
                    self.charge_point.answer_change(request, ConfigurationStatus::Accepted);
                    self.charge_point.set_value(&key, Some(value));
                }
                Event::DataTransfer { request, data, .. } => {
                    self.charge_point.answer_transfer(request, DataTransferStatus::Accepted, data);
                }
                Event::Called { id, .. } => assert!(self.waiting.remove(&id), "an outcome too many: {id:?}"),
                _ => {}
            }
        }
        while let Some(text) = self.charge_point.poll_transmit() {
            assert!(text.len() <= MAX_MESSAGE_BYTES, "{} bytes", text.len());
            let frame = Frame::parse(&text);
            assert!(frame.is_ok(), "{text}: {frame:?}");
            if let Ok(Frame::Call { id, .. }) = frame {
                self.last_id = id.as_str().to_owned();
                assert!(self.own_ids.insert(self.last_id.clone()), "used twice: {id:?}");
            }
        }
    }
}

/// Whatever a controller asks for, the bridge's door reads it within bounds.
pub fn request(bytes: &[u8]) {
    crate::bridge::hold_request(bytes);
}

/// Whatever the two sides say, the bridge's filter changes nothing but what is ours, keeps what it makes of a JSON text
/// a JSON text, and gives each CALL of the embedder's one outcome.
///
/// Each line that begins with `>` is a text of the controller, one with `<` a text of the CSMS; `$ID` in it stands for the id of
/// the filter's last CALL. The line `wait` lets time pass until something is due, `reconnect` begins a new connection, `call` is
/// a CALL of the embedder's.
pub fn filter(bytes: &[u8]) {
    let Ok(script) = std::str::from_utf8(bytes) else { return };
    let mut filter = Filter::new(fastrand::Rng::with_seed(1));
    assert!(filter.register("Mine", Access::ReadWrite).is_ok());
    let (mut now, mut last_id, mut made, mut ended) = (Instant::now(), String::new(), 0, 0);
    filter.begin(now, LinkSecurity::default());
    for line in script.lines().take(TEXTS) {
        let text = line.get(1..).unwrap_or_default().replace("$ID", &last_id);
        let pass = match line.as_bytes().first() {
            Some(b'>') if filter.wants_controller() => filter.from_controller(now, &text),
            Some(b'<') if filter.wants_csms() => filter.from_csms(now, &text),
            _ => Pass::Nothing,
        };
        if let Pass::Changed(changed) = pass {
            let is_json = |text: &str| serde_json::from_str::<&RawValue>(text).is_ok();
            assert!(!is_json(&text) || is_json(&changed), "{text} became {changed}");
        }
        match line {
            "wait" => {
                now = filter.poll_timeout().unwrap_or(now).max(now);
                filter.handle_timeout(now);
            }
            "reconnect" => filter.begin(now, LinkSecurity::default()),
            "call" => {
                if let Ok(payload) = RawValue::from_string("{}".to_owned()) {
                    let call = Call { id: CallId(made), action: "DataTransfer", payload };
                    made += u64::from(filter.call(now, call).is_ok());
                }
            }
            _ => {}
        }
        while let Some(event) = filter.poll_event() {
            match event {
                Event::ChangeConfiguration { request, key, value, .. } => {
                    filter.answer_change(request, ConfigurationStatus::Accepted);
                    filter.set_value(&key, Some(value));
                }
                Event::Called { .. } => ended += 1,
                _ => {}
            }
        }
        while let Some(text) = filter.poll_upstream() {
            if let Ok(Frame::Call { id, .. }) = Frame::parse(&text) {
                id.as_str().clone_into(&mut last_id);
            }
        }
        now += Duration::from_millis(10);
    }
    filter.end();
    while let Some(event) = filter.poll_event() {
        ended += u64::from(matches!(event, Event::Called { .. }));
    }
    assert_eq!(made, ended);
}

/// A URL is what it is written as, and the identity behind it can't change where it leads: the first line is the URL, the
/// second the identity.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, identity) = text.split_once('\n').unwrap_or((text, "CP001"));
    let Ok(url) = Url::parse(text) else { return };
    assert_eq!(Url::parse(&url.to_string()).as_ref(), Ok(&url));
    let full = url.with_identity(identity);
    assert!(full.bytes().all(|byte| byte.is_ascii_graphic()), "{full}");
    // The full URL may be longer than what is taken from a configuration.
    if let Ok(read) = Url::parse(&full) {
        assert_eq!((read.is_tls(), read.host(), read.port()), (url.is_tls(), url.host(), url.port()));
    }
}

#[cfg(test)]
mod tests {
    use ocpp_tunnel_corpus::play;

    #[test]
    fn frames_hold_for_every_input_in_the_corpus() {
        play("frame", super::frame);
    }

    #[test]
    fn charge_points_hold_for_every_input_in_the_corpus() {
        play("charge_point", super::charge_point);
    }

    #[test]
    fn requests_hold_for_every_input_in_the_corpus() {
        play("request", super::request);
    }

    #[test]
    fn filters_hold_for_every_input_in_the_corpus() {
        play("filter", super::filter);
    }

    #[test]
    fn urls_hold_for_every_input_in_the_corpus() {
        play("url", super::url);
    }
}
