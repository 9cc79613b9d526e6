//! A region whose lock the caller holds, and the words of its head.
//!
//! Every call on a [`Region`], here and in the files beside this one, is between a lock and an unlock. From every prefix of the
//! call's stores a rebuild gives the version before the call or the version after it.

use crate::error::Result;
use crate::file::arena::Arena;
use crate::format::checked;
use crate::format::index::Shape;
use crate::format::region::Head;
use crate::format::slot::{BLOCKS_MAX, begins_block, block_of};
use crate::format::word::Checked;
use crate::protocol::slot::{Seen, read_any};
use crate::region::Trouble;
use crate::sys::atomic::Ordering;
use crate::sys::step::step;

/// A region whose lock the caller holds.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) number: u32,
    pub(crate) head: Head<'a>,
}

pub(super) const COUNT: Trouble = Trouble::Flaw("a count in the region's head");
const NEXT_SEQ: Trouble = Trouble::Flaw("the next sequence number");

/// The value of a count in a head.
#[inline]
pub(super) fn count(word: Checked<'_>) -> Result<u64, Trouble> {
    word.load(Ordering::Relaxed).ok_or(COUNT)
}

/// Adds to a count in a head.
#[inline]
pub(super) fn add(word: Checked<'_>, by: i64) -> Result<(), Trouble> {
    let count = count(word)?.wrapping_add_signed(by);
    if count > checked::MAX {
        return Err(COUNT); // The count was too low to subtract from.
    }
    word.store(count, Ordering::Relaxed);
    Ok(())
}

impl<'a> Region<'a> {
    /// The region, whose lock the caller holds.
    #[inline]
    pub(crate) fn new(arena: &'a Arena, number: u32) -> Self {
        Self { arena, number, head: arena.head(number) }
    }

    /// The sequence number of the next write, if both words of the head agree.
    #[inline]
    pub(crate) fn noted_seq(&self) -> Result<u64, Trouble> {
        self.head.noted_seq().ok_or(NEXT_SEQ)
    }

    /// Raises the sequence number of the next write.
    #[inline]
    pub(crate) fn set_next_seq(&self, seq: u64) {
        self.head.set_next_seq(seq);
    }

    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        self.head.shape().load(Ordering::Relaxed)
    }

    /// Makes a shape the region's: from here on, readers use its table.
    pub(crate) fn set_shape(&self, shape: Shape) {
        // Pairs with `look`. SeqCst, so that a borrow that begins later sees it (see `borrow`).
        self.head.shape().store(shape, Ordering::SeqCst);
    }

    /// Live records.
    #[inline]
    pub(crate) fn live(&self) -> Result<u64, Trouble> {
        count(self.head.live())
    }

    /// Whether the links of the region's extents are allocated.
    #[inline]
    pub(crate) fn is_linked(&self) -> Result<bool, Trouble> {
        Ok(count(self.head.links())? != 0)
    }

    pub(crate) fn set_linked(&self) {
        self.head.links().store(1, Ordering::Relaxed);
    }

    /// Marks the region as being rebuilt: the next owner rebuilds it.
    pub(crate) fn mark(&self) {
        self.set_shape(Shape { rebuilding: true, ..self.shape() });
    }

    /// Whether a rebuild was begun and not finished.
    pub(crate) fn is_being_rebuilt(&self) -> bool {
        self.shape().rebuilding
    }

    /// Whether the next owner has to rebuild the region first. A living owner does not give the lock back while the index does
    /// not lead to all members of its batch.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.shape().is_marked()
    }

    /// Housekeeping: does the rest of the work when readers can see a change. An error does not undo the change: the region is
    /// marked, and the next owner rebuilds it.
    #[inline]
    pub(super) fn afterwards(&self, rest: impl FnOnce() -> Result<(), Trouble>) {
        if rest().is_err() {
            self.mark();
        }
    }

    /// Whether a slot holds a whole version of this region.
    pub(super) fn is_whole(&self, slot: u32) -> bool {
        let mut data = Vec::new();
        let words = self.arena.slot(slot);
        words.is_some_and(|w| {
            matches!(read_any(w, self.arena.geo.record_size as usize, true, &mut data), Seen::Whole(_))
        })
    }

    /// The `seq` of the next write, which the caller may use, and those of `count - 1` writes after it.
    #[inline]
    pub(super) fn next_seq(&self, count: u64) -> Result<u64, Trouble> {
        let seq = self.noted_seq()?;
        let last = seq.wrapping_add(count - 1);
        // The word bounds the number that the head gives; its check is left to the cold path. The last block is never given
        // out, so each number has a successor.
        let blocks =
            self.arena.control().version_blocks().load_unchecked(Ordering::Relaxed).min(BLOCKS_MAX - 1);
        let is_new = begins_block(seq) || block_of(seq) != block_of(last);
        if is_new || block_of(last) >= blocks {
            self.give_out_block(seq, count)?;
        }
        Ok(seq)
    }

    /// Notes on disk that the block of the `count` versions from `seq` on is given out. So no version is used again, even after
    /// a loss of power: the next life of the store begins behind all blocks that were given out. Once in 2^40 writes. A number
    /// in the middle of a block that was not given out is damage.
    #[cold]
    pub(crate) fn give_out_block(&self, seq: u64, count: u64) -> Result<(), Trouble> {
        let last = seq.checked_add(count - 1).ok_or(NEXT_SEQ)?;
        let noted = self.arena.control().version_blocks();
        let blocks = self.arena.control().blocks_given_out();
        let is_given_out = blocks.is_none_or(|blocks| block_of(seq) < blocks);
        let is_next = begins_block(seq) && blocks.is_none_or(|blocks| block_of(seq) == blocks);
        let needed = block_of(last) + 1;
        if needed >= BLOCKS_MAX || !is_given_out && !is_next {
            return Err(NEXT_SEQ);
        }
        noted.raise_to(needed);
        // Even if another process noted it: its flush may not have returned.
        self.arena.flush_control()?;
        step("put: a block of versions is given out");
        Ok(())
    }

    /// Stores the counts that a rebuild found.
    pub(crate) fn reset_counts(&self, live: u64, free: u64) {
        self.head.live().store(live, Ordering::Relaxed);
        self.head.markers().store(0, Ordering::Relaxed);
        self.head.free_count().store(free, Ordering::Relaxed);
    }
}
