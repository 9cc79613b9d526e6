//! Recovery after a crash of the operating system, or if memory is not known to be that of the last users. The caller holds the
//! whole store. The numbered steps are in the chapter on recovery.

use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::file::arena::Arena;
use crate::file::blocks::see_to_all;
use crate::file::by_region::ByRegion;
use crate::file::continuity::{self, Continuity};
use crate::file::grow::Growth;
use crate::file::seat;
use crate::format::control::Mark;
use crate::format::epoch::Epoch;
use crate::format::slot::{BLOCKS_MAX, block_of, first_of_block};
use crate::protocol::lock;
use crate::recovery::adopt::adopt;
use crate::recovery::rebuild::{Cause, Rebuilt, Surroundings, rebuild_known};
use crate::region::head::Region;
use crate::report::RepairReport;
use crate::sys::atomic::Ordering;
use crate::sys::file;
use crate::sys::step::step;

/// The step right after the flush of a recovery.
pub(crate) const REGIONS_FLUSHED: &str = "recover: regions flushed";

/// Recovers the store. `why`: the reason why its memory is not believed.
pub(crate) fn recover(arena: &Arena, here: &Continuity, why: &str) -> Result<RepairReport> {
    let mut report = RepairReport { os_crash: true, ..RepairReport::default() };
    report.fixed.push(format!("the store was recovered: {why}"));
    let control = arena.control();
    flush(arena)?;
    let durable_units = arena.control().durable_units().load(Ordering::SeqCst);
    let units = arena.unit_count()?;
    if let Some(needed) = durable_units.filter(|&n| n > u64::from(units))
        && is_cut_off(arena)?
    {
        return Err(cut_off(arena, needed));
    }
    see_to_all(arena)?;
    for region in 0..arena.geo.regions {
        arena.head(region).lock().store(0, Ordering::SeqCst);
    }
    arena.control().batch_lock().store(0, Ordering::SeqCst);
    seat::forget_claims(arena);
    step("recover: locks cleared");
    clear_tail(arena)?;
    adopt(arena, true, &mut report.fixed)?;
    step("recover: extents adopted");
    let rebuilt = rebuild_all(arena, Cause::OsCrash, &mut report)?;
    flush(arena)?;
    step(REGIONS_FLUSHED);
    if rebuilt.tombstones != 0 {
        rebuild_all(arena, Cause::OsCrashFlushed, &mut report)?;
    }
    if rebuilt.of_lost_batches != 0 {
        let what = "writes of batches that no sync had made durable were given up";
        report.fixed.push(format!("{} {what}", rebuilt.of_lost_batches));
    }
    let epoch_max = rebuilt.epoch_max;

    // An epoch near the last one is wrong: no store gets there.
    let credible =
        [arena.epoch().ok(), arena.durable().ok()].into_iter().flatten().filter(|e| e.is_credible());
    let known = credible.max().unwrap_or(epoch_max).max(epoch_max);
    arena.control().durable().store(known, Ordering::SeqCst);
    arena.control().epoch().store(known.next(), Ordering::SeqCst);
    for word in [control.units(), control.durable_units()] {
        word.store(u64::from(arena.units_in_use()?), Ordering::SeqCst);
    }
    if arena.control().settled().load(Ordering::SeqCst).is_none() {
        let what = "whether the last batches are whole is not known: a word of the control page was damaged";
        report.fixed.push(what.to_owned());
    }
    for word in [control.batched(), control.settled()] {
        word.store(known, Ordering::SeqCst);
    }
    // What reads as zeros now is on disk before any other handle gets in.
    control.given_back().store(Epoch::BEFORE, Ordering::SeqCst);
    control.groups().store(u64::from(arena.groups_in_use()?), Ordering::SeqCst);
    // There is no borrow, and no slot is parked.
    for clock in control.clocks() {
        clock.store(0, Ordering::SeqCst);
    }
    arena.forget_boards();
    end_batches(arena);
    begin_life(arena, &mut report.fixed);
    step("recover: epochs raised");
    mark_in_use(arena, here)?;
    // The failed flush is forgotten last, so that a recovery that is cut off is done again.
    arena.control().flush_failed().store(0, Ordering::SeqCst);
    step("recover: done");
    Ok(report)
}

