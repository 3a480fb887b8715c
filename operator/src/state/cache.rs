//! What the operator knows of its pipelines' objects: what it reads of each, and whether it is as it should be. A
//! thousand pipelines own ten thousand objects, so the objects themselves are not kept. Only complete lists count. What
//! the operator itself just wrote is taken in at once, so that it never acts on what was before its own write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::cluster_state::ClusterState;
use super::live_object::LiveObject;
use super::pipeline::PipelineKey;
use crate::resources::{ObjectKind, names};

/// An object's kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ObjectKey {
    /// Its kind.
    pub(crate) kind: ObjectKind,
    /// Its namespace.
    pub(crate) namespace: Arc<str>,
    /// Its name.
    pub(crate) name: Arc<str>,
}

struct CachedObject {
    /// The name of its pipeline, which is in the same namespace.
    pipeline: Arc<str>,
    version: u64,
    /// Since when it has been of this version.
    since: Instant,
    object: LiveObject,
}

/// All objects seen.
#[derive(Default)]
pub(crate) struct ObjectCache {
    inner: Mutex<CacheInner>,
}

#[derive(Default)]
struct CacheInner {
    objects: HashMap<ObjectKey, CachedObject>,
    of_pipeline: HashMap<PipelineKey, Vec<ObjectKey>>,
    /// What has come of a list that is not complete yet.
    listed: HashMap<ObjectKind, List>,
    /// The latest version that the watch of a kind has brought. A watch brings the versions of a kind in their order, so
    /// it has brought everything up to this one.
    watched: HashMap<ObjectKind, u64>,
}

#[derive(Default)]
struct List {
    keys: HashSet<ObjectKey>,
    latest: u64,
}

impl ObjectCache {
    /// Takes in what a watch brought; gives the pipelines to reconcile.
    pub(crate) fn watched(
        &self,
        kind: ObjectKind,
        event: Event<DynamicObject>,
    ) -> Vec<PipelineKey> {
        let mut inner = self.inner.lock();
        match event {
            Event::Apply(object) => {
                inner.reached(kind, version_of(&object));
                inner.put(kind, &object)
            }
            Event::Delete(object) => {
                inner.reached(kind, version_of(&object));
                inner.remove(&key_of(kind, &object)).into_iter().collect()
            }
            Event::Init => {
                inner.listed.insert(kind, List::default());
                Vec::new()
            }
            Event::InitApply(object) => {
                let list = inner.listed.entry(kind).or_default();
                list.keys.insert(key_of(kind, &object));
                list.latest = list.latest.max(version_of(&object));
                inner.put(kind, &object)
            }
            Event::InitDone => {
                let list = inner.listed.remove(&kind).unwrap_or_default();
                inner.reached(kind, list.latest);
                inner.retain(kind, &list.keys)
            }
        }
    }

    /// Takes in what the server answered to a write of this operator, unless the watch has brought that version or a
    /// later one: what came after the write may be that the object is gone or has lost its labels, of which nothing is
    /// kept.
    pub(crate) fn wrote(&self, kind: ObjectKind, object: &DynamicObject) {
        let mut inner = self.inner.lock();
        let version = version_of(object);
        let watched = inner.watched.get(&kind).copied().unwrap_or(0);
        if version == 0 || version > watched {
            inner.put(kind, object);
        }
    }

    /// Takes in that this operator deleted it.
    pub(crate) fn deleted(&self, key: &ObjectKey) {
        self.inner.lock().remove(key);
    }

    /// Whether there is such an object of a pipeline.
    pub(crate) fn has(&self, key: &ObjectKey) -> bool {
        self.inner.lock().objects.contains_key(key)
    }

    /// Everything that belongs to a pipeline, as it is now.
    pub(crate) fn snapshot(&self, pipeline: &PipelineKey) -> ClusterState {
        let inner = self.inner.lock();
        let keys = inner.of_pipeline.get(pipeline).into_iter().flatten();
        let objects: BTreeMap<_, _> = keys
            .filter_map(|key| {
                let cached = inner.objects.get(key)?;
                let object = cached.object.after(cached.since.elapsed());
                Some(((key.kind, Arc::clone(&key.name)), object))
            })
            .collect();
        ClusterState::new(pipeline.clone(), objects)
    }

    /// How many objects there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.lock().objects.len()
    }
}

impl CacheInner {
    /// Takes in that the watch of a kind has brought everything up to this version.
    fn reached(&mut self, kind: ObjectKind, version: u64) {
        let watched = self.watched.entry(kind).or_default();
        *watched = version.max(*watched);
    }

