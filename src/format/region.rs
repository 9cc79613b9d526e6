//! The region head: all words of a region that are not in its slots. All of them are derived.

use bytemuck::{Pod, Zeroable};

use super::checked;
use super::geometry::{CLASS_BYTES, HEAD_BYTES};
use super::index::{Shape, ShapeWord};
use super::slot::{FIRST_SEQ, PRESENT};
use super::word::{Checked, EpochWord, ReferenceWord, accessors};
use crate::sys::atomic::{AtomicU64, Ordering};

/// Words for the notes of an owner.
const NOTES: usize = 7;
/// Members of a batch that a region's head has room for.
pub(crate) const LISTED_MAX: usize = 2 * NOTES;

/// Words of a region head.
pub(crate) const HEAD_WORDS: usize = size_of::<Layout>() / 8;

/// A region head's words. Slot references are `slot + 1`, 0 for none.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Layout {
    // Line 0: the writers' line.
    /// The lock word: see `protocol::lock`.
    lock: u64,
    /// The sequence number of the next write.
    next_seq: u64,
    /// Its complement: a number of 63 bits leaves no room for a check of its own.
    next_seq_check: u64,
    /// If extents are uniform, checked: the first slot of the free list. Else 0: each class has a free list.
    free: u64,
    /// Checked: slots on all free lists.
    free_count: u64,
    /// If extents are uniform, checked: the first slot that was never used, in the extent that was added last; none if all were.
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
    /// Checked: [`Losses`]: slots that hold a damaged version of unknown id, and records that no slot holds. Until a repair drops them, an absent record of the region may be
    /// one of them.
    damaged: u64,
    /// Checked: the last epoch in which a slot was freed whose version may be on disk. Until that
    /// epoch is durable, a deletion leaves a tombstone.
    reclaimed: u64,
    /// Bit 0: a watcher waits for a change of the region; bit 1: of the store. A writer clears it when it wakes them. Bit 2: of one
    /// record, at its bell. Bits 3 and 4: a feed follows the region.
    watched: u64,
    /// Checked: first slot of the retired queue.
    retired_first: u64,
    /// Checked: slots in the queue of parked ones.
    parked_count: u64,
    // Line 2: the word that watchers sleep on, and words that a write seldom needs.
    /// Raised by a write that finds the region watched.
    changes: u64,
    /// Checked: reserved slots.
    reserved: u64,
    /// Checked: the batch whose members lie in the region and are not in its index yet; 0: none.
    pending: u64,
    /// Checked: the number of members of that batch in the region. Their versions are the last ones below `next_seq`.
    members: u64,
    /// Checked: entries of the index that are marked deleted.
    markers: u64,
    /// Checked: first slot of the queue of parked ones, whose bytes a borrow may look at.
    parked_first: u64,
    /// Checked: last slot of that queue.
    parked_last: u64,
    /// Checked: data extents of the region. With their headers it tells whether one is missing.
    extents: u64,
    // Line 3: the work that an owner has begun.
    /// Checked: [`Intent`].
    intent: u64,
    /// In a batch: the slots of the first [`LISTED_MAX`] members, two a word; 0: none. Else what the intent notes: see [`Notes`].
    notes: [u64; NOTES],
}

const _: () = assert!(size_of::<Layout>() as u64 == HEAD_BYTES);

/// The work that the owner of a region's lock has begun and not ended, with a flag: see `region::intent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Intent {
    /// None: the region is whole.
    Idle,
    /// Work of which nothing is noted: if its owner dies, the region is rebuilt.
    Unnoted,
    /// A version in a slot of the free list.
    Put,
    /// A version in a fresh slot.
    PutFresh,
    /// A version in a reserved slot.
    PutReserved,
    /// A deletion, by the record's own slot.
    Delete,
    /// A slot of the free list is reserved.
    Reserve,
    /// A fresh slot is reserved.
    ReserveFresh,
    /// A reserved slot is freed.
    Cancel,
    /// The first slot of the retired queue goes to the end of the queue, to the parked queue or to the free list.
    Reclaim,
    /// The first slot of the parked queue goes to the free list.
    Unpark,
    /// The index moves to another table.
    Move,
    /// An extent is added, whose class is the flag's number.
    Grow,
}

impl Intent {
    const ALL: [Self; 13] = [
        Self::Idle,
        Self::Unnoted,
        Self::Put,
        Self::PutFresh,
        Self::PutReserved,
        Self::Delete,
        Self::Reserve,
        Self::ReserveFresh,
        Self::Cancel,
        Self::Reclaim,
        Self::Unpark,
        Self::Move,
        Self::Grow,
    ];
    const BITS: u32 = 8;

