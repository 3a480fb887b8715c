//! A file's name as a key, and back. Names are kept as they are; only what a key cannot hold (control characters, which
//! XML cannot either) is written in percent form, and such a part is marked so that no two names share a key.

use std::io;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::FileName;

/// Begins a part that is written in percent form.
const MARK: &str = "~streampress~";
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
/// S3 takes keys of at most this many bytes.
const LONGEST_KEY: usize = 1024;

/// The key of a name.
pub(super) fn key(prefix: &str, name: &FileName) -> io::Result<String> {
    let parts: Vec<String> = name.as_str().split('/').map(encode).collect();
    let below = parts.join("/");
    let key = if prefix.is_empty() {
        below
    } else {
        format!("{prefix}/{below}")
    };
    if key.len() > LONGEST_KEY {
        let text = format!(
            "{name} is too long for a bucket: with its prefix it has {} bytes, a key at most {LONGEST_KEY}",
            key.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(key)
}

/// The name of a key; `None` for what cannot be a file of ours (folder markers, names that leave the location).
pub(super) fn name(prefix: &str, key: &str) -> Option<FileName> {
    let below = if prefix.is_empty() {
        key
    } else {
        key.strip_prefix(prefix)?.strip_prefix('/')?
    };
    let parts: Option<Vec<String>> = below.split('/').map(decode).collect();
    FileName::parse(&parts?.join("/")).ok()
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
            let file = FileName::parse(text).expect("a good name");
            for prefix in ["", "some/prefix"] {
                let key = key(prefix, &file).expect("a key");
                assert_eq!(name(prefix, &key).as_ref(), Some(&file));
                assert!(seen.insert(key), "{text:?} shares a key");
            }
        }
    }

    #[test]
    fn keys_outside_the_prefix_have_no_name() {
        for key in [
            "prefixed/a",
            "other/a",
            "prefix",
            "prefix/",
            "prefix/a/",
            "prefix/../a",
        ] {
            assert_eq!(name("prefix", key), None, "{key}");
        }
    }

    #[test]
    fn a_name_too_long_for_a_key_is_refused_with_its_length() {
        let long = FileName::parse(&vec!["l".repeat(255); 4].join("/")).expect("a good name");
        assert!(key("", &long).is_ok());
        assert!(
            key("p", &long)
                .expect_err("refused")
                .to_string()
                .contains("1025")
        );
    }
}
