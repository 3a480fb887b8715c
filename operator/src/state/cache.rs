//! What the operator has seen of its pipelines' objects. A thousand pipelines own ten thousand of them: they are kept as
//! text, packed against one object of their kind, from which each differs in a few places only. Only complete lists
//! count; what the operator itself just wrote is put in at once, so that it never acts on what was before its own write.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{DynamicObject, TypeMeta};
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use serde_json::Value;
use tokio::time::Instant;

use crate::resources::names;
use crate::resources::owned_object::Kind;
use crate::state::watch::Change;

/// How long a Lease holds that does not say so, as a worker's is made.
const LEASE_SECONDS: u64 = 15;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// One pipeline, by namespace and name.
pub type Owner = (Arc<str>, Arc<str>);

struct Stored {
    /// The name of its pipeline, which is in the same namespace.
    owner: Arc<str>,
    version: u64,
    /// What a trigger goes by: everything but signs of life.
    digest: u64,
    /// Since when it is of this version.
    since: Instant,
    packed: Box<[u8]>,
}

/// All objects seen.
#[derive(Default)]
pub struct Store {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<Key, Stored>,
    owned: HashMap<Owner, Vec<Key>>,
    /// The first object of each kind, as text; never another one, since the others are packed against it.
    models: HashMap<Kind, Box<[u8]>>,
}

impl Store {
    /// Takes in what a watch saw; gives the pipelines that should be looked at.
    pub fn take(&self, kind: Kind, change: Change) -> Vec<Owner> {
        let mut inner = self.inner();
        match change {
            Change::Put(object) => inner.put(kind, object),
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
                        .flat_map(|object| inner.put(kind, object)),
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
        keys.filter_map(|key| Some((key.clone(), inner.unpacked(key)?)))
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
    /// Gives the pipelines that there is something to look at for.
    fn put(&mut self, kind: Kind, mut object: DynamicObject) -> Vec<Owner> {
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
        let mut key = key_of(kind, &object);
        let before = self.objects.get(&key);
        if before.is_some_and(|before| version != 0 && before.version > version) {
            return Vec::new();
        }
        let Some(owner) = owner_of(&object) else {
            // Somebody took the label away: to its pipeline it is missing.
            return self.remove(&key).into_iter().collect();
        };
        // Ten objects share the names of one pipeline.
        let owner = match self.owned.get_key_value(&owner) {
            Some((known, _)) => known.clone(),
            None => owner,
        };
        key.namespace = Arc::clone(&owner.0);
        let digest = digest(kind, &object);
        let since = self
            .objects
            .get(&key)
            .filter(|before| version != 0 && before.version == version)
            .map_or_else(Instant::now, |before| before.since);
        let stored = Stored {
            owner: Arc::clone(&owner.1),
            version,
            digest,
            since,
            packed: self.packed(kind, &object),
        };
        match self.objects.insert(key.clone(), stored) {
            Some(before) if before.owner == owner.1 => {
                let news = before.digest != digest;
                news.then_some(owner).into_iter().collect()
            }
            Some(before) => {
                let former = (Arc::clone(&owner.0), before.owner);
                self.disown(&former, &key);
                self.owned.entry(owner.clone()).or_default().push(key);
                vec![former, owner]
            }
            None => {
                self.owned.entry(owner.clone()).or_default().push(key);
                vec![owner]
            }
        }
    }

    fn packed(&mut self, kind: Kind, object: &DynamicObject) -> Box<[u8]> {
        let text = serde_json::to_vec(object).unwrap_or_default();
        let model = self
            .models
            .entry(kind)
            .or_insert_with(|| text.clone().into_boxed_slice());
        compress_prepend_size_with_dict(&text, model).into_boxed_slice()
    }

    fn unpacked(&self, key: &Key) -> Option<Value> {
        let (stored, model) = (self.objects.get(key)?, self.models.get(&key.kind)?);
        let text = decompress_size_prepended_with_dict(&stored.packed, model).ok()?;
        let mut object: Value = serde_json::from_slice(&text).ok()?;
        if key.kind == Kind::Lease {
            free_if_expired(&mut object, stored.since.elapsed());
        }
        Some(object)
    }

    fn remove(&mut self, key: &Key) -> Option<Owner> {
        let name = self.objects.remove(key)?.owner;
        let owner = (Arc::clone(&key.namespace), name);
        self.disown(&owner, key);
        Some(owner)
    }

    fn disown(&mut self, owner: &Owner, key: &Key) {
        if let Some(keys) = self.owned.get_mut(owner) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.owned.remove(owner);
            }
        }
    }
}

