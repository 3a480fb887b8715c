//! The slots' ledgers: what workers count in an annotation of their Lease, summed over a pipeline. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use streampress_crds::Role;
use streampress_crds::api::status::ProgressStatus;
use streampress_crds::ledger::Ledger;

/// Counters by role.
pub(crate) type Ledgers = BTreeMap<Role, Ledger>;

/// What deleted slots have counted. Entries are kept by the Lease's UID until the Lease is gone, so that adding one twice
/// counts it once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RetiredSlots {
    total: BTreeMap<Role, Ledger>,
    leaving: BTreeMap<String, (Role, Ledger)>,
}

impl RetiredSlots {
    /// Adds a Lease that is about to be deleted.
    pub(crate) fn add(&mut self, uid: &str, role: Role, ledger: Ledger) {
        self.leaving.insert(uid.to_owned(), (role, ledger));
    }

    /// Adds entries whose Leases are gone to the total.
    pub(crate) fn add_gone_to_total(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .leaving
            .keys()
            .filter(|uid| !is_there(uid))
            .cloned()
            .collect();
        for uid in gone {
            if let Some((role, ledger)) = self.leaving.remove(&uid) {
                add(&mut self.total, role, ledger);
            }
        }
    }

    /// Adds what was counted by Leases that others deleted.
    pub(crate) fn add_lost(&mut self, lost: &Ledgers) {
        for (role, ledger) in lost {
            add(&mut self.total, *role, *ledger);
        }
    }

    /// The counters of what is gone; a Lease that is still there is counted by itself.
    fn add_to(&self, ledgers: &mut Ledgers, is_there: impl Fn(&str) -> bool) {
        let leaving = self
            .leaving
            .iter()
            .filter(|(uid, _)| !is_there(uid))
            .map(|(_, entry)| *entry);
        for (role, ledger) in self
            .total
            .iter()
            .map(|(role, ledger)| (*role, *ledger))
            .chain(leaving)
        {
            add(ledgers, role, ledger);
        }
    }
}

fn add(sums: &mut Ledgers, role: Role, ledger: Ledger) {
    let sum = sums.entry(role).or_default();
    *sum = sum.plus(ledger);
}

/// The sums over all Leases of a pipeline, each with its UID, and what slots before them have counted.
pub(crate) fn sum<'a>(
    leases: impl Iterator<Item = (&'a str, Role, Ledger)> + Clone,
    retired: &RetiredSlots,
) -> Ledgers {
    let mut ledgers = Ledgers::new();
    for (_, role, counted) in leases.clone() {
        add(&mut ledgers, role, counted);
    }
    retired.add_to(&mut ledgers, |uid| {
        leases.clone().any(|(lease, _, _)| lease == uid)
    });
    ledgers
}

/// What the status said and no Lease says any more: others deleted Leases. Nothing where totals did not go back. The status
/// does not tell whose a failed or superseded file was; they count as the decompressor's.
pub(crate) fn lost(said: &ProgressStatus, ledgers: &Ledgers) -> Ledgers {
    let now = progress(ledgers);
    let less = |said: i64, now: i64| u64::try_from(said.saturating_sub(now)).unwrap_or(0);
    let generator = Ledger {
        files: less(said.files_generated, now.files_generated),
        ..Ledger::default()
    };
    let counted = ledgers.get(&Role::Compressor);
    let counted = counted.map_or(0, |ledger| i64::try_from(ledger.files).unwrap_or(i64::MAX));
    let compressor = Ledger {
        files: match now.files_compressed < said.files_compressed {
            true => less(said.files_compressed, counted),
            false => 0,
        },
        bytes_in: less(said.bytes_raw, now.bytes_raw),
        bytes_out: less(said.bytes_compressed, now.bytes_compressed),
        ..Ledger::default()
    };
    let decompressor = Ledger {
        files: less(said.files_restored, now.files_restored),
        failures: less(said.files_failed, now.files_failed),
        superseded: less(said.files_superseded, now.files_superseded),
        ..Ledger::default()
    };
    let lost = [
        (Role::Generator, generator),
        (Role::Compressor, compressor),
        (Role::Decompressor, decompressor),
    ];
    let lost = lost.into_iter();
    lost.filter(|(_, ledger)| *ledger != Ledger::default())
        .collect()
}

