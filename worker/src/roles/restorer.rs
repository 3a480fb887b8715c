//! Restores files of both formats, told apart by their messages.

use async_trait::async_trait;

use crate::consume::{Fault, Handler, MessageContext, Subject};
use crate::legacy::decompressor::LegacyDecompressor;
use crate::legacy::messages::LegacyManifest;
use crate::roles::decompress::Decompressor;
use streampress_transport::Delivery;

/// Whichever of the two a message is for.
pub(super) struct Restorer {
    pub(super) ours: Decompressor,
    pub(super) legacy: LegacyDecompressor,
}

impl Restorer {
    fn of(&self, delivery: &Delivery) -> &dyn Handler {
        // The original's message has no version; ours has nothing called sequence_number.
        if LegacyManifest::parse(&delivery.body).is_ok() {
            &self.legacy
        } else {
            &self.ours
        }
    }
}

#[async_trait]
impl Handler for Restorer {
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
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

    async fn on_dead_lettered(&self, delivery: &Delivery, reason: &str, detail: &str) {
        self.of(delivery)
            .on_dead_lettered(delivery, reason, detail)
            .await;
    }
}