    /// Gives the pipelines for which there is something new.
    fn put(&mut self, kind: ObjectKind, object: &DynamicObject) -> Vec<PipelineKey> {
        let version = version_of(object);
        let mut key = key_of(kind, object);
        let before = self.objects.get(&key);
        if before.is_some_and(|before| version != 0 && before.version > version) {
            return Vec::new();
        }
        let Some(pipeline) = pipeline_of(object) else {
            // The label was removed: to its pipeline the object is missing.
            return self.remove(&key).into_iter().collect();
        };
        let since = before
            .filter(|before| version != 0 && before.version == version)
            .map_or_else(Instant::now, |before| before.since);
        // Ten objects share the names of one pipeline.
        let pipeline = match self.of_pipeline.get_key_value(&pipeline) {
            Some((known, _)) => known.clone(),
            None => pipeline,
        };
        key.namespace = Arc::clone(&pipeline.namespace);
        let cached = CachedObject {
            pipeline: Arc::clone(&pipeline.name),
            version,
            since,
            object: LiveObject::of(kind, object),
        };
        let is_new = |before: &CachedObject| cached.object.differs_from(&before.object);
        let is_new = self.objects.get(&key).is_none_or(is_new);
        match self.objects.insert(key.clone(), cached) {
            Some(before) if before.pipeline == pipeline.name => {
                is_new.then_some(pipeline).into_iter().collect()
            }
            Some(before) => {
                let former = PipelineKey {
                    namespace: Arc::clone(&pipeline.namespace),
                    name: before.pipeline,
                };
                self.disown(&former, &key);
                self.of_pipeline
                    .entry(pipeline.clone())
                    .or_default()
                    .push(key);
                vec![former, pipeline]
            }
            None => {
                self.of_pipeline
                    .entry(pipeline.clone())
                    .or_default()
                    .push(key);
                vec![pipeline]
            }
        }
    }

    /// Removes objects of a kind that are not in a complete list; gives their pipelines.
    fn retain(&mut self, kind: ObjectKind, listed: &HashSet<ObjectKey>) -> Vec<PipelineKey> {
        let gone: Vec<ObjectKey> = self
            .objects
            .keys()
            .filter(|key| key.kind == kind && !listed.contains(*key))
            .cloned()
            .collect();
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<PipelineKey> {
        let pipeline = PipelineKey {
            namespace: Arc::clone(&key.namespace),
            name: self.objects.remove(key)?.pipeline,
        };
        self.disown(&pipeline, key);
        Some(pipeline)
    }

    fn disown(&mut self, pipeline: &PipelineKey, key: &ObjectKey) {
        if let Some(keys) = self.of_pipeline.get_mut(pipeline) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.of_pipeline.remove(pipeline);
            }
        }
    }
}

fn key_of(kind: ObjectKind, object: &DynamicObject) -> ObjectKey {
    let PipelineKey { namespace, name } = PipelineKey::of(&object.metadata);
    ObjectKey {
        kind,
        namespace,
        name,
    }
}

