//! `recstore add`: counters, for scripts.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::output::Output;
use super::target::{self, Target};

/// Add to a counter, and print the sum
///
/// A counter is a number from 0 to 2^64-1, which wraps around; an absent one counts as 0. Exact, even while other processes add.
/// Under an id it is a record of 8 bytes, little-endian; under a key it knows that it is a counter, and anything else there is
/// refused. Creates STORE with defaults if it is absent, and says so.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore add hits.rec 1           one more
  recstore add hits.rec pages/home  one more, under a key
  recstore add hits.rec 1 -- -5     five less
  recstore add hits.rec 1 0         what it is")]
pub(crate) struct Add {
    /// The store
    store: PathBuf,
    /// The counter's id, decimal or 0x-hex, or its key
    #[arg(value_name = "ID|SPACE/KEY", value_parser = target::parse)]
    id: Target,
    /// The number to add; after `--`, it may be negative
    #[arg(value_name = "N", default_value_t = 1)]
    by: i64,
}

impl Add {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.write_or_create(&self.store, 0)?;
        let by = self.by.cast_unsigned();
        let sum = match &self.id {
            Target::Id(id) => store.counter(*id).add(by)?,
            Target::Key { space, key } => store.space(space)?.counter(key).add(by)?,
        };
        let settled = access.settle(store);
        let mut out = Output::new();
        out.line(format_args!("{sum}"))?;
        out.finish()?;
        settled
    }
}
