//! The slots of a region that hold no live record: free ones, retired and parked ones; and taking a slot. For the region's
//! owner.

use std::cell::Cell;
use std::ops::Range;

use crate::error::Error;
use crate::fault::{self, Fault};
use crate::file::grow::{Growth, populate_fresh};
use crate::file::{borrow, pass, seat};
use crate::format::epoch::Epoch;
use crate::format::extent::{Extent, Location};
use crate::format::region::{ClassWords, Intent};
use crate::format::slot::{HEADER_WORDS, Header, PARKED_LINK, SlotKind};
use crate::format::word::{Checked, Link, NoReference, Reference, ReferenceWord};
use crate::protocol::lock::Owner;
use crate::protocol::slot::{header, is_free, park, reserve, scrub};
use crate::region::Trouble;
use crate::region::find::Found;
use crate::region::head::{COUNT, Region, add, count};
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::step::step;

/// A queue of slots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotQueue {
    /// Replaced versions and tombstones, each with the epoch that must be on disk before it goes.
    Retired,
    /// Slots that only borrows need, each with the clock when it was parked. They have their links in their own headers: this
    /// queue never needs room.
    Parked,
}

/// The ends of a queue and its count, in the region's head.
pub(super) struct Ends<'a> {
    pub(super) first: ReferenceWord<'a>,
    pub(super) last: ReferenceWord<'a>,
    pub(super) count: Checked<'a>,
}

/// A bit in the stamp of a retired tombstone: the versions that it hides were scrubbed in the stamp's epoch, or before it.
const SCRUBBED: u64 = 1 << 47;

const REFERENCE: Trouble = Trouble::Flaw("a reference to a slot");
pub(super) const QUEUE: Trouble = Trouble::Flaw("a queue of slots");
const FRESH: Trouble = Trouble::Flaw("the fresh slots");

/// Slots that are freed at a time.
const AT_ONCE: usize = 32;
/// Slots of the retired queue that a write looks at. A queue may begin with any number of tombstones that can't be freed yet.
const LOOKS_AT_ONCE: u64 = 4 * AT_ONCE as u64;
/// How often a write asks the queues for slots before it adds an extent, if those that they free are of other classes.
const ASKED_AT_MOST: u32 = 8;

thread_local! {
    /// The thread's caller can make room: see `handle::room`. Before that, no record gets a longer slot than it needs.
    static KEEPS_LONGER: Cell<bool> = const { Cell::new(false) };
}

/// Says whether records of this thread get a longer slot if there is no room for another.
#[inline]
pub(crate) fn keep_longer(keep: bool) {
    KEEPS_LONGER.set(keep);
}

/// A slot that can be taken: nothing is changed yet.
pub(super) struct FreeSlot<'a> {
    pub(super) slot: u32,
    pub(super) words: &'a [AtomicU64],
    pub(super) origin: Origin<'a>,
}

