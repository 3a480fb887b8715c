//! Fixtures and helpers of the whole-system tests.

pub mod aws;
pub mod cluster;
pub mod desk;
pub mod fake_aws;
pub mod issuer;
pub mod pipeline;
pub mod slow;
