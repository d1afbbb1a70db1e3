//! Changing one list inside a JSON text, and leaving every other byte as it is.

use std::{fmt, ops::Range};

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::{Deserializer, value::RawValue};

/// Parts of a text that are to be replaced.
#[derive(Debug)]
pub(super) struct Splice<'a> {
    text: &'a str,
    /// What stands where, in the order of the text.
    parts: Vec<(Range<usize>, String)>,
}

// === impl Splice ===

impl<'a> Splice<'a> {
    /// Nothing is replaced as yet.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, parts: Vec::new() }
    }

    /// Puts `new` in the place of `old`, which is a part of the text itself and not only equal to one.
    ///
    /// `None` where it isn't, or where it overlaps with what is replaced already.
    pub(super) fn replace(&mut self, old: &str, new: String) -> Option<()> {
        let start = old.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        let place = start..start.checked_add(old.len())?;
        if self.text.get(place.clone()) != Some(old) {
            return None;
        }
        let index = self.parts.partition_point(|(part, _)| part.start < place.start);
        let before = index.checked_sub(1).and_then(|index| self.parts.get(index));
        let overlaps = before.is_some_and(|(part, _)| part.end > place.start)
            || self.parts.get(index).is_some_and(|(part, _)| place.end > part.start);
        if overlaps {
            return None;
        }
        self.parts.insert(index, (place, new));
        Some(())
    }

    /// The text with the new parts in it.
    pub(super) fn finish(self) -> String {
        let added: usize = self.parts.iter().map(|(_, new)| new.len()).sum();
        let mut result = String::with_capacity(self.text.len() + added);
        let mut from = 0;
        for (place, new) in self.parts {
            result.push_str(self.text.get(from..place.start).unwrap_or_default());
            result.push_str(&new);
            from = place.end;
        }
        result.push_str(self.text.get(from..).unwrap_or_default());
        result
    }
}

/// A JSON array with the elements of `list` that `keep` likes, each as it is, and whatever `more` is: elements with
/// commas between them, or nothing. `None` if `list` isn't an array.
pub(super) fn filtered(
    list: &RawValue,
    mut keep: impl FnMut(&RawValue) -> bool,
    more: &str,
) -> Option<String> {
    let mut result = String::with_capacity(list.get().len() + more.len() + 1);
    result.push('[');
    let mut add = |element: &str| {
        if result.len() > 1 {
            result.push(',');
        }
        result.push_str(element);
    };
    each(list, |element| {
        if keep(element) {
            add(element.get());
        }
    })?;
    if !more.is_empty() {
        add(more);
    }
    result.push(']');
    Some(result)
}

/// Shows each element of an array, without keeping any: how many there are, the peer decides. `None` if it isn't an
/// array; the elements before a mistake have been shown by then.
pub(super) fn each<'a>(list: &'a RawValue, show: impl FnMut(&'a RawValue)) -> Option<()> {
    struct Elements<F>(F);

    impl<'de, F: FnMut(&'de RawValue)> DeserializeSeed<'de> for Elements<F> {
        type Value = ();

        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_seq(self)
        }
    }

    impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
            while let Some(element) = elements.next_element()? {
                (self.0)(element);
            }
            Ok(())
        }
    }

    Elements(show).deserialize(&mut Deserializer::from_str(list.get())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn parts_are_replaced_in_any_order_and_the_rest_stays() {
        let text = String::from("[2, 22, [ 3 ],4]");
        let mut splice = Splice::new(&text);
        splice.replace(&text[8..13], "[]".to_owned()).unwrap();
        splice.replace(&text[4..6], "two".to_owned()).unwrap();
        splice.replace(&text[14..15], String::new()).unwrap();
        assert_eq!(splice.finish(), "[2, two, [],]");
    }

    #[test]
    fn what_is_no_part_of_the_text_or_overlaps_is_refused() {
        let text = String::from("abcdef");
        let mut splice = Splice::new(&text);
        assert_eq!(splice.replace("bcd", "x".to_owned()), None, "equal, but elsewhere");
        splice.replace(&text[2..4], "x".to_owned()).unwrap();
        assert_eq!(splice.replace(&text[3..5], "y".to_owned()), None);
        assert_eq!(splice.replace(&text[1..3], "y".to_owned()), None);
        assert_eq!(splice.finish(), "abxef");
    }

    #[test]
    fn lists_keep_what_is_liked_as_it_is() {
        let keep = |element: &RawValue| element.get() != "2";
        for (list, more, expected) in [
            ("[ 1 , 2,{ \"a\" : [ ] } ]", "", "[1,{ \"a\" : [ ] }]"),
            ("[1]", "8,9", "[1,8,9]"),
            ("[2]", "", "[]"),
            ("[]", "8", "[8]"),
        ] {
            assert_eq!(filtered(raw(list), keep, more).as_deref(), Some(expected), "{list}");
        }
        assert_eq!(filtered(raw("{}"), keep, ""), None);
        assert_eq!(filtered(raw("null"), keep, ""), None);
    }
}
