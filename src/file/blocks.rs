//! Every page of the file that may be written has a block of its own. Otherwise a full disk would be a SIGBUS.
//!
//! 1. Creation and growth allocate blocks before any word leads to them.
//! 2. A store that was copied while it was closed may have lost blocks: zeros became holes, or the copy and the original share
//!    blocks. So an opening handle allocates the blocks of the fixed parts before it writes to them. The first writer after a
//!    clean mark allocates those of all other parts in use.
//! 3. At a clean close the file's blocks are counted. If the same file has as many, it has lost none, and its blocks are not
//!    looked at. On file systems whose files can share blocks they are looked at each time: one system call for 256 pieces of
//!    the file.
//! 4. The links of a region that needs none are a hole and stay one. So do the bytes behind the extents in use.
//! 5. If the file is in memory (tmpfs), even reading a hole takes room. So if such a file has fewer blocks than its parts in
//!    use, every opening handle has their pages made, even a read-only one.
//! 6. On a file system that takes new blocks for every write, none of this helps: see `sys::blocks::copy_on_write`.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use crate::error::Result;
use crate::file::arena::Arena;
use crate::file::extents::twin_offset;
use crate::format::board::BOARDS;
use crate::format::extent::{ExtentKind, NO_CLASS};
use crate::format::geometry::EXTENT_HEADER_BYTES;
use crate::format::{PAGE_BYTES, checked, round_up};
use crate::sys::atomic::Ordering;
use crate::sys::blocks::Piece;
use crate::sys::{blocks, file};

/// Rule 2, for the fixed parts. The handle has not written yet.
pub(crate) fn see_to_fixed_parts(arena: &Arena) -> Result<()> {
    let fixed = 0..arena.geo.base;
    if is_as_noted(arena)? { Ok(()) } else { see_to(arena, std::slice::from_ref(&fixed), fixed.clone()) }
}

/// Rule 2, for all parts in use. No handle has written since the clean mark.
pub(crate) fn see_to_all(arena: &Arena) -> Result<()> {
    if is_as_noted(arena)? {
        return Ok(());
    }
    let in_use = in_use(arena)?; // This looks at the file's length.
    see_to(arena, &in_use, 0..arena.map.len())
}

/// Rule 5.
pub(crate) fn see_to_reads(arena: &Arena) -> Result<()> {
    if !blocks::is_in_memory(&arena.file) || is_as_noted(arena)? {
        return Ok(());
    }
    let in_use = in_use(arena)?;
    let least = in_use.iter().map(|range| range.end - range.start).sum();
    let metadata = arena.file.same_metadata().map_err(arena.io("looking at the file"))?;
    if metadata.blocks().saturating_mul(512) >= least {
        return Ok(());
    }
    for range in in_use {
        let bytes = range.end - range.start;
        arena.map.make_readable(range.start, bytes).map_err(|source| {
            if file::is_no_room(&source) {
                arena.no_blocks(bytes, source)
            } else {
                arena.io("making pages for a file that was copied")(source)
            }
        })?;
    }
    Ok(())
}

/// Rule 3: notes the number of the file's blocks. The whole file is on disk.
pub(crate) fn note(arena: &Arena) -> Result<()> {
    let metadata = arena.file.same_metadata().map_err(arena.io("looking at the file"))?;
    arena.control().blocks().store(metadata.blocks(), Ordering::SeqCst);
    arena.control().blocks_of().store(which(arena), Ordering::SeqCst);
    Ok(())
}

/// One number for device and inode. Two files may have the same number, if both their device and their inode differ.
fn which(arena: &Arena) -> u64 {
    let (device, inode) = arena.file.identity();
    (device.rotate_left(24) ^ inode) & checked::MAX
}

fn is_as_noted(arena: &Arena) -> Result<bool> {
    if arena.control().blocks_of().load(Ordering::SeqCst) != Some(which(arena))
        || blocks::may_share(&arena.file)
    {
        return Ok(false);
    }
    let noted = arena.control().blocks().load(Ordering::SeqCst);
    let metadata = arena.file.same_metadata().map_err(arena.io("looking at the file"))?;
    Ok(noted.is_some_and(|noted| metadata.blocks() >= noted))
}

