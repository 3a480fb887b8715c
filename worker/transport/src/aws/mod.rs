//! Queues on SQS FIFO, the stream on Kinesis and files in S3, on AWS itself or on another service of their protocols
//! (LocalStack). SDK types stay in here.

mod clients;
pub mod kinesis;
pub mod provision;
pub mod s3;
mod service_error;
pub mod sqs;

pub use clients::{Aws, AwsCredentials, AwsOptions, CallLimits};
pub use kinesis::KinesisStream;
pub use s3::S3Files;
pub use service_error::ServiceError;
pub use sqs::SqsQueue;
