//! Verify and repair: the whole store, region by region.

use std::sync::Mutex;

use crate::error::Result;
use crate::file::borrow;
use crate::file::by_region::ByRegion;
use crate::file::grow::Growth;
use crate::file::seat::damaged_seats;
use crate::format::epoch::Epoch;
use crate::format::extent::Extent;
use crate::format::geometry::SUPERBLOCK_B;
use crate::format::index::Shape;
use crate::format::superblock::Superblock;
use crate::protocol::lock::{self, LockState};
use crate::recovery::adopt::adopt;
use crate::recovery::rebuild::{Cause, epochs_hold, rebuild_known};
use crate::recovery::recover::{
    blocks_in_use, end_batches, in_parallel, is_wholly_clean, leave_clean, mark_lies, surroundings,
};
use crate::recovery::sound::{self, Sighting};
use crate::recovery::verify::{check_region, check_store, superblock_holds};
use crate::region::head::Region;
use crate::report::{Progress, RepairReport, VerifyReport};
use crate::store::Store;
use crate::sys::atomic::Ordering;
use crate::sys::copy::copy_in;

/// A read-only handle tries this often to see a region at rest.
const LOOKS_AT_REGION: u32 = 8;
/// Looks that don't count, because extents were given back meanwhile.
const OTHER_LAYOUTS_MAX: u32 = 100;

/// Looks at a region without its lock, if it changes meanwhile so that a look tells nothing: its index moves, or it grows.
const LOOKS_WITHOUT_LOCK: u32 = 4;
/// Slots or lines that are looked at again while the lock is held: as long as a few writes take.
const AT_ONCE: usize = 16;

/// What a look at a region shows without its lock.
enum Glance {
    Sound {
        slots: u64,
        records: u64,
    },
    /// Its index moved meanwhile, or its extents are others.
    Changed,
    /// Something may be wrong, or it can't be told.
    InDoubt,
}

