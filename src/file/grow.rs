//! Growth: extents are appended, and index tables get a larger place.
//!
//! One handle at a time does this, under the growth lock. Blocks are allocated before any word leads to them, so a full disk is
//! an error here and never a SIGBUS later. The numbered steps are in the chapter on the protocol.

use std::ops::Range;
use std::sync::{MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::error::{Error, Holder, Lock, Result};
use crate::fault::{self, Fault, Refusal};
use crate::file::arena::Arena;
use crate::file::byte_lock;
use crate::file::extents::{Extents, GROUPS_PER_UNIT_MAX, Reached, index_run, twin_offset};
use crate::format::board::BOARDS;
use crate::format::epoch::Epoch;
use crate::format::extent::{Extent, ExtentHeader, ExtentKind, Location, NO_CLASS};
use crate::format::geometry::{EXTENT_HEADER_BYTES, GROUPS_MAX, LINK_BYTES};
use crate::format::index::{LINE_BYTES, Shape};
use crate::format::seat::GROWTH_BYTE;
use crate::format::slot::HEADER_BYTES;
use crate::format::{PAGE_BYTES, round_up};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::deadline::Deadline;
use crate::sys::file;
use crate::sys::step::step;

/// Maximum bytes of an index table to populate at once.
const POPULATE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a piece of fresh slots that is populated at once. A larger piece makes each page cheaper, and the write that meets
/// a new piece slower.
const PIECE_BYTES: u64 = 32 << 10;
/// For slots of at least the first size, fresh pages are made in folios of up to the second size. A larger folio makes each page
/// cheaper, and makes a flush write more for one changed byte. A record of that size is written as a whole anyway.
const FOLIO_BYTES: std::ops::RangeInclusive<u64> = 2 * PAGE_BYTES..=64 << 10;

/// A look for room, and a healer, wait at most this long for the owner of a lock: a region's lock is held while the growth lock is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// The growth lock, held.
pub(crate) struct Growth<'a> {
    arena: &'a Arena,
    extents: MutexGuard<'a, Extents>,
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        byte_lock::give_back(self.arena, GROWTH_BYTE, self.arena.control().grower());
    }
}

impl<'a> Growth<'a> {
    /// Waits for the growth lock.
    pub(crate) fn lock(arena: &'a Arena) -> Result<Self> {
        Self::lock_by(arena, &arena.deadline())
    }

    /// [`lock`](Self::lock) for at most [`PATIENCE`].
    pub(crate) fn lock_soon(arena: &'a Arena) -> Result<Self> {
        Self::lock_by(arena, &Deadline::after(Some(PATIENCE)))
    }

    /// [`lock`](Self::lock), with the patience of the caller.
    fn lock_by(arena: &'a Arena, deadline: &Deadline) -> Result<Self> {
        match fault::refused_growth() {
            None => {}
            Some(Refusal::Full) => {
                let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
                return Err(arena.no_room(0, 0, source));
            }
            Some(Refusal::Busy) => {
                let (path, waited) = (arena.path.clone(), deadline.waited());
                return Err(Error::Busy { path, lock: Lock::Growth, owner: None, waited });
            }
        }
        let extents = Self::exclude_threads(arena, deadline)?;
        byte_lock::take(arena, GROWTH_BYTE, Lock::Growth, arena.control().grower(), deadline)?;
        Ok(Self { arena, extents })
    }

