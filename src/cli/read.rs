//! `recstore read`: the bytes of one record, as they are.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::access::Access;
use super::failure::Failure;
use super::output::Output;
use super::{ids, jsonl};

/// Print one record
///
/// The bytes as they are: nothing is added, no newline either. Exit code 1 if there is no such
/// record.
#[derive(clap::Args)]
pub(crate) struct Read {
    /// The store
    store: PathBuf,
    /// The record's id, decimal or 0x-hex
    #[arg(value_parser = ids::parse_id)]
    id: u64,
    /// Print {"id", "version", "length", "data"}, with "base64" instead of "data" if the bytes
    /// are not UTF-8
    #[arg(long)]
    json: bool,
}

impl Read {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let Some(record) = access.read(&self.store)?.get(self.id)? else {
            return Err(Failure::Absent(format!(
                "{}: no record {id} ({id:#x})",
                self.store.display(),
                id = self.id
            )));
        };
        let mut out = Output::new();
        if self.json {
            let mut fields = Map::new();
            fields.insert("id".into(), record.id().into());
            fields.insert("version".into(), record.version().get().into());
            fields.insert("length".into(), record.data().len().into());
            jsonl::insert_data(&mut fields, record.data());
            out.line(format_args!("{}", Value::Object(fields)))?;
        } else {
            out.bytes(record.data())?;
        }
        out.finish()
    }
}
