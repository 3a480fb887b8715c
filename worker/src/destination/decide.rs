//! Which version of a file stays at the destination. Pure: it knows the journal's entry, the content that is there, and
//! the version that is wanted. Modification times have no part in it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::message::Digest;
use crate::runtime;
use streampress_transport::FileVersion;

/// What the journal keeps of a name: the newest version that was made visible there, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// The version; `None` for a file that a release without versions restored.
    pub version: Option<FileVersion>,
    /// Hash of its content.
    pub hash: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it was made visible.
    pub state: EntryState,
    /// The file's fingerprint when it was made visible, where an equal one proves that the content is still the same.
    pub fingerprint: Option<String>,
    /// The content that an intent replaces, where that was Streampress's own; where none is there, that of the version that was
    /// visible last.
    pub replaces: Option<Digest>,
    /// When the entry was written, milliseconds since 1970.
    pub written_millis: u64,
    /// Hash of the file that was announced, where its normal form is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Digest>,
}

/// How far a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EntryState {
    /// Its content is checked and is about to be made visible.
    Intent,
    /// It was visible.
    Visible,
}

impl JournalEntry {
    /// The entry before the wanted version is made visible.
    pub(super) fn intent(wanted: &Wanted, replaces: Option<Digest>) -> Self {
        Self {
            version: Some(wanted.version.clone()),
            hash: wanted.hash.clone(),
            bytes: wanted.bytes,
            state: EntryState::Intent,
            fingerprint: None,
            replaces,
            written_millis: runtime::now_millis(),
            original: wanted.original.clone(),
        }
    }

    /// The hash of Streampress's own content that may lie under the name, beside the entry's where that is an intent.
    pub(super) fn own_hash(&self) -> Option<&Digest> {
        match self.state {
            EntryState::Visible => Some(&self.hash),
            EntryState::Intent => self.replaces.as_ref(),
        }
    }

    /// The entry once it is visible.
    pub(super) fn visible(wanted: &Wanted, fingerprint: Option<String>) -> Self {
        Self {
            state: EntryState::Visible,
            fingerprint,
            ..Self::intent(wanted, None)
        }
    }
}

/// What to do for a wanted version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: a newer version was visible.
    Superseded,
    /// Nothing: it was made visible, and its content is there.
    InPlace,
    /// Nothing: it was made visible, and others changed it since.
    LeaveChanged,
    /// Its content is there, and the journal does not say that this version was made visible.
    Adopt,
    /// Write it; before that, move what others wrote under the name out of the way.
    Write { displaces: bool },
}

/// Decides from the journal's entry, the wanted version and the hash of the content that is there.
pub(super) fn decide(
    entry: Option<&JournalEntry>,
    wanted: &Wanted,
    found: Option<&Digest>,
) -> Decision {
    let Some(entry) = entry else {
        return match found {
            None => Decision::Write { displaces: false },
            Some(hash) if *hash == wanted.hash => Decision::Adopt,
            Some(_) => Decision::Write { displaces: true },
        };
    };
    let order = entry
        .version
        .as_ref()
        .and_then(|version| version.partial_cmp(&wanted.version));
    // A newer version whose worker ended before it was visible supersedes nothing: its bytes may never come.
    let was_visible = entry.state == EntryState::Visible || found == Some(&entry.hash);
    if order == Some(Ordering::Greater) && was_visible {
        return Decision::Superseded;
    }
    let same = order == Some(Ordering::Equal) && entry.hash == wanted.hash;
    match found {
        None => Decision::Write { displaces: false },
        Some(hash) if *hash == wanted.hash => match same && entry.state == EntryState::Visible {
            true => Decision::InPlace,
            false => Decision::Adopt,
        },
        Some(_) if same && entry.state == EntryState::Visible => Decision::LeaveChanged,
        Some(hash) => Decision::Write {
            displaces: *hash != entry.hash && Some(hash) != entry.replaces.as_ref(),
        },
    }
}

#[cfg(test)]
mod tests {
    use streampress_transport::FileName;

    use super::*;

    const WRITE: Decision = Decision::Write { displaces: false };
    const DISPLACE: Decision = Decision::Write { displaces: true };

