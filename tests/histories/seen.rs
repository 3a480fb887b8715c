//! What is visible at the destination while a history runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::history::NAMES;

/// The contents of a name, oldest first, none twice in a row.
type SeenContents = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// Reads the destination hundreds of times a second.
pub(crate) struct Watcher {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<SeenContents>,
}

impl Watcher {
    pub(crate) fn start(destination: &Path) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (end, destination) = (ends.clone(), destination.to_owned());
        let thread = std::thread::spawn(move || watch(&end, &destination));
        Self { ends, thread }
    }

    /// What it saw.
    pub(crate) fn stop(self) -> SeenContents {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only looks")
    }
}

fn watch(ends: &AtomicBool, destination: &Path) -> SeenContents {
    let mut seen = SeenContents::new();
    let paths: Vec<(&str, PathBuf)> = NAMES
        .iter()
        .map(|name| (*name, destination.join(name)))
        .collect();
    while !ends.load(Ordering::Relaxed) {
        for (name, path) in &paths {
            let Ok(content) = std::fs::read(path) else {
                continue;
            };
            let contents = seen.entry(*name).or_default();
            if contents.last() != Some(&content) {
                contents.push(content);
            }
        }
        // Between two reads the pipeline needs the machine.
        std::thread::sleep(Duration::from_millis(2));
    }
    seen
}

/// Fails unless all that was seen is whole contents that lay at the source, none after a newer one, or what others wrote.
pub(crate) fn assert_whole_and_in_order(
    name: &str,
    seen: &[Vec<u8>],
    at_source: &[Option<Vec<u8>>],
    by_others: &[Vec<u8>],
) {
    let mut newest = 0;
    for content in seen.iter().filter(|content| !by_others.contains(content)) {
        let is_same = |held: &Option<Vec<u8>>| held.as_ref() == Some(content);
        let place = at_source.iter().skip(newest).position(is_same);
        let shown = String::from_utf8_lossy(content);
        match place {
            Some(place) => newest += place,
            None if at_source.iter().any(is_same) => {
                panic!("{name}: an older content came back after a newer one: {shown:?}")
            }
            None => panic!("{name}: a content was visible that never lay at the source: {shown:?}"),
        }
    }
}
