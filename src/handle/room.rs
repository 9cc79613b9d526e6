//! Giving room back: the extents that a region does not need go back to the file, for any region and any length of records.
//!
//! A flush looks for such extents when it is done: versions that were replaced or deleted before it can be freed then. A region keeps as
//! many idle slots as it has records, and those that it has used since the look before. Then everything is flushed once more: what
//! was given back is used again when it reads as zeros on disk.
//!
//! A write that finds the store full does the same for all regions, and keeps nothing.

use std::sync::{MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::file::grow::PATIENCE;
use crate::format::extent::Extent;
use crate::handle::Handle;
use crate::handle::lock::in_region;
use crate::handle::turn::{Had, LastLook};
use crate::region::head::Region;
use crate::region::room::Spare;
use crate::sys::atomic::Ordering;
use crate::sys::deadline::Deadline;

/// A region gives nothing back that has fewer idle slots.
const IDLE_MIN: u64 = 64;
/// Of each class this part of the slots in use is kept, if nobody waits for room.
const KEPT_PART: u64 = 8;
/// If a look for a full store was in vain, the region is not looked at before so many writes: the flush would cost too much. Each
/// look in vain doubles the number.
const WRITES: std::ops::RangeInclusive<u64> = 64..=4096;
/// A flush looks again so often: tombstones are freed after the flush that makes the versions before them go.
const ROUNDS: u32 = 3;

/// The idle slots of a region.
struct IdleRegion {
    region: u32,
    had: Had,
    spare: Spare,
}

impl Handle {
    fn seen(&self) -> MutexGuard<'_, Vec<LastLook>> {
        let mut seen = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.resize(self.arena.geo.regions as usize, LastLook::default());
        seen
    }

    /// After a flush: gives back what is idle.
    pub(super) fn give_back_idle(&self) -> Result<()> {
        for _ in 0..ROUNDS {
            let idle = self.idle(false);
            if idle.is_empty() || self.give_back(&idle) == 0 {
                break;
            }
            match self.sync_by(&Deadline::after(Some(PATIENCE))) {
                Err(error @ Error::FlushFailed { .. }) => return Err(error),
                Err(_) => break, // The room is used again after a later flush.
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Gives back what it can, for a write that finds the store full. Returns whether there is room now that there was not. The caller
    /// holds no lock.
    #[cold]
    pub(crate) fn has_made_room(&self) -> bool {
        let sync = || self.sync_by(&Deadline::after(Some(PATIENCE))).is_ok();
        let mut given = 0;
        for _ in 0..ROUNDS {
            let idle = self.idle(true);
            if idle.is_empty() {
                break;
            }
            if !sync() {
                // A process is stopped in a region, or in a flush. The next writes don't wait for it.
                idle.iter().for_each(|idle| self.note(idle, None));
                break;
            }
            match self.give_back(&idle) {
                0 => break,
                bytes => given += bytes,
            }
        }
        given > 0 && sync()
    }

    /// Notes what a look at a region gave; `None`: nothing.
    fn note(&self, idle: &IdleRegion, bytes: Option<u64>) {
        let free = self.arena.head(idle.region).free_count().load(Ordering::Relaxed).unwrap_or(0);
        if let Some(last) = self.seen().get_mut(idle.region as usize) {
            let (in_vain, wait) = match bytes {
                None => (Some(idle.had), (2 * last.wait).clamp(*WRITES.start(), *WRITES.end())),
                Some(_) => (None, 0),
            };
            *last = LastLook { free, in_vain, wait };
        }
    }

    /// The regions with idle slots that they may give back. Other processes may be changing the words that are read here: what a
    /// region gives back is decided under its lock.
    fn idle(&self, is_full: bool) -> Vec<IdleRegion> {
        let seen = self.seen();
        let of_region = |(region, seen): (u32, &LastLook)| {
            let head = self.arena.head(region);
            let [free, retired, live] = [head.free_count(), head.retired_count(), head.live()]
                .map(|word| word.load(Ordering::Relaxed).unwrap_or(0));
            let had = Had { idle: free + retired, live, next_seq: head.next_seq().load(Ordering::Relaxed) };
            let Had { idle, .. } = had;
            let (spare, is_much, is_in_vain) = if is_full {
                let spare = Spare { most: u64::MAX, kept_part: 0 };
                let is_as_before = |before: Had| {
                    idle <= before.idle + before.idle / KEPT_PART
                        && had.next_seq.wrapping_sub(before.next_seq) < seen.wait
                };
                (spare, idle > 0, seen.in_vain.is_some_and(is_as_before))
            } else {
                let most = idle.saturating_sub(live).max(free.min(seen.free));
                let is_as_before = |before: Had| {
                    idle <= before.idle + before.idle / KEPT_PART
                        && live >= before.live - before.live / KEPT_PART
                };
                (
                    Spare { most, kept_part: KEPT_PART },
                    most >= IDLE_MIN,
                    seen.in_vain.is_some_and(is_as_before),
                )
            };
            (is_much && !is_in_vain).then_some(IdleRegion { region, had, spare })
        };
        (0..).zip(seen.iter()).filter_map(of_region).collect()
    }

    /// Frees what these regions can free, and gives extents back. Returns the bytes that were given back. A region that is in
    /// trouble, or whose owner takes long, gives nothing: room is all that is lost by it.
    fn give_back(&self, idle: &[IdleRegion]) -> u64 {
        let Ok(mut extents) = self.extents_by_region() else { return 0 };
        let mut given = 0;
        for of_region in idle {
            let IdleRegion { region, spare, .. } = *of_region;
            let extents = extents.get_mut(region as usize).map(std::mem::take).unwrap_or_default();
            let bytes = self.give_back_of(region, &extents, spare).unwrap_or(0);
            given += bytes;
            self.note(of_region, Some(bytes).filter(|&bytes| bytes > 0));
        }
        given
    }

    fn give_back_of(&self, number: u32, extents: &[Extent], spare: Spare) -> Result<u64> {
        let lock = || self.lock_by(number, Some(&Deadline::after(Some(PATIENCE))));
        let region = Region::new(&self.arena, number);
        while {
            let _locked = lock()?;
            in_region(&region, |region| region.free_some())?
        } {}
        let _locked = lock()?;
        in_region(&region, |region| region.give_back_extents(extents, spare))
    }

    /// The data extents, by region.
    fn extents_by_region(&self) -> Result<Vec<Vec<Extent>>> {
        let mut found = vec![Vec::new(); self.arena.geo.regions as usize];
        self.arena.each_extent(|extent| {
            if let Some(of_region) = extent.region().and_then(|region| found.get_mut(region as usize)) {
                of_region.push(*extent);
            }
        })?;
        Ok(found)
    }
}