/// Where a slot is taken from.
pub(super) enum Origin<'a> {
    /// It is the first one of the free list of this class, before this one.
    FreeList(ClassWords<'a>, Reference),
    /// It is the first fresh one of this class, before this one.
    Fresh(ClassWords<'a>, Reference),
    /// It is reserved, and on no list.
    Reserved,
}

impl<'a> Region<'a> {
    #[inline]
    pub(super) fn ends(&self, queue: SlotQueue) -> Ends<'a> {
        let head = self.head;
        match queue {
            SlotQueue::Retired => {
                Ends { first: head.retired_first(), last: head.retired_last(), count: head.retired_count() }
            }
            SlotQueue::Parked => {
                Ends { first: head.parked_first(), last: head.parked_last(), count: head.parked_count() }
            }
        }
    }

    /// The words for a class of slots.
    #[inline]
    pub(crate) fn class(&self, class: u32) -> ClassWords<'a> {
        self.arena.class(self.number, class)
    }

    /// The first fresh slot of a class, and its place: all slots behind it in its extent are fresh, too.
    #[inline]
    fn first_fresh(&self, class: u32) -> Result<Option<(u32, Location)>, Trouble> {
        let Some(next) = referenced(self.class(class).fresh)? else { return Ok(None) };
        let place = self.arena.place(next).ok_or(FRESH)?;
        if place.slot_size != self.arena.geo.class_size(class) {
            return Err(FRESH);
        }
        Ok(Some((next, place)))
    }

    /// The fresh slots of all classes.
    pub(crate) fn count_fresh(&self) -> Result<u64, Trouble> {
        (0..self.arena.geo.classes).try_fold(0, |sum, class| Ok(sum + self.count_fresh_of(class)?))
    }

    /// The fresh slots of a class.
    pub(crate) fn count_fresh_of(&self, class: u32) -> Result<u64, Trouble> {
        Ok(self
            .first_fresh(class)?
            .map_or(0, |(_, place)| u64::from(place.slots.saturating_sub(place.within))))
    }

    /// Notes which slots of a class are fresh: up to the end of their extent.
    #[inline]
    pub(super) fn set_fresh(&self, class: u32, slots: Range<u32>) {
        self.class(class).fresh.store(
            if slots.is_empty() { Reference::NONE } else { Reference::to(slots.start) },
            Ordering::Relaxed,
        );
    }

    #[inline]
    pub(super) fn link(&self, queue: SlotQueue, slot: u32) -> Result<Link<'a>, Trouble> {
        let link = match queue {
            SlotQueue::Retired => self.arena.link(slot),
            SlotQueue::Parked => {
                self.arena.slot(slot).and_then(|words| words.get(PARKED_LINK)).and_then(Link::of)
            }
        };
        link.ok_or(Trouble::Flaw("the links of a slot outside the file"))
    }

    /// Retires the slot of a version that was replaced in `epoch`. The slot is kept until `epoch` is on disk, if a loss of power
    /// before that may bring its version back. A damaged version is of no use after a loss of power. But a snapshot must find it,
    /// or an older version would stand in for it.
    #[inline]
    pub(super) fn retire(&self, old: u32, header: &Header, epoch: Epoch) -> Result<(), Trouble> {
        if self.must_retire(old, header, epoch)? {
            self.push(SlotQueue::Retired, old, epoch.number())
        } else {
            self.release(old)
        }
    }

    /// Whether a version that was replaced in `epoch` stays in its slot, in the retired queue. If it stays, links are allocated.
    #[inline]
    pub(super) fn must_retire(&self, old: u32, header: &Header, epoch: Epoch) -> Result<bool, Trouble> {
        let is_wanted = header.is_wanted_after(epoch)
            && !(fault::on(Fault::LoneReplaced) && header.epoch() == epoch)
            && !fault::on(Fault::ReuseEarly);
        let is_pinned = seat::may_have_moment(self.arena);
        if !is_wanted && !is_pinned {
            return Ok(false);
        }
        let is_whole = self.is_whole(old);
        if is_wanted && is_whole {
            return Ok(true);
        }
        // The hint may be out of date: `oldest_moment` lowers it.
        let stays = !is_whole && is_pinned && seat::oldest_moment(self.arena)?.is_some();
        if stays {
            self.ensure_linked()?;
        }
        Ok(stays)
    }

    /// Frees a slot that is not needed any more, or parks it if a borrow may still read its bytes. The index does not lead to the
    /// slot any more. Neither takes room, so a full disk makes neither fail.
    #[inline]
    pub(super) fn release(&self, slot: u32) -> Result<(), Trouble> {
        if borrow::may_be_borrowed(self.arena) { self.park(slot) } else { self.free(slot) }
    }

    #[cold]
    pub(super) fn park(&self, slot: u32) -> Result<(), Trouble> {
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        self.note(|notes| notes.parked_count.store_that_of(self.head.parked_count()));
        // First: even if the queue fails, no version is left that a rebuild could bring back.
        park(words);
        self.push(SlotQueue::Parked, slot, borrow::clock(self.arena))
    }

    /// Allocates the links of the region's extents, unless they are allocated.
    pub(crate) fn ensure_linked(&self) -> Result<(), Trouble> {
        if !self.is_linked()? {
            let linked = Growth::lock(self.arena).and_then(|mut growth| growth.allocate_links(self.number));
            linked.map_err(|error| self.explain(error, "the links of replaced versions"))?;
            self.set_linked();
        }
        Ok(())
    }

    /// Appends a slot to a queue.
    pub(super) fn push(&self, queue: SlotQueue, slot: u32, stamp: u64) -> Result<(), Trouble> {
        let link = self.link(queue, slot)?;
        let ends = self.ends(queue);
        let before = match referenced(ends.last)? {
            None if ends.first.load(Ordering::Relaxed) == Reference::NONE => ends.first,
            Some(last) if last != slot => self.link(queue, last)?.next,
            _ => return Err(QUEUE),
        };
        if before.load(Ordering::Relaxed) != Reference::NONE {
            return Err(QUEUE); // The last slot has no next one.
        }
        link.next.store(Reference::NONE, Ordering::Relaxed);
        link.stamp.store(stamp, Ordering::Relaxed);
        step("queue: link written");
        before.store(Reference::to(slot), Ordering::Relaxed);
        step("queue: slot linked");
        ends.last.store(Reference::to(slot), Ordering::Release); // To `finish` it says that the slot is linked.
        step("queue: slot at the end");
        add(ends.count, 1)?;
        step("queue: slot added");
        Ok(())
    }

    /// The first slot of a queue, and its stamp.
    fn first(&self, queue: SlotQueue) -> Result<Option<(u32, u64)>, Trouble> {
        let Some(slot) = referenced(self.ends(queue).first)? else { return Ok(None) };
        let stamp = self.link(queue, slot)?.stamp.load(Ordering::Relaxed);
        Ok(Some((slot, stamp.ok_or(QUEUE)?)))
    }

    /// Takes the first slot out of a queue.
    fn pop(&self, queue: SlotQueue) -> Result<(), Trouble> {
        let Ends { first, last, count: slots } = self.ends(queue);
        let Some(slot) = referenced(first)? else { return Ok(()) };
        let next = self.link(queue, slot)?.next.load(Ordering::Relaxed);
        let is_last = next == Reference::NONE;
        if is_last != (count(slots)? == 1)
            || is_last != (last.load(Ordering::Relaxed) == first.load(Ordering::Relaxed))
        {
            return Err(QUEUE);
        }
        first.store(next, Ordering::Relaxed); // It is checked when it is the first.
        step("queue: another slot is the first");
        if is_last {
            last.store(next, Ordering::Relaxed);
            step("queue: no slot is the last");
        }
        add(slots, -1)?;
        step("queue: first slot taken");
        Ok(())
    }

    /// The slots of a queue, in order.
    pub(crate) fn queued(&self, queue: SlotQueue) -> Result<Vec<u32>, Trouble> {
        let mut most = 1024; // How many slots there are is asked only for a longer queue.
        let ends = self.ends(queue);
        let mut next = referenced(ends.first)?;
        let mut slots = Vec::new();
        while let Some(slot) = next {
            slots.push(slot);
            let link = self.link(queue, slot)?;
            if link.stamp.load(Ordering::Relaxed).is_none() {
                return Err(Trouble::Flaw("a stamp in a queue of slots"));
            }
            next = referenced(link.next)?;
            if slots.len() as u64 > most {
                most = self.arena.slots_end()?;
                if slots.len() as u64 > most {
                    return Err(Trouble::Flaw("a queue of slots runs in a circle"));
                }
            }
        }
        if slots.last().copied() == referenced(ends.last)? { Ok(slots) } else { Err(QUEUE) }
    }

    /// Some slots of the retired queue, each with the epoch in which it was given up: those behind `after`, or from the first one on.
    /// Returns whether they are the last ones.
    pub(crate) fn retired_behind(
        &self,
        after: Option<u32>,
        most: usize,
        mut each: impl FnMut(u32, Epoch),
    ) -> Result<bool, Trouble> {
        let ends = self.ends(SlotQueue::Retired);
        let last = referenced(ends.last)?;
        let mut next = match after {
            _ if after == last => return Ok(true),
            None => referenced(ends.first)?,
            Some(after) => referenced(self.link(SlotQueue::Retired, after)?.next)?,
        };
        for _ in 0..most {
            let slot = next.ok_or(QUEUE)?;
            let link = self.link(SlotQueue::Retired, slot)?;
            each(slot, retired_in(link).ok_or(QUEUE)?);
            if next == last {
                return Ok(true);
            }
            next = referenced(link.next)?;
        }
        Ok(false)
    }

    /// Whether a slot that is in a queue leads to another slot, or to none, and says since when it is there.
    pub(crate) fn has_sound_link(&self, queue: SlotQueue, slot: u32) -> bool {
        self.link(queue, slot).is_ok_and(|link| {
            referenced(link.next).is_ok_and(|next| next != Some(slot))
                && link.stamp.load(Ordering::Relaxed).is_some()
        })
    }

    /// Whether a slot can be appended to a queue, and one be taken out of it, by its ends.
    pub(crate) fn has_sound_ends(&self, queue: SlotQueue) -> bool {
        let ends = self.ends(queue);
        let (first, last) = (referenced(ends.first), referenced(ends.last));
        match (first, last) {
            (Ok(None), Ok(None)) => ends.count.is_zero(Ordering::Relaxed),
            (Ok(Some(_)), Ok(Some(last))) => {
                let has_no_next = self.link(queue, last).is_ok_and(|link| {
                    link.next.load(Ordering::Relaxed) == Reference::NONE
                        && link.stamp.load(Ordering::Relaxed).is_some()
                });
                has_no_next && self.first(queue).is_ok()
            }
            _ => false,
        }
    }

    /// The first slot of the retired queue, with the epoch in which it was given up.
    pub(crate) fn first_retired(&self) -> Result<Option<(u32, Epoch)>, Trouble> {
        let first = self.first(SlotQueue::Retired)?;
        Ok(first.map(|(slot, stamp)| (slot, Epoch::of(stamp & !SCRUBBED))))
    }

    /// The slots of a queue, as far as its links go: all that were in it, even if its owner died while it appended one.
    pub(crate) fn queued_at_least(&self, queue: SlotQueue) -> Vec<u32> {
        let most = self.arena.slots_end().unwrap_or(0);
        let mut next = referenced(self.ends(queue).first).unwrap_or(None);
        let mut slots = Vec::new();
        while let Some(slot) = next.filter(|_| (slots.len() as u64) < most) {
            slots.push(slot);
            let link = self.link(queue, slot);
            next = link.and_then(|link| referenced(link.next)).unwrap_or(None);
        }
        slots
    }

    /// Scrubs a slot and puts it on the free list.
    #[inline]
    pub(crate) fn free(&self, slot: u32) -> Result<(), Trouble> {
        let (words, class) =
            self.arena.slot_and_class(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        let first = self.class(class).free;
        scrub(words, self.number, first.load(Ordering::Relaxed));
        first.store(Reference::to(slot), Ordering::Release); // To `finish` it says that the slot is scrubbed.
        step("free: slot not counted");
        add(self.head.free_count(), 1)?;
        step("free: slot on the free list");
        Ok(())
    }

    /// Step 1: finds a free slot for a record of `len` bytes, in the free list of its class, the retired or the parked queue, the
    /// fresh slots, the reservations of dead handles or a new extent. If there is no room for an extent, finds a longer slot.
    #[inline]
    pub(super) fn candidate(&self, len: usize) -> Result<FreeSlot<'a>, Trouble> {
        let class = self.arena.geo.class_for(len);
        if let Some(free) = self.first_free(class)? { Ok(free) } else { self.find_slot(class) }
    }

    /// Takes a slot that was just found.
    #[inline]
    pub(super) fn take(&self, candidate: &FreeSlot<'a>) -> Result<(), Trouble> {
        match candidate.origin {
            Origin::FreeList(class, next) => {
                class.free.store(next, Ordering::Relaxed); // It is checked when it is the first.
                step("take: slot off the free list");
                add(self.head.free_count(), -1)?;
            }
            Origin::Fresh(class, next) => class.fresh.store(next, Ordering::Relaxed),
            Origin::Reserved => {}
        }
        Ok(())
    }

    /// The first slot of the free list of a class.
    #[inline]
    fn first_free(&self, class: u32) -> Result<Option<FreeSlot<'a>>, Trouble> {
        let of_class = self.class(class);
        let Some(slot) = referenced(of_class.free)? else { return Ok(None) };
        let (words, class_of) = self.arena.slot_and_class(slot).ok_or(Trouble::Flaw("the free list"))?;
        let header = header(words);
        if !is_free(&header, self.number) || class_of != class {
            return Err(Trouble::Flaw("the free list names a slot that is not free"));
        }
        Ok(Some(FreeSlot { slot, words, origin: Origin::FreeList(of_class, header.next_free()) }))
    }

    /// A slot of a class whose free list is empty.
    fn find_slot(&self, class: u32) -> Result<FreeSlot<'a>, Trouble> {
        self.free_until(class, ASKED_AT_MOST)?;
        loop {
            if let Some(slot) = self.first_free(class)? {
                return Ok(slot);
            }
            if let Some(slot) = self.next_fresh(class)? {
                return Ok(slot);
            }
            if self.free_reserved_by_dead()? {
                continue;
            }
            match self.grow(class) {
                Ok(()) => {}
                // Before the write fails, it looks at the whole of both queues.
                Err(Trouble::Error(Error::Full { .. })) if self.free_until(class, u32::MAX)? => {}
                Err(Trouble::Error(error @ Error::Full { .. })) if !KEEPS_LONGER.get() => {
                    match self.longer(class)? {
                        Some(slot) => return Ok(slot),
                        None => return Err(self.explain(error, "an extent of slots").into()),
                    }
                }
                Err(Trouble::Error(error)) => return Err(self.explain(error, "an extent of slots").into()),
                Err(flaw) => return Err(flaw),
            }
        }
    }

    /// Adds an extent of a class whose fresh slots are used up.
    fn grow(&self, class: u32) -> Result<(), Trouble> {
        let with_links = self.is_linked()?;
        let intent = self.begin_unless_unnoted(Intent::Grow.with(class), |notes| {
            notes.more.store_that_of(self.head.extents());
        });
        let added = Growth::lock(self.arena)
            .and_then(|mut growth| growth.add_data_extent(self.number, class, with_links));
        if let Ok(extent) = &added {
            self.count_extent(extent)?;
        }
        intent.end();
        Ok(added.map(drop)?)
    }

    /// Makes the slots of a new extent the fresh ones of its class.
    pub(super) fn count_extent(&self, extent: &Extent) -> Result<(), Trouble> {
        fence(Ordering::Release); // The header comes before the count (pairs with the Acquire in `all_data_extents`).
        add(self.head.extents(), 1)?;
        step("grow: extent counted");
        self.set_fresh(extent.class, extent.slot_numbers(&self.arena.geo));
        step("grow: fresh slots set");
        Ok(())
    }

    /// The first fresh slot of a class.
    #[inline]
    fn next_fresh(&self, class: u32) -> Result<Option<FreeSlot<'a>>, Trouble> {
        let Some((next, place)) = self.first_fresh(class)? else { return Ok(None) };
        let words = self.arena.slot(next).ok_or(FRESH)?;
        populate_fresh(self.arena, self.number, &place, self.is_linked()?);
        // For some slots the checksum of the extent's header is checked; for the others the header is only read.
        let is_ours = if place.within.is_multiple_of(64) {
            self.owns(next)
        } else {
            self.arena.says_data_of(place.unit, self.number)
        };
        if !is_ours || header(words).words() != [0; HEADER_WORDS] {
            return Err(FRESH);
        }
        let left = place.slots.saturating_sub(place.within);
        let following = if left > 1 { Reference::to(next + 1) } else { Reference::NONE };
        Ok(Some(FreeSlot { slot: next, words, origin: Origin::Fresh(self.class(class), following) }))
    }

    /// Frees retired and parked slots until one is of this class. The slots that are freed may be of other classes, so each queue is
    /// asked several times, but no more than so many, and whatever the other one gave: what a pin makes the one give up goes to the
    /// other one. Returns whether any was freed.
    fn free_until(&self, class: u32, times: u32) -> Result<bool, Trouble> {
        let looks = if times == u32::MAX { u64::MAX } else { LOOKS_AT_ONCE };
        let mut is_any_freed = false;
        for _ in 0..times {
            let is_freed = [self.reclaim(looks)?, self.unpark()?].contains(&true);
            is_any_freed |= is_freed;
            if !is_freed || self.class(class).free.load(Ordering::Relaxed) != Reference::NONE {
                break;
            }
        }
        Ok(is_any_freed)
    }

    /// Frees some of the retired and parked slots that nothing needs any more. Returns whether there may be more of them.
    pub(crate) fn free_some(&self) -> Result<bool, Trouble> {
        const CALLS: u32 = 64;
        for _ in 0..CALLS {
            if ![self.reclaim(u64::MAX)?, self.unpark()?].contains(&true) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A free slot of a longer class, if there is one: when the file can't grow.
    #[cold]
    fn longer(&self, class: u32) -> Result<Option<FreeSlot<'a>>, Trouble> {
        for longer in class + 1..self.arena.geo.classes {
            if let Some(slot) = self.first_free(longer)? {
                return Ok(Some(slot));
            }
            if let Some(slot) = self.next_fresh(longer)? {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Adds to the error of a full store what it needed room for, and which slots it could not use.
    #[cold]
    pub(super) fn explain(&self, error: Error, wanted: &str) -> Error {
        let Error::Full { path, limit, why, source, .. } = error else { return error };
        let count = |word: Checked<'_>| word.load(Ordering::Relaxed).unwrap_or(0);
        let head = self.head;
        let others: u64 = (0..self.arena.geo.regions)
            .filter(|&region| region != self.number)
            .map(|region| count(self.arena.head(region).free_count()))
            .sum();
        let reasons = [
            (count(head.free_count()), "are free in this region"),
            (others, "are free in other regions, whose records alone can have them"),
            (
                count(head.retired_count()),
                "hold replaced versions, until a sync and the end of older snapshots",
            ),
            (count(head.parked_count()), "wait for the end of a pin"),
            (count(head.reserved()), "are reserved"),
        ];
        let mut why = format!("it needs {wanted}, and {why}");
        for (slots, reason) in reasons.into_iter().filter(|(slots, _)| *slots != 0) {
            why.push_str(&format!("; {slots} slots {reason}"));
        }
        Error::Full { path, region: self.number, limit, why, source }
    }

    /// Frees retired slots whose successors are on disk, a few at a time. Looks at no more than `looks` slots of the queue. Returns
    /// whether any was freed.
    ///
    /// A tombstone is freed last: when the slots of the versions that it hides were freed in an epoch that is on disk. They lie
    /// before the tombstone in the queue. So when it is the first one, they are freed or parked. It goes back to the end of the
    /// queue, with a mark if no slot is parked. When it is the first one again, with the mark, and the epoch in which it went
    /// back is on disk, no version that it hides can come back.
    fn reclaim(&self, looks: u64) -> Result<bool, Trouble> {
        let queued = count(self.head.retired_count())?;
        if queued == 0 {
            return Ok(false);
        }
        let (epoch, durable) = (self.arena.epoch()?, self.arena.durable()?);
        if durable >= epoch {
            // No flush leaves this state. In it, a tombstone that is put back would be taken again at once, for ever.
            return Err(self.arena.damaged("the epochs in the control page").into());
        }
        // Keep versions replaced after this epoch: the disk or a snapshot may still need them.
        let limit = seat::oldest_moment(self.arena)?.map_or(durable, |pinned| pinned.min(durable));
        let mut freed = 0;
        // A tombstone that is put back is not met again in this loop.
        for _ in 0..queued.min(looks) {
            if freed == AT_ONCE {
                break;
            }
            let Some((slot, stamp)) = self.first(SlotQueue::Retired)? else { break };
            let (replaced, is_marked) = (Epoch::of(stamp & !SCRUBBED), stamp & SCRUBBED != 0);
            if replaced > limit {
                break;
            }
            let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the queue of retired slots"))?;
            let kept = header(words);
            let is_tombstone = kept.kind() == SlotKind::Tombstone;
            // The queue is derived, and may be damaged. The index shows that the slot holds no current record.
            if !self.owns(slot) || kept.seq() == 0 || self.is_current(slot, &kept)? {
                return Err(Trouble::Flaw("the queue of retired slots"));
            }
            let hides = !is_marked && self.given_up_may_come_back()? && !fault::on(Fault::TombstoneEarly);
            let intent = self.begin_unless_unnoted(Intent::Reclaim.with(0), |notes| {
                notes.given_up.store(Reference::to(slot), Ordering::Relaxed);
                notes.free_count.store_that_of(self.head.free_count());
                notes.retired_count.store_that_of(self.head.retired_count());
                notes.parked_count.store_that_of(self.head.parked_count());
            });
            self.pop(SlotQueue::Retired)?;
            if is_tombstone && hides {
                let mark = if count(self.head.parked_count())? == 0 { SCRUBBED } else { 0 };
                self.push(SlotQueue::Retired, slot, epoch.number() | mark)?;
                intent.end();
                continue;
            }
            if !is_tombstone {
                self.head.reclaimed().store(epoch, Ordering::Relaxed);
            }
            self.release(slot)?;
            intent.end();
            freed += 1;
        }
        Ok(freed != 0)
    }

    /// Whether a slot lies in an extent of the region, as the header of the extent says.
    pub(super) fn owns(&self, slot: u32) -> bool {
        let Some(place) = self.arena.place(slot) else { return false };
        self.arena.extent_at(place.unit).is_some_and(|extent| {
            extent.region() == Some(self.number) && (extent.run, extent.slots) == (place.run, place.slots)
        })
    }

    /// Whether the index leads to this slot.
    fn is_current(&self, slot: u32, header: &Header) -> Result<bool, Trouble> {
        let found = self.find(self.arena.geo.hash(header.id()), header.id())?;
        Ok(matches!(found, Found::Hit { slot: current, .. } if current == slot))
    }

    /// Whether a version whose slot was given up may still be whole on disk, or is parked.
    fn given_up_may_come_back(&self) -> Result<bool, Trouble> {
        Ok(count(self.head.parked_count())? != 0
            || self.head.reclaimed().load(Ordering::Relaxed).ok_or(COUNT)? > self.arena.durable()?)
    }

    /// Whether an older version of some record of the region may be whole in a slot, or on disk.
    pub(super) fn older_may_come_back(&self) -> Result<bool, Trouble> {
        Ok(count(self.head.retired_count())? != 0 || self.given_up_may_come_back()?)
    }

    /// Frees parked slots whose bytes no borrow needs any more, a few at a time. Returns whether any was freed.
    fn unpark(&self) -> Result<bool, Trouble> {
        if count(self.head.parked_count())? == 0 {
            return Ok(false);
        }
        let oldest = borrow::oldest(self.arena)?.unwrap_or(u64::MAX);
        let epoch = self.arena.epoch()?;
        let mut freed = 0;
        while freed < AT_ONCE {
            let Some((slot, parked)) = self.first(SlotQueue::Parked)? else { break };
            if parked >= oldest {
                break;
            }
            let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the queue of parked slots"))?;
            if !self.owns(slot) || !header(words).is_parked() {
                return Err(Trouble::Flaw("the queue of parked slots"));
            }
            let intent = self.begin_unless_unnoted(Intent::Unpark.with(0), |notes| {
                notes.given_up.store(Reference::to(slot), Ordering::Relaxed);
                notes.free_count.store_that_of(self.head.free_count());
                notes.parked_count.store_that_of(self.head.parked_count());
            });
            self.pop(SlotQueue::Parked)?;
            self.head.reclaimed().store(epoch, Ordering::Relaxed);
            self.free(slot)?;
            intent.end();
            freed += 1;
        }
        Ok(freed != 0)
    }

    /// Step 1 of a write in place: takes a slot that the handle fills without the region's lock.
    pub(crate) fn reserve(&self, id: u64, len: usize, owner: Owner) -> Result<u32, Trouble> {
        let candidate = self.candidate(len)?;
        let intent = match candidate.origin {
            Origin::FreeList(..) => Intent::Reserve,
            Origin::Fresh(..) | Origin::Reserved => Intent::ReserveFresh,
        };
        let intent = self.begin(intent.with(0), |notes| {
            notes.taken.store(Reference::to(candidate.slot).word(), Ordering::Relaxed);
            notes.free_count.store_that_of(self.head.free_count());
            notes.more.store_that_of(self.head.reserved());
        });
        self.take(&candidate)?;
        reserve(candidate.words, Header::reserved(id, owner.seat, owner.generation));
        add(self.head.reserved(), 1)?;
        intent.end();
        Ok(candidate.slot)
    }

    /// Fails unless a slot is still reserved for this handle. If it isn't, another program broke the protocol, or a write of the
    /// slot failed half-way.
    pub(crate) fn check_reserved(&self, slot: u32) -> Result<(), Trouble> {
        let owner = self.arena.owner.map(|owner| (owner.seat, owner.generation));
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a reserved slot outside the file"))?;
        if owner.is_some() && header(words).reserved_for() == owner {
            return Ok(());
        }
        Err(self.arena.damaged(format!("slot {slot} is not reserved any more")).into())
    }

    /// Frees a reserved slot.
    pub(crate) fn cancel(&self, slot: u32) -> Result<(), Trouble> {
        let intent = self.begin_unless_unnoted(Intent::Cancel.with(0), |notes| {
            notes.taken.store(Reference::to(slot).word(), Ordering::Relaxed);
            notes.free_count.store_that_of(self.head.free_count());
            notes.more.store_that_of(self.head.reserved());
        });
        self.free(slot)?;
        add(self.head.reserved(), -1)?;
        intent.end();
        Ok(())
    }

    /// Frees the slots that dead handles reserved. Returns whether any was freed. A pass over the region's slots, if any is
    /// reserved.
    fn free_reserved_by_dead(&self) -> Result<bool, Trouble> {
        if count(self.head.reserved())? == 0 {
            return Ok(false);
        }
        let mut freed = false;
        for slot in pass::slots_of(self.arena, self.number)? {
            let (slot, words) = slot?;
            if let Some((seat, generation)) = header(words).reserved_for()
                && !seat::is_alive(self.arena, Owner { seat, generation })?
            {
                self.cancel(slot)?;
                freed = true;
            }
        }
        Ok(freed)
    }

    /// Parks slots that are on no list, instead of those that are parked now.
    pub(crate) fn park_all(&self, slots: &[(u32, u64)]) -> Result<(), Trouble> {
        for &(slot, _) in slots {
            park(self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?);
        }
        self.requeue(SlotQueue::Parked, slots)
    }

    /// Fills a queue anew with slots and their stamps, in the order of these.
    pub(crate) fn requeue(&self, queue: SlotQueue, slots: &[(u32, u64)]) -> Result<(), Trouble> {
        let to = |slot: Option<&(u32, u64)>| slot.map_or(Reference::NONE, |slot| Reference::to(slot.0));
        for (i, &(slot, stamp)) in slots.iter().enumerate() {
            let link = self.link(queue, slot)?;
            link.next.store(to(slots.get(i + 1)), Ordering::Relaxed);
            link.stamp.store(stamp, Ordering::Relaxed);
        }
        let ends = self.ends(queue);
        ends.first.store(to(slots.first()), Ordering::Relaxed);
        ends.last.store(to(slots.last()), Ordering::Relaxed);
        ends.count.store(slots.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// The epoch in which a retired slot was given up, by the stamp in its link.
pub(crate) fn retired_in(link: Link<'_>) -> Option<Epoch> {
    link.stamp.load(Ordering::Relaxed).map(|stamp| Epoch::of(stamp & !SCRUBBED))
}

/// The slot that a word refers to, if it refers to one.
#[inline]
pub(super) fn referenced(word: ReferenceWord<'_>) -> Result<Option<u32>, Trouble> {
    word.load(Ordering::Relaxed).slot().map_err(|NoReference| REFERENCE)
}
