//! `recstore count`: the number of all records, or of the chosen ones.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::output::Output;
use super::select::Selection;

/// Count the records
///
/// Prints one number. With a selection every record is read; damaged ones are named on standard error, and the exit
/// code is 3.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore count s.rec                     all records
  recstore count s.rec --match '^\\{'       those that begin with a brace")]
pub(crate) struct Count {
    /// The store
    store: PathBuf,
    #[command(flatten)]
    selection: Selection,
}

impl Count {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.read(&self.store)?;
        let mut count = 0_u64;
        let walked = if self.selection.is_all() {
            count = store.len()?;
            Ok(())
        } else {
            self.selection.walk(&store, |_| {
                count += 1;
                Ok(())
            })
        };
        let mut out = Output::new();
        out.line(format_args!("{count}"))?;
        out.finish().and(walked)
    }
}
