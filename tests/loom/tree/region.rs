//! The region: what its owner does and how it is read are the crate's own files, and so is the judging
//! of seats.

#[path = "../stand_in/arena.rs"]
pub(crate) mod arena;
#[path = "../../../src/region/batch.rs"]
pub(crate) mod batch;
#[path = "../../../src/region/borrow.rs"]
pub(crate) mod borrow;
#[path = "../../../src/region/decided.rs"]
pub(crate) mod decided;
#[path = "../stand_in/grow.rs"]
pub(crate) mod grow;
#[path = "../../../src/region/owned.rs"]
pub(crate) mod owned;
#[path = "../../../src/region/read.rs"]
pub(crate) mod read;
#[path = "../../../src/region/seat.rs"]
pub(crate) mod seat;
#[path = "../../../src/region/slots.rs"]
pub(crate) mod slots;
#[path = "../../../src/region/survey.rs"]
pub(crate) mod survey;
#[path = "../../../src/region/table.rs"]
pub(crate) mod table;
#[path = "../../../src/region/watch.rs"]
pub(crate) mod watch;

use crate::error::Error;

/// As in the crate.
#[derive(Debug)]
pub(crate) enum Trouble {
    Flaw(&'static str),
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
