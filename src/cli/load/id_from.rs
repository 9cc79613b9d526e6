//! The origin of a row's id: a column, or the row's place or text.

use super::super::ids;
use super::super::output::preview;

const PREVIEW_CHARS: usize = 32;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// By its number, from 1.
    Number(usize),
    /// By its name in the header.
    Name(String),
}

/// The origin of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdFrom {
    /// A column has them.
    Column {
        /// The column.
        place: Place,
        /// 10 or 16.
        radix: u32,
    },
    /// They are the numbers of the lines.
    Line,
    /// They are the hashes of the texts of a column.
    Hash(Place),
}

impl IdFrom {
    /// The column that the id comes from, if it comes from one.
    pub(crate) fn place(&self) -> Option<&Place> {
        match self {
            Self::Column { place, .. } | Self::Hash(place) => Some(place),
            Self::Line => None,
        }
    }

    /// The id of a row.
    pub(crate) fn id<'a>(
        &self,
        line: u64,
        column: impl FnOnce(&Place) -> Result<&'a [u8], String>,
    ) -> Result<u64, String> {
        match self {
            Self::Line => Ok(line),
            Self::Hash(place) => Ok(ids::hash(column(place)?)),
            Self::Column { place, radix } => {
                let text = column(place)?;
                parse_id(text, *radix).ok_or_else(|| {
                    let place = match place {
                        Place::Number(number) => number.to_string(),
                        Place::Name(name) => name.clone(),
                    };
                    format!(
                        "`{}` in column {place} is not an id in {}",
                        preview(text, PREVIEW_CHARS),
                        if *radix == 16 { "hexadecimal" } else { "decimal (hexadecimal: --id-radix 16)" }
                    )
                })
            }
        }
    }
}

fn parse_id(text: &[u8], radix: u32) -> Option<u64> {
    // Around a column there may be padding.
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    let digits = match radix {
        16 => text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text),
        _ => text,
    };
    ids::parse_digits(digits, radix)
}

/// Reads a column: its number, or its name.
pub(crate) fn parse_place(text: &str) -> Result<Place, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Place::Name(text.to_owned()));
    }
    match text.parse() {
        Ok(column) if column > 0 => Ok(Place::Number(column)),
        _ => Err("columns are numbered from 1".into()),
    }
}

/// Reads a rule for ids: `line`, or `hash:COLUMN`.
pub(crate) fn parse_id_from(text: &str) -> Result<IdFrom, String> {
    match text.strip_prefix("hash:") {
        Some(place) if !place.is_empty() => parse_place(place).map(IdFrom::Hash),
        None if text == "line" => Ok(IdFrom::Line),
        _ => Err("ids are made from `line`, or from `hash:COLUMN`".into()),
    }
}

/// Reads 10 or 16.
pub(crate) fn parse_radix(text: &str) -> Result<u32, String> {
    match text {
        "10" => Ok(10),
        "16" => Ok(16),
        _ => Err("the radix is 10 or 16".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_a_number_from_1_or_a_name() {
        assert_eq!(parse_place("3"), Ok(Place::Number(3)));
        assert_eq!(parse_place("3rd"), Ok(Place::Name("3rd".into())));
        assert_eq!(parse_place(""), Ok(Place::Name(String::new())));
        assert!(parse_place("0").is_err());
        assert_eq!(parse_id_from("hash:name"), Ok(IdFrom::Hash(Place::Name("name".into()))));
        assert_eq!(parse_id_from("line"), Ok(IdFrom::Line));
        for wrong in ["hash:", "hash:0", "hash", "lines", ""] {
            assert!(parse_id_from(wrong).is_err(), "{wrong}");
        }
    }
}
