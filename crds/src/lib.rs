//! The CompressionPipeline contract.
