//! Where files are: a folder (`file:///data/in`) or a prefix in a bucket (`s3://bucket/prefix`).
//! A location is a plain path: nothing in it is percent-encoded, and none of its names is `..`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The folder that every worker's volume is mounted at; `run` uses the --data folder instead.
pub const DATA: &str = "/data";

/// A folder or a prefix in a bucket, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A folder, or a file, by its absolute path.
    File {
        /// Absolute path, with `/` between the names.
        path: String,
    },
    /// Part of a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// The keys' beginning, without slashes around it; empty for the whole bucket.
        prefix: String,
    },
}

impl Location {
    /// Reads a location; the error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write file:///data/… for the volume or s3://bucket/prefix";
        if let Some(path) = text.strip_prefix("file://") {
            let path = path.trim_end_matches('/');
            let below = path.strip_prefix('/');
            let Some(below) = below.filter(|below| !below.starts_with('/')) else {
                return Err("write three slashes, as in file:///data/in".into());
            };
            plain_names(below)?;
            return Ok(Location::File { path: path.into() });
        }
        let rest = text.strip_prefix("s3://").ok_or(FORM)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() {
            return Err("name the bucket, as in s3://bucket/prefix".into());
        }
        if !prefix.is_empty() {
            plain_names(prefix)?;
        }
        Ok(Location::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        })
    }

    /// The path below /data, for a location there; empty for /data itself.
    pub fn below_data(&self) -> Option<&str> {
        match self {
            Location::File { path } => match path.strip_prefix(DATA)? {
                "" => Some(""),
                below => below.strip_prefix('/'),
            },
            Location::S3 { .. } => None,
        }
    }

    /// Whether `other` is this location or lies within it.
    pub(crate) fn contains(&self, other: &Location) -> bool {
        match (self, other) {
            (Location::File { path: outer }, Location::File { path: inner }) => {
                within(outer, inner)
            }
            (
                Location::S3 { bucket, prefix },
                Location::S3 {
                    bucket: other_bucket,
                    prefix: other_prefix,
                },
            ) => bucket == other_bucket && (prefix.is_empty() || within(prefix, other_prefix)),
            _ => false,
        }
    }
}

/// Whether `inner` is `outer` or below it, name by name: `/data/in2` is not within `/data/in`.
fn within(outer: &str, inner: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Refuses empty names, `.` and `..`, by which one location could be written in two ways.
fn plain_names(path: &str) -> Result<(), String> {
    match path
        .split('/')
        .find(|name| matches!(*name, "" | "." | ".."))
    {
        Some("") => Err("write one slash between names, and at least one name".into()),
        Some(name) => Err(format!("leave {name:?} out of the path")),
        None => Ok(()),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File { path } => write!(f, "file://{path}"),
            Location::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Location::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Location::parse(&text)
            .map_err(|help| serde::de::Error::custom(format!("{text:?} is not a location: {help}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> Location {
        Location::parse(text).expect(text)
    }

    #[test]
    fn a_location_reads_back_as_it_is_shown() {
        for text in [
            "file:///data/in",
            "file:///srv/a b",
            "s3://bucket",
            "s3://bucket/a/b",
        ] {
            assert_eq!(location(text).to_string(), text);
            assert_eq!(location(&format!("{text}/")).to_string(), text);
        }
    }

    #[test]
    fn a_wrong_location_says_what_to_write_instead() {
        for (text, remedy) in [
            ("/data/in", "file:///data/"),
            ("file://data/in", "three slashes"),
            ("file:////data/in", "three slashes"),
            ("file:///data//in", "one slash"),
            ("file:///", "three slashes"),
            ("file:///data/../etc", "\"..\""),
            ("s3://bucket/./a", "\".\""),
            ("s3:///a", "name the bucket"),
            ("https://bucket/a", "s3://bucket/prefix"),
        ] {
            let help = Location::parse(text).expect_err(text);
            assert!(help.contains(remedy), "{text}: {help}");
        }
    }

    #[test]
    fn containment_compares_whole_names() {
        for (outer, inner, expected) in [
            ("file:///data/in", "file:///data/in/", true),
            ("file:///data/in", "file:///data/in/deep", true),
            ("file:///data/in", "file:///data/in2", false),
            ("file:///data/in/deep", "file:///data/in", false),
            ("s3://a", "s3://a/b", true),
            ("s3://a/b", "s3://a/bc", false),
            ("s3://a/b", "s3://c/b", false),
            ("s3://data/in", "file:///data/in", false),
        ] {
            assert_eq!(
                location(outer).contains(&location(inner)),
                expected,
                "{outer} {inner}"
            );
        }
    }

    #[test]
    fn only_a_location_below_data_has_a_path_there() {
        assert_eq!(location("file:///data/in/a").below_data(), Some("in/a"));
        assert_eq!(location("file:///data").below_data(), Some(""));
        assert_eq!(location("file:///database").below_data(), None);
        assert_eq!(location("s3://data/in").below_data(), None);
    }
}
