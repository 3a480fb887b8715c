//! CSV as the original carries it: read by Python's `csv` (dialect excel), fields joined with `,`
//! and rows with a newline, quotes gone.

use super::Refusal;

/// Python's `csv.field_size_limit`, in characters.
const FIELD_LIMIT: usize = 131_072;

enum State {
    StartRecord,
    StartField,
    InField,
    InQuotes,
    QuoteInQuotes,
}

/// Parses and joins again. Line ends of every kind become `\n`, as Python's text files do.
pub fn rejoin(text: &str) -> Result<String, Refusal> {
    let mut out = String::with_capacity(text.len());
    let mut state = State::StartRecord;
    let mut rows = 0u64;
    let mut field_len = 0;
    let mut letters = text.char_indices().peekable();
    while let Some((offset, mut letter)) = letters.next() {
        if letter == '\r' {
            letters.next_if(|&(_, next)| next == '\n');
            letter = '\n';
        }
        if matches!(state, State::StartRecord) {
            if rows > 0 {
                out.push('\n');
            }
            rows += 1;
            field_len = 0;
        }
        let mut add = |letter| {
            field_len += 1;
            out.push(letter);
        };
        state = match (state, letter) {
            (State::StartRecord | State::StartField, '"') => State::InQuotes,
            (State::InQuotes, '"') => State::QuoteInQuotes,
            (State::InQuotes, letter) => {
                add(letter);
                State::InQuotes
            }
            (State::QuoteInQuotes, '"') => {
                add('"');
                State::InQuotes
            }
            (_, '\n') => State::StartRecord,
            (_, ',') => {
                out.push(',');
                field_len = 0;
                State::StartField
            }
            (_, letter) => {
                add(letter);
                State::InField
            }
        };
        if field_len > FIELD_LIMIT {
            return Err(Refusal::Syntax {
                what: format!(
                    "a CSV field of more than {FIELD_LIMIT} characters, which Python refuses"
                ),
                offset,
            });
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_line_ends_go() {
        let check = |csv, joined| assert_eq!(rejoin(csv).as_deref(), Ok(joined), "{csv:?}");
        check("a,b\r\n\"1,2\",\"x\"\"y\"\r\n", "a,b\n1,2,x\"y");
        check("a\n\nb", "a\n\nb");
        check("\"two\r\nlines\"z,q\"q\n", "two\nlinesz,q\"q");
        check("\"open", "open");
        check(",\n", ",");
        check("", "");
    }
}
