//! The contract of a pipeline's transport over both backends: in memory, and AWS as a fake that enforces its limits.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

mod aws;
mod backends;
mod both_ways;
mod contract;

use backends::{AwsBackend, MemoryBackend};

/// Each case on each backend.
macro_rules! on_both_backends {
    ($($case:ident)*) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $case() {
                super::contract::$case(&super::MemoryBackend::default()).await;
            })*
        }
        mod on_aws {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::contract::$case(&super::AwsBackend::start().await).await;
            })*
        }
    };
}

on_both_backends! {
    everything_is_created_as_specified_and_carries_our_tag
    creating_again_changes_nothing
    what_differs_is_corrected_in_what_is_ours
    a_retention_is_extended_for_what_waits_and_stays_until_it_is_to_be_lowered
    what_was_deleted_is_created_again
    what_another_owner_has_is_refused_and_left_as_it_is
    adopting_names_all_that_is_missing_and_creates_nothing
    adopting_changes_nothing_even_where_it_differs
    a_pipeline_without_receipts_needs_no_queue_for_them
    adopting_refuses_what_a_pipeline_cannot_work_with
    adopting_refuses_what_carries_the_tag_of_another_pipeline_until_the_tag_is_gone
    depths_are_counted_and_a_missing_queue_is_not_zero
    deleting_takes_what_is_ours_and_names_what_is_not
    deleting_again_finds_nothing
    retaining_leaves_all_and_names_each
    what_was_adopted_is_never_deleted
    when_empty_deletes_what_is_empty
    when_empty_keeps_all_for_one_message_in_any_queue
}
