use proptest::prelude::*;

use super::*;

fn call(text: &str) -> (String, String, String) {
    match Frame::parse(text) {
        Ok(Frame::Call { id, action, payload }) => {
            (id.as_str().to_owned(), action.to_string(), payload.get().to_owned())
        }
        other => panic!("{text}: {other:?}"),
    }
}

/// The code that a broken CALL with the id `1` is answered with.
fn code(text: &str) -> ErrorCode {
    match Frame::parse(text) {
        Err(ParseError::Call { id, code, .. }) if id.as_str() == "1" => code,
        other => panic!("{text}: {other:?}"),
    }
}

fn is_ignored(text: &str) -> bool {
    matches!(Frame::parse(text), Err(ParseError::Unreadable(_)))
}

fn owned(id: &str, action: &str, payload: &str) -> (String, String, String) {
    (id.to_owned(), action.to_owned(), payload.to_owned())
}

#[test]
fn call_is_read_with_its_payload_untouched() {
    assert_eq!(call(r#"[2,"1","Reset",{"type":"Soft"}]"#), owned("1", "Reset", r#"{"type":"Soft"}"#));
    assert_eq!(call(" [ 2 , \"1\" , \"Reset\" , null ]\n"), owned("1", "Reset", "null"));
    assert_eq!(call(r#"[2,"\u0031","R\u0065set",{}]"#), owned("1", "Reset", "{}"));
    assert_eq!(call(r#"[2,"","A",{"n":1.50e0}]"#), owned("", "A", r#"{"n":1.50e0}"#));
}

#[test]
fn answers_are_read() {
    let Ok(Frame::CallResult { id, payload }) = Frame::parse(r#"[3,"a",{"x":1},"surplus"]"#) else {
        panic!()
    };
    assert_eq!((id.as_str(), payload.get()), ("a", r#"{"x":1}"#));

    let text = r#"[4,"a","OccurrenceConstraintViolation","no\n",{"x":1}]"#;
    let Ok(Frame::CallError { code, description, .. }) = Frame::parse(text) else { panic!() };
    assert_eq!((code, &*description), (ErrorCode::OccurenceConstraintViolation, "no\n"));
}

#[test]
fn poor_call_errors_are_read() {
    for text in [r#"[4,"a"]"#, r#"[4,"a",7,null,null]"#, r#"[4,"a","Nonsense"]"#] {
        let Ok(Frame::CallError { code, description, .. }) = Frame::parse(text) else { panic!("{text}") };
        assert_eq!((code, &*description), (ErrorCode::GenericError, ""));
    }
}

#[test]
fn broken_call_with_a_readable_id_is_answered() {
    for text in [
        r#"[2,"1"]"#,
        r#"[2,"1","Reset"]"#,
        r#"[2,"1","Reset",{},{}]"#,
        r#"[2,"1","Reset",{},{},{}]"#,
        r#"[2,"1",7,{}]"#,
        r#"[2,"1","Reset",{"type":]"#,
        r#"[2,"1","Reset",{}"#,
        r#"[2,"1","Reset",{}] trailing"#,
        r#"[2,"1","Reset",nope]"#,
        "[2,\"1\",\"Re\nset\",{}]",
    ] {
        assert_eq!(code(text), ErrorCode::FormationViolation, "{text}");
    }
}

#[test]
fn endless_action_is_unknown() {
    assert_eq!(code(&format!(r#"[2,"1","{}",{{}}]"#, "a".repeat(65))), ErrorCode::NotImplemented);
    assert_eq!(code(&format!(r#"[2,"1","{}",{{}}]"#, "a".repeat(100_000))), ErrorCode::NotImplemented);
}

#[test]
fn broken_answer_names_its_call() {
    for text in [r#"[3,"1"]"#, r#"[3,"1",{]"#, r#"[3,"1",{}"#, r#"[4,"1","x""#] {
        assert!(
            matches!(Frame::parse(text), Err(ParseError::Answer { id, .. }) if id.as_str() == "1"),
            "{text}"
        );
    }
}

#[test]
fn unreadable_id_or_type_is_ignored() {
    for text in [
        "",
        "null",
        "{}",
        "[]",
        "[2]",
        "2",
        r#"["2","1","Reset",{}]"#,
        r#"[2.0,"1","Reset",{}]"#,
        r#"[5,"1","Reset",{}]"#,
        r#"[-2,"1","Reset",{}]"#,
        r#"[2,1,"Reset",{}]"#,
        r#"[2,null,"Reset",{}]"#,
        r#"[2,["1"],"Reset",{}]"#,
        r#"[2,"\ud800","Reset",{}]"#,
        r#"[2,"1"#,
        "not json",
    ] {
        assert!(is_ignored(text), "{text}");
    }
}

#[test]
fn id_is_36_characters_however_many_bytes() {
    for character in ["a", "é", "€", "🔌", r"\ud83d\udd0c"] {
        let text = |length| format!(r#"[2,"{}","Reset",{{}}]"#, character.repeat(length));
        assert_eq!(call(&text(36)).0.chars().count(), 36);
        assert!(is_ignored(&text(37)), "{character}");
        assert!(is_ignored(&text(50_000)), "{character}");
    }
}

#[test]
fn deep_payload_does_not_overflow_the_stack() {
    let depth = 100_000;
    let payload = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(call(&format!(r#"[2,"1","Reset",{payload}]"#)).2.len(), 2 * depth);
    assert_eq!(
        code(&format!(r#"[2,"1","Reset",{}"#, "{\"a\":".repeat(depth))),
        ErrorCode::FormationViolation
    );
    assert!(is_ignored(&"[".repeat(depth)));
}

#[test]
fn call_error_is_written_with_an_object_and_a_bounded_description() {
    let id = MessageId::new("a\"b").unwrap();
    let error = |description: &str| {
        let description = Cow::Owned(description.to_owned());
        Frame::CallError { id: id.clone(), code: ErrorCode::OccurenceConstraintViolation, description }
            .encode()
    };
    assert_eq!(error(""), r#"[4,"a\"b","OccurenceConstraintViolation","",{}]"#);
    assert_eq!(error(&"é".repeat(300)).matches('é').count(), 255);
}

proptest! {
    #[test]
    fn anything_is_parsed_without_panic(text in ".*") {
        let _ = Frame::parse(&text);
    }

    #[test]
    fn anything_like_a_frame_is_parsed_without_panic(
        text in r#"\[[2-5],"[a1\\u0"]{0,40}",("[A-Za-z]{0,70}"|[0-9]|null)(,[\[\]{}"a:0,\\]{0,20}){0,3}\]?"#
    ) {
        let _ = Frame::parse(&text);
    }

    #[test]
    fn what_is_written_is_read(id in ".{0,36}", action in "[A-Za-z]{0,64}", text in ".{0,255}", which in 0..10_usize) {
        let id = MessageId::new(&id).unwrap();
        let payload = serde_json::value::to_raw_value(&[&text]).unwrap();

        let action = Action::try_from(action.as_str()).unwrap();
        let sent = Frame::Call { id: id.clone(), action: action.clone(), payload: &payload }.encode();
        prop_assert_eq!(call(&sent), owned(id.as_str(), &action, payload.get()));

        let sent = Frame::CallResult { id: id.clone(), payload: &payload }.encode();
        let Ok(Frame::CallResult { id: read_id, payload: read }) = Frame::parse(&sent) else { panic!("{sent}") };
        prop_assert_eq!((&read_id, read.get()), (&id, payload.get()));

        let code = ErrorCode::ALL[which];
        let sent = Frame::CallError { id: id.clone(), code, description: text.as_str().into() }.encode();
        let Ok(Frame::CallError { id: read_id, code: read, description }) = Frame::parse(&sent) else { panic!("{sent}") };
        prop_assert_eq!((read_id, read, &*description), (id, code, text.as_str()));
    }
}
