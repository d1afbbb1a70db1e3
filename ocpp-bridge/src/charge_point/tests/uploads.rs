use super::*;
use crate::upload::{LogKind, UploadAnswer, UploadRequest, UploadSubject};

fn get_log(location: &str) -> Value {
    json!([2, "9", "GetLog", {"logType": "SecurityLog", "requestId": 42, "log": {"remoteLocation": location}}])
}

impl World {
    /// The upload that the embedder was asked for.
    fn asked_for_upload(&mut self) -> (RequestId, UploadRequest) {
        match self.events().as_slice() {
            [Event::Upload { request, wanted, security: SECURE }] => (*request, wanted.clone()),
            events => panic!("{events:?}"),
        }
    }

    fn upload_answer(&mut self, message: &Value, answer: UploadAnswer) -> Value {
        self.receive(message);
        let (request, wanted) = self.asked_for_upload();
        assert!(self.sent().is_empty(), "the embedder decides");
        self.charge_point.answer_upload(request, wanted.subject, answer);
        self.sent_one()[2].clone()
    }

    fn error(&mut self, action: &str, payload: &Value) -> String {
        self.receive(&json!([2, "9", action, payload]));
        let sent = self.sent_one();
        assert_eq!(sent[0], 4, "{payload}: {sent}");
        assert!(self.events().is_empty(), "{payload}");
        sent[2].as_str().unwrap().to_owned()
    }
}

#[test]
fn who_has_no_logs_is_not_asked_for_them() {
    let mut world = World::with(|settings| settings.uploads = false);
    world.connect();
    world.sent();
    for _ in 0..20 {
        world.receive(&get_log("https://h/"));
        assert_eq!(world.sent_one()[2], "NotSupported");
        world.receive(&json!([2, "9", "GetDiagnostics", {"location": "https://h/"}]));
        assert_eq!(world.sent_one()[2], "NotSupported");
    }
    assert!(!world.events().iter().any(|event| matches!(event, Event::Upload { .. })));
}

#[test]
fn every_field_of_get_log_reaches_the_embedder() {
    let mut world = World::accepted();
    world.receive(&json!([2, "9", "GetLog", {
        "logType": "DiagnosticsLog", "requestId": -3, "retries": 4, "retryInterval": 90,
        "log": {
            "remoteLocation": "https://h/x?sig=1",
            "oldestTimestamp": "2026-11-21T10:00:00Z",
            "latestTimestamp": "2026-11-21T12:00:00.500+01:00",
        },
    }]));
    let (_, wanted) = world.asked_for_upload();
    assert_eq!(wanted.subject, UploadSubject::Log { kind: LogKind::Diagnostics, request_id: -3 });
    assert_eq!(wanted.location, "https://h/x?sig=1");
    assert_eq!((wanted.retries, wanted.retry_interval), (Some(4), Some(Duration::from_secs(90))));
    assert_eq!(wanted.oldest.unwrap().to_rfc3339(), "2026-11-21T10:00:00+00:00");
    assert_eq!(wanted.latest.unwrap().to_rfc3339(), "2026-11-21T11:00:00.500+00:00");
}

#[test]
fn every_field_of_get_diagnostics_reaches_the_embedder() {
    let mut world = World::accepted();
    world.receive(&json!([2, "9", "GetDiagnostics", {
        "location": "ftp://h/x", "retries": 0, "retryInterval": 99999999999u64,
        "startTime": "2026-11-21T10:00:00Z", "stopTime": null,
    }]));
    let (_, wanted) = world.asked_for_upload();
    assert_eq!((wanted.subject, wanted.location.as_str()), (UploadSubject::Diagnostics, "ftp://h/x"));
    assert_eq!((wanted.retries, wanted.latest), (Some(0), None));
    assert_eq!(wanted.retry_interval, Some(Duration::from_secs(u64::from(u32::MAX))));
    assert!(wanted.oldest.is_some());
}