    /// Waits for other threads of this process that extend the file.
    fn exclude_threads(arena: &'a Arena, deadline: &Deadline) -> Result<MutexGuard<'a, Extents>> {
        let locked = deadline.keep_trying(|| match (arena.extents.try_lock(), deadline.left()) {
            (Ok(extents), _) => Ok(Some(extents)),
            (Err(TryLockError::Poisoned(poisoned)), _) => Ok(Some(poisoned.into_inner())),
            (Err(TryLockError::WouldBlock), None) => {
                Ok(Some(arena.extents.lock().unwrap_or_else(PoisonError::into_inner)))
            }
            (Err(TryLockError::WouldBlock), Some(_)) => Ok(None),
        });
        locked?.ok_or_else(|| Error::Busy {
            path: arena.path.clone(),
            lock: Lock::Growth,
            owner: Some(Holder { pid: std::process::id(), exists: Some(true) }),
            waited: deadline.waited(),
        })
    }

    /// Adds a data extent with slots of a class to a region; the caller holds the region's lock. If there is no room for an extent of
    /// the usual size, adds a smaller one.
    pub(crate) fn add_data_extent(&mut self, region: u32, class: u32, with_links: bool) -> Result<Extent> {
        match self.try_add_data_extent(region, class, with_links) {
            Err(Error::Full { .. }) => {}
            added => return added,
        }
        // A process that died while it gave room back may have left a gap that this handle has passed.
        self.forget();
        self.try_add_data_extent(region, class, with_links)
    }

    fn try_add_data_extent(&mut self, region: u32, class: u32, with_links: bool) -> Result<Extent> {
        self.classify()?;
        let geo = &self.arena.geo;
        let slots = self.extents.slots.get(&(region, class)).copied().unwrap_or(0);
        let slot_size = geo.class_size(class);
        let (mut run, least) = (geo.next_run(slots, slot_size), geo.next_run(0, slot_size));
        for gap in self.extents.gaps.iter().map(|gap| gap.run.min(run)).collect::<Vec<_>>() {
            // A gap that is much smaller is left to extents that want no more, or to a full store: many small extents waste room.
            if gap >= least.max(run / 2)
                && let Some(extent) = self.free_gap(gap, geo.slots_in(gap, slot_size))
            {
                match self.begin_data_extent(region, &Extent { class, ..extent }, with_links) {
                    Err(Error::Full { .. }) => break, // No blocks for all of it.
                    added => return added,
                }
            }
        }
        self.classify()?;
        loop {
            match self.add_data_run(region, class, run, with_links) {
                Err(Error::Full { .. }) if run > least => run = (run / 2).max(least),
                added => return added,
            }
        }
    }

    fn add_data_run(&mut self, region: u32, class: u32, run: u32, with_links: bool) -> Result<Extent> {
        let geo = &self.arena.geo;
        let slots = geo.slots_in(run, geo.class_size(class));
        let extent = Extent { class, ..self.free_run(run, slots, region)? };
        self.begin_data_extent(region, &extent, with_links)
    }

    fn begin_data_extent(&mut self, region: u32, extent: &Extent, with_links: bool) -> Result<Extent> {
        let begun = self.try_begin_data_extent(region, extent, with_links);
        if begun.is_err() {
            self.forget(); // The extent may have been taken out of a gap.
        }
        begun
    }

    fn try_begin_data_extent(&mut self, region: u32, extent: &Extent, with_links: bool) -> Result<Extent> {
        let geo = &self.arena.geo;
        let range = extent.range(geo);
        let filled = extent.filled_bytes(geo);
        let bytes = if with_links { range.end - range.start } else { filled };
        self.allocate(region, range.start, bytes, range.end)?;
        step("grow: blocks allocated");
        self.arena.map.populate(range.start, EXTENT_HEADER_BYTES);
        if geo.grows && filled > PAGE_BYTES {
            // The page of the header's copy.
            self.arena.map.populate(range.start + filled - EXTENT_HEADER_BYTES, EXTENT_HEADER_BYTES);
        }
        step("grow: page of the extent header there");
        let kind = ExtentKind::Data { region };
        let is_again = self.is_again(extent)?;
        let groups = self.arena.control().groups();
        if is_again || groups.load(Ordering::SeqCst).is_none_or(|end| u64::from(extent.group) < end) {
            self.change_layout();
        }
        self.arena.clear_half_headers(extent);
        groups.raise_to(u64::from(extent.end_group(&self.arena.geo)));
        self.arena.write_extent_header(extent, kind)?;
        step("grow: extent header written");
        if is_again {
            self.flush_headers(extent, kind)?;
        }
        self.note_units(extent.end())?;
        // It may lie in a gap that this handle has passed.
        self.arena.note_added(extent);
        if extent.unit < self.extents.cursor.unit {
            self.extents.add(&Extent { kind: Some(kind), ..*extent }, geo);
        }
        Ok(Extent { kind: Some(kind), ..*extent })
    }

    /// Does what is left for an extent whose header is there, if its process died while it added the extent. The header may still lack
    /// its copy, and the units that are in use may not reach to the extent's end.
    pub(crate) fn finish_data_extent(&mut self, extent: &Extent) -> Result<()> {
        if let Some(kind) = extent.kind {
            self.arena.write_extent_header(extent, kind)?;
        }
        self.note_units(extent.end())
    }

    /// Allocates room for an index table of `bytes` bytes. Returns its file offset in lines.
    pub(crate) fn index_space(&mut self, region: u32, bytes: u64) -> Result<u64> {
        let geo = self.arena.geo;
        self.classify()?;
        let mut used: Vec<Range<u64>> = (0..geo.regions)
            .map(|r| self.arena.shape(r))
            .map(|s| s.offset()..s.offset() + s.bytes())
            .chain(BOARDS.iter().filter_map(|&board| self.arena.board_range(board)))
            .collect();
        used.sort_by_key(|r| r.start);
        for run in &self.extents.index_runs {
            let start = geo.unit_offset(run.start) + EXTENT_HEADER_BYTES;
            let end = geo.unit_offset(run.end) - if geo.grows { EXTENT_HEADER_BYTES } else { 0 };
            let mut at = start;
            for taken in used.iter().filter(|u| u.end > start && u.start < end) {
                if taken.start >= at + bytes {
                    break;
                }
                at = at.max(round_up(taken.end, LINE_BYTES));
            }
            if at + bytes <= end && self.holds_no_slots(run.start, at..at + bytes) {
                self.allocate(region, at, bytes, at + bytes)?;
                self.arena.map.populate(at, bytes.min(POPULATE_BYTES_MAX));
                return Ok(at / LINE_BYTES);
            }
        }
        let extent = self.free_run(index_run(&geo, bytes), 0, region)?;
        let range = extent.range(&geo);
        // All of it, if the copy of its header is at its end.
        let used = if geo.grows { range.end - range.start } else { EXTENT_HEADER_BYTES + bytes };
        if let Err(error) = self.allocate(region, range.start, used, range.end) {
            self.forget(); // The room may have been taken out of a gap.
            return Err(error);
        }
        step("grow: blocks of an index run allocated");
        if self.is_again(&extent)? {
            self.change_layout();
        }
        self.arena.write_extent_header(&extent, ExtentKind::Index)?;
        step("grow: header of an index run written");
        if extent.unit < self.extents.cursor.unit {
            self.extents.add(&Extent { kind: Some(ExtentKind::Index), ..extent }, &geo);
        }
        self.note_units(extent.end())?;
        self.arena.map.populate(range.start, used.min(POPULATE_BYTES_MAX));
        Ok((range.start + EXTENT_HEADER_BYTES) / LINE_BYTES)
    }

    /// Allocates the blocks of the links of a region's extents. They are holes before.
    pub(crate) fn allocate_links(&mut self, region: u32) -> Result<()> {
        let geo = self.arena.geo;
        for extent in self.data_extents(region)? {
            let range = extent.range(&geo);
            let at = range.start + extent.filled_bytes(&geo);
            if at < range.end {
                self.allocate(region, at, range.end - at, at)?;
            }
        }
        Ok(())
    }

    /// The data extents of a region, by those that the handle knows.
    fn data_extents(&mut self, region: u32) -> Result<Vec<Extent>> {
        self.classify()?;
        let known = self.extents.data.get(&region).map_or(&[][..], Vec::as_slice);
        match self.arena.head(region).extents().load(Ordering::Relaxed) {
            Some(counted) if counted <= known.len() as u64 => Ok(known.to_vec()),
            // The header of one is wrong.
            _ => self.arena.data_extents(region),
        }
    }

    /// Notes that the units before `end` are in use, so that a file that was cut off is recognized. Bytes behind them, if some
    /// program extended the file, are never missed.
    fn note_units(&self, end: u32) -> Result<()> {
        let word = self.arena.control().units();
        let noted = match word.load(Ordering::SeqCst) {
            Some(noted) if noted <= u64::from(self.arena.unit_count()?) => noted,
            _ => u64::from(self.arena.units_in_use()?),
        };
        word.store(noted.max(u64::from(end)), Ordering::SeqCst);
        Ok(())
    }

    /// Whether a table may be written to these bytes of an index extent that begins with unit `first`. The header that said so may have
    /// been wrong for a moment, or may be wrong now: so it is read again, and nothing may show that slots lie there.
    fn holds_no_slots(&self, first: u32, bytes: Range<u64>) -> bool {
        let arena = self.arena;
        let geo = &arena.geo;
        let number = |at: u64| ((at - geo.base) / geo.unit) as u32;
        let units = number(bytes.start)..=number(bytes.end - 1);
        let has_fresh_slots = (0..geo.regions).any(|region| {
            (0..geo.classes).any(|class| {
                let fresh = arena.class(region, class).fresh.load(Ordering::Relaxed).slot();
                let place = fresh.ok().flatten().and_then(|slot| arena.place(slot));
                place.is_some_and(|place| {
                    place.unit <= *units.end() && *units.start() < place.unit + place.run
                })
            })
        });
        let count = arena.unit_count().unwrap_or(0);
        let told = arena.headers().next(Reached { unit: first, group: 0, has_strays: false }, count);
        let is_index = told.is_some_and(|extent| extent.kind == Some(ExtentKind::Index));
        is_index && !has_fresh_slots && !units.clone().any(|unit| arena.hides_slots(unit))
    }

    /// Whether the place of an extent may have been another one's: the units in use that were noted reach beyond it.
    fn is_again(&self, extent: &Extent) -> Result<bool> {
        let noted = self.arena.control().units().load(Ordering::SeqCst);
        Ok(noted.unwrap_or(u64::from(self.arena.unit_count()?)) > u64::from(extent.unit))
    }

    /// Whether the room that was given back reads as zeros even after a loss of power.
    fn may_use_again(&self) -> Result<bool> {
        let given_back = self.arena.control().given_back().load(Ordering::SeqCst);
        let durable = self.arena.durable()?;
        Ok(given_back.is_some_and(|epoch| epoch <= durable) || fault::on(Fault::RoomEarly))
    }

    /// Makes every handle look at the headers again: see `file::numbers`.
    fn change_layout(&mut self) {
        let [was, now] = self.arena.change_layout();
        if self.extents.layout == was {
            self.extents.layout = now; // This handle knows what changes.
        }
    }

    /// Makes the next growth look at all extents.
    fn forget(&mut self) {
        *self.extents =
            Extents { layout: !self.arena.control().layout().load(Ordering::SeqCst), ..Extents::default() };
    }

    /// Puts the header of an extent and its copy on disk. A durable write of one record takes them to be there, if the place of the
    /// extent was in use before.
    fn flush_headers(&self, extent: &Extent, kind: ExtentKind) -> Result<()> {
        let arena = self.arena;
        let header = arena.geo.unit_offset(extent.unit);
        let copy =
            twin_offset(&arena.geo, extent, kind).filter(|copy| copy / PAGE_BYTES != header / PAGE_BYTES);
        for at in [Some(header), copy].into_iter().flatten() {
            let flushed = arena.map.flush(at, EXTENT_HEADER_BYTES);
            flushed.map_err(|source| arena.note_failed_flush(source))?;
        }
        step("grow: header on disk");
        Ok(())
    }

    /// Gives extents of a region back, none of whose slots is in use or on a list: their bytes become zeros, and their blocks the file
    /// system's. `epoch`: the present one. The caller holds the region's lock, and has taken the extents out of the region's count.
    pub(crate) fn give_back(&mut self, extents: &[Extent], epoch: Epoch) -> Result<()> {
        let arena = self.arena;
        let file = arena.file.same().map_err(arena.io("giving room back"))?;
        // Its units count as used, even if the process that added it died before it had noted them.
        self.note_units(extents.iter().map(Extent::end).max().unwrap_or(0))?;
        // First: room that reads as zeros is not used before this epoch is on disk.
        arena.control().given_back().store(epoch, Ordering::SeqCst);
        for extent in extents {
            let range = extent.range(&arena.geo);
            step("give back: an extent is still there");
            if file::punch(file, range.start, range.end - range.start).is_err() {
                // The file system can't. The blocks stay.
                let words = arena.words(range.start, ((range.end - range.start) / 8) as usize);
                // Not where there may be no block: links may be a hole.
                let is_set = |word: &&AtomicU64| word.load(Ordering::Relaxed) != 0;
                words.into_iter().flatten().filter(is_set).for_each(|word| word.store(0, Ordering::Relaxed));
            }
            step("give back: an extent is gone");
        }
        self.change_layout();
        self.forget();
        Ok(())
    }

    /// Moves the cursor past all extents in use.
    fn classify(&mut self) -> Result<()> {
        let layout = self.arena.control().layout().load(Ordering::SeqCst);
        if self.extents.layout != layout {
            *self.extents = Extents { layout, ..Extents::default() };
        }
        let count = self.arena.unit_count()?;
        while let Some(extent) = self.arena.headers().next(self.extents.cursor, count) {
            match extent.kind {
                Some(_) => self.extents.add(&extent, &self.arena.geo),
                None if self.arena.geo.grows && extent.end() == count => break,
                None if !self.arena.geo.grows && self.arena.is_unused(&extent) => break,
                None if self.arena.geo.grows && self.arena.is_unused(&extent) => {
                    self.extents.gaps.push(extent)
                }
                // Never overwritten: good slots may lie behind a damaged header.
                None => {}
            }
            self.extents.cursor = self.extents.cursor.with(&extent, &self.arena.geo);
        }
        Ok(())
    }

    /// The first `run` unused units in a row, for an extent with so many slots: left by a process that died during growth, or new.
    fn free_run(&mut self, run: u32, slots: u32, region: u32) -> Result<Extent> {
        self.classify()?;
        let count = self.arena.unit_count()?;
        let geo = self.arena.geo;
        if let Some(extent) = self.free_gap(run, slots) {
            return Ok(extent);
        }
        let mut passed = self.extents.cursor;
        if !self.may_use_again()? {
            // What lies behind the last header may have been given back.
            let noted = self.arena.control().units().load(Ordering::SeqCst).unwrap_or(u64::from(count));
            passed.unit = passed.unit.max(u32::try_from(noted).unwrap_or(count).min(count));
        }
        if geo.grows {
            // Behind the last header.
            let left = count - passed.unit;
            let (unit, group) = (passed.unit, passed.group);
            let (kind, class, is_stray) = (None, NO_CLASS, false);
            let rest = Extent { unit, run: left.min(run), group, kind, slots: 0, class, is_stray };
            if left > 0 && !self.arena.is_unused(&rest) {
                // Never overwritten. Numbers are left for the slots that may be there.
                let lost = Extent { run: left, slots: geo.slots_in(left, geo.class_size(0)), ..rest };
                passed = passed.with(&lost, &geo);
            }
        } else {
            let mut unit = passed.unit;
            while unit < count && unit - passed.unit < run {
                match self.arena.headers().next(Reached { unit, group: unit, has_strays: false }, count) {
                    Some(extent) if extent.kind.is_none() && self.arena.is_unused(&extent) => unit += 1,
                    Some(extent) => {
                        unit = extent.end();
                        passed = Reached { unit, group: unit, has_strays: false };
                    }
                    None => break,
                }
            }
            passed.group = passed.unit;
        }
        let (unit, kind, class) = (passed.unit, None, 0);
        // Behind numbers out of order none is in order.
        let is_stray = geo.grows && slots > 0 && !self.extents.strays.is_empty();
        let group = if is_stray {
            self.stray_group(geo.groups_for(slots), unit.saturating_add(run)).unwrap_or(GROUPS_MAX)
        } else {
            passed.group
        };
        let extent = Extent { unit, run, group, kind, slots, class, is_stray };
        let fits = u64::from(extent.unit) + u64::from(run) <= u64::from(geo.units_max());
        let has_numbers = !geo.grows || extent.end_group(&geo) <= GROUPS_MAX;
        if !fits || !has_numbers {
            let why = if fits {
                "all slot numbers are in use; dump the records, and load them into a store with `slots_per_extent`"
                    .to_owned()
            } else {
                format!("the file may not grow beyond {} bytes", geo.max_size)
            };
            let (path, limit) = (self.arena.path.clone(), geo.max_size);
            return Err(Error::Full { path, region, limit, why, source: None });
        }
        Ok(extent)
    }

    /// The first `run` units of a gap that has so many. If the gap has too few numbers for so many slots, they get numbers out of
    /// order.
    fn free_gap(&mut self, run: u32, slots: u32) -> Option<Extent> {
        if !self.may_use_again().unwrap_or(false) {
            return None;
        }
        let geo = self.arena.geo;
        let groups = geo.groups_for(slots);
        let stray = self.stray_group(groups, 0);
        self.extents.gaps.retain(|gap| gap.run > 0);
        for gap in &mut self.extents.gaps {
            let is_stray = groups > geo.groups_for(gap.slots);
            let group = if is_stray { stray } else { Some(gap.group) };
            let Some(group) = group.filter(|_| run <= gap.run) else { continue };
            let extent = Extent { run, slots, class: 0, group, is_stray, ..*gap };
            if self.arena.is_unused(&extent) {
                *gap = gap.without(&geo, run, if is_stray { 0 } else { groups });
                return Some(extent);
            }
        }
        None
    }

    /// The first of so many groups in a row that no extent has, behind those that are in order.
    /// `end`: the unit at which the file ends then, at least.
    fn stray_group(&mut self, groups: u32, end: u32) -> Option<u32> {
        self.extents.strays.sort_unstable_by_key(|taken| taken.start);
        let mut first = self.extents.cursor.group;
        for taken in &self.extents.strays {
            if taken.start.saturating_sub(first) >= groups {
                break;
            }
            first = first.max(taken.end);
        }
        let units = self.arena.unit_count().ok()?.max(end);
        let end = first.saturating_add(groups);
        (u64::from(end) <= u64::from(units) * GROUPS_PER_UNIT_MAX && end <= GROUPS_MAX).then_some(first)
    }

    /// Step 2 of growth: allocates the blocks of a range, and makes the file end at `end` or later. Fails if the descriptor leads
    /// to another file by now.
    fn allocate(&self, region: u32, offset: u64, bytes: u64, end: u64) -> Result<()> {
        let arena = self.arena;
        let refresh = || arena.map.refresh(&arena.file).map_err(arena.io("mapping more of the file"));
        let file = arena.file.same().map_err(arena.io("extending the file"))?;
        file::may_extend(file, end)
            .and_then(|()| file::allocate(file, offset, bytes))
            .map_err(|source| arena.no_room(region, bytes, source))?;
        if refresh()? < end {
            step("grow: length not yet extended");
            file.set_len(end).map_err(|source| arena.no_room(region, bytes, source))?;
            refresh()?;
        }
        Ok(())
    }
}

const _: () = assert!(size_of::<ExtentHeader>() as u64 == EXTENT_HEADER_BYTES && HEADER_BYTES == 32);

/// Populates the pages of the piece in which a fresh slot lies, if the slot is the first one of the piece. If links are
/// allocated, populates those of the slots in the piece too.
#[inline]
pub(crate) fn populate_fresh(arena: &Arena, region: u32, place: &Location, is_linked: bool) {
    let geo = &arena.geo;
    let &Location { unit, run, slots, slot_size, within } = place;
    let extent = geo.unit_offset(unit);
    let at = geo.slot_within(unit, within, slot_size) - extent;
    let first_new = if at == EXTENT_HEADER_BYTES { 0 } else { (at - 1) / PIECE_BYTES + 1 };
    let last = (at + slot_size - 1) / PIECE_BYTES;
    if first_new <= last {
        let filled = geo.filled_bytes(u64::from(slots), slot_size);
        // The page of the extent's header was populated when the extent was added.
        let (from, to) = ((first_new * PIECE_BYTES).max(PAGE_BYTES), ((last + 1) * PIECE_BYTES).min(filled));
        if from < to {
            let is_large = slot_size >= *FOLIO_BYTES.start();
            if is_large && arena.extent_at(unit).and_then(|extent| extent.region()) == Some(region) {
                make_pages(arena, extent + from, to - from, slot_size);
                arena.map.populate_cached(extent + from, to - from);
            } else {
                arena.map.populate(extent + from, to - from);
            }
        }
        if is_linked {
            let links =
                extent + geo.links_offset(u64::from(slots), slot_size) + u64::from(within) * LINK_BYTES;
            let slots = ((last + 1 - first_new) * PIECE_BYTES).div_ceil(slot_size);
            let end = extent + u64::from(run) * geo.unit;
            arena.map.populate(links, (slots * LINK_BYTES).min(end - links));
        }
    }
}

/// Makes the pages of a range that only the caller writes to, by writing zeros in folios, if the pages were never written. This
/// takes a quarter of the time of a page fault. Only speed depends on it. The file system says whether the pages were never
/// written: the store's own bytes may be damaged.
#[cold]
fn make_pages(arena: &Arena, at: u64, bytes: u64, slot_size: u64) {
    static ZEROS: [u8; *FOLIO_BYTES.end() as usize] = [0; *FOLIO_BYTES.end() as usize];
    if at + bytes <= arena.map.len() {
        let folio = (1 << slot_size.ilog2()).min(*FOLIO_BYTES.end());
        file::write_zeros(&arena.file, at, bytes, folio, &ZEROS);
    }
}

/// The size of the next table after the one of `shape`: twice as many lines, or four times as many for small tables.
pub(crate) fn next_lines_log2(shape: &Shape) -> u32 {
    if shape.lines_log2 < 10 { shape.lines_log2 + 2 } else { shape.lines_log2 + 1 }
}
