//! Reads the members of one object of a schema, with errors that name the path and the remedy. An unknown member is an
//! error too: most likely it is a misspelt one.

use crate::error::SchemaError;
use crate::tree::{JsonTree, join};

/// Numbers beyond this are refused, so that no arithmetic on them can overflow.
pub(crate) const MAX_NUMBER: f64 = 1e9;

/// Whole numbers beyond this are refused: programs that use floats would lose digits of them.
pub(crate) const MAX_INTEGER: i64 = 1 << 53;

/// One object of a schema, being read.
pub(crate) struct ObjectReader<'a> {
    path: String,
    entries: &'a [(String, JsonTree)],
    /// The names that were read; the object may have no others.
    known: Vec<&'static str>,
    /// The names that are read as if they were missing.
    left_out: Vec<String>,
}

/// Reads an object again and again, each time without the members that were found wrong: the errors are all that is wrong
/// with it, but for what follows from a missing member.
pub(crate) fn read_all<'a, T>(
    path: &str,
    entries: &'a [(String, JsonTree)],
    mut read: impl FnMut(ObjectReader<'a>) -> Result<T, Vec<SchemaError>>,
) -> Result<T, Vec<SchemaError>> {
    let mut left_out: Vec<String> = Vec::new();
    let mut errors = Vec::new();
    loop {
        let mut reader = ObjectReader::new(path, entries);
        reader.left_out.clone_from(&left_out);
        let found = match read(reader) {
            Ok(value) if errors.is_empty() => return Ok(value),
            Ok(_) => return Err(errors),
            Err(found) => found,
        };
        let wrong = found.first().map_or("", |error| member_of(path, error));
        if left_out.iter().any(|name| name == wrong) {
            return Err(errors);
        }
        let wrong = entries.iter().find(|(name, _)| name == wrong);
        errors.extend(found);
        match wrong {
            Some((name, _)) => left_out.push(name.clone()),
            None => return Err(errors),
        }
    }
}

/// The member of the object at `path` that an error is about.
fn member_of<'a>(path: &str, error: &'a SchemaError) -> &'a str {
    let below = error.field.strip_prefix(path).unwrap_or_default();
    let below = below.trim_start_matches('.');
    below.split(['.', '[']).next().unwrap_or_default()
}

/// A member that may be missing, or the error of reading it.
type OptionalMember<T> = Result<Option<T>, SchemaError>;

