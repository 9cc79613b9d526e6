//! `recstore dump`: all records in a form that `recstore load` reads back, byte for byte.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::jsonl;
use super::output::Output;
use super::select::{Order, Selection};
use super::target::Target;

/// Print all records so that `recstore load` reads them back byte for byte
///
/// A line for each record: {"id":1,"data":"text"}, or {"id":1,"base64":"/w=="} where the bytes are
/// not UTF-8; then one for each key: {"space":"s","key":"k","data":"text"}, or "key64". The order is the file's, unless --sort names another. Records that are damaged are left out and named on
/// standard error, and the exit code is 3.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore dump s.rec > s.jsonl                      all records
  recstore dump s.rec --sort id | sha256sum          a checksum that depends on the records alone
  recstore dump s.rec --from 100 --to 199 | jq .data some of them
  recstore dump s.rec --space sessions               the keys of a space
  recstore dump old.rec | recstore load new.rec      into another store")]
pub(crate) struct Dump {
    /// The store
    store: PathBuf,
    /// The form of the lines
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Only the keys of this space
    #[arg(long, value_name = "NAME", help_heading = "Selection")]
    space: Option<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    order: Order,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// JSON, one record a line
    Jsonl,
}

impl Dump {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.read(&self.store)?;
        let mut out = Output::new();
        let Format::Jsonl = self.format;
        let mut shown = 0;
        let walked = if self.space.is_some() {
            Ok(())
        } else {
            self.selection.walk_in(self.order, &store, |record| {
                shown += 1;
                out.line(format_args!("{}", jsonl::encode(&Target::Id(record.id()), record.data(), None)))
            })
        };
        let of_keys =
            self.selection.walk_keys(self.order, &store, self.space.as_deref(), shown, |target, record| {
                let expires_ms = target.expires_ms(&store)?;
                out.line(format_args!("{}", jsonl::encode(target, record.data(), expires_ms)))
            });
        // Those that were printed count, even if others are damaged.
        out.finish().and(walked).and(of_keys)
    }
}
