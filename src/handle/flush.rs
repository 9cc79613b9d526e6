//! Flushing: acknowledged writes are made to survive a loss of power. The numbered steps are in the chapter on the protocol.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::error::{Error, Holder, Lock, Result};
use crate::fault::{self, Fault};
use crate::file::{blocks, byte_lock, seat};
use crate::format::control::Mark;
use crate::format::epoch::Epoch;
use crate::format::seat::{LEAVING, SYNC_BYTE};
use crate::handle::Handle;
use crate::handle::moment::Moment;
use crate::protocol::lock::{self};
use crate::region::slots::retired_in;
use crate::sys::atomic::Ordering;
use crate::sys::deadline::Deadline;
use crate::sys::file::Witness;
use crate::sys::file_lock;
use crate::sys::step::step;

/// The step right after a flush: the bytes that were in memory at the step before are on disk.
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "public to the crate's tests"))]
pub const FLUSHED: &str = "sync: flushed";

/// The step right after the flush of a new extent, in which a lone version lies.
pub(crate) const EXTENT_FLUSHED: &str = "put: its extent flushed";

/// A region keeps at most this many bytes of replaced versions for durable writes of one record. Beyond that, such a write
/// flushes everything, so that the versions can be freed. A higher limit makes each write cheaper.
const KEPT_BYTES_MAX: u64 = 1 << 20;
/// The number of versions that the limit allows is kept within these bounds.
const KEPT_MIN_MAX: std::ops::RangeInclusive<u64> = 16..=512;

/// A durable write of one record waits at most this long for a flush of everything, which only gains room.
const FOR_ROOM: Duration = Duration::from_millis(50);
/// After such a wait in vain, this many writes do not try.
const PUT_OFF: u64 = 256;

/// The sync lock, held: the handle's turn, and the sync byte, which excludes other handles.
struct SyncLock<'a>(&'a Handle);

impl<'a> SyncLock<'a> {
    /// Waits for the lock, unless `is_done` becomes true meanwhile: then the caller does not need the lock any more.
    fn take(
        handle: &'a Handle,
        deadline: &Deadline,
        is_done: impl Fn() -> Result<bool>,
    ) -> Result<Option<Self>> {
        let turn = &handle.flush;
        let mut taken = turn.taken.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if is_done()? {
                return Ok(None);
            }
            if !*taken {
                *taken = true;
                break;
            }
            taken = match deadline.left() {
                None => turn.given_back.wait(taken).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => {
                    return Err(Error::Busy {
                        path: handle.arena.path.clone(),
                        lock: Lock::Sync,
                        owner: Some(Holder { pid: std::process::id(), exists: Some(true) }),
                        waited: deadline.waited(),
                    });
                }
                Some(left) => {
                    turn.given_back.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        drop(taken);
        let lock = Self(handle); // From here on, dropping it gives the turn back.
        let arena = &handle.arena;
        byte_lock::take(arena, SYNC_BYTE, Lock::Sync, arena.control().flusher(), deadline)?;
        Ok(if is_done()? { None } else { Some(lock) })
    }
}

impl Drop for SyncLock<'_> {
    fn drop(&mut self) {
        byte_lock::give_back(&self.0.arena, SYNC_BYTE, self.0.arena.control().flusher());
        let turn = &self.0.flush;
        *turn.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        turn.given_back.notify_all();
    }
}

impl Handle {
    /// Makes every earlier write durable, and gives back the extents that nothing needs any more.
    pub(crate) fn sync(&self) -> Result<()> {
        self.sync_by(&self.arena.deadline())?;
        self.give_back_idle()
    }

    /// [`sync`](Self::sync), with the patience of the caller.
    pub(crate) fn sync_by(&self, deadline: &Deadline) -> Result<()> {
        self.sync_whatever_its_name(deadline)?;
        self.arena.check_name()
    }

    fn sync_whatever_its_name(&self, deadline: &Deadline) -> Result<()> {
        let arena = &self.arena;
        self.refuse_after_failure()?;
        if self.is_clean() {
            return Ok(()); // Nothing was written since all was flushed.
        }
        let wanted = arena.epoch()?;
        let Some(_lock) = SyncLock::take(self, deadline, || Ok(arena.durable()? >= wanted))? else {
            return Ok(());
        };
        self.refuse_after_failure()?;
        let old = self.cut(deadline)?;
        let units = arena.units_noted()?;
        step("sync: writers of the old epoch are done");
        if fault::on(Fault::DurableEarly) {
            arena.control().durable().store(old, Ordering::SeqCst);
        }
        let unsettled = self.has_unsettled_batches();
        if unsettled && fault::on(Fault::SettledEarly) {
            arena.control().settled().store(old, Ordering::SeqCst);
        }
        self.flush_pages()?;
        step(FLUSHED);
        if unsettled {
            arena.control().settled().store(old, Ordering::SeqCst);
            step("sync: batches settled");
            self.flush_pages()?;
            step(FLUSHED);
        }
        arena.control().durable().store(old, Ordering::SeqCst);
        if let Some(units) = units {
            arena.control().durable_units().store(units, Ordering::SeqCst);
        }
        arena.control().flushes().fetch_add(1, Ordering::Relaxed);
        step("sync: durable epoch raised");
        Ok(())
    }

