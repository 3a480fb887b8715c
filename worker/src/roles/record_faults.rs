//! Faults of records that may pass: a stream may not show a record yet, and another worker may read a frame that this one
//! cannot. Such a message is received again a few times before it becomes a dead letter.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::consume::HandlerError;

/// How often a message is received again after the first fault of its records.
const FURTHER_RECEIVES: u32 = 3;
/// Messages remembered; more are only received more often.
const REMEMBERED: usize = 10_000;

/// The faults of this worker's messages, by message id.
#[derive(Debug, Default)]
pub(crate) struct RecordFaults {
    counts: Mutex<BTreeMap<String, u32>>,
}

impl RecordFaults {
    /// What the work on the message led to: a fault of its records is transient until it has happened too often.
    pub(crate) fn judge<T>(
        &self,
        message_id: &str,
        outcome: Result<T, HandlerError>,
    ) -> Result<T, HandlerError> {
        let mut counts = self.counts.lock();
        match outcome {
            Err(HandlerError::Permanent(failure)) if failure.reason.may_pass() => {
                let count = counts.entry(message_id.to_owned()).or_default();
                *count += 1;
                if *count > FURTHER_RECEIVES {
                    counts.remove(message_id);
                    return Err(HandlerError::Permanent(failure));
                }
                if counts.len() > REMEMBERED {
                    counts.pop_first();
                }
                Err(HandlerError::Transient(anyhow::Error::msg(failure)))
            }
            // A stopped worker's message is not done yet.
            Err(HandlerError::Interrupted) => Err(HandlerError::Interrupted),
            other => {
                counts.remove(message_id);
                other
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::DeadLetterReason;

    fn failed(reason: DeadLetterReason) -> Result<(), HandlerError> {
        Err(HandlerError::permanent(reason, "detail"))
    }

    fn is_dead(outcome: &Result<(), HandlerError>) -> bool {
        matches!(outcome, Err(HandlerError::Permanent(_)))
    }

    #[test]
    fn a_fault_of_records_is_permanent_at_the_fourth_receive() {
        let faults = RecordFaults::default();
        for reason in [
            DeadLetterReason::RecordDamaged,
            DeadLetterReason::RecordMissing,
            DeadLetterReason::BadFrame,
        ] {
            let dead: Vec<bool> = (0..4)
                .map(|_| is_dead(&faults.judge("m", failed(reason))))
                .collect();
            assert_eq!(dead, [false, false, false, true], "{reason}");
        }
    }

    #[test]
    fn other_faults_are_permanent_at_once_and_a_success_begins_anew() {
        let faults = RecordFaults::default();
        assert!(is_dead(
            &faults.judge("m", failed(DeadLetterReason::Expired))
        ));
        let damaged = || faults.judge("m", failed(DeadLetterReason::RecordDamaged));
        for _ in 0..2 {
            for _ in 0..3 {
                assert!(!is_dead(&damaged()));
            }
            assert!(faults.judge("m", Ok(())).is_ok());
        }
        let other = faults.judge("n", failed(DeadLetterReason::RecordDamaged));
        assert!(!is_dead(&other));
    }
}