    /// The number that says it, with something more of 32 bits.
    #[inline]
    pub(crate) const fn with(self, more: u32) -> u64 {
        self as u64 | (more as u64) << Self::BITS
    }

    /// The intent of a number, and what more it says.
    pub(crate) fn of(number: u64) -> Option<(Self, u32)> {
        let intent = Self::ALL.get((number & ((1 << Self::BITS) - 1)) as usize)?;
        Some((*intent, u32::try_from(number >> Self::BITS).ok()?))
    }
}

/// The notes of an owner about the work that it has begun: which slots are on no list, and counts as they were before.
#[derive(Clone, Copy)]
pub(crate) struct Notes<'a> {
    /// The slot that is taken. In a deletion: the id of the record, as it is.
    pub(crate) taken: &'a AtomicU64,
    /// The slot that is given up.
    pub(crate) given_up: ReferenceWord<'a>,
    /// Slots on all free lists.
    pub(crate) free_count: Checked<'a>,
    /// Live records. Where a reserved slot's version replaces one: reserved slots.
    pub(crate) live: Checked<'a>,
    /// Slots in the retired queue. Where a reserved slot's version replaces none: reserved slots.
    pub(crate) retired_count: Checked<'a>,
    /// Slots in the parked queue.
    pub(crate) parked_count: Checked<'a>,
    /// Entries that are marked deleted; where no entry changes, reserved slots; where an extent is added, extents.
    pub(crate) more: Checked<'a>,
}

/// A region's head in the file. Its words are private: a method gives each word by its type. The layout explains the words.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a>(&'a [AtomicU64; HEAD_WORDS]);

impl<'a> Head<'a> {
    /// The head in these words, if they are enough for one.
    #[inline]
    pub(crate) fn of(words: &'a [AtomicU64]) -> Option<Self> {
        words.first_chunk().map(Self)
    }

    accessors! { Layout:
        lock: &'a AtomicU64,
        next_seq: &'a AtomicU64,
        free_count: Checked<'a>,
        live: Checked<'a>,
        retired_last: ReferenceWord<'a>,
        shape: ShapeWord<'a>,
        links: Checked<'a>,
        retired_count: Checked<'a>,
        damaged: Checked<'a>,
        reclaimed: EpochWord<'a>,
        watched: &'a AtomicU64,
        retired_first: ReferenceWord<'a>,
        parked_count: Checked<'a>,
        changes: &'a AtomicU64,
        reserved: Checked<'a>,
        pending: Checked<'a>,
        members: Checked<'a>,
        markers: Checked<'a>,
        parked_first: ReferenceWord<'a>,
        parked_last: ReferenceWord<'a>,
        extents: Checked<'a>,
        intent: Checked<'a>,
    }

    /// The words for the only class of slots, if extents are uniform.
    #[inline]
    pub(crate) fn class(self) -> ClassWords<'a> {
        let word = |at: usize| (&self.0[at / 8]).into();
        ClassWords {
            free: word(std::mem::offset_of!(Layout, free)),
            fresh: word(std::mem::offset_of!(Layout, fresh)),
        }
    }

    #[inline]
    fn next_seq_check(self) -> &'a AtomicU64 {
        &self.0[std::mem::offset_of!(Layout, next_seq_check) / 8]
    }

    /// The sequence number of the next write, if both of its words say the same.
    #[inline]
    pub(crate) fn noted_seq(self) -> Option<u64> {
        let [seq, by_check] = self.said_seqs();
        (seq & PRESENT != 0 && seq == by_check).then_some(seq)
    }

    /// The sequence number of the next write as each of its two words says it.
    #[inline]
    pub(crate) fn said_seqs(self) -> [u64; 2] {
        [self.next_seq().load(Ordering::Relaxed), !self.next_seq_check().load(Ordering::Relaxed)]
    }

    /// Stores the sequence number of the next write, in both of its words.
    #[inline]
    pub(crate) fn set_next_seq(self, seq: u64) {
        // Release: a reader that sees the number sees the lock held (pairs with `store::iter`), and all versions before the
        // last one visible.
        self.next_seq().store(seq, Ordering::Release);
        self.next_seq_check().store(!seq, Ordering::Relaxed);
    }

    #[inline]
    fn note_words(self) -> &'a [AtomicU64; NOTES] {
        self.0.last_chunk().expect("the notes are the last words of a head")
    }

    /// The notes of an owner. In a batch the words are the list of members.
    #[inline]
    pub(crate) fn notes(self) -> Notes<'a> {
        let [taken, given_up, free_count, live, retired_count, parked_count, more] = self.note_words();
        Notes {
            taken,
            given_up: given_up.into(),
            free_count: free_count.into(),
            live: live.into(),
            retired_count: retired_count.into(),
            parked_count: parked_count.into(),
            more: more.into(),
        }
    }

    /// Lists the slots of the first members of a batch.
    pub(crate) fn list_members(self, slots: &[u32]) {
        let reference = |n: usize| slots.get(n).map_or(0, |slot| slot + 1);
        for (n, two) in self.note_words().iter().enumerate() {
            let (low, high) = (reference(2 * n), reference(2 * n + 1));
            two.store(u64::from(low) | u64::from(high) << 32, Ordering::Relaxed);
        }
    }

    /// The slot that is listed for member `n`, if one is.
    pub(crate) fn listed_member(self, n: usize) -> Option<u32> {
        let two = self.note_words().get(n / 2)?.load(Ordering::Relaxed);
        let (low, high) = (two as u32, (two >> 32) as u32);
        if n.is_multiple_of(2) { low } else { high }.checked_sub(1)
    }

    /// All words as they are now.
    pub(crate) fn copy(self) -> HeadCopy {
        HeadCopy(std::array::from_fn(|i| self.0[i].load(Ordering::Acquire)))
    }
}

