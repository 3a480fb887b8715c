//! A file's name as an object's key, and back. Names are kept as they are; only what a key cannot hold (control characters, which
//! XML cannot either) is written in percent form, and such a part is marked so that no two names share a key.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::FileName;

/// Begins a part that is written in percent form.
const MARK: &str = "~streampress~";
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// The key of a name, below the prefix of its location.
pub fn key_of_name(name: &FileName) -> String {
    let parts: Vec<String> = name.as_str().split('/').map(encode).collect();
    parts.join("/")
}

/// The name of a key below the prefix of its location; an error with the cause where no name has this key, as that of a folder
/// marker, one that leads out of the location, or one with a control character as it is.
pub fn name_of_key(below: &str) -> Result<FileName, String> {
    let parts: Option<Vec<String>> = below.split('/').map(decode).collect();
    let name = parts.ok_or_else(|| marked(below))?.join("/");
    let name = FileName::parse(&name)?;
    match key_of_name(&name) == below {
        true => Ok(name),
        false if below.chars().any(|c| c.is_ascii_control()) => {
            Err(format!("{below:?} has a control character"))
        }
        false => Err(marked(below)),
    }
}

fn marked(below: &str) -> String {
    format!(
        "{below:?} begins a part with {MARK}, which marks names that streampress wrote in percent form, and it is none of them"
    )
}

fn encode(part: &str) -> String {
    if part.starts_with(MARK) || part.chars().any(|c| c.is_ascii_control()) {
        format!("{MARK}{}", utf8_percent_encode(part, ENCODED))
    } else {
        part.to_owned()
    }
}

fn decode(part: &str) -> Option<String> {
    match part.strip_prefix(MARK) {
        Some(encoded) => percent_decode_str(encoded)
            .decode_utf8()
            .ok()
            .map(Into::into),
        None => Some(part.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_key_of_its_own_and_comes_back() {
        let names = [
            "a/b.json",
            "50%25 #1?.csv",
            "new\nline",
            "new%0Aline",
            "~streampress~new%0Aline",
            "ünï/日本",
            "back\\slash",
            "\u{7f}",
        ];
        let mut seen = std::collections::HashSet::new();
        for text in names {
            let name = FileName::parse(text).expect("a good name");
            let key = key_of_name(&name);
            assert_eq!(name_of_key(&key), Ok(name));
            assert!(seen.insert(key), "{text:?} shares a key");
        }
    }

    #[test]
    fn a_key_that_no_name_has_is_an_error_with_its_cause() {
        for (key, cause) in [
            ("", "empty"),
            ("a/", "empty part"),
            ("../a", ".."),
            ("new\nline.csv", "a control character"),
            ("folder/tab\t.csv", "a control character"),
            ("~streampress~plain.csv", "in percent form"),
            ("~streampress~%FF", "in percent form"),
        ] {
            let error = name_of_key(key).expect_err(key);
            assert!(error.contains(cause), "{key:?}: {error}");
        }
    }
}
