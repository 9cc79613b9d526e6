//! Extents whose header is lost or wrong. Their slots, and the words that lead to them, show their kind.
//!
//! A run for index tables is believed where regions have tables in it, and where no whole version lies in it.

use crate::error::Result;
use crate::file::arena::Arena;
use crate::format::extent::ExtentKind;
use crate::format::geometry::EXTENT_HEADER_BYTES;
use crate::region::head::Region;
use crate::sys::atomic::Ordering;
use crate::sys::step::step;

/// The kind of an extent without a header, or `None` if nothing shows it.
fn kind_of(arena: &Arena, extent: u32) -> Option<ExtentKind> {
    if let Some(region) = arena.region_by_slots(extent) {
        return Some(ExtentKind::Data { region });
    }
    // Fresh slots show nothing, but the head of their region does.
    let is_fresh_of = |region: u32| {
        let fresh = Region::new(arena, region).fresh().ok().and_then(|mut fresh| fresh.next());
        fresh.is_some_and(|next| arena.geo.extent_of(next) == extent)
    };
    if let Some(region) = (0..arena.geo.regions).find(|&region| is_fresh_of(region)) {
        return Some(ExtentKind::Data { region });
    }
    // A run of extents for index tables begins where the first of its tables does.
    let start = arena.geo.extent_offset(extent) + EXTENT_HEADER_BYTES;
    let tables: Vec<_> = (0..arena.geo.regions).map(|region| arena.shape(region)).collect();
    let first = tables.iter().find(|shape| shape.offset() == start)?;
    let end = first.offset() + first.bytes();
    let run = (end - arena.geo.extent_offset(extent)).div_ceil(arena.geo.extent_size);
    u32::try_from(run).ok().map(|run| ExtentKind::Index { run })
}

/// Gives every extent that lost its header another one, if its kind is known. Returns the regions that got an extent back. An
/// extent whose kind is not known is wiped, so that it is used again, if all bytes behind its header are zeros, or if `wipe` is
/// set. The caller holds the growth lock, or the whole store.
pub(crate) fn adopt(arena: &Arena, wipe: bool, fixed: &mut Vec<String>) -> Result<Vec<u32>> {
    let mut regions = Vec::new();
    for (start, extent, region) in hidden(arena)? {
        if extent > start {
            arena.write_extent_header(start, ExtentKind::Index { run: extent - start })?;
        }
        arena.write_extent_header(extent, ExtentKind::Data { region })?;
        regions.push(region);
        fixed.push(format!(
            "extent {extent} was said to hold index tables, holds records, and was given back to region {region}"
        ));
    }
    let mut skip = 0; // Extents inside of a run.
    for extent in headless(arena)? {
        if extent < skip {
            continue;
        }
        match kind_of(arena, extent) {
            Some(kind) => {
                arena.write_extent_header(extent, kind)?;
                fixed.push(match kind {
                    ExtentKind::Data { region } => {
                        regions.push(region);
                        format!("extent {extent} had lost its header and was given back to region {region}")
                    }
                    ExtentKind::Index { run } => {
                        skip = extent.saturating_add(run);
                        format!("extent {extent}, which holds index tables, was given a header")
                    }
                });
            }
            None => {
                let words =
                    arena.words(arena.geo.extent_offset(extent), (arena.geo.extent_size / 8) as usize);
                let Some(words) = words else { continue };
                let (header, rest) = words.split_at(EXTENT_HEADER_BYTES as usize / 8);
                if wipe || rest.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
                    for word in header.iter().chain(rest).filter(|w| w.load(Ordering::Relaxed) != 0) {
                        word.store(0, Ordering::Relaxed);
                    }
                    fixed.push(format!("extent {extent} belonged to no region and can be used again"));
                }
            }
        }
    }
    Ok(regions)
}

/// Extents that have no header, and are not unused.
pub(crate) fn headless(arena: &Arena) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    arena.each_extent(|extent, kind| {
        if kind.is_some() {
            return;
        }
        step("headless: an extent has no header");
        if !arena.is_unused(extent) {
            found.push(extent);
        }
    })?;
    Ok(found)
}

/// Data extents that a wrong header hides. By their own header, or by that of a run before them, they lie in a run for index
/// tables. But no region's table lies there, and they hold whole versions or, inside the run, have a header of their own.
/// Each is given with the first extent of the run and with its region, in order.
fn hidden(arena: &Arena) -> Result<Vec<(u32, u32, u32)>> {
    let count = arena.extent_count()?;
    let mut runs = Vec::new();
    arena.each_extent(|extent, kind| {
        if let Some(ExtentKind::Index { run }) = kind {
            runs.push(extent..extent.saturating_add(run).min(count));
        }
    })?;
    let tables: Vec<_> = (0..arena.geo.regions).map(|region| arena.shape(region)).collect();
    let mut found = Vec::new();
    for run in runs {
        let first = run.start;
        let mut start = first;
        for extent in run {
            let (from, to) = (arena.geo.extent_offset(extent), arena.geo.extent_offset(extent + 1));
            if tables.iter().any(|table| table.offset() < to && from < table.offset() + table.bytes()) {
                continue;
            }
            let own = if extent == first { None } else { arena.extent_kind(extent) };
            let region = match own {
                Some(ExtentKind::Data { region }) => Some(region),
                _ => arena.region_by_versions(extent),
            };
            if let Some(region) = region {
                found.push((start, extent, region));
                start = extent + 1;
            }
        }
    }
    Ok(found)
}