/// Checking and putting right.
impl Store {
    /// Checks everything and changes nothing: superblocks, control page, extent headers, every slot's checksum, every derived
    /// structure against the slots. The region of a dead owner is healed first, as by any other call.
    ///
    /// Regions are checked in parallel, by as many threads as there are processors: O(n), as long as [`scan`](Self::scan) takes or little
    /// longer, and some bytes of memory for each extent. A region to which nobody writes is checked without its lock. Of a region that
    /// others write to meanwhile, what looks wrong is looked at again with the lock held, 16 slots at a time; of its counts it is
    /// checked that writes can go on, and not that they are exact. Only of a region that is damaged the lock is held while the whole
    /// of it is checked, so that the report is exact.
    ///
    /// A read-only handle takes no lock. Of a region that is written to all the while, it checks each slot by its own bytes, and not
    /// the derived structures.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// store.put(1, b"one")?;
    /// let report = store.verify()?;
    /// assert!(report.is_clean(), "{:?}", report.damage);
    /// assert_eq!(report.records, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy) if a lock time-out is set, and the like. Damage is not an error: it is in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with_progress(|_| {})
    }

    /// [`verify`](Self::verify) that says how far it is: for each region once, on the caller's thread.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let report = store.verify_with_progress(|at| eprint!("\r{} %", at.done * 100 / at.total))?;
    /// assert!(report.is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_with_progress(&self, mut tell: impl FnMut(Progress)) -> Result<VerifyReport> {
        self.handle.check()?;
        self.check_outside(0)?;
        let handle = &self.handle;
        let mut report = VerifyReport::default();
        check_store(&handle.arena, &mut report)?;
        let extents = Mutex::default();
        let regions = handle.arena.geo.regions;
        let verified = in_parallel(
            regions,
            |number| {
                let region = Region::new(&handle.arena, number);
                let mut found = VerifyReport::default();
                self.verify_region(&region, &extents, &mut found).map(|()| found)
            },
            |done| tell(Progress::of(done.into(), regions.into())),
        );
        for found in verified {
            let found = found?;
            report.records += found.records;
            report.slots += found.slots;
            report.damage.extend(found.damage);
            report.missing.extend(found.missing);
        }
        Ok(report)
    }

    fn verify_region(
        &self,
        region: &Region<'_>,
        extents: &Mutex<ByRegion>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        for _ in 0..LOOKS_WITHOUT_LOCK {
            match self.glance_at(region, extents)? {
                Glance::Sound { slots, records } => {
                    report.records += records;
                    report.slots += slots;
                    return Ok(());
                }
                Glance::Changed => {}
                Glance::InDoubt => break,
            }
        }
        if !self.handle.is_writable() {
            return self.verify_unlocked(region, extents, report);
        }
        let _locked = self.handle.lock(region.number)?;
        check_region(region, surroundings(region, extents)?, true, report)
    }

    /// Looks at a region, to which others may write meanwhile. Its lock is held for as long as a few writes take, and only if others do.
    fn glance_at(&self, region: &Region<'_>, extents: &Mutex<ByRegion>) -> Result<Glance> {
        let (handle, arena) = (&self.handle, region.arena);
        handle.heal(region.number)?;
        if handle.is_writable() && region.is_marked() {
            drop(handle.lock(region.number)?); // Waits for a batch, or rebuilds the region.
        }
        arena.keep_layout()?;
        let layout = arena.numbers.layout();
        let before = region.head.copy();
        let is_free = matches!(lock::state(before.lock()), LockState::Free | LockState::Clean);
        let shape = region.shape();
        let around = surroundings(region, extents)?;
        if shape.is_marked() || !around.table_is_sound {
            return Ok(Glance::InDoubt);
        }
        let extents = around.extents;
        let counted = region.head.extents().load(Ordering::Relaxed);
        if counted.is_some_and(|counted| counted > extents.len() as u64) {
            return Ok(if is_free { Glance::InDoubt } else { Glance::Changed }); // One is lost, or was just added.
        }
        let seen = sound::look(region, &extents, &shape)?;
        let adds_up = is_free && seen.adds_up(region, &extents);
        if !arena.has_layout(layout) {
            return Ok(Glance::Changed);
        }
        if is_free && region.head.copy() == before {
            let (slots, records) = (seen.slots, seen.records);
            return Ok(if adds_up { Glance::Sound { slots, records } } else { Glance::InDoubt });
        }
        if !handle.is_writable() {
            return Ok(Glance::InDoubt);
        }
        self.glance_beside_writers(region, &shape, &extents, seen)
    }

    /// Looks again at what looks wrong, with the region's lock held, a little at a time.
    fn glance_beside_writers(
        &self,
        region: &Region<'_>,
        shape: &Shape,
        extents: &[Extent],
        seen: Sighting,
    ) -> Result<Glance> {
        let lock = || self.handle.lock(region.number);
        let unexplained: Vec<_> = seen.unexplained.iter().map(|&(.., slot)| slot).collect();
        let links = sound::look_again(region, extents, &mut Vec::new())?;
        let in_doubt = [&seen.slots_in_doubt[..], &links, &unexplained].concat();
        let mut without_entry = Vec::new();
        for slots in in_doubt.chunks(AT_ONCE) {
            let _locked = lock()?;
            if !slots.iter().all(|&slot| sound::is_sound_slot(region, slot, &mut without_entry)) {
                return Ok(Glance::InDoubt);
            }
        }
        let lines = [&seen.lines_in_doubt[..], &sound::lines_in_doubt(region, shape)].concat();
        for lines in lines.chunks(AT_ONCE) {
            let _locked = lock()?;
            if region.shape() != *shape {
                return Ok(Glance::Changed);
            }
            if !lines.iter().all(|&line| sound::is_sound_line(region, shape, line)) {
                return Ok(Glance::InDoubt);
            }
        }
        if !without_entry.is_empty() {
            // They were deleted, if their tombstones are there.
            sound::look_again(region, extents, &mut without_entry)?;
            for versions in without_entry.chunks(AT_ONCE) {
                let _locked = lock()?;
                if versions.iter().any(|&version| sound::is_still_there(region.arena, version)) {
                    return Ok(Glance::InDoubt);
                }
            }
        }
        let _locked = lock()?;
        // Extents that were added meanwhile are left out: the look is as of its beginning.
        let counted = region.head.extents().load(Ordering::Relaxed);
        if region.shape() != *shape || counted.is_some_and(|counted| counted < extents.len() as u64) {
            return Ok(Glance::Changed);
        }
        Ok(match region.live() {
            Ok(records) if sound::is_sound_head(region) => Glance::Sound { slots: seen.slots, records },
            _ => Glance::InDoubt,
        })
    }

    fn verify_unlocked(
        &self,
        region: &Region<'_>,
        extents: &Mutex<ByRegion>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let (mut look, mut others) = (0, 0);
        while look < LOOKS_AT_REGION {
            let layout = region.arena.numbers.layout();
            let before = region.head.copy();
            let is_free = matches!(lock::state(before.lock()), LockState::Free | LockState::Clean);
            let at_rest = is_free && look + 1 < LOOKS_AT_REGION;
            let mut found = VerifyReport::default();
            check_region(region, surroundings(region, extents)?, at_rest, &mut found)?;
            let is_last = others == OTHER_LAYOUTS_MAX;
            if !region.arena.has_layout(layout) && !is_last {
                others += 1;
                continue; // An extent was given back meanwhile, and another may be in its place.
            }
            look += 1;
            if at_rest && region.head.copy() != before {
                continue;
            }
            if let LockState::Damaged = lock::state(before.lock()) {
                let what = "its lock word is damaged";
                found.damage.push(crate::report::Damage::of_region(region.number, what));
            }
            report.records += found.records;
            report.slots += found.slots;
            report.damage.extend(found.damage);
            report.missing.extend(found.missing);
            break;
        }
        Ok(())
    }

    /// Repairs the store: builds derived parts anew from the slots, restores lost superblocks and extent headers, and gives up and
    /// reports damaged versions. Counts records that are gone already, if an index or a count tells of them: see
    /// [`missing`](RepairReport::missing). A healthy store, in use or not, stays as it is. One region is locked at a time.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let report = store.repair()?;
    /// assert!(report.is_empty()); // there was nothing to put right
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put). Parts that were repaired before the error stay repaired.
    pub fn repair(&self) -> Result<RepairReport> {
        self.repair_with_progress(|_| {})
    }

    /// [`repair`](Self::repair) that says how far it is, after each region.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let report = store.repair_with_progress(|at| eprint!("\r{} %", at.done * 100 / at.total))?;
    /// assert!(report.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`repair`](Self::repair).
    pub fn repair_with_progress(&self, mut tell: impl FnMut(Progress)) -> Result<RepairReport> {
        self.handle.check_writable()?;
        self.check_outside(0)?;
        let handle = &self.handle;
        let arena = &handle.arena;
        let mut report = RepairReport::default();
        if is_wholly_clean(arena) {
            leave_clean(arena)?; // Some repaired parts are not under a region's lock.
        } else if mark_lies(arena) {
            leave_clean(arena)?;
            report.fixed.push("the mark of use in the control page was set anew".to_owned());
        }
        for (name, at) in [("first", 0), ("second", SUPERBLOCK_B)] {
            if !superblock_holds(arena, at) {
                let superblock = Superblock::new(&arena.geo, arena.uuid);
                copy_in(arena.fixed(at, superblock.bytes().len() / 8), superblock.bytes());
                report.fixed.push(format!("the {name} superblock was written anew"));
            }
        }
        let adopted = {
            let _growth = Growth::lock(arena)?;
            for word in [arena.control().units(), arena.control().durable_units()] {
                let noted = word.load(Ordering::SeqCst);
                if noted.is_none_or(|noted| noted > u64::from(arena.unit_count().unwrap_or(u32::MAX))) {
                    word.store(u64::from(arena.units_in_use()?), Ordering::SeqCst);
                    report.fixed.push("a number of units in the control page was counted anew".to_owned());
                }
            }
            adopt(arena, false, &mut report.fixed)?
        };
        self.repair_batches(&mut report)?;
        self.repair_versions(&mut report)?;
        if arena.control().given_back().load(Ordering::SeqCst).is_none() {
            let now = arena.epoch().unwrap_or(Epoch::BEFORE);
            arena.control().given_back().store(now, Ordering::SeqCst);
            report
                .fixed
                .push("the epoch in which room was given back was taken to be the present one".to_owned());
        }
        if arena.control().groups().load(Ordering::SeqCst).is_none() {
            arena.control().groups().store(u64::from(arena.groups_in_use()?), Ordering::SeqCst);
            report.fixed.push("the number of groups of slots was counted anew".to_owned());
        }
        if borrow::mend_clock(arena) {
            report.fixed.push("the clock of borrows in the control page was put right".to_owned());
        }
        for number in damaged_seats(arena)? {
            arena.seat(number).mend();
            report.fixed.push(format!(
                "seat {number} was put right: no slot is freed until its process closes the store"
            ));
        }
        let mut epoch_max = Epoch::BEFORE;
        arena.meet_again()?; // The handle may have met a header that was wrong.
        let extents = Mutex::default();
        for number in 0..arena.geo.regions {
            tell(Progress::of(number.into(), arena.geo.regions.into()));
            let locked = handle.lock(number)?;
            let region = Region::new(arena, number);
            let mut found = VerifyReport::default();
            check_region(&region, surroundings(&region, &extents)?, true, &mut found)?;
            if found.is_clean() && epochs_hold(&region) && !adopted.contains(&number) {
                if locked.healed {
                    report.regions_rebuilt.push(number);
                }
                continue;
            }
            let known = surroundings(&region, &extents)?;
            let rebuilt = rebuild_known(&region, Cause::Repair, Some(known))?;
            epoch_max = epoch_max.max(rebuilt.epoch_max);
            report.regions_rebuilt.push(number);
            report.dropped.extend(rebuilt.dropped);
            report.missing.extend(found.missing);
        }
        tell(Progress::of(arena.geo.regions.into(), arena.geo.regions.into()));
        let had_epochs = epochs_hold(&Region::new(arena, 0));
        if !had_epochs {
            // A credible epoch is kept: other handles write in it.
            let known = arena.epoch().ok().filter(|&epoch| epoch >= Epoch::FIRST && epoch.is_credible());
            let epoch = known.unwrap_or(Epoch::FIRST).max(epoch_max.next());
            // Nothing is taken for durable until the next flush.
            arena.control().durable().store(Epoch::BEFORE, Ordering::SeqCst);
            arena.control().epoch().store(epoch, Ordering::SeqCst);
            report.fixed.push("the epochs in the control page were found anew".to_owned());
        }
        let settled = arena.control().settled().load(Ordering::SeqCst);
        if !had_epochs || settled.is_none_or(|settled| arena.epoch().is_ok_and(|epoch| settled >= epoch)) {
            handle.sync()?; // It stores the durable and the settled epoch anew.
        }
        Ok(report)
    }

    /// Repairs the words of the control page for versions.
    fn repair_versions(&self, report: &mut RepairReport) -> Result<()> {
        let arena = &self.handle.arena;
        let words = [arena.control().version_blocks(), arena.control().life()];
        let (blocks, life) =
            (arena.control().blocks_given_out(), arena.control().life().load(Ordering::SeqCst));
        if blocks.is_some() && life.is_some() {
            return Ok(());
        }
        let blocks = blocks.unwrap_or_else(|| blocks_in_use(arena));
        // Which versions are of this life is not known: those of the last block are.
        let life = life.unwrap_or(blocks - 1);
        for (word, number) in words.into_iter().zip([blocks, life]) {
            word.store(number, Ordering::SeqCst);
        }
        report.fixed.push("the blocks of versions in the control page were put right".to_owned());
        arena.flush_control()
    }

    /// Repairs the words of the control page for batches.
    fn repair_batches(&self, report: &mut RepairReport) -> Result<()> {
        let handle = &self.handle;
        let arena = &handle.arena;
        let _locked = handle.take_batch_lock(&arena.deadline())?; // No other handle changes the words meanwhile.
        let control = arena.control();
        let [begun, committed, ended] = control.batch_numbers().map(|word| word.load(Ordering::SeqCst));
        let damaged = begun.is_none() || committed.is_none() || ended.is_none();
        if damaged || begun != ended {
            // Before any of the numbers is raised.
            handle.end_undecided(&arena.deadline())?;
            end_batches(arena); // A batch that was cut off is no damage.
        }
        if damaged {
            report.fixed.push("the numbers of batches in the control page were put right".to_owned());
        }
        if control.batched().load(Ordering::SeqCst).is_none() {
            control.batched().store(arena.epoch().unwrap_or(Epoch::BEFORE), Ordering::SeqCst);
            report.fixed.push("the epoch of the last batch was taken to be the present one".to_owned());
        }
        if control.settled().load(Ordering::SeqCst).is_none() {
            let durable = arena.durable().unwrap_or(Epoch::BEFORE);
            arena.control().settled().store(durable, Ordering::SeqCst);
            report.fixed.push("the epoch of settled batches was taken to be the durable one".to_owned());
        }
        Ok(())
    }
}
