//! `recstore delete`: deletes records.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::read;
use super::target::{self, Target};

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
  recstore delete s.rec sessions/user:7
  recstore list s.rec --prefix tmp- --json | jq .id | recstore delete s.rec --ids -"
)]
pub(crate) struct Delete {
    /// The store
    store: PathBuf,
    /// The records' ids, decimal or 0x-hex, or their keys
    #[arg(value_name = "ID|SPACE/KEY", value_parser = target::parse, required_unless_present = "ids")]
    id: Vec<Target>,
    /// Take further ids and keys from this file, one a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
}

impl Delete {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let mut unwanted = self.id.clone();
        if let Some(file) = &self.ids {
            unwanted.extend(target::read_all(file)?);
        }
        let store = access.write(&self.store)?;
        let mut absent = Vec::new();
        for target in &unwanted {
            if !target.delete(&store)? {
                absent.push(target.clone());
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
