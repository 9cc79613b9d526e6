//! Every record of a store in turn, for the commands that show them all: progress, and damaged records.

use indicatif::ProgressBar;
use recstore::{Error, Record, Store};

use super::failure::Failure;
use super::output::{counted, is_terminal, say};
use super::progress;

/// A walk through the records of a store. Records that are damaged are named on standard error and passed over; once
/// all others were shown they make the walk fail.
pub(crate) struct Walk<'s> {
    store: &'s Store,
    bar: ProgressBar,
    damaged: u64,
}

impl<'s> Walk<'s> {
    /// Begins a walk.
    pub(crate) fn new(store: &'s Store) -> Self {
        // On one terminal the records themselves are the progress.
        let bar = match is_terminal() {
            true => ProgressBar::hidden(),
            false => progress::records(store.len().ok()),
        };
        Self { store, bar, damaged: 0 }
    }

    /// The next record, unless it is damaged.
    pub(crate) fn take(&mut self, record: recstore::Result<Record>) -> Result<Option<Record>, Failure> {
        self.bar.inc(1);
        match record {
            Ok(record) => Ok(Some(record)),
            Err(error @ Error::Corrupt { .. }) => {
                self.damaged(&error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Names a damaged record.
    pub(crate) fn damaged(&mut self, error: &Error) {
        self.damaged += 1;
        self.bar.suspend(|| say(format_args!("{error}")));
    }

    /// Ends the walk.
    pub(crate) fn end(self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        match self.damaged {
            0 => Ok(()),
            damaged => Err(Failure::Damaged(format!(
                "{}: not shown for damage: {}",
                self.store.path().display(),
                counted(damaged, "record")
            ))),
        }
    }
}
