//! `recstore cas`: compare and swap, for scripts.

use std::ffi::OsString;
use std::path::PathBuf;

use recstore::{Swap, Version};

use super::access::Access;
use super::failure::Failure;
use super::output::Output;
use super::{ids, write};

/// Write a record if it is still at the version that you read
///
/// Prints the new version. If the record has another version, nothing is written, the exit code is 1, and the
/// message names the version that is there.
#[derive(clap::Args)]
#[command(
    visible_alias = "compare-and-swap",
    after_help = "\
Examples:
  recstore cas s.rec 7 absent 'first'      create it, unless somebody else has
  v=$(recstore read s.rec 7 --json | jq .version)
  recstore cas s.rec 7 $v 'second'         replace it, unless somebody else has"
)]
pub(crate) struct Cas {
    /// The store
    store: PathBuf,
    /// The record's id, decimal or 0x-hex
    #[arg(value_parser = ids::parse_id)]
    id: u64,
    /// The version that the record must have, or `absent`
    #[arg(value_parser = parse_expected)]
    expected: Expected,
    /// The record's new bytes; `-`, or nothing, takes them from standard input
    data: Option<OsString>,
    /// Take the bytes from this file
    #[arg(long, value_name = "PATH", conflicts_with = "data")]
    file: Option<PathBuf>,
}

/// A version, or that there is no record.
type Expected = Option<u64>;

fn parse_expected(text: &str) -> Result<Expected, String> {
    if text == "absent" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("`{text}` is not a version; use a number, or `absent`"))
}

impl Cas {
    pub(crate) fn run(self, access: &Access) -> Result<(), Failure> {
        let data = write::bytes_of(self.file, self.data)?;
        let store = access.write(&self.store)?;
        let swapped = store.compare_and_swap(self.id, self.expected.map(Version::from_u64), &data)?;
        let settled = access.settle(store);
        match swapped {
            Swap::Done(version) => {
                let mut out = Output::new();
                out.line(format_args!("{version}"))?;
                out.finish()?;
                settled
            }
            Swap::Conflict { current } => Err(conflict(&self.store, self.id, current)),
        }
    }
}

/// The failure that a record has another version than was asked for.
pub(crate) fn conflict(store: &std::path::Path, id: u64, current: Option<Version>) -> Failure {
    let is = current.map_or("is absent".to_owned(), |version| format!("has version {version}"));
    Failure::Absent(format!("{}: record {id} ({id:#x}) {is}; nothing was written", store.display()))
}
