//! The versions of a region that were replaced or deleted since a snapshot's moment, by the links of the queue that they are in.
//!
//! 1. A version that was current at the moment, and is not any more, is in the region's queue of retired slots, with an epoch after
//!    the pinned one. It stays there while the pin stands. No slot before it in the queue leaves it behind it.
//! 2. So a part of the queue that was passed need not be passed again, until the region is rebuilt: that changes the shape.
//! 3. The queue is passed with the region's lock held, a few links at a time. Before the epochs after the pinned one slots may leave the
//!    queue between two parts. Then the first slot, or its stamp, is another, and the pass begins anew.
//! 4. At the end of the queue, and with the lock still held, the index is asked. If it leads to a later version, or has none, the newest
//!    version of the moment's epoch or an earlier one is that of the moment. If there is none, there was no record.
//!    A damaged version whose id is the damaged part is passed over when its record is written anew, and stays in the index.
//! 5. If a part of the region is damaged, or the lock can't be had soon, nothing is told: the slots of the region are looked at.

use std::time::Duration;

use crate::file::survey::{SlotState, survey};
use crate::format::epoch::Epoch;
use crate::format::index::Shape;
use crate::format::slot::Header;
use crate::protocol::lock::{self, LockState};
use crate::protocol::newest::Newest;
use crate::protocol::slot::header;
use crate::region::Trouble;
use crate::region::head::Region;
use crate::region::read::{Look, look};
use crate::store::Store;
use crate::sys::atomic::Ordering;
use crate::sys::deadline::Deadline;

/// Links that are passed while the lock is held: as long as a few writes take.
const AT_ONCE: usize = 64;
/// How often the pass begins anew because slots leave the queue.
const RESTARTS_MAX: u32 = 32;
/// The time that a reader waits for the region's lock: longer than a write takes.
const PATIENCE: Duration = Duration::from_millis(5);

/// What was found of a region.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    /// The shape of the region's index during the pass.
    shape: Option<Shape>,
    /// The first slot of the queue and its stamp, when the pass began.
    first: Option<(u32, Epoch)>,
    /// The last slot that was passed, and its stamp.
    last: Option<(u32, Epoch)>,
    /// Slots that were passed and are in the queue still.
    passed: u64,
    /// Versions and tombstones of the moment's epoch or an earlier one: the slot, and whether it holds a record.
    found: Newest<(u32, bool)>,
}

/// The record of the moment.
pub(super) enum OfMoment {
    At(u32, Header),
    Absent,
    /// The queue does not tell.
    Nothing,
}

/// The queue does not tell.
struct NotTold;

impl From<Trouble> for NotTold {
    fn from(_: Trouble) -> Self {
        Self
    }
}

impl From<crate::Error> for NotTold {
    fn from(_: crate::Error) -> Self {
        Self
    }
}

impl Replaced {
    /// The record with this id at the end of `moment`, which is pinned.
    pub(super) fn find(&mut self, store: &Store, moment: Epoch, id: u64) -> OfMoment {
        let told = self.try_find(store, moment, id);
        told.unwrap_or_else(|NotTold| {
            *self = Self::default();
            OfMoment::Nothing
        })
    }

    fn try_find(&mut self, store: &Store, moment: Epoch, id: u64) -> Result<OfMoment, NotTold> {
        let arena = &store.handle.arena;
        let hash = arena.geo.hash(id);
        let region = Region::new(arena, arena.geo.region_of(hash));
        let mut buffer = Vec::new();
        let mut restarts = 0;
        loop {
            let mut links = Vec::new();
            let mut now = None;
            {
                store.check_outside(hash)?;
                if let LockState::Clean = lock::state(region.head.lock().load(Ordering::Acquire)) {
                    return Err(NotTold); // To take the lock would be a write.
                }
                let soon = Deadline::after(Some(PATIENCE));
                let _locked = store.handle.lock_by(region.number, Some(&soon))?;
                if region.is_marked() || !region.head.damaged().is_zero(Ordering::Relaxed) {
                    return Err(NotTold);
                }
                if self.begins_anew(&region, moment)? {
                    restarts += 1;
                    if restarts > RESTARTS_MAX {
                        return Err(NotTold);
                    }
                }
                let after = self.last.map(|(slot, _)| slot);
                let is_end =
                    region.retired_behind(after, AT_ONCE, |slot, epoch| links.push((slot, epoch)))?;
                for &(slot, epoch) in &links {
                    let is_first_kept = epoch > moment && self.last.is_none_or(|(_, last)| last <= moment);
                    self.passed = if is_first_kept { 1 } else { self.passed + 1 };
                    self.last = Some((slot, epoch));
                }
                if region.head.retired_count().load(Ordering::Relaxed).is_none_or(|all| self.passed > all) {
                    return Err(NotTold);
                }
                if is_end {
                    if region.may_lead_to_damaged(hash, id) {
                        return Err(NotTold);
                    }
                    now = Some(look(arena, hash, id, true, Some(&mut buffer)));
                }
            }
            for (slot, _) in links.into_iter().filter(|&(_, epoch)| epoch > moment) {
                let words = arena.slot(slot).ok_or(NotTold)?;
                let (header, is_record) = match survey(words, region.number, &arena.geo, &mut buffer) {
                    SlotState::Version(header) => (header, true),
                    SlotState::Tombstone(header) => (header, false),
                    _ => return Err(NotTold),
                };
                if header.epoch() <= moment {
                    self.found.offer(header.id(), header.seq(), (slot, is_record));
                }
            }
            match now {
                None => {}
                Some(Look::Hit(header, slot)) if header.epoch() <= moment => {
                    return Ok(OfMoment::At(slot, header));
                }
                Some(Look::Hit(..) | Look::Miss) => return self.told(store, id),
                Some(Look::Damaged { .. } | Look::Moved | Look::Broken(_)) => return Err(NotTold),
            }
        }
    }

    /// Begins anew if what was passed may not be a part of the queue any more. Returns whether slots have left it.
    fn begins_anew(&mut self, region: &Region<'_>, moment: Epoch) -> Result<bool, NotTold> {
        let shape = region.shape();
        let is_same = self.shape == Some(shape);
        let first = region.first_retired()?;
        let is_kept = self.last.is_none_or(|(_, epoch)| epoch > moment) || self.first == first;
        if self.last.is_none() || !is_same || !is_kept {
            *self = Self { shape: Some(shape), first, ..Self::default() };
        }
        Ok(is_same && !is_kept)
    }

    /// Step 4: the record by what was found.
    fn told(&self, store: &Store, id: u64) -> Result<OfMoment, NotTold> {
        let Some((seq, &(slot, is_record))) = self.found.get(id) else { return Ok(OfMoment::Absent) };
        if !is_record {
            return Ok(OfMoment::Absent);
        }
        let words = store.handle.arena.slot(slot).ok_or(NotTold)?;
        let header = header(words);
        if (header.id(), header.seq()) == (id, seq) { Ok(OfMoment::At(slot, header)) } else { Err(NotTold) }
    }
}
