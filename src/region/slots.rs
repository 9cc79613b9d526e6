//! The slots of a region that are no live records: free ones, replaced ones that are kept for a while,
//! and where new ones come from. For the region's owner.

use std::ops::Range;

use crate::error::Error;
use crate::fault::{self, Fault};
use crate::format::checked;
use crate::format::epoch::Epoch;
use crate::format::extent::Kind;
use crate::format::region::word;
use crate::format::slot::{HEADER_WORDS, Header, Kind as SlotKind, PARKED_LINK};
use crate::protocol::lock::Owner;
use crate::protocol::slot::{header, is_free, park, reserve, scrub};
use crate::region::grow::{Growth, populate_fresh};
use crate::region::owned::{Found, Region};
use crate::region::{Trouble, borrow, seat};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::step::step;

/// A queue of slots: where its ends and its count are in the region's head. Each is a reference to a slot
/// (its number plus 1, or 0), as is the link of each slot to the next; all of them are checked words, and the
/// queue ends where its count says.
pub(crate) struct Queue {
    first: usize,
    last: usize,
    count: usize,
    /// The slots have their links in their own headers. Such a queue never needs room.
    in_header: bool,
}

/// Replaced versions and tombstones, each with the epoch that must be on disk before it goes.
pub(crate) const RETIRED: Queue = Queue {
    first: word::RETIRED_FIRST,
    last: word::RETIRED_LAST,
    count: word::RETIRED_COUNT,
    in_header: false,
};
/// Slots that nothing needs but readers, each with the clock when it was parked.
pub(crate) const PARKED: Queue =
    Queue { first: word::PARKED_FIRST, last: word::PARKED_LAST, count: word::PARKED_COUNT, in_header: true };

/// In the stamp of a retired tombstone: what it hides was scrubbed in that epoch, or before it.
const SCRUBBED: u64 = 1 << 47;

const REFERENCE: Trouble = Trouble::Flaw("a reference to a slot");
const QUEUE: Trouble = Trouble::Flaw("a queue of slots");
const FRESH: Trouble = Trouble::Flaw("the fresh slots");

/// Slots that are freed at once.
const AT_ONCE: usize = 32;

impl<'a> Region<'a> {
    /// The slot that a word of the head refers to.
    #[inline]
    pub(crate) fn referenced(&self, word: usize) -> Result<Option<u32>, Trouble> {
        slot_of(self.get(word))
    }

    /// The slots of the extent that was added last that were never used.
    #[inline]
    pub(crate) fn fresh(&self) -> Result<Range<u32>, Trouble> {
        let Some(next) = self.referenced(word::FRESH)? else { return Ok(0..0) };
        Ok(next..self.arena.slots_of(self.arena.geo.extent_of(next)).end)
    }

    /// Notes which slots were never used: up to the end of their extent.
    #[inline]
    fn set_fresh(&self, slots: Range<u32>) {
        self.set(word::FRESH, if slots.is_empty() { checked::encode(0) } else { reference(slots.start) });
    }

