//! Our own kind of schema: a document that says field by field what records are made of.
//! Described for users in `deploy/examples/schemas/README.md`; change both together.

use std::collections::HashSet;

use super::clock::Clock;
use super::kinds::{Cell, Kind, Scope, Template};
use super::reader::{Reader, wrong};
use super::schema::SchemaError;
use super::tree::{Tree, join};
use super::walk::Walk;

/// Bounds of a document, so that a hostile one cannot take the machine down.
const MAX_LEAVES: usize = 500;
const MAX_NAME_BYTES: usize = 256;
const MAX_TABLES: usize = 32;
const MAX_TABLE_ROWS: u32 = 10_000;
const MAX_TABLE_BYTES: u64 = 64 << 20;
const MAX_WALKS: usize = 64;
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// A document that was read and found good.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) clock: Clock,
    pub(super) tables: Vec<Table>,
    pub(super) walks: Vec<Walk>,
    /// Every field that holds a value, in the order of the document.
    pub(super) leaves: Vec<Leaf>,
    /// How the visible ones stand in a record.
    pub(super) shape: Vec<Node>,
    /// The log line of the format txt.
    pub(super) line: Option<Template>,
}

/// A field that holds a value.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) path: String,
    /// Share of the records in which it is null.
    pub(super) null_ratio: f64,
    pub(super) kind: Kind,
    /// Bytes its longest value may have.
    pub(super) most_bytes: u64,
}

/// A visible member of a record.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Leaf { name: String, leaf: usize },
    Object { name: String, members: Vec<Node> },
}

/// Rows whose cells belong together, such as a company's symbol and name.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) order: Order,
    pub(super) columns: Vec<String>,
    pub(super) rows: Rows,
}

#[derive(Debug, Clone)]
pub(super) enum Rows {
    Given(Vec<Vec<Cell>>),
    /// Made once from the seed.
    Made {
        count: usize,
        leaves: Vec<Leaf>,
    },
}

/// Which row a record takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// One after another.
    Cycle,
    /// Any, all alike.
    Random,
    /// Any, the first ones far more often.
    Skewed,
}

impl Order {
    const NAMES: [(&'static str, Self); 3] = [
        ("cycle", Self::Cycle),
        ("random", Self::Random),
        ("skewed", Self::Skewed),
    ];
}

impl Table {
    /// Bytes of the longest cell of a column.
    pub(super) fn most_bytes(&self, column: usize) -> u64 {
        match &self.rows {
            Rows::Given(rows) => {
                let cells = rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.text.len() as u64).max().unwrap_or(0)
            }
            Rows::Made { leaves, .. } => leaves.get(column).map_or(0, |leaf| leaf.most_bytes),
        }
    }
}

impl Document {
    pub(super) fn read(entries: &[(String, Tree)]) -> Result<Self, SchemaError> {
        let mut reader = Reader::new("", entries);
        reader.text("description")?;
        let clock = Clock::read(Reader::new("clock", reader.object("clock")?.unwrap_or(&[])))?;
        let tables = read_tables(reader.object("tables")?.unwrap_or(&[]))?;
        let walks = read_walks(reader.object("walks")?.unwrap_or(&[]), &tables)?;
        let fields = reader.list("fields")?.unwrap_or(&[]);
        let mut scope = Scope::new(&tables, &walks);
        let shape = read_fields("fields", fields, "", &mut scope)?;
        if shape.is_empty() {
            let way_out = "add at least one that is not hidden";
            return Err(reader.error("fields", "no visible field".to_owned(), way_out));
        }
        let line = match reader.text("line")? {
            Some(text) => Some(Template::read("line", text, &scope.leaves)?),
            None => None,
        };
        reader.finish()?;
        let leaves = scope.leaves;
        Ok(Self {
            clock,
            tables,
            walks,
            leaves,
            shape,
            line,
        })
    }
}

/// Reads the list `fields`; adds their values to the scope and returns the visible members.
fn read_fields(
    path: &str,
    fields: &[Tree],
    prefix: &str,
    scope: &mut Scope<'_>,
) -> Result<Vec<Node>, SchemaError> {
    let mut shape = Vec::new();
    let mut seen = HashSet::new();
    for (n, field) in fields.iter().enumerate() {
        let at = format!("{path}[{n}]");
        let mut reader = Reader::of(&at, field)?;
        let found = reader.text("name")?;
        let name = reader.need("name", found)?.to_owned();
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(['{', '}']) {
            let way_out = format!("use 1 to {MAX_NAME_BYTES} bytes without braces");
            return Err(reader.error("name", format!("{name:?} cannot be a name"), &way_out));
        }
        if !seen.insert(name.clone()) {
            let problem = format!("{name:?} stands twice");
            return Err(reader.error("name", problem, "give each field its own name"));
        }
        let dotted = join(prefix, &name);
        if reader.text("kind")? == Some("object") {
            let inner = reader.list("fields")?;
            let inner = reader.need("fields", inner)?;
            reader.finish()?;
            let members = read_fields(&join(&at, "fields"), inner, &dotted, scope)?;
            shape.push(Node::Object { name, members });
            continue;
        }
        let hidden = reader.boolean("hidden")?.unwrap_or(false);
        let leaf = read_leaf(dotted, reader, scope)?;
        if !hidden {
            shape.push(Node::Leaf { name, leaf });
        }
    }
    Ok(shape)
}

