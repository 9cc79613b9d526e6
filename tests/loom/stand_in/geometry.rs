//! The geometry: the crate's own file, but that a region's first index table has one line, so that a
//! model which moves or rebuilds a table is small.

#[path = "../../../src/format/geometry.rs"]
mod real;

use super::{PAGE_BYTES, hash, round_up, seat, slot};

pub(crate) use real::*;
pub(crate) const FIRST_INDEX_BYTES: u64 = 64;
