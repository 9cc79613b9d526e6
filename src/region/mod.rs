//! The regions: the file as typed places, what a region's owner does in it, how it grows.

pub(crate) mod arena;
pub(crate) mod batch;
pub(crate) mod blocks;
pub(crate) mod borrow;
pub(crate) mod continuity;
pub(crate) mod decided;
pub(crate) mod grow;
pub(crate) mod owned;
pub(crate) mod read;
pub(crate) mod seat;
pub(crate) mod slots;
pub(crate) mod survey;
pub(crate) mod table;
pub(crate) mod watch;

use crate::error::Error;

/// Why an owner's step could not be done.
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
