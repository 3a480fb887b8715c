//! The time inside the records: it advances with the record's position, never with the real clock.

use super::reader::Reader;
use super::schema::SchemaError;
use super::text::padded;

/// 9999-12-31T23:59:59.999Z: years beyond have five digits, which few programs read.
const MAX_MILLIS: u64 = 253_402_300_799_999;

/// 2026-01-05T09:30:00Z, a Monday morning.
const DEFAULT_START: &str = "2026-01-05T09:30:00Z";

/// How the time of a record follows from its position.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    start_millis: u64,
    step_millis: u64,
    /// Records that share one step, such as one bar of every company.
    every: u64,
    /// Share of the step by which a record may come late.
    jitter: f64,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeFormat {
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
    pub(super) const NAMES: [(&'static str, Self); 7] = [
        ("rfc3339", Self::Rfc3339),
        ("datetime", Self::DateTime),
        ("date", Self::Date),
        ("time", Self::Time),
        ("clf", Self::Clf),
        ("unix", Self::Unix),
        ("unix-ms", Self::UnixMillis),
    ];
}

impl Clock {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, SchemaError> {
        let start = reader.text("start")?.unwrap_or(DEFAULT_START);
        let parsed: Option<jiff::Timestamp> = start.parse().ok();
        let millis = parsed.and_then(|time| u64::try_from(time.as_millisecond()).ok());
        let start_millis = millis.ok_or_else(|| {
            let problem = format!("{start:?} is not a time since 1970");
            reader.error("start", problem, &format!("write it like {DEFAULT_START}"))
        })?;
        let year_millis = 366 * 86_400_000;
        let step = reader.integer_in("stepMillis", 0, year_millis)?;
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
    pub(super) fn at(&self, position: u64, chance: f64) -> u64 {
        let steps = position / self.every;
        let late = (self.step_millis as f64 * self.jitter * chance) as u64;
        let since = steps.saturating_mul(self.step_millis).saturating_add(late);
        // After the year 9999 time starts over rather than becoming unreadable.
        self.start_millis + since % (MAX_MILLIS + 1 - self.start_millis)
    }
}

/// Writes a time. Numbers are written as digits.
pub(super) fn write(out: &mut Vec<u8>, millis: u64, format: TimeFormat) {
    match format {
        TimeFormat::Rfc3339 => {
            date(out, millis);
            out.push(b'T');
            time(out, millis);
            out.push(b'.');
            padded(out, millis % 1000, 3);
            out.push(b'Z');
        }
        TimeFormat::DateTime => {
            date(out, millis);
            out.push(b' ');
            time(out, millis);
        }
        TimeFormat::Date => date(out, millis),
        TimeFormat::Time => time(out, millis),
        TimeFormat::Clf => {
            const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
            let (year, month, day) = civil(millis / 86_400_000);
            two(out, day);
            out.push(b'/');
            let name = 3 * (month as usize - 1);
            out.extend_from_slice(&MONTHS[name..name + 3]);
            out.push(b'/');
            padded(out, year, 4);
            out.push(b':');
            time(out, millis);
            out.extend_from_slice(b" +0000");
        }
        TimeFormat::Unix => padded(out, millis / 1000, 1),
        TimeFormat::UnixMillis => padded(out, millis, 1),
    }
}

fn date(out: &mut Vec<u8>, millis: u64) {
    let (year, month, day) = civil(millis / 86_400_000);
    padded(out, year, 4);
    out.push(b'-');
    two(out, month);
    out.push(b'-');
    two(out, day);
}

fn time(out: &mut Vec<u8>, millis: u64) {
    let second = millis / 1000 % 86_400;
    two(out, second / 3600);
    out.push(b':');
    two(out, second / 60 % 60);
    out.push(b':');
    two(out, second % 60);
}

fn two(out: &mut Vec<u8>, value: u64) {
    out.push(b'0' + (value / 10 % 10) as u8);
    out.push(b'0' + (value % 10) as u8);
}

/// Year, month and day of a day number since 1970, by Howard Hinnant's `civil_from_days`:
/// years are counted from March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year_of_era + era * 400 + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar_for_8000_years() -> Result<(), jiff::Error> {
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
    fn time_never_leaves_the_four_digit_years() -> Result<(), SchemaError> {
        let clock = Clock::read(Reader::new("clock", &[]))?;
        for position in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(clock.at(position, 0.9) <= MAX_MILLIS);
        }
        assert!(clock.at(1, 0.0) > clock.at(0, 0.9));
        Ok(())
    }
}
