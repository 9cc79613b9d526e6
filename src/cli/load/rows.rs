//! The bytes of the input as rows: lines, or in CSV rows that a quote may spread over several lines.
//!
//! A row is handed out as soon as its last byte was read, however the reads cut the input.

use csv_core::ReadRecordResult;

/// UTF-8's, as some programs put it before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The source of one record.
pub(crate) struct Row<'a> {
    /// The number of its first line, from 1.
    pub(crate) line: u64,
    /// Its bytes, without the end of the line.
    pub(crate) bytes: &'a [u8],
    /// CSV: its columns, unquoted, one after the other.
    columns: &'a [u8],
    /// CSV: where each column ends.
    ends: &'a [usize],
}

impl<'a> Row<'a> {
    /// A row whose columns are not known.
    pub(crate) fn line(line: u64, bytes: &'a [u8]) -> Self {
        Self { line, bytes, columns: &[], ends: &[] }
    }

    /// How many columns it has.
    pub(crate) fn columns(&self) -> usize {
        self.ends.len()
    }

    /// A column, from 1.
    pub(crate) fn column(&self, number: usize) -> Option<&'a [u8]> {
        let at = number.checked_sub(1)?;
        let begin = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        self.columns.get(begin..*self.ends.get(at)?)
    }
}

/// Cuts the input into rows.
pub(crate) struct Rows {
    cutter: Cutter,
    /// The first bytes, until they are known to be a byte order mark or not; `None` from then on.
    head: Option<Vec<u8>>,
}

enum Cutter {
    Lines(Lines),
    Csv(Box<Csv>),
}

impl Rows {
    /// A row is a line.
    pub(crate) fn lines() -> Self {
        Self { cutter: Cutter::Lines(Lines::default()), head: Some(Vec::new()) }
    }

    /// A row is one of CSV.
    pub(crate) fn csv(delimiter: u8) -> Self {
        Self { cutter: Cutter::Csv(Box::new(Csv::new(delimiter))), head: Some(Vec::new()) }
    }

    /// How many lines have been read to their end.
    pub(crate) fn lines_read(&self) -> u64 {
        match &self.cutter {
            Cutter::Lines(lines) => lines.read,
            Cutter::Csv(csv) => csv.lines,
        }
    }

    /// How many bytes of a row were read whose end was not.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        match &self.cutter {
            Cutter::Lines(lines) => lines.unfinished.len(),
            Cutter::Csv(csv) => csv.raw.len(),
        }
    }

    /// The input has ended inside of a quote: the line in which that row begins.
    pub(crate) fn open_quote(&self) -> Option<u64> {
        match &self.cutter {
            Cutter::Lines(_) => None,
            Cutter::Csv(csv) => csv.open_quote,
        }
    }

    /// Takes further bytes, and hands out each row that they end.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&Row<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some(head) = &mut self.head else { return self.cutter.take(bytes, &mut each) };
        head.extend_from_slice(bytes);
        if head.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(head) {
            return Ok(());
        }
        self.take_head(&mut each)
    }

    /// Hands out the last row, which may lack the end of its line.
    pub(crate) fn end(&mut self, mut each: impl FnMut(&Row<'_>) -> Result<(), String>) -> Result<(), String> {
        self.take_head(&mut each)?;
        match &mut self.cutter {
            Cutter::Lines(lines) => lines.end(&mut each),
            Cutter::Csv(csv) => csv.end(&mut each),
        }
    }

    fn take_head(&mut self, each: &mut impl FnMut(&Row<'_>) -> Result<(), String>) -> Result<(), String> {
        let head = self.head.take().unwrap_or_default();
        self.cutter.take(head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&head), each)
    }
}

impl Cutter {
    fn take(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&Row<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        match self {
            Self::Lines(lines) => lines.take(bytes, each),
            Self::Csv(csv) => csv.take(bytes, each),
        }
    }
}

#[derive(Default)]
struct Lines {
    read: u64,
    /// The beginning of a line whose end has not been read.
    unfinished: Vec<u8>,
}

