//! Reads YAML into JSON values, with the position of each. Size, depth and the number of values (with every use of an
//! alias) are bounded, so that no file takes long to read. Duplicate names are errors. Knows nothing about pipelines.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use crate::document::field_path::join;
use crate::invalid::shorten;

/// The most bytes of a file: etcd takes no larger object either.
const MOST_BYTES: usize = 1 << 20;
/// The deepest nesting.
const MOST_DEPTH: usize = 64;
/// The most values of a file, counting every use of an alias.
const MOST_VALUES: usize = 50_000;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LineColumn {
    pub line: usize,
    pub column: usize,
}

/// An error that keeps a document from being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub place: LineColumn,
    pub rule: String,
    pub help: String,
}

/// One document of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct YamlDocument {
    pub value: Value,
    pub start: LineColumn,
    /// The positions of each field's name and value, by its path.
    places: HashMap<String, (LineColumn, LineColumn)>,
    /// Paths of numbers with a zero in front and without quotes, with what is written: text here, and for Kubernetes a number,
    /// of base 8 where it can be one.
    pub padded: Vec<(String, String)>,
}

impl YamlDocument {
    /// The position of a field's value; of the nearest group around it where it has none.
    pub(crate) fn place(&self, path: &str) -> LineColumn {
        self.nearest(path).map_or(self.start, |(_, value)| value)
    }

    /// The position of a field's name.
    pub(crate) fn name_place(&self, path: &str) -> LineColumn {
        self.nearest(path).map_or(self.start, |(name, _)| name)
    }

    /// Each item of the field `items` as a document of its own; `None` where that is no list.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        let items = self.value.get("items")?.as_array()?.iter();
        let item = |(number, value): (usize, &Value)| {
            let path = format!("items[{number}]");
            let below = |path_in_list: &str| {
                let below = path_in_list.strip_prefix(&path)?.strip_prefix('.')?;
                Some(below.to_owned())
            };
            let places = self.places.iter();
            let padded = self.padded.iter();
            Self {
                value: value.clone(),
                start: self.place(&path),
                places: places
                    .filter_map(|(path, at)| Some((below(path)?, *at)))
                    .collect(),
                padded: padded
                    .filter_map(|(path, text)| Some((below(path)?, text.clone())))
                    .collect(),
            }
        };
        Some(items.enumerate().map(item).collect())
    }

    fn nearest(&self, path: &str) -> Option<(LineColumn, LineColumn)> {
        let mut path = path;
        loop {
            if let Some(places) = self.places.get(path) {
                return Some(*places);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }
}

/// Reads every document of a file. A document with an error is left out; the others are still read.
pub(crate) fn read(text: &str) -> (Vec<YamlDocument>, Vec<YamlError>) {
    if text.len() > MOST_BYTES {
        let error = YamlError {
            place: LineColumn { line: 1, column: 1 },
            rule: format!(
                "the file has {} bytes, a pipeline has at most {MOST_BYTES}",
                text.len()
            ),
            help: "name another file".into(),
        };
        return (Vec::new(), vec![error]);
    }
    let options = granit_parser::options! {
        flow_nesting_limit: MOST_DEPTH,
        block_nesting_limit: MOST_DEPTH,
        // Another crate in the build may enable comments for all users of the parser.
        emit_comments: false,
    };
    let mut reader = YamlReader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        values: 0,
        errors: Vec::new(),
    };
    let documents = reader.documents();
    (documents, reader.errors)
}

/// A value and its position.
#[derive(Clone)]
struct YamlNode {
    kind: YamlValue,
    place: LineColumn,
    /// Levels of nesting below it, and values in it.
    depth: usize,
    values: usize,
}

#[derive(Clone)]
enum YamlValue {
    Scalar(Value),
    /// A number with a zero in front, without quotes.
    Padded(String),
    List(Vec<YamlNode>),
    Group(Vec<(String, LineColumn, YamlNode)>),
}

/// Ends the reading of a document, after its error was recorded.
struct Unreadable;

struct YamlReader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, YamlNode>,
    values: usize,
    errors: Vec<YamlError>,
}

