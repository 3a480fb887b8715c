//! What is wrong with a pipeline, for its owner: a reason, a sentence with the remedy, and whether trying again helps.

use streampress_crds::Reason;

/// Something that keeps a pipeline from working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason of the condition.
    pub reason: Reason,
    /// One sentence, with the remedy.
    pub message: String,
    /// Whether trying again helps.
    pub retry: Retry,
}

/// Whether trying the same again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It may pass by itself: a timeout, a server error.
    Transient,
    /// Nothing is wrong: AWS creates, changes or deletes an object, which takes it up to some minutes.
    InProgress,
    /// It passes when a user corrects rights, credentials or the endpoint. The operator tries on, but a deletion does not
    /// wait for it.
    AfterCorrection,
    /// It passes only when the pipeline, or what is in its way, is changed. The pipeline counts as failed.
    AfterChange,
}

impl Retry {
    /// Whether the same attempt may succeed later although no user changes anything.
    pub(crate) fn helps(self) -> bool {
        matches!(self, Self::Transient | Self::InProgress)
    }
}
