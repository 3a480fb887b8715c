//! Fixtures of the whole-system tests. Only tests use this package.
//!
//! - [`fake_aws`]: an HTTP server that imitates SQS and Kinesis, with AWS's limits and injected faults.
//! - [`aws`]: queues, streams and clients on it. [`issuer`]: where temporary AWS credentials come from.
//! - [`pipeline`]: a whole pipeline whose workers can be killed. [`slow`]: a consumer whose work takes time.
//! - [`sandbox`]: the program `streampress` in a folder of its own.
//! - [`cgroup`]: control groups with a memory limit.
//! - [`console`]: the console blocks of README.md and docs/.
//! - [`cluster`]: the Kubernetes of `tests/cluster`, through kubectl and helm.
//! - [`eventually`], [`eventually_blocking`]: waiting for a condition.
//!
//! Except for the fake AWS these modules lie in `support`.

pub mod fake_aws;
mod support;

pub use streampress_transport::contract_tests::{eventually, eventually_blocking};
pub use support::{aws, cgroup, cluster, console, issuer, pipeline, sandbox, slow};
