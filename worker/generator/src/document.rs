//! The native kind of schema: a document that describes records field by field.
//!
//! `deploy/examples/schemas/README.md` describes it for users; change both together.

use std::collections::HashSet;

use crate::clock::RecordClock;
use crate::error::SchemaError;
use crate::kinds::{BoundedName, Cell, ReadScope, TableNames, TextTemplate, ValueKind};
use crate::reader::{ObjectReader, mismatch};
use crate::tree::{JsonTree, join};
use crate::walk::RandomWalk;

/// Bounds of a document, so that a hostile one cannot exhaust the machine.
const MAX_FIELDS: usize = 500;
const MAX_NAME_BYTES: usize = 256;
const MAX_TABLES: usize = 32;
const MAX_TABLE_COLUMNS: usize = 64;
const MAX_TABLE_ROWS: u32 = 10_000;
const MAX_TABLE_BYTES: u64 = 64 << 20;
const MAX_WALKS: usize = 64;
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// A document that was read and is valid.
#[derive(Debug, Clone)]
pub(crate) struct SchemaDocument {
    pub(crate) clock: RecordClock,
    pub(crate) tables: Vec<RowTable>,
    pub(crate) walks: Vec<RandomWalk>,
    /// Every field that holds a value, in the order of the document.
    pub(crate) fields: Vec<ValueField>,
    /// The visible members of a record.
    pub(crate) members: Vec<RecordMember>,
    /// The log line of the format txt.
    pub(crate) line: Option<TextTemplate>,
}

/// A field that holds a value.
#[derive(Debug, Clone)]
pub(crate) struct ValueField {
    /// Its dotted path.
    pub(crate) path: String,
    /// Fraction of the records in which it is null.
    pub(crate) null_ratio: f64,
    pub(crate) kind: ValueKind,
}

/// A visible member of a record.
#[derive(Debug, Clone)]
pub(crate) enum RecordMember {
    /// The field of this number.
    Value { name: String, field: usize },
    Object {
        name: String,
        members: Vec<RecordMember>,
    },
}

/// Rows whose cells belong together, such as a company's symbol and name.
#[derive(Debug, Clone)]
pub(crate) struct RowTable {
    pub(crate) order: RowOrder,
    pub(crate) rows: TableRows,
}

#[derive(Debug, Clone)]
pub(crate) enum TableRows {
    Given(Vec<Vec<Cell>>),
    /// Made once from the seed.
    Made {
        count: usize,
        fields: Vec<ValueField>,
    },
}

/// Which row a record takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// One after another.
    Cycle,
    /// Any row, with equal chances.
    Random,
    /// Any row, the first ones far more often.
    Skewed,
}

impl RowOrder {
    const NAMES: [(&'static str, Self); 3] = [
        ("cycle", Self::Cycle),
        ("random", Self::Random),
        ("skewed", Self::Skewed),
    ];
}

impl SchemaDocument {
    pub(crate) fn read(entries: &[(String, JsonTree)]) -> Result<Self, SchemaError> {
        let mut reader = ObjectReader::new("", entries);
        reader.text("description")?;
        let clock = reader.object("clock")?.unwrap_or(&[]);
        let clock = RecordClock::read(ObjectReader::new("clock", clock))?;
        let (tables, table_names) = read_tables(reader.object("tables")?.unwrap_or(&[]))?;
        let (walks, walk_names) = read_walks(reader.object("walks")?.unwrap_or(&[]), &table_names)?;
        let list = reader.list("fields")?.unwrap_or(&[]);
        let mut fields = FieldListReader::new(ReadScope::new(&table_names, &walk_names));
        let members = fields.read_members("fields", list, "")?;
        if members.is_empty() {
            let remedy = "add at least one that is not hidden";
            return Err(reader.error("fields", "no visible field".to_owned(), remedy));
        }
        let line = match reader.text("line")? {
            Some(text) => Some(TextTemplate::read("line", text, &fields.scope.fields)?),
            None => None,
        };
        reader.finish()?;
        Ok(Self {
            clock,
            tables,
            walks,
            fields: fields.read,
            members,
            line,
        })
    }
}

/// Reads a list of fields, of a record or of a table.
struct FieldListReader<'a> {
    scope: ReadScope<'a>,
    /// The fields that hold values; the scope has their names.
    read: Vec<ValueField>,
}

