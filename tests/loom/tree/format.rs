//! The format: the crate's own files.

#[path = "../../../src/format/checked.rs"]
pub(crate) mod checked;
#[path = "../../../src/format/control.rs"]
pub(crate) mod control;
#[path = "../../../src/format/epoch.rs"]
pub(crate) mod epoch;
#[path = "../../../src/format/extent.rs"]
pub(crate) mod extent;
#[path = "../stand_in/geometry.rs"]
pub(crate) mod geometry;
#[path = "../../../src/format/hash.rs"]
pub(crate) mod hash;
#[path = "../../../src/format/index.rs"]
pub(crate) mod index;
#[path = "../../../src/format/keyed.rs"]
pub(crate) mod keyed;
#[path = "../../../src/format/region.rs"]
pub(crate) mod region;
#[path = "../stand_in/seat.rs"]
pub(crate) mod seat;
#[path = "../../../src/format/slot.rs"]
pub(crate) mod slot;
#[path = "../../../src/format/word.rs"]
pub(crate) mod word;

pub(crate) const PAGE_BYTES: u64 = 4096;

pub(crate) const fn round_up(n: u64, to: u64) -> u64 {
    (n + to - 1) & !(to - 1)
}
