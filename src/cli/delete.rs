//! `recstore delete`: deletes records.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::{ids, read};

/// Delete records
///
/// When the command is done the deletions are on disk, and the records' space is used again. Exit
/// code 1 if one of them is absent; the others are deleted. 7 if they are deleted, and could not be flushed to disk
/// because another process is inside the store.
#[derive(clap::Args)]
#[command(
    visible_alias = "rm",
    after_help = "\
Examples:
  recstore delete s.rec 7
  recstore delete s.rec 7 8 0x1F980
  recstore list s.rec --prefix tmp- --json | jq .id | recstore delete s.rec --ids -"
)]
pub(crate) struct Delete {
    /// The store
    store: PathBuf,
    /// The records' ids, decimal or 0x-hex
    #[arg(value_name = "ID", value_parser = ids::parse_id, required_unless_present = "ids")]
    id: Vec<u64>,
    /// Take further ids from this file, one a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
}

impl Delete {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let mut unwanted = self.id.clone();
        if let Some(file) = &self.ids {
            unwanted.extend(ids::read_ids(file)?);
        }
        let store = access.write(&self.store)?;
        let mut absent = Vec::new();
        for &id in &unwanted {
            if !store.delete(id)? {
                absent.push(id);
            }
        }
        let is_absent = read::absent_of(&store, &absent);
        if absent.len() < unwanted.len() {
            access.settle(store)?;
        } else {
            access.leave(store)?;
        }
        is_absent
    }
}
