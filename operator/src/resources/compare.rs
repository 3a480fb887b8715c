//! Whether an object in the cluster is as it should be. The API server notes in `managedFields` which fields of an
//! object this operator applied and still owns: a value that another field manager changes leaves that list. So an object is
//! as it should be exactly if its values at those fields are the ones that would be applied now. Everything else in
//! it belongs to others. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

use super::names;
use super::object::OwnedObject;

/// A hash of the fields that this operator owns. Valid within one process only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldsDigest(u64);

impl FieldsDigest {
    /// Of an object as it should be.
    pub(crate) fn of_desired(object: &OwnedObject) -> Self {
        Self::of(&desired_fields(
            serde_json::to_value(object).unwrap_or_default(),
        ))
    }

    /// Of an object in the cluster.
    pub(crate) fn of_live(object: &DynamicObject) -> Self {
        Self::of(&applied_fields(object))
    }

    fn of(fields: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        fields.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// An object without what names it, which no field manager owns.
fn desired_fields(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.remove("apiVersion");
        object.remove("kind");
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("name");
            metadata.remove("namespace");
        }
    }
    object
}

/// The part of an object that this operator applied and still owns.
fn applied_fields(object: &DynamicObject) -> Value {
    let ours = object.managed_fields().iter().find(|entry| {
        entry.manager.as_deref() == Some(names::MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    });
    let fields = ours.and_then(|entry| entry.fields_v1.as_ref());
    let fields = fields.and_then(|fields| fields.0.as_object());
    let meta = &object.metadata;
    let metadata = json!({
        "annotations": meta.annotations,
        "finalizers": meta.finalizers,
        "labels": meta.labels,
        "ownerReferences": meta.owner_references,
    });
    let owned = fields.into_iter().flatten().filter_map(|(field, deeper)| {
        let name = field.strip_prefix("f:")?;
        let value = match name {
            "metadata" => &metadata,
            _ => object.data.get(name)?,
        };
        Some((name.to_owned(), extract(value, deeper)?))
    });
    Value::Object(owned.collect())
}

/// What stands in `value` at these fields. Nothing where none of them is there.
///
/// `f:` names a member of an object, `k:` a member of a list by its keys, `v:` a member of a list by its value, and
/// `.` the object or member itself. A field without members means all of its value.
/// Source: `FieldsV1` in the reference of ObjectMeta, and "Server-Side Apply" in Kubernetes' documentation.
fn extract(value: &Value, fields: &Value) -> Option<Value> {
    let fields = fields.as_object().filter(|fields| !fields.is_empty());
    let Some(fields) = fields else {
        return Some(value.clone());
    };
    match value {
        Value::Object(members) => {
            let owned = fields.iter().filter_map(|(field, deeper)| {
                let name = field.strip_prefix("f:")?;
                let owned = extract(members.get(name)?, deeper)?;
                Some((name.to_owned(), owned))
            });
            let owned: Map<_, _> = owned.collect();
            (!owned.is_empty() || fields.contains_key(".")).then_some(Value::Object(owned))
        }
        Value::Array(items) => {
            let owned = items.iter().filter_map(|item| {
                let deeper = fields
                    .iter()
                    .find_map(|(field, deeper)| selects(field, item).then_some(deeper))?;
                extract(item, deeper)
            });
            Some(Value::Array(owned.collect()))
        }
        plain => Some(plain.clone()),
    }
}

/// Whether a field of a list means this member.
fn selects(field: &str, item: &Value) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    if let Some(keys) = field.strip_prefix("k:") {
        let keys = parsed(keys);
        let Some(keys) = keys.as_ref().and_then(Value::as_object) else {
            return false;
        };
        keys.iter().all(|(key, value)| item.get(key) == Some(value))
    } else if let Some(value) = field.strip_prefix("v:") {
        parsed(value).as_ref() == Some(item)
    } else {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `fields` are the ones that the API server notes as ours.
    fn live(mut object: Value, fields: &Value) -> FieldsDigest {
        let entry = |manager: &str, fields: &Value| json!({"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields});
        object["metadata"]["managedFields"] = json!([
            entry("kubectl", &json!({"f:b": {}})),
            entry(names::MANAGER, fields)
        ]);
        FieldsDigest::of_live(&serde_json::from_value(object).expect("an object"))
    }

    #[track_caller]
    fn check(object: Value, fields: Value, desired: Value, in_sync: bool) {
        let same =
            live(object.clone(), &fields) == FieldsDigest::of(&desired_fields(desired.clone()));
        assert_eq!(same, in_sync, "{object} with {fields} against {desired}");
    }

    #[test]
    fn foreign_fields_and_members_are_no_drift() {
        check(
            json!({"a": 1, "b": 2}),
            json!({"f:a": {}}),
            json!({"a": 1}),
            true,
        );
        check(
            json!({"containers": [{"name": "sidecar"}, {"name": "worker", "image": "x", "ttl": 1}]}),
            json!({"f:containers": {"k:{\"name\":\"worker\"}": {".": {}, "f:name": {}, "f:image": {}}}}),
            json!({"containers": [{"name": "worker", "image": "x"}]}),
            true,
        );
        check(
            json!({"kind": "Lease", "metadata": {"name": "x", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": "2"}}}),
            json!({"f:metadata": {"f:labels": {"f:a": {}}}}),
            json!({"kind": "Lease", "apiVersion": "v1", "metadata": {"name": "x", "namespace": "n", "labels": {"a": "1"}}}),
            true,
        );
    }

    #[test]
    fn a_changed_or_missing_field_is_drift() {
        let ours = json!({"f:a": {}});
        check(json!({"a": 2}), ours.clone(), json!({"a": 1}), false);
        check(json!({}), ours, json!({"a": 1}), false);
        // Another field manager wrote it and owns it now.
        check(json!({"a": 1}), json!({}), json!({"a": 1}), false);
        check(
            json!({"a": 1, "b": 1}),
            json!({"f:b": {}}),
            json!({"a": 1, "b": 1}),
            false,
        );
        check(
            json!({"containers": []}),
            json!({"f:containers": {"k:{\"name\":\"worker\"}": {".": {}, "f:name": {}}}}),
            json!({"containers": [{"name": "worker"}]}),
            false,
        );
        let verbs = json!({"f:verbs": {}});
        check(
            json!({"verbs": ["get", "list"]}),
            verbs.clone(),
            json!({"verbs": ["get"]}),
            false,
        );
        check(
            json!({"verbs": ["get"]}),
            verbs,
            json!({"verbs": ["get"]}),
            true,
        );
    }

    #[test]
    fn a_field_that_is_applied_no_more_is_drift() {
        check(
            json!({"a": 1, "b": 2}),
            json!({"f:a": {}, "f:b": {}}),
            json!({"a": 1}),
            false,
        );
    }

    #[test]
    fn a_foreign_member_of_what_is_taken_whole_is_drift() {
        check(
            json!({"subjects": [{"kind": "ServiceAccount", "name": "ours"}, {"kind": "User", "name": "mallory"}]}),
            json!({"f:subjects": {}}),
            json!({"subjects": [{"kind": "ServiceAccount", "name": "ours"}]}),
            false,
        );
        check(
            json!({"ingress": [{"ports": [{"port": 8080, "protocol": "TCP", "endPort": 65535}]}]}),
            json!({"f:ingress": {}}),
            json!({"ingress": [{"ports": [{"port": 8080, "protocol": "TCP"}]}]}),
            false,
        );
        check(
            json!({"selector": {"a": "1", "b": "2"}}),
            json!({"f:selector": {}}),
            json!({"selector": {"a": "1"}}),
            false,
        );
    }

    #[test]
    fn members_of_a_list_are_found_by_all_of_their_keys_or_by_their_value() {
        check(
            json!({"ports": [{"port": 1, "protocol": "UDP", "name": "x"}, {"port": 1, "protocol": "TCP", "name": "y"}]}),
            json!({"f:ports": {"k:{\"port\":1,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}, "f:name": {}}}}),
            json!({"ports": [{"port": 1, "protocol": "TCP", "name": "y"}]}),
            true,
        );
        check(
            json!({"finalizers": ["theirs", "ours"]}),
            json!({"f:finalizers": {"v:\"ours\"": {}}}),
            json!({"finalizers": ["ours"]}),
            true,
        );
    }

    #[test]
    fn an_object_that_nothing_was_applied_to_is_drift_and_its_fields_may_be_anything() {
        let desired = FieldsDigest::of(&json!({"a": 1}));
        let bare = serde_json::from_value(json!({"a": 1})).expect("an object");
        assert_ne!(FieldsDigest::of_live(&bare), desired);
        let odd = json!({"f:b": {"k:not json": {}, "x": 7}});
        for fields in [json!({}), json!(["?"]), odd] {
            assert_ne!(
                live(json!({"a": 1, "b": [1]}), &fields),
                desired,
                "{fields}"
            );
        }
    }
}
