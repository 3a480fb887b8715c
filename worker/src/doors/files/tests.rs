//! The contract over a folder, and what only a folder has: links, pipes, names that are no text, dead writers.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use crate::doors::contract;

use super::LocalFiles;

#[test]
fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let files = LocalFiles::open("file:///data/in", folder.path()).unwrap();
    contract::files::all(&files);
}
