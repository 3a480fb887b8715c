//! The program itself, so that this package's tests have it at hand however they are built.

use std::process::ExitCode;

fn main() -> ExitCode {
    streampress::cli::main()
}
