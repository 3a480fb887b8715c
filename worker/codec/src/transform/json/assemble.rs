//! From columns back to JSON.

use std::{collections::HashMap, rc::Rc};

use super::{
    COLUMNS, COUNTS, DEPTH_LIMIT, ELEMENT, ENTRY, EXTRAS, FIXED, GAPS, LIST, MAP, MAX_PATHS,
    MAX_SHAPES, PLACEHOLDER, POSITIONS, SCALAR, SCALARS, SHAPES, TUPLE, VARIED, column,
    column_names, name,
};
use crate::{Damage, bytes::FieldReader, hash::SeededState, transform::values::ColumnValues};

/// A parsed shape.
enum JsonShape {
    Scalar,
    /// The text before the first value, then for every value its key and the text after it.
    Fixed(Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>),
    List {
        open: Vec<u8>,
        separator: Vec<u8>,
        close: Vec<u8>,
    },
    Varied {
        open: Vec<u8>,
    },
    Map {
        open: Vec<u8>,
        colon: Vec<u8>,
        separator: Vec<u8>,
        close: Vec<u8>,
    },
}

/// Assembles JSON and returns it with the names of the columns.
pub(crate) fn join(
    head: &[u8],
    columns: &[ColumnValues],
    limit: usize,
) -> Result<(Vec<u8>, Vec<String>), Damage> {
    let mut assembler = Assembler {
        shapes: read_shapes(head)?,
        columns,
        used: vec![0; columns.len()],
        paths: HashMap::default(),
        visited: HashMap::default(),
        children: Vec::new(),
        names: vec![String::new()],
        out: Vec::new(),
        limit,
    };
    let gaps = columns.get(GAPS).map_or(0, ColumnValues::len);
    for gap in 0..gaps {
        if gap > 0 {
            assembler.value(0, 0)?;
        }
        assembler.copy(GAPS)?;
    }
    Ok((assembler.out, column_names(&assembler.names)))
}

fn read_shapes(head: &[u8]) -> Result<Vec<Rc<JsonShape>>, Damage> {
    let mut reader = FieldReader::new(head);
    let count = reader.size(MAX_SHAPES, "the number of shapes")?;
    let mut shapes = Vec::new();
    for number in 0..count {
        let len = reader.size(head.len(), "a shape")?;
        let shape = reader.take(len)?;
        shapes.push(Rc::new(if number == SCALAR {
            JsonShape::Scalar
        } else {
            read_shape(shape)?
        }));
    }
    Ok(shapes)
}

fn read_shape(shape: &[u8]) -> Result<JsonShape, Damage> {
    let broken = || Damage::new("a broken shape");
    let (&kind, text) = shape.split_first().ok_or_else(broken)?;
    let mut pieces = text.split(|&byte| byte == PLACEHOLDER).map(<[u8]>::to_vec);
    let mut next = || pieces.next().ok_or_else(broken);
    match kind {
        FIXED | TUPLE => {
            let first = next()?;
            let mut before = first.clone();
            let mut slots = Vec::new();
            for (place, after) in pieces.enumerate() {
                let key = if kind == TUPLE {
                    POSITIONS.get(place).map(|key| key.to_vec())
                } else {
                    last_string(&before)
                };
                slots.push((key.ok_or_else(broken)?, after.clone()));
                before = after;
            }
            Ok(JsonShape::Fixed(first, slots))
        }
        LIST => Ok(JsonShape::List {
            open: next()?,
            separator: next()?,
            close: next()?,
        }),
        VARIED => Ok(JsonShape::Varied { open: next()? }),
        MAP => Ok(JsonShape::Map {
            open: next()?,
            colon: next()?,
            separator: next()?,
            close: next()?,
        }),
        _ => Err(broken()),
    }
}

/// The key before a placeholder: the first string in the text before it.
fn last_string(before: &[u8]) -> Option<Vec<u8>> {
    let start = before.iter().position(|&byte| byte == b'"')?;
    let end = super::scan::string(before, start)?;
    Some(before[start..end].to_vec())
}

struct Assembler<'a> {
    shapes: Vec<Rc<JsonShape>>,
    columns: &'a [ColumnValues],
    used: Vec<usize>,
    paths: HashMap<(usize, Vec<u8>), usize, SeededState>,
    /// For each path and shape the position of its children in `children`.
    visited: HashMap<(usize, usize), usize, SeededState>,
    /// The child paths of a shape that were visited, in order.
    children: Vec<Vec<usize>>,
    names: Vec<String>,
    out: Vec<u8>,
    limit: usize,
}

