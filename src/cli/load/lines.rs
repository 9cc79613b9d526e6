//! A line of the input as a record: JSON, or text with the id in one of its columns.

use std::borrow::Cow;

use clap::ValueEnum;

use super::super::failure::Failure;
use super::super::output::preview;
use super::super::{ids, jsonl};

/// JSON may take six bytes for one of the record (`\u0000`).
const JSON_BYTES_PER_BYTE: usize = 6;
/// What a line may have beside the record's bytes: other fields, white space.
const EXTRA_BYTES: usize = 1 << 20;
const PREVIEW_CHARS: usize = 32;

/// What the lines look like, as it stands on the command line.
#[derive(clap::Args)]
pub(crate) struct FormatArgs {
    /// What a line is
    #[arg(long, value_enum, default_value_t = Kind::Jsonl)]
    format: Kind,
    /// delimited: what separates the columns, one character; \t is a tab. Quotes mean nothing
    /// [default: ,]
    #[arg(long, value_name = "C", value_parser = parse_delimiter, allow_hyphen_values = true)]
    delimiter: Option<char>,
    /// delimited: the column with the id, the first is 1 [default: 1]
    #[arg(long, value_name = "N", value_parser = parse_column)]
    id_column: Option<usize>,
    /// delimited: whether the id is written in decimal or in hexadecimal [default: 10]
    #[arg(long, value_name = "R", value_parser = parse_radix)]
    id_radix: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// {"id":1,"data":"text"} or {"id":1,"base64":"/w=="}, as `recstore dump` prints it
    Jsonl,
    /// The record is the whole line; its id is one of the columns
    Delimited,
}

impl FormatArgs {
    /// The arguments, if they fit together.
    pub(crate) fn format(&self) -> Result<Format, Failure> {
        match self.format {
            Kind::Delimited => Ok(Format::Delimited {
                delimiter: self.delimiter.unwrap_or(',').to_string().into_bytes(),
                column: self.id_column.unwrap_or(1),
                radix: self.id_radix.unwrap_or(10),
            }),
            Kind::Jsonl
                if self.delimiter.is_none() && self.id_column.is_none() && self.id_radix.is_none() =>
            {
                Ok(Format::Jsonl)
            }
            Kind::Jsonl => Err(Failure::Usage(
                "--delimiter, --id-column and --id-radix are for --format delimited".into(),
            )),
        }
    }
}

/// What the lines look like.
pub(crate) enum Format {
    Jsonl,
    Delimited { delimiter: Vec<u8>, column: usize, radix: u32 },
}

impl Format {
    /// The id and the bytes of the record in a line, which comes without its newline.
    pub(crate) fn record<'a>(&self, line: &'a [u8]) -> Result<(u64, Cow<'a, [u8]>), String> {
        match self {
            Self::Jsonl => jsonl::decode(line).map(|(id, data)| (id, data.into())),
            Self::Delimited { delimiter, column, radix } => {
                let text = nth_column(line, delimiter, *column).ok_or_else(|| {
                    format!(
                        "there is no column {column}, the columns being separated by {:?}",
                        String::from_utf8_lossy(delimiter)
                    )
                })?;
                let id = parse_id(text, *radix).ok_or_else(|| {
                    format!(
                        "`{}` in column {column} is no id in {}",
                        preview(text, PREVIEW_CHARS),
                        if *radix == 16 { "hexadecimal" } else { "decimal (hexadecimal: --id-radix 16)" }
                    )
                })?;
                Ok((id, line.into()))
            }
        }
    }

    /// The length that no line with a record of this many bytes needs to exceed.
    pub(crate) fn line_bytes_max(&self, record_size: usize) -> usize {
        let record_bytes = match self {
            Self::Jsonl => record_size.saturating_mul(JSON_BYTES_PER_BYTE),
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

fn parse_id(text: &[u8], radix: u32) -> Option<u64> {
    // Around the last column there may be a carriage return, around any of them padding.
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    let digits = match radix {
        16 => text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text),
        _ => text,
    };
    ids::parse_digits(digits, radix)
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

fn parse_column(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(column) if column > 0 => Ok(column),
        _ => Err("columns are numbered from 1".into()),
    }
}

fn parse_radix(text: &str) -> Result<u32, String> {
    match text {
        "10" => Ok(10),
        "16" => Ok(16),
        _ => Err("the radix is 10 or 16".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delimited(delimiter: &str, column: usize, radix: u32) -> Format {
        Format::Delimited { delimiter: delimiter.into(), column, radix }
    }

    #[test]
    fn the_record_of_a_delimited_line_is_the_whole_line() {
        let line = b"1F980;CRAB;So;0;ON;;;;;N;;;;;";
        assert_eq!(delimited(";", 1, 16).record(line), Ok((0x1F980, line.into())));
        let line = "kräbbe→ 0x10 →".as_bytes();
        assert_eq!(delimited("→", 2, 16).record(line), Ok((16, line.into())));
        assert_eq!(delimited(",", 3, 10).record(b",,18446744073709551615\r").map(|r| r.0), Ok(u64::MAX));
    }

    #[test]
    fn a_line_without_an_id_is_refused_with_the_reason() {
        let semicolon = delimited(";", 2, 10);
        for (line, reason) in [
            (&b""[..], "no column 2"),
            (b"1,2", "no column 2"),
            (b";", "`` in column 2"),
            (b";-1", "`-1` in column 2"),
            (b";+1", "`+1` in column 2"),
            (b";1F", "--id-radix 16"),
            (b";0x1F", "--id-radix 16"),
            (b";\x1b[31m\xff", "`\\u{1b}[31m\\xff` in column 2"),
            (b";18446744073709551616", "no id"),
        ] {
            let error = semicolon.record(line).expect_err("no record");
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
