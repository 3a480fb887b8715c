//! Every default of the contract, once: the schema's `default:` and what `resolve` fills in both come from here.

use crate::api::pipeline::{
    Autoscaling, AutoscalingMode, Aws, Codec, CodecFormat, DeletionPolicy, Destination, Effort,
    Format, GeneratedFormat, Generator, GeneratorSchema, OnCompressed, Queue, Report, Resources,
    Source, Stream, Transport, TransportPolicy, Worker,
};
use crate::quantity::ByteSize;

/// Slots of a role without autoscaling.
pub const SLOTS: i32 = 1;

/// Key looked up in the generator's ConfigMap.
pub const SCHEMA_KEY: &str = "schema.json";

impl Default for Aws {
    fn default() -> Self {
        Aws {
            region: "us-east-1".into(),
            endpoint_url: None,
            credentials_secret_ref: None,
            service_account_name: None,
        }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Transport {
            policy: TransportPolicy::Create,
            deletion_policy: DeletionPolicy::WhenEmpty,
            files_queue: Queue::default(),
            chunks_queue: Queue::default(),
            stream: Stream::default(),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            name: None,
            visibility_timeout_seconds: 60,
            max_receive_count: 20,
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Stream {
            name: None,
            shards: 2,
            retention_hours: 24,
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Source {
            location: "file:///data/in".into(),
            formats: vec![Format::Json, Format::Csv, Format::Txt],
            scan_seconds: 0,
            on_compressed: OnCompressed::Keep,
        }
    }
}

impl Default for Destination {
    fn default() -> Self {
        Destination {
            location: "file:///data/out".into(),
        }
    }
}

impl Default for Codec {
    fn default() -> Self {
        Codec {
            format: CodecFormat::Hybrid,
            effort: Effort::Balanced,
            block_size: ByteSize::written("4Mi"),
            record_size: ByteSize::written("400Ki"),
        }
    }
}

impl Default for Generator {
    fn default() -> Self {
        Generator {
            schema: GeneratorSchema::default(),
            file_size: ByteSize::written("1Mi"),
            files_per_minute: 60,
            files: 0,
            format: GeneratedFormat::Json,
            seed: 0,
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Worker {
            replicas: 1,
            slots: None,
            interval_seconds: 1,
            autoscaling: Autoscaling::default(),
            resources: Resources::default(),
            pod_template: None,
        }
    }
}

impl Default for Autoscaling {
    fn default() -> Self {
        Autoscaling {
            mode: AutoscalingMode::None,
            min: 0,
            max: 4,
            target_backlog_per_replica: 20,
            scale_up_seconds: 15,
            scale_down_seconds: 120,
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Report {
            enabled: true,
            location: "file:///data/reports/results.html".into(),
        }
    }
}