impl<'a> YamlReader<'a> {
    fn documents(&mut self) -> Vec<YamlDocument> {
        let mut documents = Vec::new();
        loop {
            match self.next() {
                Ok((Event::StreamEnd, _)) => return documents,
                Ok((Event::DocumentStart(..), _)) => match self.document() {
                    Ok(document) => documents.push(document),
                    Err(Unreadable) if self.skip_document() => {}
                    Err(Unreadable) => return documents,
                },
                Ok(_) => {}
                Err(Unreadable) if self.skip_document() => {}
                Err(Unreadable) => return documents,
            }
        }
    }

    /// Skips the rest of a broken document; returns whether there is another one.
    fn skip_document(&mut self) -> bool {
        // A file with more errors is not YAML at all.
        self.errors.len() < 20 && matches!(self.parser.proceed_next_document(), Ok(true))
    }

    fn document(&mut self) -> Result<YamlDocument, Unreadable> {
        self.anchors.clear();
        let errors = self.errors.len();
        let (event, span) = self.next()?;
        let root = self.node(event, span, 0)?;
        // Errors that leave the structure intact, such as a repeated name, make the document unusable too.
        if self.errors.len() > errors {
            return Err(Unreadable);
        }
        let mut document = YamlDocument {
            start: root.place,
            ..YamlDocument::default()
        };
        document.value = root.flatten("", &mut document);
        Ok(document)
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Unreadable> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn syntax(&mut self, error: &ScanError) -> Unreadable {
        let place = self.place(*error.marker());
        let rule = format!("is not YAML: {}", error.info());
        self.error(place, &rule, "correct the line, or the one before it")
    }

    fn error(&mut self, place: LineColumn, rule: &str, help: &str) -> Unreadable {
        self.errors.push(YamlError {
            place,
            rule: rule.to_owned(),
            help: help.to_owned(),
        });
        Unreadable
    }

    fn place(&self, marker: Marker) -> LineColumn {
        LineColumn {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, level: usize) -> Result<YamlNode, Unreadable> {
        let place = self.place(span.start);
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(self.error(
                place,
                "has too many values",
                "remove aliases, or name another file",
            ));
        }
        if level > MOST_DEPTH {
            return Err(self.error(place, "is nested too deep", "flatten it"));
        }
        let (anchor, kind) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref();
                let is_padded = style == ScalarStyle::Plain && tag.is_none() && is_padded(&text);
                let scalar = match is_padded {
                    true => YamlValue::Padded(text.into_owned()),
                    false => YamlValue::Scalar(self.scalar(&text, style, tag, place)?),
                };
                (anchor, scalar)
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.list(level)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.group(level)?),
            Event::Alias(anchor) => return self.alias(anchor, place, level),
            _ => return Err(self.error(place, "ends too early", "give the field a value")),
        };
        let node = YamlNode::new(kind, place);
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// A copy of the anchor's value, counted as if it were written out.
    fn alias(
        &mut self,
        anchor: usize,
        place: LineColumn,
        level: usize,
    ) -> Result<YamlNode, Unreadable> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(self.error(
                place,
                "is an alias of the value that contains it",
                "write the value out",
            ));
        };
        self.values = self.values.saturating_add(node.values);
        if self.values > MOST_VALUES || level + node.depth > MOST_DEPTH {
            return Err(self.error(
                place,
                "makes the file too large",
                "write the value out instead of aliases of aliases",
            ));
        }
        // Messages point at the alias, which is the line to change.
        Ok(YamlNode {
            place,
            ..node.clone()
        })
    }

    fn list(&mut self, level: usize) -> Result<YamlValue, Unreadable> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(YamlValue::List(items)),
                (event, span) => items.push(self.node(event, span, level + 1)?),
            }
        }
    }

    fn group(&mut self, level: usize) -> Result<YamlValue, Unreadable> {
        let mut fields: Vec<(String, LineColumn, YamlNode)> = Vec::new();
        let mut known: HashMap<String, LineColumn> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let merge =
                matches!(&event, Event::Scalar(name, ScalarStyle::Plain, ..) if name == "<<");
            let place = self.place(span.start);
            let name = self.name(event, place)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, level + 1)?;
            if merge {
                self.merge(node, &mut merged)?;
            } else if let Some(first) = known.insert(name.clone(), place) {
                let line = first.line;
                let rule = format!("{}: is written twice, first in line {line}", shorten(name));
                self.error(place, &rule, "keep one of the two");
            } else {
                fields.push((name, place, node));
            }
        }
        // A written field overrides a merged one, and an earlier merged one a later.
        for (name, place, node) in merged {
            if known.insert(name.clone(), place).is_none() {
                fields.push((name, place, node));
            }
        }
        Ok(YamlValue::Group(fields))
    }

    fn name(&mut self, event: Event<'a>, place: LineColumn) -> Result<String, Unreadable> {
        match event {
            Event::Scalar(name, ..) => Ok(name.into_owned()),
            _ => Err(self.error(place, "must have plain text for a name", "quote the name")),
        }
    }

    fn merge(
        &mut self,
        node: YamlNode,
        merged: &mut Vec<(String, LineColumn, YamlNode)>,
    ) -> Result<(), Unreadable> {
        match node.kind {
            YamlValue::Group(fields) => merged.extend(fields),
            YamlValue::List(groups)
                if groups
                    .iter()
                    .all(|group| matches!(group.kind, YamlValue::Group(_))) =>
            {
                for group in groups {
                    self.merge(group, merged)?;
                }
            }
            _ => {
                return Err(self.error(
                    node.place,
                    "<<: must name a group of fields",
                    "write <<: *name",
                ));
            }
        }
        Ok(())
    }

    /// A scalar by YAML's core schema. What other YAML versions read as a number or a boolean (`yes`, `0777`, `1_000`)
    /// stays text, and is an error where text does not fit.
    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        place: LineColumn,
    ) -> Result<Value, Unreadable> {
        let as_text = match tag.map(|tag| (tag, tag.core_suffix())) {
            None => style != ScalarStyle::Plain,
            Some((_, Some("str"))) => true,
            Some((_, Some("int" | "float" | "bool" | "null"))) => false,
            Some((tag, _)) => {
                let rule = format!("has the tag {}", tag.original());
                return Err(self.error(place, &rule, "remove the tag"));
            }
        };
        Ok(if as_text { text.into() } else { plain(text) })
    }
}