impl Lines {
    fn take(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&Row<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut pieces = bytes.split(|&byte| byte == b'\n');
        // The bytes after the last newline, if there are any, are not a whole line.
        let rest = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.read += 1;
            if self.unfinished.is_empty() {
                each(&Row::line(self.read, without_return(piece)))?;
            } else {
                self.unfinished.extend_from_slice(piece);
                each(&Row::line(self.read, without_return(&self.unfinished)))?;
                self.unfinished.clear();
            }
        }
        self.unfinished.extend_from_slice(rest);
        Ok(())
    }

    fn end(&mut self, each: &mut impl FnMut(&Row<'_>) -> Result<(), String>) -> Result<(), String> {
        let last = std::mem::take(&mut self.unfinished);
        if last.is_empty() {
            return Ok(());
        }
        self.read += 1;
        each(&Row::line(self.read, without_return(&last)))
    }
}

/// A line of a text in which lines end with a carriage return and a newline.
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

struct Csv {
    core: csv_core::Reader,
    /// How many lines were read before the row.
    lines: u64,
    /// The row as far as it was read, and the ends of lines before it.
    raw: Vec<u8>,
    columns: Vec<u8>,
    columns_bytes: usize,
    ends: Vec<usize>,
    ends_count: usize,
    /// The input has ended in a quote: the line of its row.
    open_quote: Option<u64>,
}

impl Csv {
    fn new(delimiter: u8) -> Self {
        let mut core = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        // Passes over a byte order mark by itself where a first read has all of it, and here it is past the
        // head: what follows is text, however the reads cut it.
        core.read_record(b"\n", &mut [0], &mut [0]);
        Self {
            core,
            lines: 0,
            raw: Vec::new(),
            columns: vec![0; 1024],
            columns_bytes: 0,
            ends: vec![0; 32],
            ends_count: 0,
            open_quote: None,
        }
    }

    fn take(
        &mut self,
        mut bytes: &[u8],
        each: &mut impl FnMut(&Row<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            let (result, read) = self.read(bytes);
            self.raw.extend_from_slice(&bytes[..read]);
            bytes = &bytes[read..];
            if let ReadRecordResult::Record = result {
                self.hand_out(each)?;
            }
        }
        if self.columns_bytes == 0 && self.raw.iter().all(|&byte| is_end_of_line(byte)) {
            // Blank lines are part of no row.
            self.lines += newlines(&self.raw);
            self.raw.clear();
        }
        Ok(())
    }

