//! The extent header: the kind of an extent, and its region.

use std::mem::offset_of;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::geometry::{FILE_SIZE_MAX, GROUPS_MAX, Geometry};

const MAGIC: u64 = u64::from_le_bytes(*b"rec-extn");
/// The magic of the copy of a header at the end of an extent that grew.
const TWIN: u64 = u64::from_le_bytes(*b"rec-twin");

/// The `kind` of a data extent's header, and of an index extent's.
const DATA: u64 = 1;
const INDEX: u32 = 2;

/// The bit in the `class` of a header that says that the numbers of the slots are out of the order of the file.
const STRAY: u32 = 1 << 31;

/// The content of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    /// Slots of one region.
    Data {
        /// The region.
        region: u32,
    },
    /// Index tables.
    Index,
}

/// No class: that of an extent without a header whose slots are not known.
pub(crate) const NO_CLASS: u32 = u32::MAX;

/// An extent: a run of units of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Its first unit, which is its number.
    pub(crate) unit: u32,
    /// Units.
    pub(crate) run: u32,
    /// The first group of its slot numbers. Index tables have no slots: it is the group of the next extent.
    pub(crate) group: u32,
    /// Its content, or `None` if no header says it.
    pub(crate) kind: Option<ExtentKind>,
    /// The number of its slots. Of an extent without a header, whose class is not known: how many numbers they may have.
    pub(crate) slots: u32,
    /// The class of its slots. 0, if it has index tables; [`NO_CLASS`], if nothing tells it.
    pub(crate) class: u32,
    /// Whether the numbers of its slots are out of the order of the file. It has the place of extents that were given back.
    pub(crate) is_stray: bool,
}

impl Extent {
    /// The numbers of its slots.
    pub(crate) fn slot_numbers(&self, geometry: &Geometry) -> Range<u32> {
        let first = geometry.first_of_group(self.group);
        first..first.saturating_add(self.slots)
    }

    /// What is left of a gap, if so many of its first units and groups are taken.
    pub(crate) fn without(&self, geometry: &Geometry, units: u32, groups: u32) -> Self {
        let slots = self.slots.saturating_sub(geometry.slots_of_groups(groups));
        let (run, group) = (self.run.saturating_sub(units), self.group.saturating_add(groups));
        Self { unit: self.unit.saturating_add(units), run, group, slots, ..*self }
    }

    /// The unit behind it.
    pub(crate) fn end(&self) -> u32 {
        self.unit.saturating_add(self.run)
    }

    /// The group behind those of its slots.
    pub(crate) fn end_group(&self, geometry: &Geometry) -> u32 {
        self.group.saturating_add(geometry.groups_for(self.slots))
    }

    /// The region whose slots it holds, by its header.
    pub(crate) fn region(&self) -> Option<u32> {
        match self.kind {
            Some(ExtentKind::Data { region }) => Some(region),
            _ => None,
        }
    }

    /// Bytes of each of its slots.
    pub(crate) fn slot_size(&self, geometry: &Geometry) -> u64 {
        geometry.class_size(self.class)
    }

    /// Its bytes that always have blocks: all but the pages of links.
    pub(crate) fn filled_bytes(&self, geometry: &Geometry) -> u64 {
        geometry.filled_bytes(u64::from(self.slots), self.slot_size(geometry))
    }

    /// The place of its slots that is `within`.
    pub(crate) fn slot_at(&self, geometry: &Geometry, within: u32) -> u64 {
        geometry.slot_within(self.unit, within, self.slot_size(geometry))
    }

    /// Offset of the extent in the file, and its bytes.
    pub(crate) fn range(&self, geometry: &Geometry) -> Range<u64> {
        let at = geometry.unit_offset(self.unit);
        at..at + u64::from(self.run) * geometry.unit
    }
}

/// The place of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The first unit of its extent.
    pub(crate) unit: u32,
    /// Units of its extent.
    pub(crate) run: u32,
    /// Slots of its extent.
    pub(crate) slots: u32,
    /// Bytes of a slot.
    pub(crate) slot_size: u64,
    /// Its number in the extent, from 0 on.
    pub(crate) within: u32,
}

/// An extent header's bytes. `crc` is CRC-32 (IEEE) of all bytes before it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ExtentHeader {
    magic: u64,
    store: u64,
    unit: u32,
    kind: u32,
    region: u32,
    record_size: u32,
    slots_code: u32,
    regions: u32,
    hash_key: u64,
    run: u32,
    group: u32,
    class: u32,
    crc: u32,
}

const _: () = assert!(
    offset_of!(ExtentHeader, unit) == 16
        && offset_of!(ExtentHeader, kind) == 20
        && offset_of!(ExtentHeader, region) == 24
);

/// 8-byte words of an extent header.
pub(crate) const HEADER_WORDS: usize = size_of::<ExtentHeader>() / 8;
const _: () = assert!(size_of::<ExtentHeader>() == 64);