#[test]
fn answers_are_written_as_their_schemas_want() {
    let mut world = World::accepted();
    let log = get_log("https://h/");
    let diagnostics = json!([2, "9", "GetDiagnostics", {"location": "https://h/"}]);
    let accepted = || UploadAnswer::Accepted { file_name: "f.txt".to_owned() };
    let canceled = || UploadAnswer::AcceptedCanceled { file_name: "f.txt".to_owned() };
    for (message, answer, expected) in [
        (&log, accepted(), json!({"status": "Accepted", "filename": "f.txt"})),
        (&log, canceled(), json!({"status": "AcceptedCanceled", "filename": "f.txt"})),
        (&log, UploadAnswer::Rejected, json!({"status": "Rejected"})),
        (&diagnostics, accepted(), json!({"fileName": "f.txt"})),
        (&diagnostics, canceled(), json!({"fileName": "f.txt"})),
        (&diagnostics, UploadAnswer::Rejected, json!({})),
    ] {
        assert_eq!(world.upload_answer(message, answer), expected);
    }
    let long = UploadAnswer::Accepted { file_name: "n".repeat(300) };
    assert_eq!(world.upload_answer(&log, long)["filename"].as_str().unwrap().len(), 255);
}

#[test]
fn what_is_wrong_with_a_request_has_the_exact_code() {
    let mut world = World::accepted();
    let with = |changes: &Value| {
        let mut payload =
            json!({"logType": "SecurityLog", "requestId": 1, "log": {"remoteLocation": "https://h"}});
        for (name, value) in changes.as_object().unwrap() {
            payload[name] = value.clone();
        }
        payload
    };
    for (payload, code) in [
        (json!({}), "OccurenceConstraintViolation"),
        (with(&json!({"logType": null})), "OccurenceConstraintViolation"),
        (with(&json!({"requestId": null})), "OccurenceConstraintViolation"),
        (with(&json!({"log": null})), "OccurenceConstraintViolation"),
        (with(&json!({"log": {}})), "OccurenceConstraintViolation"),
        (with(&json!({"logType": "Logs"})), "PropertyConstraintViolation"),
        (with(&json!({"logType": 1})), "TypeConstraintViolation"),
        (with(&json!({"requestId": "1"})), "TypeConstraintViolation"),
        (with(&json!({"requestId": 1.5})), "TypeConstraintViolation"),
        (with(&json!({"retries": "1"})), "TypeConstraintViolation"),
        (with(&json!({"retries": -1})), "PropertyConstraintViolation"),
        (with(&json!({"retryInterval": -1})), "PropertyConstraintViolation"),
        (with(&json!({"log": "https://h"})), "TypeConstraintViolation"),
        (with(&json!({"log": {"remoteLocation": 1}})), "TypeConstraintViolation"),
        (with(&json!({"log": {"remoteLocation": "x".repeat(513)}})), "PropertyConstraintViolation"),
        (
            with(&json!({"log": {"remoteLocation": "x", "oldestTimestamp": "yesterday"}})),
            "PropertyConstraintViolation",
        ),
        (with(&json!({"log": {"remoteLocation": "x", "latestTimestamp": 5}})), "TypeConstraintViolation"),
        (json!([]), "FormationViolation"),
    ] {
        assert_eq!(world.error("GetLog", &payload), code, "{payload}");
    }
    for (payload, code) in [
        (json!({}), "OccurenceConstraintViolation"),
        (json!({"location": ["x"]}), "TypeConstraintViolation"),
        (json!({"location": "x".repeat(2001)}), "PropertyConstraintViolation"),
        (json!({"location": "x", "startTime": "1"}), "PropertyConstraintViolation"),
    ] {
        assert_eq!(world.error("GetDiagnostics", &payload), code, "{payload}");
    }
    // 512 characters are allowed.
    world.receive(&get_log(&"x".repeat(512)));
    assert_eq!(world.asked_for_upload().1.location.len(), 512);
}

#[test]
fn an_answer_after_a_reconnect_is_dropped() {
    let mut world = World::accepted();
    world.receive(&get_log("https://h/"));
    let (request, wanted) = world.asked_for_upload();
    world.disconnect();
    world.connect();
    world.charge_point.answer_upload(request, wanted.subject, UploadAnswer::Rejected);
    assert!(world.sent().is_empty());
}
