//! The choices of the encoder, each with the key of its place: with them a block of the same schema is
//! encoded without a search. Other columns are named by key, since their numbers differ from block to
//! block.

use std::collections::HashMap;

use super::ratio::Ratio;
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    entropy::Coder,
    hash::{IdentityState, mix},
};

/// The place of a choice: a hash of column, codings around it, and position in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChoiceKey(pub(crate) u64);

impl ChoiceKey {
    /// The place at `position` in this one.
    pub(crate) fn child(self, position: u64) -> Self {
        Self(mix(self.0, position))
    }
}

/// A coding with its parameters. Columns are named by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Candidate {
    Text,
    Dictionary,
    Ranked,
    Sparse,
    Number,
    Time,
    Hex,
    Classes,
    Template(TemplateCut),
    Sorted(Vec<u64>),
    Copied(u64),
    Mapped(u64),
    Recalled(Vec<u64>),
}

/// How values are split into templates and variables. Decoding needs only `rule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TemplateCut {
    pub(crate) rule: KeyRule,
    /// Split dates and addresses into their numbers.
    pub(crate) fine: bool,
}

/// Which variables of templates share a column. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum KeyRule {
    /// Variables after equal text from the start of the template.
    Prefix = 0,
    /// Variables after the same run of letters.
    Letters = 1,
}

/// A number of another column, in this row or the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellChoice {
    pub(crate) column: u64,
    pub(crate) next: bool,
}

/// A prediction without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PredictionChoice {
    Zero,
    Delta,
    DeltaOfDelta,
    Other(CellChoice),
    OtherDelta(u64),
    Highest(CellChoice, CellChoice),
    Lowest(CellChoice, CellChoice),
    /// The least-squares line; with an integer step if set.
    Line(bool),
    /// The number of a column times a ratio.
    Ratio(u64, Ratio),
}

/// A layout of integers without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayoutChoice {
    Planes,
    Rows,
    Buckets(u8),
    Digits,
    Groups(u8),
}

/// One choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The coding of a column.
    Coding(Candidate),
    /// The prediction of numbers.
    Prediction(PredictionChoice),
    /// The layout of integers; with the zigzag mapping if set.
    Integers(LayoutChoice, bool),
    /// Hexadecimal numbers with only the bits that vary, if set.
    Hex(bool),
    /// The coder of a stream or group; in the solid group of text if set.
    Stream(Coder, bool),
    /// The order of columns: each time a column moves before another one.
    Order(Vec<[u64; 2]>),
}

/// Choices by place. Lookups continue in `outer`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices<'a> {
    own: HashMap<ChoiceKey, Choice, IdentityState>,
    outer: Option<&'a Choices<'a>>,
}

impl<'a> Choices<'a> {
    /// The choices `own` before those of `outer`.
    pub(crate) fn before(own: &[(ChoiceKey, Choice)], outer: &'a Choices<'a>) -> Self {
        Self {
            own: own.iter().cloned().collect(),
            outer: Some(outer),
        }
    }

    /// The choice at `key`.
    pub(crate) fn get(&self, key: ChoiceKey) -> Option<&Choice> {
        self.own
            .get(&key)
            .or_else(|| self.outer.and_then(|outer| outer.get(key)))
    }

    /// Adds or replaces choices.
    pub(crate) fn extend(&mut self, choices: impl IntoIterator<Item = (ChoiceKey, Choice)>) {
        self.own.extend(choices);
    }

    /// The choices, without those of outer ones.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChoiceKey, Choice)> + '_ {
        self.own.iter().map(|(&key, choice)| (key, choice.clone()))
    }

    /// The number of choices, without those of outer ones.
    pub(crate) fn len(&self) -> usize {
        self.own.len()
    }

    /// Appends the choices in the order of their keys.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut sorted: Vec<_> = self.own.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| **key);
        put_varint(out, sorted.len() as u64);
        for (key, choice) in sorted {
            out.extend(key.0.to_le_bytes());
            choice.put(out);
        }
    }

    /// Reads what [`Self::put`] wrote.
    pub(crate) fn read(fields: &mut FieldReader<'_>) -> Result<Choices<'static>, Damage> {
        let mut own = HashMap::default();
        for _ in 0..fields.size(fields.remaining(), "the number of choices")? {
            let key = ChoiceKey(read_u64(fields)?);
            own.insert(key, Choice::read(fields)?);
        }
        Ok(Choices { own, outer: None })
    }
}

/// Reads eight bytes, lowest first.
pub(crate) fn read_u64(fields: &mut FieldReader<'_>) -> Result<u64, Damage> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(fields.take(8)?);
    Ok(u64::from_le_bytes(bytes))
}

