//! What the operator has seen of its pipelines' objects. Kept as text, which needs a fraction of the memory of parsed
//! objects: a thousand pipelines own ten thousand of them. Only complete lists count; what the operator itself just
//! wrote is put in at once, so that it never acts on what was before its own write.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use kube::api::{DynamicObject, TypeMeta};
use serde_json::Value;

use crate::child::Kind;
use crate::names;
use crate::watch::Change;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One pipeline, by namespace and name.
pub type Owner = (String, String);

struct Stored {
    owner: Owner,
    version: u64,
    /// What a trigger goes by: everything but signs of life.
    digest: u64,
    text: Box<[u8]>,
}

/// All objects seen.
#[derive(Default)]
pub struct Store {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<Key, Stored>,
    owned: HashMap<Owner, HashSet<Key>>,
}

impl Store {
    /// Takes in what a watch saw; gives the pipelines that should be looked at.
    pub fn take(&self, kind: Kind, change: Change) -> Vec<Owner> {
        let mut inner = self.inner();
        match change {
            Change::Put(object) => inner.put(kind, object).into_iter().collect(),
            Change::Gone(object) => inner.remove(&key_of(kind, &object)).into_iter().collect(),
            Change::All(objects) => {
                let listed: HashSet<Key> =
                    objects.iter().map(|object| key_of(kind, object)).collect();
                let gone: Vec<Key> = inner
                    .objects
                    .keys()
                    .filter(|key| key.kind == kind && !listed.contains(*key))
                    .cloned()
                    .collect();
                let mut owners: Vec<Owner> =
                    gone.iter().filter_map(|key| inner.remove(key)).collect();
                owners.extend(
                    objects
                        .into_iter()
                        .filter_map(|object| inner.put(kind, object)),
                );
                owners
            }
        }
    }

    /// Takes in what the server answered to a write of ours.
    pub fn wrote(&self, kind: Kind, object: DynamicObject) {
        self.inner().put(kind, object);
    }

    /// Takes in that we deleted it.
    pub fn deleted(&self, key: &Key) {
        self.inner().remove(key);
    }

    /// Everything that belongs to a pipeline.
    pub fn of(&self, owner: &Owner) -> HashMap<Key, Value> {
        let inner = self.inner();
        let keys = inner.owned.get(owner).into_iter().flatten();
        keys.filter_map(|key| {
            Some((
                key.clone(),
                serde_json::from_slice(&inner.objects.get(key)?.text).ok()?,
            ))
        })
        .collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives the owner when there is something to look at.
    fn put(&mut self, kind: Kind, mut object: DynamicObject) -> Option<Owner> {
        let key = key_of(kind, &object);
        let version = object
            .metadata
            .resource_version
            .as_deref()
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        object.metadata.managed_fields = None;
        // Members of a list come without these.
        object.types = Some(TypeMeta {
            api_version: kind.api_version(),
            kind: kind.name().to_owned(),
        });
        let owner = owner_of(&object)?;
        let digest = digest(kind, &object);
        let before = self.objects.get(&key);
        if before.is_some_and(|before| version != 0 && before.version > version) {
            return None;
        }
        let news = before.is_none_or(|before| before.digest != digest || before.owner != owner);
        if let Some(before) = before
            .filter(|before| before.owner != owner)
            .map(|before| before.owner.clone())
        {
            self.disown(&before, &key);
        }
        let text = serde_json::to_vec(&object)
            .unwrap_or_default()
            .into_boxed_slice();
        self.owned
            .entry(owner.clone())
            .or_default()
            .insert(key.clone());
        self.objects.insert(
            key,
            Stored {
                owner: owner.clone(),
                version,
                digest,
                text,
            },
        );
        news.then_some(owner)
    }

    fn remove(&mut self, key: &Key) -> Option<Owner> {
        let owner = self.objects.remove(key)?.owner;
        self.disown(&owner, key);
        Some(owner)
    }

    fn disown(&mut self, owner: &Owner, key: &Key) {
        if let Some(keys) = self.owned.get_mut(owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.owned.remove(owner);
            }
        }
    }
}

fn key_of(kind: Kind, object: &DynamicObject) -> Key {
    Key {
        kind,
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
    }
}

/// By label, not by owner reference: an object that lost its reference is still to be put right.
fn owner_of(object: &DynamicObject) -> Option<Owner> {
    let labels = object.metadata.labels.as_ref()?;
    Some((
        object.metadata.namespace.clone()?,
        labels.get(names::INSTANCE)?.clone(),
    ))
}

/// A Lease's renewals and a Deployment's bookkeeping are no reason to look at a pipeline.
fn digest(kind: Kind, object: &DynamicObject) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let meta = &object.metadata;
    (
        &meta.uid,
        &meta
            .deletion_timestamp
            .as_ref()
            .map(|time| time.0.as_second()),
    )
        .hash(&mut hasher);
    meta.labels.hash(&mut hasher);
    let owners = meta.owner_references.as_ref().map(|owners| {
        owners
            .iter()
            .map(|owner| (&owner.uid, &owner.name))
            .collect::<Vec<_>>()
    });
    owners.hash(&mut hasher);
    if kind == Kind::Lease {
        object.data["spec"]["holderIdentity"]
            .as_str()
            .hash(&mut hasher);
    } else {
        meta.annotations.hash(&mut hasher);
        object.data.to_string().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(version: u64, holder: &str, renewed: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": "a-compressor-0", "namespace": "n", "uid": "u", "resourceVersion": version.to_string(),
                "labels": {names::INSTANCE: "a"},
                "managedFields": [{"manager": "x"}],
            },
            "spec": {"holderIdentity": holder, "renewTime": renewed},
        }))
        .expect("a Lease")
    }

    fn holder(store: &Store) -> Option<String> {
        let objects = store.of(&("n".into(), "a".into()));
        objects.values().next().map(|lease| {
            lease["spec"]["holderIdentity"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
    }

    #[test]
    fn a_renewal_is_no_news_and_a_new_holder_is() {
        let store = Store::default();
        let put = |object| store.take(Kind::Lease, Change::Put(object)).len();
        assert_eq!(put(lease(1, "x", "1")), 1);
        assert_eq!(put(lease(2, "x", "2")), 0);
        assert_eq!(put(lease(3, "y", "3")), 1);
    }

    #[test]
    fn what_we_wrote_is_not_overwritten_by_what_was_before() {
        let store = Store::default();
        store.wrote(Kind::Lease, lease(5, "new", ""));
        store.take(Kind::Lease, Change::Put(lease(4, "old", "")));
        assert_eq!(holder(&store).as_deref(), Some("new"));
    }

    #[test]
    fn members_of_a_list_are_as_whole_as_those_of_a_watch() {
        let store = Store::default();
        let listed = DynamicObject {
            types: None,
            ..lease(1, "x", "")
        };
        store.take(Kind::Lease, Change::All(vec![listed]));
        let objects = store.of(&("n".into(), "a".into()));
        assert!(objects.values().all(
            |lease| lease["kind"] == "Lease" && lease["apiVersion"] == "coordination.k8s.io/v1"
        ));
    }

    #[test]
    fn a_complete_list_takes_away_what_is_gone() {
        let store = Store::default();
        store.take(Kind::Lease, Change::All(vec![lease(1, "x", "")]));
        assert_eq!(
            store.take(Kind::Role, Change::All(Vec::new())),
            Vec::<Owner>::new()
        );
        assert_eq!(store.len(), 1);
        assert_eq!(store.take(Kind::Lease, Change::All(Vec::new())).len(), 1);
        assert!(store.is_empty());
    }
}
