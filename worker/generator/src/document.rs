//! The native kind of schema: a document that describes records field by field.
//!
//! `deploy/examples/schemas/README.md` describes it for users; change both together.

use std::collections::HashSet;

use crate::clock::RecordClock;
use crate::error::SchemaError;
use crate::kinds::{BoundedName, Cell, ReadScope, TableNames, TextTemplate, ValueKind};
use crate::reader::{ObjectReader, mismatch, read_all};
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
    /// Reads a document; the errors are all that is wrong with it, but for what follows from them.
    pub(crate) fn read(entries: &[(String, JsonTree)]) -> Result<Self, Vec<SchemaError>> {
        let mut errors = Vec::new();
        let checked = read_all("", entries, DocumentParts::check);
        errors.extend(checked.err().unwrap_or_default());
        if !entries.iter().any(|(name, _)| name == "fields") {
            let missing = ObjectReader::new("", entries).require::<()>("fields", None);
            errors.extend(missing.err());
        }
        let parts = DocumentParts::of(entries);
        let clock = read_all("clock", parts.clock, |reader| {
            Ok(RecordClock::read(reader)?)
        });
        let clock = clock.map_err(|wrong| errors.extend(wrong)).ok();
        let mut table_errors = Vec::new();
        let (tables, table_names) = read_tables(parts.tables, &mut table_errors);
        let (walks, walk_names, mut walk_errors) = read_walks(parts.walks, &table_names);
        let mut fields = FieldListReader::new(ReadScope::new(&table_names, &walk_names));
        let members = fields.read_members("fields", parts.fields, "");
        let line = parts
            .line
            .map(|text| TextTemplate::read("line", text, &fields.scope.fields));
        let line = line.transpose().map_err(|wrong| fields.errors.push(wrong));
        if !table_errors.is_empty() {
            // The columns of a wrong table are not known.
            walk_errors.retain(|error| !error.field.ends_with(".base"));
            let errors = &mut fields.errors;
            errors.retain(|error| !error.field.ends_with(".column"));
        }
        errors.extend(table_errors);
        errors.extend(walk_errors);
        errors.extend(fields.errors);
        if members.is_empty() && errors.is_empty() {
            let (problem, remedy) = ("no visible field", "add at least one that is not hidden");
            errors.push(SchemaError::at("fields", problem.to_owned(), remedy));
        }
        match (clock, line, errors.is_empty()) {
            (Some(clock), Ok(line), true) => Ok(Self {
                clock,
                tables,
                walks,
                fields: fields.read,
                members,
                line,
            }),
            _ => Err(errors),
        }
    }
}

/// The parts of a document; one of another type than it must have is as if it were missing.
struct DocumentParts<'a> {
    clock: &'a [(String, JsonTree)],
    tables: &'a [(String, JsonTree)],
    walks: &'a [(String, JsonTree)],
    fields: &'a [JsonTree],
    line: Option<&'a str>,
}

impl<'a> DocumentParts<'a> {
    fn of(entries: &'a [(String, JsonTree)]) -> Self {
        let member = |key: &str| {
            let found = entries.iter().find(|(name, _)| name == key);
            found.map(|(_, tree)| tree)
        };
        let object = |key: &str| match member(key) {
            Some(JsonTree::Object(entries)) => entries.as_slice(),
            _ => &[],
        };
        Self {
            clock: object("clock"),
            tables: object("tables"),
            walks: object("walks"),
            fields: match member("fields") {
                Some(JsonTree::List(fields)) => fields,
                _ => &[],
            },
            line: match member("line") {
                Some(JsonTree::Text(line)) => Some(line),
                _ => None,
            },
        }
    }

    /// Checks that there are no others, and their types.
    fn check(mut reader: ObjectReader<'_>) -> Result<(), Vec<SchemaError>> {
        reader.text("description")?;
        for key in ["clock", "tables", "walks"] {
            reader.object(key)?;
        }
        reader.list("fields")?;
        reader.text("line")?;
        Ok(reader.finish()?)
    }
}

/// Reads a list of fields, of a record or of a table.
struct FieldListReader<'a> {
    scope: ReadScope<'a>,
    /// The fields that hold values; the scope has their names.
    read: Vec<ValueField>,
    /// What is wrong with the others; the scope has their names too.
    errors: Vec<SchemaError>,
}

