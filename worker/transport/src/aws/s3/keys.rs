//! Keys of a location's files: its prefix, and what [`crate::object_key`] makes of a name.

use std::io;

use crate::FileName;
use crate::object_key::{key_of_name, name_of_key};

/// S3 takes keys of at most this many bytes.
const LONGEST_KEY: usize = 1024;

/// The key of a name.
pub(super) fn key(prefix: &str, name: &FileName) -> io::Result<String> {
    let below = key_of_name(name);
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

/// The name of a key; an error with the cause for what cannot be a file of ours.
pub(super) fn name(prefix: &str, key: &str) -> Result<FileName, String> {
    let below = match prefix {
        "" => Some(key),
        prefix => key
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix('/')),
    };
    name_of_key(below.ok_or_else(|| format!("{key:?} is not below {prefix}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_below_the_prefix_has_its_name_and_others_have_none() {
        let file = FileName::parse("a/new\nline").expect("a good name");
        for prefix in ["", "some/prefix"] {
            let key = key(prefix, &file).expect("a key");
            assert_eq!(name(prefix, &key).as_ref(), Ok(&file));
        }
        for key in [
            "prefixed/a",
            "other/a",
            "prefix",
            "prefix/",
            "prefix/a/",
            "prefix/../a",
        ] {
            assert!(name("prefix", key).is_err(), "{key}");
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
