//! Texts and figures as they stand in the page. The page's templates escape them.

/// Text for the page, cut to `max_chars` with its end kept.
///
/// Control characters and those that change the direction of writing become `�`, so that no file name can look like
/// another.
pub(super) fn shown(text: &str, max_chars: usize) -> String {
    let count = text.chars().count();
    let tail = max_chars / 3;
    let head = max_chars.saturating_sub(tail + 1);
    let mut out = String::with_capacity(text.len().min(4 * max_chars));
    for (n, c) in text.chars().enumerate() {
        if count > max_chars && n >= head && n < count - tail {
            if n == head {
                out.push('…');
            }
            continue;
        }
        out.push(if is_misleading(c) { '\u{fffd}' } else { c });
    }
    out
}

fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// `1 file`, `2,000 files`.
pub(super) fn count_files(number: u64) -> String {
    format!(
        "{} file{}",
        count(number),
        if number == 1 { "" } else { "s" }
    )
}

/// 1234567 as `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Megabytes, for columns that say so: `1.049`, `25.30`, `12,345`.
pub(super) fn megabytes(bytes: f64) -> String {
    let megabytes = bytes / 1e6;
    if megabytes.abs() < 10.0 {
        format!("{megabytes:.3}")
    } else if megabytes.abs() < 1e4 {
        format!("{megabytes:.2}")
    } else {
        let sign = if megabytes < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(megabytes.abs().round() as u64))
    }
}

/// A size in a fitting unit: `512 B`, `1.05 MB`.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let bytes_float = bytes as f64;
    let fitting = units.iter().find(|(unit, _)| bytes_float >= *unit);
    match fitting {
        Some((unit, name)) => {
            let value = bytes_float / unit;
            let decimals = if value < 10.0 {
                2
            } else {
                usize::from(value < 100.0)
            };
            format!("{value:.decimals$} {name}")
        }
        None => format!("{bytes} B"),
    }
}

/// A time in a fitting unit: `420 ms`, `3.21 s`, `2 min 05 s`.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 0.9995 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 60.0 {
        format!("{seconds:.2} s")
    } else if seconds < 3600.0 {
        let whole = seconds.round() as u64;
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        let minutes = (seconds / 60.0).round() as u64;
        format!("{} h {:02} min", count(minutes / 60), minutes % 60)
    }
}

/// How many times smaller.
pub(super) fn ratio(raw: u64, packed: u64) -> String {
    quotient(raw, packed).map_or_else(none, |ratio| format!("{ratio:.2}"))
}

/// Share of the bytes that is saved, in per cent.
pub(super) fn saving(raw: u64, packed: u64) -> String {
    let share = quotient(packed, raw);
    share.map_or_else(none, |share| saved_percent(100.0 * (1.0 - share)))
}

/// Per cents that are saved, with one decimal: never 100.0 where something is left.
pub(crate) fn saved_percent(percent: f64) -> String {
    let at_most = if percent < 100.0 { 99.9 } else { 100.0 };
    format!("{:.1}", percent.min(at_most))
}

/// Megabytes a second.
pub(super) fn speed(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 {
        format!("{:.1} MB/s", bytes as f64 / 1e6 / seconds)
    } else {
        none()
    }
}

pub(super) fn quotient(above: u64, below: u64) -> Option<f64> {
    (below > 0).then(|| above as f64 / below as f64)
}

/// In place of a figure that does not exist.
pub(super) fn none() -> String {
    "–".to_owned()
}

/// `2026-01-05 09:30:00` in UTC.
pub(super) fn time(millis: u64) -> String {
    let known = i64::try_from(millis)
        .ok()
        .map(jiff::Timestamp::from_millisecond);
    match known {
        Some(Ok(time)) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        _ => none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_in_its_middle_and_misleading_characters_are_replaced() {
        assert_eq!(
            shown("a&\u{202e}gpj\n\0", 100),
            "a&\u{fffd}gpj\u{fffd}\u{fffd}"
        );
        assert_eq!(shown("abcdefghijklmnop.json", 12), "abcdefg…json");
        assert_eq!(shown("äöü", 3), "äöü");
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_048_576), "1.05 MB");
        assert_eq!(size(734_003_200), "734 MB");
        assert_eq!(megabytes(1_048_576.0), "1.049");
        assert_eq!(megabytes(-12_345_678_901.0), "-12,346");
        assert_eq!(duration(0.0424), "42 ms");
        assert_eq!(duration(3.214), "3.21 s");
        assert_eq!(duration(125.0), "2 min 05 s");
        assert_eq!(duration(7_500.0), "2 h 05 min");
        assert_eq!(ratio(1000, 250), "4.00");
        assert_eq!(ratio(1000, 0), "–");
        assert_eq!(saving(1000, 250), "75.0");
        assert_eq!(saving(0, 0), "–");
        assert_eq!(saving(15_000_000, 819), "99.9");
        assert_eq!(saving(1000, 0), "100.0");
        assert_eq!(speed(2_000_000, 0.5), "4.0 MB/s");
        assert_eq!(time(1_767_605_400_042), "2026-01-05 09:30:00");
        assert_eq!(time(u64::MAX), "–");
    }
}
