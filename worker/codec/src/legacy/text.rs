//! Text of the original: `" ".join(text.split())` in Python.

/// Every run of white space becomes one space; none at the ends.
pub(super) fn single_spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for token in text
        .split(is_python_space)
        .filter(|token| !token.is_empty())
    {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(token);
    }
    out
}

/// Python also counts the four ASCII separators as white space.
fn is_python_space(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

#[cfg(test)]
mod tests {
    #[test]
    fn runs_of_white_space_become_one_space() {
        assert_eq!(
            super::single_spaced(" a\t\n b\u{a0}\u{2003}c\x1cd \n"),
            "a b c d"
        );
        assert_eq!(super::single_spaced(" \n "), "");
    }
}
