//! A row of the input as a record: JSON, or text with the id in one of its columns.

use std::borrow::Cow;

use clap::ValueEnum;

use super::super::failure::Failure;
use super::super::jsonl;
use super::super::target::Target;
use super::csv::Csv;
use super::id_from::{IdFrom, Place, parse_id_from, parse_place, parse_radix};
use super::rows::{Row, Rows};

/// A record in a row: its name, its bytes, and the deadline of a key in milliseconds since 1970.
pub(crate) type Taken<'a> = (Target, Cow<'a, [u8]>, Option<u64>);

/// JSON may take six bytes for one of the record (`\u0000`).
const JSON_BYTES_PER_BYTE: usize = 6;
/// CSV may take two (`""`), and base64 in CSV less than that.
const CSV_BYTES_PER_BYTE: usize = 2;
/// Bytes that a row may have beside the record's: other fields, white space.
const EXTRA_BYTES: usize = 1 << 20;

/// The form of the rows, by the arguments.
#[derive(clap::Args)]
pub(crate) struct FormatArgs {
    /// The form of the input
    #[arg(long, value_enum, default_value_t = Kind::Jsonl)]
    format: Kind,
    /// csv, delimited: the separator of columns, one character; \t is a tab [default: ,]
    #[arg(long, value_name = "C", value_parser = parse_delimiter, allow_hyphen_values = true)]
    delimiter: Option<char>,
    /// csv, delimited: the column with the id, by its number, from 1, or by its name in the header [default: id
    /// in csv with a header, else 1]
    #[arg(long, value_name = "NAME|N", value_parser = parse_place)]
    id_column: Option<Place>,
    /// csv, delimited: whether the id is written in decimal or in hexadecimal [default: 10]
    #[arg(long, value_name = "R", value_parser = parse_radix)]
    id_radix: Option<u32>,
    /// csv, delimited: make the ids: `line`, the number of the row's line; or `hash:COLUMN`, from the text of a
    /// column, so that `recstore read STORE hash:TEXT` finds the record
    #[arg(long, value_name = "FROM", value_parser = parse_id_from, conflicts_with_all = ["id_column", "id_radix"])]
    id_from: Option<IdFrom>,
    /// csv: the column that is the record [default: the whole row, as it stands there; `data` or `base64`, if
    /// the columns are those of `recstore export`]
    #[arg(long, value_name = "NAME|N", value_parser = parse_place)]
    data_column: Option<Place>,
    /// csv: the first row is a record too, not the names of the columns
    #[arg(long)]
    no_header: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// {"id":1,"data":"text"} or {"id":1,"base64":"/w=="} in each line, as `recstore dump` prints it
    Jsonl,
    /// Comma-separated values: a header, and rows whose columns may be quoted
    Csv,
    /// The record is the whole line; its id is one of the columns. Quotes mean nothing
    Delimited,
}

impl FormatArgs {
    /// The arguments, if they fit together.
    pub(crate) fn format(&self) -> Result<Format, Failure> {
        let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
        if self.format != Kind::Csv && (self.data_column.is_some() || self.no_header) {
            return wrong("--data-column and --no-header are for --format csv");
        }
        if self.format == Kind::Jsonl {
            let is_bare = self.delimiter.is_none()
                && self.id_column.is_none()
                && self.id_radix.is_none()
                && self.id_from.is_none();
            return match is_bare {
                true => Ok(Format::Jsonl),
                false => wrong(
                    "--delimiter, --id-column, --id-radix and --id-from are for --format csv and delimited",
                ),
            };
        }
        let has_header = self.format == Kind::Csv && !self.no_header;
        let first = if has_header { Place::Name("id".into()) } else { Place::Number(1) };
        let id = self.id_from.clone().unwrap_or_else(|| IdFrom::Column {
            place: self.id_column.clone().unwrap_or(first),
            radix: self.id_radix.unwrap_or(10),
        });
        let named = |place: &Place| matches!(place, Place::Name(_));
        if !has_header && (id.place().is_some_and(named) || self.data_column.as_ref().is_some_and(named)) {
            return wrong(
                "without a header a column has a number, and no name; a header is for --format csv",
            );
        }
        let delimiter = self.delimiter.unwrap_or(',');
        if self.format == Kind::Delimited {
            return Ok(Format::Delimited { delimiter: delimiter.to_string().into_bytes(), id });
        }
        match u8::try_from(delimiter) {
            Ok(delimiter) if delimiter.is_ascii() && !b"\"\r".contains(&delimiter) => {
                Ok(Format::Csv(Csv::new(delimiter, has_header, id, self.data_column.clone())))
            }
            _ => Err(Failure::Usage(format!(
                "--delimiter {delimiter:?} can't separate columns of csv; use one ASCII character other than a quote"
            ))),
        }
    }
}

/// The form of the rows.
pub(crate) enum Format {
    Jsonl,
    Csv(Csv),
    Delimited { delimiter: Vec<u8>, id: IdFrom },
}

impl Format {
    /// Makes rows of the input.
    pub(crate) fn rows(&self) -> Rows {
        match self {
            Self::Csv(csv) => Rows::csv(csv.delimiter),
            Self::Jsonl | Self::Delimited { .. } => Rows::lines(),
        }
    }

