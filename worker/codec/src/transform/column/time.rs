//! Dates and times in one spelling, as a count of the smallest unit that the spelling has.

use super::{Damage, Known, Node, Reader, Scope, Source, Tag, Values, number};
use crate::bytes::put_varint;

/// A piece of a spelling. In the format, its byte; a literal is `'` and the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// Digits of a second's fraction.
    Fraction(u8),
    MonthName,
    Weekday,
    Literal(u8),
}

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const WEEKDAYS: [&[u8]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];

/// The longest spelling that is looked at.
const LONGEST: usize = 48;

/// Whether the first value looks like a date or a time.
pub fn fits(values: &Values) -> bool {
    !spellings(values.get(0)).is_empty()
}

/// The ways to read a sample: month before day, or day before month.
fn spellings(sample: &[u8]) -> Vec<Vec<Piece>> {
    let orders: [&[Piece]; 2] = [&[Piece::Month, Piece::Day], &[Piece::Day, Piece::Month]];
    let mut found: Vec<Vec<Piece>> = Vec::new();
    for order in orders {
        found.extend(spelling(sample, order).filter(|pieces| !found.contains(pieces)));
    }
    found
}

fn spelling(sample: &[u8], date_order: &[Piece]) -> Option<Vec<Piece>> {
    if sample.len() > LONGEST {
        return None;
    }
    let mut dates = date_order.iter().copied();
    let mut times = [Piece::Hour, Piece::Minute, Piece::Second].into_iter();
    let mut pieces = Vec::new();
    let mut at = 0;
    let (mut year, mut named, mut seconds) = (false, false, false);
    while at < sample.len() {
        let rest = &sample[at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let after_offset =
            at > 0 && matches!(sample[at - 1], b'+') && pieces.contains(&Piece::Minute);
        let name = rest.get(..3).unwrap_or_default();
        if digits == 4 && !year && !after_offset {
            year = true;
            pieces.push(Piece::Year);
        } else if digits == 2 && !after_offset && !(seconds && year) {
            // Two digits before a colon are an hour, not a day.
            let in_time = pieces.contains(&Piece::Hour) || rest.get(2) == Some(&b':');
            let date = if in_time {
                None
            } else {
                dates.find(|piece| !named || *piece == Piece::Day)
            };
            let next = match date {
                Some(piece) => piece,
                None => times.next()?,
            };
            seconds |= next == Piece::Second;
            pieces.push(next);
        } else if digits > 0
            && digits <= 9
            && seconds
            && at > 0
            && matches!(sample[at - 1], b'.' | b',')
        {
            pieces.push(Piece::Fraction(digits as u8));
        } else if digits > 0 {
            pieces.extend(rest[..digits].iter().map(|&byte| Piece::Literal(byte)));
        } else if !named && MONTHS.contains(&name) {
            named = true;
            pieces.push(Piece::MonthName);
        } else if WEEKDAYS.contains(&name) && !pieces.contains(&Piece::Weekday) {
            pieces.push(Piece::Weekday);
        } else {
            pieces.push(Piece::Literal(rest[0]));
        }
        at += match pieces.last() {
            Some(Piece::MonthName | Piece::Weekday) => 3,
            _ => digits.max(1),
        };
    }
    let full_date =
        year && pieces.contains(&Piece::Day) && (named || pieces.contains(&Piece::Month));
    let no_date =
        !year && !pieces.contains(&Piece::Day) && !named && !pieces.contains(&Piece::Month);
    let time = pieces.contains(&Piece::Minute);
    let weekday = pieces.contains(&Piece::Weekday);
    (full_date || (no_date && time && !weekday)).then_some(pieces)
}

/// The smallest unit of a spelling: how many make a day.
fn per_day(pieces: &[Piece]) -> i64 {
    let fraction = pieces.iter().find_map(|piece| match piece {
        Piece::Fraction(digits) => Some(10i64.pow(u32::from(*digits))),
        _ => None,
    });
    match fraction {
        Some(parts) => 86_400 * parts,
        None if pieces.contains(&Piece::Second) => 86_400,
        None if pieces.contains(&Piece::Minute) => 1440,
        None if pieces.contains(&Piece::Hour) => 24,
        None => 1,
    }
}

#[derive(Default)]
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    fraction: i64,
}

