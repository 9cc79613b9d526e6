#![doc = include_str!("mod.md")]

pub(crate) mod board;
pub(crate) mod checked;
pub(crate) mod control;
pub(crate) mod epoch;
pub(crate) mod extent;
pub(crate) mod geometry;
pub(crate) mod hash;
pub(crate) mod index;
pub(crate) mod keyed;
pub(crate) mod region;
pub(crate) mod seat;
pub(crate) mod shaped;
pub(crate) mod slot;
pub(crate) mod superblock;
pub(crate) mod word;

/// The version of the format that this build reads and writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Every part of the file starts on a multiple of this many bytes.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// `n` rounded up to a multiple of `to`, a power of two.
pub(crate) const fn round_up(n: u64, to: u64) -> u64 {
    (n + to - 1) & !(to - 1)
}
