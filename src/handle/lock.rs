//! Taking the lock of a region, or the lock of batches, and healing the region of a dead owner. The numbered steps are in the
//! chapter on the protocol.

use std::time::Duration;

use crate::error::{self, Error, Result};
use crate::file::arena::Arena;
use crate::file::notice::ToldOnce;
use crate::file::seat;
use crate::format::control::Mark;
use crate::format::seat::queue_byte;
use crate::handle::Handle;
use crate::protocol::lock::{self, LockState, Owner, SLEEPERS};
use crate::recovery::rebuild::{Cause, rebuild, still_in_trouble};
use crate::recovery::recover::leave_clean;
use crate::region::Trouble;
use crate::region::batch::{batch_number, end_undecided, may_have_undecided};
use crate::region::finish::finish;
use crate::region::head::Region;
use crate::region::slots::keep_longer;
use crate::region::watch::{self, Changed};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::deadline::Deadline;
use crate::sys::step::step;
use crate::sys::{file_lock, futex};

/// A waiter asks this often whether the owner lives: the one at the head of the queue, and the others.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_OTHERS: Duration = Duration::from_millis(20);
/// Looks at a held lock before the first system call. A write takes less time than these looks.
const SPINS: u32 = 200;

/// The lock of a region, or the lock of batches, held.
pub(crate) struct Locked<'a> {
    arena: &'a Arena,
    word: &'a AtomicU64,
    /// The region, if the lock is a region's.
    region: Option<Region<'a>>,
    /// The region was rebuilt, or a dead owner's work in it was finished, on the way in.
    pub(crate) healed: bool,
    changed: Changed,
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.arena.file.is_ours() {
            return; // A child that was forked under the lock: the parent owns the lock.
        }
        if let Some(region) = &self.region {
            region.mark_unless_idle();
        }
        if lock::unlock(self.word) {
            futex::wake(self.word, 1);
        }
        if let Some(region) = &self.region {
            watch::notify(self.arena, region.head, self.changed);
        }
    }
}

impl Locked<'_> {
    /// Notes which records the owner changes at most, so that only their watchers are woken.
    #[inline]
    pub(crate) fn will_change(&mut self, changed: Changed) {
        // A healer may have made the change of a dead owner visible, of any record.
        if !self.healed {
            self.changed = changed;
        }
    }

    /// Puts the dead owner's word back. The dead owner's last write is not decided yet: the next owner decides, as after a
    /// death.
    #[cold]
    fn leave_to(self, dead: u64) {
        if lock::leave_to(self.word, dead) {
            futex::wake(self.word, 1);
        }
        step("lock: left to the dead owner");
        std::mem::forget(self);
    }
}

