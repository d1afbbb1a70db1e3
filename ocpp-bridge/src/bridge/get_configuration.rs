//! GetConfiguration (OCPP 1.6 §5.8) for a controller that doesn't know our keys: what it is asked, and its answer with
//! our keys in it. Only the lists concerned are written anew; everything else stays byte for byte.

use rust_ocpp::v1_6::types::KeyValue;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::splice::{Splice, each, filtered};
use crate::{configuration::Registry, frame::read_string, limits::MAX_REQUESTED_KEYS};

/// What becomes of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    /// It names no key of ours, or can't be read: it is the controller's alone.
    NotOurs,
    /// It asks for all keys: it goes on as it is, and all of ours are added to the answer.
    All,
    /// It names keys of ours only: the controller would take what is left, nothing, for all of its own.
    Ours(Vec<String>),
    /// It names both.
    Mixed {
        /// The message without our keys.
        text: String,
        /// Those of ours that were named, as they were written.
        ours: Vec<String>,
    },
}

/// Judges a request: `payload` is a part of `text`.
pub(super) fn request(text: &str, payload: &RawValue, ours: &Registry) -> Request {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        key: Option<&'a RawValue>,
    }
    if payload.get() == "null" {
        return Request::All;
    }
    let wire: Wire<'_> = match serde_json::from_str(payload.get()) {
        Ok(wire) if payload.get().starts_with('{') => wire,
        _ => return Request::NotOurs,
    };
    let Some(list) = wire.key else { return Request::All };

    let (mut named, mut others, mut surplus) = (Vec::new(), 0_usize, false);
    let read = each(list, |element| match our_key(element, ours) {
        Some(_) if named.len() == MAX_REQUESTED_KEYS => surplus = true,
        Some(key) => named.push(key),
        None => others += 1,
    });
    match (read, named.is_empty(), others) {
        (None, ..) => Request::NotOurs,
        // More of ours than anybody may ask for: the controller has an answer to such a request.
        _ if surplus => Request::NotOurs,
        (_, true, 0) => Request::All,
        (_, true, _) => Request::NotOurs,
        (_, false, 0) => Request::Ours(named),
        (_, false, _) => without_ours(text, list, ours)
            .map_or(Request::NotOurs, |text| Request::Mixed { text, ours: named }),
    }
}

fn without_ours(text: &str, list: &RawValue, ours: &Registry) -> Option<String> {
    let left = filtered(list, |element| our_key(element, ours).is_none(), "")?;
    let mut splice = Splice::new(text);
    splice.replace(list.get(), left)?;
    Some(splice.finish())
}

/// The key that an element of a list of names is, if it is one of ours.
fn our_key(element: &RawValue, ours: &Registry) -> Option<String> {
    read_string(element).filter(|key| ours.knows(key)).map(std::borrow::Cow::into_owned)
}

/// The controller's answer with our keys in it; `payload` is a part of `text`. `None`: it can't be an answer to
/// GetConfiguration, and goes on as it is.
///
/// A controller that has a key of our name doesn't show it: ours is the one that the CSMS can change.
pub(super) fn answer(text: &str, payload: &RawValue, added: &[KeyValue], ours: &Registry) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire<'a> {
        #[serde(borrow, default, deserialize_with = "present")]
        configuration_key: Option<&'a RawValue>,
        #[serde(borrow)]
        unknown_key: Option<&'a RawValue>,
    }
    if !payload.get().starts_with('{') {
        return None;
    }
    let wire: Wire<'_> = serde_json::from_str(payload.get()).ok()?;
    let entries: Vec<String> = added.iter().filter_map(|entry| serde_json::to_string(entry).ok()).collect();
    let entries = entries.join(",");

    let mut splice = Splice::new(text);
    match wire.configuration_key {
        Some(list) if list.get() == "null" => splice.replace(list.get(), format!("[{entries}]"))?,
        Some(list) => {
            splice.replace(list.get(), filtered(list, |entry| !is_ours(entry, ours), &entries)?)?;
        }
        None => {
            let brace = payload.get().get(..1)?;
            let comma = if payload.get().get(1..)?.trim_start() == "}" { "" } else { "," };
            splice.replace(brace, format!("{{\"configurationKey\":[{entries}]{comma}"))?;
        }
    }
    if let Some(list) = wire.unknown_key {
        splice.replace(list.get(), filtered(list, |key| our_key(key, ours).is_none(), "")?)?;
    }
    Some(splice.finish())
}

