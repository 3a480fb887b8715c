//! Decimal numbers as text and as scaled integers, with the exact spelling kept in a few parameters.

use super::{Damage, Reader, Values};
use crate::bytes::{unzigzag, zigzag};

/// More digits never fit an `i64`; whether so many do is checked.
const MOST_DIGITS: usize = 19;
/// Doubles printed with 17 digits are at least so long, unless they end in zeros.
const NOISE_FROM: usize = 16;
/// The most digits of numbers with leading zeros.
const MOST_PADDED: usize = 18;

/// How many decimals a value is written with, the column's most being `decimals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Style {
    /// Always all of them.
    Fixed = 0,
    /// As many as the value needs.
    Natural = 1,
    /// As many as the value needs, at least one.
    Float = 2,
    /// As a list says.
    Listed = 3,
}

/// How a column's numbers are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Numbers are multiples of 10 to the minus this.
    decimals: u8,
    style: Style,
    /// Digits of numbers with leading zeros; 0 for numbers without.
    width: u8,
    /// Whether the text is an `f64` that differs from a short decimal by a few units in the last place.
    print: Print,
}

/// How a program printed its doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Print {
    /// Not doubles: the decimals are all there is.
    Exact = 0,
    /// With 17 digits, as C's `%.17g`.
    Seventeen = 1,
    /// With the fewest digits that read back, as JavaScript and Python.
    Shortest = 2,
}

/// A column as integers.
#[derive(Debug)]
pub struct Scaled {
    /// How they are spelled.
    pub form: Form,
    /// The numbers times 10 to the power of the form's decimals.
    pub numbers: Vec<i64>,
    /// The decimals of each, or its noise, where the form needs them.
    pub listed: Vec<u8>,
}

struct Parsed {
    mantissa: i64,
    decimals: u8,
}

/// Whether the text is a plain decimal number in the one spelling that [`write`] makes.
pub fn is_number(text: &[u8]) -> bool {
    parse(text).is_some()
}

fn parse(text: &[u8]) -> Option<Parsed> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut mantissa = 0i64;
    let mut point = None;
    for (at, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa
                    .checked_mul(10)?
                    .checked_add(i64::from(byte - b'0'))?
            }
            b'.' if point.is_none() && at > 0 => point = Some(at),
            _ => return None,
        }
    }
    let whole = point.unwrap_or(digits.len());
    let decimals = point.map_or(0, |point| digits.len() - point - 1);
    let leading_zero = whole > 1 && digits[0] == b'0';
    if whole == 0
        || leading_zero
        || (point.is_some() && decimals == 0)
        || whole + decimals > MOST_DIGITS
    {
        return None;
    }
    if negative && mantissa == 0 {
        return None;
    }
    Some(Parsed {
        mantissa: if negative { -mantissa } else { mantissa },
        decimals: decimals as u8,
    })
}

/// A number of another column at this column's scale, if it has one.
pub fn at_scale(text: &[u8], form: Form) -> Option<i64> {
    if form.width > 0 {
        return parse_padded(text);
    }
    if form.print != Print::Exact {
        let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        return Some((number * 10f64.powi(i32::from(form.decimals))).round() as i64);
    }
    let parsed = parse(text)?;
    let shift = form.decimals.checked_sub(parsed.decimals)?;
    parsed
        .mantissa
        .checked_mul(10i64.checked_pow(u32::from(shift))?)
}

