//! The slots of a region that are no live records: free ones, replaced ones that are kept for a while,
//! and where new ones come from. For the region's owner.

use crate::error::Error;
use crate::fault::{self, Fault};
use crate::format::checked;
use crate::format::extent::Kind;
use crate::format::region::word;
use crate::format::slot::{HEADER_WORDS, Header, Kind as SlotKind};
use crate::protocol::slot::{header, is_free, scrub};
use crate::region::grow::{Growth, LARGE_SLOT_BYTES};
use crate::region::owned::{Found, Region, pair, unpair};
use crate::region::{Trouble, seat};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::step::step;

impl<'a> Region<'a> {
    pub(super) fn link(&self, slot: u32) -> Result<&'a [AtomicU64], Trouble> {
        self.arena.link(slot).ok_or(Trouble::Flaw("the links of a slot outside the file"))
    }

    /// Notes the version before a live one.
    pub(crate) fn set_before(&self, slot: u32, before: u32) -> Result<(), Trouble> {
        self.link(slot)?[0].store(pair(0, before), Ordering::Relaxed);
        Ok(())
    }

    /// Gives up the slot of a version that `by` has replaced in `epoch`: free at once if no flush
    /// has begun since the version was written, else kept until `epoch` is on disk. A damaged
    /// version can't help anybody, and is free at once.
    #[inline]
    pub(super) fn retire(&self, old: u32, header: &Header, by: u32, epoch: u64) -> Result<(), Trouble> {
        let linked = self.is_linked()?;
        if header.epoch() == epoch || !self.is_whole(old) || fault::on(Fault::ReuseEarly) {
            if linked {
                let (_, before) = unpair(self.link(old)?[0].load(Ordering::Relaxed));
                self.link(by)?[0].store(pair(0, before), Ordering::Relaxed);
            }
            return self.free(old);
        }
        self.link(by)?[0].store(pair(0, old + 1), Ordering::Relaxed);
        self.enqueue(old, epoch)
    }

    /// Appends a slot to the queue of those that are kept until `epoch` is on disk.
    pub(super) fn enqueue(&self, slot: u32, epoch: u64) -> Result<(), Trouble> {
        let link = self.link(slot)?;
        let (_, before) = unpair(link[0].load(Ordering::Relaxed));
        link[0].store(pair(0, before), Ordering::Relaxed);
        link[1].store(checked::encode(epoch), Ordering::Relaxed);
        let (first, last) = unpair(self.get(word::RETIRED));
        if last == 0 {
            self.set(word::RETIRED, pair(slot + 1, slot + 1));
        } else {
            let tail = self.link(last - 1)?;
            let (_, before) = unpair(tail[0].load(Ordering::Relaxed));
            tail[0].store(pair(slot + 1, before), Ordering::Relaxed);
            self.set(word::RETIRED, pair(first, slot + 1));
        }
        self.add(word::RETIRED_COUNT, 1)?;
        step("retire: version queued");
        Ok(())
    }

    /// Scrubs a slot and puts it on the free list.
    #[inline]
    pub(crate) fn free(&self, slot: u32) -> Result<(), Trouble> {
        let words = self.arena.slot(slot).ok_or(Trouble::Flaw("a slot outside the file"))?;
        scrub(words, self.number, self.get(word::FREE));
        self.set(word::FREE, u64::from(slot) + 1);
        self.add(word::FREE_COUNT, 1)?;
        step("free: slot on the free list");
        Ok(())
    }

    /// Step 1: a free slot, from the free list, the retired queue, the fresh slots or a new extent.
    #[inline]
    pub(super) fn take_slot(&self) -> Result<u32, Trouble> {
        loop {
            let first = self.get(word::FREE);
            if first != 0 {
                let slot = u32::try_from(first - 1).map_err(|_| Trouble::Flaw("the free list"))?;
                let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the free list"))?;
                let header = header(words);
                if !is_free(&header, self.number) {
                    return Err(Trouble::Flaw("the free list names a slot that is not free"));
                }
                self.set(word::FREE, header.id);
                self.add(word::FREE_COUNT, -1)?;
                return Ok(slot);
            }
            if self.reclaim()? {
                continue;
            }
            let (next, end) = unpair(self.get(word::FRESH));
            if next < end {
                let extent = self.arena.geo.extent_of(next);
                let slots = self.arena.slots_of(extent);
                let words = self.arena.slot(next).ok_or(Trouble::Flaw("the fresh slots"))?;
                if end > slots.end
                    || (next == slots.start || next % 64 == 0)
                        && self.arena.extent_kind(extent) != Some(Kind::Data { region: self.number })
                    || header(words).words() != [0; HEADER_WORDS]
                {
                    return Err(Trouble::Flaw("the fresh slots"));
                }
                if self.arena.geo.slot_size >= LARGE_SLOT_BYTES {
                    self.arena.map.populate(self.arena.geo.slot_offset(next), self.arena.geo.slot_size);
                }
                self.set(word::FRESH, pair(next + 1, end));
                return Ok(next);
            }
            let with_links = self.is_linked()?;
            let extent = match Growth::lock(self.arena, self.number)?.add_data_extent(self.number, with_links)
            {
                Ok(extent) => extent,
                Err(full) if self.count(word::RETIRED_COUNT)? != 0 => {
                    return Err(Trouble::Error(self.hint_sync(full)));
                }
                Err(full) => return Err(full.into()),
            };
            let slots = self.arena.slots_of(extent);
            self.set(word::FRESH, pair(slots.start, slots.end));
            step("grow: fresh slots set");
        }
    }

    /// A full store that keeps replaced versions for durability is told how to free them.
    pub(super) fn hint_sync(&self, full: Error) -> Error {
        match full {
            Error::Full { path, region, limit, why, source } => {
                let why = format!("{why}; replaced versions wait for a sync");
                Error::Full { path, region, limit, why, source }
            }
            other => other,
        }
    }

    /// Frees retired slots whose successors are on disk, a few at a time; whether any was freed.
    ///
    /// A tombstone goes last: when the slots of the versions that it hides were freed in an epoch
    /// that is on disk. Until then it goes back to the end of the queue.
    pub(super) fn reclaim(&self) -> Result<bool, Trouble> {
        const AT_ONCE: usize = 32;
        if self.get(word::RETIRED) == 0 {
            return Ok(false);
        }
        let (epoch, durable) = (self.arena.epoch()?, self.arena.durable()?);
        // What was replaced later is needed, by the disk or by whoever reads a pinned epoch.
        let limit = seat::oldest_pin(self.arena)?.map_or(durable, |pinned| pinned.min(durable));
        let mut freed = 0;
        while freed < AT_ONCE {
            let (first, last) = unpair(self.get(word::RETIRED));
            let Some(slot) = first.checked_sub(1) else { break };
            let link = self.link(slot)?;
            let replaced = checked::decode(link[1].load(Ordering::Relaxed))
                .ok_or(Trouble::Flaw("the queue of retired slots"))?;
            if replaced > limit {
                break;
            }
            let words = self.arena.slot(slot).ok_or(Trouble::Flaw("the queue of retired slots"))?;
            let kept = header(words);
            let is_tombstone = kept.kind() == SlotKind::Tombstone;
            // The queue is derived: before it costs a record, the index is asked.
            let hash = self.arena.geo.hash(kept.id);
            if kept.seq == 0 || matches!(self.find(hash, kept.id)?, Found::Hit { slot: s, .. } if s == slot) {
                return Err(Trouble::Flaw("the queue of retired slots"));
            }
            let (next, _) = unpair(link[0].load(Ordering::Relaxed));
            self.set(word::RETIRED, pair(next, if next == 0 { 0 } else { last }));
            self.add(word::RETIRED_COUNT, -1)?;
            step("reclaim: slot taken from the queue");
            let hides = self.count(word::RECLAIMED)? > durable && !fault::on(Fault::TombstoneEarly);
            if is_tombstone && hides {
                self.enqueue(slot, epoch)?;
                continue; // Its epoch is beyond the durable one now, so this comes to an end.
            }
            if !is_tombstone {
                self.set(word::RECLAIMED, checked::encode(epoch));
            }
            self.free(slot)?;
            freed += 1;
        }
        Ok(freed != 0)
    }

    /// Slots in the queue of retired ones, counted.
    pub(crate) fn retired_slots(&self) -> Result<u64, Trouble> {
        let most = u64::from(self.arena.extent_count()?) << self.arena.geo.slots_log2;
        let (mut next, last) = unpair(self.get(word::RETIRED));
        let mut counted = 0;
        let mut at = 0;
        while next != 0 {
            at = next;
            counted += 1;
            (next, _) = unpair(self.link(next - 1)?[0].load(Ordering::Relaxed));
            if counted > most {
                return Err(Trouble::Flaw("the queue of retired slots runs in a circle"));
            }
        }
        if at == last { Ok(counted) } else { Err(Trouble::Flaw("the queue of retired slots")) }
    }

    /// Puts versions back into the retired queue, in the order of the epochs that replaced them:
    /// `(slot, replaced in, slot of the version before + 1)`.
    pub(crate) fn requeue(&self, retired: &[(u32, u64, u32)]) -> Result<(), Trouble> {
        for (i, &(slot, epoch, before)) in retired.iter().enumerate() {
            let next = retired.get(i + 1).map_or(0, |n| n.0 + 1);
            let link = self.link(slot)?;
            link[0].store(pair(next, before), Ordering::Relaxed);
            link[1].store(checked::encode(epoch), Ordering::Relaxed);
        }
        let ends = match (retired.first(), retired.last()) {
            (Some(first), Some(last)) => pair(first.0 + 1, last.0 + 1),
            _ => 0,
        };
        self.set(word::RETIRED, ends);
        Ok(())
    }
}