    /// The header's columns, if the row is the header: `true`. An error is one of the whole input.
    pub(crate) fn header(&mut self, row: &Row<'_>) -> Result<bool, String> {
        match self {
            Self::Csv(csv) if csv.wants_header() => csv.header(row).map(|()| true),
            _ => Ok(false),
        }
    }

    /// The record in a row.
    pub(crate) fn record<'a>(&mut self, row: &Row<'a>) -> Result<Taken<'a>, String> {
        match self {
            Self::Jsonl => {
                jsonl::decode(row.bytes).map(|(target, data, expires_ms)| (target, data.into(), expires_ms))
            }
            Self::Csv(csv) => csv.record(row).map(|(id, data)| (Target::Id(id), data, None)),
            Self::Delimited { delimiter, id } => {
                let id = id.id(row.line, |place| match place {
                    Place::Number(column) => nth_column(row.bytes, delimiter, *column).ok_or_else(|| {
                        format!(
                            "there is no column {column}; columns are separated by {:?}",
                            String::from_utf8_lossy(delimiter)
                        )
                    }),
                    Place::Name(name) => Err(format!("there is no column {name:?}")),
                })?;
                Ok((Target::Id(id), row.bytes.into(), None))
            }
        }
    }

    /// The length that no row with a record of this many bytes needs to exceed.
    pub(crate) fn row_bytes_max(&self, record_size: usize) -> usize {
        let record_bytes = match self {
            Self::Jsonl => record_size.saturating_mul(JSON_BYTES_PER_BYTE),
            Self::Csv(_) => record_size.saturating_mul(CSV_BYTES_PER_BYTE),
            Self::Delimited { .. } => record_size,
        };
        record_bytes.saturating_add(EXTRA_BYTES)
    }
}

fn nth_column<'a>(line: &'a [u8], delimiter: &[u8], column: usize) -> Option<&'a [u8]> {
    let mut rest = line;
    for _ in 1..column {
        let at = find(rest, delimiter)?;
        rest = &rest[at + delimiter.len()..];
    }
    Some(&rest[..find(rest, delimiter).unwrap_or(rest.len())])
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn parse_delimiter(text: &str) -> Result<char, String> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some('\n'), _) => Err("a newline separates lines, not columns".into()),
        (Some(c), None) => Ok(c),
        (Some('\\'), Some('t')) if chars.next().is_none() => Ok('\t'),
        _ => Err("one character separates columns".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ids;
    use super::*;

    fn delimited(delimiter: &str, column: usize, radix: u32) -> Format {
        let id = IdFrom::Column { place: Place::Number(column), radix };
        Format::Delimited { delimiter: delimiter.into(), id }
    }

    fn record<'a>(mut format: Format, line: &'a [u8]) -> Result<(u64, Cow<'a, [u8]>), String> {
        match format.record(&Row::line(7, line))? {
            (Target::Id(id), data, None) => Ok((id, data)),
            (target, ..) => panic!("{target}"),
        }
    }

    #[test]
    fn the_record_of_a_delimited_line_is_the_whole_line() {
        let line = b"1F980;CRAB;So;0;ON;;;;;N;;;;;";
        assert_eq!(record(delimited(";", 1, 16), line), Ok((0x1F980, line.into())));
        let line = "kräbbe→ 0x10 →".as_bytes();
        assert_eq!(record(delimited("→", 2, 16), line), Ok((16, line.into())));
        assert_eq!(record(delimited(",", 3, 10), b",,18446744073709551615 ").map(|r| r.0), Ok(u64::MAX));
    }

    #[test]
    fn an_id_is_made_from_the_line_or_from_a_column() {
        let made = |id| record(Format::Delimited { delimiter: b",".into(), id }, b"a,key").map(|r| r.0);
        assert_eq!(made(IdFrom::Line), Ok(7));
        assert_eq!(made(IdFrom::Hash(Place::Number(2))), Ok(ids::hash(b"key")));
    }

    #[test]
    fn a_line_without_an_id_is_refused_with_the_reason() {
        for (line, reason) in [
            (&b""[..], "no column 2"),
            (b"1,2", "no column 2"),
            (b";", "`` in column 2"),
            (b";-1", "`-1` in column 2"),
            (b";+1", "`+1` in column 2"),
            (b";1F", "--id-radix 16"),
            (b";0x1F", "--id-radix 16"),
            (b";\x1b[31m\xff", "`\\u{1b}[31m\\xff` in column 2"),
            (b";18446744073709551616", "is not an id"),
        ] {
            let error = record(delimited(";", 2, 10), line).expect_err("no record");
            assert!(error.contains(reason), "{}: {error}", line.escape_ascii());
        }
    }

    #[test]
    fn a_delimiter_is_one_character_and_no_newline() {
        assert_eq!(parse_delimiter("|"), Ok('|'));
        assert_eq!(parse_delimiter("→"), Ok('→'));
        assert_eq!(parse_delimiter("\\"), Ok('\\'));
        assert_eq!(parse_delimiter("\\t"), Ok('\t'));
        for wrong in ["", "\n", "::", "\\tt", "\\n"] {
            assert!(parse_delimiter(wrong).is_err(), "{wrong:?} was taken for a delimiter");
        }
    }
}
