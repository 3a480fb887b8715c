//! The source's side of a compressor: which files are taken, files that a bucket announces itself, and what becomes of a
//! source once it is packed.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::consume::HandlerError;
use crate::journal::RECOVERED;
use crate::message::{DeadLetterReason, FileRef, ReceiptFile, S3Event, SourceObservation, hash};
use crate::roles::announce::{Announcer, announcement_of};
use crate::runtime::{self, blocking};
use streampress_crds::Location;
use streampress_crds::api::pipeline::{OnCompressed, OnRestored, SourceFormat};
use streampress_crds::settings::SourceSettings;
use streampress_transport::{
    ExactFile, ExactOutcome, FileEntry, FileName, Files, RESERVED_FOLDER, TransportResult,
};

/// The suffix of a renamed source's stem, as the original's.
const RENAMED_SUFFIX: &str = "_delete";
/// Names that are tried for a renamed source.
const RENAMED_NAMES: u32 = 1000;

/// Why a source is not renamed.
const NO_FREE_NAME: &str = "The source file stays where it is: every name that it could be renamed to is taken, or its own is too long for the \
     suffix _delete; rename or remove it by hand";

/// Why a file that has the name of a renamed source is not taken, with the remedy.
pub(crate) const LIKE_RENAMED: &str = "has the name of a source that was renamed after it was packed: if you made this file, give it another name; \
                                       if this pipeline renamed it, move it out of the source";

/// Which files at the source are taken, however they are found.
#[derive(Debug, Clone)]
pub struct SourceFilter {
    /// Kinds of files to take.
    pub formats: Vec<SourceFormat>,
    /// Whether packed files are renamed to `…_delete`; files of such names are then not taken.
    pub skips_renamed: bool,
}

impl SourceFilter {
    /// The filter of a pipeline's source.
    pub(crate) fn new(source: &SourceSettings) -> Self {
        Self {
            formats: source.formats.clone(),
            skips_renamed: source.on_compressed == OnCompressed::Rename
                || source.on_restored == OnRestored::Rename,
        }
    }

    /// Whether the file is of a kind that is taken, and not one that was renamed after it was packed.
    pub(crate) fn takes(&self, name: &FileName) -> bool {
        self.takes_kind(name.as_str()) && !name.is_reserved() && !self.has_renamed_form(name)
    }

    /// Whether the file is of a kind that is taken; the name need not be a valid one.
    pub(crate) fn takes_kind(&self, name: &str) -> bool {
        let base = name.rsplit('/').next().unwrap_or_default();
        SourceFormat::of_name(base).is_some_and(|format| self.formats.contains(&format))
    }

    /// The kinds of files that are taken, as a pipeline's YAML has them.
    pub(crate) fn kinds(&self) -> String {
        let kinds: Vec<String> = self.formats.iter().map(kind_name).collect();
        kinds.join(", ")
    }

    /// Why a file of this name is not taken, with the remedy; `None` for one that is.
    pub(crate) fn refusal(&self, name: &FileName) -> Option<String> {
        if self.takes(name) {
            return None;
        }
        if name.is_reserved() {
            return Some(format!(
                "{name} lies in Streampress's own folder {RESERVED_FOLDER}; copy it elsewhere and submit the copy"
            ));
        }
        if self.takes_kind(name.as_str()) {
            return Some(format!("{name} {LIKE_RENAMED}"));
        }
        let base = name.as_str().rsplit('/').next().unwrap_or_default();
        let (kind, remedy) = match SourceFormat::of_name(base) {
            Some(kind) => {
                let kind = kind_name(&kind);
                let remedy = format!("add {kind} to source.formats");
                (format!("its kind is {kind}"), remedy)
            }
            None if self.takes_kind(&format!("name{base}")) => (
                "its name is an ending alone".to_owned(),
                "put a name in front of it".to_owned(),
            ),
            None => {
                let mut endings = [".json", ".ndjson", ".jsonl", ".csv", ".txt", ".log"].to_vec();
                endings.retain(|ending| self.takes_kind(&format!("name{ending}")));
                (
                    "its name has the ending of no kind".to_owned(),
                    format!("give it an ending that is taken: {}", endings.join(", ")),
                )
            }
        };
        let kinds = self.kinds();
        Some(format!(
            "{name} is not taken: {kind}, and source.formats has {kinds}; {remedy}"
        ))
    }

