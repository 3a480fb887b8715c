//! What a bucket says of itself through EventBridge: an object was created. With a rule that sends these to the files
//! queue, a bucket feeds a pipeline without any producer of ours.

use serde::Deserialize;

use streampress_transport::FileName;

/// An object was created, or something else happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Event {
    /// Whether it is there now; other events (deleted, restored, tagged …) are no news for a pipeline.
    pub created: bool,
    /// The bucket.
    pub bucket: String,
    /// The object's key, as it is: EventBridge does not encode it.
    pub key: String,
}

#[derive(Deserialize)]
struct Envelope {
    source: String,
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
    /// Reads a message body; `None` when it is no event of a bucket.
    pub fn parse(body: &str) -> Option<Self> {
        let event: Envelope = serde_json::from_str(body).ok()?;
        (event.source == "aws.s3").then(|| Self {
            created: event.detail_type == "Object Created",
            bucket: event.detail.bucket.name,
            key: event.detail.object.key,
        })
    }

    /// The file's name below a location such as `s3://bucket/prefix`; `None` when it lies elsewhere, or is a folder
    /// marker. An error where a file lies there that can be no file of ours.
    pub fn name_below(&self, location: &str) -> Result<Option<FileName>, String> {
        match self.key_below(location) {
            Some(below) if !below.is_empty() && !below.ends_with('/') => {
                FileName::parse(below).map(Some)
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

    #[test]
    fn a_created_object_is_a_file_below_its_location() {
        let event = S3Event::parse(CREATED).expect("an event");
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
    fn other_events_are_told_apart() {
        let deleted = CREATED.replace("Object Created", "Object Deleted");
        assert!(!S3Event::parse(&deleted).expect("an event").created);
        let below = |name: &str| {
            let event = S3Event::parse(&CREATED.replace("example key#1.json", name));
            let event = event.expect("an event");
            event.name_below("s3://amzn-s3-demo-bucket1/in")
        };
        for folder in ["", "sub/"] {
            assert_eq!(below(folder), Ok(None), "{folder:?}");
        }
        // Neither taken nor passed over without a word.
        for hostile in ["../../etc/passwd", "a//b.json"] {
            assert!(below(hostile).is_err(), "{hostile}");
        }
    }

    #[test]
    fn what_is_no_event_of_a_bucket_is_left_to_others() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"version": 1, "file": {}}"#,
            r#"{"ID": "x", "file_name": "a.json"}"#,
            &CREATED.replace("aws.s3", "aws.ec2"),
        ] {
            assert_eq!(S3Event::parse(body), None, "{body}");
        }
    }
}
