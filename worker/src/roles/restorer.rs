//! Restores files of both formats, told apart by their messages.

use async_trait::async_trait;

use crate::consume::{Fault, Handler, Job, Subject};
use crate::decompress::Decompressor;
use crate::doors::Delivery;
use crate::seed_roles::SeedDecompressor;
use crate::wire::seed::SeedChunkMessage;

/// Whichever of the two a message is for.
pub(super) struct Restorer {
    pub(super) ours: Decompressor,
    pub(super) seed: SeedDecompressor,
}

impl Restorer {
    fn of(&self, delivery: &Delivery) -> &dyn Handler {
        // The original's message has no version; ours has nothing called sequence_number.
        if SeedChunkMessage::parse(&delivery.body).is_ok() {
            &self.seed
        } else {
            &self.ours
        }
    }
}

#[async_trait]
impl Handler for Restorer {
    async fn handle(&self, job: Job<'_>) -> Result<(), Fault> {
        self.of(job.delivery).handle(job).await
    }

    fn subject(&self, delivery: &Delivery) -> Subject {
        self.of(delivery).subject(delivery)
    }

    fn is_small(&self, delivery: &Delivery) -> bool {
        self.of(delivery).is_small(delivery)
    }

    async fn acknowledged(&self, delivery: &Delivery) {
        self.of(delivery).acknowledged(delivery).await;
    }

    async fn buried(&self, delivery: &Delivery, reason: &str, detail: &str) {
        self.of(delivery).buried(delivery, reason, detail).await;
    }
}