fn unknown() -> Damage {
    Damage::new("an unknown choice")
}

/// Reads a byte that is 0 or 1.
pub(super) fn read_flag(fields: &mut FieldReader<'_>) -> Result<bool, Damage> {
    match fields.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unknown()),
    }
}

impl Choice {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Coding(candidate) => {
                out.push(0);
                candidate.put(out);
            }
            Self::Prediction(prediction) => {
                out.push(1);
                prediction.put(out);
            }
            Self::Integers(layout, zigzag) => {
                let (tag, parameter) = match layout {
                    LayoutChoice::Planes => (0, 0),
                    LayoutChoice::Rows => (1, 0),
                    LayoutChoice::Buckets(precision) => (2, *precision),
                    LayoutChoice::Digits => (3, 0),
                    LayoutChoice::Groups(together) => (4, *together),
                };
                out.extend([2, tag, parameter, u8::from(*zigzag)]);
            }
            Self::Hex(masked) => out.extend([3, u8::from(*masked)]),
            Self::Stream(coder, solid) => {
                let [tag, parameter] = coder.to_bytes();
                out.extend([4, tag, parameter, u8::from(*solid)]);
            }
            Self::Order(pairs) => {
                out.push(5);
                put_varint(out, pairs.len() as u64);
                let keys = pairs.as_flattened().iter();
                keys.for_each(|key| out.extend(key.to_le_bytes()));
            }
        }
    }

    fn read(fields: &mut FieldReader<'_>) -> Result<Self, Damage> {
        Ok(match fields.byte()? {
            0 => Self::Coding(Candidate::read(fields)?),
            1 => Self::Prediction(PredictionChoice::read(fields)?),
            2 => {
                let layout = match (fields.byte()?, fields.byte()?) {
                    (0, _) => LayoutChoice::Planes,
                    (1, _) => LayoutChoice::Rows,
                    (2, precision) => LayoutChoice::Buckets(precision),
                    (3, _) => LayoutChoice::Digits,
                    (4, together) => LayoutChoice::Groups(together),
                    _ => return Err(unknown()),
                };
                Self::Integers(layout, read_flag(fields)?)
            }
            3 => Self::Hex(read_flag(fields)?),
            4 => {
                let coder = Coder::from_bytes([fields.byte()?, fields.byte()?]);
                Self::Stream(coder.ok_or_else(unknown)?, read_flag(fields)?)
            }
            5 => {
                let count = fields.size(MAX_ORDER, "the number of moved columns")?;
                let pairs = (0..count).map(|_| Ok([read_u64(fields)?, read_u64(fields)?]));
                Self::Order(pairs.collect::<Result<_, Damage>>()?)
            }
            _ => return Err(unknown()),
        })
    }
}

/// The largest number of moved columns that is read.
const MAX_ORDER: usize = 64;
/// The largest number of key columns that is read.
const MAX_KEYS: usize = 8;

fn read_keys(fields: &mut FieldReader<'_>) -> Result<Vec<u64>, Damage> {
    let count = fields.size(MAX_KEYS, "the number of sort keys")?;
    (0..count).map(|_| read_u64(fields)).collect()
}

impl Candidate {
    /// Separates the places inside the candidates of one column.
    pub(crate) fn position(&self) -> u64 {
        match self {
            Self::Text => 0,
            Self::Dictionary => 1,
            Self::Ranked => 2,
            Self::Sparse => 3,
            Self::Number => 4,
            Self::Time => 5,
            Self::Hex => 6,
            Self::Classes => 7,
            Self::Template(cut) => 8 + (cut.rule as u64) * 2 + u64::from(cut.fine),
            Self::Sorted(keys) => keys.iter().fold(12, |position, &key| mix(position, key)),
            Self::Copied(from) => mix(13, *from),
            Self::Mapped(key) => mix(14, *key),
            Self::Recalled(keys) => keys.iter().fold(15, |position, &key| mix(position, key)),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let tag = match self {
            Self::Sorted(_) => 12,
            Self::Copied(_) => 13,
            Self::Mapped(_) => 14,
            Self::Recalled(_) => 15,
            _ => self.position() as u8,
        };
        out.push(tag);
        match self {
            Self::Sorted(keys) | Self::Recalled(keys) => {
                put_varint(out, keys.len() as u64);
                keys.iter().for_each(|key| out.extend(key.to_le_bytes()));
            }
            Self::Copied(key) | Self::Mapped(key) => out.extend(key.to_le_bytes()),
            _ => {}
        }
    }

    fn read(fields: &mut FieldReader<'_>) -> Result<Self, Damage> {
        Ok(match fields.byte()? {
            0 => Self::Text,
            1 => Self::Dictionary,
            2 => Self::Ranked,
            3 => Self::Sparse,
            4 => Self::Number,
            5 => Self::Time,
            6 => Self::Hex,
            7 => Self::Classes,
            cut @ 8..12 => Self::Template(TemplateCut {
                rule: if cut < 10 {
                    KeyRule::Prefix
                } else {
                    KeyRule::Letters
                },
                fine: cut % 2 == 1,
            }),
            12 => Self::Sorted(read_keys(fields)?),
            13 => Self::Copied(read_u64(fields)?),
            14 => Self::Mapped(read_u64(fields)?),
            15 => Self::Recalled(read_keys(fields)?),
            _ => return Err(unknown()),
        })
    }
}

impl CellChoice {
    fn put(self, out: &mut Vec<u8>) {
        out.extend(self.column.to_le_bytes());
        out.push(u8::from(self.next));
    }

