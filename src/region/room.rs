//! Giving back the extents of a region none of whose slots is in use. For the region's owner.
//!
//! 1. The extents whose slots are all free, or were never used, are found. A look at an extent ends with the first slot in use.
//! 2. Their slots are taken off the free lists, and the extents out of the count of the region's extents. If the owner dies here,
//!    the rebuild finds the extents by their headers, and frees their slots again.
//! 3. Their bytes become zeros, header and copy too: they are a gap between the extents. If the owner dies before the header is gone,
//!    the rebuild finds an extent whose slots were never used.
//! 4. The layout of the file changes, so that every handle looks at the headers again (see `file::numbers`).
//! 5. The gap is used again when the epoch in which it was made is on disk. Before that a loss of power may bring the old bytes back:
//!    then the extent is the region's, as it was. Whatever versions come back with it have successors that are on disk.

use std::ops::Range;

use crate::file::grow::Growth;
use crate::format::extent::Extent;
use crate::format::slot::HEADER_WORDS;
use crate::format::word::Reference;
use crate::protocol::slot::{header, is_free, scrub};
use crate::region::Trouble;
use crate::region::head::{Region, add, count};
use crate::sys::atomic::Ordering;
use crate::sys::step::step;

/// What a region may give back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spare {
    /// At most so many slots.
    pub(crate) most: u64,
    /// Of each class this part of the slots in use is kept; 0: none.
    pub(crate) kept_part: u64,
}

/// An extent of which no slot is in use.
struct EmptyExtent {
    extent: Extent,
    /// The slots of it that are on the free list.
    listed: u64,
}

impl Region<'_> {
    /// Slots on the free lists.
    pub(crate) fn free_count(&self) -> Result<u64, Trouble> {
        count(self.head.free_count())
    }

    /// Gives extents back. `extents`: the region's, as some look found them. Returns the bytes that they had. Takes a pass over the free
    /// slots of the classes that give something back.
    pub(crate) fn give_back_extents(&self, extents: &[Extent], spare: Spare) -> Result<u64, Trouble> {
        let arena = self.arena;
        let mut given: Vec<EmptyExtent> = Vec::new();
        let mut left = spare.most;
        for class in 0..arena.geo.classes {
            let of_class = || extents.iter().filter(|extent| extent.class == class);
            let slots: u64 = of_class().map(|extent| u64::from(extent.slots)).sum();
            let mut idle: Vec<EmptyExtent> = of_class().filter_map(|extent| self.idle(extent)).collect();
            let in_use = slots - idle.iter().map(|idle| u64::from(idle.extent.slots)).sum::<u64>();
            // The last ones of the file are given back first.
            idle.reverse();
            let mut unused = slots - in_use;
            for idle in idle {
                let slots = u64::from(idle.extent.slots);
                let kept = in_use.checked_div(spare.kept_part).unwrap_or(0);
                if slots <= left && unused - slots >= kept {
                    (left, unused) = (left - slots, unused - slots);
                    given.push(idle);
                }
            }
        }
        if given.is_empty() {
            return Ok(0);
        }
        let epoch = arena.epoch()?;
        let mut growth = Growth::lock_soon(arena)?; // First: if another process holds it, nothing is changed.
        self.begin_unnoted();
        self.take_off(&given)?;
        add(self.head.extents(), -(given.len() as i64))?;
        step("give back: slots off the lists");
        let extents: Vec<Extent> = given.iter().map(|idle| idle.extent).collect();
        if let Err(error) = growth.give_back(&extents, epoch) {
            self.mark(); // The slots are on no list.
            return Err(error.into());
        }
        self.end();
        Ok(extents.iter().map(|extent| extent.range(&arena.geo)).map(|range| range.end - range.start).sum())
    }

    /// The extent, if it is the region's, and none of its slots is in use or on a queue.
    fn idle(&self, extent: &Extent) -> Option<EmptyExtent> {
        if self.arena.extent_at(extent.unit) != Some(*extent) || extent.region() != Some(self.number) {
            return None;
        }
        let mut listed = 0;
        for n in 0..extent.slots {
            let header = header(self.arena.slot_in(extent, n)?);
            if is_free(&header, self.number) {
                listed += 1;
            } else if header.words() != [0; HEADER_WORDS] {
                return None;
            }
        }
        Some(EmptyExtent { extent: *extent, listed })
    }

    /// Takes the slots of these extents off the free lists, and out of the fresh slots.
    fn take_off(&self, given: &[EmptyExtent]) -> Result<(), Trouble> {
        let arena = self.arena;
        let mut taken: Vec<Range<u32>> =
            given.iter().map(|idle| idle.extent.slot_numbers(&arena.geo)).collect();
        taken.sort_unstable_by_key(|numbers| numbers.start);
        let is_taken = |slot: u32| {
            let before = taken.partition_point(|numbers| numbers.start <= slot);
            before.checked_sub(1).and_then(|at| taken.get(at)).is_some_and(|numbers| numbers.contains(&slot))
        };
        let mut classes: Vec<u32> = given.iter().map(|idle| idle.extent.class).collect();
        classes.sort_unstable();
        classes.dedup();
        for class in classes {
            let of_class = given.iter().filter(|idle| idle.extent.class == class);
            let mut left: u64 = of_class.map(|idle| idle.listed).sum();
            let words = self.class(class);
            let fresh = words.fresh.load(Ordering::Relaxed).slot();
            if fresh.is_ok_and(|slot| slot.is_some_and(is_taken)) {
                words.fresh.store(Reference::NONE, Ordering::Relaxed);
            }
            let mut looks = self.free_count()?;
            let mut kept: Option<u32> = None;
            let mut next = words.free.load(Ordering::Relaxed);
            while left > 0 {
                const LIST: Trouble = Trouble::Flaw("the free list");
                looks = looks.checked_sub(1).ok_or(LIST)?;
                let slot = next.slot().ok().flatten().ok_or(LIST)?;
                let (slot_words, class_of) = arena.slot_and_class(slot).ok_or(LIST)?;
                let header = header(slot_words);
                if !is_free(&header, self.number) || class_of != class {
                    return Err(LIST);
                }
                next = header.next_free();
                if !is_taken(slot) {
                    kept = Some(slot);
                    continue;
                }
                match kept {
                    None => words.free.store(next, Ordering::Relaxed),
                    Some(kept) => scrub(arena.slot(kept).ok_or(LIST)?, self.number, next),
                }
                add(self.head.free_count(), -1)?;
                left -= 1;
            }
        }
        Ok(())
    }
}
