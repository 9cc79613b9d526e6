//! Finishing the work that a dead owner had begun, or taking it back, by a look at a few words. For the next owner.
//!
//! An owner notes its intent before it works (see `region::intent`), and dies between two stores of the work. So the slots that were noted
//! are on no list, or at the end of one that the work uses, and the counts are those that were noted, or what the work makes of them.
//! Each step here looks how far the work came, does what is left, and stores each count by the noted one. So the next owner may
//! die as well, at any step: the one after it does the same once more.
//!
//! 1. Whether the work took effect was decided by one store (*What counts*, in the chapter on the protocol): an index entry, or the word that
//!    makes a record's slot a deleted one. If it took effect, what is left of it is done. If not, its slot is freed.
//! 2. What the notes don't explain is left to a rebuild: work that is not noted, a damaged word, a line of the index that does not hold for
//!    another reason than a missing checksum. Nothing that was done here before stands in the way of it.
//! 3. At the end the next `seq` is raised once more: whoever follows the changes of the region sees that it has changed.
//!
//! Time: one search of the index, and the checksum of one record. An extent that the dead owner was adding takes a look at all extents.

use crate::fault;
use crate::file::borrow;
use crate::file::grow::Growth;
use crate::format::extent::Extent;
use crate::format::index::{ENTRIES, LINE_WORDS, Line};
use crate::format::region::Intent;
use crate::format::slot::{HEADER_WORDS, Header, SlotKind, begins_block};
use crate::format::word::{Checked, Reference};
use crate::protocol::index::{load_line, store_entry};
use crate::protocol::slot::{Seen, header, park, read_any, scrub};
use crate::region::Trouble;
use crate::region::batch::pending;
use crate::region::head::Region;
use crate::region::slots::{QUEUE, SlotQueue, referenced};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::step::step;

const NOTES: Trouble = Trouble::Flaw("the notes of a dead owner");

/// Finishes the work of a dead owner, or takes it back. Returns whether the region is whole now. If it is not, a rebuild makes it so.
pub(crate) fn finish(region: &Region<'_>) -> bool {
    // An error (a lock that is held, no room for links) is one of the rebuild too, if it meets it.
    !fault::survey_fails() && region.try_finish().unwrap_or(false)
}