/// A Lease that was not renewed for its own time is nobody's, though it still names whoever held it: a killed worker
/// cannot take its name off. Measured here from the last change seen, as whoever wants the Lease does, since clocks differ.
fn free_if_expired(lease: &mut Value, unchanged_for: Duration) {
    let seconds = lease["spec"]["leaseDurationSeconds"].as_u64();
    if unchanged_for > Duration::from_secs(seconds.unwrap_or(LEASE_SECONDS))
        && let Some(spec) = lease["spec"].as_object_mut()
    {
        spec.remove("holderIdentity");
    }
}

/// Namespace and name of an object; of a pipeline, what its objects are found by.
pub fn address(object: &DynamicObject) -> Owner {
    let text = |part: &Option<String>| part.as_deref().unwrap_or_default().into();
    (
        text(&object.metadata.namespace),
        text(&object.metadata.name),
    )
}

fn key_of(kind: Kind, object: &DynamicObject) -> Key {
    let (namespace, name) = address(object);
    Key {
        kind,
        namespace,
        name,
    }
}

/// By label, not by owner reference: an object that lost its reference is still to be put right.
fn owner_of(object: &DynamicObject) -> Option<Owner> {
    let labels = object.metadata.labels.as_ref()?;
    Some((
        object.metadata.namespace.as_deref()?.into(),
        labels.get(names::INSTANCE)?.as_str().into(),
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
    fn objects_come_back_as_they_went_in_whatever_the_first_of_their_kind_was() {
        let store = Store::default();
        let mut lone = lease(1, "", "");
        lone.data = Value::Null;
        let mut large = lease(2, "x", "");
        large.data["spec"]["holderIdentity"] = "somebody ".repeat(20_000).into();
        for (name, mut object) in [("a", lone), ("b", large), ("c", lease(3, "z", "1"))] {
            object.metadata.name = Some(name.into());
            object.metadata.managed_fields = None;
            let whole = serde_json::to_value(&object).expect("JSON");
            store.take(Kind::Lease, Change::Put(object));
            let kept = store.of(&("n".into(), "a".into()));
            let back = kept.into_iter().find(|(key, _)| *key.name == *name);
            assert_eq!(back.map(|(_, object)| object), Some(whole));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_renewed_for_its_time_is_nobodys() {
        let store = Store::default();
        let put =
            |version, renewed| store.take(Kind::Lease, Change::Put(lease(version, "x", renewed)));
        put(1, "1");
        tokio::time::advance(Duration::from_secs(14)).await;
        put(2, "2");
        tokio::time::advance(Duration::from_secs(14)).await;
        // Listed again, for whatever reason: no sign of life.
        put(2, "2");
        assert_eq!(holder(&store).as_deref(), Some("x"));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(holder(&store).as_deref(), Some(""));
        put(3, "3");
        assert_eq!(holder(&store).as_deref(), Some("x"));
    }

    #[test]
    fn what_we_wrote_is_not_overwritten_by_what_was_before() {
        let store = Store::default();
        store.wrote(Kind::Lease, lease(5, "new", ""));
        store.take(Kind::Lease, Change::Put(lease(4, "old", "")));
        assert_eq!(holder(&store).as_deref(), Some("new"));
    }

    #[test]
    fn an_object_whose_label_somebody_took_is_missing_to_its_pipeline() {
        let store = Store::default();
        let owner: Owner = ("n".into(), "a".into());
        store.take(Kind::Lease, Change::Put(lease(1, "x", "")));
        let mut bare = lease(2, "x", "");
        bare.metadata.labels = None;
        assert_eq!(
            store.take(Kind::Lease, Change::Put(bare)),
            std::slice::from_ref(&owner)
        );
        assert!(store.of(&owner).is_empty());
    }

    #[test]
    fn an_object_whose_label_names_another_pipeline_is_looked_at_there() {
        let store = Store::default();
        let (a, b): (Owner, Owner) = (("n".into(), "a".into()), ("n".into(), "b".into()));
        store.take(Kind::Lease, Change::Put(lease(1, "x", "")));
        let mut moved = lease(2, "x", "");
        moved.metadata.labels = Some([(names::INSTANCE.to_owned(), "b".to_owned())].into());
        let owners = store.take(Kind::Lease, Change::Put(moved));
        assert_eq!(
            (owners.as_slice(), store.len()),
            ([a.clone(), b.clone()].as_slice(), 1)
        );
        assert!(store.of(&a).is_empty());
        assert_eq!(store.of(&b).len(), 1);
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
