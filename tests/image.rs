//! The Dockerfile and `tests/cluster load-image`, which builds the test image without Docker, must agree: same layout,
//! user, entrypoint and environment. This needs neither Docker nor a cluster.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| format!("reading {path}"))
}

/// The instructions of the Dockerfile's last stage, joined over continued lines.
fn last_stage() -> Result<Vec<(String, String)>> {
    let text = read("deploy/Dockerfile")?.replace("\\\n", " ");
    let mut stage = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let Some((instruction, rest)) = line.trim().split_once(' ') else {
            continue;
        };
        if instruction == "FROM" {
            stage.clear();
        }
        stage.push((instruction.to_owned(), rest.trim().to_owned()));
    }
    Ok(stage)
}

/// `IMAGE_…=value` of the script that builds the test image.
fn script_settings() -> Result<BTreeMap<String, String>> {
    let lines = read("tests/cluster.d/images.sh")?;
    let settings = lines
        .lines()
        .filter_map(|l| l.strip_prefix("IMAGE_")?.split_once('='));
    Ok(settings
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect())
}

#[test]
fn dockerfile_and_test_image_have_the_same_user_entrypoint_folder_and_environment() -> Result<()> {
    let stage: BTreeMap<_, _> = last_stage()?.into_iter().collect();
    let script = script_settings()?;
    let both = [
        ("USER", "USER", None),
        ("WORKDIR", "WORKDIR", None),
        ("ENV", "ENV", None),
        ("ENTRYPOINT", "ENTRYPOINT", Some(r#"[""#)),
    ];
    for (instruction, setting, json) in both {
        let docker = stage
            .get(instruction)
            .with_context(|| format!("the Dockerfile's last stage has no {instruction}"))?;
        let docker = if json.is_some() {
            docker.trim_start_matches(r#"[""#).trim_end_matches(r#""]"#)
        } else {
            docker
        };
        assert_eq!(
            Some(docker),
            script.get(setting).map(String::as_str),
            "{instruction} of the Dockerfile, and IMAGE_{setting}"
        );
    }
    assert_eq!(stage.get("FROM").map(String::as_str), Some("scratch"));
    assert_eq!(
        stage.get("COPY").map(String::as_str),
        Some("--from=build /image /"),
        "the image is what deploy/image-root.sh lays out"
    );
    Ok(())
}

#[test]
fn dockerfile_builds_the_toolchain_that_the_project_pins_and_lays_out_both_programs() -> Result<()>
{
    let dockerfile = read("deploy/Dockerfile")?;
    let toolchain = read("rust-toolchain.toml")?;
    let channel = toolchain
        .lines()
        .find_map(|l| l.strip_prefix("channel = "))
        .context("rust-toolchain.toml names a channel")?;
    let minor = channel
        .trim_matches('"')
        .rsplit_once('.')
        .context("the channel has a patch version")?
        .0;
    ensure!(
        dockerfile.contains(&format!("FROM rust:{minor}-")),
        "the Dockerfile does not build with Rust {minor}"
    );
    ensure!(dockerfile.contains(
        "deploy/image-root.sh /image target/dist/streampress target/dist/streampress-operator"
    ));
    Ok(())
}

#[test]
fn docker_is_sent_neither_builds_nor_history() -> Result<()> {
    let ignored = read(".dockerignore")?;
    let ignored: Vec<_> = ignored.lines().collect();
    for folder in ["**/target", ".git", "**/streampress-data"] {
        ensure!(ignored.contains(&folder), "{folder} would be sent");
    }
    Ok(())
}

/// `docker build` cannot run here, so the arguments of its cargo are looked up in the workspace.
#[test]
fn dockerfile_names_packages_features_and_a_profile_that_exist() -> Result<()> {
    let dockerfile = read("deploy/Dockerfile")?.replace("\\\n", " ");
    let (_, arguments) = dockerfile
        .split_once("cargo build ")
        .context("the Dockerfile builds with cargo")?;
    let arguments: Vec<&str> = arguments
        .split_whitespace()
        .take_while(|argument| *argument != "&&")
        .collect();
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(repository())
        .output()?;
    let metadata: Value = serde_json::from_slice(&metadata.stdout)?;
    let package = |name: &str| {
        let mut packages = metadata["packages"].as_array().into_iter().flatten();
        packages.find(|package| package["name"] == name)
    };
    let (mut programs, mut arguments) = (Vec::new(), arguments.iter());
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().context("the option has a value");
        match *option {
            "--locked" => {}
            "--profile" => {
                let profile = format!("[profile.{}]", value()?);
                ensure!(read("Cargo.toml")?.contains(&profile), "no {profile}");
            }
            "-p" => {
                let name = value()?;
                let targets =
                    &package(name).with_context(|| format!("no package {name}"))?["targets"];
                let targets = targets.as_array().into_iter().flatten();
                let bins = targets.filter(|target| target["kind"][0] == "bin");
                programs.extend(bins.map(|bin| bin["name"].clone()));
            }
            "--features" => {
                for feature in value()?.split(',') {
                    let (name, feature) = feature.split_once('/').context("package/feature")?;
                    let found = package(name).map(|package| &package["features"][feature]);
                    ensure!(found.is_some_and(|found| !found.is_null()), "no {feature}");
                }
            }
            other => bail!("this test does not know {other}"),
        }
    }
    for program in ["streampress", "streampress-operator"] {
        ensure!(programs.contains(&program.into()), "{program} is not built");
    }
    Ok(())
}

#[test]
fn the_layout_holds_the_program_its_libraries_certificates_and_one_user_without_rights()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    let program = std::env::current_exe()?;
    let laid = Command::new(repository().join("deploy/image-root.sh"))
        .arg(&root)
        .arg(&program)
        .output()?;
    ensure!(
        laid.status.success(),
        "{}",
        String::from_utf8_lossy(&laid.stderr)
    );

    let name = program.file_name().context("a program has a name")?;
    let mode = std::fs::metadata(root.join("usr/local/bin").join(name))?
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
    // The kernel needs the loader at the path that the program names.
    let ldd = String::from_utf8(Command::new("ldd").arg(&program).output()?.stdout)?;
    let wanted: Vec<_> = ldd
        .split_whitespace()
        .filter(|w| w.starts_with('/'))
        .collect();
    ensure!(
        wanted.iter().any(|w| w.contains("ld-linux")),
        "ldd names no loader:\n{ldd}"
    );
    for library in wanted {
        ensure!(root.join(&library[1..]).is_file(), "{library} is missing");
    }
    ensure!(root.join("etc/ssl/certs/ca-certificates.crt").is_file());
    ensure!(
        std::fs::read_to_string(root.join("etc/passwd"))?.starts_with("streampress:x:65532:65532:")
    );
    ensure!(
        !root.join("bin/sh").exists(),
        "the image has a shell, which only an intruder would use"
    );
    Ok(())
}
