//! The chart as helm renders it: linted, as committed, and refusing unknown values. Needs helm on the PATH, as inside `tests/cluster exec`. UPDATE_GOLDEN=1 writes the committed files anew.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const NAMESPACE: &str = "streampress-system";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn helm(args: &[&str]) -> Output {
    Command::new("helm")
        .args(args)
        .current_dir(root())
        .output()
        .expect("helm on the PATH: run this inside `tests/cluster exec`")
}

fn kubectl(args: &[&str]) -> String {
    text(&Command::new("kubectl").args(args).output().unwrap())
}

fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn render(more: &[&str]) -> String {
    text(&helm(
        &[
            &[
                "template",
                "streampress",
                "charts/streampress",
                "--namespace",
                NAMESPACE,
            ],
            more,
        ]
        .concat(),
    ))
}

#[track_caller]
fn check_golden(file: &str, rendered: &str) {
    let path = root().join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, rendered).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == rendered,
        "{file} is not what the chart renders; write it anew with UPDATE_GOLDEN=1 and look at the difference"
    );
}

#[test]
fn the_chart_is_clean() {
    text(&helm(&["lint", "--strict", "charts/streampress"]));
}

#[test]
fn the_rendered_files_are_what_the_chart_renders() {
    let namespace = format!(
        "# Rendered from charts/streampress, for `kubectl apply --server-side -f deploy/operator.yaml` without helm.\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    pod-security.kubernetes.io/enforce: restricted\n"
    );
    check_golden(
        "deploy/operator.yaml",
        &(namespace + &render(&["--no-hooks"])),
    );
    let namespaced = render(&["--set", "namespaced=true,crds.install=false"]);
    assert!(
        !namespaced.contains("kind: Cluster") && !namespaced.contains("CustomResourceDefinition")
    );
    check_golden("operator/tests/golden/namespaced.yaml", &namespaced);
    let all = render(&[
        "--set",
        "metrics.monitors=true,metrics.rules=true,metrics.dashboard=true,aws.allowEndpoints={http://a:1},crds.install=false,image.tag=sha256:0",
    ]);
    check_golden("operator/tests/golden/everything.yaml", &all);
}

#[test]
fn the_chart_brings_the_generated_crd_and_keeps_it() {
    let generated = std::fs::read_to_string(root().join("crds/compressionpipeline.yaml")).unwrap();
    let in_chart =
        std::fs::read_to_string(root().join("charts/streampress/files/compressionpipeline.yaml"))
            .unwrap();
    assert!(
        generated == in_chart,
        "copy crds/compressionpipeline.yaml to charts/streampress/files/"
    );
    assert!(generated.len() <= 64 * 1024);
    assert!(
        render(&["--show-only", "templates/crd.yaml"]).contains("helm.sh/resource-policy: keep")
    );
}

#[test]
fn the_chart_brings_the_dashboard_and_names_metrics_that_exist() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let dashboard = read("deploy/dashboards/streampress.json");
    assert!(
        dashboard == read("charts/streampress/files/dashboard.json"),
        "copy deploy/dashboards/streampress.json to charts/streampress/files/dashboard.json"
    );
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
    // The operator's own names; the workers' are checked where they are counted.
    let metrics = streampress_operator::http::metrics::OperatorMetrics::default();
    metrics.wrote("Lease");
    metrics.reconciled("ok", std::time::Duration::ZERO);
    metrics.phase(None, Some(streampress_crds::api::status::Phase::Running));
    let with_figures = streampress_crds::CompressionPipelineStatus {
        phase: Some(streampress_crds::api::status::Phase::Running),
        backlog: Some(streampress_crds::api::status::BacklogStatus {
            files: Some(1),
            chunks: Some(1),
            receipts: None,
            dead: Some(1),
            waiting_since: Some("2026-01-01T00:00:00Z".into()),
        }),
        retention: Some(streampress_crds::api::status::RetentionStatus::default()),
        ..streampress_crds::CompressionPipelineStatus::default()
    };
    metrics.pipeline("shop", "orders", &with_figures);
    let page = metrics.text();
    for file in [
        "deploy/dashboards/streampress.json",
        "charts/streampress/templates/metrics.yaml",
    ] {
        let text = read(file);
        for name in text.split("streampress_operator_").skip(1) {
            let name: String = name
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            assert!(
                page.contains(&format!("streampress_operator_{name}")),
                "{file}: {name} is not among\n{page}"
            );
        }
    }
}

#[test]
fn unknown_values_are_refused() {
    for wrong in [
        "replica=2",
        "image.tags=1",
        "aws.allowEndpoints={ftp://x}",
        "concurrency=0",
        "crds.instal=true",
    ] {
        let output = helm(&[
            "template",
            "streampress",
            "charts/streampress",
            "--set",
            wrong,
        ]);
        assert!(!output.status.success(), "{wrong} was accepted");
    }
}

/// The kind and the name of every object that a release makes.
fn objects_of(namespace: &str, release: &str) -> Vec<(String, String)> {
    let chart = "charts/streampress";
    let output = helm(&["template", release, chart, "--namespace", namespace]);
    let field = |document: &str, field: &str| {
        let lines = document.lines();
        let value = lines.filter_map(|line| line.strip_prefix(field)).next();
        value
            .unwrap_or_default()
            .trim()
            .trim_matches('"')
            .to_owned()
    };
    let rendered = text(&output);
    let objects = rendered
        .split("\n---\n")
        .map(|document| (field(document, "kind: "), field(document, "  name: ")));
    let objects: Vec<_> = objects.filter(|(kind, _)| !kind.is_empty()).collect();
    assert!(objects.len() > 8, "{rendered}");
    objects
}

