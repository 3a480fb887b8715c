//! What holds for all source files: who may import whom, maps that name every module, type names that occur once, the
//! vocabulary, sleeps of tests, and links between documents.

mod links;
mod sleeps;
mod source;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use source::{TextFile, declared_modules, declared_types, modules, reexports, root, text_files};

/// What a package must not depend on, however indirectly, with all its features: the beginnings of packages' names.
const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str])] = &[
    (
        "streampress-codec",
        &["tokio", "aws-", "clap", "kube", "streampress-"],
    ),
    (
        "streampress-generator",
        &["tokio", "aws-", "clap", "kube", "streampress-"],
    ),
    (
        "streampress-crds",
        &["tokio", "aws-", "clap", "hyper", "streampress-"],
    ),
    (
        "streampress-transport",
        &[
            "clap",
            "axum",
            "streampress-codec",
            "streampress-generator",
            "streampress-operator",
        ],
    ),
    (
        "streampress-operator",
        &[
            "clap_complete",
            "streampress-codec",
            "streampress-generator",
        ],
    ),
];

/// The top-level modules of each crate: a module imports only those that stand before it in the list.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "crds/src/",
        &[
            "limits",
            "role",
            "reasons",
            "quantity",
            "location",
            "ledger",
            "slot_health",
            "lease",
            "api",
            "defaults",
            "names",
            "invalid",
            "settings",
            "rules",
            "notices",
            "checked",
            "document",
            "queue_check",
            "crd",
            "lib",
        ],
    ),
    (
        "worker/codec/src/",
        &[
            "types",
            "error",
            "bytes",
            "bits",
            "hash",
            "entropy",
            "transform",
            "block",
            "hybrid",
            "legacy",
            "lib",
        ],
    ),
    (
        "worker/generator/src/",
        &[
            "error", "tree", "reader", "random", "text", "pools", "options", "clock", "kinds",
            "walk", "document", "samples", "schema", "draw", "layout", "compiled", "lib",
        ],
    ),
    (
        "worker/transport/src/",
        &[
            "log_filter",
            "backoff",
            "clock",
            "empty_queues",
            "chunk_stream",
            "file_version",
            "error",
            "files",
            "object_key",
            "queue",
            "slot_lock",
            "in_process_lock",
            "contract_tests",
            "local",
            "aws",
            "lease",
            "sim",
            "lib",
        ],
    ),
    (
        "worker/src/",
        &[
            "runtime",
            "message",
            "telemetry",
            "consume",
            "journal",
            "destination",
            "report",
            "config",
            "legacy",
            "roles",
            "simulation",
            "cli",
            "lib",
        ],
    ),
    (
        "operator/src/",
        &[
            "errors",
            "transport",
            "resources",
            "decide",
            "state",
            "http",
            "apply",
            "controller",
            "run",
            "args",
            "lib",
        ],
    ),
];

/// Imports against the layers: crate, importer, imported, reason.
const UPWARD_IMPORTS: &[(&str, &str, &str, &str)] = &[
    (
        "crds/src/",
        "checked",
        "document",
        "a checked pipeline's problems have the document's positions",
    ),
    (
        "worker/transport/src/",
        "chunk_stream",
        "error",
        "the trait's results and the error's missing positions are one contract",
    ),
    (
        "worker/src/",
        "legacy",
        "roles",
        "the original's format is an implementation of the roles' traits, which choose it",
    ),
];

/// Text that must not occur in the code below a path.
const FORBIDDEN_CODE: &[(&str, &[&str])] = &[
    // Pure: no IO, no clock, but for the codec's figures about its own speed.
    (
        "crds/src/",
        &[
            "std::fs",
            "std::net",
            "std::time::SystemTime",
            "Instant::now",
        ],
    ),
    (
        "worker/codec/src/",
        &["std::fs", "std::net", "SystemTime::now"],
    ),
    (
        "worker/generator/src/",
        &[
            "std::fs",
            "std::net::Tcp",
            "SystemTime::now",
            "Instant::now",
        ],
    ),
    (
        "worker/src/message/",
        &["std::fs", "tokio", "aws_", "Queue", "ChunkStream"],
    ),
    (
        "operator/src/decide/",
        &[
            "kube::",
            "tokio",
            "std::fs",
            "SystemTime::now",
            "Instant::now",
        ],
    ),
    (
        "operator/src/resources/",
        &[
            "kube::Client",
            "kube::Api",
            "kube::client",
            "tokio",
            "std::fs",
            "SystemTime::now",
            "Instant::now",
        ],
    ),
    // Only provisioning and the implementations know the SDK.
    ("worker/src/", &["aws_sdk_", "rusqlite::Transaction"]),
    ("operator/src/", &["aws_sdk_"]),
];