/// An object's resource version; 0 where it has none that can be compared. Versions of one kind are numbers that grow.
/// Source: "Resource versions" in Kubernetes' API concepts.
fn version_of(object: &DynamicObject) -> u64 {
    let version = object.metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

/// By label, not by owner reference: an object that lost its reference is still to be restored.
fn pipeline_of(object: &DynamicObject) -> Option<PipelineKey> {
    let labels = object.metadata.labels.as_ref()?;
    Some(PipelineKey {
        namespace: object.metadata.namespace.as_deref()?.into(),
        name: labels.get(names::INSTANCE)?.as_str().into(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// Its version is also the second in which it was renewed.
    fn lease(version: u64, holder: &str) -> DynamicObject {
        let renewed = format!("2026-01-01T00:00:{version:02}.000000Z");
        serde_json::from_value(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": "a-compressor-0", "namespace": "n", "uid": "u", "resourceVersion": version.to_string(),
                "labels": {names::INSTANCE: "a", names::COMPONENT: "compressor"},
            },
            "spec": {"holderIdentity": holder, "renewTime": renewed},
        }))
        .expect("a Lease")
    }

    fn pipeline(name: &str) -> PipelineKey {
        PipelineKey {
            namespace: "n".into(),
            name: name.into(),
        }
    }

    fn put(cache: &ObjectCache, object: DynamicObject) -> Vec<PipelineKey> {
        cache.watched(ObjectKind::Lease, Event::Apply(object))
    }

    fn list(
        cache: &ObjectCache,
        kind: ObjectKind,
        objects: Vec<DynamicObject>,
    ) -> Vec<PipelineKey> {
        let mut pipelines = cache.watched(kind, Event::Init);
        for object in objects {
            pipelines.extend(cache.watched(kind, Event::InitApply(object)));
        }
        pipelines.extend(cache.watched(kind, Event::InitDone));
        pipelines
    }

    fn holder(cache: &ObjectCache) -> Option<String> {
        let state = cache.snapshot(&pipeline("a"));
        let holder = state.leases().next()?.1.holder.clone();
        Some(holder.unwrap_or_default())
    }

    #[test]
    fn a_renewal_is_no_news_and_a_new_holder_is() {
        let cache = ObjectCache::default();
        assert_eq!(put(&cache, lease(1, "x")).len(), 1);
        assert_eq!(put(&cache, lease(2, "x")).len(), 0);
        assert_eq!(put(&cache, lease(3, "y")).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_renewed_for_its_time_has_no_holder() {
        let cache = ObjectCache::default();
        put(&cache, lease(1, "x"));
        tokio::time::advance(Duration::from_secs(14)).await;
        put(&cache, lease(2, "x"));
        tokio::time::advance(Duration::from_secs(14)).await;
        // Listed again, for whatever reason: no sign of life.
        put(&cache, lease(2, "x"));
        assert_eq!(holder(&cache).as_deref(), Some("x"));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(holder(&cache).as_deref(), Some(""));
        put(&cache, lease(3, "x"));
        assert_eq!(holder(&cache).as_deref(), Some("x"));
    }

    #[test]
    fn what_we_wrote_is_not_overwritten_by_what_was_before() {
        let cache = ObjectCache::default();
        cache.wrote(ObjectKind::Lease, &lease(5, "new"));
        put(&cache, lease(4, "old"));
        assert_eq!(holder(&cache).as_deref(), Some("new"));
    }

    #[test]
    fn an_answer_that_comes_after_the_watch_told_of_later_changes_changes_nothing() {
        let cache = ObjectCache::default();
        put(&cache, lease(1, "x"));
        // This operator writes version 2; before it has the answer, another removes the labels by which it watches.
        put(&cache, lease(2, "x"));
        let left = cache.watched(ObjectKind::Lease, Event::Delete(lease(3, "x")));
        assert_eq!(left, [pipeline("a")]);
        cache.wrote(ObjectKind::Lease, &lease(2, "x"));
        assert!(cache.snapshot(&pipeline("a")).is_empty());
        // What it writes after that is known at once.
        cache.wrote(ObjectKind::Lease, &lease(4, "x"));
        assert_eq!(holder(&cache).as_deref(), Some("x"));
    }

    #[test]
    fn an_answer_is_taken_in_while_a_list_is_not_complete() {
        let cache = ObjectCache::default();
        cache.watched(ObjectKind::Lease, Event::Init);
        let mut other = lease(9, "x");
        other.metadata.name = Some("a-compressor-1".to_owned());
        cache.watched(ObjectKind::Lease, Event::InitApply(other));
        cache.wrote(ObjectKind::Lease, &lease(5, "new"));
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn an_object_whose_label_was_removed_is_missing_to_its_pipeline() {
        let cache = ObjectCache::default();
        put(&cache, lease(1, "x"));
        let mut bare = lease(2, "x");
        bare.metadata.labels = None;
        assert_eq!(put(&cache, bare), [pipeline("a")]);
        assert!(cache.snapshot(&pipeline("a")).is_empty());
    }

    #[test]
    fn an_object_whose_label_names_another_pipeline_is_reconciled_there() {
        let cache = ObjectCache::default();
        put(&cache, lease(1, "x"));
        let mut moved = lease(2, "x");
        moved.metadata.labels = Some([(names::INSTANCE.to_owned(), "b".to_owned())].into());
        let pipelines = put(&cache, moved);
        assert_eq!(
            (pipelines.as_slice(), cache.len()),
            ([pipeline("a"), pipeline("b")].as_slice(), 1)
        );
        assert!(cache.snapshot(&pipeline("a")).is_empty());
        assert!(!cache.snapshot(&pipeline("b")).is_empty());
    }

    #[test]
    fn a_complete_list_takes_away_what_is_gone() {
        let cache = ObjectCache::default();
        list(&cache, ObjectKind::Lease, vec![lease(1, "x")]);
        assert_eq!(list(&cache, ObjectKind::Role, Vec::new()), []);
        assert_eq!(cache.len(), 1);
        cache.watched(ObjectKind::Lease, Event::Init);
        assert_eq!(cache.len(), 1, "the list is not complete");
        cache.watched(ObjectKind::Lease, Event::InitApply(lease(1, "x")));
        assert_eq!(cache.watched(ObjectKind::Lease, Event::InitDone), []);
        assert_eq!(list(&cache, ObjectKind::Lease, Vec::new()).len(), 1);
        assert_eq!(cache.len(), 0);
    }
}
