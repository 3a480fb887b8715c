//! Dates and times in one notation, as a count of its smallest unit.

use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    number::{self, OtherReading},
};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    transform::{streams::StreamSource, values::ColumnValues},
};

/// One field of a notation. The format has a byte for each; a literal is `'` and the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeField {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// The fraction of a second with this many digits.
    Fraction(u8),
    MonthName,
    Weekday,
    Literal(u8),
}

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const WEEKDAYS: [&[u8]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];

/// The longest value that may be a time, in bytes.
const MAX_LEN: usize = 48;

/// Whether the first value may be a date or a time.
pub(super) fn fits(values: &ColumnValues) -> bool {
    !notations(values.get(0)).is_empty()
}

/// Whether all values are dates or times of one notation.
pub(super) fn fits_all(values: &ColumnValues) -> bool {
    let notations = notations(values.get(0));
    notations
        .iter()
        .any(|fields| values.iter().all(|value| exact(value, fields).is_some()))
}

/// The notations of a sample: month before day, and day before month.
fn notations(sample: &[u8]) -> Vec<Vec<TimeField>> {
    let orders: [&[TimeField]; 2] = [
        &[TimeField::Month, TimeField::Day],
        &[TimeField::Day, TimeField::Month],
    ];
    let mut found: Vec<Vec<TimeField>> = Vec::new();
    for order in orders {
        found.extend(notation(sample, order).filter(|fields| !found.contains(fields)));
    }
    found
}

