//! JSON of the original: read as by Python's `json.loads`, written as by
//! `json.dumps(…, separators=(",", ":"))`: floats by `repr`, integers of any size, non-ASCII as `\uXXXX`,
//! and of equal keys the position of the first with the value of the last.

use std::{collections::HashMap, fmt::Write as _};

use super::LegacyError;

/// Python fails near a depth of 1000; this limit is lower, so that both always agree.
const DEPTH_LIMIT: usize = 900;
/// Python's limit on the digits of an integer read from text.
const INTEGER_DIGITS: usize = 4300;

/// Reads `text` and writes it as Python does.
///
/// # Errors
/// If Python refuses the text.
pub fn redump(text: &str) -> Result<String, LegacyError> {
    let mut parser = Parser { text, at: 0 };
    if text.starts_with('\u{feff}') {
        return Err(parser.refuse("a byte order mark"));
    }
    parser.skip_space();
    let mut out = String::with_capacity(text.len());
    parser.value(&mut out, 0)?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.refuse("more text after the JSON value"));
    }
    Ok(out)
}

/// Appends `text` as a JSON string in ASCII, as Python's `json.dumps` does.
pub fn put_string(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        put_char(out, letter);
    }
    out.push('"');
}

fn put_char(out: &mut String, letter: char) {
    match letter {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        ' '..='~' => out.push(letter),
        _ => {
            for &unit in &*letter.encode_utf16(&mut [0; 2]) {
                put_unit(out, unit);
            }
        }
    }
}

fn put_unit(out: &mut String, unit: u16) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn refuse(&self, what: impl Into<String>) -> LegacyError {
        LegacyError::Syntax {
            what: what.into(),
            offset: self.at,
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self, out: &mut String, depth: usize) -> Result<(), LegacyError> {
        if depth > DEPTH_LIMIT {
            return Err(self.refuse(format!("JSON nested deeper than {DEPTH_LIMIT}")));
        }
        match self.peek() {
            Some(b'{') => self.object(out, depth),
            Some(b'[') => self.array(out, depth),
            Some(b'"') => self.string(out),
            Some(b'-' | b'0'..=b'9') => self.number(out),
            _ => {
                for literal in ["true", "false", "null", "NaN", "Infinity"] {
                    if self.eat(literal) {
                        out.push_str(literal);
                        return Ok(());
                    }
                }
                Err(self.refuse("no JSON value"))
            }
        }
    }

    fn array(&mut self, out: &mut String, depth: usize) -> Result<(), LegacyError> {
        self.at += 1;
        out.push('[');
        self.skip_space();
        if !self.eat("]") {
            loop {
                self.value(out, depth + 1)?;
                self.skip_space();
                if self.eat("]") {
                    break;
                }
                if !self.eat(",") {
                    return Err(self.refuse("no comma or ] after an element"));
                }
                out.push(',');
                self.skip_space();
            }
        }
        out.push(']');
        Ok(())
    }

    fn object(&mut self, out: &mut String, depth: usize) -> Result<(), LegacyError> {
        self.at += 1;
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut positions: HashMap<String, usize> = HashMap::new();
        self.skip_space();
        if !self.eat("}") {
            loop {
                let (key, value) = self.field(depth)?;
                match positions.get(&key) {
                    // A Python dict keeps the position of the first of equal keys, and the last value.
                    Some(&position) => fields[position].1 = value,
                    None => {
                        positions.insert(key.clone(), fields.len());
                        fields.push((key, value));
                    }
                }
                self.skip_space();
                if self.eat("}") {
                    break;
                }
                if !self.eat(",") {
                    return Err(self.refuse("no comma or } after a field"));
                }
                self.skip_space();
            }
        }
        out.push('{');
        for (number, (key, value)) in fields.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            out.push_str(key);
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        Ok(())
    }

    fn field(&mut self, depth: usize) -> Result<(String, String), LegacyError> {
        let (mut key, mut value) = (String::new(), String::new());
        if self.peek() != Some(b'"') {
            return Err(self.refuse("no key in double quotes"));
        }
        self.string(&mut key)?;
        self.skip_space();
        if !self.eat(":") {
            return Err(self.refuse("no colon after a key"));
        }
        self.skip_space();
        self.value(&mut value, depth + 1)?;
        Ok((key, value))
    }

    fn string(&mut self, out: &mut String) -> Result<(), LegacyError> {
        let start = self.at;
        self.at += 1;
        out.push('"');
        loop {
            let Some(letter) = self.rest().chars().next() else {
                self.at = start;
                return Err(self.refuse("a string without its end"));
            };
            match letter {
                '"' => {
                    self.at += 1;
                    out.push('"');
                    return Ok(());
                }
                '\\' => self.escape(out)?,
                '\0'..='\x1f' => return Err(self.refuse("a control character in a string")),
                _ => {
                    self.at += letter.len_utf8();
                    put_char(out, letter);
                }
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), LegacyError> {
        let letter = match self.rest().as_bytes().get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(out),
            _ => return Err(self.refuse("an unknown escape")),
        };
        self.at += 2;
        put_char(out, letter);
        Ok(())
    }

    /// Surrogates are copied, alone or in pairs: both have the same escapes in ASCII.
    fn unicode_escape(&mut self, out: &mut String) -> Result<(), LegacyError> {
        let digits = self
            .rest()
            .get(2..6)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(unit) = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) else {
            return Err(self.refuse("an escape without four hex digits"));
        };
        self.at += 6;
        match char::from_u32(u32::from(unit)) {
            Some(letter) => put_char(out, letter),
            None => put_unit(out, unit),
        }
        Ok(())
    }

    fn number(&mut self, out: &mut String) -> Result<(), LegacyError> {
        if self.eat("-Infinity") {
            out.push_str("-Infinity");
            return Ok(());
        }
        let start = self.at;
        self.eat("-");
        if !self.eat("0") && self.digits() == 0 {
            return Err(self.refuse("no digits in a number"));
        }
        let integer = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                self.at = integer;
            }
        }
        let mantissa = self.at;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                self.at = mantissa;
            }
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if self.at == integer {
            put_integer(out, text).map_err(|what| self.refuse(what))
        } else {
            match text.parse() {
                Ok(number) => {
                    put_float(out, number);
                    Ok(())
                }
                Err(_) => Err(self.refuse("an unreadable number")),
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }
}

