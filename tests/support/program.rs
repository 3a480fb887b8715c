//! The program `streampress`, built with this package: its tests then find it under any choice of packages and features.

use std::process::ExitCode;

fn main() -> ExitCode {
    streampress::cli::main()
}
