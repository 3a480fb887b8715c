//! Where a block may end: behind a whole row, so that each block's columns are complete.

/// Follows a file across its blocks and finds the last row end in each window.
#[derive(Debug, Default)]
pub struct Cutter {
    shape: Option<Shape>,
    /// Brackets open at the start of the window, for documents.
    depth: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One row a line: NDJSON, CSV, logs.
    Lines,
    /// One JSON document: rows are the elements of its outermost long array.
    Document,
}

impl Cutter {
    /// How many bytes of `window` the next block takes. `window` is full; more follows it.
    pub fn cut(&mut self, window: &[u8]) -> usize {
        let shape = *self.shape.get_or_insert_with(|| guess(window));
        let found = match shape {
            Shape::Lines => None,
            Shape::Document => self.after_element(window),
        };
        found
            .or_else(|| after_last_line(window))
            .unwrap_or(window.len())
    }

    /// The end of the last element in the second half of the window, at the smallest depth there is.
    fn after_element(&mut self, window: &[u8]) -> Option<usize> {
        let mut depth = self.depth;
        let mut in_string = false;
        let mut escaped = false;
        let mut best: Option<(i64, usize)> = None;
        for (at, &byte) in window.iter().enumerate() {
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b',' if at >= window.len() / 2
                    && best.is_none_or(|(smallest, _)| depth <= smallest) =>
                {
                    best = Some((depth, at + 1));
                }
                _ => {}
            }
        }
        let (depth, end) = best?;
        self.depth = depth;
        Some(end)
    }
}

/// A document opens a bracket that its first line does not close.
fn guess(window: &[u8]) -> Shape {
    let text = window.trim_ascii_start();
    if !matches!(text.first(), Some(b'{' | b'[')) {
        return Shape::Lines;
    }
    let line = text
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or(text)
        .trim_ascii_end();
    let closed = matches!(
        (text.first(), line.last()),
        (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']'))
    );
    if closed && line.len() < text.len() {
        Shape::Lines
    } else {
        Shape::Document
    }
}

fn after_last_line(window: &[u8]) -> Option<usize> {
    window
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_block(text: &str, size: usize) -> &str {
        &text[..Cutter::default().cut(&text.as_bytes()[..size])]
    }

    #[test]
    fn lines_end_at_a_newline() {
        assert_eq!(first_block("a,b\n1,2\n3,4\n5,6\n", 10), "a,b\n1,2\n");
        assert_eq!(
            first_block("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n", 18),
            "{\"a\":1}\n{\"a\":2}\n"
        );
    }

    #[test]
    fn documents_end_behind_an_element() {
        assert_eq!(
            first_block(r#"[{"a":1},{"a":"},"},{"a":3}]"#, 22),
            r#"[{"a":1},{"a":"},"},"#
        );
        let nested = r#"{"rows":[{"a":1,"b":2},{"a":3,"b":4},{"a":5,"b":6}]}"#;
        assert_eq!(
            first_block(nested, 45),
            r#"{"rows":[{"a":1,"b":2},{"a":3,"b":4},"#
        );
    }

    #[test]
    fn the_second_window_knows_its_depth() {
        let text = br#"[{"a":1,"b":2},{"a":3,"b":4},{"a":5,"b":6},{"a":7,"b":8}]"#;
        let mut cutter = Cutter::default();
        let first = cutter.cut(&text[..24]);
        assert_eq!(&text[..first], br#"[{"a":1,"b":2},"#);
        let second = cutter.cut(&text[first..first + 24]);
        assert_eq!(&text[first..first + second], br#"{"a":3,"b":4},"#);
    }

    #[test]
    fn bytes_without_rows_are_cut_hard() {
        assert_eq!(Cutter::default().cut(&[7; 100]), 100);
    }
}
