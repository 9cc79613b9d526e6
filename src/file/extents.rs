//! The extents of a file, in order, as their headers tell them.
//!
//! In a store whose extents grow, an extent has a copy of its header at its end:
//!
//! 1. An extent is what its header says, if the copy says the same.
//! 2. If only one of them is there, it is believed, unless it hides the header of an extent behind it.
//! 3. If they contradict each other, one of them was forged. The extents behind it, the numbers before it, and its slots tell which.
//! 4. If both are lost, the next header or copy in the file ends the gap. Slots are numbered in the order of the file, so the numbers
//!    of the slots in the gap follow from those beside it.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;

use crate::file::survey::{SlotState, survey};
use crate::format::extent::{Extent, ExtentHeader, ExtentKind, HEADER_WORDS, NO_CLASS};
use crate::format::geometry::{EXTENT_HEADER_BYTES, Geometry};
use crate::format::region::{CLASS_WORDS, ClassWords, HEAD_WORDS, Head};
use crate::sys::atomic::Ordering;
use crate::sys::file;
use crate::sys::mapping::Mapping;

/// The end of the extents that were passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The unit behind them.
    pub(crate) unit: u32,
    /// The group of slot numbers behind theirs.
    pub(crate) group: u32,
    /// Whether there are some whose numbers are out of order.
    pub(crate) has_strays: bool,
}

impl Reached {
    /// Without this extent.
    pub(crate) fn before(extent: &Extent) -> Self {
        Self { unit: extent.unit, group: extent.group, has_strays: extent.is_stray }
    }

    /// With this extent too.
    pub(crate) fn with(self, extent: &Extent, geometry: &Geometry) -> Self {
        let group = if extent.is_stray { self.group } else { extent.end_group(geometry) };
        Self { unit: extent.end(), group, has_strays: self.has_strays || extent.is_stray }
    }
}

/// The extents that a handle knows, so that a growth need not look at all of them again.
#[derive(Default)]
pub(crate) struct Extents {
    /// The extents before it are in use.
    pub(super) cursor: Reached,
    /// Unused units among them, which a loss of power left, if extents grow.
    pub(super) gaps: Vec<Extent>,
    /// The groups of those whose numbers are out of order.
    pub(super) strays: Vec<Range<u32>>,
    /// The layout of the file when they were looked at: see `format::control`.
    pub(super) layout: u64,
    /// Slots among them, by region and class.
    pub(super) slots: HashMap<(u32, u32), u64>,
    /// The index extents among them.
    pub(super) index_runs: Vec<Range<u32>>,
    /// The data extents among them, by region.
    pub(super) data: HashMap<u32, Vec<Extent>>,
}

impl Extents {
    /// Notes an extent in use.
    pub(super) fn add(&mut self, extent: &Extent, geo: &Geometry) {
        match extent.kind {
            Some(ExtentKind::Index) => self.index_runs.push(extent.unit..extent.end()),
            Some(ExtentKind::Data { region }) => {
                if extent.is_stray {
                    self.strays.push(extent.group..extent.end_group(geo));
                }
                *self.slots.entry((region, extent.class)).or_default() += u64::from(extent.slots);
                self.data.entry(region).or_default().push(*extent);
            }
            None => {}
        }
    }
}

/// A mapped file, for a look at its extents.
#[derive(Clone, Copy)]
pub(crate) struct Headers<'a> {
    pub(crate) map: &'a Mapping,
    pub(crate) geo: &'a Geometry,
    /// The number that ties the headers to the store.
    pub(crate) tag: u64,
    /// The file, to pass over holes. On a file system in memory, reading a hole takes memory.
    pub(crate) file: Option<&'a File>,
}

/// Numbers out of order are those of at most so many groups for each unit of the file. An extent has no more groups than units, and the
/// first numbers that no other extent has are taken, so this leaves room between them.
pub(crate) const GROUPS_PER_UNIT_MAX: u64 = 2;
/// A search for a header passes over a hole after so many units.
const UNITS_AT_ONCE: u32 = 64;

