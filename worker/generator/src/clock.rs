//! The time inside the records. It advances with a record's position, never with the real clock.

use jiff::SignedDuration;
use jiff::civil::Date;

use crate::error::SchemaError;
use crate::reader::ObjectReader;
use crate::text::padded;

/// 9999-12-31T23:59:59.999Z: later years have five digits, which few programs read.
const MAX_MILLIS: u64 = 253_402_300_799_999;

/// 2026-01-05T09:30:00Z, a Monday morning.
const DEFAULT_START: &str = "2026-01-05T09:30:00Z";

/// The first time that has a number.
const EARLIEST_START: &str = "1970-01-01T00:00:00Z";

/// The last whole second that jiff reads.
const LATEST_START: &str = "9999-12-30T22:00:00Z";

/// The day that times are counted from.
const EPOCH: Date = Date::constant(1970, 1, 1);

/// The longest step between two records: a year.
pub(crate) const MAX_STEP_MILLIS: i64 = 366 * 86_400_000;

/// How the time of a record follows from its position.
#[derive(Debug, Clone)]
pub(crate) struct RecordClock {
    start_millis: u64,
    step_millis: u64,
    /// Records that share one step, such as one bar of every company.
    every: u64,
    /// The largest part of a step by which a record may be late.
    jitter: f64,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// `2026-01-05T09:30:00.000Z`
    Rfc3339,
    /// `2026-01-05 09:30:00`
    DateTime,
    /// `2026-01-05`
    Date,
    /// `09:30:00`
    Time,
    /// `05/Jan/2026:09:30:00 +0000`, of web server logs
    Clf,
    /// Seconds since 1970, a number
    Unix,
    /// Milliseconds since 1970, a number
    UnixMillis,
}

impl TimeFormat {
    pub(crate) const NAMES: [(&'static str, Self); 7] = [
        ("rfc3339", Self::Rfc3339),
        ("datetime", Self::DateTime),
        ("date", Self::Date),
        ("time", Self::Time),
        ("clf", Self::Clf),
        ("unix", Self::Unix),
        ("unix-ms", Self::UnixMillis),
    ];
}

impl RecordClock {
    pub(crate) fn read(mut reader: ObjectReader<'_>) -> Result<Self, SchemaError> {
        let start = reader.text("start")?.unwrap_or(DEFAULT_START);
        let parsed: Option<jiff::Timestamp> = start.parse().ok();
        let in_limits = |time: jiff::Timestamp| u64::try_from(time.as_millisecond()).ok();
        let start_millis = parsed.and_then(in_limits).ok_or_else(|| {
            let problem =
                format!("{start:?} is not a time from {EARLIEST_START} to {LATEST_START}");
            reader.error("start", problem, &format!("write it like {DEFAULT_START}"))
        })?;
        let step = reader.integer_in("stepMillis", 0, MAX_STEP_MILLIS)?;
        let every = reader.count_in("every", 1, 1_000_000)?;
        let jitter = reader.number_in("jitter", 0.0, 1.0)?;
        reader.finish()?;
        Ok(Self {
            start_millis,
            step_millis: step.unwrap_or(1000).unsigned_abs(),
            every: u64::from(every.unwrap_or(1)),
            jitter: jitter.unwrap_or(0.0),
        })
    }