/// Begins another life of the store: its versions are of blocks that were not given out before. The caller flushes before any
/// other handle gets in.
fn begin_life(arena: &Arena, fixed: &mut Vec<String>) {
    let given_out = arena.control().blocks_given_out();
    // The last block but one is used by more than one life, if a damaged version is in it.
    let life = given_out.map(|blocks| blocks.min(BLOCKS_MAX - 2)).unwrap_or_else(|| {
        let what = "how many versions were given out is not known: a word of the control page was damaged";
        fixed.push(what.to_owned());
        blocks_in_use(arena)
    });
    for number in 0..arena.geo.regions {
        let region = Region::new(arena, number);
        region.set_next_seq(region.head.next_seq().load(Ordering::Relaxed).max(first_of_block(life)));
    }
    arena.control().life().store(life, Ordering::SeqCst);
    arena.control().version_blocks().store(life + 1, Ordering::SeqCst);
}

/// The number of blocks of which versions were used, by the heads.
pub(crate) fn blocks_in_use(arena: &Arena) -> u64 {
    let next = |region| arena.head(region).next_seq().load(Ordering::SeqCst);
    let blocks = (0..arena.geo.regions).map(|region| block_of(next(region)) + 1);
    // A forged version of the last block leaves none.
    blocks.filter(|&blocks| blocks < BLOCKS_MAX - 1).max().unwrap_or(1)
}

/// Notes that no batch is under way, even if the numbers of batches are damaged.
pub(crate) fn end_batches(arena: &Arena) {
    let words = arena.control().batch_numbers();
    let known = words.iter().filter_map(|word| word.load(Ordering::SeqCst)).max();
    for word in words {
        word.store(known.unwrap_or(0), Ordering::SeqCst);
    }
}

/// Clears the bytes behind the last whole unit. They were never durable, and the growth that completes the unit must not
/// find them.
fn clear_tail(arena: &Arena) -> Result<()> {
    let end = arena.geo.unit_offset(arena.unit_count()?);
    let len = arena.file.metadata().map_err(arena.io("looking at the file's length"))?.len();
    if len <= end {
        return Ok(());
    }
    let failed = arena.io("clearing the end of the file");
    match file::punch(&arena.file, end, len - end) {
        // If no hole can be made, the tail is cut off. No slot lies in it.
        Err(_) => arena.file.set_len(end).map_err(failed),
        Ok(()) => Ok(()),
    }
}

/// Whether an extent is missing that held slots or an index table, or it can't be known. If not, a number of units that is higher
/// than the file's length is wrong: the file was not cut.
pub(crate) fn is_cut_off(arena: &Arena) -> Result<bool> {
    let mut found = vec![0_u64; arena.geo.regions as usize];
    arena.each_extent(|extent| {
        let owner = arena.owner_of(extent);
        if let Some(count) = owner.and_then(|region| found.get_mut(region as usize)) {
            *count += 1;
        }
    })?;
    let end = arena.geo.unit_offset(arena.unit_count()?);
    Ok((0..).zip(found).any(|(region, found)| {
        let head = arena.head(region);
        let shape = head.shape().load(Ordering::Acquire);
        head.extents().load(Ordering::Acquire).is_none_or(|counted| counted > found)
            || shape.offset().saturating_add(shape.bytes()) > end
    }))
}

/// Refuses a file that has fewer units than it had: records are missing. A number of units that is wrong is counted anew,
/// if the handle may write.
pub(crate) fn refuse_cut_off(arena: &Arena, writable: bool) -> Result<()> {
    let word = arena.control().units();
    let noted = word.load(Ordering::SeqCst);
    let units = arena.unit_count()?;
    let Some(noted) = noted.filter(|&noted| noted > u64::from(units)) else { return Ok(()) };
    if is_cut_off(arena)? {
        return Err(cut_off(arena, noted));
    }
    if writable {
        let _growth = Growth::lock(arena)?;
        word.store(u64::from(arena.units_in_use()?), Ordering::SeqCst);
    }
    Ok(())
}

/// The error for a file that has fewer units than it had.
pub(crate) fn cut_off(arena: &Arena, units: u64) -> Error {
    Error::Truncated {
        path: arena.path.clone(),
        len: arena.file.metadata().map_or(arena.map.len(), |metadata| metadata.len()),
        needed: arena.geo.base.saturating_add(units.saturating_mul(arena.geo.unit)),
    }
}

