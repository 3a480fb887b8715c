//! Block boundaries: a block ends after a complete row, so that its columns are complete.

/// Finds the last row end in each window of a file.
#[derive(Debug, Default)]
pub(super) struct BoundaryFinder {
    shape: Option<RowShape>,
    /// For documents: the number of open brackets at the start of the window.
    depth: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowShape {
    /// One row in each line: NDJSON, CSV, logs.
    Lines,
    /// One JSON document, whose rows are the elements of its outermost long array.
    Document,
}

impl BoundaryFinder {
    /// The length of the next block in bytes. `window` is full, and more bytes follow it.
    pub(super) fn find(&mut self, window: &[u8]) -> usize {
        let shape = *self.shape.get_or_insert_with(|| row_shape(window));
        let found = match shape {
            RowShape::Lines => None,
            RowShape::Document => self.after_element(window),
        };
        found
            .or_else(|| after_last_line(window))
            .unwrap_or(window.len())
    }

    /// The end of the last element in the second half of the window at the smallest depth.
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

/// A file whose first line opens a bracket and does not close it is a document.
fn row_shape(window: &[u8]) -> RowShape {
    let text = window.trim_ascii_start();
    if !matches!(text.first(), Some(b'{' | b'[')) {
        return RowShape::Lines;
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
        RowShape::Lines
    } else {
        RowShape::Document
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
        &text[..BoundaryFinder::default().find(&text.as_bytes()[..size])]
    }

    #[test]
    fn blocks_of_lines_end_after_a_newline() {
        assert_eq!(first_block("a,b\n1,2\n3,4\n5,6\n", 10), "a,b\n1,2\n");
        assert_eq!(
            first_block("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n", 18),
            "{\"a\":1}\n{\"a\":2}\n"
        );
    }

    #[test]
    fn blocks_of_a_document_end_after_an_element() {
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
    fn the_depth_carries_over_to_the_second_window() {
        let text = br#"[{"a":1,"b":2},{"a":3,"b":4},{"a":5,"b":6},{"a":7,"b":8}]"#;
        let mut finder = BoundaryFinder::default();
        let first = finder.find(&text[..24]);
        assert_eq!(&text[..first], br#"[{"a":1,"b":2},"#);
        let second = finder.find(&text[first..first + 24]);
        assert_eq!(&text[first..first + second], br#"{"a":3,"b":4},"#);
    }

    #[test]
    fn bytes_without_rows_fill_the_block() {
        assert_eq!(BoundaryFinder::default().find(&[7; 100]), 100);
    }
}