    /// Milliseconds since 1970 of the record at `position`; `chance` is a random number below 1.
    pub(crate) fn at(&self, position: u64, chance: f64) -> u64 {
        let steps = position / self.every;
        let late = (self.step_millis as f64 * self.jitter * chance) as u64;
        let since = steps.saturating_mul(self.step_millis).saturating_add(late);
        // After the year 9999, time starts again at the beginning.
        self.start_millis + since % (MAX_MILLIS + 1 - self.start_millis)
    }
}

/// Writes a time, given in milliseconds since 1970.
pub(crate) fn write(out: &mut Vec<u8>, millis: u64, format: TimeFormat) {
    match format {
        TimeFormat::Rfc3339 => {
            write_date(out, millis);
            out.push(b'T');
            write_time(out, millis);
            out.push(b'.');
            padded(out, millis % 1000, 3);
            out.push(b'Z');
        }
        TimeFormat::DateTime => {
            write_date(out, millis);
            out.push(b' ');
            write_time(out, millis);
        }
        TimeFormat::Date => write_date(out, millis),
        TimeFormat::Time => write_time(out, millis),
        TimeFormat::Clf => {
            const MONTHS: [&str; 12] = [
                "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
            ];
            let date = date(millis);
            let month = usize::from(date.month().unsigned_abs()).saturating_sub(1);
            write_two(out, date.day().unsigned_abs());
            out.push(b'/');
            out.extend_from_slice(MONTHS.get(month).copied().unwrap_or_default().as_bytes());
            out.push(b'/');
            padded(out, u64::from(date.year().unsigned_abs()), 4);
            out.push(b':');
            write_time(out, millis);
            out.extend_from_slice(b" +0000");
        }
        TimeFormat::Unix => padded(out, millis / 1000, 1),
        TimeFormat::UnixMillis => padded(out, millis, 1),
    }
}

/// The date in UTC. By day numbers: `jiff::Timestamp` ends a day before the year 9999 does.
fn date(millis: u64) -> Date {
    let days = i64::try_from(millis / 86_400_000).unwrap_or(i64::MAX);
    EPOCH.saturating_add(SignedDuration::from_hours(days.saturating_mul(24)))
}

fn write_date(out: &mut Vec<u8>, millis: u64) {
    let date = date(millis);
    padded(out, u64::from(date.year().unsigned_abs()), 4);
    out.push(b'-');
    write_two(out, date.month().unsigned_abs());
    out.push(b'-');
    write_two(out, date.day().unsigned_abs());
}

fn write_time(out: &mut Vec<u8>, millis: u64) {
    let second = millis / 1000 % 86_400;
    write_two(out, (second / 3600) as u8);
    out.push(b':');
    write_two(out, (second / 60 % 60) as u8);
    out.push(b':');
    write_two(out, (second % 60) as u8);
}

/// Writes the two digits of a number below 100.
fn write_two(out: &mut Vec<u8>, value: u8) {
    out.push(b'0' + value / 10);
    out.push(b'0' + value % 10);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_jiff_writes_it_for_8000_years() -> Result<(), jiff::Error> {
        for day in (0..2_932_896).step_by(97) {
            let millis = day * 86_400_000 + 45_296_789;
            let mut ours = Vec::new();
            write(&mut ours, millis, TimeFormat::Rfc3339);
            let theirs = jiff::Timestamp::from_millisecond(millis as i64)?;
            assert_eq!(String::from_utf8_lossy(&ours), theirs.to_string());
        }
        Ok(())
    }

    #[test]
    fn every_format_is_written_as_documented() {
        // 2026-01-05T09:30:00.042Z
        let millis = 1_767_605_400_042;
        for (format, expected) in [
            (TimeFormat::Rfc3339, "2026-01-05T09:30:00.042Z"),
            (TimeFormat::DateTime, "2026-01-05 09:30:00"),
            (TimeFormat::Date, "2026-01-05"),
            (TimeFormat::Time, "09:30:00"),
            (TimeFormat::Clf, "05/Jan/2026:09:30:00 +0000"),
            (TimeFormat::Unix, "1767605400"),
            (TimeFormat::UnixMillis, "1767605400042"),
        ] {
            let mut out = Vec::new();
            write(&mut out, millis, format);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn the_last_millisecond_of_the_year_9999_is_written() {
        let mut out = Vec::new();
        write(&mut out, MAX_MILLIS, TimeFormat::Rfc3339);
        assert_eq!(String::from_utf8_lossy(&out), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn years_have_four_digits_for_every_position() -> Result<(), SchemaError> {
        let clock = RecordClock::read(ObjectReader::new("clock", &[]))?;
        for position in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(clock.at(position, 0.9) <= MAX_MILLIS);
        }
        assert!(clock.at(1, 0.0) > clock.at(0, 0.9));
        Ok(())
    }
}