/// Reads one value's field into the scope; returns its number there.
fn read_leaf(
    path: String,
    mut reader: Reader<'_>,
    scope: &mut Scope<'_>,
) -> Result<usize, SchemaError> {
    if scope.leaves.iter().any(|leaf| leaf.path == path) {
        let problem = format!("there are two fields {path:?} once nested ones are dotted");
        return Err(reader.error("name", problem, "rename one"));
    }
    if scope.leaves.len() >= MAX_LEAVES {
        let problem = format!("more than {MAX_LEAVES} values in a record");
        return Err(reader.error("name", problem, "use fewer fields"));
    }
    let null_ratio = reader.number_in("nullRatio", 0.0, 1.0)?.unwrap_or(0.0);
    let at = reader.path("");
    let kind = Kind::read(reader, scope)?;
    let most_bytes = kind.most_bytes(scope);
    let others = scope.leaves.iter().map(|leaf| leaf.most_bytes);
    let record_bytes = others.fold(most_bytes, u64::saturating_add);
    if record_bytes > MAX_RECORD_BYTES {
        let problem = format!("with this one a record may have {record_bytes} bytes");
        let way_out = format!("stay within {MAX_RECORD_BYTES}");
        return Err(SchemaError::at(at.trim_end_matches('.'), problem, way_out));
    }
    scope.leaves.push(Leaf {
        path,
        null_ratio,
        kind,
        most_bytes,
    });
    Ok(scope.leaves.len() - 1)
}

fn read_tables(entries: &[(String, Tree)]) -> Result<Vec<Table>, SchemaError> {
    bounded("tables", entries.len(), MAX_TABLES)?;
    let mut tables = Vec::new();
    for (name, tree) in entries {
        let path = join("tables", name);
        let mut reader = Reader::of(&path, tree)?;
        let order = pick(&mut reader, "order", &Order::NAMES)?.unwrap_or(Order::Random);
        let made = reader.list("fields")?;
        let (columns, rows) = match made {
            Some(fields) => read_made(&mut reader, fields)?,
            None => read_given(&mut reader)?,
        };
        reader.finish()?;
        tables.push(Table {
            name: name.clone(),
            order,
            columns,
            rows,
        });
    }
    Ok(tables)
}

/// A table whose rows are made from fields.
fn read_made(reader: &mut Reader<'_>, fields: &[Tree]) -> Result<(Vec<String>, Rows), SchemaError> {
    let count = reader.count_in("count", 1, MAX_TABLE_ROWS)?;
    let count = reader.need("count", count)? as usize;
    let path = reader.path("fields");
    let mut scope = Scope::inside_table();
    read_fields(&path, fields, "", &mut scope)?;
    bounded(&path, scope.leaves.len(), 64)?;
    let row_bytes: u64 = scope.leaves.iter().map(|leaf| leaf.most_bytes).sum();
    if row_bytes * count as u64 > MAX_TABLE_BYTES {
        let problem = format!("{count} rows of up to {row_bytes} bytes");
        let way_out = format!("stay within {MAX_TABLE_BYTES} bytes");
        return Err(reader.error("count", problem, &way_out));
    }
    let columns = scope.leaves.iter().map(|leaf| leaf.path.clone());
    let columns = columns.collect();
    let leaves = scope.leaves;
    Ok((columns, Rows::Made { count, leaves }))
}

/// A table whose rows stand in the schema.
fn read_given(reader: &mut Reader<'_>) -> Result<(Vec<String>, Rows), SchemaError> {
    let found = reader.list("columns")?;
    let mut columns = Vec::new();
    for (n, column) in reader.need("columns", found)?.iter().enumerate() {
        match column {
            Tree::Text(name) => columns.push(name.clone()),
            other => {
                return Err(wrong(
                    &reader.path(&format!("columns[{n}]")),
                    other,
                    "a text",
                ));
            }
        }
    }
    let found = reader.list("rows")?;
    let given = reader.need("rows", found)?;
    if given.is_empty() || given.len() > MAX_TABLE_ROWS as usize {
        let way_out = format!("give 1 to {MAX_TABLE_ROWS} rows");
        return Err(reader.error("rows", format!("{} rows", given.len()), &way_out));
    }
    let mut rows = Vec::with_capacity(given.len());
    for (n, row) in given.iter().enumerate() {
        let path = reader.path(&format!("rows[{n}]"));
        let Tree::List(cells) = row else {
            return Err(wrong(&path, row, "a list"));
        };
        if cells.len() != columns.len() {
            let problem = format!("{} cells for {} columns", cells.len(), columns.len());
            return Err(SchemaError::at(&path, problem, "give one cell per column"));
        }
        let cells = cells.iter().map(|cell| Cell::read(&path, cell));
        rows.push(cells.collect::<Result<Vec<_>, _>>()?);
    }
    Ok((columns, Rows::Given(rows)))
}

fn read_walks(entries: &[(String, Tree)], tables: &[Table]) -> Result<Vec<Walk>, SchemaError> {
    bounded("walks", entries.len(), MAX_WALKS)?;
    let read = |(name, tree): &(String, Tree)| {
        let reader = Reader::of(&join("walks", name), tree)?;
        Walk::read(name, reader, tables)
    };
    entries.iter().map(read).collect()
}

/// The value of a member that must be one of a few names.
pub(super) fn pick<T: Copy>(
    reader: &mut Reader<'_>,
    key: &'static str,
    names: &[(&str, T)],
) -> Result<Option<T>, SchemaError> {
    let Some(text) = reader.text(key)? else {
        return Ok(None);
    };
    let found = names.iter().find(|(name, _)| *name == text);
    let (_, value) = found.ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        let way_out = format!("use one of: {}", known.join(", "));
        reader.error(key, format!("{text:?} is not known"), &way_out)
    })?;
    Ok(Some(*value))
}

fn bounded(path: &str, len: usize, max: usize) -> Result<(), SchemaError> {
    if len > max {
        let problem = format!("{len} entries");
        return Err(SchemaError::at(path, problem, format!("use at most {max}")));
    }
    Ok(())
}