/// Whether a scalar without quotes is digits with a zero in front.
fn is_padded(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    text.len() <= digits.len() + 1
        && digits.len() > 1
        && digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A scalar without quotes.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    let digits = text.trim_start_matches(['-', '+']);
    let padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let number = digits.starts_with(|c: char| c.is_ascii_digit())
        && text.len() <= digits.len() + 1
        && !padded;
    if !number {
        return text.into();
    }
    let whole = text
        .parse::<i64>()
        .map(Value::from)
        .or_else(|_| text.parse::<u64>().map(Value::from));
    whole.unwrap_or_else(
        |_| match text.parse::<f64>().ok().and_then(Number::from_f64) {
            Some(number) => Value::Number(number),
            None => text.into(),
        },
    )
}

impl YamlNode {
    fn new(kind: YamlValue, place: LineColumn) -> Self {
        let (mut depth, mut values) = (0, 1);
        let mut add = |node: &YamlNode| {
            depth = depth.max(node.depth + 1);
            values += node.values;
        };
        match &kind {
            YamlValue::Scalar(_) | YamlValue::Padded(_) => {}
            YamlValue::List(items) => items.iter().for_each(add),
            YamlValue::Group(fields) => fields.iter().for_each(|(_, _, node)| add(node)),
        }
        YamlNode {
            kind,
            place,
            depth,
            values,
        }
    }

    /// The plain value; the positions go to `document`.
    fn flatten(self, path: &str, document: &mut YamlDocument) -> Value {
        match self.kind {
            YamlValue::Scalar(value) => value,
            YamlValue::Padded(text) => {
                document.padded.push((path.to_owned(), text.clone()));
                text.into()
            }
            YamlValue::List(items) => {
                let items = items.into_iter().enumerate();
                let mut flat = |(index, item): (usize, YamlNode)| {
                    let path = format!("{path}[{index}]");
                    let places = (item.place, item.place);
                    document.places.insert(path.clone(), places);
                    item.flatten(&path, document)
                };
                Value::Array(items.map(&mut flat).collect())
            }
            YamlValue::Group(fields) => {
                let mut group = Map::new();
                for (name, name_place, node) in fields {
                    let path = join(path, &name);
                    let places = (name_place, node.place);
                    document.places.insert(path.clone(), places);
                    group.insert(name, node.flatten(&path, document));
                }
                Value::Object(group)
            }
        }
    }
}
