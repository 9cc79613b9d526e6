//! Every record of a store in turn, for the commands that show them all.

use std::io::{self, IsTerminal};

use indicatif::ProgressBar;
use recstore::{Error, Record, Store};

use super::failure::Failure;
use super::output::{counted, say};
use super::progress;

/// Gives every live record to `show`. Records that are damaged are named on standard error and
/// passed over; once all others were shown they make the walk fail.
pub(crate) fn walk(
    store: &Store,
    mut show: impl FnMut(&Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // On one terminal the records themselves are the progress.
    let bar = match io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => progress::records(store.len().ok()),
    };
    let mut damaged = 0_u64;
    for record in store.iter() {
        match record {
            Ok(record) => show(&record)?,
            Err(error @ Error::Corrupt { .. }) => {
                damaged += 1;
                bar.suspend(|| say(format_args!("{error}")));
            }
            Err(error) => return Err(error.into()),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    match damaged {
        0 => Ok(()),
        _ => Err(Failure::Damaged(format!(
            "{}: not shown for damage: {}",
            store.path().display(),
            counted(damaged, "record")
        ))),
    }
}
