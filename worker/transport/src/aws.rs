//! The AWS side of the doors: SQS FIFO, Kinesis and S3, on AWS itself or on whatever speaks their protocols
//! (LocalStack). SDK types stay in here.

pub mod clients;
pub mod fault;
pub mod kinesis;
pub mod provision;
pub mod s3;
pub mod sqs;

pub use clients::{Aws, AwsOptions, Keys};
pub use kinesis::KinesisStream;
pub use s3::S3Files;
pub use sqs::SqsQueue;
