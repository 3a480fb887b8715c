//! From JSON to columns.

use std::collections::{HashMap, HashSet};

use super::{
    COLUMNS, COUNTS, ELEMENT, ENTRY, EXTRAS, FIXED, GAPS, LIST, MAP, MAX_PATHS, MAX_SHAPES,
    PLACEHOLDER, POSITIONS, SCALAR, SCALARS, SHAPES, TUPLE, VARIED, column, column_names, name,
    scan,
};
use crate::{
    bytes::put_varint,
    hash::{hash_bytes, mix},
    transform::{ColumnTable, values::ColumnValues},
};

/// An object with many keys that rarely repeat is a map: its keys are data.
const MAP_KEYS: usize = 32;
const MAP_USES: usize = 3;
/// Maps nest: the text is split again this many times, each with the maps found before.
const MAP_ROUNDS: usize = 4;
/// After this many failures to read a value the text does not count as JSON.
const MAX_FAILURES: usize = 200;

/// Splits JSON into columns, with a hash of each path; `None` if most of the text is not JSON.
pub(crate) fn split(raw: &[u8]) -> Option<(ColumnTable, Vec<u64>)> {
    if !matches!(raw.trim_ascii_start().first(), Some(b'{' | b'[' | b'"'))
        || raw.contains(&PLACEHOLDER)
    {
        return None;
    }
    let mut maps = HashSet::new();
    for _ in 0..MAP_ROUNDS {
        let mut shredder = Shredder::new(raw, &maps);
        let complete = shredder.top_level();
        let found = shredder.new_maps();
        if found.is_empty() {
            complete?;
            let mut sketch = shredder.path_keys.clone();
            sketch.sort_unstable();
            return Some((shredder.finish(), sketch));
        }
        maps.extend(found);
    }
    None
}

struct Shredder<'a> {
    text: &'a [u8],
    columns: Vec<ColumnValues>,
    names: Vec<String>,
    /// For each path a hash of its keys.
    path_keys: Vec<u64>,
    paths: HashMap<(usize, &'a [u8]), usize>,
    shapes: HashMap<Vec<u8>, usize>,
    shape_list: Vec<Vec<u8>>,
    maps: &'a HashSet<String>,
    /// For each path the number of its distinct keys and of their uses.
    keys: Vec<(usize, usize)>,
}

impl<'a> Shredder<'a> {
    fn new(text: &'a [u8], maps: &'a HashSet<String>) -> Self {
        Self {
            text,
            columns: vec![ColumnValues::default(); 1 + COLUMNS],
            names: vec![String::new()],
            path_keys: vec![0],
            paths: HashMap::new(),
            shapes: HashMap::new(),
            shape_list: vec![Vec::new()],
            maps,
            keys: vec![(0, 0)],
        }
    }

    fn finish(self) -> ColumnTable {
        let mut head = Vec::new();
        put_varint(&mut head, self.shape_list.len() as u64);
        for shape in &self.shape_list {
            put_varint(&mut head, shape.len() as u64);
            head.extend_from_slice(shape);
        }
        let mut keys = vec![1];
        for &path in &self.path_keys {
            keys.extend((0..COLUMNS as u64).map(|which| mix(path, which)));
        }
        ColumnTable {
            head,
            columns: self.columns,
            names: column_names(&self.names),
            keys,
        }
    }

    /// The paths whose objects are maps.
    fn new_maps(&self) -> Vec<String> {
        let is_map =
            |&(distinct, uses): &(usize, usize)| distinct >= MAP_KEYS && uses < distinct * MAP_USES;
        self.keys
            .iter()
            .zip(&self.names)
            .filter(|(keys, name)| is_map(keys) && !self.maps.contains(*name))
            .map(|(_, name)| name.clone())
            .collect()
    }