/// Reads a value in a spelling; the caller compares what [`write`] makes of the answer.
fn read(text: &[u8], pieces: &[Piece]) -> Option<i64> {
    let mut fields = Fields {
        year: 1970,
        month: 1,
        day: 1,
        ..Fields::default()
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
    for piece in pieces {
        match piece {
            Piece::Year => fields.year = number(4, &mut rest)?,
            Piece::Month => fields.month = number(2, &mut rest)?,
            Piece::Day => fields.day = number(2, &mut rest)?,
            Piece::Hour => fields.hour = number(2, &mut rest)?,
            Piece::Minute => fields.minute = number(2, &mut rest)?,
            Piece::Second => fields.second = number(2, &mut rest)?,
            Piece::Fraction(digits) => fields.fraction = number(usize::from(*digits), &mut rest)?,
            Piece::MonthName => {
                fields.month = MONTHS.iter().position(|month| rest.starts_with(month))? as i64 + 1;
                rest = &rest[3..];
            }
            Piece::Weekday => rest = rest.get(3..)?,
            Piece::Literal(byte) => rest = rest.strip_prefix(&[*byte])?,
        }
    }
    if !rest.is_empty() || !(1..=12).contains(&fields.month) {
        return None;
    }
    let per_day = per_day(pieces);
    let seconds = (fields.hour * 60 + fields.minute) * 60 + fields.second;
    let parts = match per_day {
        1 => 0,
        24 => fields.hour,
        1440 => fields.hour * 60 + fields.minute,
        _ => seconds * (per_day / 86_400) + fields.fraction,
    };
    days_from_civil(fields.year, fields.month, fields.day)
        .checked_mul(per_day)?
        .checked_add(parts)
}

/// Spells a count of units.
fn write(units: i64, pieces: &[Piece], out: &mut Vec<u8>) -> Option<()> {
    let per_day = per_day(pieces);
    let (days, parts) = (units.div_euclid(per_day), units.rem_euclid(per_day));
    let (year, month, day) = civil_from_days(days)?;
    let (seconds, fraction) = match per_day {
        1 => (0, 0),
        24 => (parts * 3600, 0),
        1440 => (parts * 60, 0),
        _ => (parts / (per_day / 86_400), parts % (per_day / 86_400)),
    };
    let number = |number: i64, digits: usize, out: &mut Vec<u8>| {
        out.extend(format!("{number:0digits$}").bytes());
    };
    for piece in pieces {
        match piece {
            Piece::Year => number(year, 4, out),
            Piece::Month => number(month, 2, out),
            Piece::Day => number(day, 2, out),
            Piece::Hour => number(seconds / 3600, 2, out),
            Piece::Minute => number(seconds / 60 % 60, 2, out),
            Piece::Second => number(seconds % 60, 2, out),
            Piece::Fraction(digits) => number(fraction, usize::from(*digits), out),
            Piece::MonthName => out.extend(*MONTHS.get(month as usize - 1)?),
            Piece::Weekday => out.extend(WEEKDAYS[days.rem_euclid(7) as usize]),
            Piece::Literal(byte) => out.push(*byte),
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

/// Fits where every value reads in one spelling and comes back letter by letter.
pub fn encode(values: &Values, scope: &Scope<'_>) -> Option<Node> {
    let (pieces, units) = spellings(values.get(0)).into_iter().find_map(|pieces| {
        let units = values
            .iter()
            .map(|value| exact(value, &pieces))
            .collect::<Option<Vec<i64>>>()?;
        Some((pieces, units))
    })?;
    let mut node = Node::of(Tag::Time);
    put_pieces(&pieces, &mut node.plan);
    number::encode_numbers(&units, scope, &|text| read(text, &pieces), &mut node);
    Some(node)
}

fn exact(value: &[u8], pieces: &[Piece]) -> Option<i64> {
    let units = read(value, pieces)?;
    let mut again = Vec::with_capacity(value.len());
    write(units, pieces, &mut again)?;
    (again == value).then_some(units)
}

fn put_pieces(pieces: &[Piece], plan: &mut Vec<u8>) {
    put_varint(plan, pieces.len() as u64);
    for piece in pieces {
        match piece {
            Piece::Year => plan.push(b'Y'),
            Piece::Month => plan.push(b'm'),
            Piece::Day => plan.push(b'd'),
            Piece::Hour => plan.push(b'H'),
            Piece::Minute => plan.push(b'M'),
            Piece::Second => plan.push(b'S'),
            Piece::Fraction(digits) => plan.extend([b'f', *digits]),
            Piece::MonthName => plan.push(b'b'),
            Piece::Weekday => plan.push(b'a'),
            Piece::Literal(byte) => plan.extend([b'\'', *byte]),
        }
    }
}

fn read_pieces(plan: &mut Reader<'_>) -> Result<Vec<Piece>, Damage> {
    let count = plan.size(LONGEST, "a spelling of time")?;
    (0..count)
        .map(|_| {
            Ok(match plan.byte()? {
                b'Y' => Piece::Year,
                b'm' => Piece::Month,
                b'd' => Piece::Day,
                b'H' => Piece::Hour,
                b'M' => Piece::Minute,
                b'S' => Piece::Second,
                b'f' => Piece::Fraction(plan.size(9, "a fraction's digits")? as u8),
                b'b' => Piece::MonthName,
                b'a' => Piece::Weekday,
                b'\'' => Piece::Literal(plan.byte()?),
                _ => return Err(Damage::new("an unknown piece of a time")),
            })
        })
        .collect()
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let pieces = read_pieces(plan)?;
    let read = |text: &[u8]| read(text, &pieces);
    let units = number::decode_numbers(count, plan, source, &known.refs, &read)?;
    let mut values = Values::default();
    let mut text = Vec::new();
    for units in units {
        text.clear();
        write(units, &pieces, &mut text)
            .ok_or_else(|| Damage::new("a time outside the calendar"))?;
        values.push_bounded(&text, known.limit)?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, units: i64) {
        let read = spellings(text.as_bytes())
            .iter()
            .find_map(|pieces| exact(text.as_bytes(), pieces));
        assert_eq!(read, Some(units), "{text}");
    }

    #[test]
    fn common_spellings_are_read_exactly() {
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
    fn what_would_change_is_no_time() {
        for text in [
            "2024-02-30",
            "2024-13-32",
            "Mon Aug 31 00:29:15 +0000 2014",
            "25:00:00",
            "hello",
            "12",
            "2024-1-1",
        ] {
            let read = spellings(text.as_bytes())
                .iter()
                .find_map(|pieces| exact(text.as_bytes(), pieces));
            assert_eq!(read, None, "{text}");
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_comes_back() {
        for days in (-400_000..600_000).step_by(37) {
            let (year, month, day) = civil_from_days(days).expect("in range");
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
