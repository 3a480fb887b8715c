//! The console blocks of README.md and docs/ run as written; `support/console.rs` says how they are marked. Those for
//! kind run in `operator_e2e`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use streampress_tests::aws::Cloud;
use streampress_tests::console::{Console, blocks, pages, repository};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");

/// Runs the program that is built, in place of building it anew: `cargo run --release -- …`, `cargo install --path …`.
const CARGO: &str = r#"#!/bin/sh
case $1 in
run)
    while [ "$1" != -- ]; do shift; done
    shift
    exec streampress "$@" ;;
install)
    while [ "$1" != --path ]; do shift; done
    grep -q '^name = "streampress"' "$2/Cargo.toml" ;;
*)
    echo "tests/docs.rs does not know cargo $1" >&2
    exit 2 ;;
esac
"#;

/// A pipeline of a user on AWS.
const PIPELINE: &str = "apiVersion: streampress.dev/v1alpha1
kind: CompressionPipeline
metadata: {name: docs}
spec:
  transport:
    filesQueue: {name: docs-files.fifo}
    chunksQueue: {name: docs-chunks.fifo}
    stream: {name: docs-stream}
  aws: {endpointURL: \"ENDPOINT\"}
";

/// A folder that looks like a checkout, with the program as `streampress`, a `cargo`, and a home with a folder of logs.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (root, programs, logs) = (
            folder.path().join("checkout"),
            folder.path().join("bin"),
            folder.path().join("home/logs"),
        );
        for path in [&root, &programs, &logs] {
            fs::create_dir_all(path).expect("folders can be created");
        }
        for entry in fs::read_dir(repository()).expect("a readable repository") {
            let entry = entry.expect("a readable repository");
            let name = entry.file_name();
            if name != "target" && name != "streampress-data" {
                symlink(entry.path(), root.join(name)).expect("links can be created");
            }
        }
        symlink(PROGRAM, programs.join("streampress")).expect("links can be created");
        let cargo = programs.join("cargo");
        fs::write(&cargo, CARGO).expect("written");
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("executable");
        for number in 0..3 {
            let rows: String = (0..200)
                .map(|i| format!("{{\"id\":{i},\"file\":{number}}}\n"))
                .collect();
            fs::write(logs.join(format!("{number}.json")), rows).expect("written");
            let table: String = (0..200).map(|i| format!("{i},{number},10.5\n")).collect();
            fs::write(logs.join(format!("{number}.csv")), table).expect("written");
            let lines: String = (0..200)
                .map(|i| format!("2026-11-28T10:00:{:02}Z GET /{number} 200\n", i % 60))
                .collect();
            fs::write(logs.join(format!("{number}.txt")), &lines).expect("written");
            fs::write(logs.join(format!("{number}.log")), lines).expect("written");
        }
        Self(folder)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.0.path().join("checkout").join(name), content).expect("written");
    }

    fn console(&self, variables: &[(&str, &str)]) -> Console {
        let path = format!(
            "{}:/usr/local/bin:/usr/bin:/bin",
            self.0.path().join("bin").display()
        );
        let mut bash = Command::new("bash");
        bash.current_dir(self.0.path().join("checkout"))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.0.path().join("home"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(variables.iter().copied());
        Console::start(bash)
    }
}

/// Runs the blocks of a page that are marked with `place`; how many there are.
fn run_page(page: &Path, place: &str, console: impl FnOnce() -> Console) -> usize {
    let mut blocks = blocks(page);
    blocks.retain(|block| block.place == place);
    if !blocks.is_empty() {
        let mut console = console();
        for block in &blocks {
            console.run(page, block);
        }
        console.finish();
    }
    blocks.len()
}

#[test]
fn every_console_block_says_where_it_runs_or_why_not() {
    for page in pages() {
        for block in blocks(&page) {
            let at = format!("{}:{}", page.display(), block.line);
            assert!(
                ["", "aws", "kind", "ignore"].contains(&block.place.as_str()),
                "{at}: {:?}",
                block.place
            );
            assert_eq!(
                block.place == "ignore",
                block.reason.is_some(),
                "{at}: <!-- not run: the reason -->"
            );
        }
    }
}

#[test]
fn commands_of_readme_and_docs_run_as_written() {
    let mut count = 0;
    for page in pages() {
        let checkout = Checkout::new();
        count += run_page(&page, "", || checkout.console(&[]));
    }
    assert!(count > 0, "no page has a console block");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_aws_run_as_written() {
    let mut count = 0;
    for page in pages() {
        let (cloud, checkout) = (Cloud::start().await, Checkout::new());
        checkout.write(
            "pipeline.yaml",
            &PIPELINE.replace("ENDPOINT", &cloud.fake_aws.url),
        );
        checkout.write("pipeline-input.csv", "symbol,price\nABC,1.50\n");
        let credentials = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        count += tokio::task::block_in_place(|| {
            run_page(&page, "aws", || checkout.console(&credentials))
        });
    }
    assert!(count > 0, "no page has a console block for AWS");
}