    fn top_level(&mut self) -> Option<()> {
        let text = self.text;
        let (mut at, mut gap, mut failures, mut gap_bytes) = (0, 0, 0, 0);
        while at < text.len() {
            let starts = matches!(text[at], b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
            let end = if starts {
                scan::value(text, at, 0)
            } else {
                None
            };
            let Some(end) = end else {
                failures += usize::from(starts);
                gap_bytes += usize::from(!matches!(text[at], b' ' | b'\n' | b'\r' | b'\t'));
                if failures > MAX_FAILURES || (gap_bytes > 1000 && gap_bytes > at / 3) {
                    return None;
                }
                at += 1;
                continue;
            };
            self.columns[GAPS].push(&text[gap..at]);
            at = self.value(0, at)?;
            debug_assert_eq!(at, end);
            gap = at;
        }
        self.columns[GAPS].push(&text[gap..]);
        (self.names.len() > 1).then_some(())
    }

    fn child(&mut self, parent: usize, key: &'a [u8]) -> Option<usize> {
        let next = self.names.len();
        let path = *self.paths.entry((parent, key)).or_insert(next);
        if key.first() == Some(&b'"') {
            self.keys[parent].0 += usize::from(path == next);
            self.keys[parent].1 += 1;
        }
        if path == next {
            if next >= MAX_PATHS {
                return None;
            }
            self.names.push(name(&self.names[parent], key));
            self.path_keys
                .push(mix(self.path_keys[parent], hash_bytes(key)));
            self.keys.push((0, 0));
            self.columns
                .resize(self.columns.len() + COLUMNS, ColumnValues::default());
        }
        Some(path)
    }

    fn put_shape(&mut self, path: usize, shape: Vec<u8>) -> Option<()> {
        let next = self.shape_list.len();
        let number = match self.shapes.get(&shape) {
            Some(&number) => number,
            None if next >= MAX_SHAPES => return None,
            None => {
                self.shape_list.push(shape.clone());
                self.shapes.insert(shape, next);
                next
            }
        };
        self.columns[column(path, SHAPES)].push_number(number);
        Some(())
    }

    fn value(&mut self, path: usize, at: usize) -> Option<usize> {
        match self.text.get(at)? {
            b'{' if self.maps.contains(&self.names[path])
                && map_layout(self.text, at).is_some() =>
            {
                self.map(path, at)
            }
            b'{' => self.object(path, at),
            b'[' => match scan::tuple_len(self.text, at, POSITIONS.len()) {
                Some(_) => self.tuple(path, at),
                None => self.list(path, at),
            },
            _ => {
                let end = scan::scalar(self.text, at)?;
                self.columns[column(path, SHAPES)].push_number(SCALAR);
                self.columns[column(path, SCALARS)].push(&self.text[at..end]);
                Some(end)
            }
        }
    }

    fn object(&mut self, path: usize, at: usize) -> Option<usize> {
        let text = self.text;
        let mut shape = vec![FIXED, b'{'];
        let mut at = at + 1;
        loop {
            let start = at;
            at += scan::space(text, at);
            if text.get(at) == Some(&b',') {
                at += 1;
                at += scan::space(text, at);
            }
            if text.get(at) == Some(&b'}') {
                shape.extend_from_slice(&text[start..=at]);
                self.put_shape(path, shape)?;
                return Some(at + 1);
            }
            let key_end = scan::string(text, at)?;
            let child = self.child(path, &text[at..key_end])?;
            at = key_end + scan::space(text, key_end) + 1;
            at += scan::space(text, at);
            shape.extend_from_slice(text.get(start..at)?);
            shape.push(PLACEHOLDER);
            at = self.value(child, at)?;
        }
    }

    fn tuple(&mut self, path: usize, at: usize) -> Option<usize> {
        let text = self.text;
        let mut shape = vec![TUPLE];
        let mut start = at;
        let mut at = at + 1;
        for place in POSITIONS {
            at += scan::space(text, at);
            shape.extend_from_slice(&text[start..at]);
            shape.push(PLACEHOLDER);
            let child = self.child(path, place)?;
            start = self.value(child, at)?;
            at = start + scan::space(text, start) + 1;
            if text.get(at - 1) == Some(&b']') {
                break;
            }
        }
        shape.extend_from_slice(text.get(start..at)?);
        self.put_shape(path, shape)?;
        Some(at)
    }

    fn list(&mut self, path: usize, at: usize) -> Option<usize> {
        let text = self.text;
        let open_end = at + 1 + scan::space(text, at + 1);
        let open = &text[at..open_end];
        if text.get(open_end) == Some(&b']') {
            self.put_shape(path, [&[FIXED], open, b"]"].concat())?;
            return Some(open_end + 1);
        }
        let child = self.child(path, ELEMENT)?;
        let mut borders: Vec<&[u8]> = Vec::new();
        let mut at = open_end;
        loop {
            let end = self.value(child, at)?;
            at = end + scan::space(text, end);
            let last = text.get(at)? == &b']';
            at += 1;
            if !last {
                at += scan::space(text, at);
            }
            borders.push(&text[end..at]);
            if last {
                break;
            }
        }
        self.columns[column(path, COUNTS)].push_number(borders.len());
        let (close, inner) = borders.split_last()?;
        let uniform = inner.iter().all(|border| *border == inner[0]);
        let shape = if uniform {
            let separator = inner.first().copied().unwrap_or(b",");
            [
                &[LIST],
                open,
                &[PLACEHOLDER],
                separator,
                &[PLACEHOLDER],
                close,
            ]
            .concat()
        } else {
            borders
                .iter()
                .for_each(|border| self.columns[column(path, EXTRAS)].push(border));
            [&[VARIED], open].concat()
        };
        self.put_shape(path, shape)?;
        Some(at)
    }

    fn map(&mut self, path: usize, at: usize) -> Option<usize> {
        let text = self.text;
        let layout = map_layout(text, at)?;
        let child = self.child(path, ENTRY)?;
        let mut at = at + layout.open.len();
        let mut count = 0;
        loop {
            let key_end = scan::string(text, at)?;
            self.columns[column(path, EXTRAS)].push(&text[at + 1..key_end - 1]);
            count += 1;
            let end = self.value(child, key_end + layout.colon.len())?;
            if text[end..].starts_with(layout.separator) && count < layout.count {
                at = end + layout.separator.len();
                continue;
            }
            self.columns[column(path, COUNTS)].push_number(count);
            let shape = [
                &[MAP],
                layout.open,
                &[PLACEHOLDER],
                layout.colon,
                &[PLACEHOLDER],
                layout.separator,
                &[PLACEHOLDER],
                layout.close,
            ]
            .concat();
            self.put_shape(path, shape)?;
            return Some(end + layout.close.len());
        }
    }
}

struct MapLayout<'a> {
    open: &'a [u8],
    colon: &'a [u8],
    separator: &'a [u8],
    close: &'a [u8],
    count: usize,
}

/// The text between the keys and values of a map, if it is equal for all entries.
fn map_layout(text: &[u8], at: usize) -> Option<MapLayout<'_>> {
    let start = at;
    let mut at = at + 1 + scan::space(text, at + 1);
    let open = &text[start..at];
    let (mut colons, mut separators): (Option<&[u8]>, Option<&[u8]>) = (None, None);
    for count in 1.. {
        let key_end = scan::string(text, at)?;
        at = key_end + scan::space(text, key_end) + 1;
        at += scan::space(text, at);
        let colon = text.get(key_end..at)?;
        if *colons.get_or_insert(colon) != colon {
            return None;
        }
        let end = scan::value(text, at, 0)?;
        at = end + scan::space(text, end) + 1;
        if text.get(at - 1) == Some(&b'}') {
            return Some(MapLayout {
                open,
                colon,
                separator: separators.unwrap_or(b","),
                close: &text[end..at],
                count,
            });
        }
        at += scan::space(text, at);
        let separator = text.get(end..at)?;
        if *separators.get_or_insert(separator) != separator {
            return None;
        }
    }
    None
}
