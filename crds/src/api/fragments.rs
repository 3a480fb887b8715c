//! Parts of the schema that the types alone cannot say.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::api::patterns::AMOUNT;
use crate::quantity::{self, ByteSize};

/// An object with any fields.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Amounts of resources by name, as in a container's resources.
pub(super) fn amounts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": AMOUNT,
            "maxLength": 24
        }
    })
}

/// Conditions as kstatus reads them.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "Ready, Reconciling, Stalled, TransportReady or Drained."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether the condition holds."},
                "reason": {"type": "string", "maxLength": 1024, "minLength": 1, "description": "Why, in one word."},
                "message": {"type": "string", "maxLength": 32768, "description": "Why, in a sentence."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When the status last changed."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "The generation of the spec that the condition was made from."}
            }
        }
    })
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": quantity::PATTERN,
            "maxLength": 24
        })
    }
}
