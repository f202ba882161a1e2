//! Lines of a file, one after the other, each of bounded length.

use std::io::{self, BufRead};

/// The longest line that is kept, in bytes: far more than any format makes.
const LONGEST: usize = 1_024;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// What stands on it, without its end.
    Text(&'a str),
    /// It is not UTF-8 from this character on, counted from 1.
    Broken { column: usize },
    /// It is longer than any number.
    TooLong,
}

/// Reads lines that end in LF or CRLF; a byte order mark at the beginning is passed over.
pub(super) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0 }
    }

    /// The next line that is not blank, with its number, counted from 1.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Line<'_>)>> {
        loop {
            let Some(is_whole) = self.read()? else { return Ok(None) };
            self.number += 1;
            if !is_whole {
                return Ok(Some((self.number, Line::TooLong)));
            }
            if self.number == 1 && self.line.starts_with("\u{FEFF}".as_bytes()) {
                self.line.drain(..3);
            }
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some((self.number, text(&self.line))))
    }

    /// Reads up to the end of a line; whether all of it was kept. `None` at the end of the input.
    fn read(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        let (mut is_whole, mut is_empty) = (true, true);
        loop {
            let part = self.input.fill_buf()?;
            if part.is_empty() {
                return Ok((!is_empty).then_some(is_whole));
            }
            is_empty = false;
            let end = part.iter().position(|byte| *byte == b'\n');
            let kept = &part[..end.unwrap_or(part.len())];
            if self.line.len() + kept.len() <= LONGEST {
                self.line.extend_from_slice(kept);
            } else {
                is_whole = false;
            }
            let read = end.map_or(part.len(), |end| end + 1);
            self.input.consume(read);
            if end.is_some() {
                return Ok(Some(is_whole));
            }
        }
    }
}

fn text(line: &[u8]) -> Line<'_> {
    match std::str::from_utf8(line) {
        Ok(text) => Line::Text(text),
        Err(error) => {
            let good = std::str::from_utf8(&line[..error.valid_up_to()]).unwrap_or_default();
            Line::Broken { column: good.chars().count() + 1 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line, read through a buffer so small that lines lie across its ends.
    fn lines(bytes: &[u8]) -> Vec<(u64, String)> {
        let mut lines = Lines::new(io::BufReader::with_capacity(3, bytes));
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().expect("readable") {
            found.push((
                number,
                match line {
                    Line::Text(text) => text.to_owned(),
                    Line::Broken { .. } | Line::TooLong => format!("{line:?}"),
                },
            ));
        }
        found
    }

    #[test]
    fn ends_of_lines_and_blank_ones_do_not_matter() {
        let expected = vec![(1, "A-1".to_owned()), (4, " A-2".to_owned()), (5, "A-3".to_owned())];
        assert_eq!(lines(b"A-1\n\n  \t\n A-2\nA-3"), expected);
        assert_eq!(lines("\u{FEFF}A-1\r\n\r\n\n A-2\r\nA-3\r\n".as_bytes()), expected);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n\r\n"), []);
    }

    #[test]
    fn what_is_no_text_and_what_is_too_long_is_told() {
        let long = "x".repeat(LONGEST + 1);
        let kept = "y".repeat(LONGEST);
        let bytes = [b"\xC3\xA4b\xFFc\n", long.as_bytes(), b"\n", kept.as_bytes()].concat();
        let expected =
            vec![(1, "Broken { column: 3 }".to_owned()), (2, "TooLong".to_owned()), (3, kept.clone())];
        assert_eq!(lines(&bytes), expected);
    }
}
