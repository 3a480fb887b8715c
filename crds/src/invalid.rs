//! One thing wrong with a pipeline: the field, its value, the rule that it breaks, and the remedy.

use std::fmt;

/// A value that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field, e.g. `spec.codec.recordSize` or `spec.source.formats[1]`.
    pub field: String,
    /// Its value, as written; empty where there is none.
    pub value: String,
    /// The rule it breaks.
    pub rule: String,
    /// What to do about it.
    pub help: String,
}

impl Invalid {
    /// A field whose value breaks a rule. A long value is shortened.
    pub fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        rule: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Invalid {
            field: field.into(),
            value: shorten(value.to_string()),
            rule: rule.into(),
            help: help.into(),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name in a file can be anything: it must neither fill the terminal nor control it.
        let field = cut(&self.field, LONGEST_FIELD);
        for part in [field, self.value.clone()] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        // Rule and remedy may quote one.
        let [rule, help] = [&self.rule, &self.help].map(|text| cut(text, usize::MAX));
        write!(f, "{rule}; {help}")
    }
}

impl std::error::Error for Invalid {}

const LONGEST_VALUE: usize = 80;
const LONGEST_FIELD: usize = 200;

/// Shortens a value, so that a message stays readable when the value is a whole document.
pub(crate) fn shorten(value: String) -> String {
    cut(&value, LONGEST_VALUE)
}

/// The beginning of a text, without control characters.
fn cut(text: &str, longest: usize) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(longest).map(clean).collect();
    if text.chars().nth(longest).is_some() {
        short.push('…');
    }
    short
}