    /// Whether the name is that of a file that was renamed after it was packed, where such files are skipped.
    pub(crate) fn has_renamed_form(&self, name: &FileName) -> bool {
        self.skips_renamed && original_name(name).is_some()
    }
}

fn kind_name(kind: &SourceFormat) -> String {
    format!("{kind:?}").to_ascii_lowercase()
}

/// Announces the object of a bucket's event in our own form: in its file's own group, whereas the rule that sends events
/// has one group for all. The event of a renamed source must not make it a new file.
pub(crate) async fn announce_event(
    announcer: &Announcer,
    filter: &SourceFilter,
    event: &S3Event,
) -> Result<(), HandlerError> {
    let name = match event.created {
        true => event
            .name_below(announcer.source.location())
            .map_err(|error| HandlerError::permanent(DeadLetterReason::BadName, error))?,
        false => None,
    };
    let Some(name) = name.filter(|name| filter.takes(name)) else {
        info!(
            bucket = event.bucket,
            key = event.key,
            "The event is about no file of this pipeline; skipped."
        );
        return Ok(());
    };
    let entry = announcer.source_entry(&name).await?;
    let announced = announcer.announce(&entry).await;
    announced.map(drop).map_err(HandlerError::Transient)
}

/// How long a file must have held still before it is deleted: a program that still writes it would go on with a file that has
/// no name, and what it writes would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SettleTime(pub Duration);

impl SettleTime {
    /// Of a pipeline's source. Writers that rename their files into it write none of them there, and objects appear as a whole.
    pub(crate) fn new(source: &SourceSettings) -> Self {
        match source.writers_rename || matches!(source.location, Location::S3 { .. }) {
            true => Self::default(),
            false => Self(Duration::from_secs(source.settle_seconds.into())),
        }
    }

    /// What must be so before a file is deleted.
    pub(crate) fn requirement(self) -> String {
        format!(
            "one that will be deleted must not have changed for {} s before (source.settleSeconds)",
            self.0.as_secs()
        )
    }

    /// For how long the file must hold still from now on, by its own time.
    pub(crate) fn left(self, entry: &FileEntry) -> Duration {
        let Some(changed) = entry.changed else {
            return Duration::ZERO;
        };
        let age = runtime::now().duration_since(changed).unwrap_or_default();
        self.0.saturating_sub(age)
    }

    /// Whether the file may be deleted; [`HandlerError::NotYet`] where it changed too short a time ago. That its fingerprint
    /// is the one that was observed before the message was sent counts too: a file server's clock may be another.
    pub(crate) fn ensure_settled(
        self,
        entry: &FileEntry,
        observed: Option<&SourceObservation>,
        sent_millis: u64,
    ) -> Result<(), HandlerError> {
        let (Self(settle), left) = (self, self.left(entry));
        let known_for = runtime::now_millis().saturating_sub(sent_millis);
        let is_as_observed = observed.is_some_and(|it| it.fingerprint == entry.fingerprint);
        if left.is_zero() || (is_as_observed && Duration::from_millis(known_for) >= settle) {
            return Ok(());
        }
        let why = anyhow::anyhow!(
            "{} is to be deleted and changed {} s ago; it is taken once it has not changed for {} s (source.settleSeconds)",
            entry.name,
            (settle - left).as_secs(),
            settle.as_secs()
        );
        Err(HandlerError::NotYet(why, left))
    }
}

/// Whether the file is one that the generator made: it has its name only since it was whole.
pub(crate) fn is_generated(file: &FileRef, observed: Option<&SourceObservation>) -> bool {
    observed.is_some_and(|observed| observed.announcement == announcement_of(file))
}

