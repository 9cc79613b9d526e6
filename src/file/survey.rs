//! The state of a slot, by its bytes alone.

use crate::format::geometry::Geometry;
use crate::format::slot::{BLOCKS_MAX, Header, PRESENT, SlotKind, block_of};
use crate::protocol::slot::{header, is_free, room};
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::copy::copy_out;

/// The state of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Free: on the region's free list, or due to be there.
    Free,
    /// Never used.
    Fresh,
    /// Reserved, for this seat and generation.
    Reserved(u32, u32),
    /// `seq` is 0, and none of the above: a write or a scrub was cut off here.
    CutOff,
    /// Free, parked or never used, but for its `seq`: a bit of it was flipped.
    FreeButForSeq,
    /// A whole version of a record of the region.
    Version(Header),
    /// The deletion of a record of the region.
    Tombstone(Header),
    /// None of the above.
    Damaged(Header, &'static str),
    /// It changed during the look.
    Moved,
}

/// Judges a slot. `buffer` is room for its data.
pub(crate) fn survey(slot: &[AtomicU64], region: u32, geo: &Geometry, buffer: &mut Vec<u8>) -> SlotState {
    let header = header(slot);
    let rest_is_zero = header.is_fresh_but_for_seq();
    let state = if header.seq() == 0 {
        match (is_free(&header, region), rest_is_zero) {
            (true, _) => SlotState::Free,
            (_, true) => SlotState::Fresh,
            _ => match header.reserved_for() {
                Some((seat, generation)) => SlotState::Reserved(seat, generation),
                None => SlotState::CutOff,
            },
        }
    } else if header.is_free_but_for_seq(region) || header.is_parked_but_for_seq() || rest_is_zero {
        // No version has a stamp of 0: epochs begin at 1.
        SlotState::FreeButForSeq
    } else if !matches!(header.kind(), SlotKind::Record | SlotKind::Tombstone) {
        SlotState::Damaged(header, "its kind is unknown")
    } else if header.len() > room(slot).min(geo.record_size as usize)
        || header.kind() == SlotKind::Tombstone && header.len() != 0
    {
        SlotState::Damaged(header, "its length is impossible")
    } else {
        buffer.resize(header.len(), 0);
        copy_out(&slot[crate::format::slot::HEADER_WORDS..], buffer);
        if !header.holds(buffer) {
            SlotState::Damaged(header, "checksum mismatch")
        } else if header.seq() & PRESENT == 0 || geo.region_of(geo.hash(header.id())) != region {
            SlotState::Damaged(header, "it belongs to another region")
        } else if block_of(header.seq()) >= BLOCKS_MAX - 1 {
            // The last block is never given out.
            SlotState::Damaged(header, "its version is impossible")
        } else if header.kind() == SlotKind::Tombstone {
            SlotState::Tombstone(header)
        } else {
            SlotState::Version(header)
        }
    };
    fence(Ordering::Acquire); // Pairs with the Release fences of `publish` and `scrub`.
    if slot[0].load(Ordering::Relaxed) == header.seq() { state } else { SlotState::Moved }
}
