//! CSV of the original: read as by Python's `csv` (dialect excel), fields joined with `,` and rows with a
//! newline, without quotes.

use super::LegacyError;

/// Python's `csv.field_size_limit`, in characters.
const FIELD_LIMIT: usize = 131_072;

enum CsvState {
    StartRecord,
    StartField,
    InField,
    InQuotes,
    QuoteInQuotes,
}

/// Parses and joins. Line ends of every kind become `\n`, as in Python's text mode.
pub(super) fn rejoin(text: &str) -> Result<String, LegacyError> {
    let mut out = String::with_capacity(text.len());
    let mut state = CsvState::StartRecord;
    let mut rows = 0u64;
    let mut field_len = 0;
    let mut letters = text.char_indices().peekable();
    while let Some((offset, mut letter)) = letters.next() {
        if letter == '\r' {
            letters.next_if(|&(_, next)| next == '\n');
            letter = '\n';
        }
        if matches!(state, CsvState::StartRecord) {
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
            (CsvState::StartRecord | CsvState::StartField, '"') => CsvState::InQuotes,
            (CsvState::InQuotes, '"') => CsvState::QuoteInQuotes,
            (CsvState::InQuotes, letter) => {
                add(letter);
                CsvState::InQuotes
            }
            (CsvState::QuoteInQuotes, '"') => {
                add('"');
                CsvState::InQuotes
            }
            (_, '\n') => CsvState::StartRecord,
            (_, ',') => {
                out.push(',');
                field_len = 0;
                CsvState::StartField
            }
            (_, letter) => {
                add(letter);
                CsvState::InField
            }
        };
        if field_len > FIELD_LIMIT {
            return Err(LegacyError::Syntax {
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
    fn quotes_are_removed_and_line_ends_unified() {
        let check = |csv, joined| assert_eq!(rejoin(csv).as_deref(), Ok(joined), "{csv:?}");
        check("a,b\r\n\"1,2\",\"x\"\"y\"\r\n", "a,b\n1,2,x\"y");
        check("a\n\nb", "a\n\nb");
        check("\"two\r\nlines\"z,q\"q\n", "two\nlinesz,q\"q");
        check("\"open", "open");
        check(",\n", ",");
        check("", "");
    }
}