    /// Makes one lone version durable, which was just written.
    pub(crate) fn sync_one(&self, region: u32, slot: u32) -> Result<()> {
        let arena = &self.arena;
        self.refuse_after_failure()?;
        if self.keeps_much(region) && self.flushes_all_for_room()? {
            return Ok(());
        }
        let Some(witness) = self.take_witness() else { return self.sync() };
        let durable = arena.control().durable_units().load(Ordering::SeqCst);
        let layout = arena.numbers.layout();
        let place = arena.place(slot).filter(|place| durable.is_some_and(|n| u64::from(place.unit) < n));
        // The lock is given back: the slot may be another one's by now.
        let place = place.filter(|_| arena.has_layout(layout));
        let flushed = match place {
            Some(place) => {
                let mut range = arena.geo.slot_within(place.unit, place.within, place.slot_size)..0;
                range.end = range.start + place.slot_size;
                if arena.control().given_back().load(Ordering::SeqCst) != Some(Epoch::BEFORE) {
                    // The extent may be in room that was given back, and the process that put it there may have died before it
                    // had flushed the header.
                    range.start = arena.geo.unit_offset(place.unit);
                    range.end = range.start + arena.geo.filled_bytes(u64::from(place.slots), place.slot_size);
                }
                arena.map.flush(range.start, range.end - range.start).and_then(|()| witness.ask())
            }
            None => self.flush_extents(&witness),
        };
        flushed.map_err(|source| self.note_failure(source))?;
        self.flush.witnesses.lock().unwrap_or_else(PoisonError::into_inner).push(witness);
        step("put: flushed by itself");
        self.refuse_after_failure()?;
        arena.check_name()
    }

    /// Flushes everything, and notes that the present extents are on disk. Waits for no region.
    fn flush_extents(&self, witness: &Witness) -> std::io::Result<()> {
        let units = self.arena.control().units().load(Ordering::SeqCst);
        witness.flush_all()?;
        step(EXTENT_FLUSHED);
        // A flush of everything that runs beside this one may store a lower number.
        if let Some(units) = units {
            self.arena.control().durable_units().raise_to(units);
        }
        Ok(())
    }