fn parse_padded(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > MOST_PADDED {
        return None;
    }
    text.iter().try_fold(0i64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Reads a whole column; nothing if one value is no number or is spelled in another way.
pub fn scale(values: &Values) -> Option<Scaled> {
    let long = values
        .iter()
        .any(|value| value.len() > NOISE_FROM && value.contains(&b'.'));
    scale_padded(values)
        .or_else(|| if long { scale_noisy(values) } else { None })
        .or_else(|| scale_plain(values))
}

fn scale_padded(values: &Values) -> Option<Scaled> {
    let width = values.get(0).len();
    let zeros = values
        .iter()
        .any(|value| value.len() > 1 && value[0] == b'0' && value[1] != b'.');
    if !zeros || values.iter().any(|value| value.len() != width) {
        return None;
    }
    Some(Scaled {
        form: Form {
            decimals: 0,
            style: Style::Fixed,
            width: width as u8,
            print: Print::Exact,
        },
        numbers: values.iter().map(parse_padded).collect::<Option<_>>()?,
        listed: Vec::new(),
    })
}

/// The most decimals that a number without its noise may have.
const MOST_QUIET: u8 = 9;

/// `-65.613616999999977` is -65.613617 with a double's noise, and `0.30000000000000004` is 0.3 and
/// one unit in the last place: the short number and the noise apart take far fewer bytes.
fn scale_noisy(values: &Values) -> Option<Scaled> {
    [Print::Seventeen, Print::Shortest]
        .into_iter()
        .find_map(|print| scale_printed(values, print))
}

fn scale_printed(values: &Values, print: Print) -> Option<Scaled> {
    (1..=MOST_QUIET).find_map(|decimals| {
        let (mut numbers, mut listed) = (Vec::new(), Vec::new());
        for value in values.iter() {
            let double = reads(value, print)?;
            let number = (double * 10f64.powi(i32::from(decimals))).round();
            // Up to 2^53 both sides of the division are exact, and so every machine rounds alike.
            if number.abs() >= 9e15 {
                return None;
            }
            let noise = (double.to_bits() as i64)
                .wrapping_sub(quiet(number as i64, decimals).to_bits() as i64);
            listed.push(u8::try_from(zigzag(noise)).ok()?);
            numbers.push(number as i64);
        }
        let form = Form {
            decimals,
            style: Style::Listed,
            width: 0,
            print,
        };
        Some(Scaled {
            form,
            numbers,
            listed,
        })
    })
}

fn quiet(number: i64, decimals: u8) -> f64 {
    number as f64 / 10f64.powi(i32::from(decimals))
}

/// The double that is printed as `text`.
fn reads(text: &[u8], print: Print) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.len() > 26
        || !text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'.'))
    {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    (printed(number, print)? == text).then_some(number)
}

