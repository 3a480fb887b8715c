//! Decimal numbers as text and as scaled integers, with the notation in a few parameters.

use crate::{
    Damage, FormatVersion,
    bytes::{FieldReader, put_varint, unzigzag, zigzag},
    transform::values::ColumnValues,
};

/// More digits never fit an `i64`. Overflow of this many is checked.
const MAX_DIGITS: usize = 19;
/// A double printed with 17 digits is longer than this, unless it ends in zeros.
const MIN_DOUBLE_LEN: usize = 16;
/// The largest number of digits of numbers with leading zeros.
const MAX_PADDED: usize = 18;

/// The number of decimals of a value; the largest of the column is `decimals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum DecimalStyle {
    /// Always all of them.
    Fixed = 0,
    /// As many as the value needs.
    Natural = 1,
    /// As many as the value needs, at least one.
    Float = 2,
    /// As many as a stream lists.
    Listed = 3,
}

/// The notation of a column's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberFormat {
    /// Numbers are multiples of 10 to the minus this.
    decimals: u8,
    style: DecimalStyle,
    /// Digits of numbers with leading zeros; 0 for numbers without.
    width: u8,
    /// Whether the text is a printed `f64` near a short decimal number.
    print: FloatPrint,
    /// The unit in which the distance from the short decimal is listed.
    noise: NoiseUnit,
    /// The numbers in steps of single precision; 0 for numbers that are not.
    steps: u32,
}

/// The unit of the distance of an `f64` from a short decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoiseUnit {
    /// Units in the last place of the number itself.
    LastPlace,
    /// 2 to the minus this: sums and differences of larger numbers keep the last place of those. Only in version 2.
    Binary(u8),
}

/// How a program prints doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum FloatPrint {
    /// Exact decimals.
    Exact = 0,
    /// With 17 digits, as C's `%.17g`.
    Seventeen = 1,
    /// With the fewest digits that read back, as JavaScript and Python.
    Shortest = 2,
}

/// A column as integers.
#[derive(Debug)]
pub(super) struct ScaledNumbers {
    /// Their notation.
    pub format: NumberFormat,
    /// The numbers times 10 to the power of the format's decimals, or in its steps.
    pub numbers: Vec<i64>,
    /// For each number the decimals or the distance from the short decimal, if the format lists them.
    pub listed: Vec<u8>,
}

struct ParsedDecimal {
    mantissa: i64,
    decimals: u8,
}

/// Whether the text is a plain decimal number in the notation of [`write`].
pub(super) fn is_number(text: &[u8]) -> bool {
    parse(text).is_some()
}

fn parse(text: &[u8]) -> Option<ParsedDecimal> {
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
        || whole + decimals > MAX_DIGITS
    {
        return None;
    }
    if negative && mantissa == 0 {
        return None;
    }
    Some(ParsedDecimal {
        mantissa: if negative { -mantissa } else { mantissa },
        decimals: decimals as u8,
    })
}

/// A plain decimal number times 10 to the power of `decimals`, if it has no more.
pub(super) fn at_decimals(text: &[u8], decimals: u8) -> Option<i128> {
    let parsed = parse(text)?;
    let shift = decimals.checked_sub(parsed.decimals)?;
    i128::from(parsed.mantissa).checked_mul(10i128.checked_pow(u32::from(shift))?)
}

/// A number of another column at the scale of this column, if it fits.
pub(super) fn at_scale(text: &[u8], format: NumberFormat) -> Option<i64> {
    let number = scaled_decimal(text, format)?;
    Some(match format.steps {
        0 => number,
        steps => nearest_step(number, steps, format.decimals),
    })
}

fn scaled_decimal(text: &[u8], format: NumberFormat) -> Option<i64> {
    if format.width > 0 {
        return parse_padded(text);
    }
    if format.print != FloatPrint::Exact {
        let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        return Some((number * 10f64.powi(i32::from(format.decimals))).round() as i64);
    }
    let parsed = parse(text)?;
    let shift = format.decimals.checked_sub(parsed.decimals)?;
    parsed
        .mantissa
        .checked_mul(10i64.checked_pow(u32::from(shift))?)
}

