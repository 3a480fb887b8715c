//! Fixtures and helpers of the whole-system tests.

pub mod cluster;
pub mod aws;
pub mod pipeline;
pub mod standin;
