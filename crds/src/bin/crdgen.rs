//! Prints the CompressionPipeline CRD as YAML.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let yaml = match streampress_crds::crd::crd_yaml() {
        Ok(yaml) => yaml,
        Err(error) => {
            eprintln!("writing the CRD as YAML: {error}");
            return ExitCode::FAILURE;
        }
    };
    match std::io::stdout().write_all(yaml.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("printing the CRD: {error}");
            ExitCode::FAILURE
        }
    }
}
