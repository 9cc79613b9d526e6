//! `recstore list`: what is in a store, a line for each record.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use serde_json::json;

use super::access::Access;
use super::failure::Failure;
use super::output::{Output, preview};
use super::walk::walk;

const PREVIEW_CHARS: usize = 48;

/// List the records: id, version, length, and the beginning of the data
///
/// The order is the file's; pipe it through `sort -n` for that of the ids. What other processes
/// write meanwhile may or may not appear. Damaged records are named on standard error, and the
/// exit code is 3.
#[derive(clap::Args)]
pub(crate) struct List {
    /// The store
    store: PathBuf,
    /// Print an object for each record, one a line
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let mut out = Output::new();
        if !self.json && io::stdout().is_terminal() {
            out.line(format_args!("{:>10}  {:>8}  {:>8}  preview", "id", "version", "length"))?;
        }
        let store = access.read(&self.store)?;
        let walked = walk(&store, |record| {
            let (id, version, length) = (record.id(), record.version().get(), record.data().len());
            let shown = preview(record.data(), PREVIEW_CHARS);
            if self.json {
                let line = json!({"id": id, "version": version, "length": length, "preview": shown});
                return out.line(format_args!("{line}"));
            }
            out.line(format_args!("{id:>10}  {version:>8}  {length:>8}  {shown}"))
        });
        // Those that were shown count, also if others are damaged.
        out.finish().and(walked)
    }
}