impl ExtentHeader {
    /// The header of an extent whose kind is known. It repeats the geometry, for salvage.
    pub(crate) fn new(store: u64, geometry: &Geometry, extent: &Extent, kind: ExtentKind) -> Self {
        let (kind, region) = match kind {
            ExtentKind::Data { region } => (DATA as u32, region),
            ExtentKind::Index => (INDEX, 0),
        };
        let mut h = Self {
            magic: MAGIC,
            store,
            unit: extent.unit,
            kind,
            region,
            record_size: geometry.record_size,
            slots_code: geometry.slots_code(),
            regions: geometry.regions,
            hash_key: geometry.hash_key,
            run: extent.run,
            group: extent.group,
            class: extent.class | if extent.is_stray { STRAY } else { 0 },
            crc: 0,
        };
        h.crc = h.sum();
        h
    }

    /// The copy of the header that lies at the end of an extent that grew.
    pub(crate) fn twin(mut self) -> Self {
        self.magic = TWIN;
        self.crc = self.sum();
        self
    }

    fn sum(&self) -> u32 {
        crc32fast::hash(&bytemuck::bytes_of(self)[..size_of::<Self>() - 4])
    }

    /// The header as words, in the order in which they are stored.
    pub(crate) fn words(&self) -> [u64; HEADER_WORDS] {
        bytemuck::cast(*self)
    }

    /// The geometry that the words tell, if they are any store's extent header, and the extent's first unit. The ceiling of the
    /// file's size is not told: it is taken to be the highest.
    pub(crate) fn geometry(words: &[u64; HEADER_WORDS]) -> Option<(Geometry, u32)> {
        let h: Self = bytemuck::cast(*words);
        if h.magic != MAGIC || h.crc != h.sum() {
            return None;
        }
        let slots_log2 = Geometry::slots_of_code(h.slots_code);
        let (record_size, key) = (u64::from(h.record_size), h.hash_key);
        let geometry = Geometry::new(record_size, slots_log2, h.regions, FILE_SIZE_MAX, key).ok()?;
        Some((geometry, h.unit))
    }

    /// The number that ties the header to its store, whatever else its words say.
    pub(crate) fn store(words: &[u64; HEADER_WORDS]) -> u64 {
        bytemuck::cast_ref::<_, Self>(words).store
    }

    /// Whether the third and the fourth word of a header say that the extent at `unit` holds slots of `region`.
    #[inline]
    pub(crate) fn says_data_of(third: u64, fourth: u64, unit: u32, region: u32) -> bool {
        third == u64::from(unit) | DATA << 32 && fourth as u32 == region
    }

    /// The extent at `unit` by these words, or `None` if they are not its header.
    pub(crate) fn parse(
        words: &[u64; HEADER_WORDS],
        store: u64,
        geometry: &Geometry,
        unit: u32,
    ) -> Option<Extent> {
        Self::parse_as(MAGIC, words, store, geometry).filter(|extent| extent.unit == unit)
    }

    /// The extent whose header these words are the copy of, if they are one.
    pub(crate) fn parse_twin(words: &[u64; HEADER_WORDS], store: u64, geometry: &Geometry) -> Option<Extent> {
        Self::parse_as(TWIN, words, store, geometry)
    }

    fn parse_as(magic: u64, words: &[u64; HEADER_WORDS], store: u64, geometry: &Geometry) -> Option<Extent> {
        let h: Self = bytemuck::cast(*words);
        if h.magic != magic || h.store != store || h.crc != h.sum() {
            return None;
        }
        let is_possible = h.run > 0
            && u64::from(h.unit) + u64::from(h.run) <= u64::from(geometry.units_max())
            && (geometry.grows || h.group == h.unit && h.class & STRAY == 0);
        let (class, is_stray) = (h.class & !STRAY, h.class & STRAY != 0);
        let extent = |kind, slots| {
            let (unit, run, group) = (h.unit, h.run, h.group);
            Extent { unit, run, group, kind: Some(kind), slots, class, is_stray }
        };
        let extent = match h.kind {
            _ if !is_possible => return None,
            data if u64::from(data) == DATA && h.region < geometry.regions && class < geometry.classes => {
                let is_one = geometry.grows || h.run == 1;
                let slots = if is_one { geometry.slots_in(h.run, geometry.class_size(class)) } else { 0 };
                extent((slots > 0).then_some(ExtentKind::Data { region: h.region })?, slots)
            }
            INDEX if h.region == 0 && h.class == 0 => extent(ExtentKind::Index, 0),
            _ => return None,
        };
        // No extent has more groups than units. So a forged number can't use up those of all later extents.
        // Numbers out of order are bounded where the length of the file is known.
        let has_numbers = (extent.is_stray
            || extent.group <= extent.unit && extent.end_group(geometry) <= extent.end())
            && extent.end_group(geometry) <= GROUPS_MAX;
        (!geometry.grows || has_numbers).then_some(extent)
    }
}
