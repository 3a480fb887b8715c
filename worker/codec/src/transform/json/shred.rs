//! From JSON to columns.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{
    COLUMNS, COUNTS, ELEMENT, ENTRY, EXTRAS, FIXED, GAPS, LIST, MAP, MAX_PATHS, MAX_SHAPES,
    PLACEHOLDER, POSITIONS, SCALAR, SCALARS, SHAPES, TUPLE, VARIED, column, column_names, name,
    scan,
};
use crate::{
    bytes::put_varint,
    hash::{SeededState, hash_bytes, mix},
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

/// The text of an object around its values.
#[derive(Debug, Clone, Default)]
struct ObjectLayout {
    /// For each value the text before it, from the value before, and its path.
    values: Vec<(Vec<u8>, usize)>,
    /// The text after the last value.
    close: Vec<u8>,
    shape: usize,
}

impl ObjectLayout {
    /// The layout up to a value.
    fn first(&self, values: usize) -> Self {
        Self {
            values: self.values[..values].to_vec(),
            ..Self::default()
        }
    }

    /// The text of the shape.
    fn text(&self) -> Vec<u8> {
        let mut text = vec![FIXED];
        for (before, _) in &self.values {
            text.extend_from_slice(before);
            text.push(PLACEHOLDER);
        }
        text.extend_from_slice(&self.close);
        text
    }
}

struct Shredder<'a> {
    text: &'a [u8],
    columns: Vec<ColumnValues>,
    names: Vec<String>,
    /// For each path a hash of its keys.
    path_keys: Vec<u64>,
    paths: HashMap<(usize, &'a [u8]), usize, SeededState>,
    shapes: HashMap<Vec<u8>, usize, SeededState>,
    shape_list: Vec<Vec<u8>>,
    maps: &'a HashSet<String>,
    /// For each path whether its objects are maps.
    is_map: Vec<bool>,
    /// For each path the layout of its last object.
    last_layout: Vec<Option<Rc<ObjectLayout>>>,
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
            paths: HashMap::default(),
            shapes: HashMap::default(),
            shape_list: vec![Vec::new()],
            maps,
            is_map: vec![maps.contains("")],
            last_layout: vec![None],
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
            let name = name(&self.names[parent], key);
            self.is_map.push(self.maps.contains(&name));
            self.last_layout.push(None);
            self.names.push(name);
            self.path_keys
                .push(mix(self.path_keys[parent], hash_bytes(key)));
            self.keys.push((0, 0));
            self.columns
                .resize(self.columns.len() + COLUMNS, ColumnValues::default());
        }
        Some(path)
    }

    fn shape_number(&mut self, shape: Vec<u8>) -> Option<usize> {
        let next = self.shape_list.len();
        match self.shapes.get(&shape) {
            Some(&number) => Some(number),
            None if next >= MAX_SHAPES => None,
            None => {
                self.shape_list.push(shape.clone());
                self.shapes.insert(shape, next);
                Some(next)
            }
        }
    }

    fn put_shape(&mut self, path: usize, shape: Vec<u8>) -> Option<()> {
        let number = self.shape_number(shape)?;
        self.columns[column(path, SHAPES)].push_number(number);
        Some(())
    }

    fn value(&mut self, path: usize, at: usize) -> Option<usize> {
        match self.text.get(at)? {
            b'{' if self.is_map[path] && map_layout(self.text, at).is_some() => self.map(path, at),
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

    /// An object. Most objects of a path have the same layout, and comparing it is faster than
    /// parsing keys.
    fn object(&mut self, path: usize, at: usize) -> Option<usize> {
        let text = self.text;
        let Some(layout) = self.last_layout[path].clone() else {
            return self.new_object(path, at, at + 1, ObjectLayout::default());
        };
        let mut at = at;
        for (number, (before, child)) in layout.values.iter().enumerate() {
            let value = at + before.len();
            let equal = text[at..].starts_with(before)
                && text
                    .get(value)
                    .is_some_and(|byte| !byte.is_ascii_whitespace());
            if !equal {
                return self.new_object(path, at, at, layout.first(number));
            }
            self.keys[path].1 += 1;
            at = self.value(*child, value)?;
        }
        if !text[at..].starts_with(&layout.close) {
            let values = layout.values.len();
            return self.new_object(path, at, at, layout.first(values));
        }
        self.columns[column(path, SHAPES)].push_number(layout.shape);
        Some(at + layout.close.len())
    }

    /// An object, or the rest of one after the values of `layout`. The text since the last value
    /// begins at `start`, and is parsed up to `at`.
    fn new_object(
        &mut self,
        path: usize,
        mut start: usize,
        mut at: usize,
        mut layout: ObjectLayout,
    ) -> Option<usize> {
        let text = self.text;
        if layout.values.is_empty() && at == start {
            at += 1;
        }
        loop {
            at += scan::space(text, at);
            if text.get(at) == Some(&b',') {
                at += 1;
                at += scan::space(text, at);
            }
            if text.get(at) == Some(&b'}') {
                layout.close = text[start..=at].to_vec();
                layout.shape = self.shape_number(layout.text())?;
                self.columns[column(path, SHAPES)].push_number(layout.shape);
                self.last_layout[path] = Some(Rc::new(layout));
                return Some(at + 1);
            }
            let key_end = scan::string(text, at)?;
            let child = self.child(path, &text[at..key_end])?;
            at = key_end + scan::space(text, key_end) + 1;
            at += scan::space(text, at);
            layout.values.push((text.get(start..at)?.to_vec(), child));
            at = self.value(child, at)?;
            start = at;
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