impl Handle {
    /// Takes a region's lock. If the owner died, or a rebuild was cut off, the region is rebuilt first. Without contention:
    /// one compare-and-swap, no system call.
    #[inline]
    pub(crate) fn lock(&self, number: u32) -> Result<Locked<'_>> {
        self.lock_by(number, None)
    }

    /// [`lock`](Self::lock) for a call that waits for several locks, until `deadline`.
    #[inline]
    pub(crate) fn lock_by(&self, number: u32, deadline: Option<&Deadline>) -> Result<Locked<'_>> {
        let head = self.arena.head(number);
        let word = head.lock();
        let dead = if lock::try_lock(word, self.own_word) {
            step("lock: taken");
            None
        } else {
            self.wait_for(number, word, deadline)?
        };
        let region = Region::new(&self.arena, number);
        let healed = dead.is_some() || region.is_marked();
        let locked = Locked { arena: &self.arena, word, region: Some(region), healed, changed: Changed::Any };
        if dead.is_some() {
            // It may have made a change visible that it did not tell. Healing makes none visible, so this is not too early.
            region.tell_all();
        }
        if let Err(error) = self.arena.keep_layout() {
            match dead {
                Some(dead) if !region.is_being_rebuilt() => locked.leave_to(dead),
                _ => drop(locked),
            }
            return Err(error);
        }
        if !healed {
            return Ok(locked);
        }
        if dead.is_some() && finish(&region) {
            return Ok(locked);
        }
        let cause = if dead.is_some() { Cause::Death } else { Cause::Process };
        match (rebuild(&region, cause), dead) {
            (Ok(_), _) => Ok(locked),
            (Err(error), Some(dead)) if !region.is_being_rebuilt() => {
                locked.leave_to(dead);
                Err(error)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Takes the lock of batches, and ends the batch of a dead owner, so that the number that counts may be raised: see
    /// [`Self::end_undecided`].
    pub(crate) fn lock_batches(&self, deadline: &Deadline) -> Result<Locked<'_>> {
        let locked = self.take_batch_lock(deadline)?;
        let begun = batch_number(&self.arena, self.arena.control().begun())?;
        if batch_number(&self.arena, self.arena.control().ended())? != begun {
            self.end_undecided(deadline)?;
            step("batch: one that was cut off is ended");
            self.arena.control().ended().store(begun, Ordering::SeqCst);
        }
        Ok(locked)
    }

    /// Waits until no region has members of a batch that does not count: see [`end_undecided`]. The caller has the lock of
    /// batches.
    pub(crate) fn end_undecided(&self, deadline: &Deadline) -> Result<()> {
        end_undecided(&self.arena, |number| {
            let _locked = self.lock_by(number, Some(deadline))?;
            if may_have_undecided(&self.arena, number) {
                // No owner leaves a region in this state: a bit was flipped.
                rebuild(&Region::new(&self.arena, number), Cause::Process)?;
            }
            Ok(())
        })
    }

    /// Takes the lock of batches, and does not end the batch of a dead owner.
    pub(crate) fn take_batch_lock(&self, deadline: &Deadline) -> Result<Locked<'_>> {
        let word = self.arena.control().batch_lock();
        if !lock::try_lock(word, self.own_word) {
            self.wait_for(self.arena.geo.regions, word, Some(deadline))?;
        }
        Ok(Locked { arena: &self.arena, word, region: None, healed: false, changed: Changed::None })
    }

    /// Waits for a lock that is held, and takes it: the lock of a region or, by the number after the last region, the lock of
    /// batches. If the owner was dead, returns the owner's word.
    #[cold]
    fn wait_for(&self, number: u32, lock: &AtomicU64, deadline: Option<&Deadline>) -> Result<Option<u64>> {
        let deadline = deadline.copied().unwrap_or_else(|| self.arena.deadline());
        let mut head_of_queue = QueueByte { handle: self, region: number, held: false };
        let mut slept = 0;
        let mut spins = 0;
        let mut told = ToldOnce::new(self.arena.notice.as_ref());
        let busy = |owner: Owner| {
            let is_region = number < self.arena.geo.regions;
            Error::Busy {
                path: self.arena.path.clone(),
                lock: if is_region { error::Lock::Region(number) } else { error::Lock::Batches },
                owner: Some(seat::holder(&self.arena, owner.seat)),
                waited: deadline.waited(),
            }
        };
        loop {
            let word = lock.load(Ordering::Relaxed);
            match lock::state(word) {
                LockState::Free => {
                    if lock::take_over(lock, 0, self.own_word | slept) {
                        return Ok(None);
                    }
                    continue;
                }
                LockState::Held(_) if spins < SPINS => {
                    spins += 1;
                    std::hint::spin_loop();
                    continue;
                }
                LockState::Held(_) => {}
                LockState::Clean if number < self.arena.geo.regions => {
                    leave_clean(&self.arena)?;
                    continue;
                }
                // A clean close marks the locks of regions alone.
                LockState::Clean => {}
                LockState::Damaged => {
                    // It may be the lock of a clean store.
                    if self.arena.control().mark().load(Ordering::SeqCst) != Some(Mark::InUse) {
                        leave_clean(&self.arena)?;
                    }
                }
            }
            let Some(owner) = seat::living_owner(&self.arena, word)? else {
                if lock::take_over(lock, word, self.own_word | (word & SLEEPERS) | slept) {
                    step("lock: taken over");
                    return Ok(Some(word));
                }
                continue;
            };
            let mut limit = if head_of_queue.try_hold() { LOOK_FIRST } else { LOOK_OTHERS };
            if let Some(left) = deadline.left() {
                if left.is_zero() {
                    return Err(busy(owner));
                }
                limit = limit.min(left);
            }
            told.perhaps(&deadline, || busy(owner));
            if lock::mark_sleeper(lock, word) {
                futex::wait(lock, (word | SLEEPERS) as u32, limit);
                slept = SLEEPERS; // Others may still sleep: an owner that gives the lock back wakes one.
                spins = 0;
            }
        }
    }

    /// Does `work` in a region, holding its lock: see [`in_region`]. It changes the records of `changed` at most. If the store is
    /// full, gives back what room it can, and tries once more.
    #[inline]
    pub(crate) fn with_region<T>(
        &self,
        number: u32,
        changed: Changed,
        mut work: impl FnMut(&Region<'_>) -> Result<T, Trouble>,
    ) -> Result<T> {
        match self.with_region_once(number, changed, &mut work) {
            Err(Error::Full { .. }) => self.with_region_in_full_store(number, changed, work),
            done => done,
        }
    }

    /// The same without a second try. No record gets a longer slot than it needs.
    #[inline]
    pub(crate) fn with_region_once<T>(
        &self,
        number: u32,
        changed: Changed,
        work: impl FnMut(&Region<'_>) -> Result<T, Trouble>,
    ) -> Result<T> {
        let mut locked = self.lock(number)?;
        locked.will_change(changed);
        keep_longer(true);
        let done = in_region(&Region::new(&self.arena, number), work);
        keep_longer(false);
        done
    }

    /// The second try, for a caller whose first one found no room.
    #[cold]
    pub(crate) fn with_region_in_full_store<T>(
        &self,
        number: u32,
        changed: Changed,
        work: impl FnMut(&Region<'_>) -> Result<T, Trouble>,
    ) -> Result<T> {
        self.has_made_room();
        let mut locked = self.lock(number)?;
        locked.will_change(changed);
        in_region(&Region::new(&self.arena, number), work)
    }

    /// Rebuilds the region of a dead owner. A region whose owner lives is left alone, even if that owner has just taken it from the
    /// dead one: this call does not wait.
    pub(crate) fn heal(&self, number: u32) -> Result<()> {
        if !self.is_writable() || !self.is_left_by_the_dead(number)? {
            return Ok(());
        }
        step("heal: the owner is dead");
        match self.lock_by(number, Some(&Deadline::after(Some(Duration::ZERO)))) {
            Err(Error::Busy { .. }) => Ok(()),
            locked => locked.map(drop),
        }
    }

    /// Whether the owner of a region's lock is dead, or a rebuild of the region was cut off.
    pub(crate) fn is_left_by_the_dead(&self, number: u32) -> Result<bool> {
        let word = self.arena.head(number).lock().load(Ordering::SeqCst);
        Ok(match lock::state(word) {
            LockState::Free | LockState::Clean => Region::new(&self.arena, number).is_marked(),
            LockState::Held(_) | LockState::Damaged => seat::living_owner(&self.arena, word)?.is_none(),
        })
    }
}

/// Does `work` in a region whose lock the caller holds. If the region's derived state contradicts itself, the region is
/// rebuilt and the work is done once more.
#[inline]
pub(crate) fn in_region<T>(
    region: &Region<'_>,
    mut work: impl FnMut(&Region<'_>) -> Result<T, Trouble>,
) -> Result<T> {
    match work(region) {
        Ok(done) => Ok(done),
        Err(Trouble::Error(error)) => Err(error),
        Err(Trouble::Flaw(_)) => rebuilt_and_again(region, work),
    }
}

#[cold]
fn rebuilt_and_again<T>(
    region: &Region<'_>,
    mut work: impl FnMut(&Region<'_>) -> Result<T, Trouble>,
) -> Result<T> {
    let mut what = "";
    for _ in 0..2 {
        rebuild(region, Cause::Process)?;
        match work(region) {
            Ok(done) => return Ok(done),
            Err(Trouble::Error(error)) => return Err(error),
            Err(Trouble::Flaw(flaw)) => what = flaw,
        }
    }
    Err(still_in_trouble(region, what))
}

/// The head of the queue for a region, if held.
struct QueueByte<'a> {
    handle: &'a Handle,
    region: u32,
    held: bool,
}

impl QueueByte<'_> {
    /// Whether this waiter is, or now becomes, the head of the queue.
    fn try_hold(&mut self) -> bool {
        if !self.held {
            let ours = &self.handle.queued[self.region as usize];
            if !ours.swap(true, Ordering::Acquire) {
                self.held =
                    file_lock::try_lock(&self.handle.arena.file, queue_byte(self.region)).unwrap_or(false);
                if !self.held {
                    ours.store(false, Ordering::Release);
                }
            }
        }
        self.held
    }
}

impl Drop for QueueByte<'_> {
    fn drop(&mut self) {
        if self.held {
            let _ = file_lock::unlock(&self.handle.arena.file, queue_byte(self.region));
            self.handle.queued[self.region as usize].store(false, Ordering::Release);
        }
    }
}
