//! Suspending without loss: first generator and packing stop, then what is in flight is restored and its receipts are
//! taken, then all roles stop. Pure: the step follows from what is seen, so that a restarted operator goes on where the
//! last one was.

use std::time::Duration;

use streampress_transport::{COUNTED_LATE, Depth, EmptyQueues};

/// How long the queue of packed files must have been seen empty while more files were packed than restored or put into the
/// dead-letter queue; else [`COUNTED_LATE`]. Not longer: the last counts of
/// a killed worker are lost, and the sums never agree again.
const DISAGREEING: Duration = Duration::from_secs(180);

/// How far suspending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// The pipeline is not suspended.
    NotSuspended,
    /// The generator and compressors that pack are still ending.
    Stopping,
    /// Packed files are still to be restored; `None` when their number is not known.
    Emptying(Option<u64>),
    /// All packed files are restored; receipts are still to be taken. `None` when their number is not known.
    TakingReceipts(Option<u64>),
    /// Nothing is left as far as seen; that must hold for so much longer.
    Settling(Duration),
    /// Nothing is in flight.
    Drained,
}

/// What is seen of a suspended pipeline.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainFacts {
    /// `spec.suspend`.
    pub(crate) suspend: bool,
    /// Pods of the generator, and of compressors that pack, that are still there, ready or not.
    pub(crate) intake_pods: i32,
    /// Slots of any role that are held.
    pub(crate) held_slots: usize,
    /// The queue of packed files.
    pub(crate) chunks: Option<Depth>,
    /// The queue of receipts; zero where there is none.
    pub(crate) receipts: Option<Depth>,
    /// Files that were packed, by the ledgers, and neither restored nor put into the dead-letter queue.
    pub(crate) unaccounted: u64,
    /// The status already says that it is drained.
    pub(crate) was_drained: bool,
}

/// Decides; `empty` remembers (monotonic time) since when nothing has been in flight.
pub(crate) fn drain(facts: &DrainFacts, empty: &mut EmptyQueues<Duration>, now: Duration) -> Drain {
    if !facts.suspend {
        *empty = EmptyQueues::default();
        return Drain::NotSuspended;
    }
    let left = facts.chunks.map(|depth| depth.total());
    let receipts = facts.receipts.map(|depth| depth.total());
    if facts.was_drained
        && [left, receipts]
            .iter()
            .all(|left| left.is_none_or(|left| left == 0))
        && facts.held_slots == 0
        && facts.intake_pods == 0
    {
        return Drain::Drained;
    }
    if facts.intake_pods > 0 {
        *empty = EmptyQueues::default();
        return Drain::Stopping;
    }
    let is_empty = left == Some(0) && receipts == Some(0) && facts.held_slots == 0;
    let Some(seen_for) = empty.observe(is_empty, now) else {
        return match left {
            Some(0) if receipts != Some(0) => Drain::TakingReceipts(receipts),
            _ => Drain::Emptying(left),
        };
    };
    let needed = match facts.unaccounted {
        0 => COUNTED_LATE,
        _ => DISAGREEING,
    };
    match needed.checked_sub(seen_for) {
        Some(yet) if !yet.is_zero() => Drain::Settling(yet),
        _ => Drain::Drained,
    }
}

impl Drain {
    /// Whether generator and compressors may work.
    pub(crate) fn takes_in(self) -> bool {
        self == Drain::NotSuspended
    }

    /// Whether compressors may take receipts and nothing else.
    pub(crate) fn takes_receipts(self) -> bool {
        !matches!(self, Drain::NotSuspended | Drain::Stopping | Drain::Drained)
    }

