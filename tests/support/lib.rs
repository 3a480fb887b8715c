//! Fixtures and helpers of the whole-system tests.
