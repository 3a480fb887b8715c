//! Byte sizes as Kubernetes writes them: `400Ki`, `1Mi`, `1.5Gi`, `500k`, `1e5`, `1048576`. Its thousandths and less (`4m`)
//! are refused: a byte has no parts.
//! A [`ByteSize`] keeps what was written, so that it is written as it was read. Reading one never fails, since one
//! bad object must not stop the reading of all: [`ByteSize::bytes`] reports a wrong one.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The pattern of a byte size.
pub(crate) const PATTERN: &str = r"^\+?([0-9]{1,15}(\.[0-9]{0,9})?|\.[0-9]{1,9})(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE][+-]?[0-9]{1,2})?$";

/// A number of bytes, kept as it was written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ByteSize {
    text: String,
    /// Whether it was written as a bare number, as which it is written again.
    number: bool,
}

/// A text that is not a byte size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a byte size: {help}")]
pub struct NotAByteSize {
    /// What was written.
    pub text: String,
    /// What to write instead.
    pub help: String,
}

impl ByteSize {
    /// The size with exactly this text, right or wrong; [`ByteSize::bytes`] tells which.
    pub fn written(text: &str) -> Self {
        ByteSize {
            text: text.to_owned(),
            number: false,
        }
    }

    /// The size of this many bytes, written as a bare number.
    fn from_bytes(bytes: u64) -> Self {
        ByteSize {
            text: bytes.to_string(),
            number: true,
        }
    }

    /// The number of bytes, a fraction of a byte rounded up as Kubernetes does.
    pub fn bytes(&self) -> Result<u64, NotAByteSize> {
        parse(&self.text).map_err(|advice| NotAByteSize {
            text: self.text.clone(),
            help: advice.help(None),
        })
    }