/// Whether something else than a file lies under the name by now, such as a link or a folder: that never passes by itself.
pub(crate) fn is_no_plain_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

fn leave(error: &io::Error) -> Result<(), HandlerError> {
    warn!("What lies under the name of a restored source file stays: {error}.");
    Ok(())
}

/// Renames or deletes the source of an acknowledged file, if it still is exactly the file that was packed.
pub(crate) async fn apply_on_compressed(
    announcer: &Announcer,
    file: &FileRef,
    on_compressed: OnCompressed,
) {
    if on_compressed == OnCompressed::Keep {
        return;
    }
    let (source, packed) = (announcer.source.clone(), file.clone());
    let outcome = blocking(move || match on_compressed {
        OnCompressed::Keep => Ok(ExactOutcome::Changed),
        OnCompressed::Rename => with_free_name(&packed.name, |to| {
            with_exact(&*source, &packed, |exact| source.rename_exact(exact, to))
        }),
        OnCompressed::Delete => with_exact(&*source, &packed, |exact| source.remove_exact(exact)),
    });
    match outcome.await {
        Ok(ExactOutcome::Done) => {
            if let Err(error) = forget(announcer, file).await {
                warn!(%error, "Could not record that a packed source file was renamed or deleted.");
            }
        }
        Ok(ExactOutcome::Changed) => {
            info!("The source file changed after it was packed; it stays where it is.");
            // Each time it must hold still first; renamed files need not, and one that grows would be packed without end.
            if on_compressed == OnCompressed::Delete
                && let Err(error) = announcer.announce_successor(file, None).await
            {
                debug!(?error, "Its present content was not announced.");
            }
        }
        Ok(ExactOutcome::NameTaken) => {
            warn!("{NO_FREE_NAME}.");
        }
        Err(error) => {
            warn!(%error, "Could not rename or delete a packed source file; it stays where it is.");
        }
    }
}

/// The announcements whose sources stay although they were restored: their copies are gone from the destination, or were changed
/// there. Not known before they were compared.
pub type SparedSources = watch::Receiver<Option<HashSet<String>>>;

/// Whether the source of a restored file stays, once that is known.
pub(crate) async fn is_spared(spared: Option<&SparedSources>, file: &ReceiptFile) -> bool {
    let Some(mut spared) = spared.cloned() else {
        return false;
    };
    let known = spared.wait_for(Option::is_some).await;
    let is_spared = known.map(|known| {
        let ids = known.as_ref().zip(file.observed.as_ref());
        ids.is_some_and(|(ids, observed)| ids.contains(&observed.announcement))
    });
    match is_spared {
        Ok(is_spared) => is_spared,
        // The run has ended before it knew: the next one continues.
        Err(_) => std::future::pending().await,
    }
}

