//! What is known of a run: the contents that lay at the source, and every change at the destination, in order of time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use streampress_transport::sim::disk::DiskChange;

use super::pipeline::SimPipeline;

/// Reserved for the pipeline: the folder where it keeps what it moved away, and its own records.
const RESERVED: &str = ".streampress/";

/// Everything that the checker may know.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct RunRecord {
    /// Contents of a name at the source since when, oldest first; none while there was no such file.
    pub(super) source: BTreeMap<String, Vec<(Duration, Option<Bytes>)>>,
    /// By name at the destination.
    pub(super) destination: BTreeMap<String, Vec<Event>>,
    /// What the pipeline changed at the source.
    pub(super) renamed_or_deleted: Vec<DiskChange>,
    /// Names whose present content was announced on request, and when.
    pub(super) submitted: BTreeMap<String, Duration>,
}

/// A change of a file at the destination.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) by_pipeline: bool,
    pub(super) before: Option<Bytes>,
    pub(super) after: Option<Bytes>,
}

impl RunRecord {
    /// Takes in what changed at the source since the last call.
    pub(super) fn observe_source(&mut self, pipeline: &SimPipeline) {
        let (now, nodes) = (pipeline.world.elapsed(), pipeline.source.nodes());
        let changes = pipeline.source.take_changes().into_iter();
        self.renamed_or_deleted
            .extend(changes.filter(|change| !is_reserved(&change.name)));
        let present = nodes.keys().filter(|name| !is_reserved(name));
        let names = present.cloned().chain(self.source.keys().cloned());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let present = nodes.get(&name).map(|node| node.bytes.clone());
            let contents = self.source.entry(name).or_default();
            if contents.last().map(|(_, last)| last) != Some(&present) {
                contents.push((now, present));
            }
        }
    }

    /// Takes in what the pipeline changed at the destination since the last call.
    pub(super) fn observe_destination(&mut self, pipeline: &SimPipeline) {
        for change in pipeline.destination.take_changes() {
            if !change.name.starts_with(RESERVED) {
                self.changed(
                    &change.name.clone(),
                    Event {
                        at: change.at,
                        by_pipeline: true,
                        before: change.before.map(|node| node.bytes),
                        after: change.after.map(|node| node.bytes),
                    },
                );
            }
        }
    }

    /// Another program does something to a file at the destination.
    pub(super) fn change_copy(
        &mut self,
        pipeline: &SimPipeline,
        name: &str,
        change: impl FnOnce(),
    ) {
        self.observe_destination(pipeline);
        let content = || pipeline.destination.node(name).map(|node| node.bytes);
        let before = content();
        change();
        let event = Event {
            at: pipeline.world.elapsed(),
            by_pipeline: false,
            before,
            after: content(),
        };
        self.changed(name, event);
    }

    fn changed(&mut self, name: &str, event: Event) {
        self.destination
            .entry(name.to_owned())
            .or_default()
            .push(event);
    }

    /// Whether the content ever lay at the source under this name.
    pub(super) fn was_at_source(&self, name: &str, content: &Bytes) -> bool {
        let contents = self.source.get(name).into_iter().flatten();
        contents
            .into_iter()
            .any(|(_, held)| held.as_ref() == Some(content))
    }
}

/// Whether the pipeline keeps the file for itself.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED)
}
