//! The index table of a region as a whole: filling it, and moving it. For the region's owner.

use crate::file::arena::Arena;
use crate::file::grow::Growth;
use crate::format::index::{ENTRIES, FIRST_LINES_LOG2, LINES_LOG2_MAX, Line, Shape};
use crate::format::region::Intent;
use crate::protocol::index::{fill_entry, load_line, store_line};
use crate::protocol::slot::header;
use crate::region::Trouble;
use crate::region::head::Region;
use crate::sys::atomic::{Ordering, fence};
use crate::sys::step::step;

/// Records that a table holds before it grows: three quarters of its entries.
#[inline]
pub(crate) fn load_max(shape: &Shape) -> u64 {
    shape.entries() * 3 / 4
}

/// When a table is moved, the headers that a line leads to are prefetched this many lines ahead.
const LINES_AHEAD: u64 = 2;

const OUTSIDE: Trouble = Trouble::Flaw("the index lies outside the file");

impl Region<'_> {
    /// Moves the index to a table whose entries are wide enough for a slot: the file outgrew their width.
    #[cold]
    pub(super) fn widen_index(&self, slot: u32) -> Result<(), Trouble> {
        self.move_index(self.shape().lines_log2)?;
        if self.shape().holds(slot) {
            Ok(())
        } else {
            Err(Trouble::Flaw("the width of the entries of the index"))
        }
    }

    /// Moves the index to a table of `lines_log2` with entries wide enough for the file as it is,
    /// and makes that the region's. The old table stays as it is, for readers that are still in it.
    pub(crate) fn move_index(&self, lines_log2: u32) -> Result<(), Trouble> {
        let old = self.shape();
        let lines_log2 = lines_log2.min(LINES_LOG2_MAX);
        let mut growth = Growth::lock(self.arena)?;
        let new = self.new_shape(&mut growth, lines_log2)?;
        let mut table = self.clear_table(new)?;
        for number in 0..old.lines() {
            self.ask_for_headers(&old, number + LINES_AHEAD);
            let line = load_line(self.arena.line(&old, number).ok_or(OUTSIDE)?);
            if !line.holds(old.seed(self.number, number)) {
                return Err(Trouble::Flaw("a line of the index"));
            }
            for &entry in &line.0[..ENTRIES] {
                let Some(slot) = old.slot(entry) else { continue };
                let words =
                    self.arena.slot(slot).ok_or(Trouble::Flaw("the index names a slot outside the file"))?;
                let id = header(words).id();
                let hash = self.arena.geo.hash(id);
                // A version whose id is damaged must not be lost from the sight of those that look for its record.
                if old.entry(hash, slot) != entry || self.arena.geo.region_of(hash) != self.number {
                    return Err(Trouble::Flaw("the index names a slot of another record"));
                }
                if !table.insert(hash, slot)? {
                    return Err(Trouble::Flaw("an index without room"));
                }
            }
        }
        step("index: new table filled");
        let intent =
            self.begin_unless_unnoted(Intent::Move.with(Shape::decode(new.encode()).version), |_| {});
        // A mark of a rebuild stays, so that the next owner rebuilds the region.
        self.set_shape(Shape { rebuilding: self.shape().rebuilding, ..new });
        step("index: new table in use");
        self.head.markers().store(0, Ordering::Relaxed);
        intent.end();
        step("index: markers counted");
        Ok(())
    }

    /// Prefetches the headers that a line leads to. Without this the processor would wait for each of them in turn.
    fn ask_for_headers(&self, shape: &Shape, number: u64) {
        if let Some(words) = self.arena.line(shape, number) {
            for slot in load_line(words).slots(shape) {
                if let Some(at) = self.arena.slot_offset(slot) {
                    self.arena.map.prefetch(at);
                }
            }
        }
    }

    /// Room for a table of `lines_log2`, as a shape with the next version.
    pub(crate) fn new_shape(&self, growth: &mut Growth<'_>, lines_log2: u32) -> Result<Shape, Trouble> {
        let old = self.shape();
        let slots = self.arena.slots_end()? + (1 << self.arena.geo.slots_log2);
        let mut new = Shape {
            line_offset: 0,
            lines_log2: lines_log2.max(FIRST_LINES_LOG2),
            slot_bits: Shape::slot_bits_for(slots),
            version: old.version.wrapping_add(1),
            rebuilding: false,
            batch: old.batch,
        };
        new.line_offset = growth.index_space(self.number, new.bytes())?;
        Ok(new)
    }

    /// Makes every line of a table empty, to be filled. No reader may use the table meanwhile.
    pub(crate) fn clear_table(&self, shape: Shape) -> Result<Filling<'_>, Trouble> {
        fence(Ordering::Release); // A reader that sees a cleared line sees the shape that forbids reading it.
        for number in 0..shape.lines() {
            let words = self.arena.line(&shape, number).ok_or(OUTSIDE)?;
            store_line(words, &Line::empty(shape.seed(self.number, number)));
        }
        Ok(Filling { arena: self.arena, shape, used: vec![0; 1 << shape.lines_log2] })
    }
}

/// A table that is being filled, which no reader uses.
pub(crate) struct Filling<'a> {
    arena: &'a Arena,
    shape: Shape,
    /// For each line, the number of used entries.
    used: Vec<u8>,
}

impl Filling<'_> {
    /// Adds an entry. Returns whether there was room.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) -> Result<bool, Trouble> {
        if !self.shape.holds(slot) {
            return Ok(false);
        }
        for number in self.shape.walk(hash) {
            let Some(used) = self.used.get_mut(number as usize) else { break };
            if usize::from(*used) < ENTRIES {
                let words = self.arena.line(&self.shape, number).ok_or(OUTSIDE)?;
                fill_entry(words, usize::from(*used), self.shape.entry(hash, slot));
                *used += 1;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
