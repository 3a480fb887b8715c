//! Writes single values into JSON, CSV and log lines: escapes, quotes, digits.

/// How JSON is spaced and escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonStyle {
    /// As Python's `json.dumps`: `", "` and `": "`, everything beyond ASCII as `\uXXXX`.
    Python,
    /// No spaces, UTF-8 as it is.
    Compact,
}

impl JsonStyle {
    pub(crate) fn comma(self) -> &'static str {
        match self {
            Self::Python => ", ",
            Self::Compact => ",",
        }
    }

    pub(crate) fn colon(self) -> &'static str {
        match self {
            Self::Python => ": ",
            Self::Compact => ":",
        }
    }
}

/// Writes a JSON string with its quotes.
pub(crate) fn json_string(out: &mut Vec<u8>, text: &[u8], style: JsonStyle) {
    out.push(b'"');
    if text.iter().all(|&byte| is_plain(byte)) {
        out.extend_from_slice(text);
    } else {
        json_escaped(out, &String::from_utf8_lossy(text), style);
    }
    out.push(b'"');
}

/// Whether a byte needs no escape in JSON of either style.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

fn json_escaped(out: &mut Vec<u8>, text: &str, style: JsonStyle) {
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            // Python leaves DEL as it is.
            ' '..='\u{7f}' => out.push(c as u8),
            _ if c < ' ' || style == JsonStyle::Python => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Writes a CSV cell, quoted if necessary. An empty text is quoted, so that it differs from a missing value.
pub(crate) fn csv_cell(out: &mut Vec<u8>, text: &[u8]) {
    let edge = |byte: Option<&u8>| matches!(byte, None | Some(b' ' | b'\t'));
    let must = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !edge(text.first()) && !edge(text.last()) && !text.iter().any(must) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Writes a value inside a log line, with line breaks escaped.
pub(crate) fn line_text(out: &mut Vec<u8>, text: &[u8]) {
    if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(text);
        return;
    }
    for &byte in text {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => out.push(byte),
        }
    }
}

/// Writes the key or value of a `key=value` pair, quoted if it is empty or ambiguous.
pub(crate) fn pair_text(out: &mut Vec<u8>, text: &[u8]) {
    let bare = |&byte: &u8| !matches!(byte, 0..=0x20 | b'"' | b'=' | b'\\' | 0x7f);
    if !text.is_empty() && text.iter().all(bare) {
        out.extend_from_slice(text);
    } else {
        json_string(out, text, JsonStyle::Compact);
    }
}

/// Writes a whole number.
pub(crate) fn integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes at least `width` digits, with leading zeros.
pub(crate) fn padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    for _ in digits.len()..width {
        out.push(b'0');
    }
    out.extend_from_slice(digits);
}

/// Writes a number of `decimals` decimals, given without the point: 14320 with 2 is 143.20. With `short`, trailing zeros
/// are removed up to the first decimal, as programs print floats: 143.2.
pub(crate) fn decimal(out: &mut Vec<u8>, scaled: i64, decimals: u32, short: bool) {
    if decimals == 0 {
        return integer(out, scaled);
    }
    if scaled < 0 {
        out.push(b'-');
    }
    let unit = 10_u64.pow(decimals);
    let value = scaled.unsigned_abs();
    padded(out, value / unit, 1);
    out.push(b'.');
    padded(out, value % unit, decimals as usize);
    if short {
        let spare = |out: &[u8]| out.ends_with(b"0") && !out.ends_with(b".0");
        while spare(out) {
            out.pop();
        }
    }
}

/// Writes the lowest `digits` hexadecimal digits of a number, the lowest first; at most 16.
pub(crate) fn hex(out: &mut Vec<u8>, bits: u64, digits: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: usize| DIGITS[(bits >> (4 * n)) as usize & 15];
    out.extend((0..digits.min(16)).map(digit));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn json_strings_are_written_as_python_does() {
        let odd = "a\"\\\n\t\u{1}é😋\u{7f}";
        let python = written(|out| json_string(out, odd.as_bytes(), JsonStyle::Python));
        assert_eq!(
            python,
            "\"a\\\"\\\\\\n\\t\\u0001\\u00e9\\ud83d\\ude0b\u{7f}\""
        );
        let compact = written(|out| json_string(out, odd.as_bytes(), JsonStyle::Compact));
        assert_eq!(compact, "\"a\\\"\\\\\\n\\t\\u0001é😋\u{7f}\"");
    }

    #[test]
    fn numbers_are_written_with_their_decimals() {
        for (scaled, decimals, fixed, short) in [
            (14320, 2, "143.20", "143.2"),
            (14300, 2, "143.00", "143.0"),
            (-5, 2, "-0.05", "-0.05"),
            (0, 3, "0.000", "0.0"),
            (-17, 0, "-17", "-17"),
            (i64::MIN, 0, "-9223372036854775808", "-9223372036854775808"),
        ] {
            assert_eq!(written(|out| decimal(out, scaled, decimals, false)), fixed);
            assert_eq!(written(|out| decimal(out, scaled, decimals, true)), short);
        }
    }

    #[test]
    fn cells_and_pairs_are_quoted_only_where_needed() {
        for (text, cell, pair) in [
            ("plain", "plain", "plain"),
            ("a b", "a b", "\"a b\""),
            ("a,\"b\"", "\"a,\"\"b\"\"\"", "\"a,\\\"b\\\"\""),
            ("", "\"\"", "\"\""),
            (" x", "\" x\"", "\" x\""),
        ] {
            assert_eq!(written(|out| csv_cell(out, text.as_bytes())), cell);
            assert_eq!(written(|out| pair_text(out, text.as_bytes())), pair);
        }
        assert_eq!(written(|out| line_text(out, b"a\r\nb")), "a\\r\\nb");
    }
}