impl<'a> ObjectReader<'a> {
    pub(crate) fn new(path: &str, entries: &'a [(String, JsonTree)]) -> Self {
        Self {
            path: path.to_owned(),
            entries,
            known: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// A reader of `tree`, which must be an object.
    pub(crate) fn of(path: &str, tree: &'a JsonTree) -> Result<Self, SchemaError> {
        match tree {
            JsonTree::Object(entries) => Ok(Self::new(path, entries)),
            other => Err(mismatch(path, other, "an object")),
        }
    }

    /// The path of a member, for messages.
    pub(crate) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub(crate) fn error(&self, key: &str, problem: String, remedy: &str) -> SchemaError {
        SchemaError::at(&self.path(key), problem, remedy)
    }

    pub(crate) fn member(&mut self, key: &'static str) -> Option<&'a JsonTree> {
        // A member may be read in several ways.
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let found = self.entries.iter().find(|(name, _)| name == key);
        let found = found.filter(|(name, _)| !self.left_out.contains(name));
        found.map(|(_, tree)| tree)
    }

    /// Whether the member is there and was found wrong before.
    pub(crate) fn was_wrong(&self, key: &str) -> bool {
        self.left_out.iter().any(|name| name == key)
    }

    /// `found`, or an error that the member is missing.
    pub(crate) fn require<T>(&self, key: &str, found: Option<T>) -> Result<T, SchemaError> {
        found.ok_or_else(|| {
            let is_unread = |name: &&str| !self.known.contains(name) && is_like(name, key);
            let names = self.entries.iter().map(|(name, _)| name.as_str());
            let remedy = match names.into_iter().find(is_unread) {
                Some(name) => format!("add it, or rename {name}, which stands there"),
                None => "add it".to_owned(),
            };
            self.error(key, "missing".to_owned(), &remedy)
        })
    }

    pub(crate) fn text(&mut self, key: &'static str) -> OptionalMember<&'a str> {
        match self.member(key) {
            None => Ok(None),
            Some(JsonTree::Text(text)) => Ok(Some(text)),
            Some(other) => Err(mismatch(&self.path(key), other, "a text")),
        }
    }

    pub(crate) fn boolean(&mut self, key: &'static str) -> OptionalMember<bool> {
        match self.member(key) {
            None => Ok(None),
            Some(JsonTree::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(mismatch(&self.path(key), other, "true or false")),
        }
    }

    pub(crate) fn list(&mut self, key: &'static str) -> OptionalMember<&'a [JsonTree]> {
        match self.member(key) {
            None => Ok(None),
            Some(JsonTree::List(items)) => Ok(Some(items)),
            Some(other) => Err(mismatch(&self.path(key), other, "a list")),
        }
    }

    pub(crate) fn object(&mut self, key: &'static str) -> OptionalMember<&'a [(String, JsonTree)]> {
        match self.member(key) {
            None => Ok(None),
            Some(JsonTree::Object(entries)) => Ok(Some(entries)),
            Some(other) => Err(mismatch(&self.path(key), other, "an object")),
        }
    }

    /// A number of at most [`MAX_NUMBER`].
    pub(crate) fn number(&mut self, key: &'static str) -> OptionalMember<f64> {
        let path = self.path(key);
        self.member(key).map(|tree| number(&path, tree)).transpose()
    }

    /// A number from `min` to `max`.
    pub(crate) fn number_in(
        &mut self,
        key: &'static str,
        min: f64,
        max: f64,
    ) -> OptionalMember<f64> {
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
    pub(crate) fn integer_in(
        &mut self,
        key: &'static str,
        min: i64,
        max: i64,
    ) -> OptionalMember<i64> {
        let path = self.path(key);
        let Some(tree) = self.member(key) else {
            return Ok(None);
        };
        let JsonTree::Number(digits) = tree else {
            return Err(mismatch(&path, tree, "a whole number"));
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
    pub(crate) fn count_in(
        &mut self,
        key: &'static str,
        min: u32,
        max: u32,
    ) -> OptionalMember<u32> {
        let value = self.integer_in(key, i64::from(min), i64::from(max))?;
        Ok(value.and_then(|value| u32::try_from(value).ok()))
    }

    /// The value of a member that must be one of a few names.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        names: &[(&str, T)],
    ) -> OptionalMember<T> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let found = names.iter().find(|(name, _)| *name == text);
        let (_, value) = found.ok_or_else(|| {
            let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            let remedy = format!("use one of: {}", known.join(", "));
            self.error(key, format!("{text:?} is not known"), &remedy)
        })?;
        Ok(Some(*value))
    }

    /// The position of a required name among those that are defined.
    pub(crate) fn required_position(
        &mut self,
        key: &'static str,
        defined: &[&str],
    ) -> Result<usize, SchemaError> {
        let name = self.text(key)?;
        let name = self.require(key, name)?;
        self.position_of(key, name, defined)
    }

    /// The position of a name among those that the schema defined before.
    pub(crate) fn position_of(
        &self,
        key: &str,
        name: &str,
        defined: &[&str],
    ) -> Result<usize, SchemaError> {
        let position = defined.iter().position(|defined| *defined == name);
        position.ok_or_else(|| {
            let remedy = if defined.is_empty() {
                "define it first".to_owned()
            } else {
                format!("use one of: {}", defined.join(", "))
            };
            self.error(key, format!("{name:?} is not defined"), &remedy)
        })
    }

    /// Fails if there are members of other names than those that were read.
    pub(crate) fn finish(self) -> Result<(), SchemaError> {
        for (key, _) in self.entries {
            if !self.known.contains(&key.as_str()) && !self.left_out.contains(key) {
                let remedy = format!("remove it; known here: {}", self.known.join(", "));
                return Err(self.error(key, "unknown".to_owned(), &remedy));
            }
        }
        Ok(())
    }
}

/// Whether a name may be the other one, misspelt: one begins with the other, or two letters at most differ.
fn is_like(name: &str, key: &str) -> bool {
    let (name, key) = (name.to_lowercase(), key.to_lowercase());
    name.starts_with(&key) || key.starts_with(&name) || distance(&name, &key) <= 2
}

/// How many letters are to be added, removed or changed to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (n, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], n + 1);
        for (m, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[m + 1];
            row[m + 1] = changed.min(diagonal + 1).min(row[m] + 1);
        }
    }
    row[b.len()]
}

/// A number of at most [`MAX_NUMBER`].
pub(crate) fn number(path: &str, tree: &JsonTree) -> Result<f64, SchemaError> {
    let JsonTree::Number(digits) = tree else {
        return Err(mismatch(path, tree, "a number"));
    };
    let value: Option<f64> = digits.parse().ok();
    let in_range = |value: &f64| value.abs() <= MAX_NUMBER;
    value.filter(in_range).ok_or_else(|| {
        let remedy = format!("use -{MAX_NUMBER} to {MAX_NUMBER}");
        SchemaError::at(path, format!("{digits} is out of range"), remedy)
    })
}

/// An error about a value of another type than expected.
pub(crate) fn mismatch(path: &str, tree: &JsonTree, expected: &str) -> SchemaError {
    let problem = format!("{} where {expected} belongs", tree.describe());
    SchemaError::at(path, problem, format!("give {expected}"))
}
