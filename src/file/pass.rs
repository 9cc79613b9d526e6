//! A pass over the slots of a region, in the order of the file.

use crate::error::Result;
use crate::file::arena::Arena;
use crate::format::extent::Extent;
use crate::sys::atomic::AtomicU64;

/// All slots of a region, each with its words.
pub(crate) fn slots_of(
    arena: &Arena,
    region: u32,
) -> Result<impl Iterator<Item = Result<(u32, &[AtomicU64])>>> {
    Ok(slots_in(arena, arena.data_extents(region)?))
}

/// All slots of these extents. A slot that cannot be mapped is an error: it may hold a record.
pub(crate) fn slots_in(
    arena: &Arena,
    extents: Vec<Extent>,
) -> impl Iterator<Item = Result<(u32, &[AtomicU64])>> {
    extents.into_iter().flat_map(|extent| slots_of_extent(arena, extent))
}

fn slots_of_extent(arena: &Arena, extent: Extent) -> impl Iterator<Item = Result<(u32, &[AtomicU64])>> {
    arena.will_read(&extent);
    (0..extent.slots).zip(extent.slot_numbers(&arena.geo)).map(move |(n, slot)| {
        match arena.slot_in(&extent, n) {
            Some(words) => Ok((slot, words)),
            None => Err(arena.damaged(format!("slot {slot} is in a part of the file that can't be mapped"))),
        }
    })
}