impl<'a> FieldListReader<'a> {
    fn new(scope: ReadScope<'a>) -> Self {
        Self {
            scope,
            read: Vec::new(),
        }
    }

    /// Reads the fields of one object; returns its visible members.
    fn read_members(
        &mut self,
        path: &str,
        fields: &[JsonTree],
        prefix: &str,
    ) -> Result<Vec<RecordMember>, SchemaError> {
        let mut members = Vec::new();
        let mut seen = HashSet::new();
        for (n, field) in fields.iter().enumerate() {
            let at = format!("{path}[{n}]");
            let mut reader = ObjectReader::of(&at, field)?;
            let found = reader.text("name")?;
            let name = reader.require("name", found)?.to_owned();
            if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(['{', '}']) {
                let remedy = format!("use 1 to {MAX_NAME_BYTES} bytes without braces");
                return Err(reader.error("name", format!("{name:?} cannot be a name"), &remedy));
            }
            if !seen.insert(name.clone()) {
                let problem = format!("{name:?} is there twice");
                return Err(reader.error("name", problem, "give each field its own name"));
            }
            let dotted = join(prefix, &name);
            if reader.text("kind")? == Some("object") {
                let inner = reader.list("fields")?;
                let inner = reader.require("fields", inner)?;
                reader.finish()?;
                let members_of = self.read_members(&join(&at, "fields"), inner, &dotted)?;
                members.push(RecordMember::Object {
                    name,
                    members: members_of,
                });
                continue;
            }
            let hidden = reader.boolean("hidden")?.unwrap_or(false);
            let field = self.read_value(dotted, reader)?;
            if !hidden {
                members.push(RecordMember::Value { name, field });
            }
        }
        Ok(members)
    }

    /// Reads a field that holds a value; returns its number.
    fn read_value(
        &mut self,
        path: String,
        mut reader: ObjectReader<'_>,
    ) -> Result<usize, SchemaError> {
        if self.scope.fields.iter().any(|field| field.name == path) {
            let problem = format!("there are two fields {path:?} once nested ones are dotted");
            return Err(reader.error("name", problem, "rename one"));
        }
        if self.scope.fields.len() >= MAX_FIELDS {
            let problem = format!("more than {MAX_FIELDS} values in a record");
            return Err(reader.error("name", problem, "use fewer fields"));
        }
        let null_ratio = reader.number_in("nullRatio", 0.0, 1.0)?.unwrap_or(0.0);
        let at = reader.path("");
        let kind = ValueKind::read(reader, &mut self.scope)?;
        let most_bytes = kind.most_bytes(&self.scope);
        let others = self.scope.fields.iter().map(|field| field.most_bytes);
        let record_bytes = others.fold(most_bytes, u64::saturating_add);
        if record_bytes > MAX_RECORD_BYTES {
            let problem = format!("with this one a record may have {record_bytes} bytes");
            let remedy = format!("stay within {MAX_RECORD_BYTES}");
            return Err(SchemaError::at(at.trim_end_matches('.'), problem, remedy));
        }
        self.scope.fields.push(BoundedName {
            name: path.clone(),
            most_bytes,
        });
        self.read.push(ValueField {
            path,
            null_ratio,
            kind,
        });
        Ok(self.read.len() - 1)
    }
}

fn read_tables(
    entries: &[(String, JsonTree)],
) -> Result<(Vec<RowTable>, Vec<TableNames>), SchemaError> {
    check_count("tables", entries.len(), MAX_TABLES)?;
    let mut tables = Vec::new();
    let mut names = Vec::new();
    for (name, tree) in entries {
        let path = join("tables", name);
        let mut reader = ObjectReader::of(&path, tree)?;
        let order = reader.choice("order", &RowOrder::NAMES)?;
        let made = reader.list("fields")?;
        let (columns, rows) = match made {
            Some(fields) => read_made_rows(&mut reader, fields)?,
            None => read_given_rows(&mut reader)?,
        };
        reader.finish()?;
        tables.push(RowTable {
            order: order.unwrap_or(RowOrder::Random),
            rows,
        });
        names.push(TableNames {
            name: name.clone(),
            columns,
        });
    }
    Ok((tables, names))
}