    fn wanted(version: &str, content: &str) -> Wanted {
        Wanted {
            name: FileName::parse("a.csv").expect("a valid name"),
            version: version.parse().expect("a version"),
            hash: Digest::of(content.as_bytes()),
            bytes: content.len() as u64,
            modified_nanos: 0,
            original: None,
            source_fingerprint: None,
        }
    }

    fn visible(version: &str, content: &str) -> Option<JournalEntry> {
        Some(JournalEntry::visible(&wanted(version, content), None))
    }

    fn intent(version: &str, content: &str, replaces: Option<&str>) -> Option<JournalEntry> {
        let replaces = replaces.map(|content| Digest::of(content.as_bytes()));
        Some(JournalEntry::intent(&wanted(version, content), replaces))
    }

    fn of_earlier_release(content: &str) -> Option<JournalEntry> {
        let version = None;
        visible("q:1:1", content).map(|entry| JournalEntry { version, ..entry })
    }

    #[test]
    fn each_state_of_a_name_has_one_decision() {
        let (superseded, in_place, adopt) =
            (Decision::Superseded, Decision::InPlace, Decision::Adopt);
        let left = Decision::LeaveChanged;
        // Wanted is always version q:5:5 with the content "new".
        for (case, entry, found, decision) in [
            ("nothing known, nothing there", None, None, WRITE),
            (
                "nothing known, the same bytes there",
                None,
                Some("new"),
                adopt,
            ),
            (
                "nothing known, other bytes there",
                None,
                Some("x"),
                DISPLACE,
            ),
            ("older there", visible("q:5:4", "old"), Some("old"), WRITE),
            (
                "older of an epoch before",
                visible("q:4:9", "old"),
                Some("old"),
                WRITE,
            ),
            ("older, moved away", visible("q:5:4", "old"), None, WRITE),
            (
                "older, edited since",
                visible("q:5:4", "old"),
                Some("x"),
                DISPLACE,
            ),
            (
                "older, back to the same",
                visible("q:5:4", "old"),
                Some("new"),
                adopt,
            ),
            (
                "older with the same content",
                visible("q:5:4", "new"),
                Some("new"),
                adopt,
            ),
            ("same", visible("q:5:5", "new"), Some("new"), in_place),
            ("same, moved away", visible("q:5:5", "new"), None, WRITE),
            (
                "same, edited since",
                visible("q:5:5", "new"),
                Some("x"),
                left,
            ),
            (
                "newer",
                visible("q:5:6", "newer"),
                Some("newer"),
                superseded,
            ),
            (
                "newer, moved away",
                visible("q:5:6", "newer"),
                None,
                superseded,
            ),
            (
                "newer, edited since",
                visible("q:5:6", "newer"),
                Some("x"),
                superseded,
            ),
            (
                "newer of a later epoch",
                visible("q:6:1", "newer"),
                None,
                superseded,
            ),
            ("begun", intent("q:5:5", "new", None), None, WRITE),
            (
                "begun and finished",
                intent("q:5:5", "new", None),
                Some("new"),
                adopt,
            ),
            (
                "begun over the older",
                intent("q:5:5", "new", Some("old")),
                Some("old"),
                WRITE,
            ),
            (
                "begun over others",
                intent("q:5:5", "new", None),
                Some("x"),
                DISPLACE,
            ),
            (
                "newer begun over the older",
                intent("q:5:6", "newer", Some("old")),
                Some("old"),
                WRITE,
            ),
            ("newer begun", intent("q:5:6", "newer", None), None, WRITE),
            (
                "newer begun and finished",
                intent("q:5:6", "newer", None),
                Some("newer"),
                superseded,
            ),
            (
                "another queue's version",
                visible("r:9:9", "old"),
                Some("old"),
                WRITE,
            ),
            (
                "an earlier release's",
                of_earlier_release("old"),
                Some("old"),
                WRITE,
            ),
            (
                "an earlier release's, the same",
                of_earlier_release("new"),
                Some("new"),
                adopt,
            ),
            (
                "an earlier release's, edited",
                of_earlier_release("old"),
                Some("x"),
                DISPLACE,
            ),
            (
                "the same version packed from other content",
                visible("q:5:5", "old"),
                Some("old"),
                WRITE,
            ),
        ] {
            let found = found.map(|content: &str| Digest::of(content.as_bytes()));
            let decided = decide(entry.as_ref(), &wanted("q:5:5", "new"), found.as_ref());
            assert_eq!(decided, decision, "{case}");
        }
    }
}