/// A field that is there, even if it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Whether an entry of a controller's list has a key of ours.
fn is_ours(entry: &RawValue, ours: &Registry) -> bool {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        key: Option<&'a RawValue>,
    }
    let wire: Option<Wire<'_>> = serde_json::from_str(entry.get()).ok();
    wire.and_then(|wire| wire.key).is_some_and(|key| our_key(key, ours).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    fn registry() -> Registry {
        let mut ours = Registry::without_standard();
        ours.register("Script1", Access::ReadWrite).unwrap();
        ours.register("Script1Status", Access::ReadOnly).unwrap();
        ours.put("Script1", Some("ops@gw".to_owned()));
        ours
    }

    /// What becomes of a request with this payload, in a message that is written oddly.
    fn asked(payload: &str) -> Request {
        let text = format!("[2 ,\"7\", \"GetConfiguration\",{payload} ]");
        let (_, raw) = text.split_once("\"GetConfiguration\",").unwrap();
        let raw: &RawValue = serde_json::from_str(raw.strip_suffix(" ]").unwrap()).unwrap();
        request(&text, raw, &registry())
    }

    fn answered(payload: &str) -> Option<String> {
        let text = format!("[3,\"7\" , {payload}]");
        let (_, raw) = text.split_once(" , ").unwrap();
        let raw: &RawValue = serde_json::from_str(raw.strip_suffix(']').unwrap()).unwrap();
        let ours = registry();
        let added = ours.get(&["Script1"]).configuration_key.unwrap();
        answer(&text, raw, &added, &ours)
    }

    #[test]
    fn requests_for_all_keys_go_on_as_they_are() {
        for payload in ["null", "{}", "{ }", r#"{"key":null}"#, r#"{"key":[]}"#] {
            assert_eq!(asked(payload), Request::All, "{payload}");
        }
    }

    #[test]
    fn requests_for_others_or_that_cannot_be_read_are_the_controllers() {
        for payload in [
            r#"{"key":["A","Script"]}"#,
            "[]",
            r#"{"key":"Script1"}"#,
            r#"{"key":[1]}"#,
            r#"{"key":[],"key":[]}"#,
        ] {
            assert_eq!(asked(payload), Request::NotOurs, "{payload}");
        }
        let many = format!(r#"{{"key":[{}"A"]}}"#, "\"Script1\",".repeat(MAX_REQUESTED_KEYS + 1));
        assert_eq!(asked(&many), Request::NotOurs);
    }

    #[test]
    fn requests_for_ours_are_recognised_in_any_spelling() {
        let ours = |keys: &[&str]| Request::Ours(keys.iter().map(|&key| key.to_owned()).collect());
        assert_eq!(asked(r#"{"key":["script1"]}"#), ours(&["script1"]));
        assert_eq!(asked(r#"{"key":["\u0053cript1","SCRIPT1STATUS"]}"#), ours(&["Script1", "SCRIPT1STATUS"]));
    }

    #[test]
    fn mixed_requests_go_on_without_ours() {
        let expected = Request::Mixed {
            text: r#"[2 ,"7", "GetConfiguration",{ "key": ["A","\u0042",3], "x":1.50 } ]"#.to_owned(),
            ours: vec!["Script1".to_owned()],
        };
        assert_eq!(asked(r#"{ "key": [ "A" , "Script1", "\u0042",3 ], "x":1.50 }"#), expected);
    }

    const OURS: &str = r#"{"key":"Script1","readonly":false,"value":"ops@gw"}"#;

    #[test]
    fn answers_get_our_keys_and_stay_as_they_are_otherwise() {
        for (payload, expected) in [
            (
                r#"{"configurationKey":[ {"key":"A","readonly":true , "value":"1.0"} ],"unknownKey":[ "Z" ]}"#,
                format!(
                    r#"{{"configurationKey":[{{"key":"A","readonly":true , "value":"1.0"}},{OURS}],"unknownKey":["Z"]}}"#
                ),
            ),
            (r#"{"configurationKey":[]}"#, format!(r#"{{"configurationKey":[{OURS}]}}"#)),
            (r#"{"configurationKey":null}"#, format!(r#"{{"configurationKey":[{OURS}]}}"#)),
            ("{}", format!(r#"{{"configurationKey":[{OURS}]}}"#)),
            ("{ }", format!(r#"{{"configurationKey":[{OURS}] }}"#)),
            (r#"{"unknownKey":["Z"]}"#, format!(r#"{{"configurationKey":[{OURS}],"unknownKey":["Z"]}}"#)),
        ] {
            assert_eq!(answered(payload), Some(format!("[3,\"7\" , {expected}]")), "{payload}");
        }
    }

    #[test]
    fn a_key_of_our_name_is_ours_whatever_the_controller_says() {
        let payload = r#"{"unknownKey":["Script1","Z"],"configurationKey":[{"key":"SCRIPT1","value":"x"},{"key":"A"}]}"#;
        let expected = format!(r#"{{"unknownKey":["Z"],"configurationKey":[{{"key":"A"}},{OURS}]}}"#);
        assert_eq!(answered(payload), Some(format!("[3,\"7\" , {expected}]")));
    }

    #[test]
    fn what_is_no_answer_to_get_configuration_goes_on_as_it_is() {
        for payload in ["[]", "null", "3", r#"{"configurationKey":{}}"#, r#"{"unknownKey":"a"}"#] {
            assert_eq!(answered(payload), None, "{payload}");
        }
    }
}
