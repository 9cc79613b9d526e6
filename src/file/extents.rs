//! What a handle knows of the file's extents, so that a growth need not look at all of them again.

use std::ops::Range;

/// What is known of the extents before `cursor`: they are in use.
#[derive(Default)]
pub(crate) struct Extents {
    pub(super) cursor: u32,
    pub(super) index_runs: Vec<Range<u32>>,
}
