//! Reads the members of one object of a schema, with errors that name the path and the way out.
//! A member nobody asked for is an error too: it is most likely a misspelt one.

use super::schema::SchemaError;
use super::tree::{Tree, join};

/// Numbers beyond this are refused, so that no arithmetic on them can overflow.
pub(super) const MAX_NUMBER: f64 = 1e9;

/// Whole numbers beyond this are refused: they would lose digits in programs that use floats.
pub(super) const MAX_INTEGER: i64 = 1 << 53;

/// One object of a schema, being read.
pub(super) struct Reader<'a> {
    path: String,
    entries: &'a [(String, Tree)],
    asked: Vec<&'static str>,
}

type Found<T> = Result<Option<T>, SchemaError>;

impl<'a> Reader<'a> {
    pub(super) fn new(path: &str, entries: &'a [(String, Tree)]) -> Self {
        Self {
            path: path.to_owned(),
            entries,
            asked: Vec::new(),
        }
    }

    /// A reader of `tree`, which must be an object.
    pub(super) fn of(path: &str, tree: &'a Tree) -> Result<Self, SchemaError> {
        match tree {
            Tree::Object(entries) => Ok(Self::new(path, entries)),
            other => Err(wrong(path, other, "an object")),
        }
    }

    /// The path of a member, for messages.
    pub(super) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub(super) fn error(&self, key: &str, problem: String, way_out: &str) -> SchemaError {
        SchemaError::at(&self.path(key), problem, way_out)
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Tree> {
        self.asked.push(key);
        let found = self.entries.iter().find(|(name, _)| name == key);
        found.map(|(_, tree)| tree)
    }

    /// `found`, or an error that the member is missing.
    pub(super) fn need<T>(&self, key: &str, found: Option<T>) -> Result<T, SchemaError> {
        found.ok_or_else(|| self.error(key, "missing".to_owned(), "add it"))
    }

    pub(super) fn text(&mut self, key: &'static str) -> Found<&'a str> {
        match self.take(key) {
            None => Ok(None),
            Some(Tree::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(key), other, "a text")),
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Found<bool> {
        match self.take(key) {
            None => Ok(None),
            Some(Tree::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong(&self.path(key), other, "true or false")),
        }
    }

    pub(super) fn list(&mut self, key: &'static str) -> Found<&'a [Tree]> {
        match self.take(key) {
            None => Ok(None),
            Some(Tree::List(items)) => Ok(Some(items)),
            Some(other) => Err(wrong(&self.path(key), other, "a list")),
        }
    }

    pub(super) fn object(&mut self, key: &'static str) -> Found<&'a [(String, Tree)]> {
        match self.take(key) {
            None => Ok(None),
            Some(Tree::Object(entries)) => Ok(Some(entries)),
            Some(other) => Err(wrong(&self.path(key), other, "an object")),
        }
    }

    /// A number of sane size.
    pub(super) fn number(&mut self, key: &'static str) -> Found<f64> {
        let path = self.path(key);
        self.take(key).map(|tree| number(&path, tree)).transpose()
    }

    /// A number from `min` to `max`.
    pub(super) fn number_in(&mut self, key: &'static str, min: f64, max: f64) -> Found<f64> {
        let value = self.number(key)?;
        match value {
            Some(value) if !(min..=max).contains(&value) => {
                let problem = format!("{value} is out of range");
                Err(self.error(key, problem, &format!("use {min} to {max}")))
            }
            _ => Ok(value),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn integer_in(&mut self, key: &'static str, min: i64, max: i64) -> Found<i64> {
        let path = self.path(key);
        let Some(tree) = self.take(key) else {
            return Ok(None);
        };
        let Tree::Number(digits) = tree else {
            return Err(wrong(&path, tree, "a whole number"));
        };
        let value: Option<i64> = digits.parse().ok();
        match value {
            Some(value) if (min..=max).contains(&value) => Ok(Some(value)),
            _ => Err(SchemaError::at(
                &path,
                format!("{digits} is not a whole number in range"),
                format!("use {min} to {max}"),
            )),
        }
    }

    /// A count or size from `min` to `max`.
    pub(super) fn count_in(&mut self, key: &'static str, min: u32, max: u32) -> Found<u32> {
        let value = self.integer_in(key, i64::from(min), i64::from(max))?;
        Ok(value.and_then(|value| u32::try_from(value).ok()))
    }

    /// Fails when there are members that nobody asked for.
    pub(super) fn finish(self) -> Result<(), SchemaError> {
        for (key, _) in self.entries {
            if !self.asked.contains(&key.as_str()) {
                let way_out = format!("remove it; known here: {}", self.asked.join(", "));
                return Err(self.error(key, "unknown".to_owned(), &way_out));
            }
        }
        Ok(())
    }
}

/// A number of sane size.
pub(super) fn number(path: &str, tree: &Tree) -> Result<f64, SchemaError> {
    let Tree::Number(digits) = tree else {
        return Err(wrong(path, tree, "a number"));
    };
    let value: Option<f64> = digits.parse().ok();
    let sane = |value: &f64| value.abs() <= MAX_NUMBER;
    value.filter(sane).ok_or_else(|| {
        let way_out = format!("use -{MAX_NUMBER} to {MAX_NUMBER}");
        SchemaError::at(path, format!("{digits} is out of range"), way_out)
    })
}

pub(super) fn wrong(path: &str, tree: &Tree, expected: &str) -> SchemaError {
    let problem = format!("{} where {expected} belongs", tree.describe());
    SchemaError::at(path, problem, format!("give {expected}"))
}
