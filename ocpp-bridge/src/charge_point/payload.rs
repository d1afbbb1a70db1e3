//! Reading payloads with the standard's error codes: what is missing, of the wrong type or too long is told
//! apart, which a derived `Deserialize` can't do.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    frame::{ErrorCode, read_string},
    limits::{MAX_KEY_CHARS, MAX_REQUESTED_KEYS},
};

/// Why a CALL is answered with a CALLERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) reason: &'static str,
}

/// The arguments of ChangeConfiguration (OCPP 1.6 §6.7).
#[derive(Debug, PartialEq)]
pub(super) struct ChangeConfiguration<'a> {
    /// At most 50 characters.
    pub(super) key: Cow<'a, str>,
    /// Of any length.
    pub(super) value: Cow<'a, str>,
}

/// The arguments of GetConfiguration (OCPP 1.6 §6.21): the keys, each of at most 50 characters.
#[derive(Debug, PartialEq)]
pub(super) struct GetConfiguration<'a> {
    pub(super) keys: Vec<Cow<'a, str>>,
}

/// An object, or `null` for one without fields; fields that `T` doesn't have are passed over.
pub(super) fn object<'a, T: Deserialize<'a>>(payload: &'a RawValue) -> Option<T> {
    match payload.get() {
        "null" => serde_json::from_str("{}").ok(),
        text if text.starts_with('{') => serde_json::from_str(text).ok(),
        _ => None,
    }
}

fn arguments<'a, T: Deserialize<'a>>(payload: &'a RawValue) -> Result<T, Refusal> {
    object(payload)
        .ok_or(Refusal { code: ErrorCode::FormationViolation, reason: "the payload isn't an object" })
}

fn string<'a>(field: Option<&'a RawValue>) -> Result<Cow<'a, str>, Refusal> {
    let missing =
        Refusal { code: ErrorCode::OccurenceConstraintViolation, reason: "a required field is missing" };
    let not_text = Refusal { code: ErrorCode::TypeConstraintViolation, reason: "a field isn't a string" };
    read_string(field.ok_or(missing)?).ok_or(not_text)
}

fn key<'a>(field: Option<&'a RawValue>) -> Result<Cow<'a, str>, Refusal> {
    let key = string(field)?;
    if key.chars().count() > MAX_KEY_CHARS {
        let code = ErrorCode::PropertyConstraintViolation;
        return Err(Refusal { code, reason: "a key has more than 50 characters" });
    }
    Ok(key)
}

// === impl ChangeConfiguration ===

impl<'a> ChangeConfiguration<'a> {
    pub(super) fn parse(payload: &'a RawValue) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(borrow)]
            key: Option<&'a RawValue>,
            #[serde(borrow)]
            value: Option<&'a RawValue>,
        }
        let wire: Wire<'a> = arguments(payload)?;
        Ok(Self { key: key(wire.key)?, value: string(wire.value)? })
    }
}

// === impl GetConfiguration ===

impl<'a> GetConfiguration<'a> {
    pub(super) fn parse(payload: &'a RawValue) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(borrow)]
            key: Option<&'a RawValue>,
        }
        let wire: Wire<'a> = arguments(payload)?;
        let Some(list) = wire.key else {
            return Ok(Self { keys: Vec::new() });
        };
        if !list.get().starts_with('[') {
            return Err(Refusal {
                code: ErrorCode::TypeConstraintViolation,
                reason: "the field key isn't a list",
            });
        }
        // The text is known to be a JSON array: only its length is left to fail.
        let elements: heapless::Vec<&'a RawValue, MAX_REQUESTED_KEYS> = serde_json::from_str(list.get())
            .map_err(|_| Refusal {
                code: ErrorCode::OccurenceConstraintViolation,
                reason: "more keys than GetConfigurationMaxKeys",
            })?;
        let keys = elements.into_iter().map(|element| key(Some(element))).collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> Result<(String, String), ErrorCode> {
        ChangeConfiguration::parse(serde_json::from_str(text).unwrap())
            .map(|change| (change.key.into_owned(), change.value.into_owned()))
            .map_err(|refusal| refusal.code)
    }

    fn get(text: &str) -> Result<Vec<String>, ErrorCode> {
        GetConfiguration::parse(serde_json::from_str(text).unwrap())
            .map(|get| get.keys.into_iter().map(Cow::into_owned).collect())
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn change_is_read() {
        let expected = Ok(("K".to_owned(), String::new()));
        assert_eq!(change(r#"{"key":"K","value":""}"#), expected);
        assert_eq!(change(r#" {"\u006bey":"\u004b","surplus":{"a":[]},"value":""}"#.trim()), expected);
    }

    #[test]
    fn change_is_refused_with_the_exact_code() {
        for (text, code) in [
            ("[]", ErrorCode::FormationViolation),
            (r#"["K","v"]"#, ErrorCode::FormationViolation),
            (r#"{"key":"K","key":"K","value":""}"#, ErrorCode::FormationViolation),
            ("null", ErrorCode::OccurenceConstraintViolation),
            ("{}", ErrorCode::OccurenceConstraintViolation),
            (r#"{"key":"K"}"#, ErrorCode::OccurenceConstraintViolation),
            (r#"{"key":null,"value":""}"#, ErrorCode::OccurenceConstraintViolation),
            (r#"{"key":1,"value":""}"#, ErrorCode::TypeConstraintViolation),
            (r#"{"key":"K","value":60}"#, ErrorCode::TypeConstraintViolation),
            (r#"{"key":"K","value":["v"]}"#, ErrorCode::TypeConstraintViolation),
        ] {
            assert_eq!(change(text), Err(code), "{text}");
        }
    }

    #[test]
    fn key_has_at_most_50_characters() {
        let text = |length| format!(r#"{{"key":"{}","value":"v"}}"#, "é".repeat(length));
        assert!(change(&text(50)).is_ok());
        assert_eq!(change(&text(51)), Err(ErrorCode::PropertyConstraintViolation));
        assert_eq!(
            get(&format!(r#"{{"key":["{}"]}}"#, "k".repeat(51))),
            Err(ErrorCode::PropertyConstraintViolation)
        );
    }

    #[test]
    fn get_is_read_and_refused_with_the_exact_code() {
        for text in ["null", "{}", r#"{"key":null}"#, r#"{"key":[]}"#] {
            assert_eq!(get(text), Ok(vec![]), "{text}");
        }
        assert_eq!(get(r#"{"key":["a","b"]}"#), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(get(r#"{"key":"a"}"#), Err(ErrorCode::TypeConstraintViolation));
        assert_eq!(get(r#"{"key":[1]}"#), Err(ErrorCode::TypeConstraintViolation));
        assert_eq!(get("[]"), Err(ErrorCode::FormationViolation));
    }

    #[test]
    fn get_takes_as_many_keys_as_it_says() {
        let text = |count: usize| format!(r#"{{"key":[{}]}}"#, vec!["\"k\""; count].join(","));
        assert_eq!(get(&text(MAX_REQUESTED_KEYS)).map(|keys| keys.len()), Ok(MAX_REQUESTED_KEYS));
        assert_eq!(get(&text(MAX_REQUESTED_KEYS + 1)), Err(ErrorCode::OccurenceConstraintViolation));
    }
}