fn printed(number: f64, print: Print) -> Option<String> {
    let scientific = format!("{number:.16e}");
    let (_, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if !(-4..17).contains(&exponent) {
        return None;
    }
    if print == Print::Shortest {
        return Some(number.to_string());
    }
    let decimals = (16 - exponent) as usize;
    let plain = format!("{number:.decimals$}");
    let trimmed = if plain.contains('.') {
        plain.trim_end_matches('0').trim_end_matches('.')
    } else {
        &plain
    };
    Some(trimmed.to_owned())
}

fn scale_plain(values: &Values) -> Option<Scaled> {
    let parsed: Vec<Parsed> = values.iter().map(parse).collect::<Option<_>>()?;
    let decimals = parsed.iter().map(|number| number.decimals).max()?;
    let mut numbers = Vec::with_capacity(parsed.len());
    for number in &parsed {
        let shift = u32::from(decimals - number.decimals);
        numbers.push(number.mantissa.checked_mul(10i64.checked_pow(shift)?)?);
    }
    let mut form = Form {
        decimals,
        style: Style::Fixed,
        width: 0,
        print: Print::Exact,
    };
    let fits = |style| {
        let form = Form { style, ..form };
        parsed
            .iter()
            .zip(&numbers)
            .all(|(parsed, &number)| decimals_of(form, number) == parsed.decimals)
    };
    let mut listed = Vec::new();
    form.style = match [Style::Fixed, Style::Natural, Style::Float]
        .into_iter()
        .find(|&style| fits(style))
    {
        Some(style) => style,
        None => {
            listed = parsed.iter().map(|number| number.decimals).collect();
            Style::Listed
        }
    };
    Some(Scaled {
        form,
        numbers,
        listed,
    })
}

fn decimals_of(form: Form, number: i64) -> u8 {
    let needed = || {
        let (mut number, mut decimals) = (number, form.decimals);
        while decimals > 0 && number % 10 == 0 {
            number /= 10;
            decimals -= 1;
        }
        decimals
    };
    match form.style {
        Style::Fixed | Style::Listed => form.decimals,
        Style::Natural => needed(),
        Style::Float => needed().max(1).min(form.decimals),
    }
}

impl Form {
    /// Whether [`write`] needs each number's decimals.
    pub fn is_listed(self) -> bool {
        self.style == Style::Listed
    }

    /// Appends the parameters.
    pub fn put(self, plan: &mut Vec<u8>) {
        plan.extend([
            self.decimals,
            self.style as u8,
            self.width,
            self.print as u8,
        ]);
    }

    /// Reads the parameters.
    pub fn read(plan: &mut Reader<'_>) -> Result<Self, Damage> {
        let (decimals, style, width, print) =
            (plan.byte()?, plan.byte()?, plan.byte()?, plan.byte()?);
        let style = [Style::Fixed, Style::Natural, Style::Float, Style::Listed]
            .into_iter()
            .find(|&known| known as u8 == style)
            .ok_or_else(|| Damage::new("an unknown style of numbers"))?;
        let print = [Print::Exact, Print::Seventeen, Print::Shortest]
            .into_iter()
            .find(|&known| known as u8 == print)
            .ok_or_else(|| Damage::new("an unknown way of printing"))?;
        if usize::from(decimals) >= MOST_DIGITS || usize::from(width) > MOST_PADDED {
            return Err(Damage::new("impossible numbers"));
        }
        Ok(Self {
            decimals,
            style,
            width,
            print,
        })
    }
}

/// Spells a number; `listed` is its decimals where the form needs them.
pub fn write(form: Form, number: i64, listed: Option<u8>) -> Result<String, Damage> {
    if form.width > 0 {
        return Ok(format!("{number:0width$}", width = usize::from(form.width)));
    }
    if form.print != Print::Exact {
        let noise = unzigzag(u64::from(listed.unwrap_or(0)));
        let double = f64::from_bits(
            (quiet(number, form.decimals).to_bits() as i64).wrapping_add(noise) as u64,
        );
        return printed(double, form.print)
            .ok_or_else(|| Damage::new("a number outside its spelling"));
    }
    let decimals = listed.unwrap_or_else(|| decimals_of(form, number));
    let drop = form
        .decimals
        .checked_sub(decimals)
        .ok_or_else(|| Damage::new("more decimals than the column has"))?;
    let shown = number.unsigned_abs() / 10u64.pow(u32::from(drop));
    let sign = if number < 0 { "-" } else { "" };
    let digits = format!("{shown:0width$}", width = usize::from(decimals) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
    let plain = if decimals == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    };
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[&str]) -> Option<Form> {
        let values: Values = texts.iter().map(|text| text.as_bytes()).collect();
        let scaled = scale(&values)?;
        for (row, text) in texts.iter().enumerate() {
            let written = write(
                scaled.form,
                scaled.numbers[row],
                scaled.listed.get(row).copied(),
            );
            assert_eq!(written.as_deref(), Ok(*text));
        }
        Some(scaled.form)
    }

    #[test]
    fn every_spelling_comes_back() {
        let style = |texts: &[&str]| {
            check(texts).map(|form| (form.decimals, form.style, form.width, form.print))
        };
        assert_eq!(
            style(&["1", "-2", "300", "0"]),
            Some((0, Style::Fixed, 0, Print::Exact))
        );
        assert_eq!(
            style(&["1.50", "-0.25", "0.00"]),
            Some((2, Style::Fixed, 0, Print::Exact))
        );
        assert_eq!(
            style(&["1.5", "2", "-0.25"]),
            Some((2, Style::Natural, 0, Print::Exact))
        );
        assert_eq!(
            style(&["1.5", "2.0", "0.25"]),
            Some((2, Style::Float, 0, Print::Exact))
        );
        assert_eq!(
            style(&["1.5", "2.00", "0.25"]),
            Some((2, Style::Listed, 0, Print::Exact))
        );
        assert_eq!(
            style(&["007", "123", "000"]),
            Some((0, Style::Fixed, 3, Print::Exact))
        );
        let sums = ["0.30000000000000004", "0.1", "2.6999999999999997"];
        assert_eq!(style(&sums), Some((1, Style::Listed, 0, Print::Shortest)));
        assert_eq!(
            style(&["-65.613616999999977", "43.420273000000009", "-65.625"]),
            Some((6, Style::Listed, 0, Print::Seventeen))
        );
    }

    #[test]
    fn what_would_change_is_no_number() {
        for text in [
            "",
            "-",
            "-0",
            "-0.0",
            "+1",
            "1.",
            ".5",
            "1e5",
            "01.5",
            "1 ",
            "1.2.3",
            "9223372036854775808",
            "0.1234567890123456789",
        ] {
            assert!(!is_number(text.as_bytes()), "{text}");
        }
        assert_eq!(check(&["1", "01"]), None);
        assert_eq!(check(&["-01", "-02"]), None);
    }
}
