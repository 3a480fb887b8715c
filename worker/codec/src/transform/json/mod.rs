//! JSON of any form: a document, lines of documents, or a part of a document.
//!
//! Every value belongs to a path: the keys from the root to it. A path has four columns: the shape of
//! each of its values, its scalars in their spelling, the lengths of its arrays, and the keys of its
//! maps. A shape is the text of an object without its values, or the brackets and separators of an
//! array. Text outside values (between rows, or incomplete at a block's ends) is kept in the gaps.

mod assemble;
mod scan;
mod shred;

pub(super) use assemble::join;
pub(super) use shred::split;

/// Columns of a path.
const COLUMNS: usize = 4;
const SHAPES: usize = 0;
const SCALARS: usize = 1;
const COUNTS: usize = 2;
const EXTRAS: usize = 3;

/// The first column: the text between the values of the outermost level.
const GAPS: usize = 0;

/// The column of a path.
fn column(path: usize, which: usize) -> usize {
    1 + path * COLUMNS + which
}

/// A placeholder for a value in a shape.
const PLACEHOLDER: u8 = 0;
/// The shape of every scalar.
const SCALAR: usize = 0;
/// The first bytes of the other shapes.
const FIXED: u8 = b'O';
const TUPLE: u8 = b'T';
const LIST: u8 = b'L';
const VARIED: u8 = b'V';
const MAP: u8 = b'M';

/// Deeper JSON is not split.
const DEPTH_LIMIT: usize = 100;
/// More paths or shapes do not make useful columns.
const MAX_PATHS: usize = 4000;
const MAX_SHAPES: usize = 20_000;

/// The path keys of array elements and map entries. The keys of objects have quotes and differ.
const ELEMENT: &[u8] = b"[]";
const ENTRY: &[u8] = b"{}";
const POSITIONS: [&[u8]; 4] = [b"[0]", b"[1]", b"[2]", b"[3]"];

/// The name of a path, for reports.
fn name(parent: &str, key: &[u8]) -> String {
    let key: String = String::from_utf8_lossy(key)
        .chars()
        .filter(|letter| *letter != '"' && !letter.is_control())
        .take(40)
        .collect();
    if key.starts_with('[') || key.starts_with('{') || parent.is_empty() {
        format!("{parent}{key}")
    } else {
        format!("{parent}.{key}")
    }
}

/// The names of all columns, from the names of the paths.
fn column_names(paths: &[String]) -> Vec<String> {
    let mut names = vec!["gaps".to_string()];
    for path in paths {
        let path = if path.is_empty() { "(root)" } else { path };
        names.extend(["shape", "", "count", "key"].map(|which| {
            if which.is_empty() {
                path.to_owned()
            } else {
                format!("{path} {which}")
            }
        }));
    }
    names
}