    /// The number of bytes, in this range.
    ///
    /// # Errors
    /// What to write instead, which is in the range.
    pub fn bytes_within(&self, range: &RangeInclusive<u64>) -> Result<u64, String> {
        match parse(&self.text) {
            Ok(bytes) if range.contains(&bytes) => Ok(bytes),
            Ok(_) => Err(forms_within(range)),
            Err(advice) => Err(advice.help(Some(range))),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteSize({})", self.text)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.text.parse::<u64>() {
            Ok(number) if self.number => serializer.serialize_u64(number),
            _ => serializer.serialize_str(&self.text),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte size such as 400Ki, 1Mi or 1048576")
            }
            fn visit_str<E>(self, text: &str) -> Result<ByteSize, E> {
                Ok(ByteSize::written(text))
            }
            fn visit_u64<E>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize::from_bytes(bytes))
            }
            fn visit_i64<E>(self, bytes: i64) -> Result<ByteSize, E> {
                Ok(ByteSize::written(&bytes.to_string()))
            }
            fn visit_f64<E>(self, bytes: f64) -> Result<ByteSize, E> {
                // YAML's 1e5 without quotes.
                Ok(match whole(bytes) {
                    Some(bytes) => ByteSize::from_bytes(bytes),
                    None => ByteSize::written(&bytes.to_string()),
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The whole number that a number with a point or an exponent is, as which Kubernetes reads it.
pub(crate) fn whole(number: f64) -> Option<u64> {
    const MOST: f64 = (1u64 << 53) as f64;
    let is_whole = number.fract() == 0.0 && (0.0..=MOST).contains(&number);
    is_whole.then_some(number as u64)
}

/// The bytes that each suffix stands for.
const UNITS: [(&str, u64); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];
/// Digits behind the point; Kubernetes keeps no more either.
const FRACTION_DIGITS: usize = 9;
pub(crate) const FORM: &str =
    "write a number and a unit, such as 400Ki, 1Mi, 1.5Gi, 500k, 0.1M, 1e5 or 1048576";
/// The same forms one by one: of each range some are in it.
const EXAMPLES: [&str; 7] = ["400Ki", "1Mi", "1.5Gi", "500k", "0.1M", "1e5", "1048576"];
const TOO_LARGE: &str = "this is more than any file system holds; use a smaller number";

/// What to write instead of a wrong text.
#[derive(Debug, PartialEq)]
struct Advice {
    /// Sizes that may be meant, each with what its unit is, where there are several.
    meant: Vec<(String, &'static str)>,
    /// What to write where none of them fits.
    otherwise: &'static str,
    /// What else there is to say.
    remark: &'static str,
}

impl From<&'static str> for Advice {
    fn from(otherwise: &'static str) -> Self {
        Self {
            meant: Vec::new(),
            otherwise,
            remark: "",
        }
    }
}

impl Advice {
    /// In words; with a range only what is in it.
    fn help(&self, range: Option<&RangeInclusive<u64>>) -> String {
        let fits = |text: &str| match (parse(text), range) {
            (Ok(bytes), Some(range)) => range.contains(&bytes),
            (parsed, None) => parsed.is_ok(),
            (Err(_), Some(_)) => false,
        };
        let fitting = self.meant.iter().filter(|(text, _)| fits(text));
        let fitting: Vec<String> = fitting
            .map(|(text, unit)| format!("{text}{unit}"))
            .collect();
        let remark = self.remark;
        match (fitting.is_empty(), range) {
            (false, _) => format!("write {}{remark}", fitting.join(" or ")),
            (true, Some(range)) => format!("{}{remark}", forms_within(range)),
            (true, None) => format!("{}{remark}", self.otherwise),
        }
    }
}

/// The forms of a size, with examples in this range.
pub(crate) fn forms_within(range: &RangeInclusive<u64>) -> String {
    let fits = |form: &&str| parse(form).is_ok_and(|bytes| range.contains(&bytes));
    let forms: Vec<&str> = EXAMPLES.into_iter().filter(fits).collect();
    let (least, most) = (shown(*range.start()), shown(*range.end()));
    format!(
        "write a number and a unit from {least} to {most}, such as {}",
        forms.join(", ")
    )
}

/// A number of bytes with the largest unit that leaves it whole.
fn shown(bytes: u64) -> String {
    let units = UNITS.iter().rev().filter(|(name, _)| name.ends_with('i'));
    let fitting = units.filter(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match fitting.max_by_key(|(_, unit)| *unit) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// The bytes that a text stands for.
fn parse(text: &str) -> Result<u64, Advice> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let known = UNITS.iter().find(|(name, _)| *name == suffix);
    let (unit, exponent) = match (known, exponent(suffix)) {
        (Some((_, unit)), _) => (*unit, 0),
        (None, Some(exponent)) => (1, exponent),
        (None, None) if suffix.is_empty() => (1, 0),
        (None, None) if suffix == "m" => return Err(thousandths(number)),
        (None, None) => return Err(close_suffix(number, suffix)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fits = whole.len() <= 15 && fraction.len() <= FRACTION_DIGITS;
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    if !fits || !has_digits || fraction.contains('.') {
        return Err(FORM.into());
    }
    let billionths = format!("{whole}{fraction:0<FRACTION_DIGITS$}");
    let billionths: u128 = billionths.parse().map_err(|_| FORM)?;
    let bytes = scale(billionths, u128::from(unit), exponent).ok_or(TOO_LARGE)?;
    match i64::try_from(bytes) {
        Ok(bytes) => Ok(bytes.unsigned_abs()),
        Err(_) => Err(TOO_LARGE.into()),
    }
}

/// The exponent of ten in a suffix such as `e5`.
fn exponent(suffix: &str) -> Option<i32> {
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let bare = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    let is_number = (1..=2).contains(&bare.len()) && bare.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Billionths of a unit, times a power of ten, in bytes, rounded up; `None` where that is far too much.
fn scale(billionths: u128, unit: u128, exponent: i32) -> Option<u128> {
    if billionths == 0 {
        return Some(0);
    }
    let places = exponent - FRACTION_DIGITS as i32;
    let power = 10u128.checked_pow(places.unsigned_abs());
    let product = billionths.checked_mul(unit)?;
    match (places < 0, power) {
        (true, Some(power)) => Some(product.div_ceil(power)),
        // Less than a byte.
        (true, None) => Some(1),
        (false, power) => product.checked_mul(power?),
    }
}

/// What to write instead of a number of thousandths, which may have been meant as millions.
fn thousandths(number: &str) -> Advice {
    let mut advice = close_suffix(number, "m");
    if let Ok(bytes @ 1000..) = number.parse::<u64>().map(|number| number.div_ceil(1000)) {
        advice.meant = vec![(bytes.to_string(), "")];
    }
    advice.remark = "; m stands for thousandths";
    advice
}

/// What to write instead of a suffix that is nearly right.
fn close_suffix(number: &str, suffix: &str) -> Advice {
    let right = match suffix.to_ascii_lowercase().trim() {
        "ki" | "kib" => "Ki",
        "mi" | "mib" => "Mi",
        "gi" | "gib" => "Gi",
        "ti" | "tib" => "Ti",
        "k" | "kb" => "k",
        "m" | "mb" => "M",
        "g" | "gb" => "G",
        "t" | "tb" => "T",
        "b" | "byte" | "bytes" => "",
        _ => return Advice::from(FORM),
    };
    let meant = match right.len() {
        1 => {
            let binary = format!("{number}{}i", right.to_ascii_uppercase());
            let decimal = format!("{number}{right}");
            vec![
                (decimal, " (powers of 1000)"),
                (binary, " (powers of 1024)"),
            ]
        }
        _ => vec![(format!("{number}{right}"), "")],
    };
    Advice {
        meant,
        ..Advice::from(FORM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, NotAByteSize> {
        ByteSize::written(text).bytes()
    }

    #[test]
    fn sizes_mean_what_kubernetes_means() {
        for (text, expected) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("400Ki", 409_600),
            ("1Mi", 1 << 20),
            ("4Mi", 4 << 20),
            ("1.5Gi", 3 << 29),
            ("0.5Ki", 512),
            ("500k", 500_000),
            ("2M", 2_000_000),
            ("1G", 1_000_000_000),
            ("100000", 100_000),
            ("100k", 100_000),
            ("0.1M", 100_000),
            ("1e5", 100_000),
            ("1E5", 100_000),
            ("1.5e+3", 1500),
            ("2500e-2", 25),
            (".5Mi", 1 << 19),
            ("1.Mi", 1 << 20),
            ("+1Mi", 1 << 20),
            ("1E", 1_000_000_000_000_000_000),
            ("1Ei", 1 << 60),
            ("0e99", 0),
            // Rounded up, as Quantity.Value() does.
            ("0.1", 1),
            ("1e-3", 1),
            ("1e-99", 1),
            ("1.0001Ki", 1025),
            ("1.123456789k", 1124),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_wrong_size_is_named_with_what_to_write_instead() {
        for (text, remedy) in [
            ("400ki", "write 400Ki"),
            ("400KB", "write 400k (powers of 1000) or 400Ki"),
            ("4m", "write 4M (powers of 1000) or 4Mi"),
            ("1 MiB", "write 1Mi"),
            ("12 bytes", "write 12"),
            ("", "write a number and a unit"),
            ("Ki", "write a number and a unit"),
            ("-1", "write a number and a unit"),
            ("1.2.3Mi", "write a number and a unit"),
            (".", "write a number and a unit"),
            (".Mi", "write a number and a unit"),
            ("+", "write a number and a unit"),
            ("++1", "write a number and a unit"),
            ("1e", "write a number and a unit"),
            ("1e5Ki", "write a number and a unit"),
            ("1e100", "1e5"),
            ("1.0123456789", "write a number and a unit"),
            ("1e20", "use a smaller number"),
            ("1e99", "use a smaller number"),
            ("9Ei", "use a smaller number"),
            ("9999999Pi", "use a smaller number"),
            ("9999999999999999", "write a number and a unit"),
            ("١Mi", "write a number and a unit"),
        ] {
            let message = bytes(text).expect_err(text).to_string();
            assert!(message.contains(&format!("{text:?}")), "{message}");
            assert!(message.contains(remedy), "{message}");
        }
    }

    #[test]
    fn what_is_advised_is_in_the_fields_range() {
        let range = (64 << 10)..=(64 << 20);
        for (text, advised) in [
            ("64kb", "write 64Ki (powers of 1024)"),
            ("64ki", "write 64Ki"),
            (
                "70kb",
                "write 70k (powers of 1000) or 70Ki (powers of 1024)",
            ),
            (
                "1500m",
                "write a number and a unit from 64Ki to 64Mi, such as 400Ki, 1Mi, 500k, 0.1M, 1e5, 1048576; m stands for thousandths",
            ),
            ("70000000m", "write 70000; m stands for thousandths"),
            (
                "4m",
                "write 4M (powers of 1000) or 4Mi (powers of 1024); m stands for thousandths",
            ),
            (
                "2gb",
                "write a number and a unit from 64Ki to 64Mi, such as 400Ki, 1Mi, 500k, 0.1M, 1e5, 1048576",
            ),
            (
                "-1",
                "write a number and a unit from 64Ki to 64Mi, such as 400Ki, 1Mi, 500k, 0.1M, 1e5, 1048576",
            ),
            (
                "1Gi",
                "write a number and a unit from 64Ki to 64Mi, such as 400Ki, 1Mi, 500k, 0.1M, 1e5, 1048576",
            ),
        ] {
            let said = ByteSize::written(text).bytes_within(&range);
            assert_eq!(
                said.as_ref().map_err(String::as_str),
                Err(advised),
                "{text}"
            );
        }
        assert_eq!(ByteSize::written("4Mi").bytes_within(&range), Ok(4 << 20));
        assert_eq!(shown(1023 << 10), "1023Ki");
    }

    #[test]
    fn the_pattern_of_the_schema_agrees_with_the_parser() {
        let pattern = regex_lite::Regex::new(PATTERN).expect("a valid pattern");
        for text in [
            "0",
            "12",
            "400Ki",
            "1.5Gi",
            "500k",
            "1P",
            "",
            "Ki",
            "-1",
            "1.",
            ".5",
            ".",
            "+1",
            "+",
            "1e3",
            "1e",
            "1E",
            "1E-3",
            "1e+100",
            "1e5Ki",
            "1Ei",
            "4m",
            "1ki",
            "1KB",
            "1.1234567",
            "1.0123456789",
            "1234567890123456",
        ] {
            assert_eq!(pattern.is_match(text), bytes(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_size_goes_out_as_it_came_in() {
        for json in [
            r#""400Ki""#,
            "409600",
            r#""409600""#,
            r#""1e5""#,
            r#""nonsense""#,
        ] {
            let size: ByteSize = serde_json::from_str(json).expect(json);
            assert_eq!(serde_json::to_string(&size).expect(json), json);
        }
        // A number of YAML, which Kubernetes writes as a whole one.
        let size: ByteSize = serde_json::from_str("1e5").expect("a number");
        assert_eq!(serde_json::to_string(&size).expect("JSON"), "100000");
        let size: ByteSize = serde_json::from_str("0.5").expect("a number");
        assert_eq!(size.bytes(), Ok(1));
    }
}
