//! `recstore delete`: one record.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::ids;

/// Delete one record
///
/// When the command is done the deletion is on disk, and the record's space is used again. Exit
/// code 1 if there is no such record; 7 if it is deleted, and could not be flushed to disk because another process
/// is inside the store.
#[derive(clap::Args)]
pub(crate) struct Delete {
    /// The store
    store: PathBuf,
    /// The record's id, decimal or 0x-hex
    #[arg(value_parser = ids::parse_id)]
    id: u64,
}

impl Delete {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.write(&self.store)?;
        if store.delete(self.id)? {
            return access.settle(store);
        }
        access.leave(store)?;
        Err(Failure::Absent(format!("{}: no record {id} ({id:#x})", self.store.display(), id = self.id)))
    }
}
