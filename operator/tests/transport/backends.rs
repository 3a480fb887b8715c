//! The two backends of the operator's transport, and access to what they keep.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use streampress_crds::CheckedPipeline;
use streampress_crds::api::pipeline::{CompressionPipeline, TransportPolicy};
use streampress_operator::transport::aws::AwsProvisioner;
use streampress_operator::transport::memory::MemoryProvisioner;
use streampress_operator::transport::{OWNER_TAG, Provisioner, TransportPlan};
use streampress_tests::fake_aws::{FakeAws, FakeAwsOptions, sqs};
use streampress_transport::aws::AwsCredentials;

/// The calls of creating and deleting a pipeline's queues and stream.
pub const PROVISIONING_CALLS: [&str; 11] = [
    "DescribeStreamSummary",
    "CreateStream",
    "AddTagsToStream",
    "GetQueueUrl",
    "CreateQueue",
    "ListQueueTags",
    "GetQueueAttributes",
    "ListTagsForStream",
    "IncreaseStreamRetentionPeriod",
    "DeleteQueue",
    "DeleteStream",
];
/// The UIDs of the pipeline of these tests, and of another of the same name at another time, whose queues have other names.
pub const OURS: &str = "uid-1";
pub const OTHERS: &str = "uid-2";

/// Calls that change nothing.
const READS: [&str; 5] = [
    "GetQueueUrl",
    "GetQueueAttributes",
    "ListQueueTags",
    "DescribeStreamSummary",
    "ListTagsForStream",
];

/// A queue or a stream as it exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Empty without a tag.
    pub owner: String,
    pub attributes: BTreeMap<String, String>,
}

impl Resource {
    pub fn is(&self, attribute: &str, value: &str) -> bool {
        self.attributes.get(attribute).is_some_and(|it| it == value)
    }
}

/// One backend, and access to what it keeps that is not its own.
pub trait ProvisionerBackend {
    fn provisioner(&self) -> &dyn Provisioner;
    fn endpoint(&self) -> &str;
    fn resource(&self, name: &str) -> Option<Resource>;
    fn arn(&self, name: &str) -> String;
    /// Created by another owner; FIFO if its name says so.
    fn make_queue(&self, name: &str, owner: &str, attributes: &[(&str, &str)]);
    fn make_stream(&self, name: &str, owner: &str);
    fn delete(&self, name: &str);
    /// So many messages are added.
    fn fill(&self, queue: &str, messages: u64);
    /// How often anything was created, changed or deleted.
    fn changes(&self) -> u64;

    /// Two shards and 48 hours, like a pipeline of namespace `n`.
    fn plan(&self, uid: &str) -> TransportPlan {
        let pipeline: CompressionPipeline = serde_json::from_value(json!({
            "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
            "metadata": {"name": "stock", "namespace": "n", "uid": uid},
            "spec": {
                "aws": {"endpointURL": self.endpoint()},
                "transport": {"stream": {"shards": 2, "retentionHours": 48}},
                "volume": {"persistentVolumeClaim": {"claimName": "files"}},
            },
        }))
        .unwrap();
        let checked = CheckedPipeline::in_cluster(pipeline).unwrap();
        TransportPlan::of(checked.pipeline(), checked.resolved())
    }

    /// The same names, to be adopted.
    fn adoption(&self) -> TransportPlan {
        TransportPlan {
            policy: TransportPolicy::Adopt,
            ..self.plan(OURS)
        }
    }

    /// Which of a plan's queues and stream exist.
    fn resources(&self, plan: &TransportPlan) -> BTreeMap<String, Resource> {
        names(plan)
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.resource(&name)?)))
            .collect()
    }

    /// Another owner created all that a plan needs, without a tag.
    fn make_all(&self, plan: &TransportPlan) {
        for queue in plan.parts.queues() {
            self.make_queue(&queue.dead_letter_name, "", &[]);
            let policy = self.redrive(&queue.dead_letter_name, queue.max_receive_count);
            self.make_queue(&queue.name, "", &[("RedrivePolicy", &policy)]);
        }
        self.make_stream(&plan.parts.stream.name, "");
    }

    fn redrive(&self, target: &str, count: u32) -> String {
        json!({"deadLetterTargetArn": self.arn(target), "maxReceiveCount": count}).to_string()
    }
}

/// All names of a plan, the stream last.
pub fn names(plan: &TransportPlan) -> Vec<String> {
    let all = plan.queues().into_iter().chain([&*plan.parts.stream.name]);
    all.map(str::to_owned).collect()
}

/// Credentials that the fake takes.
pub fn keys() -> AwsCredentials {
    AwsCredentials::new("test", "test")
}

#[derive(Default)]
pub struct MemoryBackend(MemoryProvisioner);

impl ProvisionerBackend for MemoryBackend {
    fn provisioner(&self) -> &dyn Provisioner {
        &self.0
    }

    fn endpoint(&self) -> &str {
        "http://memory"
    }

    fn resource(&self, name: &str) -> Option<Resource> {
        self.0.resource(name).map(|part| Resource {
            owner: part.owner,
            attributes: part.attributes,
        })
    }

