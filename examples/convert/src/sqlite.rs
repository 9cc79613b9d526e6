//! Rows of a table of SQLite as records, as of one moment.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Map, Value};

use crate::Failure;
use crate::target::{Target, hash};

/// Import the rows of a table of an SQLite file
///
/// The id is the rowid, which an INTEGER PRIMARY KEY is, or the integer in the column --id, or the hash of the text in
/// the column --hash. The record is the value in the column --data, or the row as a JSON object; in that, a BLOB
/// is base64. One read transaction: writers of the file go on, and what they write is not imported.
#[derive(clap::Args)]
pub(crate) struct Sqlite {
    /// The SQLite file
    file: PathBuf,
    /// The store; created if it is absent, for records as long as the longest one
    store: PathBuf,
    /// The table, or a view
    #[arg(long)]
    table: String,
    /// The column with the id [default: rowid]
    #[arg(long, value_name = "COLUMN")]
    id: Option<String>,
    /// Make ids from the text in this column
    #[arg(long, value_name = "COLUMN", conflicts_with = "id")]
    hash: Option<String>,
    /// The column that is the record [default: all of them, as JSON]
    #[arg(long, value_name = "COLUMN")]
    data: Option<String>,
}

impl Sqlite {
    pub(crate) fn run(&self) -> Result<String, Failure> {
        let named = |error: rusqlite::Error| format!("{}: {error}", self.file.display());
        let mut connection =
            Connection::open_with_flags(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(named)?;
        let transaction = connection.transaction().map_err(named)?;
        let of_id = self.id.as_ref().or(self.hash.as_ref()).map_or("rowid".to_owned(), |name| quoted(name));
        let columns = self.data.as_ref().map_or("*".to_owned(), |name| quoted(name));
        let query = format!("SELECT {of_id}, {columns} FROM {}", quoted(&self.table));
        let mut statement = transaction.prepare(&query).map_err(named)?;
        let names: Vec<String> = statement.column_names().into_iter().skip(1).map(str::to_owned).collect();

        // Once to know how long they are, and once to write them: within one transaction both are the same.
        let mut longest = 0;
        self.each(&mut statement, &names, |_, data| {
            longest = longest.max(data.len());
            Ok(())
        })?;
        let mut target = Target::open(&self.store, longest)?;
        self.each(&mut statement, &names, |id, data| target.put(id, data))?;
        target.finish()
    }

    fn each(
        &self,
        statement: &mut rusqlite::Statement<'_>,
        names: &[String],
        mut take: impl FnMut(u64, Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let named = |error: rusqlite::Error| format!("{}: {error}", self.file.display());
        let mut rows = statement.query([]).map_err(named)?;
        let mut number = 0_u64;
        while let Some(row) = rows.next().map_err(named)? {
            number += 1;
            let at =
                |what: String| format!("{}: row {number} of {}: {what}", self.file.display(), self.table);
            let id = self.id_of(row).map_err(at)?;
            let data = match &self.data {
                Some(name) => bytes(row.get_ref(1).map_err(named)?)
                    .ok_or_else(|| at(format!("{name} is NULL, which no record is")))?,
                None => object(row, names).map_err(named)?.into_bytes(),
            };
            take(id, data)?;
        }
        Ok(())
    }

    fn id_of(&self, row: &Row<'_>) -> Result<u64, String> {
        let value = row.get_ref(0).map_err(|error| error.to_string())?;
        if self.hash.is_some() {
            return bytes(value).map(|text| hash(&text)).ok_or("NULL is no text for an id".to_owned());
        }
        let refused =
            |what: String| format!("{what} is no id; ids are integers from 0 on (a text: --hash COLUMN)");
        match value {
            ValueRef::Integer(id) => u64::try_from(id).map_err(|_| refused(id.to_string())),
            other => Err(refused(format!("a value of type {}", other.data_type()))),
        }
    }
}

/// A name in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value as bytes: numbers as SQLite prints them, NULL as none.
fn bytes(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}

fn object(row: &Row<'_>, names: &[String]) -> rusqlite::Result<String> {
    let mut fields = Map::new();
    for (at, name) in (1..).zip(names) {
        let value = match row.get_ref(at)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => number.into(),
            ValueRef::Real(number) => number.into(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
            ValueRef::Blob(bytes) => STANDARD.encode(bytes).into(),
        };
        fields.insert(name.clone(), value);
    }
    Ok(Value::Object(fields).to_string())
}
