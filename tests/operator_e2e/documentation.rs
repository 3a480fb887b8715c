//! The console blocks of README.md and docs/ for kind, as written, on the cluster of `tests/cluster`: kubectl and helm are
//! real; kind and docker are scripts that check their arguments, because the cluster already has the image.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use streampress_tests::cluster::Cluster;
use streampress_tests::console::{Console, blocks, pages, repository};

use crate::{CRD_NAME, SOON};

const KIND: &str = r#"#!/bin/sh
case "$1 $2" in
"create cluster") [ "$3" = --config ] && [ -f "$4" ] ;;
"load docker-image") [ "$3" = "$STREAMPRESS_IMAGE" ] && [ "$4" = --name ] ;;
"delete cluster") [ "$3" = --name ] ;;
*) false ;;
esac
"#;

const DOCKER: &str = r#"#!/bin/sh
[ "$1 $2" = "build -f" ] && [ -f "$3" ] && [ "$4 $5" = "-t $STREAMPRESS_IMAGE" ] && [ -d "$6" ]
"#;

/// Removes what the commands installed, however the test ends.
struct Installed(Cluster);

impl Drop for Installed {
    fn drop(&mut self) {
        let remove = || -> Result<()> {
            let cluster = &self.0;
            cluster.kubectl(&["delete", "cpl", "--all", "-A", "--timeout=150s"])?;
            let uninstall = [
                "-n",
                "streampress-system",
                "uninstall",
                "streampress",
                "--wait",
                "--ignore-not-found",
            ];
            cluster.helm(&uninstall, SOON)?;
            // The next page installs into it again.
            let namespace = ["namespace", "streampress-system"];
            cluster.kubectl(&[&["delete"], &namespace[..], &["--timeout=170s"]].concat())?;
            cluster
                .kubectl(&["delete", "crd", CRD_NAME, "--timeout=170s"])
                .map(drop)
        };
        if let Err(error) = remove() {
            eprintln!("the quick start's objects stay: {error:#}");
        }
    }
}

#[test]
fn commands_for_kind_run_as_written() -> Result<()> {
    let cluster = Cluster::connect()?;
    cluster.kubectl(&[
        "delete",
        "crd",
        CRD_NAME,
        "--ignore-not-found",
        "--timeout=170s",
    ])?;
    let programs = tempfile::tempdir()?;
    for (name, script) in [("kind", KIND), ("docker", DOCKER)] {
        let path = programs.path().join(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let path = std::env::var("PATH").context("PATH is set")?;
    let path = format!("{}:{path}", programs.path().display());
    let mut count = 0;
    for page in pages() {
        let mut blocks = blocks(&page);
        blocks.retain(|block| block.place == "kind");
        if blocks.is_empty() {
            continue;
        }
        let _installed = Installed(cluster.clone());
        let mut bash = Command::new("bash");
        bash.current_dir(repository())
            .env("PATH", &path)
            .env("STREAMPRESS_IMAGE", cluster.project_image()?);
        let mut console = Console::start(bash);
        for block in &blocks {
            console.run(&page, block);
        }
        console.finish();
        count += blocks.len();
    }
    ensure!(count > 0, "no page has a console block for kind");
    Ok(())
}