impl<'a> Assembler<'a> {
    /// The next value of a column.
    fn take(&mut self, column: usize) -> Result<&'a [u8], Damage> {
        let values = self
            .columns
            .get(column)
            .ok_or_else(|| Damage::new("a path without columns"))?;
        let used = &mut self.used[column];
        if *used >= values.len() {
            return Err(Damage::new("a value is missing"));
        }
        *used += 1;
        Ok(values.get(*used - 1))
    }

    fn take_number(&mut self, column: usize) -> Result<usize, Damage> {
        match self.take(column)? {
            &[digit @ b'0'..=b'9'] => Ok(usize::from(digit - b'0')),
            number => std::str::from_utf8(number)
                .ok()
                .and_then(|number| number.parse().ok())
                .ok_or_else(|| Damage::new("a count that is no number")),
        }
    }

    fn copy(&mut self, column: usize) -> Result<(), Damage> {
        let value = self.take(column)?;
        self.push(value)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        if self.out.len() + bytes.len() > self.limit {
            return Err(Damage::new("the JSON is longer than its block"));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn child(&mut self, parent: usize, key: &[u8]) -> Result<usize, Damage> {
        if let Some(&path) = self.paths.get(&(parent, key.to_vec())) {
            return Ok(path);
        }
        let path = self.names.len();
        if path >= MAX_PATHS || column(path, COLUMNS - 1) >= self.columns.len() {
            return Err(Damage::new("more paths than columns"));
        }
        self.names.push(name(&self.names[parent], key));
        self.paths.insert((parent, key.to_vec()), path);
        Ok(path)
    }

    fn value(&mut self, path: usize, depth: usize) -> Result<(), Damage> {
        if depth > DEPTH_LIMIT {
            return Err(Damage::new("JSON is nested too deeply"));
        }
        let number = self.take_number(column(path, SHAPES))?;
        let shape = self
            .shapes
            .get(number)
            .cloned()
            .ok_or_else(|| Damage::new("a shape that does not exist"))?;
        self.shaped(path, depth, number, &shape)
    }

    /// The position in `children` of this shape.
    fn children_of(&mut self, path: usize, number: usize) -> usize {
        let next = self.children.len();
        let position = *self.visited.entry((path, number)).or_insert(next);
        if position == next {
            self.children.push(Vec::new());
        }
        position
    }

    fn shaped(
        &mut self,
        path: usize,
        depth: usize,
        number: usize,
        shape: &JsonShape,
    ) -> Result<(), Damage> {
        match shape {
            JsonShape::Scalar => self.copy(column(path, SCALARS)),
            JsonShape::Fixed(first, slots) => {
                self.push(first)?;
                let known = self.children_of(path, number);
                for (slot, (key, after)) in slots.iter().enumerate() {
                    let child = match self.children[known].get(slot) {
                        Some(&child) => child,
                        None => {
                            let child = self.child(path, key)?;
                            self.children[known].push(child);
                            child
                        }
                    };
                    self.value(child, depth + 1)?;
                    self.push(after)?;
                }
                Ok(())
            }
            JsonShape::List {
                open,
                separator,
                close,
            } => {
                self.push(open)?;
                let child = self.child(path, ELEMENT)?;
                for element in 0..self.take_number(column(path, COUNTS))? {
                    if element > 0 {
                        self.push(separator)?;
                    }
                    self.value(child, depth + 1)?;
                }
                self.push(close)
            }
            JsonShape::Varied { open } => {
                self.push(open)?;
                let child = self.child(path, ELEMENT)?;
                for _ in 0..self.take_number(column(path, COUNTS))? {
                    self.value(child, depth + 1)?;
                    self.copy(column(path, EXTRAS))?;
                }
                Ok(())
            }
            JsonShape::Map {
                open,
                colon,
                separator,
                close,
            } => {
                self.push(open)?;
                let child = self.child(path, ENTRY)?;
                for entry in 0..self.take_number(column(path, COUNTS))? {
                    if entry > 0 {
                        self.push(separator)?;
                    }
                    self.push(b"\"")?;
                    self.copy(column(path, EXTRAS))?;
                    self.push(b"\"")?;
                    self.push(colon)?;
                    self.value(child, depth + 1)?;
                }
                self.push(close)
            }
        }
    }
}
