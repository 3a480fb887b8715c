//! The promise, as checks of what is known of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use streampress_transport::sim::{Node, StoredMessage};
use streampress_transport::{ATTR_REASON, DeadLetterReason};

use super::counts::{what_was_counted, what_was_used};
use super::ends::what_became_of_announced;
use super::letters::what_a_letter_says;
use super::pipeline::RunCounts;
use super::record::{Event, RunRecord, is_reserved, put_aside_name};
use crate::message::{Digest, Message};

/// What lies where, once nothing waits any more.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rest {
    /// Whether everything ended in time.
    pub(super) is_done: bool,
    pub(super) source: BTreeMap<String, Node>,
    pub(super) destination: BTreeMap<String, Node>,
    pub(super) dead_letters: Vec<StoredMessage>,
    /// Messages that queues took.
    pub(super) sends: u64,
    /// Whether what lies at the source is announced by itself.
    pub(super) is_scanned: bool,
    /// Whether dead letters were redriven at the end.
    pub(super) is_redriven: bool,
    /// Whether sources are put aside under another name.
    pub(super) renames: bool,
    /// Whether sources are taken away only once they were restored.
    pub(super) keeps_until_restored: bool,
    /// Announced files that are at the source, of which the pipeline does not know what became of them.
    pub(super) unconfirmed: Vec<String>,
    /// What the processes counted.
    pub(super) counts: RunCounts,
    /// Calls of services.
    pub(super) calls: u64,
    /// Bytes of all records that were appended to the stream.
    pub(super) appended_bytes: u64,
    /// How long all took.
    pub(super) elapsed: Duration,
}

/// What is wrong; nothing where the promise was kept.
pub(super) fn check(record: &RunRecord, rest: &Rest) -> Vec<String> {
    let mut wrong = Vec::new();
    if !rest.is_done {
        wrong.push("messages wait although nothing is in their way".to_owned());
    }
    wrong.extend(what_was_used(record, rest));
    // Without a scan no process acts on what is not known.
    for record in rest.unconfirmed.iter().filter(|_| rest.is_scanned) {
        wrong.push(format!(
            "what became of an announced file is not known: {record}"
        ));
    }
    for letter in &rest.dead_letters {
        wrong.extend(what_a_letter_says(record, letter));
    }
    for (name, events) in &record.destination {
        wrong.extend(what_became_visible(record, name, events));
        wrong.extend(what_others_wrote(rest, record, name, events));
    }
    for name in record.source.keys() {
        wrong.extend(what_lies_there(record, rest, name));
    }
    let (ends, without_end) = what_became_of_announced(record, rest);
    wrong.extend(without_end);
    wrong.extend(what_was_counted(record, rest, &ends));
    if rest.keeps_until_restored {
        wrong.extend(what_was_renamed_or_deleted(record));
    }
    if rest.renames {
        wrong.extend(what_was_put_aside(record, rest));
    }
    wrong.extend(what_is_called_missing(record, rest));
    wrong
}

