//! An event of a bucket, as EventBridge sends it. With a rule that sends these to the files queue, a bucket announces its
//! files itself.

use serde::Deserialize;
use serde_json::Value;

use streampress_transport::FileName;
use streampress_transport::object_key::name_of_key;

/// An object of a bucket was created, or something else happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Event {
    /// Whether the object was created; other events (deleted, restored, tagged …) announce no file.
    pub created: bool,
    /// The bucket.
    pub bucket: String,
    /// The object's key, as it is: EventBridge does not encode it.
    pub key: String,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "detail-type")]
    detail_type: String,
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
}

impl S3Event {
    /// Whether this is the JSON of such an event.
    pub(super) fn is_kind_of(value: &Value) -> bool {
        value.get("source").and_then(Value::as_str) == Some("aws.s3")
    }

    pub(super) fn from_value(value: Value) -> Result<Self, serde_json::Error> {
        let event: Envelope = serde_json::from_value(value)?;
        Ok(Self {
            created: event.detail_type == "Object Created",
            bucket: event.detail.bucket.name,
            key: event.detail.object.key,
        })
    }

    /// The file's name below a location such as `s3://bucket/prefix`; `None` when the object lies elsewhere, or is a folder
    /// marker. An error where the object's name cannot be a file's name.
    pub(crate) fn name_below(&self, location: &str) -> Result<Option<FileName>, String> {
        match self.key_below(location) {
            Some(below) if !below.is_empty() && !below.ends_with('/') => {
                name_of_key(below).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn key_below(&self, location: &str) -> Option<&str> {
        let place = location.strip_prefix("s3://")?.trim_end_matches('/');
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket != self.bucket {
            return None;
        }
        match prefix {
            "" => Some(&self.key),
            prefix => self.key.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    /// As in AWS's documentation of S3 events in EventBridge ("Amazon S3 Event Notifications: EventBridge event
    /// message structure"), with the fields that a bucket with versions has.
    const CREATED: &str = r#"{
        "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": "Object Created",
        "source": "aws.s3", "account": "111122223333", "time": "2021-11-12T00:00:00Z", "region": "ca-central-1",
        "resources": ["arn:aws:s3:::amzn-s3-demo-bucket1"],
        "detail": {
            "version": "0", "bucket": {"name": "amzn-s3-demo-bucket1"},
            "object": {"key": "in/example key#1.json", "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184",
                       "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e", "sequencer": "617f08299329d189"},
            "request-id": "N4N7GDK58NMKJ12R", "requester": "123456789012", "source-ip-address": "1.2.3.4",
            "reason": "PutObject"}}"#;

    fn event(body: &str) -> S3Event {
        match Message::parse(body) {
            Ok(Message::S3Event(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_created_object_is_a_file_below_its_location() {
        let event = event(CREATED);
        assert!(event.created);
        let name = |location| {
            let name = event.name_below(location).expect("a good name");
            name.map(|name| name.to_string())
        };
        assert_eq!(
            name("s3://amzn-s3-demo-bucket1/in").as_deref(),
            Some("example key#1.json")
        );
        assert_eq!(
            name("s3://amzn-s3-demo-bucket1/in/").as_deref(),
            Some("example key#1.json")
        );
        assert_eq!(
            name("s3://amzn-s3-demo-bucket1").as_deref(),
            Some("in/example key#1.json")
        );
        for elsewhere in [
            "s3://other/in",
            "s3://amzn-s3-demo-bucket1/out",
            "s3://amzn-s3-demo-bucket1/i",
            "file:///data/in",
        ] {
            assert_eq!(name(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn other_events_announce_no_file() {
        let deleted = CREATED.replace("Object Created", "Object Deleted");
        assert!(!event(&deleted).created);
        let below = |name: &str| {
            let event = event(&CREATED.replace("example key#1.json", name));
            event.name_below("s3://amzn-s3-demo-bucket1/in")
        };
        for folder in ["", "sub/"] {
            assert_eq!(below(folder), Ok(None), "{folder:?}");
        }
        // An error, not a silent skip.
        for hostile in [
            "../../etc/passwd",
            "a//b.json",
            "new\\nline.csv",
            "~streampress~plain.csv",
        ] {
            assert!(below(hostile).is_err(), "{hostile}");
        }
    }

    #[test]
    fn an_object_whose_name_has_a_control_character_is_found_under_its_name() {
        let event = event(&CREATED.replace("example key#1.json", "~streampress~new%0Aline.csv"));
        let name = event.name_below("s3://amzn-s3-demo-bucket1/in");
        let name = name.map(|name| name.map(|name| name.to_string()));
        assert_eq!(name, Ok(Some("new\nline.csv".to_owned())));
    }

    #[test]
    fn an_event_of_another_service_is_no_event_of_a_bucket() {
        let other = CREATED.replace("aws.s3", "aws.ec2");
        assert!(Message::parse(&other).is_err());
    }
}
