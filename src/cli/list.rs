//! `recstore list`: the records of a store, a line for each.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::access::Access;
use super::failure::Failure;
use super::jsonl;
use super::output::{Output, is_terminal, preview};
use super::select::{Order, Selection};

const PREVIEW_CHARS: usize = 48;

/// List the records: id, version, length, and the beginning of the data
///
/// The order is the file's, unless --sort names another. What other processes write meanwhile may or may not
/// appear. Damaged records are named on standard error, and the exit code is 3.
#[derive(clap::Args)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  recstore list s.rec                          all records
  recstore list s.rec --sort id --limit 20     the 20 lowest ids
  recstore list s.rec --match '(?i)error'      records that contain `error`, in any case
  recstore list s.rec --sort length --reverse  the longest first"
)]
pub(crate) struct List {
    /// The store
    store: PathBuf,
    /// Print an object for each record, one a line: {"id", "version", "length", "preview"}; "expires_ms", if a key has a
    /// deadline
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    order: Order,
}

impl List {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.read(&self.store)?;
        let mut out = Output::new();
        if !self.json && is_terminal() {
            out.line(format_args!("{:>10}  {:>8}  {:>8}  preview", "id", "version", "length"))?;
        }
        let mut shown = 0;
        let walked = self.selection.walk_in(self.order, &store, |record| {
            shown += 1;
            let (id, version, length) = (record.id(), record.version().get(), record.data().len());
            let shown = preview(record.data(), PREVIEW_CHARS);
            if self.json {
                let line = json!({"id": id, "version": version, "length": length, "preview": shown});
                return out.line(format_args!("{line}"));
            }
            out.line(format_args!("{id:>10}  {version:>8}  {length:>8}  {shown}"))
        });
        let of_keys = self.selection.walk_keys(self.order, &store, None, shown, |target, record| {
            let (version, length) = (record.version().get(), record.data().len());
            let shown = preview(record.data(), PREVIEW_CHARS);
            if self.json {
                let mut fields = Map::new();
                jsonl::insert_target(&mut fields, target);
                jsonl::insert_expiry(&mut fields, target.expires_ms(&store)?);
                fields.insert("version".into(), version.into());
                fields.insert("length".into(), length.into());
                fields.insert("preview".into(), shown.into());
                return out.line(format_args!("{}", Value::Object(fields)));
            }
            out.line(format_args!("{target:>10}  {version:>8}  {length:>8}  {shown}"))
        });
        // Those that were shown count, even if others are damaged.
        out.finish().and(walked).and(of_keys)
    }
}