/// Rows that are made from fields.
fn read_made_rows(
    reader: &mut ObjectReader<'_>,
    list: &[JsonTree],
) -> Result<(Vec<BoundedName>, TableRows), SchemaError> {
    let count = reader.count_in("count", 1, MAX_TABLE_ROWS)?;
    let count = reader.require("count", count)? as usize;
    let path = reader.path("fields");
    let mut fields = FieldListReader::new(ReadScope::inside_table());
    fields.read_members(&path, list, "")?;
    let columns = fields.scope.fields;
    check_count(&path, columns.len(), MAX_TABLE_COLUMNS)?;
    let row_bytes: u64 = columns.iter().map(|column| column.most_bytes).sum();
    if row_bytes * count as u64 > MAX_TABLE_BYTES {
        let problem = format!("{count} rows of up to {row_bytes} bytes");
        let remedy = format!("stay within {MAX_TABLE_BYTES} bytes");
        return Err(reader.error("count", problem, &remedy));
    }
    let fields = fields.read;
    Ok((columns, TableRows::Made { count, fields }))
}

/// Rows that the schema contains.
fn read_given_rows(
    reader: &mut ObjectReader<'_>,
) -> Result<(Vec<BoundedName>, TableRows), SchemaError> {
    let found = reader.list("columns")?;
    let mut columns = Vec::new();
    for (n, column) in reader.require("columns", found)?.iter().enumerate() {
        let JsonTree::Text(name) = column else {
            let path = reader.path(&format!("columns[{n}]"));
            return Err(mismatch(&path, column, "a text"));
        };
        columns.push(BoundedName {
            name: name.clone(),
            most_bytes: 0,
        });
    }
    let found = reader.list("rows")?;
    let given = reader.require("rows", found)?;
    if given.is_empty() || given.len() > MAX_TABLE_ROWS as usize {
        let remedy = format!("give 1 to {MAX_TABLE_ROWS} rows");
        return Err(reader.error("rows", format!("{} rows", given.len()), &remedy));
    }
    let mut rows = Vec::with_capacity(given.len());
    for (n, row) in given.iter().enumerate() {
        let path = reader.path(&format!("rows[{n}]"));
        let JsonTree::List(cells) = row else {
            return Err(mismatch(&path, row, "a list"));
        };
        if cells.len() != columns.len() {
            let problem = format!("{} cells for {} columns", cells.len(), columns.len());
            return Err(SchemaError::at(&path, problem, "give one cell per column"));
        }
        let cells = cells.iter().map(|cell| Cell::read(&path, cell));
        let cells = cells.collect::<Result<Vec<_>, _>>()?;
        for (column, cell) in columns.iter_mut().zip(&cells) {
            column.most_bytes = column.most_bytes.max(cell.text.len() as u64);
        }
        rows.push(cells);
    }
    Ok((columns, TableRows::Given(rows)))
}

fn read_walks(
    entries: &[(String, JsonTree)],
    tables: &[TableNames],
) -> Result<(Vec<RandomWalk>, Vec<String>), SchemaError> {
    check_count("walks", entries.len(), MAX_WALKS)?;
    let read = |(name, tree): &(String, JsonTree)| {
        RandomWalk::read(ObjectReader::of(&join("walks", name), tree)?, tables)
    };
    let walks: Result<_, _> = entries.iter().map(read).collect();
    let names = entries.iter().map(|(name, _)| name.clone()).collect();
    Ok((walks?, names))
}

fn check_count(path: &str, count: usize, most: usize) -> Result<(), SchemaError> {
    if count > most {
        let problem = format!("{count} entries");
        return Err(SchemaError::at(
            path,
            problem,
            format!("use at most {most}"),
        ));
    }
    Ok(())
}
