//! Words that were replaced by the terms of AWS, Kubernetes, kube-rs, tokio and compression, or by plain English.

use std::collections::HashMap;

use crate::source::TextFile;

/// An old word, as it is searched for, and what to write in its place. Names are split where their parts meet:
/// `give_back` and `GiveBack` are "give back". With a hyphen, an apostrophe or an underscore the text is searched for as it is.
pub const OLD_WORDS: &[(&str, &str)] = &[
    ("door", "transport, trait, or its name"),
    ("doors", "transport, traits, or their names"),
    ("room", "capacity, space, or pure core"),
    ("rooms", "pure core"),
    ("corridor", "service"),
    ("corridors", "services"),
    ("desk", "transport manager"),
    ("desks", "transport managers"),
    ("in hand", "in flight, in progress, held"),
    ("hands", "applier, owners, or who holds it"),
    ("bury", "dead-letter"),
    ("buries", "dead-letters"),
    ("buried", "dead-lettered"),
    ("give back", "release"),
    ("gives back", "releases"),
    ("given back", "released"),
    ("gave back", "released"),
    ("giving back", "releasing"),
    ("standin", "fake AWS, fake"),
    ("stand-in", "fake AWS, fake"),
    ("stand-ins", "fakes"),
    ("walker", "shard reader, reader"),
    ("walkers", "shard readers, readers"),
    ("walk", "read, visit, list"),
    ("walks", "reads, visits, lists"),
    ("nobody", "no user, no process, nothing: name it"),
    ("somebody", "a user, another process: name it"),
    ("somebody's", "another owner's"),
    ("anybody", "any user, any process: name it"),
    ("everybody", "all users, all processes: name them"),
    ("whoever", "the process that, the user who"),
    ("misfit", "mismatch"),
    ("misfits", "mismatches"),
    ("errand", "operation"),
    ("errands", "operations"),
    ("another go", "send again, retry"),
    ("a look", "a read, a check"),
    ("looks at", "reads, checks, examines"),
    ("one look", "one read, one check, one reconcile"),
    ("two looks", "two reads, two checks"),
    ("these looks", "these reads, these checks"),
    ("asked for", "requested"),
    ("hidden", "in flight, invisible"),
    ("way out", "remedy"),
    ("retire", "rename or delete"),
    ("retires", "renames or deletes"),
    ("retired", "renamed or deleted"),
    ("put away", "renamed or deleted"),
    ("heed", "use, obey"),
    ("heeds", "uses, obeys"),
    ("heeded", "used, obeyed"),
    ("trouble", "problem"),
    ("unfolded", "a name of its own"),
    ("pulse", "watch health"),
    ("pulses", "watch health"),
    ("workplace", "role context"),
    ("may_act", "ensure_owner"),
    ("fn is_over(", "is_expired"),
    ("may_be_told", "is_safe_to_log"),
    ("seed_env", "legacy_env"),
    ("aws_side", "transport::aws"),
];

/// Where an old word stays: the beginning of the path, the word, the reason.
pub const ALLOWED_USES: &[(&str, &str, &str)] = &[
    ("tests/tidy/", "", "this list"),
    ("LICENSE", "", "the licence's own text"),
    (
        "operator/src/",
        "retire",
        "the annotation streampress.dev/retired",
    ),
    (
        "operator/src/",
        "retired",
        "the annotation streampress.dev/retired",
    ),
    ("worker/src/report/", "hidden", "HTML: aria-hidden"),
    (
        "tests/report_browser.rs",
        "hidden",
        "HTML: aria-hidden and hidden",
    ),
    (
        "worker/src/report/mod.rs",
        "way out",
        "a field of the report's rows",
    ),
    ("worker/codec/src/lib.rs", "hidden", "rustdoc's doc(hidden)"),
    (
        "worker/transport/src/contract_tests/files.rs",
        "hidden",
        "the name of a file",
    ),
    (
        "worker/transport/src/local/",
        "hidden",
        "columns of the SQLite files of data folders",
    ),
    ("deploy/examples/schemas/", "", "records of a shop"),
    (
        "worker/generator/",
        "",
        "products to draw from, and random walks, a kind of value in schemas",
    ),
    ("crds/src/api/pipeline.rs", "walk", "random walk"),
    ("crds/compressionpipeline.yaml", "walk", "random walk"),
    (
        "charts/streampress/files/compressionpipeline.yaml",
        "walk",
        "random walk",
    ),
    ("deploy/operator.yaml", "walk", "random walk"),
    ("operator/tests/golden/", "walk", "random walk"),
    (
        "worker/transport/src/local/",
        "given back",
        "a column of the SQLite files of data folders",
    ),
    (
        "worker/transport/src/local/files/",
        "walk",
        "the usual term for visiting a directory tree",
    ),
];

/// Each use of an old word: path, line, word, what to write instead.
pub fn old_words(file: &TextFile) -> Vec<(usize, &'static str, &'static str)> {
    let is_allowed = |old: &str| {
        ALLOWED_USES
            .iter()
            .any(|(path, word, _)| file.path.starts_with(path) && (word.is_empty() || *word == old))
    };
    let (mut found, mut wanted) = (Vec::new(), HashMap::<_, Vec<_>>::new());
    let lower = file.text.to_lowercase();
    for &(old, instead) in OLD_WORDS.iter().filter(|(old, _)| !is_allowed(old)) {
        if old.contains(['-', '\'', '_', '(']) {
            let lines = lower.match_indices(old).map(|(at, _)| line_at(&lower, at));
            found.extend(lines.map(|line| (line, old, instead)));
        } else {
            let words: Vec<&str> = old.split(' ').collect();
            wanted
                .entry(words[0])
                .or_default()
                .push((words, old, instead));
        }
    }
    let tokens = tokens(&file.text);
    for (at, token) in tokens.iter().enumerate() {
        for (words, old, instead) in wanted.get(&*token.word).into_iter().flatten() {
            let following = tokens[at..].iter().take(words.len());
            if following.map(|token| &token.word).eq(words) {
                found.push((token.line, *old, *instead));
            }
        }
    }
    found.sort_unstable();
    found
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

struct Token {
    line: usize,
    word: String,
}

/// The words of a text in lower case, over the ends of lines, with names split into their parts.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let mut before = ' ';
        for c in text.chars() {
            let begins = !before.is_alphabetic() || (before.is_lowercase() && c.is_uppercase());
            if c.is_alphabetic() {
                if begins {
                    let word = String::new();
                    tokens.push(Token { line, word });
                }
                if let Some(token) = tokens.last_mut() {
                    token.word.extend(c.to_lowercase());
                }
            }
            before = c;
        }
    }
    tokens
}

#[test]
fn old_words_are_found_in_names_over_lines_and_with_hyphens() {
    let found = |text: &str| {
        let file = TextFile {
            path: "a.rs".to_owned(),
            text: text.to_owned(),
        };
        let words = old_words(&file);
        words
            .into_iter()
            .map(|(line, word, _)| (line, word))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found("x\nfn give_back(DoorError)"),
        [(2, "door"), (2, "give back")]
    );
    assert_eq!(found("// it is asked\n// for"), [(1, "asked for")]);
    assert_eq!(found("a Stand-in"), [(1, "stand-in")]);
    assert_eq!(found("indoors, handle, walked, looks like"), []);
}
