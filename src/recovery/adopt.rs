//! Extents whose header is lost or wrong. Their slots, and the words that lead to them, show their kind.
//!
//! A run for index tables is believed where regions have tables in it, and where no whole version lies in it.

use crate::error::Result;
use crate::file::arena::Arena;
use crate::file::extents::{GROUPS_PER_UNIT_MAX, index_run, uniform};
use crate::format::board::BOARDS;
use crate::format::extent::{Extent, ExtentKind, NO_CLASS};
use crate::format::geometry::{EXTENT_HEADER_BYTES, GROUPS_MAX};
use crate::sys::atomic::Ordering;
use crate::sys::step::step;

/// An extent without a header as what it is, or `None` if nothing shows it.
fn known(arena: &Arena, extent: &Extent) -> Option<Extent> {
    let of = |region, extent: &Extent| Extent { kind: Some(ExtentKind::Data { region }), ..*extent };
    if let Some(region) = arena.region_by_slots(extent) {
        return Some(of(region, extent));
    }
    // Fresh slots show nothing, but the words of their region do.
    let is_fresh = |region, of: &Extent| {
        let fresh = arena.class(region, of.class).fresh.load(Ordering::Relaxed).slot();
        fresh.is_ok_and(|slot| slot.is_some_and(|slot| of.slot_numbers(&arena.geo).contains(&slot)))
    };
    // A gap of several extents has more numbers than any one of them: with another number of slots, one that is put there would
    // take the numbers of those behind it.
    let is_last = extent.end() >= arena.unit_count().unwrap_or(0);
    let candidates: Vec<Extent> = if arena.geo.grows {
        arena.headers().may_have_been(*extent, is_last).collect()
    } else {
        vec![*extent]
    };
    for candidate in &candidates {
        if let Some(region) = (0..arena.geo.regions).find(|&region| is_fresh(region, candidate)) {
            return Some(of(region, candidate));
        }
    }
    // An extent for index tables begins where the first of its tables does.
    let start = arena.geo.unit_offset(extent.unit) + EXTENT_HEADER_BYTES;
    let tables = (0..arena.geo.regions).map(|region| arena.shape(region));
    let tables = tables.map(|shape| (shape.offset(), shape.bytes()));
    let boards = BOARDS.iter().filter_map(|&board| arena.board_range(board));
    let mut all = tables.chain(boards.map(|range| (range.start, range.end - range.start)));
    let (_, bytes) = all.find(|(offset, _)| *offset == start)?;
    let run = index_run(&arena.geo, bytes);
    Some(Extent { run, slots: 0, class: 0, kind: Some(ExtentKind::Index), ..*extent })
}

/// The same for an extent whose numbers no neighbour tells: it is of the class at whose places most slots lie, and gets numbers that no
/// extent has. Its region must be rebuilt.
fn known_out_of_order(arena: &Arena, extent: &Extent) -> Result<Option<Extent>> {
    let geo = &arena.geo;
    if !geo.grows || extent.class != NO_CLASS || extent.slots != 0 {
        return Ok(None);
    }
    let of_class = |class| {
        let slots = geo.slots_in(extent.run, geo.class_size(class));
        let guess = Extent { class, slots, is_stray: true, ..*extent };
        let region = (slots > 0).then(|| arena.region_by_slots(&guess)).flatten()?;
        let found = (0..slots).filter(|&n| arena.holds_slot_of(&guess, n, region)).count();
        Some((found, Extent { kind: Some(ExtentKind::Data { region }), ..guess }))
    };
    let best = (0..geo.classes).filter_map(of_class).max_by_key(|(found, _)| *found);
    let Some((_, best)) = best else { return Ok(None) };
    let group = arena.groups_in_use()?;
    let end = group.saturating_add(geo.groups_for(best.slots));
    let most = u64::from(arena.unit_count()?) * GROUPS_PER_UNIT_MAX;
    let has_numbers = end <= GROUPS_MAX && u64::from(end) <= most;
    arena.control().groups().raise_to(u64::from(end));
    Ok(has_numbers.then_some(Extent { group, ..best }))
}