    fn read(fields: &mut FieldReader<'_>) -> Result<Self, Damage> {
        Ok(Self {
            column: read_u64(fields)?,
            next: read_flag(fields)?,
        })
    }
}

impl PredictionChoice {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Zero => out.push(0),
            Self::Delta => out.push(1),
            Self::DeltaOfDelta => out.push(2),
            Self::Other(cell) => {
                out.push(3);
                cell.put(out);
            }
            Self::OtherDelta(column) => {
                out.push(4);
                out.extend(column.to_le_bytes());
            }
            Self::Highest(a, b) | Self::Lowest(a, b) => {
                out.push(if matches!(self, Self::Highest(..)) {
                    5
                } else {
                    6
                });
                a.put(out);
                b.put(out);
            }
            Self::Line(integer) => out.extend([7, u8::from(integer)]),
            Self::Ratio(column, ratio) => {
                out.push(8);
                out.extend(column.to_le_bytes());
                ratio
                    .fields()
                    .iter()
                    .for_each(|&field| put_varint(out, field));
            }
        }
    }

    fn read(fields: &mut FieldReader<'_>) -> Result<Self, Damage> {
        Ok(match fields.byte()? {
            0 => Self::Zero,
            1 => Self::Delta,
            2 => Self::DeltaOfDelta,
            3 => Self::Other(CellChoice::read(fields)?),
            4 => Self::OtherDelta(read_u64(fields)?),
            5 => Self::Highest(CellChoice::read(fields)?, CellChoice::read(fields)?),
            6 => Self::Lowest(CellChoice::read(fields)?, CellChoice::read(fields)?),
            7 => Self::Line(read_flag(fields)?),
            8 => Self::Ratio(read_u64(fields)?, Ratio::read(fields)?),
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_round_trip() {
        let cell = CellChoice {
            column: 7,
            next: true,
        };
        let mut all = vec![
            Choice::Hex(true),
            Choice::Integers(LayoutChoice::Buckets(3), true),
            Choice::Integers(LayoutChoice::Groups(5), false),
            Choice::Stream(Coder::Bz2, true),
            Choice::Stream(Coder::Literals(4), false),
            Choice::Order(vec![[1, 2], [u64::MAX, 3]]),
        ];
        for candidate in [
            Candidate::Text,
            Candidate::Classes,
            Candidate::Template(TemplateCut {
                rule: KeyRule::Letters,
                fine: true,
            }),
            Candidate::Sorted(vec![1, u64::MAX]),
            Candidate::Recalled(vec![2]),
            Candidate::Copied(9),
            Candidate::Mapped(10),
        ] {
            all.push(Choice::Coding(candidate));
        }
        for prediction in [
            PredictionChoice::Zero,
            PredictionChoice::Other(cell),
            PredictionChoice::Lowest(cell, cell),
            PredictionChoice::Line(true),
            PredictionChoice::Ratio(
                8,
                Ratio {
                    numerator: -1,
                    denominator: 500,
                },
            ),
        ] {
            all.push(Choice::Prediction(prediction));
        }
        let mut choices = Choices::default();
        choices.extend(
            all.into_iter()
                .enumerate()
                .map(|(at, choice)| (ChoiceKey(at as u64).child(3), choice)),
        );
        let mut bytes = Vec::new();
        choices.put(&mut bytes);
        let back = Choices::read(&mut FieldReader::new(&bytes)).expect("reads");
        assert_eq!(back.own, choices.own);
        for len in 0..bytes.len() {
            assert!(Choices::read(&mut FieldReader::new(&bytes[..len])).is_err());
        }
    }
}
