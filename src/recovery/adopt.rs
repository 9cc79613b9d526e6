//! Extents whose header was lost: the slots behind it say whose they are.

use crate::error::Result;
use crate::format::extent::Kind;
use crate::recovery::survey::{SlotState, survey};
use crate::region::arena::Arena;
use crate::sys::atomic::Ordering;

/// The region whose whole versions lie in the extent, if any do.
fn region_by_slots(arena: &Arena, extent: u32) -> Option<u32> {
    let mut buffer = Vec::new();
    arena.slots_of(extent).find_map(|slot| {
        let words = arena.slot(slot)?;
        let id = words[1].load(Ordering::Relaxed);
        let region = arena.geo.region_of(arena.geo.hash(id));
        let state = survey(words, region, &arena.geo, &mut buffer);
        matches!(state, SlotState::Version(_) | SlotState::Tombstone(_)).then_some(region)
    })
}

/// Gives every extent that has no header and whole versions its header back; the regions that got
/// one. An extent with neither is wiped if `wipe` says so, so that it is used again. The caller
/// holds the growth lock, or the whole store.
pub(crate) fn adopt(arena: &Arena, wipe: bool, fixed: &mut Vec<String>) -> Result<Vec<u32>> {
    let mut lost = Vec::new();
    arena.each_extent(|extent, kind| {
        if kind.is_none() {
            lost.push(extent);
        }
    })?;
    let mut regions = Vec::new();
    for extent in lost {
        if let Some(region) = region_by_slots(arena, extent) {
            arena.write_extent_header(extent, Kind::Data { region })?;
            fixed.push(format!("extent {extent} had lost its header and was given back to region {region}"));
            regions.push(region);
        } else if wipe
            && let Some(words) =
                arena.words(arena.geo.extent_offset(extent), (arena.geo.extent_size / 8) as usize)
        {
            for word in words {
                if word.load(Ordering::Relaxed) != 0 {
                    word.store(0, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(regions)
}

/// Extents that have neither a header nor zeros throughout.
pub(crate) fn headless(arena: &Arena) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    arena.each_extent(|extent, kind| {
        let words = arena.words(arena.geo.extent_offset(extent), (arena.geo.extent_size / 8) as usize);
        if kind.is_none() && words.is_some_and(|w| w.iter().any(|w| w.load(Ordering::Relaxed) != 0)) {
            found.push(extent);
        }
    })?;
    Ok(found)
}