/// The words of a region for one class of slots.
#[derive(Clone, Copy)]
pub(crate) struct ClassWords<'a> {
    /// The first slot of the free list.
    pub(crate) free: ReferenceWord<'a>,
    /// The first slot that was never used, in the extent that was added last; none if all were.
    pub(crate) fresh: ReferenceWord<'a>,
}

/// Words of a region for a class of slots.
pub(crate) const CLASS_WORDS: usize = CLASS_BYTES as usize / 8;
/// The value of each of these words at first: no slot.
pub(crate) fn no_slot() -> u64 {
    checked::encode(0)
}

impl<'a> ClassWords<'a> {
    /// The words, if they are enough.
    #[inline]
    pub(crate) fn of(words: &'a [AtomicU64]) -> Option<Self> {
        let [free, fresh] = words.first_chunk()?;
        Some(Self { free: free.into(), fresh: fresh.into() })
    }
}

/// A copy of a head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadCopy([u64; HEAD_WORDS]);

impl HeadCopy {
    /// The lock word.
    pub(crate) fn lock(&self) -> u64 {
        bytemuck::cast_ref::<_, Layout>(&self.0).lock
    }

    /// The words as they are stored.
    pub(crate) fn words(&self) -> &[u64; HEAD_WORDS] {
        &self.0
    }
}

/// The head of a new region, whose index is an empty table of this shape.
pub(crate) fn empty_head(shape: Shape) -> HeadCopy {
    let zero = checked::encode(0);
    HeadCopy(bytemuck::cast(Layout {
        lock: 0,
        next_seq: FIRST_SEQ,
        next_seq_check: !FIRST_SEQ,
        free: zero,
        free_count: zero,
        fresh: zero,
        live: zero,
        retired_last: zero,
        shape: shape.encode(),
        links: zero,
        retired_count: zero,
        damaged: zero,
        reclaimed: zero,
        watched: 0,
        retired_first: zero,
        parked_count: zero,
        changes: 0,
        reserved: zero,
        pending: zero,
        members: zero,
        markers: zero,
        parked_first: zero,
        parked_last: zero,
        extents: zero,
        intent: zero,
        notes: [0; NOTES],
    }))
}

/// What a rebuild could not make good: the number in a head's word of damage. Until a repair, an absent record may be one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Damaged slots that a rebuild left alone.
    pub(crate) damaged: u64,
    /// Records to which the index led, and that no slot held.
    pub(crate) gone: u64,
}

impl Losses {
    const BITS: u32 = 24;
    const MAX: u64 = (1 << Self::BITS) - 1;

    /// The number as it is stored. A count that is too high is stored as the highest.
    pub(crate) fn number(self) -> u64 {
        self.damaged.min(Self::MAX) | self.gone.min(Self::MAX) << Self::BITS
    }

    /// The losses that a number tells.
    pub(crate) fn of(number: u64) -> Self {
        Self { damaged: number & Self::MAX, gone: number >> Self::BITS }
    }
}
