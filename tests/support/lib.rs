//! Fixtures and helpers of the whole-system tests.

pub mod cluster;
