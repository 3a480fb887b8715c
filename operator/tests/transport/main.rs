//! The contract of a pipeline's transport, on both of its sides: in memory, and AWS by a stand-in that enforces its limits.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

mod aws;
mod contract;
mod sides;
mod ways;

use sides::{AwsSide, MemorySide};

/// Each case on each side.
macro_rules! on_both_sides {
    ($($case:ident)*) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $case() {
                super::contract::$case(&super::MemorySide::default()).await;
            })*
        }
        mod on_aws {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::contract::$case(&super::AwsSide::start().await).await;
            })*
        }
    };
}

on_both_sides! {
    all_parts_are_made_as_specified_and_carry_our_tag
    making_again_changes_nothing
    what_differs_is_put_right_in_what_is_ours
    what_was_taken_away_is_made_anew
    what_is_somebody_elses_is_refused_and_left_as_it_is
    adopting_names_all_that_is_missing_and_makes_nothing
    adopting_changes_nothing_even_where_it_differs
    adopting_refuses_what_a_pipeline_cannot_work_with
    depths_are_counted_and_what_is_not_there_is_not_zero
    deleting_takes_what_is_ours_and_names_what_is_not
    deleting_again_finds_nothing
    retaining_leaves_all_and_names_each
    what_was_adopted_is_never_deleted
    when_empty_deletes_what_is_empty
    when_empty_keeps_all_for_one_message_in_any_queue
}
