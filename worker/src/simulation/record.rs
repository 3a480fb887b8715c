//! What is known of a run: the contents that lay at the source, what was announced of them, and every change at the destination,
//! in order of time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use streampress_transport::sim::disk::DiskChange;
use streampress_transport::{ATTR_VERSION, FileName};

use super::history::HistoryStep;
use super::pipeline::SimPipeline;
use crate::message::{Digest, Message};
use crate::roles::source::original_name;

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
    /// Every version that the files queue took, in their order.
    pub(super) announced: Vec<AnnouncedVersion>,
    /// Dead letters that a redrive removed because a later version takes their place.
    pub(super) replaced: u64,
    /// What happened, and when.
    pub(super) steps: Vec<(Duration, HistoryStep)>,
}

/// A version of a file, as it was announced first. It may be announced again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AnnouncedVersion {
    pub(super) at: Duration,
    pub(super) name: String,
    pub(super) hash: Digest,
    pub(super) version: String,
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
        let is_own = |name: &str| is_reserved(name) || put_aside_name(name).is_some();
        let present = nodes.keys().filter(|name| !is_own(name));
        let names = present.cloned().chain(self.source.keys().cloned());
        for name in names.collect::<BTreeSet<_>>() {
            let present = nodes.get(&name).map(|node| node.bytes.clone());
            let contents = self.source.entry(name).or_default();
            if contents.last().map(|(_, last)| last) != Some(&present) {
                contents.push((now, present));
            }
        }
    }

    /// Takes in what was announced since the last call.
    pub(super) fn observe_announcements(&mut self, pipeline: &SimPipeline) {
        for accepted in pipeline.files_queue.take_accepted() {
            let message = accepted.message;
            let parsed = Message::parse(&message.body);
            let Some(file) = parsed.as_ref().ok().and_then(Message::file) else {
                continue;
            };
            let stated = message.attributes.get(ATTR_VERSION).cloned();
            let version = AnnouncedVersion {
                at: accepted.at,
                name: file.name.as_str().to_owned(),
                hash: file.hash.clone(),
                version: stated.unwrap_or_else(|| accepted.version.to_string()),
            };
            let is_same = |known: &AnnouncedVersion| {
                known.version == version.version && known.hash == version.hash
            };
            if !self.announced.iter().any(is_same) {
                self.announced.push(version);
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

    /// Whether the content lay at the source under this name at that time or later.
    pub(super) fn was_at_source_since(&self, name: &str, content: &Bytes, since: Duration) -> bool {
        let contents = self.source.get(name).map(Vec::as_slice).unwrap_or_default();
        let ends = contents
            .iter()
            .skip(1)
            .map(|(at, _)| *at)
            .chain([Duration::MAX]);
        let mut intervals = contents.iter().zip(ends);
        intervals.any(|((_, held), end)| held.as_ref() == Some(content) && end >= since)
    }

    /// When the content came to the source under this name for the last time.
    pub(super) fn came_to_source(&self, name: &str, content: &Bytes) -> Duration {
        let contents = self.source.get(name).into_iter().flatten();
        let mut own = contents.filter(|(_, held)| held.as_ref() == Some(content));
        own.next_back().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// When the content lay at the source under this name for the last time; the end of time where it still does.
    pub(super) fn left_source(&self, name: &str, content: &Bytes) -> Duration {
        let contents = self.source.get(name).map(Vec::as_slice).unwrap_or_default();
        let last = contents
            .iter()
            .rposition(|(_, held)| held.as_ref() == Some(content));
        let next = last.and_then(|place| contents.get(place + 1));
        next.map_or(Duration::MAX, |(at, _)| *at)
    }

    /// Whether the content lay at the destination under this name at that time or later.
    pub(super) fn lay_at_destination(&self, name: &str, content: &Bytes, since: Duration) -> bool {
        let is_it = |held: &Option<Bytes>| held.as_ref() == Some(content);
        let events = self.destination.get(name).map(Vec::as_slice);
        let events = events.unwrap_or_default();
        let lay_until_later =
            |event: &Event| event.at >= since && (is_it(&event.before) || is_it(&event.after));
        events.iter().any(lay_until_later) || events.last().is_some_and(|last| is_it(&last.after))
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

/// The name that a source had which was put aside under this one.
pub(super) fn put_aside_name(name: &str) -> Option<String> {
    original_name(&FileName::parse(name).ok()?)
}
