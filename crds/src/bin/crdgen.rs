//! Prints the CompressionPipeline CRD as YAML.
fn main() {}
