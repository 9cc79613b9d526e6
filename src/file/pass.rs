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

/// Takes something out of each slot of a region, without a lock, and keeps it. What is taken out of the bytes of an extent that is given
/// back meanwhile is dropped: none of its slots holds anything, and another extent may be in its place.
pub(crate) fn each_slot_of<T>(
    arena: &Arena,
    region: u32,
    take: impl FnMut(u32, &[AtomicU64]) -> Option<T>,
    keep: impl FnMut(u32, T),
) -> Result<()> {
    each_slot_in(arena, arena.all_data_extents(region)?, take, keep)
}

/// The same for all extents of a region, which the caller has looked up.
pub(crate) fn each_slot_in<T>(
    arena: &Arena,
    extents: Vec<Extent>,
    mut take: impl FnMut(u32, &[AtomicU64]) -> Option<T>,
    mut keep: impl FnMut(u32, T),
) -> Result<()> {
    let mut taken = Vec::new();
    for extent in extents {
        for slot in slots_of_extent(arena, extent) {
            let (slot, words) = slot?;
            taken.extend(take(slot, words).map(|it| (slot, it)));
        }
        if arena.still_has(&extent) {
            taken.drain(..).for_each(|(slot, it)| keep(slot, it));
        }
        taken.clear();
    }
    Ok(())
}