    fn end(&mut self, each: &mut impl FnMut(&Row<'_>) -> Result<(), String>) -> Result<(), String> {
        if self.raw.is_empty() {
            return Ok(());
        }
        loop {
            // Outside of quotes, a newline ends the row.
            match self.read(b"\n").0 {
                ReadRecordResult::Record => {
                    let done = self.hand_out(each);
                    self.lines += 1;
                    return done;
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {
                    self.open_quote = Some(self.lines + newlines(self.before_row()) + 1);
                    return Ok(());
                }
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {}
            }
        }
    }

    /// Reads on, with more room where there was too little; how many bytes of the input were read.
    fn read(&mut self, bytes: &[u8]) -> (ReadRecordResult, usize) {
        let (result, read, columns_bytes, ends) = self.core.read_record(
            bytes,
            &mut self.columns[self.columns_bytes..],
            &mut self.ends[self.ends_count..],
        );
        self.columns_bytes += columns_bytes;
        self.ends_count += ends;
        match result {
            ReadRecordResult::OutputFull => self.columns.resize(self.columns.len() * 2, 0),
            ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            _ => {}
        }
        (result, read)
    }

    fn hand_out(&mut self, each: &mut impl FnMut(&Row<'_>) -> Result<(), String>) -> Result<(), String> {
        let before = self.before_row().len();
        let line = self.lines + newlines(&self.raw[..before]) + 1;
        let bytes = &self.raw[before..];
        let row = Row {
            line,
            bytes: bytes.strip_suffix(b"\n").or(bytes.strip_suffix(b"\r")).unwrap_or(bytes),
            columns: &self.columns[..self.columns_bytes],
            ends: &self.ends[..self.ends_count],
        };
        let done = each(&row);
        self.lines += newlines(&self.raw);
        self.raw.clear();
        self.columns_bytes = 0;
        self.ends_count = 0;
        done
    }

    /// The ends of lines before the row.
    fn before_row(&self) -> &[u8] {
        let end = self.raw.iter().position(|&byte| !is_end_of_line(byte)).unwrap_or(self.raw.len());
        &self.raw[..end]
    }
}

fn is_end_of_line(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = (u64, Vec<u8>, Vec<Vec<u8>>);

    /// The rows of a text that comes in pieces of so many bytes; how many lines; a quote that is open.
    fn rows(mut rows: Rows, text: &[u8], piece: usize) -> (Vec<Seen>, u64, Option<u64>) {
        let mut seen = Vec::new();
        let mut each = |row: &Row<'_>| {
            let columns = (1..=row.columns()).map(|n| row.column(n).expect("a column").to_vec());
            seen.push((row.line, row.bytes.to_vec(), columns.collect()));
            Ok(())
        };
        for bytes in text.chunks(piece) {
            rows.take(bytes, &mut each).expect("no row is refused");
        }
        rows.end(&mut each).expect("no row is refused");
        (seen, rows.lines_read(), rows.open_quote())
    }

    fn csv(line: u64, bytes: &str, columns: &[&str]) -> Seen {
        (line, bytes.into(), columns.iter().map(|column| column.as_bytes().to_vec()).collect())
    }

    #[test]
    fn rows_are_the_same_however_the_input_is_cut() {
        let text = "\u{feff}id,\"na\"\"me\"\r\n\n1,\"two\r\nlines\"\n\r\n\"2\",\nx\r\n3,é".as_bytes();
        for piece in 1..=text.len() {
            let (seen, lines, open) = rows(Rows::csv(b','), text, piece);
            assert_eq!(
                seen,
                [
                    csv(1, "id,\"na\"\"me\"", &["id", "na\"me"]),
                    csv(3, "1,\"two\r\nlines\"", &["1", "two\r\nlines"]),
                    csv(6, "\"2\",", &["2", ""]),
                    csv(7, "x", &["x"]),
                    csv(8, "3,é", &["3", "é"]),
                ],
                "{piece}"
            );
            assert_eq!((lines, open), (8, None), "{piece}");
            let (seen, lines, open) = rows(Rows::lines(), text, piece);
            let expected: Vec<Seen> = str::from_utf8(text)
                .expect("text")
                .trim_start_matches('\u{feff}')
                .lines()
                .zip(1..)
                .map(|(text, line)| csv(line, text, &[]))
                .collect();
            assert_eq!((seen, lines, open), (expected, 8, None), "{piece}");
        }
    }

    #[test]
    fn a_quote_without_an_end_is_an_error_and_not_a_row() {
        let (seen, _, open) = rows(Rows::csv(b';'), b"a;b\n\n1;\"x\n2;y\n", 3);
        assert_eq!((seen.len(), open), (1, Some(3)));
        // An end of the input right after a quote is one of the row too.
        assert_eq!(rows(Rows::csv(b';'), b"1;\"x\"", 3).0, [csv(1, "1;\"x\"", &["1", "x"])]);
    }

    #[test]
    fn many_columns_and_long_ones_are_whole() {
        let text = format!("{}\n{}\n", "x".repeat(5000), ["y"; 500].join(","));
        let (seen, ..) = rows(Rows::csv(b','), text.as_bytes(), 700);
        assert_eq!((seen[0].2.len(), seen[0].2[0].len(), seen[1].2.len()), (1, 5000, 500));
        assert!(rows(Rows::csv(b','), &[b'\n'; 5000], 64).0.is_empty());
    }

    #[test]
    fn a_second_byte_order_mark_is_text() {
        let text = "\u{feff}\u{feff}1;x\n\u{feff}".as_bytes();
        for piece in 1..=text.len() {
            let (seen, _, open) = rows(Rows::csv(b';'), text, piece);
            let expected = [csv(1, "\u{feff}1;x", &["\u{feff}1", "x"]), csv(2, "\u{feff}", &["\u{feff}"])];
            assert_eq!((&seen[..], open), (&expected[..], None), "{piece}");
        }
        assert_eq!(rows(Rows::csv(b';'), &text[..6], 6).0, [csv(1, "\u{feff}", &["\u{feff}"])]);
    }

    #[test]
    fn blank_lines_are_not_kept() {
        let mut rows = Rows::csv(b',');
        rows.take(&[b'\n'; 5000], |_| Ok(())).expect("nothing is refused");
        assert_eq!((rows.unfinished_bytes(), rows.lines_read()), (0, 5000));
    }
}
