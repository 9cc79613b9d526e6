//! `recstore add`: counters, for scripts.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::ids;
use super::output::Output;

/// Add to a counter, and print the sum
///
/// A counter is a record of 8 bytes, a little-endian number from 0 to 2^64-1, which wraps around; an absent one
/// counts as 0. Exact, even while other processes add. Creates STORE with defaults if it is absent, and says so.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore add hits.rec 1           one more
  recstore add hits.rec 1 -- -5     five less
  recstore add hits.rec 1 0         what it is")]
pub(crate) struct Add {
    /// The store
    store: PathBuf,
    /// The counter's id, decimal or 0x-hex
    #[arg(value_parser = ids::parse_id)]
    id: u64,
    /// The number to add; after `--`, it may be negative
    #[arg(value_name = "N", default_value_t = 1)]
    by: i64,
}

impl Add {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.write_or_create(&self.store, 0)?;
        let sum = store.counter(self.id).add(self.by.cast_unsigned())?;
        let settled = access.settle(store);
        let mut out = Output::new();
        out.line(format_args!("{sum}"))?;
        out.finish()?;
        settled
    }
}
