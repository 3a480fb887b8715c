//! Links of Markdown files to files and headings of the repository.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::source::{TextFile, root};

/// The relative links of a page that lead nowhere, as messages.
pub fn broken_links(page: &TextFile, pages: &[TextFile]) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, link) in links(&page.text) {
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        if file.contains("://") || file.starts_with("mailto:") {
            continue;
        }
        let target = target(&page.path, file);
        let is_page = target
            .extension()
            .is_some_and(|extension| extension == "md");
        let found = pages.iter().find(|page| Path::new(&page.path) == target);
        let has_heading = || found.is_some_and(|page| headings(&page.text).contains(heading));
        if !root().join(&target).exists() {
            problems.push(format!("{}:{line}: {link} does not exist", page.path));
        } else if is_page && !heading.is_empty() && !has_heading() {
            problems.push(format!("{}:{line}: {link} has no such heading", page.path));
        }
    }
    problems
}

/// The files that a page links to, from the repository's root.
pub fn linked_files(page: &TextFile) -> BTreeSet<PathBuf> {
    let links = links(&page.text).into_iter();
    links.map(|(_, link)| target(&page.path, link)).collect()
}

/// The file that a link of the page at `path` leads to; the page itself for a link without a file.
fn target(path: &str, link: &str) -> PathBuf {
    if link.is_empty() {
        return path.into();
    }
    let mut target = PathBuf::from(path);
    target.pop();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => {
                target.pop();
            }
            Component::CurDir => {}
            other => target.push(other),
        }
    }
    target
}

/// Each link with its line; code is left out.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second part is code.
        for part in line.split('`').step_by(2) {
            for (at, _) in part.match_indices("](") {
                let rest = &part[at + 2..];
                found.extend(rest.split_once(')').map(|(link, _)| (number, link)));
            }
        }
        // A link whose text is code: its target stands after the code.
        for (at, _) in line.match_indices("`](") {
            let rest = &line[at + 3..];
            let link = rest.split_once(')').map(|(link, _)| (number, link));
            found.extend(link.filter(|link| !found.contains(link)));
        }
    }
    found
}

/// The headings of a page as GitHub and mdBook name them in links.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len() && title.starts_with(' ')).then(|| title.trim())
    });
    headings
        .map(|title| {
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

/// The lines outside of fenced code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

#[test]
fn links_are_found_outside_of_code() {
    let text = "[a](b.md#c) `[d](e)` [`f`](g)\n```\n[h](i)\n```\n[j](#k)\n";
    assert_eq!(links(text), [(1, "b.md#c"), (1, "g"), (5, "#k")]);
    assert_eq!(
        target("docs/src/a/b.md", "../../../c.md"),
        Path::new("c.md")
    );
    let headings = headings("# The `a.b[]` one\n```\n# no\n```\n");
    assert_eq!(headings.into_iter().collect::<Vec<_>>(), ["the-ab-one"]);
}
