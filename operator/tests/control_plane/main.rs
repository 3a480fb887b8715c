//! The operator against a real API server without nodes. `tests/cluster up --control-plane`, then
//! `tests/cluster exec cargo test -p streampress-operator --features cluster --test control_plane`. Tests that
//! take many minutes are ignored by default; `-- --ignored` and `tests/run --long` run them.
//! Every test has an operator and a namespace of its own.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod autoscalers;
mod faults;
mod leaders;
mod leaving;
mod ownership;
mod pipelines;
mod robustness;
mod rules;
mod statuses;
mod stored;
