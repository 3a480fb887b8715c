//! The slots' ledgers: what workers count in an annotation of their Lease, summed over a pipeline. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use streampress_crds::api::status::ProgressStatus;
use streampress_crds::ledger::LEDGER;
pub use streampress_crds::ledger::Ledger;
use streampress_crds::settings::Role;

use crate::resources::names;

/// Counters by role.
pub type Ledgers = BTreeMap<Role, Ledger>;

/// What slots that are no more have counted. Entries are kept by the Lease's UID until the Lease is gone, so that
/// folding one in twice counts it once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retired {
    total: BTreeMap<Role, Ledger>,
    leaving: BTreeMap<String, (Role, Ledger)>,
}

impl Retired {
    /// Reads the annotation; what cannot be read counts as nothing.
    pub fn of(lease: &Value) -> Self {
        annotation(lease, names::RETIRED)
    }

    /// Notes down a Lease that is about to be deleted.
    pub fn fold_in(&mut self, uid: &str, role: Role, ledger: Ledger) {
        self.leaving.insert(uid.to_owned(), (role, ledger));
    }

    /// Settles entries whose Leases are gone.
    pub fn settle(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .leaving
            .keys()
            .filter(|uid| !is_there(uid))
            .cloned()
            .collect();
        for uid in gone {
            if let Some((role, ledger)) = self.leaving.remove(&uid) {
                let total = self.total.entry(role).or_default();
                *total = total.plus(ledger);
            }
        }
    }

    /// The counters of what is gone; a Lease that is still there speaks for itself.
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
            let sum = ledgers.entry(role).or_default();
            *sum = sum.plus(ledger);
        }
    }
}

/// The counters of one Lease.
pub fn of_lease(lease: &Value) -> Ledger {
    annotation(lease, LEDGER)
}

/// The sums over all Leases of a pipeline and what slots before them have counted.
pub fn sum<'a>(
    leases: impl Iterator<Item = (Role, &'a Value)> + Clone,
    retired: &Retired,
) -> Ledgers {
    let mut ledgers = Ledgers::new();
    for (role, lease) in leases.clone() {
        let sum = ledgers.entry(role).or_default();
        *sum = sum.plus(of_lease(lease));
    }
    retired.add_to(&mut ledgers, |uid| {
        leases
            .clone()
            .any(|(_, lease)| lease["metadata"]["uid"] == uid)
    });
    ledgers
}

/// Files that were packed and neither restored nor given up by whoever restores. An estimate: a worker that is killed
/// takes its latest counts with it, and a file that failed and was restored after a redrive counts as both.
pub fn unaccounted(ledgers: &Ledgers) -> u64 {
    let of = |role| ledgers.get(&role).copied().unwrap_or_default();
    let ended = of(Role::Decompressor);
    of(Role::Compressor)
        .files
        .saturating_sub(ended.files.saturating_add(ended.failures))
}

/// What has been done, as the status says it.
pub fn progress(ledgers: &Ledgers) -> ProgressStatus {
    let of = |role| ledgers.get(&role).copied().unwrap_or_default();
    let (generator, compressor, decompressor) = (
        of(Role::Generator),
        of(Role::Compressor),
        of(Role::Decompressor),
    );
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    ProgressStatus {
        files_generated: signed(generator.files),
        files_compressed: signed(compressor.files),
        files_restored: signed(decompressor.files),
        files_failed: signed(compressor.failures.saturating_add(decompressor.failures)),
        bytes_raw: signed(compressor.bytes_in),
        bytes_compressed: signed(compressor.bytes_out),
        saved_percent: saved_percent(compressor.bytes_in, compressor.bytes_out),
    }
}

/// With one decimal, rounded down, so that "100.0" is never said of something that was carried.
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

fn annotation<T: Default + for<'de> Deserialize<'de>>(lease: &Value, name: &str) -> T {
    let text = lease["metadata"]["annotations"][name].as_str();
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(uid: &str, ledger: &str) -> Value {
        json!({"metadata": {"uid": uid, "annotations": {LEDGER: ledger}}})
    }

    #[test]
    fn ledgers_add_up_role_by_role() {
        let leases = [
            (
                Role::Compressor,
                lease("a", r#"{"files":2,"bytesIn":1000,"bytesOut":90}"#),
            ),
            (
                Role::Compressor,
                lease(
                    "b",
                    r#"{"files":1,"bytesIn":1000,"bytesOut":31,"failures":1}"#,
                ),
            ),
            (Role::Decompressor, lease("c", "not json")),
        ];
        let sums = sum(
            leases.iter().map(|(role, lease)| (*role, lease)),
            &Retired::default(),
        );
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
    fn a_retired_slot_counts_once_before_while_and_after_it_goes() {
        let going = lease("b", r#"{"files":5}"#);
        let ledger = of_lease(&going);
        let mut retired = Retired::default();
        retired.fold_in("b", Role::Compressor, ledger);
        retired.fold_in("b", Role::Compressor, ledger);
        let files = |leases: &[(Role, Value)], retired: &Retired| {
            sum(leases.iter().map(|(role, lease)| (*role, lease)), retired)[&Role::Compressor].files
        };
        assert_eq!(files(&[(Role::Compressor, going)], &retired), 5);
        assert_eq!(files(&[], &retired), 5);
        retired.settle(|_| false);
        retired.settle(|_| false);
        assert_eq!(files(&[], &retired), 5);
        let text = serde_json::to_string(&retired).expect("numbers have a JSON form");
        let read = Retired::of(&json!({"metadata": {"annotations": {names::RETIRED: text}}}));
        assert_eq!(read, retired);
    }

    #[test]
    fn growth_is_said_as_growth() {
        assert_eq!(saved_percent(100, 101).as_deref(), Some("-1.0"));
        assert_eq!(saved_percent(100, 0).as_deref(), Some("100.0"));
        assert_eq!(saved_percent(3, 1).as_deref(), Some("66.6"));
        assert_eq!(saved_percent(0, 0), None);
    }
}
