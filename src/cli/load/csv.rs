//! CSV: which columns of a row are the record, by the names in the header.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::output::{counted, preview};
use super::id_from::{IdFrom, Place};
use super::rows::Row;

const PREVIEW_CHARS: usize = 32;

/// The names of the columns of `recstore export`.
const EXPORTED: [&[u8]; 4] = [b"id", b"version", b"data", b"base64"];

/// The rules by which rows of CSV become records.
pub(crate) struct Csv {
    /// The separator of columns.
    pub(crate) delimiter: u8,
    /// Whether the first row has the names of the columns.
    pub(crate) has_header: bool,
    /// The origin of the id.
    pub(crate) id: IdFrom,
    /// The column that is the record; `None`: the whole row, or the columns of `recstore export`.
    pub(crate) data: Option<Place>,
    columns: Option<Columns>,
}

/// The result of the first row.
struct Columns {
    count: usize,
    /// The column that the id comes from.
    id: usize,
    data: Data,
}

#[derive(Clone, Copy)]
enum Data {
    Row,
    Column(usize),
    /// The record is text, in the first column, or it is in the second one.
    Exported(usize, Option<usize>),
}

impl Csv {
    /// A form of CSV of which no row has been read.
    pub(crate) fn new(delimiter: u8, has_header: bool, id: IdFrom, data: Option<Place>) -> Self {
        Self { delimiter, has_header, id, data, columns: None }
    }

    /// Whether the next row is the header.
    pub(crate) fn wants_header(&self) -> bool {
        self.has_header && self.columns.is_none()
    }

    /// Takes the header: finds the columns by their names. An error is one of the whole input.
    pub(crate) fn header(&mut self, row: &Row<'_>) -> Result<(), String> {
        let names: Vec<&[u8]> =
            (1..=row.columns()).filter_map(|n| row.column(n)).map(<[u8]>::trim_ascii).collect();
        let id = self.id.place().map(|place| find(&names, place)).transpose()?.unwrap_or_default();
        let position = |name: &[u8]| names.iter().position(|n| *n == name).map(|at| at + 1);
        let data = match &self.data {
            Some(place) => Data::Column(find(&names, place)?),
            // Of these columns none is lost.
            None if names.iter().all(|name| EXPORTED.contains(name)) => match position(b"data") {
                Some(data) => Data::Exported(data, position(b"base64")),
                None => Data::Row,
            },
            None => Data::Row,
        };
        self.columns = Some(Columns { count: names.len(), id, data });
        Ok(())
    }

    /// The id and the bytes of the record in a row.
    pub(crate) fn record<'a>(&mut self, row: &Row<'a>) -> Result<(u64, Cow<'a, [u8]>), String> {
        let columns = self.columns.get_or_insert_with(|| Columns {
            count: row.columns(),
            id: self.id.place().map_or(0, number_of),
            data: self.data.as_ref().map_or(Data::Row, |place| Data::Column(number_of(place))),
        });
        if row.columns() != columns.count {
            return Err(format!(
                "the row has {} and the {} has {}",
                counted(row.columns() as u64, "column"),
                if self.has_header { "header" } else { "first one" },
                columns.count
            ));
        }
        let column = |number| row.column(number).ok_or_else(|| format!("there is no column {number}"));
        let id = self.id.id(row.line, |_| column(columns.id))?;
        let data = match columns.data {
            Data::Row => row.bytes.into(),
            Data::Column(number) => column(number)?.into(),
            Data::Exported(data, base64) => match base64.map(column).transpose()? {
                None | Some(b"") => column(data)?.into(),
                Some(base64) if column(data)?.is_empty() => STANDARD
                    .decode(base64)
                    .map_err(|error| format!("`base64` is not base64: {error}"))?
                    .into(),
                Some(_) => return Err("there are both `data` and `base64`".into()),
            },
        };
        Ok((id, data))
    }
}

/// The number of a column where there is no header, and so there are no names.
fn number_of(place: &Place) -> usize {
    match place {
        Place::Number(number) => *number,
        Place::Name(_) => 0,
    }
}

fn find(names: &[&[u8]], place: &Place) -> Result<usize, String> {
    let columns = || {
        let names: Vec<String> = names.iter().map(|name| preview(name, PREVIEW_CHARS)).collect();
        names.join(", ")
    };
    let name = match place {
        Place::Number(number) if *number <= names.len() => return Ok(*number),
        Place::Number(number) => {
            return Err(format!("there is no column {number}; the columns are {}", columns()));
        }
        Place::Name(name) => name,
    };
    let mut found = (1..).zip(names).filter(|(_, n)| **n == name.as_bytes());
    match (found.next(), found.next()) {
        (Some((number, _)), None) => Ok(number),
        (Some((first, _)), Some((second, _))) => {
            Err(format!("two columns are called {name:?}: give the number, {first} or {second}"))
        }
        _ => Err(format!(
            "no column is called {name:?}; the columns are {}: choose with --id-column NAME or N, or --id-from line",
            columns()
        )),
    }
}