impl<'a> FieldListReader<'a> {
    fn new(scope: ReadScope<'a>) -> Self {
        Self {
            scope,
            read: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Reads the fields of one object; returns its visible members.
    fn read_members(&mut self, path: &str, fields: &[JsonTree], prefix: &str) -> Vec<RecordMember> {
        let mut members = Vec::new();
        let mut seen = HashSet::new();
        for (n, field) in fields.iter().enumerate() {
            let at = format!("{path}[{n}]");
            let JsonTree::Object(entries) = field else {
                self.errors.push(mismatch(&at, field, "an object"));
                continue;
            };
            let name = entries.iter().find_map(|(key, value)| match value {
                JsonTree::Text(name) if key == "name" => Some(name),
                _ => None,
            });
            let read = read_all(&at, entries, |reader| {
                Ok(self.read_member(&at, reader, prefix, &seen)?)
            });
            match read {
                Ok(member) => members.extend(member),
                Err(errors) => {
                    self.errors.extend(errors);
                    // Others may refer to it.
                    self.scope.fields.extend(name.map(|name| BoundedName {
                        name: join(prefix, name),
                        most_bytes: 0,
                    }));
                }
            }
            seen.extend(name);
        }
        members
    }

    /// Reads one field; nothing for a hidden one.
    fn read_member(
        &mut self,
        at: &str,
        mut reader: ObjectReader<'_>,
        prefix: &str,
        seen: &HashSet<&String>,
    ) -> Result<Option<RecordMember>, SchemaError> {
        let found = reader.text("name")?;
        let name = reader.require("name", found)?.to_owned();
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(['{', '}']) {
            let remedy = format!("use 1 to {MAX_NAME_BYTES} bytes without braces");
            return Err(reader.error("name", format!("{name:?} cannot be a name"), &remedy));
        }
        if seen.contains(&name) {
            let problem = format!("{name:?} is there twice");
            return Err(reader.error("name", problem, "give each field its own name"));
        }
        let dotted = join(prefix, &name);
        if reader.text("kind")? == Some("object") {
            let inner = reader.list("fields")?;
            let inner = reader.require("fields", inner)?;
            reader.finish()?;
            let members = self.read_members(&join(at, "fields"), inner, &dotted);
            return Ok(Some(RecordMember::Object { name, members }));
        }
        let hidden = reader.boolean("hidden")?.unwrap_or(false);
        let field = self.read_value(dotted, reader)?;
        Ok((!hidden).then_some(RecordMember::Value { name, field }))
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
    errors: &mut Vec<SchemaError>,
) -> (Vec<RowTable>, Vec<TableNames>) {
    errors.extend(check_count("tables", entries.len(), MAX_TABLES).err());
    let mut tables = Vec::new();
    let mut names = Vec::new();
    for (name, tree) in entries {
        let path = join("tables", name);
        let read = match tree {
            JsonTree::Object(entries) => read_all(&path, entries, read_table),
            other => Err(mismatch(&path, other, "an object").into()),
        };
        let mut columns = Vec::new();
        match read {
            Ok((of_table, table)) => {
                columns = of_table;
                tables.push(table);
            }
            Err(wrong) => errors.extend(wrong),
        }
        names.push(TableNames {
            name: name.clone(),
            columns,
        });
    }
    (tables, names)
}

fn read_table(
    mut reader: ObjectReader<'_>,
) -> Result<(Vec<BoundedName>, RowTable), Vec<SchemaError>> {
    let order = reader.choice("order", &RowOrder::NAMES)?;
    let made = reader.list("fields")?;
    let (columns, rows) = match made {
        Some(fields) => read_made_rows(&mut reader, fields)?,
        // Nothing more can be said of its rows.
        None if reader.was_wrong("fields") => return Err(Vec::new()),
        None => read_given_rows(&mut reader)?,
    };
    reader.finish()?;
    let order = order.unwrap_or(RowOrder::Random);
    Ok((columns, RowTable { order, rows }))
}

/// Rows that are made from fields.
fn read_made_rows(
    reader: &mut ObjectReader<'_>,
    list: &[JsonTree],
) -> Result<(Vec<BoundedName>, TableRows), Vec<SchemaError>> {
    let count = reader.count_in("count", 1, MAX_TABLE_ROWS)?;
    let count = reader.require("count", count)? as usize;
    let path = reader.path("fields");
    let mut fields = FieldListReader::new(ReadScope::inside_table());
    fields.read_members(&path, list, "");
    if !fields.errors.is_empty() {
        return Err(fields.errors);
    }
    let columns = fields.scope.fields;
    check_count(&path, columns.len(), MAX_TABLE_COLUMNS)?;
    let row_bytes: u64 = columns.iter().map(|column| column.most_bytes).sum();
    if row_bytes * count as u64 > MAX_TABLE_BYTES {
        let problem = format!("{count} rows of up to {row_bytes} bytes");
        let remedy = format!("stay within {MAX_TABLE_BYTES} bytes");
        return Err(reader.error("count", problem, &remedy).into());
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
) -> (Vec<RandomWalk>, Vec<String>, Vec<SchemaError>) {
    let mut errors = Vec::new();
    errors.extend(check_count("walks", entries.len(), MAX_WALKS).err());
    let mut walks = Vec::new();
    for (name, tree) in entries {
        let path = join("walks", name);
        let read = match tree {
            JsonTree::Object(entries) => read_all(&path, entries, |reader| {
                Ok(RandomWalk::read(reader, tables)?)
            }),
            other => Err(mismatch(&path, other, "an object").into()),
        };
        match read {
            Ok(walk) => walks.push(walk),
            Err(wrong) => errors.extend(wrong),
        }
    }
    let names = entries.iter().map(|(name, _)| name.clone()).collect();
    (walks, names, errors)
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