/// Renames or deletes the source of a restored file, if no later announcement of its name is known and it still is exactly
/// the file that was announced.
pub(crate) async fn apply_on_restored(
    announcer: &Announcer,
    receipt: &ReceiptFile,
    (on_restored, settle): (OnRestored, SettleTime),
    sent_millis: u64,
) -> Result<(), HandlerError> {
    let (file, name) = (&receipt.file, &receipt.file.name);
    let Some(observed) = &receipt.observed else {
        info!(
            "The announcement does not say how its file was observed; the file stays where it is."
        );
        return Ok(());
    };
    // A touched copy of the same content has another fingerprint by now, which the journal knows.
    // Without a journal the time is compared too: an object's fingerprint is the same again when its content is.
    let mut modified = None;
    let expected = match announcer.newest(name).await? {
        Some(newest) if newest.announcement != observed.announcement => {
            info!(
                "The file was announced again since; what becomes of its source is for the receipt of the newest announcement to say."
            );
            return Ok(());
        }
        Some(newest) => SourceObservation {
            announcement: newest.announcement,
            fingerprint: newest.fingerprint,
            is_settled: newest.is_settled,
            ..observed.clone()
        },
        None => {
            modified = Some(file.modified_nanos);
            observed.clone()
        }
    };
    let (source, wanted) = (announcer.source.clone(), name.clone());
    // Where nothing is waited for, the change itself looks soon enough.
    let entry = match settle == SettleTime::default() {
        true => Ok(None),
        false => blocking(move || source.stat(&wanted)).await,
    };
    let entry = match entry {
        Err(error) if is_no_plain_file(&error) => return leave(&error),
        entry => entry,
    };
    let step = format!("looking for {name}, which was restored");
    if let Some(entry) = entry.map_err(|error| HandlerError::transient(error, step))? {
        let has_changed = entry.fingerprint != expected.fingerprint;
        let settled = settle.ensure_settled(&entry, Some(&expected), sent_millis);
        match on_restored {
            OnRestored::Delete if has_changed || !is_generated(file, Some(observed)) => settled?,
            // Nothing is lost by a new name, and a file that grows would be announced without end.
            OnRestored::Rename if has_changed && settled.is_err() => {
                info!("The source file was changed a short time ago; it stays where it is.");
                return Ok(());
            }
            OnRestored::Keep | OnRestored::Rename | OnRestored::Delete => {}
        }
    }
    let (source, restored) = (announcer.source.clone(), file.clone());
    let outcome = blocking(move || match on_restored {
        OnRestored::Keep => Ok(ExactOutcome::Changed),
        OnRestored::Rename => with_free_name(&restored.name, |to| {
            with_observed(&*source, &restored, (&expected, modified), |exact| {
                source.rename_exact(exact, to)
            })
        }),
        OnRestored::Delete => with_observed(&*source, &restored, (&expected, modified), |exact| {
            source.remove_exact(exact)
        }),
    });
    match outcome.await {
        Ok(ExactOutcome::Done) => {
            info!(action = ?on_restored, "The file was restored; its source file was taken away.");
            Ok(forget(announcer, file).await?)
        }
        Ok(ExactOutcome::Changed) => {
            match announcer.announce_successor(file, None).await {
                Ok(_) => {
                    info!("The source file changed after it was announced; it stays where it is.");
                }
                Err(error) => debug!(?error, "The source file is gone, or cannot be announced."),
            }
            Ok(())
        }
        Ok(ExactOutcome::NameTaken) => {
            warn!("{NO_FREE_NAME}.");
            Ok(())
        }
        Err(error) if is_no_plain_file(&error) => leave(&error),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    " (its folder must be writable for this user)"
                }
                _ => "",
            };
            let step = format!("renaming or deleting {name}, which was restored{remedy}");
            Err(HandlerError::transient(error, step))
        }
    }
}