/// Gives every extent that lost its header another one, if its kind is known. Returns the regions that got an extent back. An
/// extent whose kind is not known is wiped, so that it is used again, if all bytes behind its header are zeros, or if `wipe` is
/// set. The caller holds the growth lock, or the whole store.
pub(crate) fn adopt(arena: &Arena, wipe: bool, fixed: &mut Vec<String>) -> Result<Vec<u32>> {
    let mut regions = Vec::new();
    for (start, extent, region) in hidden(arena)? {
        if extent.unit > start {
            let run = extent.unit - start;
            let group = if arena.geo.grows { extent.group } else { start };
            let before = Extent { unit: start, run, group, kind: None, slots: 0, class: 0, is_stray: false };
            arena.write_extent_header(&before, ExtentKind::Index)?;
        }
        arena.write_extent_header(&extent, ExtentKind::Data { region })?;
        regions.push(region);
        fixed.push(format!(
            "extent {} was said to hold index tables, holds records, and was given back to region {region}",
            extent.unit
        ));
    }
    for extent in unsound(arena)? {
        if let Some(kind) = extent.kind {
            // Its header was lost or forged and not the copy of it, or the other way round.
            if arena.extent_at(extent.unit) != Some(extent) {
                fixed.push(format!("the header of extent {} was written anew, by its copy", extent.unit));
            }
            arena.write_extent_header(&extent, kind)?;
        }
    }
    let mut passed = 0;
    for extent in headless(arena)? {
        if extent.unit < passed {
            continue; // It lies in an extent for index tables.
        }
        let number = extent.unit;
        let known = match known(arena, &extent) {
            None => known_out_of_order(arena, &extent)?,
            known => known,
        };
        match known.and_then(|known| Some((known, known.kind?))) {
            Some((known, kind)) => {
                if known.is_stray {
                    arena.change_layout(); // Other handles may know its numbers as those of another extent.
                }
                arena.write_extent_header(&known, kind)?;
                passed = known.end();
                fixed.push(match kind {
                    ExtentKind::Data { region } => {
                        regions.push(region);
                        format!("extent {number} had lost its header and was given back to region {region}")
                    }
                    ExtentKind::Index => {
                        format!("extent {number}, which holds index tables, was given a header")
                    }
                });
            }
            None => {
                let range = extent.range(&arena.geo);
                let words = arena.words(range.start, ((range.end - range.start) / 8) as usize);
                let Some(words) = words else { continue };
                let (header, rest) = words.split_at(EXTENT_HEADER_BYTES as usize / 8);
                if wipe || rest.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
                    for word in header.iter().chain(rest).filter(|w| w.load(Ordering::Relaxed) != 0) {
                        word.store(0, Ordering::Relaxed);
                    }
                    fixed.push(format!("extent {number} belonged to no region and can be used again"));
                }
            }
        }
    }
    Ok(regions)
}

/// Those without a header that are not unused, and those whose header is not valid or lacks its copy: in one look at all extents.
pub(crate) fn flawed(arena: &Arena) -> Result<Vec<Extent>> {
    let mut found = Vec::new();
    arena.each_extent(|extent| {
        if is_headless(arena, extent) || extent.kind.is_some() && !arena.headers_hold(extent) {
            found.push(*extent);
        }
    })?;
    Ok(found)
}

fn is_headless(arena: &Arena, extent: &Extent) -> bool {
    if extent.kind.is_some() {
        return false;
    }
    step("headless: an extent has no header");
    !arena.is_unused(extent)
}

/// Extents that have no header, and are not unused.
fn headless(arena: &Arena) -> Result<Vec<Extent>> {
    let mut found = Vec::new();
    arena.each_extent(|extent| {
        if is_headless(arena, extent) {
            found.push(*extent);
        }
    })?;
    Ok(found)
}

/// Extents whose kind is known, and whose header is not valid or lacks its copy.
fn unsound(arena: &Arena) -> Result<Vec<Extent>> {
    let mut found = Vec::new();
    arena.each_extent(|extent| {
        if extent.kind.is_some() && !arena.headers_hold(extent) {
            found.push(*extent);
        }
    })?;
    Ok(found)
}

/// Data extents that a wrong header hides. By their own header, or by that of an extent before them, they lie in an extent for index
/// tables. But no region's table lies there, and they hold whole versions, or have a header of their own or a copy of one.
/// Each is given with the first unit of the index extent and with its region, in order.
fn hidden(arena: &Arena) -> Result<Vec<(u32, Extent, u32)>> {
    let count = arena.unit_count()?;
    let mut runs = Vec::new();
    arena.each_extent(|extent| {
        if extent.kind == Some(ExtentKind::Index) {
            runs.push(Extent { run: extent.end().min(count) - extent.unit, ..*extent });
        }
    })?;
    let tables: Vec<_> = (0..arena.geo.regions).map(|region| arena.shape(region)).collect();
    let holds_table = |extent: &Extent| {
        let range = extent.range(&arena.geo);
        tables.iter().any(|table| table.offset() < range.end && range.start < table.offset() + table.bytes())
    };
    let mut found = Vec::new();
    for run in runs {
        let mut inside = arena.headers().inside(&run);
        if !arena.geo.grows {
            let units = (run.unit..run.end()).map(|unit| uniform(&arena.geo, unit));
            let by_versions = units.filter_map(|extent| {
                let is_told = inside.iter().any(|told| told.unit == extent.unit);
                let region = if is_told { None } else { arena.region_by_versions(&extent) };
                region.map(|region| Extent { kind: Some(ExtentKind::Data { region }), ..extent })
            });
            let by_versions: Vec<_> = by_versions.collect();
            inside.extend(by_versions);
        }
        inside.sort_by_key(|extent| extent.unit);
        let mut start = run.unit;
        for extent in inside.into_iter().filter(|extent| !holds_table(extent)) {
            if let Some(region) = extent.region() {
                found.push((start, extent, region));
                start = extent.end();
            }
        }
    }
    Ok(found)
}
