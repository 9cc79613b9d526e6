//! The extents of the file by region, for a pass over all regions: one look at the headers serves for all of them.
//!
//! The file may grow meanwhile, and room may be given back:
//!
//! 1. An extent stays the region's until the layout changes (see `file::numbers`). So what was found is right while the layout is the
//!    one before the look, and then the region can only have more.
//! 2. An extent has its header before the head of its region counts it. If fewer were found than are counted, the look goes on behind
//!    the last extent with a header. If they are still fewer, or the layout changed, all headers are looked at again.
//! 3. An extent without a header that lies behind all others with one is looked at again when the look goes on.
//!
//! Memory: some 40 bytes for each extent, and for each region.

use std::ops::Range;

use crate::error::Result;
use crate::file::arena::Arena;
use crate::file::extents::Reached;
use crate::format::extent::{Extent, ExtentKind};
use crate::format::geometry::EXTENT_HEADER_BYTES;
use crate::format::index::{FIRST_LINES_LOG2, LINES_LOG2_MAX, Shape};
use crate::sys::atomic::Ordering;

/// The extents that were found, by region.
#[derive(Debug, Default)]
pub(crate) struct ByRegion {
    /// Whether there was a look.
    is_known: bool,
    /// The layout of the file before the look.
    layout: u64,
    /// The number of units that was noted before the look.
    units: Option<u64>,
    /// Behind the last extent with a header.
    reached: Reached,
    /// The data extents of each region, in order.
    data: Vec<Vec<Extent>>,
    /// The regions of extents without a header behind that place.
    unsure: Vec<u32>,
    /// The bytes that index tables may have, in order.
    index_bytes: Vec<Range<u64>>,
    /// Where the tables of the regions were, in order, each with its region.
    tables: Vec<(Range<u64>, u32)>,
    /// For each of them, the highest end of it and those before it.
    ends: Vec<u64>,
}

impl ByRegion {
    /// The extents of the file now.
    pub(crate) fn of(arena: &Arena) -> Result<Self> {
        let mut found = Self::default();
        found.look(arena)?;
        Ok(found)
    }

    /// The data extents of a region, in order. Fewer than its head counts are an error: the header of one is wrong.
    pub(crate) fn all_of(&mut self, arena: &Arena, region: u32) -> Result<&[Extent]> {
        let counted = self.update(arena, region)?;
        let found = self.found(region);
        if (found.len() as u64) < counted {
            let what = format!(
                "region {region} has {} of its {counted} extents of records: run `recstore repair`",
                found.len()
            );
            return Err(arena.damaged(what));
        }
        Ok(found)
    }

    /// The data extents of a region, in order, even if its head counts more.
    pub(crate) fn found_of(&mut self, arena: &Arena, region: u32) -> Result<&[Extent]> {
        self.update(arena, region)?;
        Ok(self.found(region))
    }

    fn found(&self, region: u32) -> &[Extent] {
        self.data.get(region as usize).map_or(&[], Vec::as_slice)
    }

    /// Looks again if a region may have extents that were not found. Returns how many its head counts.
    fn update(&mut self, arena: &Arena, region: u32) -> Result<u64> {
        // An extent has its header before it is counted (pairs with the Release of the count).
        let count = || arena.head(region).extents().load(Ordering::Acquire);
        let counted = count();
        if self.is_current(arena) {
            let has_all = |found: &Self| counted.is_some_and(|n| found.found(region).len() as u64 >= n);
            if has_all(self) {
                return Ok(counted.unwrap_or(0));
            }
            self.go_on(arena)?;
            if self.is_current(arena) && (counted.is_none() || has_all(self)) {
                return Ok(counted.unwrap_or(0));
            }
        }
        loop {
            let counted = count().unwrap_or(0);
            self.look(arena)?;
            // Some may have been given back meanwhile, and others added.
            let is_at_rest = || count().unwrap_or(0) == counted && self.is_current(arena);
            if self.found(region).len() as u64 >= counted || is_at_rest() {
                return Ok(counted);
            }
        }
    }