fn notation(sample: &[u8], date_order: &[TimeField]) -> Option<Vec<TimeField>> {
    if sample.len() > MAX_LEN {
        return None;
    }
    let mut dates = date_order.iter().copied();
    let mut times = [TimeField::Hour, TimeField::Minute, TimeField::Second].into_iter();
    let mut fields = Vec::new();
    let mut at = 0;
    let (mut year, mut named, mut seconds) = (false, false, false);
    while at < sample.len() {
        let rest = &sample[at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let after_offset =
            at > 0 && matches!(sample[at - 1], b'+') && fields.contains(&TimeField::Minute);
        let name = rest.get(..3).unwrap_or_default();
        if digits == 4 && !year && !after_offset {
            year = true;
            fields.push(TimeField::Year);
        } else if digits == 2 && !after_offset && !(seconds && year) {
            // Two digits before a colon are an hour, not a day.
            let in_time = fields.contains(&TimeField::Hour) || rest.get(2) == Some(&b':');
            let date = if in_time {
                None
            } else {
                dates.find(|field| !named || *field == TimeField::Day)
            };
            let next = match date {
                Some(field) => field,
                None => times.next()?,
            };
            seconds |= next == TimeField::Second;
            fields.push(next);
        } else if digits > 0
            && digits <= 9
            && seconds
            && at > 0
            && matches!(sample[at - 1], b'.' | b',')
        {
            fields.push(TimeField::Fraction(digits as u8));
        } else if digits > 0 {
            fields.extend(rest[..digits].iter().map(|&byte| TimeField::Literal(byte)));
        } else if !named && MONTHS.contains(&name) {
            named = true;
            fields.push(TimeField::MonthName);
        } else if WEEKDAYS.contains(&name) && !fields.contains(&TimeField::Weekday) {
            fields.push(TimeField::Weekday);
        } else {
            fields.push(TimeField::Literal(rest[0]));
        }
        at += match fields.last() {
            Some(TimeField::MonthName | TimeField::Weekday) => 3,
            _ => digits.max(1),
        };
    }
    let full_date =
        year && fields.contains(&TimeField::Day) && (named || fields.contains(&TimeField::Month));
    let no_date =
        !year && !fields.contains(&TimeField::Day) && !named && !fields.contains(&TimeField::Month);
    let time = fields.contains(&TimeField::Minute);
    let weekday = fields.contains(&TimeField::Weekday);
    (full_date || (no_date && time && !weekday)).then_some(fields)
}

/// The number of smallest units in a day.
fn per_day(fields: &[TimeField]) -> i64 {
    let fraction = fields.iter().find_map(|field| match field {
        TimeField::Fraction(digits) => Some(10i64.pow(u32::from(*digits))),
        _ => None,
    });
    match fraction {
        Some(parts) => 86_400 * parts,
        None if fields.contains(&TimeField::Second) => 86_400,
        None if fields.contains(&TimeField::Minute) => 1440,
        None if fields.contains(&TimeField::Hour) => 24,
        None => 1,
    }
}

#[derive(Default)]
struct TimeParts {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    fraction: i64,
}

/// Reads a value in a notation. The caller compares the result of [`write`].
fn read(text: &[u8], fields: &[TimeField]) -> Option<i64> {
    let mut parsed = TimeParts {
        year: 1970,
        month: 1,
        day: 1,
        ..TimeParts::default()
    };
    let mut rest = text;
    let number = |digits: usize, rest: &mut &[u8]| {
        let head = rest.get(..digits)?;
        *rest = &rest[digits..];
        head.iter().try_fold(0i64, |number, byte| {
            byte.is_ascii_digit()
                .then(|| number * 10 + i64::from(byte - b'0'))
        })
    };
    for field in fields {
        match field {
            TimeField::Year => parsed.year = number(4, &mut rest)?,
            TimeField::Month => parsed.month = number(2, &mut rest)?,
            TimeField::Day => parsed.day = number(2, &mut rest)?,
            TimeField::Hour => parsed.hour = number(2, &mut rest)?,
            TimeField::Minute => parsed.minute = number(2, &mut rest)?,
            TimeField::Second => parsed.second = number(2, &mut rest)?,
            TimeField::Fraction(digits) => {
                parsed.fraction = number(usize::from(*digits), &mut rest)?
            }
            TimeField::MonthName => {
                parsed.month = MONTHS.iter().position(|month| rest.starts_with(month))? as i64 + 1;
                rest = &rest[3..];
            }
            TimeField::Weekday => rest = rest.get(3..)?,
            TimeField::Literal(byte) => rest = rest.strip_prefix(&[*byte])?,
        }
    }
    if !rest.is_empty() || !(1..=12).contains(&parsed.month) {
        return None;
    }
    let per_day = per_day(fields);
    let seconds = (parsed.hour * 60 + parsed.minute) * 60 + parsed.second;
    let parts = match per_day {
        1 => 0,
        24 => parsed.hour,
        1440 => parsed.hour * 60 + parsed.minute,
        _ => seconds * (per_day / 86_400) + parsed.fraction,
    };
    days_from_civil(parsed.year, parsed.month, parsed.day)
        .checked_mul(per_day)?
        .checked_add(parts)
}

/// Powers of ten.
const POWERS: [i64; 10] = [
    1,
    10,
    100,
    1000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
];

/// Writes a count of units.
fn write(units: i64, fields: &[TimeField], out: &mut Vec<u8>) -> Option<()> {
    let per_day = per_day(fields);
    let (days, parts) = (units.div_euclid(per_day), units.rem_euclid(per_day));
    let (year, month, day) = civil_from_days(days)?;
    let (seconds, fraction) = match per_day {
        1 => (0, 0),
        24 => (parts * 3600, 0),
        1440 => (parts * 60, 0),
        _ => (parts / (per_day / 86_400), parts % (per_day / 86_400)),
    };
    let number = |number: i64, digits: usize, out: &mut Vec<u8>| {
        // Years before 0 and after 9999 have more characters than digits.
        if !(0..POWERS[digits.min(9)]).contains(&number) {
            out.extend(format!("{number:0digits$}").bytes());
            return;
        }
        let start = out.len();
        out.resize(start + digits, b'0');
        let mut left = number;
        for digit in out[start..].iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
    };
    for field in fields {
        match field {
            TimeField::Year => number(year, 4, out),
            TimeField::Month => number(month, 2, out),
            TimeField::Day => number(day, 2, out),
            TimeField::Hour => number(seconds / 3600, 2, out),
            TimeField::Minute => number(seconds / 60 % 60, 2, out),
            TimeField::Second => number(seconds % 60, 2, out),
            TimeField::Fraction(digits) => number(fraction, usize::from(*digits), out),
            TimeField::MonthName => out.extend(*MONTHS.get(month as usize - 1)?),
            TimeField::Weekday => out.extend(WEEKDAYS[days.rem_euclid(7) as usize]),
            TimeField::Literal(byte) => out.push(*byte),
        }
    }
    Some(())
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> Option<(i64, i64, i64)> {
    let days = days.checked_add(719_468)?;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Some((year, month, day))
}

/// Fits if every value has one notation and is restored exactly.
pub(super) fn encode(values: &ColumnValues, context: &EncodeContext<'_>) -> Option<EncodedColumn> {
    let (fields, units) = notations(values.get(0)).into_iter().find_map(|fields| {
        let units = values
            .iter()
            .map(|value| exact(value, &fields))
            .collect::<Option<Vec<i64>>>()?;
        Some((fields, units))
    })?;
    let mut column = EncodedColumn::of(Tag::Time);
    put_fields(&fields, &mut column.plan);
    let at_scale = |text: &[u8]| read(text, &fields);
    number::encode_numbers(&units, context, reading(&at_scale), &mut column);
    Some(column)
}

/// How other columns are read by one whose units have no decimals.
fn reading<'a>(at_scale: &'a dyn Fn(&[u8]) -> Option<i64>) -> OtherReading<'a> {
    OtherReading {
        at_scale,
        decimals: 0,
    }
}

