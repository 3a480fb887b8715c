//! The pieces of the generated schema that the types alone cannot say: patterns, untyped parts, and the finished CRD.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::pipeline::CompressionPipeline;

/// Name of a Secret, ConfigMap, claim or service account.
pub const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// Key in a ConfigMap.
pub const CONFIG_KEY: &str = r"^[-._a-zA-Z0-9]+$";
/// AWS region.
pub const REGION: &str = r"^[a-z0-9]+(-[a-z0-9]+)*$";
/// Address of an AWS stand-in, without credentials, query or fragment.
pub const ENDPOINT: &str = r"^https?://[-a-zA-Z0-9.:_\[\]]+(/[-a-zA-Z0-9._~/]*)?$";
/// SQS FIFO queue.
pub const QUEUE_NAME: &str = r"^[-_a-zA-Z0-9]{1,75}\.fifo$";
/// Kinesis stream.
pub const STREAM_NAME: &str = r"^[-_.a-zA-Z0-9]{1,128}$";
/// Folder below /data, or prefix in a bucket.
pub const LOCATION: &str = r"^(file:///data(/[-a-zA-Z0-9_=+,@][-a-zA-Z0-9_=+,@. ]*)+/?|s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/[-a-zA-Z0-9_=+,@][-a-zA-Z0-9_=+,@. ]*)*/?)$";
/// A page below /data, or in a bucket.
pub const REPORT_LOCATION: &str = r"^(file:///data|s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9])(/[-a-zA-Z0-9_=+,@][-a-zA-Z0-9_=+,@. ]*)*/[-a-zA-Z0-9_=+,@][-a-zA-Z0-9_=+,@. ]*\.html$";

/// The finished CustomResourceDefinition.
pub fn crd() -> CustomResourceDefinition {
    CompressionPipeline::crd()
}

/// Any JSON.
pub(crate) fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// Any object.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Amounts of resources by name, as Kubernetes writes them.
pub(crate) fn amounts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
            "maxLength": 24
        }
    })
}

/// Conditions, as kstatus wants them.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "Ready, Reconciling, Stalled, TransportReady or Drained."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "reason": {"type": "string", "maxLength": 1024, "minLength": 1, "description": "Why, in one word."},
                "message": {"type": "string", "maxLength": 32768, "description": "Why, in a sentence."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When the status last changed."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "The generation of the spec it speaks of."}
            }
        }
    })
}
