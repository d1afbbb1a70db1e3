//! Reading payloads with the standard's error codes: what is missing, of the wrong type or too long is told
//! apart, which a derived `Deserialize` can't do.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    frame::{ErrorCode, read_string},
    limits::{MAX_KEY_CHARS, MAX_REQUESTED_KEYS},
};

/// Why a CALL is answered with a CALLERROR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) reason: Cow<'static, str>,
}

/// One field of a payload: absent, `null`, which means the same, or any JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    name: &'static str,
    json: Option<&'a RawValue>,
}

/// The arguments of ChangeConfiguration (OCPP 1.6 §6.7).
#[derive(Debug, PartialEq)]
pub(crate) struct ChangeConfiguration<'a> {
    /// At most 50 characters.
    pub(crate) key: Cow<'a, str>,
    /// Of any length.
    pub(crate) value: Cow<'a, str>,
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

/// The fields with these names of a payload that must be an object, or `null` for one without fields. Others are
/// passed over: CSMSs send more than the standard has.
pub(super) fn fields<'a, const N: usize>(
    payload: &'a RawValue,
    names: [&'static str; N],
) -> Result<[Field<'a>; N], Refusal> {
    let mut found = names.map(|name| Field { name, json: None });
    let text = payload.get();
    let read = text == "null"
        || (text.starts_with('{')
            && serde_json::Deserializer::from_str(text).deserialize_map(Named(&mut found)).is_ok());
    match read {
        true => Ok(found),
        false => Err(Refusal::new(
            ErrorCode::FormationViolation,
            "the payload isn't an object that has each field once",
        )),
    }
}

/// Puts the values of an object into the fields of the same names.
struct Named<'f, 'a>(&'f mut [Field<'a>]);

impl<'de> Visitor<'de> for Named<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = 0_u32;
        while let Some(Text(name)) = entries.next_key()? {
            let Some((index, field)) = self.0.iter_mut().enumerate().find(|(_, field)| field.name == name)
            else {
                entries.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen & (1 << index) != 0 {
                return Err(A::Error::duplicate_field(field.name));
            }
            seen |= 1 << index;
            field.json = entries.next_value()?;
        }
        Ok(())
    }
}

/// A string, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(code: ErrorCode, reason: &'static str) -> Self {
        Self { code, reason: reason.into() }
    }
}

// === impl Field ===

impl<'a> Field<'a> {
    /// A string of at most so many characters.
    pub(super) fn text(self, longest: usize) -> Result<Cow<'a, str>, Refusal> {
        let text = read_string(self.required()?).ok_or_else(|| self.wrong_type("isn't a string"))?;
        if text.chars().nth(longest).is_some() {
            return Err(self.refused(
                ErrorCode::PropertyConstraintViolation,
                &format!("has more than {longest} characters"),
            ));
        }
        Ok(text)
    }

    /// The same, where the field may be absent.
    pub(super) fn optional_text(self, longest: usize) -> Result<Option<Cow<'a, str>>, Refusal> {
        self.json.map(|_| self.text(longest)).transpose()
    }

    /// One of these words, in this spelling.
    pub(super) fn word<T: Copy>(self, words: &[(&str, T)]) -> Result<T, Refusal> {
        let text = self.text(usize::MAX)?;
        let known = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        known.ok_or_else(|| {
            self.refused(ErrorCode::PropertyConstraintViolation, "has a value that the standard doesn't have")
        })
    }

    /// A whole number, also written as `1.0`.
    pub(super) fn integer(self) -> Result<i64, Refusal> {
        let text = self.required()?.get();
        let decimal = text.split_once('.').filter(|(_, zeros)| zeros.bytes().all(|byte| byte == b'0'));
        let digits = decimal.map_or(text, |(digits, _)| digits);
        digits.parse().map_err(|_| self.wrong_type("isn't a whole number"))
    }

    /// The same, where the field may be absent.
    pub(super) fn optional_integer(self) -> Result<Option<i64>, Refusal> {
        self.json.map(|_| self.integer()).transpose()
    }

    /// An object, whatever is in it, where the field may be absent.
    pub(super) fn optional_object(self) -> Result<(), Refusal> {
        match self.json {
            Some(json) if !json.get().starts_with('{') => Err(self.wrong_type("isn't an object")),
            _ => Ok(()),
        }
    }

    pub(super) fn required(self) -> Result<&'a RawValue, Refusal> {
        self.json.ok_or_else(|| self.refused(ErrorCode::OccurenceConstraintViolation, "is missing"))
    }

    fn wrong_type(self, reason: &str) -> Refusal {
        self.refused(ErrorCode::TypeConstraintViolation, reason)
    }

    pub(super) fn refused(self, code: ErrorCode, reason: &str) -> Refusal {
        Refusal { code, reason: format!("{} {reason}", self.name).into() }
    }
}

// === impl ChangeConfiguration ===

impl<'a> ChangeConfiguration<'a> {
    pub(crate) fn parse(payload: &'a RawValue) -> Result<Self, Refusal> {
        let [key, value] = fields(payload, ["key", "value"])?;
        Ok(Self { key: key.text(MAX_KEY_CHARS)?, value: value.text(usize::MAX)? })
    }
}

// === impl GetConfiguration ===

impl<'a> GetConfiguration<'a> {
    pub(super) fn parse(payload: &'a RawValue) -> Result<Self, Refusal> {
        let [list] = fields(payload, ["key"])?;
        let Some(json) = list.json else {
            return Ok(Self { keys: Vec::new() });
        };
        if !json.get().starts_with('[') {
            return Err(list.wrong_type("isn't a list"));
        }
        // The text is known to be a JSON array: only its length is left to fail.
        let elements: heapless::Vec<&'a RawValue, MAX_REQUESTED_KEYS> = serde_json::from_str(json.get())
            .map_err(|_| {
                list.refused(
                    ErrorCode::OccurenceConstraintViolation,
                    "has more items than GetConfigurationMaxKeys",
                )
            })?;
        let key = |element| Field { name: "key", json: Some(element) }.text(MAX_KEY_CHARS);
        let keys = elements.into_iter().map(key).collect::<Result<_, _>>()?;
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
