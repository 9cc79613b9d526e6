//! The extents that a handle knows, so that a growth need not look at all of them again.

use std::ops::Range;

/// The extents before `cursor` are in use. These are the index runs among them.
#[derive(Default)]
pub(crate) struct Extents {
    pub(super) cursor: u32,
    pub(super) index_runs: Vec<Range<u32>>,
}