    #[inline]
    pub(super) fn link(&self, queue: &Queue, slot: u32) -> Result<&'a [AtomicU64], Trouble> {
        let link = if queue.in_header {
            self.arena.slot(slot).and_then(|words| words.get(PARKED_LINK))
        } else {
            self.arena.link(slot)
        };
        link.ok_or(Trouble::Flaw("the links of a slot outside the file"))
    }

    /// Gives up the slot of a version that was replaced in `epoch`: it is kept until `epoch` is on disk if it
    /// may be the one that has to come back until then. A damaged version can't help anybody, but who reads a
    /// pinned epoch must not miss it: an older one would stand in for it.
    #[inline]
    pub(super) fn retire(&self, old: u32, header: &Header, epoch: Epoch) -> Result<(), Trouble> {
        let is_wanted = header.is_wanted_after(epoch)
            && !(fault::on(Fault::LoneReplaced) && header.epoch() == epoch)
            && !fault::on(Fault::ReuseEarly);
        let is_pinned = seat::may_be_pinned(self.arena);
        if !is_wanted && !is_pinned {
            return self.release(old);
        }
        let is_whole = self.is_whole(old);
        if is_wanted && is_whole {
            return self.push(&RETIRED, old, epoch.number());
        }
        // The hint may be an old one; to ask lowers it.
        if !is_whole && is_pinned && seat::oldest_pin(self.arena)?.is_some() {
            self.ensure_linked()?;
            return self.push(&RETIRED, old, epoch.number());
        }
        self.release(old)
    }

    /// Frees a slot that nothing needs, unless somebody may still read what lies in it: then it is
    /// parked. The index does not lead to it any more. Neither needs room, so neither fails for want of it.
    #[inline]
    pub(super) fn release(&self, slot: u32) -> Result<(), Trouble> {
        if borrow::may_be_borrowed(self.arena) { self.park(slot) } else { self.free(slot) }
    }

    #[cold]
    fn park(&self, slot: u32) -> Result<(), Trouble> {
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        // Whatever becomes of the queue: no version is left that a rebuild could bring back.
        park(words);
        self.push(&PARKED, slot, borrow::clock(self.arena))
    }

    /// Allocates the links of the region's extents, if they are not.
    pub(crate) fn ensure_linked(&self) -> Result<(), Trouble> {
        if !self.is_linked()? {
            let linked = Growth::lock(self.arena).and_then(|mut growth| growth.allocate_links(self.number));
            linked.map_err(|error| self.explain(error, "the links of replaced versions"))?;
            self.set_linked();
        }
        Ok(())
    }

    /// Appends a slot to a queue.
    pub(super) fn push(&self, queue: &Queue, slot: u32, stamp: u64) -> Result<(), Trouble> {
        let link = self.link(queue, slot)?;
        let (this, none) = (reference(slot), checked::encode(0));
        let last = self.referenced(queue.last)?;
        let before = match last {
            None if self.get(queue.first) == none => &self.head[queue.first],
            Some(last) if last != slot => &self.link(queue, last)?[0],
            _ => return Err(QUEUE),
        };
        if before.load(Ordering::Relaxed) != none {
            return Err(QUEUE); // What is last has none behind it.
        }
        link[0].store(none, Ordering::Relaxed);
        link[1].store(checked::encode(stamp), Ordering::Relaxed);
        before.store(this, Ordering::Relaxed);
        self.set(queue.last, this);
        self.add(queue.count, 1)?;
        step("queue: slot added");
        Ok(())
    }

    /// The first slot of a queue, and its stamp.
    fn first(&self, queue: &Queue) -> Result<Option<(u32, u64)>, Trouble> {
        let Some(slot) = self.referenced(queue.first)? else { return Ok(None) };
        let stamp = checked::decode(self.link(queue, slot)?[1].load(Ordering::Relaxed));
        Ok(Some((slot, stamp.ok_or(QUEUE)?)))
    }

    /// Takes the first slot out of a queue.
    fn pop(&self, queue: &Queue) -> Result<(), Trouble> {
        let Some(slot) = self.referenced(queue.first)? else { return Ok(()) };
        let next = self.link(queue, slot)?[0].load(Ordering::Relaxed);
        let is_last = next == checked::encode(0);
        if is_last != (self.count(queue.count)? == 1)
            || is_last != (self.get(queue.last) == self.get(queue.first))
        {
            return Err(QUEUE);
        }
        self.set(queue.first, next); // Whether it is a reference is asked when it is the first.
        if is_last {
            self.set(queue.last, next);
        }
        self.add(queue.count, -1)?;
        step("queue: first slot taken");
        Ok(())
    }

    /// The slots of a queue, in order.
    pub(crate) fn queued(&self, queue: &Queue) -> Result<Vec<u32>, Trouble> {
        let most = u64::from(self.arena.extent_count()?) << self.arena.geo.slots_log2;
        let mut next = self.referenced(queue.first)?;
        let mut slots = Vec::new();
        while let Some(slot) = next {
            slots.push(slot);
            let link = self.link(queue, slot)?;
            if checked::decode(link[1].load(Ordering::Relaxed)).is_none() {
                return Err(Trouble::Flaw("a stamp in a queue of slots"));
            }
            next = slot_of(link[0].load(Ordering::Relaxed))?;
            if slots.len() as u64 > most {
                return Err(Trouble::Flaw("a queue of slots runs in a circle"));
            }
        }
        if slots.last().copied() == self.referenced(queue.last)? { Ok(slots) } else { Err(QUEUE) }
    }

    /// The slots of a queue, as far as its links go: all that were in it, also if its owner died while it appended one.
    pub(crate) fn queued_at_least(&self, queue: &Queue) -> Vec<u32> {
        let most = self.arena.extent_count().map_or(0, u64::from) << self.arena.geo.slots_log2;
        let mut next = self.referenced(queue.first).unwrap_or(None);
        let mut slots = Vec::new();
        while let Some(slot) = next.filter(|_| (slots.len() as u64) < most) {
            slots.push(slot);
            let link = self.link(queue, slot);
            next = link.and_then(|link| slot_of(link[0].load(Ordering::Relaxed))).unwrap_or(None);
        }
        slots
    }

    /// Scrubs a slot and puts it on the free list.
    #[inline]
    pub(crate) fn free(&self, slot: u32) -> Result<(), Trouble> {
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        scrub(words, self.number, self.get(word::FREE));
        self.set(word::FREE, reference(slot));
        self.add(word::FREE_COUNT, 1)?;
        step("free: slot on the free list");
        Ok(())
    }

    /// Step 1: a free slot, from the free list, the retired queue, the fresh slots or a new extent.
    #[inline]
    pub(super) fn take_slot(&self) -> Result<u32, Trouble> {
        loop {
            if let Some(slot) = self.referenced(word::FREE)? {
                let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the free list"))?;
                let header = header(words);
                if !is_free(&header, self.number) {
                    return Err(Trouble::Flaw("the free list names a slot that is not free"));
                }
                self.set(word::FREE, header.next_free()); // Whether it is a reference is asked when it is the first.
                self.add(word::FREE_COUNT, -1)?;
                return Ok(slot);
            }
            if self.reclaim()? || self.unpark()? {
                continue;
            }
            let fresh = self.fresh()?;
            if let Some(next) = fresh.clone().next() {
                let words = self.arena.slot(next).ok_or(FRESH)?;
                populate_fresh(self.arena, self.number, next, self.is_linked()?);
                let extent = self.arena.geo.extent_of(next);
                // The extent's header is summed for some, and only read for the others.
                let is_ours = if next % 64 == 0 || next == self.arena.slots_of(extent).start {
                    self.owns(next)
                } else {
                    self.arena.says_data_of(extent, self.number)
                };
                if !is_ours || header(words).words() != [0; HEADER_WORDS] {
                    return Err(FRESH);
                }
                self.set_fresh(next + 1..fresh.end);
                return Ok(next);
            }
            if self.free_reserved_by_dead()? {
                continue;
            }
            let with_links = self.is_linked()?;
            let added = Growth::lock(self.arena)
                .and_then(|mut growth| growth.add_data_extent(self.number, with_links));
            let extent = added.map_err(|error| self.explain(error, "an extent of slots"))?;
            self.add(word::EXTENTS, 1)?;
            let slots = self.arena.slots_of(extent);
            self.set_fresh(slots);
            step("grow: fresh slots set");
        }
    }

    /// Says of a full store what there was no room for, and why what is free all the same is of no use for it.
    #[cold]
    pub(super) fn explain(&self, error: Error, wanted: &str) -> Error {
        let Error::Full { path, limit, why, source, .. } = error else { return error };
        let count = |region: u32, word: usize| {
            checked::decode(Region::new(self.arena, region).get(word)).unwrap_or(0)
        };
        let others: u64 = (0..self.arena.geo.regions)
            .filter(|&region| region != self.number)
            .map(|region| count(region, word::FREE_COUNT))
            .sum();
        let reasons = [
            (count(self.number, word::FREE_COUNT), "are free in this region"),
            (others, "are free in other regions, whose records alone can have them"),
            (
                count(self.number, word::RETIRED_COUNT),
                "hold replaced versions, until a sync and the end of older snapshots",
            ),
            (count(self.number, word::PARKED_COUNT), "wait for the end of a pin"),
            (count(self.number, word::RESERVED), "are reserved"),
        ];
        let mut why = format!("it needs {wanted}, and {why}");
        for (slots, reason) in reasons.into_iter().filter(|(slots, _)| *slots != 0) {
            why.push_str(&format!("; {slots} slots {reason}"));
        }
        Error::Full { path, region: self.number, limit, why, source }
    }

    /// Frees retired slots whose successors are on disk, a few at a time; whether any was freed.
    ///
    /// A tombstone goes last: when the slots of the versions that it hides were freed in an epoch
    /// that is on disk. They lie before it in the queue, so when it is the first one they are freed, or
    /// parked. It goes back to the end of the queue, with a mark if none is parked; when it comes round with the
    /// mark, and the epoch in which it went back is on disk, nothing that it hides can come back.
    fn reclaim(&self) -> Result<bool, Trouble> {
        if self.count(word::RETIRED_COUNT)? == 0 {
            return Ok(false);
        }
        let (epoch, durable) = (self.arena.epoch()?, self.arena.durable()?);
        if durable >= epoch {
            // No flush leaves it so; a tombstone that is put back now would be taken again at once, for ever.
            return Err(self.arena.damaged("the epochs in the control page").into());
        }
        // What was replaced later is needed, by the disk or by whoever reads a pinned epoch.
        let limit = seat::oldest_pin(self.arena)?.map_or(durable, |pinned| pinned.min(durable));
        let mut freed = 0;
        // What is put back is not met again.
        for _ in 0..self.count(word::RETIRED_COUNT)? {
            if freed == AT_ONCE {
                break;
            }
            let Some((slot, stamp)) = self.first(&RETIRED)? else { break };
            let (replaced, is_marked) = (Epoch::of(stamp & !SCRUBBED), stamp & SCRUBBED != 0);
            if replaced > limit {
                break;
            }
            let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the queue of retired slots"))?;
            let kept = header(words);
            let is_tombstone = kept.kind() == SlotKind::Tombstone;
            // The queue is derived: before it costs a record, the index is asked.
            if !self.owns(slot) || kept.seq() == 0 || self.is_current(slot, &kept)? {
                return Err(Trouble::Flaw("the queue of retired slots"));
            }
            self.pop(&RETIRED)?;
            let hides = !is_marked && self.given_up_may_come_back()? && !fault::on(Fault::TombstoneEarly);
            if is_tombstone && hides {
                let mark = if self.count(word::PARKED_COUNT)? == 0 { SCRUBBED } else { 0 };
                self.push(&RETIRED, slot, epoch.number() | mark)?;
                continue;
            }
            if !is_tombstone {
                self.set(word::RECLAIMED, epoch.encode());
            }
            self.release(slot)?;
            freed += 1;
        }
        Ok(freed != 0)
    }

    /// Whether a slot lies in an extent of the region.
    fn owns(&self, slot: u32) -> bool {
        let kind = self.arena.extent_kind(self.arena.geo.extent_of(slot));
        kind == Some(Kind::Data { region: self.number })
    }

    /// Whether the index leads to this slot.
    fn is_current(&self, slot: u32, header: &Header) -> Result<bool, Trouble> {
        let found = self.find(self.arena.geo.hash(header.id()), header.id())?;
        Ok(matches!(found, Found::Hit { slot: current, .. } if current == slot))
    }

    /// Whether a version whose slot was given up may still be whole on disk, or is parked.
    fn given_up_may_come_back(&self) -> Result<bool, Trouble> {
        Ok(self.count(word::PARKED_COUNT)? != 0
            || Epoch::of(self.count(word::RECLAIMED)?) > self.arena.durable()?)
    }

    /// Whether an older version of some record of the region may be whole in a slot, or on disk.
    pub(super) fn older_may_come_back(&self) -> Result<bool, Trouble> {
        Ok(self.count(word::RETIRED_COUNT)? != 0 || self.given_up_may_come_back()?)
    }

    /// Frees parked slots that nobody borrows from any more, a few at a time; whether any was freed.
    fn unpark(&self) -> Result<bool, Trouble> {
        if self.count(word::PARKED_COUNT)? == 0 {
            return Ok(false);
        }
        let oldest = borrow::oldest(self.arena)?.unwrap_or(u64::MAX);
        let epoch = self.arena.epoch()?;
        let mut freed = 0;
        while freed < AT_ONCE {
            let Some((slot, parked)) = self.first(&PARKED)? else { break };
            if parked >= oldest {
                break;
            }
            let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the queue of parked slots"))?;
            if !self.owns(slot) || !header(words).is_parked() {
                return Err(Trouble::Flaw("the queue of parked slots"));
            }
            self.pop(&PARKED)?;
            self.set(word::RECLAIMED, epoch.encode());
            self.free(slot)?;
            freed += 1;
        }
        Ok(freed != 0)
    }

    /// Step 1 of a write in place: a slot that a handle fills without the region's lock.
    pub(crate) fn reserve(&self, id: u64, owner: Owner) -> Result<u32, Trouble> {
        let slot = self.take_slot()?;
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a free slot outside the file"))?;
        reserve(words, Header::reserved(id, owner.seat, owner.generation));
        self.add(word::RESERVED, 1)?;
        Ok(slot)
    }

    /// Whether a slot is still reserved for this handle. If it isn't, somebody broke the protocol, or a
    /// write of it went wrong half-way.
    pub(crate) fn check_reserved(&self, slot: u32) -> Result<(), Trouble> {
        let owner = self.arena.owner.map(|owner| (owner.seat, owner.generation));
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a reserved slot outside the file"))?;
        if owner.is_some() && header(words).reserved_for() == owner {
            return Ok(());
        }
        Err(self.arena.damaged(format!("slot {slot} is not reserved any more")).into())
    }

    /// Gives a reserved slot back.
    pub(crate) fn cancel(&self, slot: u32) -> Result<(), Trouble> {
        self.free(slot)?;
        self.add(word::RESERVED, -1)
    }

    /// Frees what dead handles have reserved; whether anything was. A pass over the region's slots, if
    /// any is reserved.
    fn free_reserved_by_dead(&self) -> Result<bool, Trouble> {
        if self.count(word::RESERVED)? == 0 {
            return Ok(false);
        }
        let mut freed = false;
        for extent in self.arena.data_extents(self.number)? {
            for slot in self.arena.slots_of(extent) {
                let Some(words) = self.arena.slot(slot) else { continue };
                if let Some((seat, generation)) = header(words).reserved_for()
                    && !seat::is_alive(self.arena, Owner { seat, generation })?
                {
                    self.cancel(slot)?;
                    freed = true;
                }
            }
        }
        Ok(freed)
    }

    /// Parks slots that are on no list, instead of those that are parked now.
    pub(crate) fn park_all(&self, slots: &[(u32, u64)]) -> Result<(), Trouble> {
        for &(slot, _) in slots {
            park(self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?);
        }
        self.requeue(&PARKED, slots)
    }

    /// Fills a queue anew with slots and their stamps, in the order of these.
    pub(crate) fn requeue(&self, queue: &Queue, slots: &[(u32, u64)]) -> Result<(), Trouble> {
        for (i, &(slot, stamp)) in slots.iter().enumerate() {
            let next = slots.get(i + 1).map_or(checked::encode(0), |next| reference(next.0));
            let link = self.link(queue, slot)?;
            link[0].store(next, Ordering::Relaxed);
            link[1].store(checked::encode(stamp), Ordering::Relaxed);
        }
        for (end, slot) in [(queue.first, slots.first()), (queue.last, slots.last())] {
            self.set(end, slot.map_or(checked::encode(0), |slot| reference(slot.0)));
        }
        self.set(queue.count, checked::encode(slots.len() as u64));
        Ok(())
    }
}

/// The epoch in which a retired slot was given up, by the stamp in its link.
pub(crate) fn retired_in(stamp: u64) -> Option<Epoch> {
    checked::decode(stamp).map(|stamp| Epoch::of(stamp & !SCRUBBED))
}

/// The word that refers to a slot.
#[inline]
pub(crate) fn reference(slot: u32) -> u64 {
    checked::encode(u64::from(slot) + 1)
}

/// The slot that a word refers to, if it refers to one.
#[inline]
pub(crate) fn slot_of(word: u64) -> Result<Option<u32>, Trouble> {
    match checked::decode(word) {
        Some(0) => Ok(None),
        Some(reference) => u32::try_from(reference - 1).map(Some).map_err(|_| REFERENCE),
        None => Err(REFERENCE),
    }
}