fn put_integer(out: &mut String, text: &str) -> Result<(), String> {
    if text.trim_start_matches('-').len() > INTEGER_DIGITS {
        return Err(format!(
            "an integer of more than {INTEGER_DIGITS} digits, which Python refuses"
        ));
    }
    out.push_str(if text == "-0" { "0" } else { text });
    Ok(())
}

/// A float by Python's `repr`: the shortest digits that parse to it, without exponent from 1e-4 to 1e16.
fn put_float(out: &mut String, number: f64) {
    if number.is_infinite() {
        out.push_str(if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
        return;
    }
    let shortest = shortest_digits(number);
    let exponent = shortest
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    // Writing to a String cannot fail.
    let _ = match exponent {
        Some(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let mantissa = shortest.split('e').next().unwrap_or_default();
            let sign = if exponent < 0 { '-' } else { '+' };
            write!(out, "{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => {
            out.push_str(&plain(&shortest, exponent.unwrap_or_default()));
            Ok(())
        }
    };
}

/// The shortest digits that parse to `number`, as `d.ddde±x`. Between two equally near candidates Rust
/// rounds up and Python to even, as exact formatting does.
fn shortest_digits(number: f64) -> String {
    let shortest = format!("{number:e}");
    let mantissa = shortest.split('e').next().unwrap_or_default();
    let decimals = mantissa
        .split_once('.')
        .map_or(0, |(_, decimals)| decimals.len());
    let even = format!("{number:.decimals$e}");
    if even.parse() == Ok(number) {
        even
    } else {
        shortest
    }
}

/// `d.ddde±x` written without an exponent and with at least one decimal.
fn plain(scientific: &str, exponent: i32) -> String {
    let mantissa = scientific.split('e').next().unwrap_or_default();
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = exponent as usize + 1;
    while digits.len() < whole + 1 {
        digits.push('0');
    }
    let (whole, decimals) = digits.split_at(whole);
    format!("{sign}{whole}.{decimals}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, dumped: &str) {
        assert_eq!(redump(json).as_deref(), Ok(dumped), "{json}");
    }

    #[test]
    fn values_are_written_as_by_python() {
        check(" { \"a\" : [ 1 , 2.50 , \"x\" ] } ", r#"{"a":[1,2.5,"x"]}"#);
        check(r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#);
        check(r#"{"a":1,"\u0061":3}"#, r#"{"a":3}"#);
        check(
            "[1e16,1e15,1E-5,0.0001,-0,-0.0,1e400,-1e400]",
            "[1e+16,1000000000000000.0,1e-05,0.0001,0,-0.0,Infinity,-Infinity]",
        );
        check(
            "[NaN,Infinity,-Infinity,123456789012345678901234567890]",
            "[NaN,Infinity,-Infinity,123456789012345678901234567890]",
        );
        check(
            "\"é😀/\\/\x7f\\ud83d\"",
            r#""\u00e9\ud83d\ude00//\u007f\ud83d""#,
        );
    }

    #[test]
    fn text_that_python_refuses_is_refused() {
        for json in [
            "",
            "[1,]",
            "{\"a\"}",
            "01",
            "[1] 2",
            "\"\n\"",
            "tru",
            "{a:1}",
            "+1",
            ".5",
            "1.",
            "\"\\x\"",
            "\u{feff}1",
        ] {
            assert!(redump(json).is_err(), "{json:?}");
        }
        assert!(redump(&"[".repeat(100_000)).is_err());
        assert!(redump(&"9".repeat(5000)).is_err());
    }
}