    /// Whether decompressors may work.
    pub(crate) fn restores(self) -> bool {
        self != Drain::Drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Option<Depth> = Some(Depth {
        visible: 0,
        in_flight: 0,
        delayed: 0,
    });

    fn steps(inputs: &[(u64, DrainFacts)]) -> Vec<Drain> {
        let mut empty = EmptyQueues::default();
        inputs
            .iter()
            .map(|(second, facts)| drain(facts, &mut empty, Duration::from_secs(*second)))
            .collect()
    }

    fn suspended(intake_pods: i32, held_slots: usize, chunks: Option<Depth>) -> DrainFacts {
        DrainFacts {
            suspend: true,
            intake_pods,
            held_slots,
            chunks,
            receipts: EMPTY,
            ..DrainFacts::default()
        }
    }

    #[test]
    fn receipts_are_taken_after_the_last_file_was_restored() {
        let some = |visible| {
            Some(Depth {
                visible,
                ..Depth::default()
            })
        };
        let with_receipts = |held_slots, chunks, receipts| DrainFacts {
            receipts,
            ..suspended(0, held_slots, chunks)
        };
        assert_eq!(
            steps(&[
                (0, with_receipts(1, some(1), some(3))),
                (1, with_receipts(1, EMPTY, some(2))),
                (2, with_receipts(0, EMPTY, None)),
                (3, with_receipts(1, EMPTY, EMPTY)),
                (4, with_receipts(0, EMPTY, EMPTY)),
                (30, with_receipts(1, EMPTY, some(1))),
                (40, with_receipts(0, EMPTY, EMPTY)),
                (100, with_receipts(0, EMPTY, EMPTY)),
            ]),
            [
                Drain::Emptying(Some(1)),
                Drain::TakingReceipts(Some(2)),
                Drain::TakingReceipts(None),
                Drain::Emptying(Some(0)),
                Drain::Settling(Duration::from_secs(60)),
                Drain::TakingReceipts(Some(1)),
                Drain::Settling(Duration::from_secs(60)),
                Drain::Drained,
            ]
        );
        let late = DrainFacts {
            was_drained: true,
            ..with_receipts(0, EMPTY, some(1))
        };
        assert_eq!(steps(&[(0, late)]), [Drain::TakingReceipts(Some(1))]);
    }

    #[test]
    fn it_is_drained_when_nothing_was_in_flight_for_a_minute() {
        let one = Some(Depth {
            in_flight: 1,
            ..Depth::default()
        });
        assert_eq!(
            steps(&[
                (0, suspended(2, 1, one)),
                (5, suspended(0, 1, one)),
                (6, suspended(0, 1, EMPTY)),
                (7, suspended(0, 0, EMPTY)),
                (30, suspended(0, 0, one)),
                (40, suspended(0, 0, EMPTY)),
                (99, suspended(0, 0, EMPTY)),
                (100, suspended(0, 0, EMPTY)),
            ]),
            [
                Drain::Stopping,
                Drain::Emptying(Some(1)),
                Drain::Emptying(Some(0)),
                Drain::Settling(Duration::from_secs(60)),
                Drain::Emptying(Some(1)),
                Drain::Settling(Duration::from_secs(60)),
                Drain::Settling(Duration::from_secs(1)),
                Drain::Drained,
            ]
        );
    }

    #[test]
    fn packed_files_that_were_not_counted_as_restored_are_waited_for_longer_but_not_for_ever() {
        let short_of = |unaccounted| DrainFacts {
            unaccounted,
            ..suspended(0, 0, EMPTY)
        };
        assert_eq!(
            steps(&[(0, short_of(2)), (60, short_of(2)), (61, short_of(0))])[1..],
            [Drain::Settling(Duration::from_secs(120)), Drain::Drained]
        );
        assert_eq!(
            steps(&[(0, short_of(2)), (180, short_of(2))])[1],
            Drain::Drained
        );
    }

    #[test]
    fn an_unknown_depth_is_never_drained() {
        assert_eq!(
            steps(&[(0, suspended(0, 0, None)), (1000, suspended(0, 0, None))]),
            [Drain::Emptying(None); 2]
        );
    }

    #[test]
    fn a_restarted_operator_believes_its_predecessor_until_a_message_appears() {
        let was = |chunks| DrainFacts {
            was_drained: true,
            ..suspended(0, 0, chunks)
        };
        let one = Some(Depth {
            visible: 1,
            ..Depth::default()
        });
        assert_eq!(
            steps(&[(0, was(None)), (1, was(EMPTY)), (2, was(one))]),
            [Drain::Drained, Drain::Drained, Drain::Emptying(Some(1))]
        );
    }

    #[test]
    fn without_suspend_there_is_nothing_to_drain() {
        assert_eq!(
            steps(&[(
                0,
                DrainFacts {
                    was_drained: true,
                    ..DrainFacts::default()
                }
            )]),
            [Drain::NotSuspended]
        );
    }
}