/// The sums with what was lost of them, so that totals never go back.
pub(crate) fn with_lost(mut ledgers: Ledgers, said: &ProgressStatus) -> Ledgers {
    for (role, lost) in lost(said, &ledgers) {
        add(&mut ledgers, role, lost);
    }
    ledgers
}

/// Files that decompressors restored, refused as superseded or put into the dead-letter queue.
pub(crate) fn concluded(ledgers: &Ledgers) -> u64 {
    let ledger = ledgers.get(&Role::Decompressor);
    ledger.map_or(0, |ledger| {
        let ended = ledger.files.saturating_add(ledger.failures);
        ended.saturating_add(ledger.superseded)
    })
}

/// Files that were packed and neither restored, superseded, requested again nor put into the dead-letter queue by a decompressor. An estimate: the
/// latest counts of a killed worker are lost, and a file that failed and was restored after a redrive counts as both.
pub(crate) fn unaccounted(ledgers: &Ledgers) -> u64 {
    let of = |role| ledgers.get(&role).copied().unwrap_or_default();
    let ended = of(Role::Decompressor);
    of(Role::Compressor)
        .files
        .saturating_sub(ended.files)
        .saturating_sub(ended.failures)
        .saturating_sub(ended.superseded)
        .saturating_sub(ended.sent_again)
}

/// What has been done, as the status has it.
pub(crate) fn progress(ledgers: &Ledgers) -> ProgressStatus {
    let of = |role| ledgers.get(&role).copied().unwrap_or_default();
    let (generator, compressor, decompressor) = (
        of(Role::Generator),
        of(Role::Compressor),
        of(Role::Decompressor),
    );
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    ProgressStatus {
        files_generated: signed(generator.files),
        // What was restored had been packed, by a worker whose latest counts are lost or for an earlier pipeline on the same queues.
        files_compressed: signed(compressor.files.max(decompressor.files)),
        files_restored: signed(decompressor.files),
        files_failed: signed(compressor.failures.saturating_add(decompressor.failures)),
        files_superseded: signed(
            compressor
                .superseded
                .saturating_add(decompressor.superseded),
        ),
        bytes_raw: signed(compressor.bytes_in),
        bytes_compressed: signed(compressor.bytes_out),
        saved_percent: saved_percent(compressor.bytes_in, compressor.bytes_out),
    }
}