    fn arn(&self, name: &str) -> String {
        format!("arn:memory:{name}")
    }

    fn make_queue(&self, name: &str, owner: &str, attributes: &[(&str, &str)]) {
        let fifo = name.ends_with(".fifo").then_some(("FifoQueue", "true"));
        let all: Vec<_> = attributes.iter().copied().chain(fifo).collect();
        self.0.exists_with(name, owner, &all);
    }

    fn make_stream(&self, name: &str, owner: &str) {
        let one = [("OpenShardCount", "1"), ("RetentionPeriodHours", "24")];
        self.0.exists_with(name, owner, &one);
    }

    fn delete(&self, name: &str) {
        self.0.vanish(name);
    }

    fn fill(&self, queue: &str, messages: u64) {
        self.0.put(queue, messages);
    }

    fn changes(&self) -> u64 {
        self.0.changes()
    }
}

pub struct AwsBackend {
    pub fake_aws: FakeAws,
    aws: AwsProvisioner,
    sent: AtomicU64,
}

impl AwsBackend {
    pub async fn start() -> Self {
        Self::start_with(1).await
    }

    /// Faults are drawn from `seed`.
    pub async fn start_with(seed: u64) -> Self {
        let options = FakeAwsOptions {
            seed,
            ..FakeAwsOptions::default()
        };
        Self {
            fake_aws: FakeAws::start(options).await.unwrap(),
            aws: AwsProvisioner::default(),
            sent: AtomicU64::default(),
        }
    }

    fn queue(&self, name: &str) -> Option<Resource> {
        let ask = json!({"QueueUrl": name});
        let mut attributes = self.fake_aws.ask_sqs("GetQueueAttributes", &ask).ok()?;
        // Two queues that are the same may have been created a second apart.
        attributes["Attributes"]
            .as_object_mut()?
            .remove("CreatedTimestamp");
        let tags = self.fake_aws.ask_sqs("ListQueueTags", &ask).ok()?;
        Some(Resource {
            owner: text(&tags["Tags"][OWNER_TAG]),
            attributes: texts(attributes["Attributes"].as_object()?),
        })
    }

    fn stream(&self, name: &str) -> Option<Resource> {
        let ask = json!({"StreamName": name});
        let summary = self
            .fake_aws
            .ask_kinesis("DescribeStreamSummary", &ask)
            .ok()?;
        let tags = self.fake_aws.ask_kinesis("ListTagsForStream", &ask).ok()?;
        let owner = tags["Tags"]
            .as_array()?
            .iter()
            .find(|tag| tag["Key"] == OWNER_TAG);
        Some(Resource {
            owner: owner.map_or_else(String::new, |tag| text(&tag["Value"])),
            attributes: texts(summary["StreamDescriptionSummary"].as_object()?),
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(all: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    all.iter()
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

impl ProvisionerBackend for AwsBackend {
    fn provisioner(&self) -> &dyn Provisioner {
        &self.aws
    }

    fn endpoint(&self) -> &str {
        &self.fake_aws.url
    }

    fn resource(&self, name: &str) -> Option<Resource> {
        self.queue(name).or_else(|| self.stream(name))
    }

    fn arn(&self, name: &str) -> String {
        sqs::arn(name)
    }

    fn make_queue(&self, name: &str, owner: &str, attributes: &[(&str, &str)]) {
        let fifo = name.ends_with(".fifo").then_some(("FifoQueue", "true"));
        let all: BTreeMap<_, _> = attributes.iter().copied().chain(fifo).collect();
        let tags = if owner.is_empty() {
            json!({})
        } else {
            json!({OWNER_TAG: owner})
        };
        let ask = json!({"QueueName": name, "Attributes": all, "tags": tags});
        self.fake_aws.ask_sqs("CreateQueue", &ask).unwrap();
    }

    fn make_stream(&self, name: &str, owner: &str) {
        let tags = if owner.is_empty() {
            json!({})
        } else {
            json!({OWNER_TAG: owner})
        };
        let ask = json!({"StreamName": name, "ShardCount": 1, "Tags": tags});
        self.fake_aws.ask_kinesis("CreateStream", &ask).unwrap();
    }

    fn delete(&self, name: &str) {
        let queue = self
            .fake_aws
            .ask_sqs("DeleteQueue", &json!({"QueueUrl": name}));
        if queue.is_err() {
            let ask = json!({"StreamName": name});
            self.fake_aws.ask_kinesis("DeleteStream", &ask).unwrap();
        }
    }

    fn fill(&self, queue: &str, messages: u64) {
        for _ in 0..messages {
            let id = self.sent.fetch_add(1, Ordering::Relaxed).to_string();
            let ask = json!({"QueueUrl": queue, "MessageBody": "-", "MessageGroupId": id, "MessageDeduplicationId": id});
            self.fake_aws.ask_sqs("SendMessage", &ask).unwrap();
        }
    }

    fn changes(&self) -> u64 {
        let called = self.fake_aws.called();
        let changes = called.iter().filter(|action| !READS.contains(&&***action));
        changes.map(|action| self.fake_aws.calls(action)).sum()
    }
}