/// Calls `change` for the source's file if it has the fingerprint and the time that were observed; the hash is compared too where an
/// equal fingerprint does not prove equal content. A file that a killed worker had set aside has another fingerprint once it is
/// back: its size, time and bytes decide.
fn with_observed(
    source: &dyn Files,
    file: &FileRef,
    (observed, modified): (&SourceObservation, Option<u64>),
    change: impl Fn(&ExactFile<'_>) -> io::Result<ExactOutcome>,
) -> io::Result<ExactOutcome> {
    match source.stat(&file.name)? {
        Some(entry)
            if entry.fingerprint == observed.fingerprint
                && entry.size == file.bytes
                && modified.is_none_or(|modified| runtime::nanos(entry.modified) == modified) =>
        {
            change(&ExactFile {
                entry: &entry,
                hash: (!observed.is_settled).then_some(file.hash.as_str()),
                on_read: &|| {},
            })
        }
        Some(_) | None => with_exact(source, file, change),
    }
}

/// The name is free: the same content that comes under it later is a new file.
async fn forget(announcer: &Announcer, file: &FileRef) -> TransportResult<()> {
    match announcer.newest(&file.name).await? {
        Some(newest) if newest.hash == file.hash.as_str() => {
            announcer.journal.forget_sources(&[newest]).await
        }
        Some(_) | None => Ok(()),
    }
}

/// Calls `change` for the source's file if that has the size and modification time of the packed one. The hash is compared
/// too: a file's times may stay the same while its content changes. A worker that was killed while it took the file away left it
/// aside, from where it is put back first.
fn with_exact(
    source: &dyn Files,
    packed: &FileRef,
    change: impl Fn(&ExactFile<'_>) -> io::Result<ExactOutcome>,
) -> io::Result<ExactOutcome> {
    let mut found = source.stat(&packed.name)?;
    if found.is_none() {
        source.put_back(&packed.name)?;
        found = source.stat(&packed.name)?;
    }
    match found {
        Some(entry)
            if entry.size == packed.bytes
                && runtime::nanos(entry.modified) == packed.modified_nanos =>
        {
            change(&ExactFile {
                entry: &entry,
                hash: Some(packed.hash.as_str()),
                on_read: &|| {},
            })
        }
        Some(_) | None => Ok(ExactOutcome::Changed),
    }
}

/// Calls `rename` with the names of a renamed source, until one is free.
fn with_free_name(
    name: &FileName,
    rename: impl Fn(&FileName) -> io::Result<ExactOutcome>,
) -> io::Result<ExactOutcome> {
    for to in renamed_names(name) {
        let outcome = rename(&to)?;
        if outcome != ExactOutcome::NameTaken {
            return Ok(outcome);
        }
    }
    Ok(ExactOutcome::NameTaken)
}

/// The names of a renamed source, in the order in which they are taken; none where its own leaves no space for the suffix.
pub(crate) fn renamed_names(name: &FileName) -> impl Iterator<Item = FileName> {
    (0..RENAMED_NAMES).map_while(|number| renamed(name, number))
}

/// `a/b.json` becomes `a/b_delete.json`, or `a/b-1_delete.json` where that is taken; `None` where that is too long.
fn renamed(name: &FileName, number: u32) -> Option<FileName> {
    let suffix = match number {
        0 => RENAMED_SUFFIX.to_owned(),
        number => format!("-{number}{RENAMED_SUFFIX}"),
    };
    let (folder, base) = split_folder(name.as_str());
    let base = match base.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}{suffix}.{extension}"),
        _ => format!("{base}{suffix}"),
    };
    FileName::parse(&format!("{folder}{base}")).ok()
}

/// The name that a file of this name had if it was renamed after it was packed; `None` for a name of another form.
pub(crate) fn original_name(name: &FileName) -> Option<String> {
    let (folder, base) = split_folder(name.as_str());
    let (stem, extension) = match base.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (base, String::new()),
    };
    let stem = stem.strip_suffix(RENAMED_SUFFIX)?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let stem = match stem.rsplit_once('-') {
        Some((stem, number)) if is_number(number) => stem,
        _ => stem,
    };
    Some(format!("{folder}{stem}{extension}"))
}

/// The folder with its slash, and the rest.
fn split_folder(name: &str) -> (&str, &str) {
    name.split_at(name.rfind('/').map_or(0, |slash| slash + 1))
}