/// The ranges that must have blocks, in order, in whole pages.
fn in_use(arena: &Arena) -> Result<Vec<Range<u64>>> {
    let geo = &arena.geo;
    let mut found = Vec::new();
    let mut add = |from: u64, to: u64| found.push(from & !(PAGE_BYTES - 1)..round_up(to, PAGE_BYTES));
    add(0, geo.base);
    arena.each_extent(|extent| {
        let range = extent.range(geo);
        let has_links = |region| !arena.head(region).links().is_zero(Ordering::Relaxed);
        match extent.kind {
            Some(kind @ ExtentKind::Index) => {
                add(range.start, range.start + EXTENT_HEADER_BYTES);
                if let Some(twin) = twin_offset(geo, extent, kind) {
                    add(twin, twin + EXTENT_HEADER_BYTES);
                }
            }
            Some(ExtentKind::Data { region }) if has_links(region) => add(range.start, range.end),
            Some(ExtentKind::Data { .. }) => add(range.start, range.start + extent.filled_bytes(geo)),
            // A damaged header may have good slots behind it.
            None if extent.class != NO_CLASS => add(range.start, range.start + extent.filled_bytes(geo)),
            // Room that was given back is a hole, and stays one.
            None if arena.is_unused(extent) => {}
            None => add(range.start, range.end),
        }
    })?;
    for region in 0..geo.regions {
        let shape = arena.shape(region);
        let (from, to) = (shape.offset(), shape.offset().saturating_add(shape.bytes()));
        if from >= geo.base && to <= arena.map.len() {
            add(from, to);
        }
    }
    for range in BOARDS.iter().filter_map(|&board| arena.board_range(board)) {
        add(range.start, range.end);
    }
    found.sort_by_key(|range| range.start);
    Ok(merged(found))
}

/// The same ranges, without two that meet.
fn merged(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The parts of `wanted` that are not in `there`; both are in order.
fn without(wanted: &[Range<u64>], there: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut next = 0;
    for range in wanted {
        let mut at = range.start;
        while next < there.len() && there[next].end <= at {
            next += 1;
        }
        for piece in there[next..].iter().take_while(|piece| piece.start < range.end) {
            if piece.start > at {
                left.push(at..piece.start);
            }
            at = at.max(piece.end);
        }
        if at < range.end {
            left.push(at..range.end);
        }
    }
    left
}

/// Allocates the wanted ranges that have no blocks. Gives every range of `scope` that shares blocks its own ones, even a range
/// that is not in use now: growth takes its blocks for allocated.
fn see_to(arena: &Arena, wanted: &[Range<u64>], scope: Range<u64>) -> Result<()> {
    let file = arena.file.same().map_err(arena.io("looking at the file's blocks"))?;
    let pieces = blocks::pieces(file, scope.clone());
    let pieces = pieces.map_err(arena.io("looking at the file's blocks (FS_IOC_FIEMAP)"))?;
    let (missing, shared) = match pieces {
        // To allocate present blocks costs only a system call.
        None => (wanted.to_vec(), Vec::new()),
        Some(pieces) => {
            let clipped = |piece: &Piece| piece.bytes.start.max(scope.start)..piece.bytes.end.min(scope.end);
            let shared = pieces.iter().filter(|piece| piece.is_shared).map(clipped).collect();
            (without(wanted, &merged(pieces.iter().map(clipped).collect())), merged(shared))
        }
    };
    let no_room = |range: &Range<u64>, source| {
        if file::is_no_room(&source) {
            arena.no_blocks(range.end - range.start, source)
        } else {
            arena.io("allocating blocks for a file that was copied")(source)
        }
    };
    for range in &missing {
        file::allocate(file, range.start, range.end - range.start).map_err(|e| no_room(range, e))?;
    }
    for range in &shared {
        let unshared = blocks::unshare(file, range).and_then(|done| {
            // If the file system can't unshare, a write that changes nothing makes it take blocks.
            if done { Ok(()) } else { arena.map.make_writable(range.start, range.end - range.start) }
        });
        unshared.map_err(|e| no_room(range, e))?;
    }
    if !shared.is_empty() {
        // The new blocks are the file's only after a flush.
        file.sync_data().map_err(arena.io("flushing blocks that a copy shared"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_what_is_wanted_and_not_there() {
        assert_eq!(without(&[0..10, 20..30], &[]), [0..10, 20..30]);
        assert_eq!(without(&[0..10, 20..30], &[0..15, 15..30]), []);
        assert_eq!(without(&[0..10, 20..30], &[2..3, 5..22, 29..40]), [0..2, 3..5, 22..29]);
        assert_eq!(without(&[5..10, 12..15], &[0..2, 8..13]), [5..8, 13..15]);
        assert_eq!(merged(vec![0..2, 2..3, 3..3, 5..9, 6..7]), [0..3, 5..9]);
    }
}
