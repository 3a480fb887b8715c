//! Every default of the contract, once: both the schema's `default:` and the resolved settings come from here.

use crate::api::pipeline::{
    AutoscalingMode, AutoscalingSpec, AwsSpec, CodecBundle, CodecEffort, CodecFormat, CodecSpec,
    DeletionPolicy, DestinationSpec, GeneratedFormat, GeneratorSpec, OnCompressed, OnRestored,
    QueueSpec, ReportSpec, ResourcesSpec, SourceFormat, SourceSpec, StreamSpec, TransportPolicy,
    TransportSpec, WorkerSpec,
};
use crate::quantity::ByteSize;

/// Slots of a role without autoscaling.
pub(crate) const SLOTS: i32 = 1;

/// Key of the schema in the generator's ConfigMap.
pub(crate) const SCHEMA_KEY: &str = "schema.json";

impl Default for AwsSpec {
    fn default() -> Self {
        AwsSpec {
            region: "us-east-1".into(),
            endpoint_url: None,
            credentials_secret_ref: None,
            service_account_name: None,
        }
    }
}

impl Default for TransportSpec {
    fn default() -> Self {
        TransportSpec {
            policy: TransportPolicy::Create,
            deletion_policy: DeletionPolicy::WhenEmpty,
            files_queue: QueueSpec::default(),
            chunks_queue: QueueSpec::default(),
            receipts_queue: QueueSpec::default(),
            stream: StreamSpec::default(),
        }
    }
}

impl Default for QueueSpec {
    fn default() -> Self {
        QueueSpec {
            name: None,
            visibility_timeout_seconds: 60,
            max_receive_count: 20,
        }
    }
}

impl Default for StreamSpec {
    fn default() -> Self {
        StreamSpec {
            name: None,
            shards: 2,
            retention_hours: 24,
            extend_retention: true,
        }
    }
}

impl Default for SourceSpec {
    fn default() -> Self {
        SourceSpec {
            location: "file:///data/in".into(),
            formats: vec![SourceFormat::Json, SourceFormat::Csv, SourceFormat::Txt],
            scan_seconds: 0,
            settle_seconds: None,
            on_compressed: OnCompressed::Keep,
            on_restored: OnRestored::Keep,
            writers_rename: false,
        }
    }
}

impl Default for DestinationSpec {
    fn default() -> Self {
        DestinationSpec {
            location: "file:///data/out".into(),
        }
    }
}

impl Default for CodecSpec {
    fn default() -> Self {
        CodecSpec {
            format: CodecFormat::Hybrid,
            format_version: 1,
            bundle: CodecBundle::Auto,
            effort: CodecEffort::Balanced,
            block_size: ByteSize::written("4Mi"),
            record_size: ByteSize::written("400Ki"),
        }
    }
}

impl Default for GeneratorSpec {
    fn default() -> Self {
        GeneratorSpec {
            schema: None,
            file_size: ByteSize::written("1Mi"),
            files_per_minute: 60,
            files: 0,
            format: GeneratedFormat::Json,
            seed: 0,
            resources: ResourcesSpec::default(),
            pod_template: None,
        }
    }
}

impl Default for WorkerSpec {
    fn default() -> Self {
        WorkerSpec {
            replicas: 1,
            slots: None,
            interval_seconds: 1,
            autoscaling: AutoscalingSpec::default(),
            resources: ResourcesSpec::default(),
            pod_template: None,
        }
    }
}

impl Default for AutoscalingSpec {
    fn default() -> Self {
        AutoscalingSpec {
            mode: AutoscalingMode::None,
            min: 0,
            max: 4,
            target_backlog_per_replica: 20,
            scale_up_seconds: 15,
            scale_down_seconds: 120,
        }
    }
}

impl Default for ReportSpec {
    fn default() -> Self {
        ReportSpec {
            enabled: true,
            location: "file:///data/reports/results.html".into(),
        }
    }
}