/// Types that may share a name, with the reason.
const SHARED_TYPE_NAMES: &[(&str, &str)] = &[(
    "AwsConnection",
    "one for builds with the feature aws, one for builds without it",
)];

/// Panics with one line for each problem.
#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn text_of<'a>(files: &'a [TextFile], path: &str) -> &'a str {
    let file = files.iter().find(|file| file.path == path);
    &file.unwrap_or_else(|| panic!("{path} is missing")).text
}

#[test]
fn packages_depend_on_no_more_than_they_may() {
    let mut problems = Vec::new();
    for (package, forbidden) in FORBIDDEN_DEPENDENCIES {
        let output = Command::new(env!("CARGO"))
            .current_dir(root())
            .args([
                "tree",
                "--offline",
                "--locked",
                "--all-features",
                "--edges",
                "normal",
            ])
            .args(["--prefix", "none", "--format", "{p}", "--package", package])
            .output()
            .expect("cargo runs");
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(
            tree.starts_with(package),
            "{tree}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let names: std::collections::BTreeSet<&str> = tree
            .lines()
            .skip(1)
            .filter_map(|line| line.split(' ').next())
            .collect();
        for name in names {
            if forbidden.iter().any(|prefix| name.starts_with(prefix)) {
                problems.push(format!("{package} depends on {name}"));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn modules_import_only_those_below_them() {
    let files = text_files();
    let mut problems = Vec::new();
    let mut used = std::collections::BTreeSet::new();
    for (src, layers) in LAYERS {
        let exports = reexports(text_of(&files, &format!("{src}lib.rs")));
        let level = |name: &str| layers.iter().position(|layer| *layer == name);
        for (name, parts) in modules(&files, src) {
            let Some(own) = level(&name) else {
                problems.push(format!("{src}{name} stands in no layer of tests/tidy"));
                continue;
            };
            for part in parts {
                for import in part.imports() {
                    let import = exports.get(&import).unwrap_or(&import);
                    if level(import).is_none_or(|level| level <= own) {
                        continue;
                    }
                    let exception =
                        UPWARD_IMPORTS
                            .iter()
                            .position(|(crate_, importer, imported, _)| {
                                (crate_, *importer, *imported) == (src, &*name, &**import)
                            });
                    if let Some(exception) = exception {
                        used.insert(exception);
                    } else {
                        problems.push(format!("{}: {name} is below {import}", part.path));
                    }
                }
            }
        }
    }
    for (index, (src, importer, imported, _)) in UPWARD_IMPORTS.iter().enumerate() {
        if !used.contains(&index) {
            problems.push(format!("{src}: {importer} imports {imported} no more"));
        }
    }
    assert_none(&problems);
}

#[test]
fn pure_modules_know_no_io_and_no_sdk() {
    let files = text_files();
    let mut problems = Vec::new();
    for (folder, forbidden) in FORBIDDEN_CODE {
        let mut count = 0;
        for parts in modules(&files, folder).into_values() {
            for part in parts {
                count += 1;
                for text in *forbidden {
                    if part.code.contains(text) {
                        problems.push(format!("{} has {text}", part.path));
                    }
                }
            }
        }
        assert!(count > 0, "{folder} has no code");
    }
    assert_none(&problems);
}

#[test]
fn the_root_holds_only_what_belongs_there() {
    const ENTRIES: [&str; 22] = [
        ".ci",
        ".config",
        ".dockerignore",
        ".github",
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "charts",
        "crds",
        "deny.toml",
        "deploy",
        "docs",
        "kind-config.yaml",
        "operator",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "tests",
        "worker",
    ];
    let listed = Command::new("git")
        .args(["ls-files", "--full-name"])
        .current_dir(root())
        .output()
        .expect("git starts");
    // A source archive has no history, and nothing that was committed by mistake since.
    let listed = String::from_utf8(listed.stdout).expect("names are UTF-8");
    let tops: BTreeSet<&str> = listed
        .lines()
        .filter_map(|path| path.split('/').next())
        .collect();
    let strays = tops.into_iter().filter(|top| !ENTRIES.contains(top));
    let strays: Vec<String> = strays
        .map(|top| format!("{top} does not belong into the root"))
        .collect();
    assert_none(&strays);
}

#[test]
fn every_map_in_a_lib_rs_names_every_module() {
    let files = text_files();
    let mut problems = Vec::new();
    let mut count = 0;
    for file in files.iter().filter(|file| file.path.ends_with("/lib.rs")) {
        let declared = declared_modules(&file.text);
        let map: String = file
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("//!"))
            .collect();
        for module in declared {
            count += 1;
            if !map.contains(&format!("`{module}`")) {
                problems.push(format!("{} does not say what {module} is", file.path));
            }
        }
    }
    assert!(count > 50, "{count} modules");
    assert_none(&problems);
}

#[test]
fn type_names_are_unique_in_the_workspace() {
    let files = text_files();
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for name in declared_types(file) {
            places.entry(name).or_default().push(&file.path);
        }
    }
    assert!(places.len() > 300, "{} types", places.len());
    let is_allowed = |name: &str| {
        SHARED_TYPE_NAMES
            .iter()
            .any(|(allowed, _)| *allowed == name)
    };
    let shared = places
        .iter()
        .filter(|(name, at)| at.len() > 1 && !is_allowed(name));
    let problems: Vec<String> = shared
        .map(|(name, at)| format!("{name}: {}", at.join(", ")))
        .collect();
    assert_none(&problems);
}

#[test]
fn the_fields_own_terms_are_used() {
    let files = text_files();
    assert!(files.len() > 300, "{} files", files.len());
    let mut problems = Vec::new();
    for file in &files {
        for (line, word, instead) in words::old_words(file) {
            let mut problem = String::new();
            let _ = write!(problem, "{}:{line}: {word:?}; write {instead}", file.path);
            problems.push(problem);
        }
    }
    assert_none(&problems);
}

#[test]
fn each_sleep_of_a_test_says_why() {
    let files = text_files();
    let rust = files.iter().filter(|file| file.is_rust());
    let problems: Vec<String> = rust.flat_map(sleeps::unexplained).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The one file that makes names which Streampress keeps for itself; all others use what it makes.
const KEPT_NAMES: &str = "worker/transport/src/files.rs";

#[test]
fn names_that_streampress_keeps_for_itself_are_made_in_one_file() {
    let mut problems = Vec::new();
    for file in text_files() {
        // The simulation looks at locations from outside, as tests do.
        let is_checked = file.is_rust() && file.path.starts_with("worker/");
        if !is_checked || file.path == KEPT_NAMES || file.path.contains("/simulation/") {
            continue;
        }
        let lines: Vec<&str> = file.text.lines().collect();
        let tests = sleeps::first_line_of_tests(&file, &lines).unwrap_or(lines.len());
        for (number, line) in lines[..tests].iter().enumerate() {
            let makes_one = [
                "\".streampress",
                "RESERVED_FOLDER}/",
                "join(RESERVED_FOLDER",
            ];
            if makes_one.iter().any(|text| line.contains(text)) {
                problems.push(format!(
                    "{}:{}: a name that is kept; {KEPT_NAMES} makes it",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn every_relative_link_of_a_document_leads_to_something() {
    let mut pages = text_files();
    pages.retain(|file| file.path.ends_with(".md"));
    assert!(pages.len() > 15, "{} documents", pages.len());
    let problems: Vec<String> = pages
        .iter()
        .flat_map(|page| links::broken_links(page, &pages))
        .collect();
    assert_none(&problems);
}

#[test]
fn the_summary_of_the_book_names_every_page() {
    let mut pages = text_files();
    pages.retain(|file| file.path.starts_with("docs/src/") && file.path.ends_with(".md"));
    let is_summary = |page: &&TextFile| page.path == "docs/src/SUMMARY.md";
    let summary = pages
        .iter()
        .find(is_summary)
        .expect("the book has a summary");
    let named = links::linked_files(summary);
    let problems: Vec<String> = pages
        .iter()
        .filter(|page| !is_summary(page) && !named.contains(std::path::Path::new(&page.path)))
        .map(|page| format!("{} is not in SUMMARY.md", page.path))
        .collect();
    assert_none(&problems);
}