    /// Whether nothing that was found can have been given back.
    fn is_current(&self, arena: &Arena) -> bool {
        self.is_known && arena.control().layout().load(Ordering::Acquire) == self.layout
    }

    /// Looks at all headers.
    fn look(&mut self, arena: &Arena) -> Result<()> {
        let regions = arena.geo.regions;
        let mut data = std::mem::take(&mut self.data);
        data.resize_with(regions as usize, Vec::new);
        data.iter_mut().for_each(Vec::clear);
        *self = Self { layout: arena.control().layout().load(Ordering::Acquire), data, ..Self::default() };
        self.tables = (0..regions)
            .map(|region| (region, arena.shape(region)))
            .map(|(region, shape)| (shape.offset()..shape.offset().saturating_add(shape.bytes()), region))
            .collect();
        self.tables.sort_unstable_by_key(|(table, _)| table.start);
        let ends = self.tables.iter().scan(0, |end, (table, _)| {
            *end = table.end.max(*end);
            Some(*end)
        });
        self.ends = ends.collect();
        self.go_on(arena)
    }

    /// Looks at the headers behind the last one.
    fn go_on(&mut self, arena: &Arena) -> Result<()> {
        self.is_known = false; // Until the look has ended.
        self.units = arena.control().units().load(Ordering::SeqCst);
        let from = self.reached;
        for region in self.unsure.drain(..) {
            if let Some(data) = self.data.get_mut(region as usize) {
                data.retain(|extent| extent.unit < from.unit);
            }
        }
        let (data, unsure, index_bytes) = (&mut self.data, &mut self.unsure, &mut self.index_bytes);
        self.reached = arena.each_extent_from(from, |extent| {
            if extent.kind.is_some() {
                unsure.clear();
            }
            if extent.kind == Some(ExtentKind::Index) {
                let range = extent.range(&arena.geo);
                index_bytes.push(range.start + EXTENT_HEADER_BYTES..range.end);
            }
            let Some(region) = arena.owner_of(extent) else { return };
            if let Some(of_region) = data.get_mut(region as usize) {
                of_region.push(*extent);
                if extent.kind.is_none() {
                    unsure.push(region);
                }
            }
        })?;
        self.is_known = true;
        Ok(())
    }

    /// Whether the table of `shape` can be `region`'s, as by [`Arena::table_is_sound`], and as far as the tables of the other regions
    /// have not moved since the look.
    pub(crate) fn table_is_sound(&mut self, arena: &Arena, region: u32, shape: &Shape) -> Result<bool> {
        if shape.lines_log2 > LINES_LOG2_MAX {
            return Ok(false);
        }
        if shape.offset() == arena.geo.first_index_offset(region) {
            return Ok(shape.lines_log2 == FIRST_LINES_LOG2);
        }
        let table = shape.offset()..shape.offset() + shape.bytes();
        if !self.may_hold(&table) {
            // The table may have moved since.
            if !self.is_current(arena) {
                self.look(arena)?;
            } else if arena.control().units().load(Ordering::SeqCst) != self.units {
                self.go_on(arena)?;
            }
        }
        let behind = self.tables.partition_point(|(other, _)| other.start < table.end);
        let overlaps = |&(_, other): &(Range<u64>, u32)| {
            let now = arena.shape(other);
            other != region && now.offset() < table.end && table.start < now.offset() + now.bytes()
        };
        let before = self.tables[..behind].iter().zip(&self.ends[..behind]).rev();
        let is_alone = !before.take_while(|(_, end)| **end > table.start).any(|(other, _)| overlaps(other));
        let is_alone = is_alone && !arena.has_board_in(&table);
        Ok(self.may_hold(&table) && is_alone && arena.words(table.end - 8, 1).is_some())
    }

    /// Whether a table may have these bytes.
    fn may_hold(&self, table: &Range<u64>) -> bool {
        let next = self.index_bytes.partition_point(|bytes| bytes.end < table.end);
        self.index_bytes.get(next).is_some_and(|bytes| bytes.start <= table.start && table.end <= bytes.end)
    }
}
