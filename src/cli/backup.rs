//! `recstore backup`: a consistent copy, while others write.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::output::{counted, note};
use super::progress;

/// Copy the records, as they are at one moment, into a new store, while others go on writing
///
/// The copy appears whole or not at all, and is on disk when the command is done. Fails if COPY
/// exists.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore backup s.rec s-$(date +%F).rec
  recstore backup s.rec copy.rec && recstore verify copy.rec")]
pub(crate) struct Backup {
    /// The store
    store: PathBuf,
    /// The copy
    copy: PathBuf,
}

impl Backup {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.write(&self.store)?;
        let copied = progress::of_work("copying", |tell| store.backup_with_progress(&self.copy, tell))?;
        note(format_args!("{}: {} copied", self.copy.display(), counted(copied, "record")));
        Ok(())
    }
}
