//! How every version that was announced ended.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::check::{Rest, file_of, shown};
use super::record::{AnnouncedVersion, RunRecord};
use crate::message::Digest;

/// How many versions ended in which way.
#[derive(Debug, Default)]
pub(super) struct VersionEnds {
    /// Only because another took their place.
    pub(super) superseded: u64,
    /// Names and contents that were restored.
    pub(super) restored: BTreeSet<(String, String)>,
}

/// Every version that was announced was restored, or is a dead letter, or one that was announced later, or lay at the source
/// later, took its place and was restored or is a dead letter. Also what is wrong.
pub(super) fn what_became_of_announced(
    record: &RunRecord,
    rest: &Rest,
) -> (VersionEnds, Vec<String>) {
    let contents: BTreeMap<String, &Bytes> = record
        .source
        .values()
        .flatten()
        .filter_map(|(_, content)| content.as_ref())
        .map(|content| (Digest::of(content).into(), content))
        .collect();
    let letters: Vec<_> = rest.dead_letters.iter().filter_map(file_of).collect();
    let (mut ends, mut wrong) = (VersionEnds::default(), Vec::new());
    // Of those that have ended by themselves: place in the order of announcements, name and content.
    let mut ended: Vec<(usize, &str, &Bytes)> = Vec::new();
    let mut others = Vec::new();
    for (place, version) in record.announced.iter().enumerate() {
        let (name, hash) = (&*version.name, &version.hash);
        let Some(content) = contents.get(hash.as_str()) else {
            wrong.push(format!(
                "{name}: at {:?} a content was announced that never lay at the source",
                version.at
            ));
            continue;
        };
        // What was announced late, when the source had another content, may have been restored before.
        let left = record.left_source(name, content);
        let since = match left <= version.at {
            true => record.came_to_source(name, content),
            false => version.at,
        };
        let is_restored = record.lay_at_destination(name, content, since);
        let is_letter = |(about, of): &(String, Digest)| about == name && of == hash;
        if is_restored {
            ends.restored
                .insert((name.to_owned(), hash.as_str().to_owned()));
        }
        match is_restored || letters.iter().any(is_letter) {
            true => ended.push((place, name, content)),
            false => others.push((place, version, *content)),
        }
    }
    for (place, version, content) in others {
        let since = version.at.min(record.left_source(&version.name, content));
        let is_successor = |(other, name, of): &(usize, &str, &Bytes)| {
            *name == version.name && (*other > place || record.was_at_source_since(name, of, since))
        };
        if ended.iter().any(is_successor) {
            ends.superseded += 1;
        } else if !was_lost_with_its_source(record, rest, version, content) {
            wrong.push(format!(
                "{}: {}, announced at {:?} as {}, was neither restored nor superseded and is no dead letter",
                version.name,
                shown(content),
                version.at,
                version.version
            ));
        }
    }
    (ends, wrong)
}

/// Whether others purged or deleted a queue after the version was announced, and the source does not have its content any more:
/// then no process can know of it but by the journal, which has no bytes.
fn was_lost_with_its_source(
    record: &RunRecord,
    rest: &Rest,
    version: &AnnouncedVersion,
    content: &Bytes,
) -> bool {
    let present = rest.source.get(&version.name).map(|node| &node.bytes);
    let mut later = record.steps.iter().filter(|(at, _)| *at >= version.at);
    present != Some(content) && later.any(|(_, step)| step.loses_messages())
}