/// Notes boot, mount and file, and that the store is in use, on disk. This comes before the first write: otherwise a loss of
/// power could leave a clean mark. If the process dies before the flush has returned, the mark says so, and the next handle
/// flushes again.
pub(crate) fn mark_in_use(arena: &Arena, here: &Continuity) -> Result<()> {
    see_to_all(arena)?;
    arena.control().mark().store(Mark::Unsure, Ordering::SeqCst);
    continuity::note(arena, here);
    step("open: marked in use");
    flush(arena)?;
    arena.control().mark().store(Mark::InUse, Ordering::SeqCst);
    continuity::mark_inode(arena);
    Ok(())
}

/// Whether the mark and the lock of every region say that the store is clean. Then the first write notes that it is in use. The
/// mark alone does not decide.
pub(crate) fn is_wholly_clean(arena: &Arena) -> bool {
    arena.control().mark().load(Ordering::SeqCst) == Some(Mark::Clean)
        && (0..arena.geo.regions).all(|r| arena.head(r).lock().load(Ordering::SeqCst) == lock::CLEAN)
}

/// Whether the mark of use is wrong: damaged, or clean while a region's lock is not. A handle that leaves the clean state
/// changes the mark first, and a handle that enters it sets the mark last.
pub(crate) fn mark_lies(arena: &Arena) -> bool {
    let mark = || arena.control().mark().load(Ordering::SeqCst);
    match mark() {
        None => true,
        Some(Mark::Clean) => !is_wholly_clean(arena) && mark() == Some(Mark::Clean),
        Some(Mark::InUse | Mark::Unsure) => false,
    }
}

/// Before the first write to a clean store: notes on disk that it is in use. Several handles may do this at once.
#[cold]
pub(crate) fn leave_clean(arena: &Arena) -> Result<()> {
    if arena.control().mark().load(Ordering::SeqCst) != Some(Mark::InUse) {
        mark_in_use(arena, &Continuity::here(arena)?)?;
    }
    for region in 0..arena.geo.regions {
        lock::leave_clean(arena.head(region).lock());
    }
    step("lock: the store is in use");
    Ok(())
}

fn flush(arena: &Arena) -> Result<()> {
    arena.file.sync_data().map_err(arena.io("flushing during recovery"))
}

/// What the extents of the file tell of a region.
pub(crate) fn surroundings(region: &Region<'_>, extents: &Mutex<ByRegion>) -> Result<Surroundings> {
    let (arena, number) = (region.arena, region.number);
    let mut extents = extents.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Surroundings {
        extents: extents.found_of(arena, number)?.to_vec(),
        table_is_sound: extents.table_is_sound(arena, number, &region.shape())?,
    })
}

/// Does a work for each of so many regions, in as many threads as there are processors. `tell` is told how many are done, each number
/// once. Returns the results in the order of the regions.
pub(crate) fn in_parallel<T: Send>(
    regions: u32,
    work: impl Fn(u32) -> T + Sync,
    mut tell: impl FnMut(u32),
) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(regions as usize);
    let next = AtomicU32::new(0);
    let results: Mutex<Vec<(u32, T)>> = Mutex::default();
    let part = |tell: &mut dyn FnMut(u32)| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= regions {
                return;
            }
            let result = work(number);
            let done = {
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((number, result));
                results.len() as u32
            };
            tell(done);
        }
    };
    let mut told = 0;
    let mut tell_up_to = |done: u32| {
        while told < done {
            told += 1;
            tell(told);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // If the thread can't be made, this one does its part.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || part(&mut |_| {}));
        }
        part(&mut tell_up_to);
    });
    tell_up_to(regions);
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Rebuilds all regions. Returns the sum of the results.
fn rebuild_all(arena: &Arena, cause: Cause, report: &mut RepairReport) -> Result<Rebuilt> {
    arena.meet_again()?; // The handle may have met a header that was wrong.
    let extents = Mutex::new(ByRegion::of(arena)?);
    let rebuild = |number| {
        let region = Region::new(arena, number);
        let known = surroundings(&region, &extents)?;
        rebuild_known(&region, cause, Some(known))
    };
    let results = in_parallel(arena.geo.regions, rebuild, |_| {});
    let mut all = Rebuilt::default();
    report.regions_rebuilt.clear();
    for (number, result) in (0..).zip(results) {
        let rebuilt = result?;
        all.epoch_max = all.epoch_max.max(rebuilt.epoch_max);
        all.tombstones += rebuilt.tombstones;
        all.of_lost_batches += rebuilt.of_lost_batches;
        report.regions_rebuilt.push(number);
        report.dropped.extend(rebuilt.dropped);
    }
    Ok(all)
}