impl Headers<'_> {
    fn words(&self, offset: u64) -> Option<[u64; HEADER_WORDS]> {
        let words = self.map.words(offset, HEADER_WORDS)?;
        let mut copy = [0; HEADER_WORDS];
        for (to, from) in copy.iter_mut().zip(words) {
            *to = from.load(Ordering::Acquire);
        }
        Some(copy)
    }

    /// The extent whose header lies at the beginning of `unit`.
    pub(crate) fn at(&self, unit: u32) -> Option<Extent> {
        let words = self.words(self.geo.unit_offset(unit))?;
        ExtentHeader::parse(&words, self.tag, self.geo, unit).filter(|extent| self.has_numbers(extent))
    }

    /// Whether the numbers of an extent are so low that a growth can have given them. So a forged header can't use up all of them.
    fn has_numbers(&self, extent: &Extent) -> bool {
        let units = u64::from(self.geo.units_in(self.map.len()));
        !extent.is_stray || u64::from(extent.end_group(self.geo)) <= units * GROUPS_PER_UNIT_MAX
    }

    /// The extent the copy of whose header lies at the end of the page before `unit`.
    pub(crate) fn twin_before(&self, unit: u32) -> Option<Extent> {
        self.twin_at(self.geo.unit_offset(unit) - EXTENT_HEADER_BYTES)
    }

    /// The extent the copy of whose header lies at this offset, where it must lie.
    fn twin_at(&self, offset: u64) -> Option<Extent> {
        let twin = ExtentHeader::parse_twin(&self.words(offset)?, self.tag, self.geo)?;
        let is_here = twin_offset(self.geo, &twin, twin.kind?) == Some(offset);
        (is_here && self.has_numbers(&twin)).then_some(twin)
    }

    /// The extent that is told where the copy of this one's header must be.
    pub(crate) fn twin_of(&self, extent: &Extent) -> Option<Extent> {
        self.twin_at(twin_offset(self.geo, extent, extent.kind?)?)
    }

    /// The extent behind those that were passed, in a file of `end` units; without a kind, if no header and no copy of one tells it.
    pub(crate) fn next(&self, passed: Reached, end: u32) -> Option<Extent> {
        if passed.unit >= end {
            return None;
        }
        let geo = self.geo;
        let told = self.at(passed.unit);
        if !geo.grows {
            return Some(told.unwrap_or(uniform(geo, passed.unit)));
        }
        let is_whole =
            |extent: &Extent| extent.end() <= end && (extent.is_stray || extent.group >= passed.group);
        if let Some(extent) = told.filter(is_whole)
            && self.twin_of(&extent) == Some(extent)
        {
            return Some(extent);
        }
        let found = self.search(passed, end, is_whole);
        // A header is written before those behind it. If one behind it was seen, it may be there by now.
        Some(match self.at(passed.unit).filter(is_whole) {
            None => found,
            Some(told) if found.kind.is_some() => self.choose(passed, told, found),
            // Its copy was lost, or not yet written.
            Some(told) if told.end() <= found.end() => told,
            Some(told) => {
                let hidden = self.at(found.end());
                let is_sure = hidden.is_some_and(|hidden| self.twin_of(&hidden) == Some(hidden));
                if is_sure { found } else { told }
            }
        })
    }

    /// The extent that is behind those that were passed, if its header and the copy of it contradict each other.
    fn choose(&self, passed: Reached, header: Extent, twin: Extent) -> Extent {
        if header.run != twin.run {
            // A header lies at the end of the shorter one, if the longer one is forged. Else the place of the copy tells.
            let (short, long) = if header.run < twin.run { (header, twin) } else { (twin, header) };
            let next =
                self.at(short.end()).filter(|next| next.is_stray || next.group >= short.end_group(self.geo));
            return if next.is_some_and(|next| next.end() < long.end()) { short } else { twin };
        }
        if header.group != twin.group {
            let is_next = |extent: &Extent| extent.group == passed.group;
            let (low, high) = if header.group < twin.group { (header, twin) } else { (twin, header) };
            return if is_next(&high) { high } else { low };
        }
        let (of_header, of_twin) = (self.weight(&header), self.weight(&twin));
        match (header.kind, twin.kind) {
            (Some(ExtentKind::Index), Some(ExtentKind::Index)) => header,
            (Some(ExtentKind::Index), _) => {
                if of_twin > 0 || !self.holds_table(&header) {
                    twin
                } else {
                    header
                }
            }
            (_, Some(ExtentKind::Index)) => {
                if of_header > 0 || !self.holds_table(&twin) {
                    header
                } else {
                    twin
                }
            }
            // Free slots of one length lie where those of half that length do.
            _ if (of_twin, twin.class) > (of_header, header.class) => twin,
            _ => header,
        }
    }

    /// How much the slots of an extent show that it is what it is said to be. More than 0, if they show it.
    pub(crate) fn weight(&self, extent: &Extent) -> i64 {
        /// So many slots show enough.
        const LOOKS: u32 = 1024;
        let Some(region) = extent.region() else { return 0 };
        let words = (extent.slot_size(self.geo) / 8) as usize;
        let mut buffer = Vec::new();
        let mut of_slot = |within: u32| {
            let slot = self.map.words(extent.slot_at(self.geo, within), words)?;
            Some(match survey(slot, region, self.geo, &mut buffer) {
                SlotState::Version(header) if self.geo.class_for(header.len()) == extent.class => 3,
                SlotState::Version(_) | SlotState::Tombstone(_) | SlotState::Free => 2,
                SlotState::Damaged(..) => -1,
                _ => 0,
            })
        };
        let by_slots: i64 = (0..extent.slots.min(LOOKS)).filter_map(&mut of_slot).sum();
        let class =
            self.map.words(self.geo.class_offset(region, extent.class), CLASS_WORDS).and_then(ClassWords::of);
        let fresh = class.and_then(|class| class.fresh.load(Ordering::Relaxed).slot().ok().flatten());
        by_slots + i64::from(fresh.is_some_and(|slot| extent.slot_numbers(self.geo).contains(&slot)))
    }

    /// Whether a region's index table lies in an extent.
    fn holds_table(&self, extent: &Extent) -> bool {
        let range = extent.range(self.geo);
        (0..self.geo.regions).any(|region| {
            let head = self.map.words(self.geo.head_offset(region), HEAD_WORDS).and_then(Head::of);
            head.is_some_and(|head| range.contains(&head.shape().load(Ordering::Acquire).offset()))
        })
    }

    /// The extent by the copy of its header or, up to the next header or copy of one, a gap.
    fn search(&self, passed: Reached, end: u32, is_whole: impl Fn(&Extent) -> bool) -> Extent {
        let mut unit = passed.unit.max(self.first_written(passed.unit).saturating_sub(1));
        while unit < end {
            unit += 1;
            if let Some(twin) = self.twin_before(unit).filter(|twin| twin.unit < unit && is_whole(twin)) {
                if twin.unit == passed.unit {
                    return twin;
                }
                if twin.unit > passed.unit {
                    return self.gap(passed, twin.unit, Some(twin));
                }
            }
            if unit < end
                && let Some(next) = self.at(unit).filter(&is_whole)
            {
                let twin = self.twin_of(&next).filter(|twin| twin.unit == unit && is_whole(twin));
                let lower = twin.filter(|twin| twin.is_stray || twin.group < next.group);
                return self.gap(passed, unit, Some(lower.unwrap_or(next)));
            }
            if unit.is_multiple_of(UNITS_AT_ONCE) {
                unit = unit.max(self.first_written(unit).min(end) - 1);
            }
        }
        self.gap(passed, end, None)
    }

    /// Data extents inside of an extent that is said to hold index tables, by their headers or by the copies of these.
    pub(crate) fn inside(&self, extent: &Extent) -> Vec<Extent> {
        let mut found: Vec<Extent> = Vec::new();
        for unit in extent.unit..extent.end() {
            let twin =
                || self.twin_before(unit + 1).filter(|twin| self.geo.grows && twin.unit >= extent.unit);
            let own = (unit > extent.unit).then(|| self.at(unit)).flatten();
            let told = own.or_else(twin).filter(|told| told.region().is_some() && told.end() <= extent.end());
            if let Some(told) = told.filter(|told| !found.contains(told)) {
                found.push(told);
            }
        }
        found
    }

    /// The first unit from this one on that is not a hole, as far as the file system knows.
    pub(crate) fn first_written(&self, unit: u32) -> u32 {
        let offset = self.geo.unit_offset(unit);
        let at = self.file.map_or(offset, |file| file::first_data(file, offset));
        unit.max(self.geo.units_in(at))
    }

    /// The units before `end` that no header tells. `next`: the extent behind them.
    fn gap(&self, passed: Reached, end: u32, next: Option<Extent>) -> Extent {
        let run = end - passed.unit;
        let slots = match next {
            // Nothing tells which numbers lie before one that is out of order, and which are left by those that are.
            Some(next) if next.is_stray => 0,
            Some(next) => self.geo.slots_of_groups(next.group - passed.group),
            None if passed.has_strays => 0,
            None => self.geo.slots_in(run, self.geo.class_size(0)),
        };
        let (unit, group) = (passed.unit, passed.group);
        Extent { unit, run, group, kind: None, slots, class: NO_CLASS, is_stray: false }
    }

    /// What a gap is, if it was one extent: for each class of slots that it may have had. `is_last`: no header follows it, so the
    /// numbers of its slots do not tell how many they were.
    pub(crate) fn may_have_been(&self, gap: Extent, is_last: bool) -> impl Iterator<Item = Extent> {
        let geo = self.geo;
        let groups = geo.groups_for(gap.slots);
        (0..geo.classes).map(move |class| (class, geo.slots_in(gap.run, geo.class_size(class)))).filter_map(
            move |(class, slots)| {
                let fits = slots > 0 && (is_last || geo.groups_for(slots) == groups);
                fits.then_some(Extent { class, slots, ..gap })
            },
        )
    }
}

/// The extent with this number in a store of uniform extents, if no header says that it holds index tables.
pub(crate) fn uniform(geo: &Geometry, unit: u32) -> Extent {
    let slots = geo.slots_in(1, geo.slot_size);
    Extent { unit, run: 1, group: unit, kind: None, slots, class: 0, is_stray: false }
}

/// Where the copy of an extent's header lies: before its links or, if it holds index tables, at its end. There is none in a store
/// of uniform extents.
pub(crate) fn twin_offset(geo: &Geometry, extent: &Extent, kind: ExtentKind) -> Option<u64> {
    let range = extent.range(geo);
    let end = match kind {
        ExtentKind::Data { .. } => range.start + extent.filled_bytes(geo),
        ExtentKind::Index => range.end,
    };
    geo.grows.then(|| end - EXTENT_HEADER_BYTES)
}

/// Units of an extent for an index table of so many bytes.
pub(crate) fn index_run(geo: &Geometry, bytes: u64) -> u32 {
    let headers = if geo.grows { 2 * EXTENT_HEADER_BYTES } else { EXTENT_HEADER_BYTES };
    (bytes + headers).div_ceil(geo.unit).try_into().unwrap_or(u32::MAX)
}