    /// Flushes everything, so that replaced versions can be freed. Returns whether it did. If a process is stopped inside a
    /// region, it can't: then the write is flushed by itself, as usual.
    fn flushes_all_for_room(&self) -> Result<bool> {
        let put_off = &self.flush.put_off;
        if put_off.load(Ordering::Relaxed) != 0 {
            // Inexact among threads, which does no harm.
            put_off.fetch_sub(1, Ordering::Relaxed);
            return Ok(false);
        }
        match self.sync_by(&Deadline::after(Some(FOR_ROOM))) {
            Ok(()) => Ok(true),
            Err(error @ Error::FlushFailed { .. }) => Err(error),
            Err(_) => {
                put_off.store(PUT_OFF, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    /// Whether a region keeps many replaced versions, none of which can be freed before the next flush of everything. Other
    /// processes may be changing the words that are read here. Only the time of the next flush depends on them.
    fn keeps_much(&self, region: u32) -> bool {
        let arena = &self.arena;
        let head = arena.head(region);
        let kept = head.retired_count().load(Ordering::Relaxed);
        if kept.is_some_and(|n| n < *KEPT_MIN_MAX.start()) {
            return false;
        }
        let first = head.retired_first().load(Ordering::Relaxed).slot().ok().flatten();
        // The first one stands for all.
        let slot_size = first.and_then(|slot| arena.place(slot)).map_or(1, |place| place.slot_size);
        let kept_max = (KEPT_BYTES_MAX / slot_size).clamp(*KEPT_MIN_MAX.start(), *KEPT_MIN_MAX.end());
        if kept.is_some_and(|n| n < kept_max) {
            return false;
        }
        let link = first.and_then(|slot| arena.link(slot));
        let since = link.map(retired_in);
        let durable = arena.control().durable().load(Ordering::SeqCst);
        since.flatten() > durable
    }

    fn take_witness(&self) -> Option<Witness> {
        let mut witnesses = self.flush.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
        witnesses.pop().or_else(|| Witness::new(&self.arena.file).ok())
    }

    /// Step 3: one flush of everything that was written to the mapping before.
    fn flush_pages(&self) -> Result<()> {
        // A flush of another file makes nothing durable.
        let file = self.arena.file.same().map_err(self.arena.io("flushing"))?;
        file.sync_data().map_err(|source| self.note_failure(source))
    }

    fn note_failure(&self, source: std::io::Error) -> Error {
        self.arena.note_failed_flush(source)
    }

    /// Whether there was a batch since batches were last known to be whole on disk.
    fn has_unsettled_batches(&self) -> bool {
        let control = self.arena.control();
        let [batched, settled] =
            [control.batched(), control.settled()].map(|word| word.load(Ordering::SeqCst));
        let epoch = control.epoch().load(Ordering::SeqCst);
        // A settled epoch was flushed, so it lies before the current epoch.
        batched.is_none() || settled.is_none() || batched > settled || settled >= epoch
    }

    /// Raises the epoch, waits until no writer is in the old one, and returns the old one. The caller holds the sync lock.
    fn cut(&self, deadline: &Deadline) -> Result<Epoch> {
        let arena = &self.arena;
        let old = arena.epoch()?;
        if old == Epoch::LAST {
            return Err(
                arena.damaged("the epoch in the control page, which is the last one; a repair finds it anew")
            );
        }
        arena.control().epoch().store(old.next(), Ordering::SeqCst);
        step("sync: epoch raised");
        for region in 0..arena.geo.regions {
            // A region whose rebuild failed is free and marked. It may have members of a batch that does not count. They
            // must be gone before the flush makes them durable.
            // If the lock of a region says that the store is clean, no writer is inside. To take such a lock would leave the clean
            // state, beside another handle that is closing the store.
            if !lock::is_free(arena.head(region).lock()) || arena.shape(region).is_marked() {
                drop(self.lock_by(region, Some(deadline))?);
            }
        }
        Ok(old)
    }

    /// Pins the records as they are at one moment, which is during this call. `look` is called right before that moment: its result
    /// is older than all that the moment has not.
    pub(crate) fn begin_moment<T>(self: &Arc<Self>, look: impl FnOnce() -> T) -> Result<(Moment, T)> {
        let deadline = self.arena.deadline();
        let _lock = SyncLock::take(self, &deadline, || Ok(false))?;
        let moment = Moment::begin(self)?;
        let looked = look();
        let ended = self.cut(&deadline)?;
        if self.is_in_memory {
            // There is no disk to wait for: replaced versions are kept only for snapshots and borrows.
            let arena = &self.arena;
            if self.has_unsettled_batches() {
                arena.control().settled().store(ended, Ordering::SeqCst);
            }
            arena.control().durable().store(ended, Ordering::SeqCst);
        }
        Ok((moment, looked))
    }

    /// After a failed flush the kernel may take pages for clean that never reached the disk. So no later flush of any handle is
    /// believed until one handle alone has opened the store anew and has written every page again.
    fn refuse_after_failure(&self) -> Result<()> {
        match self.arena.control().flush_failed().load(Ordering::SeqCst) {
            0 => Ok(()),
            code => Err(Error::FlushFailed {
                path: self.arena.path.clone(),
                source: std::io::Error::from_raw_os_error(i32::try_from(code).unwrap_or(libc::EIO)),
            }),
        }
    }

    /// Flushes, and marks the store clean if no other handle is attached. It asks for other handles first: no write may come
    /// between the flush and the mark.
    pub(crate) fn close(&self, deadline: &Deadline) -> Result<()> {
        let arena = &self.arena;
        if !self.rounds.end(deadline) {
            // A thread of this handle still writes, and waits for a lock. So does a flush. The handle stays one that may write.
            let flushed = self.sync_by(deadline);
            file_lock::unlock_whole(&arena.file);
            return flushed;
        }
        if let Some(owner) = arena.owner {
            arena.seat(owner.seat).taken().store(LEAVING, Ordering::SeqCst);
        }
        if self.is_clean() {
            // A handle that writes from here on finds this one gone, and marks the store; one that has written is seen below.
            step("close: the store is clean");
            file_lock::unlock_whole(&arena.file);
            if self.is_clean() {
                return arena.check_name();
            }
        }
        // The lock keeps other handles from opening the store. Of several handles that leave at once, one gets the lock: a
        // handle that tries in vain gives up its share of the lock.
        let locked = file_lock::try_lock_whole(&arena.file);
        let staying = if locked { seat::any_staying(arena) } else { Ok(true) };
        step("close: who else is there was asked");
        let closed = staying.and_then(|staying| self.leave(!staying, deadline));
        // A checkpoint may keep the handle for a moment. It must not lock other handles out.
        file_lock::unlock_whole(&arena.file);
        closed?;
        arena.check_name()
    }

    /// Flushes, and marks the store clean if the handle is `alone`: then no other handle can open the store meanwhile.
    fn leave(&self, alone: bool, deadline: &Deadline) -> Result<()> {
        let arena = &self.arena;
        self.sync_whatever_its_name(deadline)?;
        if alone {
            if !(0..arena.geo.regions).all(|region| lock::mark_clean(arena.head(region).lock())) {
                return Ok(()); // A lock that is held is no clean store's: the mark would lie.
            }
            blocks::note(arena)?;
            step("close: locks marked clean");
            // Only the mark may be on its way to the disk: a handle that finds the mark believes all other bytes.
            self.flush_pages()?;
            arena.control().mark().store(Mark::Clean, Ordering::SeqCst);
            step("close: marked clean");
            self.flush_pages()?;
        }
        Ok(())
    }
}