/// With one decimal, rounded down, so that "100.0" never stands for something that was carried.
fn saved_percent(raw: u64, packed: u64) -> Option<String> {
    if raw == 0 {
        return None;
    }
    let permille = (i128::from(raw) - i128::from(packed)) * 1000;
    let permille = permille.div_euclid(i128::from(raw));
    let sign = if permille < 0 { "-" } else { "" };
    Some(format!(
        "{sign}{}.{}",
        permille.abs() / 10,
        permille.abs() % 10
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(files: u64, bytes_in: u64, bytes_out: u64, failures: u64) -> Ledger {
        Ledger {
            files,
            bytes_in,
            bytes_out,
            failures,
            ..Ledger::default()
        }
    }

    #[test]
    fn ledgers_add_up_role_by_role() {
        let leases = [
            ("a", Role::Compressor, counted(2, 1000, 90, 0)),
            ("b", Role::Compressor, counted(1, 1000, 31, 1)),
            ("c", Role::Decompressor, Ledger::default()),
        ];
        let sums = sum(leases.into_iter(), &RetiredSlots::default());
        let progress = progress(&sums);
        assert_eq!(
            (
                progress.files_compressed,
                progress.files_restored,
                progress.files_failed
            ),
            (3, 0, 1)
        );
        assert_eq!(progress.saved_percent.as_deref(), Some("93.9"));
    }

    #[test]
    fn a_superseded_version_is_neither_restored_nor_failed_nor_missing() {
        let superseded = Ledger {
            superseded: 2,
            ..counted(1, 0, 0, 0)
        };
        let leases = [
            ("a", Role::Compressor, counted(3, 0, 0, 0)),
            ("b", Role::Decompressor, superseded),
        ];
        let sums = sum(leases.into_iter(), &RetiredSlots::default());
        let progress = progress(&sums);
        assert_eq!(
            (
                progress.files_restored,
                progress.files_superseded,
                progress.files_failed
            ),
            (1, 2, 0)
        );
        assert_eq!((unaccounted(&sums), concluded(&sums)), (0, 3));
    }

    #[test]
    fn a_file_that_is_sent_again_is_not_missing() {
        let leases = [
            ("a", Role::Compressor, counted(3, 0, 0, 0)),
            (
                "b",
                Role::Decompressor,
                Ledger {
                    sent_again: 1,
                    ..counted(2, 0, 0, 0)
                },
            ),
        ];
        let sums = sum(leases.into_iter(), &RetiredSlots::default());
        assert_eq!(unaccounted(&sums), 0);
        assert_eq!(progress(&sums).files_failed, 0);
    }

    #[test]
    fn a_retired_slot_counts_once_before_while_and_after_it_goes() {
        let going = counted(5, 0, 0, 0);
        let mut retired = RetiredSlots::default();
        retired.add("b", Role::Compressor, going);
        retired.add("b", Role::Compressor, going);
        let files = |leases: &[(&str, Role, Ledger)], retired: &RetiredSlots| {
            sum(leases.iter().copied(), retired)[&Role::Compressor].files
        };
        assert_eq!(files(&[("b", Role::Compressor, going)], &retired), 5);
        assert_eq!(files(&[], &retired), 5);
        retired.add_gone_to_total(|_| false);
        retired.add_gone_to_total(|_| false);
        assert_eq!(files(&[], &retired), 5);
        let text = serde_json::to_string(&retired).expect("numbers have a JSON form");
        assert_eq!(
            serde_json::from_str::<RetiredSlots>(&text).ok(),
            Some(retired)
        );
    }

    #[test]
    fn totals_never_go_back_whichever_leases_others_delete() {
        let decompressor = Ledger {
            superseded: 2,
            ..counted(589, 0, 0, 3)
        };
        let leases = [
            ("g", Role::Generator, counted(600, 0, 0, 0)),
            ("c", Role::Compressor, counted(594, 1000, 90, 1)),
            ("d", Role::Decompressor, decompressor),
        ];
        let none = RetiredSlots::default();
        let said = progress(&sum(leases.into_iter(), &none));
        for deleted in 0..1_u32 << leases.len() {
            let left = leases.iter().enumerate();
            let left = left.filter(|(number, _)| deleted & (1 << number) == 0);
            let left = left.map(|(_, lease)| *lease).collect::<Vec<_>>();
            let left = sum(left.iter().copied(), &none);
            assert_eq!(lost(&said, &left).is_empty(), deleted == 0);
            assert_eq!(progress(&with_lost(left.clone(), &said)), said);
            let mut retired = RetiredSlots::default();
            retired.add_lost(&lost(&said, &left));
            let next = [("n", Role::Compressor, counted(1, 0, 0, 0))];
            let mut after = sum(next.into_iter(), &retired);
            for (role, ledger) in left {
                add(&mut after, role, ledger);
            }
            let after = progress(&after);
            assert_eq!(
                (after.files_compressed, after.files_restored),
                (said.files_compressed + 1, said.files_restored)
            );
        }
    }

    #[test]
    fn what_was_restored_had_been_packed_also_where_that_was_not_counted() {
        let leases = [
            ("g", Role::Generator, counted(600, 0, 0, 0)),
            ("c", Role::Compressor, counted(589, 0, 0, 0)),
            ("d", Role::Decompressor, counted(600, 0, 0, 0)),
        ];
        let progress = progress(&sum(leases.into_iter(), &RetiredSlots::default()));
        assert_eq!(progress.files_compressed, 600);
    }

    #[test]
    fn growth_is_a_negative_saving() {
        assert_eq!(saved_percent(100, 101).as_deref(), Some("-1.0"));
        assert_eq!(saved_percent(100, 0).as_deref(), Some("100.0"));
        assert_eq!(saved_percent(3, 1).as_deref(), Some("66.6"));
        assert_eq!(saved_percent(0, 0), None);
    }
}