/// Only whole contents of the source become visible, and none after a newer one.
fn what_became_visible(record: &RunRecord, name: &str, events: &[Event]) -> Option<String> {
    let contents = record
        .source
        .get(name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let put_by_others = |until: Duration, content: &Bytes| {
        let mut earlier = events.iter().take_while(|event| event.at <= until);
        earlier.any(|event| !event.by_pipeline && event.after.as_ref() == Some(content))
    };
    // The earliest place in the history of contents where what is visible now may be from.
    let mut newest = 0;
    for event in events.iter().filter(|event| event.by_pipeline) {
        let Some(after) = &event.after else { continue };
        let is_same = |(_, held): &(Duration, Option<Bytes>)| held.as_ref() == Some(after);
        match contents.iter().skip(newest).position(is_same) {
            Some(place) => newest += place,
            None if contents.iter().any(is_same) => {
                return Some(format!(
                    "{name}: at {:?} {} became visible after a newer content",
                    event.at,
                    shown(after)
                ));
            }
            // A file of another program was moved, found to be another one than was observed, and put back.
            None if put_by_others(event.at, after) => {}
            None => {
                return Some(format!(
                    "{name}: at {:?} {} became visible, which never lay at the source",
                    event.at,
                    shown(after)
                ));
            }
        }
    }
    None
}

/// What other programs wrote at the destination is there, or was moved out of the way; unless they removed it.
fn what_others_wrote(
    rest: &Rest,
    record: &RunRecord,
    name: &str,
    events: &[Event],
) -> Option<String> {
    let mut theirs: Vec<&Bytes> = Vec::new();
    for event in events.iter().filter(|event| !event.by_pipeline) {
        if let Some(before) = &event.before
            && let Some(at) = theirs.iter().position(|held| *held == before)
        {
            theirs.remove(at);
        }
        if let Some(after) = &event.after
            && !record.was_at_source(name, after)
        {
            theirs.push(after);
        }
    }
    let is_kept = |content: &Bytes| {
        let mut kept = rest.destination.iter();
        kept.any(|(at, node)| node.bytes == *content && (at == name || is_reserved(at)))
    };
    let lost = theirs.into_iter().find(|content| !is_kept(content))?;
    Some(format!(
        "{name}: {}, which others wrote, is gone",
        shown(lost)
    ))
}

/// The newest content lies at the destination, but for what others did there afterwards.
fn what_lies_there(record: &RunRecord, rest: &Rest, name: &str) -> Option<String> {
    let present = rest.source.get(name).map(|node| &node.bytes);
    let (since, _) = record.source.get(name)?.last()?;
    let content = match (present, record.submitted.get(name)) {
        // Deleted: what became of it is in the order of what was visible, or in a dead letter.
        (None, _) => return None,
        (Some(content), _) if rest.is_scanned => content,
        (Some(content), Some(submitted)) if submitted >= since => content,
        // Changed after it was submitted, or never submitted.
        (Some(_), _) => return None,
    };
    let found = rest.destination.get(name).map(|node| &node.bytes);
    // What was submitted is to be restored, whatever others did to the copy before.
    let submitted = record.submitted.get(name).copied().unwrap_or_default();
    let since = submitted.max(observed_since(record, name, *since));
    if found == Some(content) || is_left_to_others(record, name, since, content, found) {
        return None;
    }
    let letters = || {
        let all = rest.dead_letters.iter();
        all.filter(|letter| is_about(letter, name))
    };
    let is_of_content = |letter: &StoredMessage| {
        file_of(letter).is_some_and(|(_, hash)| hash == Digest::of(content))
    };
    // A person would redrive it.
    if !rest.is_redriven && letters().any(is_of_content) {
        return None;
    }
    let dead: Vec<String> = letters()
        .map(|letter| format!("{:?}", letter.message.attributes))
        .collect();
    Some(format!(
        "{name}: the source has {}, the destination {}; dead letters: {dead:?}",
        shown(content),
        found.map_or("nothing".to_owned(), shown)
    ))
}

/// Since when, at the latest `since`, the source has had its present content, as far as the pipeline can tell: what came and
/// went before it was read leaves no trace once the content before it is back, for equal content is not announced again. What
/// was restored was read.
fn observed_since(record: &RunRecord, name: &str, since: Duration) -> Duration {
    let contents = record.source.get(name).into_iter().flatten();
    let mut newest_first = contents.rev();
    let present = newest_first.next().map(|(_, content)| content);
    let was_restored = |content: &Option<Bytes>| {
        let mut events = record.destination.get(name).into_iter().flatten();
        content.is_some() && events.any(|event| event.by_pipeline && event.after == *content)
    };
    newest_first
        .take_while(|(_, content)| Some(content) == present || !was_restored(content))
        .filter(|(_, content)| Some(content) == present)
        .map(|(at, _)| *at)
        .last()
        .unwrap_or(since)
}

/// Whether the content lay there after it came to the source, and others changed that to what is there now.
fn is_left_to_others(
    record: &RunRecord,
    name: &str,
    since: Duration,
    content: &Bytes,
    found: Option<&Bytes>,
) -> bool {
    let mut lay_there = false;
    let mut left = None;
    for event in record.destination.get(name).into_iter().flatten() {
        let is_after = event.at >= since;
        lay_there |= is_after && event.before.as_ref() == Some(content);
        if lay_there && !event.by_pipeline {
            left = Some(event.after.as_ref());
        }
        lay_there |= is_after && event.after.as_ref() == Some(content);
    }
    left == Some(found)
}

fn is_about(letter: &StoredMessage, name: &str) -> bool {
    file_of(letter).is_some_and(|(found, _)| found == name)
}

/// Name and content of the file that a dead letter is about.
pub(super) fn file_of(letter: &StoredMessage) -> Option<(String, Digest)> {
    let message = Message::parse(&letter.message.body).ok()?;
    let file = message.file()?;
    Some((file.name.as_str().to_owned(), file.hash.clone()))
}

/// No source is removed or renamed before its content was at the destination.
fn what_was_renamed_or_deleted(record: &RunRecord) -> Option<String> {
    let unseen = record.renamed_or_deleted.iter().find(|change| {
        let Some(before) = &change.before else {
            return false;
        };
        let events = record.destination.get(&change.name).into_iter().flatten();
        let mut seen = events.filter(|event| event.at <= change.at);
        !seen.any(|event| event.after.as_ref() == Some(&before.bytes))
    })?;
    Some(format!(
        "{}: removed from the source at {:?} before its content was at the destination",
        unseen.name, unseen.at
    ))
}

/// What was renamed is there, whatever came after it.
fn what_was_put_aside(record: &RunRecord, rest: &Rest) -> Option<String> {
    let lost = record.renamed_or_deleted.iter().find(|change| {
        let (Some(before), None) = (&change.before, &change.after) else {
            return false;
        };
        let mut there = rest.source.iter();
        let is_there = |(name, node): (&String, &Node)| {
            (*name == change.name || put_aside_name(name).as_deref() == Some(&change.name))
                && node.bytes == before.bytes
        };
        put_aside_name(&change.name).is_none() && !there.any(is_there)
    })?;
    Some(format!(
        "{}: taken from the source at {:?}, and under no other name there",
        lost.name, lost.at
    ))
}

/// No dead letter says that a file is missing which the pipeline itself took away, once it had restored it.
fn what_is_called_missing(record: &RunRecord, rest: &Rest) -> Option<String> {
    let missing = DeadLetterReason::SourceMissing.to_string();
    let mut letters = rest.dead_letters.iter();
    letters.find_map(|letter| {
        let reason = letter.message.attributes.get(ATTR_REASON)?;
        let message = Message::parse(&letter.message.body).ok()?;
        let file = message.file()?;
        let is_this = |content: &Bytes| Digest::of(content) == file.hash;
        let removed = record.renamed_or_deleted.iter().find(|change| {
            let before = change.before.as_ref();
            change.name == file.name.as_str() && before.is_some_and(|node| is_this(&node.bytes))
        })?;
        let contents = record.source.get(&removed.name).into_iter().flatten();
        let held = contents.filter(|(_, content)| content.as_ref().is_some_and(is_this));
        let events = record.destination.get(&removed.name).into_iter().flatten();
        let mut by_others = events.filter(|event| !event.by_pipeline);
        // Content that came and went more than once may really have been missing, and so may a copy that others touched.
        let is_clear = held.count() == 1 && by_others.next().is_none();
        (*reason == missing && is_clear).then(|| {
            format!(
                "{}: called missing, which the pipeline took away at {:?}",
                removed.name, removed.at
            )
        })
    })
}

/// The beginning of a content, which names it.
pub(super) fn shown(content: &Bytes) -> String {
    let text = String::from_utf8_lossy(&content[..content.len().min(12)]);
    format!("{} bytes of {:?}", content.len(), text)
}
