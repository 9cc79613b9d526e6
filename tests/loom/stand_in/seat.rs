//! Seats: the crate's own file, but that there are few, so that looking at all of them is a small model.

#[path = "../../../src/format/seat.rs"]
mod real;

use super::PAGE_BYTES;

pub(crate) use real::*;
pub(crate) const SEATS: u32 = 3;
pub(crate) const BORROWS: u32 = 1;