#[test]
fn every_release_name_gives_names_that_every_kind_takes() {
    let long = "a".repeat(53);
    for release in ["press", "a.dotted.name", "1st", "9.streampress.x", &long] {
        for (kind, name) in objects_of("team", release) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            // Cluster-wide roles take any character that a path takes.
            let own = name.strip_prefix("team:").unwrap_or(&name);
            let fits = own.len() <= 63
                && own.chars().all(plain)
                && own.starts_with(|c: char| c.is_ascii_lowercase())
                && !own.ends_with('-');
            assert!(
                fits || kind == "CustomResourceDefinition",
                "{release}: {kind} {name}"
            );
            assert_eq!(
                name.starts_with("team:"),
                kind.starts_with("Cluster"),
                "{release}: {kind} {name}"
            );
        }
    }
}

#[test]
fn no_two_releases_make_objects_of_the_same_name() {
    let (long, longer) = ("a".repeat(52), "a".repeat(53));
    let alike = [
        [("team", "a-streampress"), ("team-a", "streampress")],
        [("team", "a.b"), ("team", "a-b")],
        [("team", "1st"), ("team", "release-1st")],
        [("team", &long), ("team", &longer)],
    ];
    for pair in alike {
        let [one, other] = pair.map(|(namespace, release)| {
            let objects = objects_of(namespace, release).into_iter();
            let scope = |kind: &str| match kind.starts_with("Cluster") {
                true => String::new(),
                false => namespace.to_owned(),
            };
            let objects = objects.filter(|(kind, _)| kind != "CustomResourceDefinition");
            let objects = objects.map(|(kind, name)| (scope(&kind), kind, name));
            objects.collect::<std::collections::BTreeSet<_>>()
        });
        assert!(one.is_disjoint(&other), "{pair:?}");
    }
}

#[test]
fn rights_are_listed_one_by_one() {
    let rendered = render(&["--set", "crds.install=false"]);
    assert!(
        !rendered.contains("\"*\"") && !rendered.contains("'*'") && !rendered.contains("[*]"),
        "a wildcard in the rendered chart"
    );
}

/// The commands of a section of a page of the guide.
fn commands_of(page: &str, section: &str) -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/src/guide").join(page)).unwrap();
    let (_, after) = page.split_once(section).unwrap();
    let block = after.split("```").nth(1).unwrap();
    let commands = block.lines().filter_map(|line| line.strip_prefix("$ "));
    commands.map(str::to_owned).collect()
}

#[test]
fn an_operator_of_the_manifest_moves_to_helm_by_the_commands_of_the_guide() {
    let manifest = root().join("deploy/operator.yaml");
    let manifest = manifest.to_str().unwrap();
    kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        manifest,
    ]);
    let uids = || {
        let uid = "jsonpath={range .items[*]}{.kind} {.metadata.uid}{\"\\n\"}{end}";
        kubectl(&["get", "-f", manifest, "--output", uid])
    };
    let before = uids();
    let commands = commands_of("kind.md", "### From the manifest to Helm");
    assert_eq!(commands.len(), 2);
    for command in commands {
        let mut shell = Command::new("sh");
        text(
            &shell
                .args(["-c", &command])
                .current_dir(root())
                .output()
                .unwrap(),
        );
    }
    let release = ["streampress", "--namespace", NAMESPACE];
    let upgrade = ["upgrade", "--force-conflicts", "--set", "concurrency=8"];
    text(&helm(
        &[
            &upgrade[..],
            &release[..1],
            &["charts/streampress"],
            &release[1..],
        ]
        .concat(),
    ));
    // The same objects as before: nothing was deleted and made again.
    assert_eq!(uids(), before);
    let deployment = ["deployment", "streampress", "--namespace", NAMESPACE];
    let args = "jsonpath={.spec.template.spec.containers[0].args}";
    let args = kubectl(&[&["get"], &deployment[..], &["--output", args]].concat());
    assert!(args.contains("--concurrency=8"), "{args}");
    // There are no nodes here on which its cleanup Job could run.
    text(&helm(
        &[&["uninstall", "--no-hooks"], &release[..]].concat(),
    ));
    let crd = "compressionpipelines.streampress.dev";
    kubectl(&["get", "customresourcedefinition", crd, "--output", "name"]);
    kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}

#[test]
fn a_namespaced_release_is_installed_upgraded_rolled_back_and_leaves_nothing() {
    let namespace = format!("chart-{}", std::process::id());
    let with = |args: &[&str]| {
        let place = ["--namespace", &namespace, "--timeout", "60s"];
        text(&helm(&[args, &place].concat()))
    };
    let set = "namespaced=true,crds.install=false,metrics.dashboard=true";
    let chart = "charts/streampress";
    with(&[
        "install",
        "streampress",
        chart,
        "--create-namespace",
        "--set",
        set,
    ]);
    with(&[
        "upgrade",
        "streampress",
        chart,
        "--set",
        set,
        "--set",
        "concurrency=8",
    ]);
    with(&["rollback", "streampress", "1"]);
    // There are no nodes here on which its cleanup Job could run.
    with(&["uninstall", "streampress", "--no-hooks"]);
    let kinds = "deployments,services,serviceaccounts,roles,rolebindings,configmaps,jobs";
    streampress_tests::eventually_blocking("nothing of the chart is left behind", || {
        let left = kubectl(&[
            "get",
            kinds,
            "--output",
            "name",
            "--namespace",
            &namespace,
            "--selector",
            "app.kubernetes.io/part-of=streampress",
        ]);
        left.is_empty()
    });
    kubectl(&["delete", "namespace", &namespace, "--wait=false"]);
}
