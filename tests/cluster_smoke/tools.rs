//! Helm, the project's image, kind's configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{SOON, begin, one_shot};

#[test]
fn helm_installs_a_chart_and_removes_it() -> Result<()> {
    let (cluster, ns) = begin("helm")?;
    let chart = tempfile::tempdir()?;
    std::fs::create_dir(chart.path().join("templates"))?;
    std::fs::write(
        chart.path().join("Chart.yaml"),
        "apiVersion: v2\nname: tiny\nversion: 1.0.0\n",
    )?;
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {word: {{ .Values.word | quote }}}\n";
    std::fs::write(chart.path().join("templates/map.yaml"), template)?;
    let path = chart.path().display().to_string();
    cluster.helm(
        &[
            "-n", &ns.name, "install", "tiny", &path, "--set", "word=set", "--wait",
        ],
        SOON,
    )?;
    ensure!(cluster.get(&ns.name, "configmap/tiny")?["data"]["word"] == "set");
    cluster.helm(&["-n", &ns.name, "uninstall", "tiny", "--wait"], SOON)?;
    ensure!(
        cluster.find(&ns.name, "configmap/tiny")?.is_none(),
        "the chart's object is still there"
    );
    Ok(())
}

/// Needs `tests/cluster load-image` first.
#[test]
fn the_projects_image_runs_as_a_restricted_pod() -> Result<()> {
    let (cluster, ns) = begin("image")?;
    let image = cluster.project_image()?;
    let mut pod = one_shot(
        "version",
        "",
        json!({"image": image, "args": ["--version"]}),
    );
    // The image's own entrypoint and user are under test.
    let spec = &mut pod["spec"];
    spec["containers"][0]
        .as_object_mut()
        .context("a container is an object")?
        .remove("command");
    for field in ["runAsUser", "runAsGroup"] {
        spec["securityContext"]
            .as_object_mut()
            .context("a security context is an object")?
            .remove(field);
    }
    cluster.apply(&ns.name, &pod.to_string())?;
    let (code, log) = cluster
        .wait_pod_end(&ns.name, "version", SOON)
        .with_context(|| {
            format!("running {image}; `tests/cluster load-image` gives it to the cluster")
        })?;
    ensure!(
        code == 0 && log.contains("streampress"),
        "exit code {code}:\n{log}"
    );
    Ok(())
}

#[test]
fn kind_accepts_the_configuration_and_refuses_a_misspelt_one() -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests are in the repository")?;
    let check = kind_check(repository)?;
    let run = |file: &Path| {
        Command::new(&check)
            .arg(file)
            .output()
            .context("running the check of kind's configuration")
    };
    let config = repository.join("kind-config.yaml");
    let good = run(&config)?;
    ensure!(
        good.status.success(),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );

    let misspelt = tempfile::NamedTempFile::new()?;
    std::fs::write(
        misspelt.path(),
        std::fs::read_to_string(&config)?.replace("hostPort:", "hostsPort:"),
    )?;
    let bad = run(misspelt.path())?;
    ensure!(
        !bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("hostsPort"),
        "a misspelt field was taken"
    );
    Ok(())
}

/// Builds the check if it is not in the cache; a few seconds.
fn kind_check(repository: &Path) -> Result<PathBuf> {
    let built = Command::new(repository.join("tests/cluster"))
        .args(["build", "kind"])
        .output()
        .context("running tests/cluster build kind")?;
    ensure!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    Ok(PathBuf::from(String::from_utf8(built.stdout)?.trim()).join("kindcheck"))
}
