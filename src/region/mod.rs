//! A region: the work of its lock's owner, and reading without a lock.

pub(crate) mod batch;
pub(crate) mod decided;
pub(crate) mod delete;
pub(crate) mod find;
pub(crate) mod finish;
pub(crate) mod head;
pub(crate) mod intent;
pub(crate) mod read;
pub(crate) mod rewrite;
pub(crate) mod room;
pub(crate) mod slots;
pub(crate) mod table;
pub(crate) mod watch;
pub(crate) mod write;

use crate::error::Error;

/// The reason why a step of an owner failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The region's derived state contradicts itself: rebuild it and try again.
    Flaw(&'static str),
    /// Anything else.
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
