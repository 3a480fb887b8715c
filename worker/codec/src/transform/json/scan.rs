//! The extent of JSON values, without building anything.

use super::DEPTH_LIMIT;

/// The number of white space bytes at `at`.
pub(super) fn space(text: &[u8], at: usize) -> usize {
    text[at.min(text.len())..]
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .count()
}

/// The end of the string that begins at `at`; `None` if it does not end or holds control characters.
pub(super) fn string(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += plain_len(text.get(at..)?);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// The number of bytes before a quote, a backslash or a control character, in steps of eight.
fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let zero_byte = |bits: u64| bits.wrapping_sub(ONES) & !bits & HIGH;
    let (chunks, _) = text.as_chunks::<8>();
    let plain = chunks.iter().take_while(|&&chunk| {
        let bits = u64::from_le_bytes(chunk);
        let quote = zero_byte(bits ^ (ONES * u64::from(b'"')));
        let backslash = zero_byte(bits ^ (ONES * u64::from(b'\\')));
        let control = zero_byte(bits & (ONES * 0xe0));
        (quote | backslash | control) == 0
    });
    plain.count() * 8
}

/// The end of the scalar that begins at `at`: a string, or a run of letters, digits and signs.
pub(super) fn scalar(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) == Some(&b'"') {
        return string(text, at);
    }
    let len = text[at.min(text.len())..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
        .count();
    (len > 0).then_some(at + len)
}

/// The end of the value that begins at `at`.
pub(super) fn value(text: &[u8], at: usize, depth: usize) -> Option<usize> {
    let (close, keys) = match text.get(at)? {
        b'{' => (b'}', true),
        b'[' => (b']', false),
        _ => return scalar(text, at),
    };
    if depth >= DEPTH_LIMIT {
        return None;
    }
    let mut at = at + 1;
    at += space(text, at);
    if text.get(at) == Some(&close) {
        return Some(at + 1);
    }
    loop {
        if keys {
            at = string(text, at)?;
            at += space(text, at);
            if text.get(at) != Some(&b':') {
                return None;
            }
            at += 1;
            at += space(text, at);
        }
        at = value(text, at, depth + 1)?;
        at += space(text, at);
        match text.get(at)? {
            b',' => at += 1 + space(text, at + 1),
            byte if *byte == close => return Some(at + 1),
            _ => return None,
        }
    }
}

/// The length of a short array of scalars other than strings, such as a point; `None` for others.
pub(super) fn tuple_len(text: &[u8], at: usize, max: usize) -> Option<usize> {
    let mut at = at + 1;
    for len in 1..=max {
        at += space(text, at);
        if text.get(at) == Some(&b'"') {
            return None;
        }
        at = scalar(text, at)?;
        at += space(text, at);
        match text.get(at)? {
            b',' => at += 1,
            b']' => return Some(len),
            _ => return None,
        }
    }
    None
}