fn parse_padded(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > MAX_PADDED {
        return None;
    }
    text.iter().try_fold(0i64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Reads a column; `None` unless all values are numbers in one notation.
pub(super) fn scale(values: &ColumnValues, version: FormatVersion) -> Option<ScaledNumbers> {
    let scaled = scale_decimals(values, version)?;
    Some(match version {
        FormatVersion::V1 => scaled,
        FormatVersion::V2 => in_steps(scaled),
    })
}

fn scale_decimals(values: &ColumnValues, version: FormatVersion) -> Option<ScaledNumbers> {
    let long = values
        .iter()
        .any(|value| value.len() > MIN_DOUBLE_LEN && value.contains(&b'.'));
    scale_padded(values)
        .or_else(|| {
            if long {
                scale_doubles(values, version)
            } else {
                None
            }
        })
        .or_else(|| scale_plain(values))
}

fn scale_padded(values: &ColumnValues) -> Option<ScaledNumbers> {
    let width = values.get(0).len();
    let zeros = values
        .iter()
        .any(|value| value.len() > 1 && value[0] == b'0' && value[1] != b'.');
    if !zeros || values.iter().any(|value| value.len() != width) {
        return None;
    }
    Some(ScaledNumbers {
        format: NumberFormat {
            width: width as u8,
            ..NumberFormat::WHOLE
        },
        numbers: values.iter().map(parse_padded).collect::<Option<_>>()?,
        listed: Vec::new(),
    })
}

/// The largest number of decimals of the short decimal near a double.
const MAX_SHORT: u8 = 9;

/// `-65.613616999999977` is the double nearest to -65.613617, and `0.30000000000000004` is one unit in
/// the last place (ulp) above 0.3: the short decimal and the distance in ulps take far fewer bytes.
fn scale_doubles(values: &ColumnValues, version: FormatVersion) -> Option<ScaledNumbers> {
    [FloatPrint::Seventeen, FloatPrint::Shortest]
        .into_iter()
        .find_map(|print| scale_printed(values, print, version))
}

fn scale_printed(
    values: &ColumnValues,
    print: FloatPrint,
    version: FormatVersion,
) -> Option<ScaledNumbers> {
    let doubles: Vec<f64> = values
        .iter()
        .map(|value| reads(value, print))
        .collect::<Option<_>>()?;
    let unit = match version {
        FormatVersion::V1 => None,
        FormatVersion::V2 => common_unit(&doubles),
    };
    (1..=MAX_SHORT).find_map(|decimals| {
        let numbers = short_decimals(&doubles, decimals)?;
        let noise_in = |noise| {
            let listed = doubles.iter().zip(&numbers).map(|(&double, &number)| {
                let steps = noise_of(double, nearest_double(number, decimals), noise)?;
                u8::try_from(zigzag(steps)).ok()
            });
            let listed = listed.collect::<Option<Vec<u8>>>()?;
            let sum: u64 = listed.iter().map(|&steps| u64::from(steps)).sum();
            Some((sum, noise, listed))
        };
        let tried = [noise_in(NoiseUnit::LastPlace), unit.and_then(noise_in)];
        let (_, noise, listed) = tried.into_iter().flatten().min_by_key(|(sum, ..)| *sum)?;
        let format = NumberFormat {
            decimals,
            style: DecimalStyle::Listed,
            print,
            noise,
            ..NumberFormat::WHOLE
        };
        Some(ScaledNumbers {
            format,
            numbers,
            listed,
        })
    })
}

/// The nearest multiples of 10 to the minus `decimals`. Below 2^53 both operands of the division that undoes it are exact,
/// so that every machine rounds alike.
fn short_decimals(doubles: &[f64], decimals: u8) -> Option<Vec<i64>> {
    let scale = 10f64.powi(i32::from(decimals));
    let numbers = doubles.iter().map(|double| {
        let number = (double * scale).round();
        (number.abs() < 9e15).then_some(number as i64)
    });
    numbers.collect()
}

/// The largest unit of which all numbers are multiples, if it is a power of two below one.
fn common_unit(doubles: &[f64]) -> Option<NoiseUnit> {
    let places = |double: &f64| match double.to_bits() {
        bits if bits << 1 == 0 => 0,
        bits => {
            let exponent = (bits >> MANTISSA_BITS & 0x7ff) as i32 - 1023;
            let zeros = bits.trailing_zeros().min(MANTISSA_BITS) as i32;
            MANTISSA_BITS as i32 - zeros - exponent
        }
    };
    let most = doubles.iter().map(places).max()?;
    (1..=i32::from(MAX_PLACES))
        .contains(&most)
        .then_some(NoiseUnit::Binary(most as u8))
}

/// The bits of an `f64` below its first one.
const MANTISSA_BITS: u32 = 52;

/// The distance of a double from the nearest one to a short decimal.
fn noise_of(double: f64, short: f64, noise: NoiseUnit) -> Option<i64> {
    let steps = match noise {
        NoiseUnit::LastPlace => (double.to_bits() as i64).wrapping_sub(short.to_bits() as i64),
        NoiseUnit::Binary(places) => {
            let unit = 2f64.powi(i32::from(places));
            (double * unit - (short * unit).round_ties_even()) as i64
        }
    };
    let again = with_noise(short, steps, noise);
    (again.to_bits() == double.to_bits()).then_some(steps)
}

/// The double at a distance from the nearest one to a short decimal.
fn with_noise(short: f64, steps: i64, noise: NoiseUnit) -> f64 {
    match noise {
        NoiseUnit::LastPlace => f64::from_bits((short.to_bits() as i64).wrapping_add(steps) as u64),
        NoiseUnit::Binary(places) => {
            let unit = 2f64.powi(i32::from(places));
            ((short * unit).round_ties_even() + steps as f64) / unit
        }
    }
}

/// Shorter columns do not repay the parameter.
const MIN_IN_STEPS: usize = 16;

/// Single precision has about seven digits: `63.990002` is the nearest such number to 63.99, and -65.613617 one of those
/// that are multiples of 2^-17. Counted in hundredths or in those multiples, numbers are far smaller.
fn in_steps(scaled: ScaledNumbers) -> ScaledNumbers {
    let ScaledNumbers {
        format, numbers, ..
    } = &scaled;
    let decimals = format.decimals;
    if numbers.len() < MIN_IN_STEPS || format.width > 0 || decimals == 0 || decimals > MAX_SHORT {
        return scaled;
    }
    let most = 10u32.pow(u32::from(decimals)) / 2;
    let tens = (0..u32::from(decimals)).map(|zeros| 10u32.pow(zeros));
    let twos = (1..u32::BITS - 1).map(|bits| 1u32 << bits);
    let mut candidates: Vec<u32> = tens.chain(twos).filter(|&steps| steps <= most).collect();
    candidates.sort_unstable();
    let in_these = |&steps: &u32| {
        let counted = numbers.iter().map(|&number| {
            let step = nearest_step(number, steps, decimals);
            (decimal_at(step, steps, decimals) == Some(number)).then_some(step)
        });
        Some((steps, counted.collect::<Option<Vec<i64>>>()?))
    };
    let Some((steps, numbers)) = candidates.iter().find_map(in_these) else {
        return scaled;
    };
    ScaledNumbers {
        format: NumberFormat { steps, ..*format },
        numbers,
        ..scaled
    }
}

/// The step next to a number.
fn nearest_step(number: i64, steps: u32, decimals: u8) -> i64 {
    (number as f64 * f64::from(steps) / 10f64.powi(i32::from(decimals))).round_ties_even() as i64
}

/// The decimal number of a step in single precision.
fn decimal_at(step: i64, steps: u32, decimals: u8) -> Option<i64> {
    let single = (step as f64 / f64::from(steps)) as f32;
    let number = (f64::from(single) * 10f64.powi(i32::from(decimals))).round_ties_even();
    (number.abs() < 9e15).then_some(number as i64)
}

fn nearest_double(number: i64, decimals: u8) -> f64 {
    number as f64 / 10f64.powi(i32::from(decimals))
}

/// The double whose print is `text`.
fn reads(text: &[u8], print: FloatPrint) -> Option<f64> {
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

fn printed(number: f64, print: FloatPrint) -> Option<String> {
    let scientific = format!("{number:.16e}");
    let (_, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if !(-4..17).contains(&exponent) {
        return None;
    }
    if print == FloatPrint::Shortest {
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

fn scale_plain(values: &ColumnValues) -> Option<ScaledNumbers> {
    let parsed: Vec<ParsedDecimal> = values.iter().map(parse).collect::<Option<_>>()?;
    let decimals = parsed.iter().map(|number| number.decimals).max()?;
    let mut numbers = Vec::with_capacity(parsed.len());
    for number in &parsed {
        let shift = u32::from(decimals - number.decimals);
        numbers.push(number.mantissa.checked_mul(10i64.checked_pow(shift)?)?);
    }
    let mut format = NumberFormat {
        decimals,
        ..NumberFormat::WHOLE
    };
    let fits = |style| {
        let format = NumberFormat { style, ..format };
        parsed
            .iter()
            .zip(&numbers)
            .all(|(parsed, &number)| decimals_of(format, number) == parsed.decimals)
    };
    let mut listed = Vec::new();
    format.style = match [
        DecimalStyle::Fixed,
        DecimalStyle::Natural,
        DecimalStyle::Float,
    ]
    .into_iter()
    .find(|&style| fits(style))
    {
        Some(style) => style,
        None => {
            listed = parsed.iter().map(|number| number.decimals).collect();
            DecimalStyle::Listed
        }
    };
    Some(ScaledNumbers {
        format,
        numbers,
        listed,
    })
}

fn decimals_of(format: NumberFormat, number: i64) -> u8 {
    let needed = || {
        let (mut number, mut decimals) = (number, format.decimals);
        while decimals > 0 && number % 10 == 0 {
            number /= 10;
            decimals -= 1;
        }
        decimals
    };
    match format.style {
        DecimalStyle::Fixed | DecimalStyle::Listed => format.decimals,
        DecimalStyle::Natural => needed(),
        DecimalStyle::Float => needed().max(1).min(format.decimals),
    }
}

/// Flags beside how doubles are printed, in version 2.
const HAS_UNIT: u8 = 4;
const HAS_STEPS: u8 = 8;
/// The most binary places of a unit: two to the power of them is a factor of doubles.
const MAX_PLACES: u8 = 62;

impl NumberFormat {
    /// Integers without leading zeros.
    const WHOLE: Self = Self {
        decimals: 0,
        style: DecimalStyle::Fixed,
        width: 0,
        print: FloatPrint::Exact,
        noise: NoiseUnit::LastPlace,
        steps: 0,
    };

    /// The decimals of the numbers at most.
    pub(super) fn decimals(self) -> u8 {
        self.decimals
    }

    /// Whether [`write`] needs each number's decimals.
    pub(super) fn is_listed(self) -> bool {
        self.style == DecimalStyle::Listed
    }

    /// Appends the parameters. In version 2 exact numbers without leading zeros take one byte.
    pub(super) fn put(self, version: FormatVersion, plan: &mut Vec<u8>) {
        let simple = self.width == 0 && self.print == FloatPrint::Exact && self.steps == 0;
        match version {
            FormatVersion::V2 if simple => plan.push((self.style as u8) << 5 | self.decimals),
            FormatVersion::V2 => self.put_all(plan),
            FormatVersion::V1 => plan.extend([
                self.decimals,
                self.style as u8,
                self.width,
                self.print as u8,
            ]),
        }
    }

    fn put_all(self, plan: &mut Vec<u8>) {
        let unit = match self.noise {
            NoiseUnit::LastPlace => None,
            NoiseUnit::Binary(places) => Some(places),
        };
        let flag = |flag, is_set| if is_set { flag } else { 0 };
        plan.extend([
            0x80 | (self.style as u8) << 5 | self.decimals,
            self.width,
            self.print as u8 | flag(HAS_UNIT, unit.is_some()) | flag(HAS_STEPS, self.steps > 0),
        ]);
        plan.extend(unit);
        if self.steps > 0 {
            put_varint(plan, self.steps.into());
        }
    }

    /// Reads the parameters.
    pub(super) fn read(version: FormatVersion, plan: &mut FieldReader<'_>) -> Result<Self, Damage> {
        let (decimals, style, width, print) = match (version, plan.byte()?) {
            (FormatVersion::V1, decimals) => (decimals, plan.byte()?, plan.byte()?, plan.byte()?),
            (FormatVersion::V2, byte @ ..0x80) => (byte & 0x1f, byte >> 5, 0, 0),
            (FormatVersion::V2, byte) => (byte & 0x1f, byte >> 5 & 3, plan.byte()?, plan.byte()?),
        };
        let style = [
            DecimalStyle::Fixed,
            DecimalStyle::Natural,
            DecimalStyle::Float,
            DecimalStyle::Listed,
        ]
        .into_iter()
        .find(|&known| known as u8 == style)
        .ok_or_else(|| Damage::new("an unknown decimal style"))?;
        let (print, flags) = match version {
            FormatVersion::V1 => (print, 0),
            FormatVersion::V2 => (print & 3, print & !3),
        };
        let print = [
            FloatPrint::Exact,
            FloatPrint::Seventeen,
            FloatPrint::Shortest,
        ]
        .into_iter()
        .find(|&known| known as u8 == print)
        .ok_or_else(|| Damage::new("an unknown float notation"))?;
        let noise = match flags & HAS_UNIT {
            0 => NoiseUnit::LastPlace,
            _ => NoiseUnit::Binary(plan.byte()?),
        };
        let steps = match flags & HAS_STEPS {
            0 => 0,
            _ => plan.size(u32::MAX as usize, "the steps of numbers")? as u32,
        };
        if flags & !(HAS_UNIT | HAS_STEPS) > 0 {
            return Err(Damage::new("an unknown number format"));
        }
        let beyond = matches!(noise, NoiseUnit::Binary(places) if places > MAX_PLACES);
        if usize::from(decimals) >= MAX_DIGITS || usize::from(width) > MAX_PADDED || beyond {
            return Err(Damage::new("a number format out of range"));
        }
        Ok(Self {
            decimals,
            style,
            width,
            print,
            noise,
            steps,
        })
    }
}

/// Appends a number; `listed` are its decimals or ulps, if the format lists them.
pub(super) fn write(
    format: NumberFormat,
    number: i64,
    listed: Option<u8>,
    out: &mut Vec<u8>,
) -> Result<(), Damage> {
    let number = match format.steps {
        0 => number,
        steps => decimal_at(number, steps, format.decimals)
            .ok_or_else(|| Damage::new("a number outside its notation"))?,
    };
    if format.print != FloatPrint::Exact {
        let steps = unzigzag(u64::from(listed.unwrap_or(0)));
        let short = nearest_double(number, format.decimals);
        let double = with_noise(short, steps, format.noise);
        let text = printed(double, format.print)
            .ok_or_else(|| Damage::new("a number outside its notation"))?;
        out.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    if format.width > 0 {
        let width = usize::from(format.width);
        if number < 0 {
            out.push(b'-');
        }
        // A sign takes one of the places.
        put_digits(
            number.unsigned_abs(),
            width - usize::from(number < 0),
            0,
            out,
        );
        return Ok(());
    }
    let decimals = listed.unwrap_or_else(|| decimals_of(format, number));
    let drop = format
        .decimals
        .checked_sub(decimals)
        .ok_or_else(|| Damage::new("more decimals than the column has"))?;
    let shown = number.unsigned_abs() / 10u64.pow(u32::from(drop));
    if number < 0 {
        out.push(b'-');
    }
    let decimals = usize::from(decimals);
    put_digits(shown, decimals + 1, decimals, out);
    Ok(())
}

/// Appends at least `least` digits, with a point before the last `decimals`.
fn put_digits(mut number: u64, least: usize, decimals: usize, out: &mut Vec<u8>) {
    const LONGEST: usize = 24;
    let mut text = [b'0'; LONGEST];
    let mut at = LONGEST;
    let mut digits = 0;
    while number > 0 || digits < least {
        if digits == decimals && decimals > 0 {
            at -= 1;
            text[at] = b'.';
        }
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        digits += 1;
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[&str]) -> Option<NumberFormat> {
        let values: ColumnValues = texts.iter().map(|text| text.as_bytes()).collect();
        let scaled = scale(&values, FormatVersion::V2)?;
        for (row, text) in texts.iter().enumerate() {
            let mut written = Vec::new();
            let listed = scaled.listed.get(row).copied();
            write(scaled.format, scaled.numbers[row], listed, &mut written).expect("writes");
            assert_eq!(written, text.as_bytes());
        }
        Some(scaled.format)
    }

    #[test]
    fn every_notation_round_trips() {
        let style = |texts: &[&str]| {
            check(texts).map(|format| (format.decimals, format.style, format.width, format.print))
        };
        assert_eq!(
            style(&["1", "-2", "300", "0"]),
            Some((0, DecimalStyle::Fixed, 0, FloatPrint::Exact))
        );
        assert_eq!(
            style(&["1.50", "-0.25", "0.00"]),
            Some((2, DecimalStyle::Fixed, 0, FloatPrint::Exact))
        );
        assert_eq!(
            style(&["1.5", "2", "-0.25"]),
            Some((2, DecimalStyle::Natural, 0, FloatPrint::Exact))
        );
        assert_eq!(
            style(&["1.5", "2.0", "0.25"]),
            Some((2, DecimalStyle::Float, 0, FloatPrint::Exact))
        );
        assert_eq!(
            style(&["1.5", "2.00", "0.25"]),
            Some((2, DecimalStyle::Listed, 0, FloatPrint::Exact))
        );
        assert_eq!(
            style(&["007", "123", "000"]),
            Some((0, DecimalStyle::Fixed, 3, FloatPrint::Exact))
        );
        let sums = ["0.30000000000000004", "0.1", "2.6999999999999997"];
        assert_eq!(
            style(&sums),
            Some((1, DecimalStyle::Listed, 0, FloatPrint::Shortest))
        );
        assert_eq!(
            style(&["-65.613616999999977", "43.420273000000009", "-65.625"]),
            Some((6, DecimalStyle::Listed, 0, FloatPrint::Seventeen))
        );
    }

    #[test]
    fn numbers_of_single_precision_are_counted_in_its_steps() {
        let texts =
            |number: &dyn Fn(u32) -> String| -> Vec<String> { (0..40).map(number).collect() };
        let steps = |texts: Vec<String>| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            check(&texts).map(|format| format.steps)
        };
        let price = |n: u32| format!("{:.6}", 63.0 + f64::from(n) * 0.123_457);
        assert_eq!(
            steps(texts(&|n| format!("{:.6}", (6399 + n * 7) as f32 / 100.0))),
            Some(100)
        );
        assert_eq!(
            steps(texts(&|n| format!("{:.6}", 64.0 + n as f32 / 131_072.0))),
            Some(131_072)
        );
        assert_eq!(steps(texts(&price)), Some(0));
        assert_eq!(steps(texts(&|n| (n * 17).to_string())), Some(0));
    }

    #[test]
    fn noise_of_larger_numbers_is_listed_in_their_last_place() {
        let sums = (0..40).map(|n| (f64::from(n) * 1.37 - 20.0 + 400.0) - 400.0);
        let texts: Vec<String> = sums.map(|sum| sum.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let noise = check(&texts).map(|format| format.noise);
        assert_eq!(noise, Some(NoiseUnit::Binary(44)));
        let values: ColumnValues = texts.iter().map(|text| text.as_bytes()).collect();
        let listed = scale(&values, FormatVersion::V2).map(|scaled| scaled.listed);
        assert!(listed.is_some_and(|listed| listed.iter().all(|&steps| steps <= 2)));
    }

    #[test]
    fn text_that_would_change_is_no_number() {
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
