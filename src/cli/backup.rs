//! `recstore backup`: a consistent copy, while others write.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::output::{counted, say};
use super::progress;

/// Copy the records, as they are at one moment, into a new store, while others go on writing
///
/// The copy appears whole or not at all, and is on disk when the command is done. Fails if COPY
/// exists.
#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The store
    store: PathBuf,
    /// The copy
    copy: PathBuf,
}

impl Backup {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.write(&self.store)?;
        let spinner = progress::working("copying");
        let copied = store.backup(&self.copy);
        spinner.finish_and_clear();
        say(format_args!("{}: {} copied", self.copy.display(), counted(copied?, "record")));
        Ok(())
    }
}
