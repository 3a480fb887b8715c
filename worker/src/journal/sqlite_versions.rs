//! What becomes of a file's versions in the tables of a data folder's journal.

use rusqlite::params;
use streampress_transport::local::DatabaseStep;

/// Keeps how far the file is, before the same content is announced again.
pub(super) fn keep_earlier(step: &DatabaseStep<'_>, file_id: &str) -> rusqlite::Result<()> {
    step.prepare_cached(
        "INSERT INTO earlier(file_id, compressed_at, packed_bytes, restored_at)
           SELECT file_id, compressed_at, packed_bytes, restored_at FROM files
           WHERE file_id = ?1 AND (compressed_at IS NOT NULL OR restored_at IS NOT NULL)
         ON CONFLICT(file_id) DO UPDATE SET compressed_at = excluded.compressed_at, packed_bytes = excluded.packed_bytes,
           restored_at = coalesce(excluded.restored_at, restored_at)",
    )?
    .execute([file_id])?;
    Ok(())
}

/// What the end of a file means for the versions of its name.
pub(super) fn settle_versions(step: &DatabaseStep<'_>, file_id: &str) -> rusqlite::Result<()> {
    supersede_replaced(step, file_id)?;
    take_back_to_earlier(step, file_id)
}

/// Superseded files of this one's name that were packed or restored by an earlier announcement of the same content stay so.
/// Not the last that was announced under the name: that one is not at the destination.
fn take_back_to_earlier(step: &DatabaseStep<'_>, file_id: &str) -> rusqlite::Result<()> {
    step.prepare_cached(
        "UPDATE files SET superseded_at = iif(e.restored_at IS NULL, files.superseded_at, NULL), restored_at = e.restored_at,
           compressed_at = coalesce(files.compressed_at, e.compressed_at),
           packed_bytes = iif(files.compressed_at IS NULL, e.packed_bytes, files.packed_bytes)
         FROM earlier e
         WHERE files.name = (SELECT nullif(name, '') FROM files WHERE file_id = ?1) AND e.file_id = files.file_id
           AND files.superseded_at IS NOT NULL AND files.restored_at IS NULL
           AND EXISTS(SELECT 1 FROM files o WHERE o.name = files.name AND o.announced_at > files.announced_at)",
    )?
    .execute([file_id])?;
    Ok(())
}

/// Whether a version of the name of the file `f` is restored that was announced later. What was announced last from its location
/// is never replaced so: the other file came from another location.
pub(super) const IS_REPLACED: &str = "f.name <> ''
  AND EXISTS(SELECT 1 FROM files o WHERE o.name = f.name AND o.restored_at IS NOT NULL AND o.announced_at > f.announced_at)
  AND NOT EXISTS(SELECT 1 FROM sources s WHERE s.file_id = f.file_id)";

/// A failed version is superseded once it is replaced: nothing more is expected of it.
fn supersede_replaced(step: &DatabaseStep<'_>, file_id: &str) -> rusqlite::Result<()> {
    step.prepare_cached(&format!(
        "UPDATE files AS f SET superseded_at = ?2, failed_at = NULL, reason = NULL
         WHERE f.name = (SELECT name FROM files WHERE file_id = ?1) AND f.failed_at IS NOT NULL AND {IS_REPLACED}"
    ))?
    .execute(params![file_id, step.now_millis()])?;
    Ok(())
}
