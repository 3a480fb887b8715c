//! A JSON document as it was written: keys in their order, numbers digit for digit. `serde_json::Value` sorts keys and
//! converts numbers, which would alter sample records.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::SchemaError;

/// Documents with more levels are refused; real records have far fewer.
const MAX_DEPTH: usize = 32;

/// One JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum JsonTree {
    Null,
    Bool(bool),
    /// The digits as they are written in the document.
    Number(String),
    Text(String),
    List(Vec<JsonTree>),
    Object(Vec<(String, JsonTree)>),
}

impl JsonTree {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        let raw: &RawValue = serde_json::from_slice(json).map_err(|error| {
            SchemaError::at("", format!("not valid JSON: {error}"), "correct it there")
        })?;
        read(raw, "", 0)
    }

    /// The value's type, as an error message names it.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// The entries of an object in their order.
struct ObjectEntries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for ObjectEntries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                let mut seen = HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !seen.insert(key.clone()) {
                        return Err(M::Error::custom(format!("the key {key:?} is there twice")));
                    }
                    entries.push((key, value));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

fn read(raw: &RawValue, path: &str, depth: usize) -> Result<JsonTree, SchemaError> {
    if depth > MAX_DEPTH {
        return Err(SchemaError::at(
            path,
            format!("nested deeper than {MAX_DEPTH} levels"),
            "flatten the records",
        ));
    }
    let text = raw.get();
    let broken = |error: serde_json::Error| {
        // The position would be counted from the start of this value, so it is left out.
        let problem = error.to_string();
        let problem = problem.split(" at line ").next().unwrap_or_default();
        SchemaError::at(path, problem.to_owned(), "correct it there")
    };
    match text.as_bytes().first() {
        Some(b'{') => {
            let ObjectEntries(entries) = serde_json::from_str(text).map_err(broken)?;
            let read_entry = |(key, value): (String, &RawValue)| {
                let tree = read(value, &join(path, &key), depth + 1)?;
                Ok((key, tree))
            };
            let entries: Result<_, SchemaError> = entries.into_iter().map(read_entry).collect();
            Ok(JsonTree::Object(entries?))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(broken)?;
            let read_item =
                |(n, item): (usize, &&RawValue)| read(item, &format!("{path}[{n}]"), depth + 1);
            let items: Result<_, SchemaError> = items.iter().enumerate().map(read_item).collect();
            Ok(JsonTree::List(items?))
        }
        Some(b'"') => Ok(JsonTree::Text(serde_json::from_str(text).map_err(broken)?)),
        Some(b't') => Ok(JsonTree::Bool(true)),
        Some(b'f') => Ok(JsonTree::Bool(false)),
        Some(b'n') => Ok(JsonTree::Null),
        _ => Ok(JsonTree::Number(text.to_owned())),
    }
}

/// The dotted path of a member.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_digits_are_kept() -> Result<(), SchemaError> {
        let tree = JsonTree::parse(br#"{"z": 1.10, "a": [123456789012345678901234567890, null]}"#)?;
        let number = |digits: &str| JsonTree::Number(digits.to_owned());
        let list = vec![number("123456789012345678901234567890"), JsonTree::Null];
        let expected = vec![
            ("z".to_owned(), number("1.10")),
            ("a".to_owned(), JsonTree::List(list)),
        ];
        assert_eq!(tree, JsonTree::Object(expected));
        Ok(())
    }

    #[test]
    fn errors_are_reported_with_their_path() {
        for (json, expected) in [
            (&b"[1, 2"[..], "line 1 column 5"),
            (
                br#"{"a": {"b": 1, "b": 2}}"#,
                r#"a: the key "b" is there twice"#,
            ),
            (br#"[{"a": "\ud800"}]"#, "[0].a: "),
            (b"\xff", "not valid JSON"),
        ] {
            let message = JsonTree::parse(json).map(|_| String::new());
            let message = message.unwrap_or_else(|error| error.to_string());
            assert!(message.contains(expected), "{message}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(JsonTree::parse(deep.as_bytes()).is_err());
    }
}
