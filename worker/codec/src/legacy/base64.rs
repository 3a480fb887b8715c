//! Base64 with the standard alphabet and padding.

use crate::Damage;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes` in base64.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for position in 0..4 {
            out.push(if position <= group.len() {
                ALPHABET[(bits >> (18 - 6 * position)) as usize & 63]
            } else {
                b'='
            });
        }
    }
}

/// Reads base64 in complete groups of four.
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, Damage> {
    if !text.len().is_multiple_of(4) {
        return Err(Damage::new("base64 is not in groups of four"));
    }
    let padding = text
        .iter()
        .rev()
        .take(2)
        .take_while(|&&byte| byte == b'=')
        .count();
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for (at, group) in text.chunks(4).enumerate() {
        let last = (at + 1) * 4 == text.len();
        let kept = if last { 4 - padding } else { 4 };
        let mut bits = 0u32;
        for (position, &byte) in group.iter().enumerate() {
            let six = if position < kept { value(byte)? } else { 0 };
            bits = bits << 6 | u32::from(six);
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..kept]);
    }
    Ok(out)
}

fn value(byte: u8) -> Result<u8, Damage> {
    match byte {
        b'A'..=b'Z' => Ok(byte - b'A'),
        b'a'..=b'z' => Ok(byte - b'a' + 26),
        b'0'..=b'9' => Ok(byte - b'0' + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => Err(Damage::new(format!("byte {byte:#04x} is not base64"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_round_trip() {
        for (raw, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            let mut out = Vec::new();
            encode(raw.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
            assert_eq!(decode(text.as_bytes()).as_deref(), Ok(raw.as_bytes()));
        }
    }

    #[test]
    fn text_that_is_not_base64_is_refused() {
        for text in ["Zg=", "Z===", "Zg==Zg==", "Zm9*", "===="] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
    }
}
