//! Growth: extents are appended, and index tables get a larger place.
//!
//! One handle at a time does this, under the growth lock. Blocks are allocated before any word leads to them, so a full disk is
//! an error here and never a SIGBUS later. The numbered steps are in the chapter on the protocol.

use std::ops::Range;
use std::sync::{MutexGuard, PoisonError, TryLockError};

use crate::error::{Error, Holder, Lock, Result};
use crate::fault::{self, Refusal};
use crate::file::arena::Arena;
use crate::file::byte_lock;
use crate::file::extents::Extents;
use crate::format::extent::{ExtentHeader, ExtentKind};
use crate::format::geometry::{EXTENT_HEADER_BYTES, LINK_BYTES};
use crate::format::index::{LINE_BYTES, Shape};
use crate::format::seat::GROWTH_BYTE;
use crate::format::slot::HEADER_BYTES;
use crate::format::{PAGE_BYTES, round_up};
use crate::sys::atomic::Ordering;
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
        let deadline = arena.deadline();
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
        let extents = Self::exclude_threads(arena, &deadline)?;
        byte_lock::take(arena, GROWTH_BYTE, Lock::Growth, arena.control().grower(), &deadline)?;
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

    /// Adds a data extent to a region; the caller holds the region's lock.
    pub(crate) fn add_data_extent(&mut self, region: u32, with_links: bool) -> Result<u32> {
        let geo = &self.arena.geo;
        let extent = self.free_run(1, region)?;
        let at = geo.extent_offset(extent);
        let bytes = if with_links { geo.extent_size } else { geo.links_offset };
        self.allocate(region, at, bytes, at + geo.extent_size)?;
        step("grow: blocks allocated");
        self.arena.map.populate(at, EXTENT_HEADER_BYTES);
        step("grow: page of the extent header there");
        self.arena.write_extent_header(extent, ExtentKind::Data { region })?;
        step("grow: extent header written");
        self.note_extents(extent + 1)?;
        Ok(extent)
    }

    /// Allocates room for an index table of `bytes` bytes. Returns its file offset in lines.
    pub(crate) fn index_space(&mut self, region: u32, bytes: u64) -> Result<u64> {
        let geo = self.arena.geo;
        self.classify()?;
        let mut used: Vec<Range<u64>> = (0..geo.regions)
            .map(|r| self.arena.shape(r))
            .map(|s| s.offset()..s.offset() + s.bytes())
            .collect();
        used.sort_by_key(|r| r.start);
        for run in &self.extents.index_runs {
            let start = geo.extent_offset(run.start) + EXTENT_HEADER_BYTES;
            let end = geo.extent_offset(run.end);
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
        let run = (bytes + EXTENT_HEADER_BYTES).div_ceil(geo.extent_size) as u32;
        let extent = self.free_run(run, region)?;
        let at = geo.extent_offset(extent);
        self.allocate(region, at, EXTENT_HEADER_BYTES + bytes, geo.extent_offset(extent + run))?;
        step("grow: blocks of an index run allocated");
        self.arena.write_extent_header(extent, ExtentKind::Index { run })?;
        step("grow: header of an index run written");
        self.note_extents(extent + run)?;
        self.arena.map.populate(at, (EXTENT_HEADER_BYTES + bytes).min(POPULATE_BYTES_MAX));
        Ok((at + EXTENT_HEADER_BYTES) / LINE_BYTES)
    }

    /// Allocates the blocks of the links of a region's extents. They are holes before.
    pub(crate) fn allocate_links(&mut self, region: u32) -> Result<()> {
        let geo = self.arena.geo;
        for extent in self.arena.data_extents(region)? {
            let at = geo.extent_offset(extent) + geo.links_offset;
            self.allocate(region, at, geo.extent_size - geo.links_offset, at)?;
        }
        Ok(())
    }

    /// Notes that the extents before `end` are in use, so that a file that was cut off is recognized. Bytes behind them, if some
    /// program extended the file, are never missed.
    fn note_extents(&self, end: u32) -> Result<()> {
        let word = self.arena.control().extents();
        let noted = match word.load(Ordering::SeqCst) {
            Some(noted) if noted <= u64::from(self.arena.extent_count()?) => noted,
            _ => u64::from(self.arena.extents_in_use()?),
        };
        word.store(noted.max(u64::from(end)), Ordering::SeqCst);
        Ok(())
    }

    /// Whether a table may be written to these bytes of an index run that begins with extent `first`. The header that said so may have
    /// been wrong for a moment, or may be wrong now: so it is read again, and nothing may show that slots lie there.
    fn holds_no_slots(&self, first: u32, bytes: Range<u64>) -> bool {
        let arena = self.arena;
        let geo = &arena.geo;
        let number = |at: u64| ((at - geo.base) / geo.extent_size) as u32;
        let extents = number(bytes.start)..=number(bytes.end - 1);
        let has_fresh_slots = (0..geo.regions).any(|region| {
            let fresh = arena.head(region).fresh().load(Ordering::Relaxed).slot();
            fresh.is_ok_and(|slot| slot.is_some_and(|slot| extents.contains(&geo.extent_of(slot))))
        });
        let is_index = matches!(arena.extent_kind(first), Some(ExtentKind::Index { .. }));
        let has_header = |extent| matches!(arena.extent_kind(extent), Some(ExtentKind::Data { .. }));
        is_index
            && !has_fresh_slots
            && !extents.clone().any(|extent| has_header(extent) || arena.region_by_slots(extent).is_some())
    }

    /// Moves the cursor past all extents in use.
    fn classify(&mut self) -> Result<()> {
        let count = self.arena.extent_count()?;
        while self.extents.cursor < count {
            let extent = self.extents.cursor;
            self.extents.cursor += match self.arena.extent_kind(extent) {
                Some(ExtentKind::Index { run }) => {
                    self.extents.index_runs.push(extent..extent + run);
                    run
                }
                Some(ExtentKind::Data { .. }) => 1,
                None if self.arena.is_unused(extent) => break,
                // Never overwritten: good slots may lie behind a damaged header.
                None => 1,
            };
        }
        Ok(())
    }

    /// The first of `run` unused extents in a row: left by a process that died during growth, or new.
    fn free_run(&mut self, run: u32, region: u32) -> Result<u32> {
        self.classify()?;
        let count = self.arena.extent_count()?;
        let mut first = self.extents.cursor;
        let mut extent = first;
        while extent < count && extent - first < run {
            match self.arena.extent_kind(extent) {
                None if self.arena.is_unused(extent) => extent += 1,
                kind => {
                    first = extent + if let Some(ExtentKind::Index { run }) = kind { run } else { 1 };
                    extent = first;
                }
            }
        }
        let limit = self.arena.geo.extents_max();
        if u64::from(first) + u64::from(run) > u64::from(limit) {
            return Err(Error::Full {
                path: self.arena.path.clone(),
                region,
                limit: self.arena.geo.max_size,
                why: format!("the file may not grow beyond {} bytes", self.arena.geo.max_size),
                source: None,
            });
        }
        Ok(first)
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
pub(crate) fn populate_fresh(arena: &Arena, region: u32, slot: u32, is_linked: bool) {
    let geo = &arena.geo;
    let number = geo.extent_of(slot);
    let extent = geo.extent_offset(number);
    let at = geo.slot_offset(slot) - extent;
    let first_new = if at == EXTENT_HEADER_BYTES { 0 } else { (at - 1) / PIECE_BYTES + 1 };
    let last = (at + geo.slot_size - 1) / PIECE_BYTES;
    if first_new <= last {
        // The page of the extent's header was populated when the extent was added.
        let (from, to) =
            ((first_new * PIECE_BYTES).max(PAGE_BYTES), ((last + 1) * PIECE_BYTES).min(geo.links_offset));
        if from < to {
            let is_large = geo.slot_size >= *FOLIO_BYTES.start();
            if is_large && arena.extent_kind(number) == Some(ExtentKind::Data { region }) {
                make_pages(arena, extent + from, to - from);
                arena.map.populate_cached(extent + from, to - from);
            } else {
                arena.map.populate(extent + from, to - from);
            }
        }
        if is_linked {
            let links = geo.link_offset(slot);
            let slots = ((last + 1 - first_new) * PIECE_BYTES).div_ceil(geo.slot_size);
            arena.map.populate(links, (slots * LINK_BYTES).min(extent + geo.extent_size - links));
        }
    }
}

/// Makes the pages of a range that only the caller writes to, by writing zeros in folios, if the pages were never written. This
/// takes a quarter of the time of a page fault. Only speed depends on it. The file system says whether the pages were never
/// written: the store's own bytes may be damaged.
#[cold]
fn make_pages(arena: &Arena, at: u64, bytes: u64) {
    static ZEROS: [u8; *FOLIO_BYTES.end() as usize] = [0; *FOLIO_BYTES.end() as usize];
    if at + bytes <= arena.map.len() {
        let folio = (1 << arena.geo.slot_size.ilog2()).min(*FOLIO_BYTES.end());
        file::write_zeros(&arena.file, at, bytes, folio, &ZEROS);
    }
}

/// The size of the next table after the one of `shape`: twice as many lines, or four times as many for small tables.
pub(crate) fn next_lines_log2(shape: &Shape) -> u32 {
    if shape.lines_log2 < 10 { shape.lines_log2 + 2 } else { shape.lines_log2 + 1 }
}