impl Region<'_> {
    fn try_finish(&self) -> Result<bool, Trouble> {
        let begun = self.head.intent().load(Ordering::Relaxed).and_then(Intent::of);
        let Some((intent, more)) =
            begun.filter(|_| !self.is_marked() && pending(self.arena, self.number) == 0)
        else {
            return Ok(false);
        };
        self.finish_next_seq()?;
        match intent {
            Intent::Idle => {}
            Intent::Unnoted => return Ok(false),
            Intent::Put | Intent::PutFresh | Intent::PutReserved => self.finish_put(intent, more != 0)?,
            Intent::Delete => self.finish_delete(more != 0)?,
            Intent::Reserve | Intent::ReserveFresh => {
                self.give_back_taken(intent, self.taken()?)?;
                self.head.reserved().store(self.noted(self.head.notes().more)?, Ordering::Relaxed);
            }
            Intent::Cancel => {
                let reserved = self.noted(self.head.notes().more)?;
                self.finish_free(self.taken()?, self.noted_free()?)?;
                self.head.reserved().store(reserved.checked_sub(1).ok_or(NOTES)?, Ordering::Relaxed);
            }
            Intent::Reclaim => self.finish_reclaim()?,
            Intent::Unpark => self.finish_unpark()?,
            Intent::Move => {
                if self.shape().version == more {
                    self.head.markers().store(0, Ordering::Relaxed);
                }
            }
            Intent::Grow => self.finish_growth(more)?,
        }
        step("finish: work finished");
        self.end();
        let next = self.noted_seq()?;
        if begins_block(next) {
            return Ok(false); // The number is not given out.
        }
        self.set_next_seq(next + 1);
        step("finish: done");
        Ok(true)
    }

    /// Makes both words of the next `seq` say the same, if the owner died between their stores.
    fn finish_next_seq(&self) -> Result<(), Trouble> {
        let [said, by_check] = self.head.said_seqs();
        if said == by_check.wrapping_add(1) {
            self.set_next_seq(said);
        }
        self.noted_seq().map(drop)
    }

    fn noted(&self, count: Checked<'_>) -> Result<u64, Trouble> {
        count.load(Ordering::Relaxed).ok_or(NOTES)
    }

    fn noted_free(&self) -> Result<u64, Trouble> {
        self.noted(self.head.notes().free_count)
    }

    /// A slot of the region.
    fn own(&self, slot: u32) -> Result<u32, Trouble> {
        if self.owns(slot) { Ok(slot) } else { Err(NOTES) }
    }

    /// The slot that was to be taken.
    fn taken(&self) -> Result<u32, Trouble> {
        let word = Reference::of_word(self.head.notes().taken.load(Ordering::Relaxed));
        self.own(word.slot().ok().flatten().ok_or(NOTES)?)
    }

    /// The slot that was to be given up.
    fn given_up(&self) -> Result<Option<u32>, Trouble> {
        referenced(self.head.notes().given_up)?.map(|slot| self.own(slot)).transpose()
    }

    fn words(&self, slot: u32) -> Result<&[AtomicU64], Trouble> {
        self.arena.slot(slot).ok_or(NOTES)
    }

    /// Puts a slot that is on no list on the free list, unless it is there. `free_count`: the count without it.
    fn finish_free(&self, slot: u32, free_count: u64) -> Result<(), Trouble> {
        let (words, class) = self.arena.slot_and_class(slot).ok_or(NOTES)?;
        let first = self.class(class).free;
        if referenced(first)? != Some(slot) {
            scrub(words, self.number, first.load(Ordering::Relaxed));
            step("finish: slot scrubbed");
            first.store(Reference::to(slot), Ordering::Release); // Says that the slot is scrubbed.
            step("finish: slot on the free list");
        }
        self.head.free_count().store(free_count + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Appends a slot to a queue, unless it is there. `noted`: the count without it.
    fn finish_push(&self, queue: SlotQueue, slot: u32, stamp: u64, noted: u64) -> Result<(), Trouble> {
        let ends = self.ends(queue);
        let last = referenced(ends.last)?;
        if last != Some(slot) {
            let link = self.link(queue, slot)?;
            let before = match last {
                None => ends.first,
                Some(last) => self.link(queue, last)?.next,
            };
            if referenced(before)?.is_some_and(|next| next != slot) {
                return Err(QUEUE);
            }
            link.next.store(Reference::NONE, Ordering::Relaxed);
            link.stamp.store(stamp, Ordering::Relaxed);
            before.store(Reference::to(slot), Ordering::Relaxed);
            step("finish: slot linked");
            ends.last.store(Reference::to(slot), Ordering::Release); // Says that the slot is linked.
            step("finish: slot at the end of a queue");
        }
        ends.count.store(noted + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the slot back that a work without effect was to take, or has taken.
    fn give_back_taken(&self, intent: Intent, slot: u32) -> Result<(), Trouble> {
        let free_count = self.noted_free()?;
        let (words, class) = self.arena.slot_and_class(slot).ok_or(NOTES)?;
        match intent {
            // It was the first of the list.
            Intent::Put | Intent::Reserve => self.finish_free(slot, free_count.checked_sub(1).ok_or(NOTES)?),
            Intent::PutFresh | Intent::ReserveFresh if referenced(self.class(class).fresh)? == Some(slot) => {
                if header(words).words() == [0; HEADER_WORDS] {
                    Ok(())
                } else {
                    Err(NOTES)
                }
            }
            _ => self.finish_free(slot, free_count),
        }
    }

    /// The version that was to be published in a slot, if it was.
    fn published(&self, slot: u32) -> Result<Option<Header>, Trouble> {
        let words = self.words(slot)?;
        if header(words).seq() == 0 {
            return Ok(None);
        }
        match read_any(words, self.arena.geo.record_size as usize, true, &mut Vec::new()) {
            Seen::Whole(header) => Ok(Some(header)),
            _ => Err(NOTES),
        }
    }

    fn finish_put(&self, intent: Intent, over_marker: bool) -> Result<(), Trouble> {
        let (slot, old) = (self.taken()?, self.given_up()?);
        let notes = self.head.notes();
        let reserved = match intent {
            Intent::PutReserved => {
                let noted = self.noted(if old.is_some() { notes.live } else { notes.retired_count })?;
                Some(noted.checked_sub(1).ok_or(NOTES)?)
            }
            _ => None,
        };
        let version = self.published(slot)?;
        let is_visible = match &version {
            None => false,
            Some(version) => {
                let hash = self.hash_of(version.id())?;
                let shape = self.shape();
                let before = match old {
                    Some(old) => shape.entry(hash, old),
                    None if over_marker => shape.deleted(),
                    None => 0,
                };
                self.finish_entry(hash, shape.entry(hash, slot), before)?
            }
        };
        if !is_visible {
            self.give_back_taken(intent, slot)?;
        } else {
            let free_count = match intent {
                Intent::Put => self.noted_free()?.checked_sub(1).ok_or(NOTES)?,
                _ => self.noted_free()?,
            };
            match old {
                Some(old) => self.finish_giving_up(old, free_count)?,
                None => {
                    self.head.free_count().store(free_count, Ordering::Relaxed);
                    self.head.live().store(self.noted(notes.live)? + 1, Ordering::Relaxed);
                    if over_marker {
                        let markers = self.noted(notes.more)?.checked_sub(1).ok_or(NOTES)?;
                        self.head.markers().store(markers, Ordering::Relaxed);
                    }
                }
            }
        }
        if let Some(reserved) = reserved {
            self.head.reserved().store(reserved, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The hash of an id of this region.
    fn hash_of(&self, id: u64) -> Result<u64, Trouble> {
        let hash = self.arena.geo.hash(id);
        if self.arena.geo.region_of(hash) == self.number { Ok(hash) } else { Err(NOTES) }
    }

    /// Whether the index has the entry `now`, whose store decides. Stores the checksum of its line if the owner died before it did.
    /// `before`: the entry that was there.
    fn finish_entry(&self, hash: u64, now: u32, before: u32) -> Result<bool, Trouble> {
        let shape = self.shape();
        for number in shape.walk(hash) {
            let words = self.arena.line(&shape, number).ok_or(NOTES)?;
            let line = load_line(words);
            let seed = shape.seed(self.number, number);
            if !line.holds(seed) {
                finish_line(words, line, seed, now, before).ok_or(NOTES)?;
                return Ok(true);
            }
            if line.0[..ENTRIES].contains(&now) {
                return Ok(true);
            }
            if line.has_empty() {
                break;
            }
        }
        Ok(false)
    }

    /// Retires or releases the slot of a version that was replaced or deleted, as far as that is left. `free_count`: the count without it.
    fn finish_giving_up(&self, old: u32, free_count: u64) -> Result<(), Trouble> {
        let notes = self.head.notes();
        let words = self.words(old)?;
        let version = header(words);
        let retired = self.ends(SlotQueue::Retired);
        let is_in_queue =
            referenced(retired.last)? == Some(old) || self.follows_last(SlotQueue::Retired, old)?;
        let epoch = self.arena.epoch()?;
        let stays = is_in_queue
            || version.seq() != 0
                && (version.kind() == SlotKind::Tombstone || self.must_retire(old, &version, epoch)?);
        if stays {
            self.ensure_linked()?;
            self.head.free_count().store(free_count, Ordering::Relaxed);
            let stamp = epoch.number();
            return self.finish_push(SlotQueue::Retired, old, stamp, self.noted(notes.retired_count)?);
        }
        self.finish_release(old, free_count)
    }

    /// Whether the last slot of a queue leads to this one: the owner died while it appended it.
    fn follows_last(&self, queue: SlotQueue, slot: u32) -> Result<bool, Trouble> {
        let ends = self.ends(queue);
        let before = match referenced(ends.last)? {
            None => ends.first,
            Some(last) => self.link(queue, last)?.next,
        };
        Ok(referenced(before)? == Some(slot))
    }

    /// Frees or parks a slot, as far as that is left. `free_count`: the count without it.
    fn finish_release(&self, slot: u32, free_count: u64) -> Result<(), Trouble> {
        let parked = self.ends(SlotQueue::Parked);
        let (words, class) = self.arena.slot_and_class(slot).ok_or(NOTES)?;
        let noted = self.head.notes().parked_count;
        let is_parked = referenced(parked.last)? == Some(slot);
        if is_parked {
            self.head.free_count().store(free_count, Ordering::Relaxed);
            parked.count.store(self.noted(noted)? + 1, Ordering::Relaxed);
            return Ok(());
        }
        let is_free = referenced(self.class(class).free)? == Some(slot);
        let follows = self.follows_last(SlotQueue::Parked, slot)?;
        if follows || !is_free && borrow::may_be_borrowed(self.arena) {
            self.head.free_count().store(free_count, Ordering::Relaxed);
            if !follows {
                park(words);
            }
            // It is counted after it is the last one.
            noted.store_that_of(parked.count);
            return self.finish_push(SlotQueue::Parked, slot, borrow::clock(self.arena), self.noted(noted)?);
        }
        self.finish_free(slot, free_count)
    }

    fn finish_delete(&self, leaves_marker: bool) -> Result<(), Trouble> {
        let notes = self.head.notes();
        let slot = self.given_up()?.ok_or(NOTES)?;
        let version = header(self.words(slot)?);
        if version.seq() != 0 && version.kind() != SlotKind::Tombstone {
            return Ok(()); // It took no effect, and nothing was changed.
        }
        if version.seq() != 0 && !version.holds(&[]) {
            return Err(NOTES); // A flipped bit made it one.
        }
        let id = notes.taken.load(Ordering::Relaxed);
        let shape = self.shape();
        let marker = if leaves_marker { shape.deleted() } else { 0 };
        // The note has no check. The header says the same until the slot is free, and that is after the entry is gone.
        let hash = self.hash_of(id)?;
        self.finish_removal(hash, shape.entry(hash, slot), marker)?;
        if version.id() != id
            && let Ok(hash) = self.hash_of(version.id())
        {
            self.finish_removal(hash, shape.entry(hash, slot), marker)?;
        }
        let (live, markers) = (self.noted(notes.live)?, self.noted(notes.more)?);
        self.head.live().store(live.checked_sub(1).ok_or(NOTES)?, Ordering::Relaxed);
        self.head.markers().store(markers + u64::from(leaves_marker), Ordering::Relaxed);
        step("finish: deletion counted");
        self.finish_giving_up(slot, self.noted_free()?)
    }

    /// Takes an entry out of the index, unless it is gone.
    fn finish_removal(&self, hash: u64, was: u32, marker: u32) -> Result<(), Trouble> {
        let shape = self.shape();
        for number in shape.walk(hash) {
            let words = self.arena.line(&shape, number).ok_or(NOTES)?;
            let mut line = load_line(words);
            let seed = shape.seed(self.number, number);
            if !line.holds(seed) {
                return finish_line(words, line, seed, marker, was).ok_or(NOTES);
            }
            if let Some(entry) = line.0[..ENTRIES].iter().position(|&entry| entry == was) {
                if (marker == 0) != line.has_empty() {
                    return Err(NOTES);
                }
                store_entry(words, &mut line, entry, marker);
                return Ok(());
            }
            if line.has_empty() {
                break;
            }
        }
        Ok(())
    }

    fn finish_reclaim(&self) -> Result<(), Trouble> {
        let notes = self.head.notes();
        let slot = self.given_up()?.ok_or(NOTES)?;
        let (noted, free_count) = (self.noted(notes.retired_count)?, self.noted_free()?);
        let ends = self.ends(SlotQueue::Retired);
        let (first, last) = (referenced(ends.first)?, referenced(ends.last)?);
        // It is the first one still, or it was the only one and is so again, or it has gone to the end.
        let is_back = first == Some(slot)
            || first.is_some() && (last == Some(slot) || self.follows_last(SlotQueue::Retired, slot)?);
        let version = header(self.words(slot)?);
        let is_kept = version.seq() != 0;
        if is_kept && !is_back && version.kind() == SlotKind::Tombstone {
            // It was to go to the end, and its link may say when.
            self.head.free_count().store(free_count, Ordering::Relaxed);
            self.finish_pop(SlotQueue::Retired, noted)?;
            let stamp = self.arena.epoch()?.number();
            return self.finish_push(SlotQueue::Retired, slot, stamp, noted - 1);
        }
        if is_back || is_kept {
            if !is_back {
                self.link(SlotQueue::Retired, slot)?
                    .next
                    .store(ends.first.load(Ordering::Relaxed), Ordering::Relaxed);
                ends.first.store(Reference::to(slot), Ordering::Relaxed);
                step("finish: slot back in its queue");
            }
            if first.is_none() || last.is_none() || self.follows_last(SlotQueue::Retired, slot)? {
                ends.last.store(Reference::to(slot), Ordering::Relaxed);
            }
            self.head.free_count().store(free_count, Ordering::Relaxed);
            ends.count.store(noted, Ordering::Relaxed);
            return Ok(());
        }
        self.finish_pop(SlotQueue::Retired, noted)?;
        self.finish_release(slot, free_count)
    }

    fn finish_unpark(&self) -> Result<(), Trouble> {
        let notes = self.head.notes();
        let slot = self.given_up()?.ok_or(NOTES)?;
        if referenced(self.ends(SlotQueue::Parked).first)? == Some(slot) {
            return Ok(()); // Nothing was changed.
        }
        self.finish_pop(SlotQueue::Parked, self.noted(notes.parked_count)?)?;
        self.head.reclaimed().store(self.arena.epoch()?, Ordering::Relaxed);
        self.finish_free(slot, self.noted_free()?)
    }

    /// The first slot of a queue was taken out of it. `noted`: the count with it.
    fn finish_pop(&self, queue: SlotQueue, noted: u64) -> Result<(), Trouble> {
        let ends = self.ends(queue);
        if referenced(ends.first)?.is_none() {
            ends.last.store(Reference::NONE, Ordering::Relaxed);
        }
        ends.count.store(noted.checked_sub(1).ok_or(NOTES)?, Ordering::Relaxed);
        step("finish: slot out of its queue");
        Ok(())
    }

    /// Makes an extent the region's that was added and not counted, or not made known as the one with fresh slots.
    fn finish_growth(&self, class: u32) -> Result<(), Trouble> {
        if class >= self.arena.geo.classes {
            return Err(NOTES);
        }
        let extents = self.arena.data_extents(self.number)?;
        let (before, counted) = (self.noted(self.head.notes().more)?, self.noted(self.head.extents())?);
        let has_fresh = referenced(self.class(class).fresh)?.is_some();
        let is_unused = |extent: &&Extent| {
            extent.class == class
                && self
                    .arena
                    .slot_in(extent, 0)
                    .is_some_and(|words| header(words).words() == [0; HEADER_WORDS])
        };
        let mut unused = extents.iter().filter(is_unused);
        let new = unused.next().filter(|_| unused.next().is_none() && !has_fresh);
        match (new, (extents.len() as u64).checked_sub(before)) {
            (None, Some(0)) if counted == before => Ok(()),
            (Some(extent), Some(1)) if counted == before => {
                Growth::lock_soon(self.arena)?.finish_data_extent(extent)?;
                step("finish: extent whole");
                self.count_extent(extent)
            }
            (Some(extent), Some(1)) if counted == before + 1 => {
                self.set_fresh(class, extent.slot_numbers(&self.arena.geo));
                Ok(())
            }
            (None, Some(1)) if counted == before + 1 && has_fresh => Ok(()),
            _ => Err(NOTES),
        }
    }
}

/// Stores the checksum of a line in which an entry was made `now`, and was `before`. `None`: that does not explain the line.
fn finish_line(words: &[AtomicU64; LINE_WORDS], line: Line, seed: u32, now: u32, before: u32) -> Option<()> {
    let entry = (0..ENTRIES).filter(|&entry| line.0[entry] == now).find(|&entry| {
        let mut was = line;
        was.0[entry] = before;
        was.holds(seed)
    })?;
    let mut sound = line;
    sound.0[entry] = before;
    store_entry(words, &mut sound, entry, now);
    step("finish: line of the index summed");
    Some(())
}
