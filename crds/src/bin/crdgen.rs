//! Prints the CustomResourceDefinition of a CompressionPipeline as YAML. With `--write`, run at the repository's root,
//! refreshes every committed file that is generated from the types.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use streampress_crds::crd;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => print(),
        [option] if option == "--write" => write(),
        _ => {
            eprintln!("usage: crdgen [--write]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error);
            ExitCode::FAILURE
        }
    }
}

fn print() -> Result<(), Box<dyn Error>> {
    std::io::stdout().write_all(crd::crd_yaml()?.as_bytes())?;
    Ok(())
}

fn write() -> Result<(), Box<dyn Error>> {
    for (path, text) in crd::generated_files()? {
        std::fs::write(path, text).map_err(|error| format!("writing {path}: {error}"))?;
    }
    Ok(())
}
