//! The region head: everything about a region that is not in its slots. All of it is derived.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

/// Members of a batch that a region's head has room for.
pub(crate) const LISTED_MAX: usize = 16;

/// Bytes of a region head.
pub(crate) const HEAD_BYTES: u64 = size_of::<Head>() as u64;

/// A region head's words. Slot references are `slot + 1`, 0 for none.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Head {
    // Line 0: the writers' line.
    /// The lock word: see `protocol::lock`.
    lock: u64,
    /// The sequence number of the next write.
    next_seq: u64,
    /// Its complement: a number of 63 bits leaves no room for a check of its own.
    next_seq_check: u64,
    /// Checked: first slot of the free list.
    free: u64,
    /// Checked: slots on the free list.
    free_count: u64,
    /// Checked: the first slot that was never used, in the extent that was added last; none if all were.
    fresh: u64,
    /// Checked: live records.
    live: u64,
    /// Checked: last slot of the retired queue.
    retired_last: u64,
    // Line 1: the readers' line; changes only when the index moves.
    /// Where the index table is, and its shape: see `format::index`.
    shape: u64,
    /// Checked: 1 when every data extent of the region has its links allocated, else 0.
    links: u64,
    /// Checked: slots in the retired queue.
    retired_count: u64,
    /// Checked: slots that hold a damaged version whose id is not to be trusted: until they are dropped by
    /// a repair, an absent record of the region may be one of them.
    damaged: u64,
    /// Checked: the last epoch in which a slot was freed whose version may be on disk. Until that
    /// epoch is durable, a deletion leaves a tombstone.
    reclaimed: u64,
    /// Bit 0: somebody waits for a change of the region; bit 1: of the store. Cleared by who wakes.
    watched: u64,
    /// Checked: first slot of the retired queue.
    retired_first: u64,
    /// Checked: slots in the queue of parked ones.
    parked_count: u64,
    // Line 2: what watchers sleep on, and what a write seldom needs.
    /// Raised by a write that finds the region watched.
    changes: u64,
    /// Checked: reserved slots.
    reserved: u64,
    /// Checked: the batch whose members lie in the region and are not in its index yet; 0: none.
    pending: u64,
    /// Checked: the members of that batch in the region. Their versions are the last so many below `next_seq`.
    members: u64,
    /// Checked: entries of the index that are marked deleted.
    markers: u64,
    /// Checked: first slot of the queue of parked ones, which somebody may borrow from.
    parked_first: u64,
    /// Checked: last slot of that queue.
    parked_last: u64,
    /// Checked: data extents of the region. With their headers it tells whether one is missing.
    extents: u64,
    // Line 3: the members of a batch.
    /// The slots of the first [`LISTED_MAX`] members, two a word; 0: none.
    listed: [u64; LISTED_MAX / 2],
}

const _: () = assert!(size_of::<Head>() == 256);

/// Offsets of the words inside a head, as indexes of 8-byte words.
pub(crate) mod word {
    use super::{Head, offset_of};
    pub(crate) const LOCK: usize = offset_of!(Head, lock) / 8;
    pub(crate) const NEXT_SEQ: usize = offset_of!(Head, next_seq) / 8;
    pub(crate) const NEXT_SEQ_CHECK: usize = offset_of!(Head, next_seq_check) / 8;
    pub(crate) const FREE: usize = offset_of!(Head, free) / 8;
    pub(crate) const FRESH: usize = offset_of!(Head, fresh) / 8;
    pub(crate) const LIVE: usize = offset_of!(Head, live) / 8;
    pub(crate) const MARKERS: usize = offset_of!(Head, markers) / 8;
    pub(crate) const RETIRED_FIRST: usize = offset_of!(Head, retired_first) / 8;
    pub(crate) const RETIRED_LAST: usize = offset_of!(Head, retired_last) / 8;
    pub(crate) const FREE_COUNT: usize = offset_of!(Head, free_count) / 8;
    pub(crate) const SHAPE: usize = offset_of!(Head, shape) / 8;
    pub(crate) const LINKS: usize = offset_of!(Head, links) / 8;
    pub(crate) const RETIRED_COUNT: usize = offset_of!(Head, retired_count) / 8;
    pub(crate) const RECLAIMED: usize = offset_of!(Head, reclaimed) / 8;
    pub(crate) const WATCHED: usize = offset_of!(Head, watched) / 8;
    pub(crate) const CHANGES: usize = offset_of!(Head, changes) / 8;
    pub(crate) const PARKED_FIRST: usize = offset_of!(Head, parked_first) / 8;
    pub(crate) const PARKED_LAST: usize = offset_of!(Head, parked_last) / 8;
    pub(crate) const PARKED_COUNT: usize = offset_of!(Head, parked_count) / 8;
    pub(crate) const RESERVED: usize = offset_of!(Head, reserved) / 8;
    pub(crate) const PENDING: usize = offset_of!(Head, pending) / 8;
    pub(crate) const MEMBERS: usize = offset_of!(Head, members) / 8;
    pub(crate) const LISTED: usize = offset_of!(Head, listed) / 8;
    pub(crate) const DAMAGED: usize = offset_of!(Head, damaged) / 8;
    pub(crate) const EXTENTS: usize = offset_of!(Head, extents) / 8;
    /// The words of a new region that are checked zeros.
    pub(crate) const ZEROS: [usize; 18] = [
        FREE,
        FREE_COUNT,
        FRESH,
        LIVE,
        RETIRED_FIRST,
        RETIRED_LAST,
        RETIRED_COUNT,
        LINKS,
        DAMAGED,
        RECLAIMED,
        PARKED_FIRST,
        PARKED_LAST,
        PARKED_COUNT,
        RESERVED,
        PENDING,
        MEMBERS,
        MARKERS,
        EXTENTS,
    ];
    /// Words of a head.
    pub(crate) const COUNT: usize = size_of::<Head>() / 8;
}