fn exact(value: &[u8], fields: &[TimeField]) -> Option<i64> {
    let units = read(value, fields)?;
    let mut again = Vec::with_capacity(value.len());
    write(units, fields, &mut again)?;
    (again == value).then_some(units)
}

fn put_fields(fields: &[TimeField], plan: &mut Vec<u8>) {
    put_varint(plan, fields.len() as u64);
    for field in fields {
        match field {
            TimeField::Year => plan.push(b'Y'),
            TimeField::Month => plan.push(b'm'),
            TimeField::Day => plan.push(b'd'),
            TimeField::Hour => plan.push(b'H'),
            TimeField::Minute => plan.push(b'M'),
            TimeField::Second => plan.push(b'S'),
            TimeField::Fraction(digits) => plan.extend([b'f', *digits]),
            TimeField::MonthName => plan.push(b'b'),
            TimeField::Weekday => plan.push(b'a'),
            TimeField::Literal(byte) => plan.extend([b'\'', *byte]),
        }
    }
}

fn read_fields(plan: &mut FieldReader<'_>) -> Result<Vec<TimeField>, Damage> {
    let count = plan.size(MAX_LEN, "the fields of a time")?;
    (0..count)
        .map(|_| {
            Ok(match plan.byte()? {
                b'Y' => TimeField::Year,
                b'm' => TimeField::Month,
                b'd' => TimeField::Day,
                b'H' => TimeField::Hour,
                b'M' => TimeField::Minute,
                b'S' => TimeField::Second,
                b'f' => TimeField::Fraction(plan.size(9, "a fraction's digits")? as u8),
                b'b' => TimeField::MonthName,
                b'a' => TimeField::Weekday,
                b'\'' => TimeField::Literal(plan.byte()?),
                _ => return Err(Damage::new("an unknown field of a time")),
            })
        })
        .collect()
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let fields = read_fields(plan)?;
    let at_scale = |text: &[u8]| read(text, &fields);
    let units = number::decode_numbers(count, plan, source, &context.refs, reading(&at_scale))?;
    let mut values = ColumnValues::default();
    for units in units {
        values.push_with(context.limit, |out| {
            write(units, &fields, out).ok_or_else(|| Damage::new("a time outside the calendar"))
        })?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, units: i64) {
        let read = notations(text.as_bytes())
            .iter()
            .find_map(|fields| exact(text.as_bytes(), fields));
        assert_eq!(read, Some(units), "{text}");
    }

    #[test]
    fn common_notations_are_read_exactly() {
        check("1970-01-02", 1);
        check("2001/01/01 00:47", 16_305_167);
        check("2015-07-29 17:41:44,747", 1438191704747);
        check("2024-02-29T12:00:00Z", 1_709_208_000);
        check("2024-02-29T12:00:00.000001Z", 1_709_208_000_000_001);
        check("2024-02-29T12:00:00+0000", 1_709_208_000);
        check("12/31/1999", 10_956);
        check("31/12/1999", 10_956);
        check("31 Dec 1999", 10_956);
        check("Jun 12 1998", 10389);
        check("Sun Aug 31 00:29:15 +0000 2014", 1409444955);
        check("17:41:44", 63_704);
        check("10/Oct/2000:13:55:36 -0700", 971186136);
    }

    #[test]
    fn text_that_would_change_is_no_time() {
        for text in [
            "2024-02-30",
            "2024-13-32",
            "Mon Aug 31 00:29:15 +0000 2014",
            "25:00:00",
            "hello",
            "12",
            "2024-1-1",
        ] {
            let read = notations(text.as_bytes())
                .iter()
                .find_map(|fields| exact(text.as_bytes(), fields));
            assert_eq!(read, None, "{text}");
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_round_trips() {
        for days in (-400_000..600_000).step_by(37) {
            let (year, month, day) = civil_from_days(days).expect("in range");
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