/// Whether a file whose name has the form of a renamed source may be the user's own: no file that was announced under the
/// name that it would have had has its size and modification time, or its content. Copies of a folder keep only the content.
/// Where the journal cannot tell, it counts as renamed: of what was before a recovery it knows the names alone.
pub(crate) async fn is_users_own(
    announcer: &Announcer,
    entry: &FileEntry,
) -> TransportResult<bool> {
    let journal = &announcer.journal;
    let Some(original) = original_name(&entry.name) else {
        return Ok(true);
    };
    // A name such as `a-1_delete.csv` may be the second of `a.csv` or the first of `a-1.csv`.
    let plain = entry.name.as_str().replacen(RENAMED_SUFFIX, "", 1);
    let names = [&original, &plain];
    for name in names {
        let announced = journal.was_announced(name, entry.size, entry.modified);
        if announced.await? != Some(false) {
            return Ok(false);
        }
    }
    if is_from_before_recovery(announcer, entry).await? {
        for name in names {
            if journal.was_name_announced(name).await? != Some(false) {
                return Ok(false);
            }
        }
    }
    let (source, own_name) = (announcer.source.clone(), entry.name.clone());
    let Ok((content, _)) = blocking(move || hash(source.read(&own_name)?)).await else {
        return Ok(true);
    };
    for name in names {
        let announced = journal.was_content_announced(name, content.as_str());
        if announced.await? != Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the file may have got its name before the journal was made anew. An object does not say when it got it.
async fn is_from_before_recovery(
    announcer: &Announcer,
    entry: &FileEntry,
) -> TransportResult<bool> {
    let recovered = announcer.journal.get(RECOVERED).await?;
    let recovered = recovered.and_then(|millis| millis.parse::<u64>().ok());
    Ok(recovered.is_some_and(|millis| {
        let changed = entry
            .changed
            .map(|changed| runtime::nanos(changed) / 1_000_000);
        changed.is_none_or(|changed| changed <= millis)
    }))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_may_be_deleted_once_it_has_held_still_by_its_own_time_or_as_it_was_observed() {
        let settle = SettleTime(Duration::from_secs(60));
        let now = SystemTime::now();
        let entry = |changed: Option<SystemTime>| FileEntry {
            name: FileName::parse("a.csv").expect("valid"),
            size: 1,
            modified: now,
            fingerprint: "seen".into(),
            changed,
        };
        let observed = SourceObservation {
            announcement: "1".into(),
            fingerprint: "seen".into(),
            is_settled: false,
            wants_reply: false,
        };
        let seconds = Duration::from_secs;
        let just_sent = runtime::now_millis();
        let waits = |entry: &FileEntry, sent: u64| match settle.ensure_settled(
            entry,
            Some(&observed),
            sent,
        ) {
            Ok(()) => None,
            Err(HandlerError::NotYet(_, after)) => Some(after.as_secs()),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(waits(&entry(Some(now - seconds(61))), just_sent), None);
        let left = waits(&entry(Some(now - seconds(20))), just_sent).expect("waits");
        assert!(left <= 40, "{left}");
        // The file server's clock is an hour ahead.
        let ahead = entry(Some(now + seconds(3600)));
        assert_eq!(waits(&ahead, just_sent), Some(60));
        assert_eq!(waits(&ahead, just_sent - 61_000), None);
        let changed_since = FileEntry {
            fingerprint: "other".into(),
            ..ahead
        };
        assert_eq!(waits(&changed_since, just_sent - 61_000), Some(60));
        assert_eq!(waits(&entry(None), just_sent), None, "an object is whole");
    }

    #[test]
    fn a_renamed_source_keeps_its_folder_and_extension() {
        let name = |text: &str| FileName::parse(text).expect("valid");
        for (from, first, second) in [
            ("a.json", "a_delete.json", "a-1_delete.json"),
            ("x.y/b", "x.y/b_delete", "x.y/b-1_delete"),
            (".log", ".log_delete", ".log-1_delete"),
            ("d/a.tar.csv", "d/a.tar_delete.csv", "d/a.tar-1_delete.csv"),
        ] {
            for (number, to) in [(0, first), (1, second)] {
                let renamed = renamed(&name(from), number).expect("short enough");
                assert_eq!(renamed.as_str(), to);
                assert_eq!(original_name(&renamed).as_deref(), Some(from));
            }
        }
        assert_eq!(original_name(&name("a_deleted.csv")), None);
    }

    #[test]
    fn a_name_without_space_for_the_suffix_has_no_renamed_form() {
        let name = |text: &str| FileName::parse(text).expect("valid");
        let fits = name(&"l".repeat(248));
        assert_eq!(renamed_names(&fits).count(), 1);
        let full = name(&format!("folder/{}.csv", "l".repeat(251)));
        assert_eq!(renamed_names(&full).next(), None);
        let tried = with_free_name(&full, |to| panic!("{to} is tried"));
        assert_eq!(tried.expect("no error"), ExactOutcome::NameTaken);
    }
}
