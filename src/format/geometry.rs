//! The numbers that fix where everything lies, and the arithmetic on them.
//!
//! A `Geometry` is valid by construction: [`Geometry::new`] checks every bound, so no offset that
//! is computed from one overflows.

use super::{PAGE_BYTES, hash, round_up, seat, slot};

/// Largest record capacity in bytes: 1 GiB less one slot header, so that a length fits into 30 bits.
pub(crate) const RECORD_SIZE_MAX: u64 = (1 << 30) - slot::HEADER_BYTES;
/// Largest number of regions.
pub(crate) const REGIONS_MAX: u32 = 1 << 14;
/// Largest ceiling of the file's size: 2^32 pages of 4096 bytes, 16 TiB.
pub(crate) const FILE_SIZE_MAX: u64 = 1 << 44;
/// Bytes of an extent header.
pub(crate) const EXTENT_HEADER_BYTES: u64 = 64;
/// Bytes of a region head.
pub(crate) const HEAD_BYTES: u64 = 256;
/// Bytes of a region's words for a class of slots.
pub(crate) const CLASS_BYTES: u64 = 16;
/// Bytes of links per slot.
pub(crate) const LINK_BYTES: u64 = 16;
/// Bytes of the first index table of a region.
pub(crate) const FIRST_INDEX_BYTES: u64 = PAGE_BYTES;

/// Offset of the second superblock.
pub(crate) const SUPERBLOCK_B: u64 = seat::SEATS_OFFSET + seat::SEATS as u64 * seat::SEAT_BYTES;
/// Offset of the region table.
pub(crate) const REGION_TABLE: u64 = SUPERBLOCK_B + PAGE_BYTES;

/// log2 of the slot numbers in a group, in a store whose extents grow.
pub(crate) const GROUP_LOG2: u32 = 8;
/// The code for extents that grow, where a header gives the log2 of the slots of an extent.
const GROWING: u32 = 0xff;
/// Most groups of slot numbers: a number has 32 bits, and the last ones mean none.
pub(crate) const GROUPS_MAX: u32 = (1 << (32 - GROUP_LOG2)) - 1;
/// Maximum bytes of a data extent that grew, if a slot is not longer.
const GROWN_BYTES_MAX: u64 = 4 << 20;
/// A region's next extent of a class has room for this part of the slots that it has of the class.
const GROWTH_PART: u64 = 8;
/// From so many bytes of slots of a class on, it is half of that part.
const LARGE_BYTES: u64 = 1 << 20;
/// Slots of at least so many bytes have their links right behind them, in the extents that grow.
const LINKS_INSIDE_FROM: u64 = 256;

/// Bytes of the shortest slot of a class.
const SHORTEST: u64 = 64;
/// Slots of at most so many bytes are of classes in steps of 32 bytes.
const FINE_BYTES: u64 = 256;
/// The classes of slots up to [`FINE_BYTES`].
const FINE_CLASSES: u32 = ((FINE_BYTES - SHORTEST) / slot::SLOT_ALIGN) as u32 + 1;
/// log2 of the longest slot of a class.
const LONGEST_LOG2: u32 = 30;
/// Classes of slots of all lengths.
const CLASSES: usize = FINE_CLASSES as usize + classes_before(LONGEST_LOG2) as usize;

/// log2 of the classes of slots that are longer than 2^`log2` bytes and not longer than twice that.
const fn steps_log2(log2: u32) -> u32 {
    if 9 <= log2 && log2 < 16 { 3 } else { 2 }
}

/// Classes of slots that are longer than [`FINE_BYTES`] and not longer than 2^`log2` bytes.
const fn classes_before(log2: u32) -> u32 {
    let (mut classes, mut at) = (0, FINE_BYTES.ilog2());
    while at < log2 {
        classes += 1 << steps_log2(at);
        at += 1;
    }
    classes
}

/// The first class of the slots that are longer than each power of two.
const FIRST_CLASS: [u32; LONGEST_LOG2 as usize] = {
    let mut first = [0; LONGEST_LOG2 as usize];
    let mut log2 = FINE_BYTES.ilog2();
    while log2 < LONGEST_LOG2 {
        first[log2 as usize] = FINE_CLASSES + classes_before(log2);
        log2 += 1;
    }
    first
};

/// Bytes of the slots of each class.
const CLASS_SIZES: [u64; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < FINE_CLASSES {
        sizes[class as usize] = SHORTEST + class as u64 * slot::SLOT_ALIGN;
        class += 1;
    }
    let mut log2 = FINE_BYTES.ilog2();
    while log2 < LONGEST_LOG2 {
        let steps = 1 << steps_log2(log2);
        let mut step = 1;
        while step <= steps {
            sizes[class as usize] = (1 << log2) + ((1 << log2) >> steps_log2(log2)) * step;
            class += 1;
            step += 1;
        }
        log2 += 1;
    }
    sizes
};

/// The first class with slots of at least so many bytes, a multiple of their alignment.
#[inline]
fn class_of(slot: u64) -> u32 {
    if slot <= FINE_BYTES {
        return (slot.saturating_sub(SHORTEST) / slot::SLOT_ALIGN) as u32;
    }
    let log2 = (slot - 1).ilog2();
    let steps_log2 = steps_log2(log2);
    let step = ((slot - 1) >> (log2 - steps_log2)) as u32 & ((1 << steps_log2) - 1);
    FIRST_CLASS.get(log2 as usize).map_or(CLASSES as u32, |first| first + step)
}

/// Sizes and counts of one store, fixed at its creation.
///
/// Extents begin at multiples of a *unit* behind the base, and take whole units. They are of two kinds:
///
/// * *Growing*, the usual kind: a unit is a page. Slots are of *classes*, each of its own size: a record lies in a slot of the first
///   class that is long enough. An extent has slots of one class. A region's first extent of a class is a page of slots. Later ones
///   have room for an eighth of the slots that the region has of the class, or a sixteenth if these take 1 MiB. Slots are numbered
///   in groups of 256: an extent has whole groups.
/// * *Uniform*, if the options name a number of slots: a unit is an extent, all slots are of one size, and a slot's place follows from
///   its number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Capacity of a record, in bytes.
    pub(crate) record_size: u32,
    /// log2 of the slots in an extent or, if extents grow, in a group.
    pub(crate) slots_log2: u32,
    /// Whether extents grow.
    pub(crate) grows: bool,
    /// Number of regions.
    pub(crate) regions: u32,
    /// Ceiling of the file's size, in bytes.
    pub(crate) max_size: u64,
    /// Key of the id hash.
    pub(crate) hash_key: u64,
    // Derived.
    /// Bytes of the longest slot.
    pub(crate) slot_size: u64,
    /// Classes of slots.
    pub(crate) classes: u32,
    /// Bytes of a unit.
    pub(crate) unit: u64,
    /// File offset of the class table.
    pub(crate) class_table: u64,
    pub(crate) base: u64,
}

impl Geometry {
    /// The geometry of these numbers, or the reason why they are refused. `slots_log2`: `None` if extents grow.
    pub(crate) fn new(
        record_size: u64,
        slots_log2: Option<u32>,
        regions: u32,
        max_size: u64,
        hash_key: u64,
    ) -> Result<Self, String> {
        if record_size == 0 || record_size > RECORD_SIZE_MAX {
            return Err(format!("record size {record_size}: it must be 1 to {RECORD_SIZE_MAX} bytes"));
        }
        if regions == 0 || regions > REGIONS_MAX {
            return Err(format!("{regions} regions: there must be 1 to {REGIONS_MAX}"));
        }
        if let Some(slots_log2) = slots_log2.filter(|&log2| log2 > 24) {
            return Err(format!("2^{slots_log2} slots per extent: at most 2^24"));
        }
        if max_size > FILE_SIZE_MAX {
            return Err(format!("maximum size {max_size}: at most {FILE_SIZE_MAX} bytes (16 TiB)"));
        }
        let slot_size = round_up(slot::HEADER_BYTES + record_size, slot::SLOT_ALIGN);
        let classes = if slots_log2.is_none() { class_of(slot_size) + 1 } else { 1 };
        let mut geometry = Self {
            record_size: record_size as u32,
            slots_log2: slots_log2.unwrap_or(GROUP_LOG2),
            grows: slots_log2.is_none(),
            regions,
            max_size,
            hash_key,
            slot_size,
            classes,
            unit: PAGE_BYTES,
            class_table: REGION_TABLE + round_up(u64::from(regions) * HEAD_BYTES, PAGE_BYTES),
            base: 0,
        };
        if let Some(slots_log2) = slots_log2 {
            let slots = 1u64 << slots_log2;
            geometry.unit = geometry.extent_bytes(slots, slot_size);
        }
        geometry.base = geometry.first_index_offset(regions);
        let base = geometry.base;
        let least = u64::from(geometry.run_for(1, slot_size)) * geometry.unit;
        if base + least > max_size {
            return Err(format!(
                "maximum size {max_size}: less than the {} bytes that one extent needs",
                base + least
            ));
        }
        Ok(geometry)
    }

    /// The kind of extents, as headers and superblocks give it: the log2 of the slots of an extent, or 255.
    pub(crate) fn slots_code(&self) -> u32 {
        if self.grows { GROWING } else { self.slots_log2 }
    }

    /// The log2 of the slots of an extent by the code in a header, or `None` if extents grow.
    pub(crate) fn slots_of_code(code: u32) -> Option<u32> {
        (code != GROWING).then_some(code)
    }

    /// The class of the slots for records of `len` bytes, which is at most the record size.
    #[inline]
    pub(crate) fn class_for(&self, len: usize) -> u32 {
        if self.grows { class_of(round_up(slot::HEADER_BYTES + len as u64, slot::SLOT_ALIGN)) } else { 0 }
    }

    /// Bytes of the slots of a class.
    #[inline]
    pub(crate) fn class_size(&self, class: u32) -> u64 {
        if self.grows {
            CLASS_SIZES.get(class as usize).map_or(self.slot_size, |&size| size.min(self.slot_size))
        } else {
            self.slot_size
        }
    }

    /// Whether the links of so many slots of this size lie right behind them. Else they lie in pages of their own, which are a hole
    /// until the region needs links: for many short slots that is less.
    #[inline]
    fn has_links_inside(&self, slots: u64, slot_size: u64) -> bool {
        self.grows && (slot_size >= LINKS_INSIDE_FROM || slots * LINK_BYTES <= PAGE_BYTES / 2)
    }

    /// Where the links begin in a data extent of so many slots of this size.
    #[inline]
    pub(crate) fn links_offset(&self, slots: u64, slot_size: u64) -> u64 {
        if self.has_links_inside(slots, slot_size) {
            EXTENT_HEADER_BYTES + slots * slot_size
        } else {
            self.filled_bytes(slots, slot_size)
        }
    }

    /// Bytes of such an extent that always have blocks: all but the pages of links.
    pub(crate) fn filled_bytes(&self, slots: u64, slot_size: u64) -> u64 {
        let links = if self.has_links_inside(slots, slot_size) { slots * LINK_BYTES } else { 0 };
        // In an extent that grew, the twin of its header lies at the end of them.
        let twin = if self.grows { EXTENT_HEADER_BYTES } else { 0 };
        round_up(EXTENT_HEADER_BYTES + slots * slot_size + links + twin, PAGE_BYTES)
    }

    /// Bytes of such an extent.
    pub(crate) fn extent_bytes(&self, slots: u64, slot_size: u64) -> u64 {
        let has_links_inside = self.has_links_inside(slots, slot_size);
        let links = if has_links_inside { 0 } else { round_up(slots * LINK_BYTES, PAGE_BYTES) };
        self.filled_bytes(slots, slot_size) + links
    }

    /// Slots of this size in a data extent of `run` units: as many as it has room for.
    pub(crate) fn slots_in(&self, run: u32, slot_size: u64) -> u32 {
        if !self.grows {
            return 1 << self.slots_log2;
        }
        let bytes = u64::from(run) * PAGE_BYTES;
        let most = (bytes / (slot_size + LINK_BYTES)).min(u64::from(GROUPS_MAX) << GROUP_LOG2);
        // Less than two pages are lost by rounding up, and two headers.
        let lost = (2 * PAGE_BYTES + 2 * EXTENT_HEADER_BYTES) / (slot_size + LINK_BYTES) + 1;
        let (mut low, mut high) = (most.saturating_sub(lost), most);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.extent_bytes(middle, slot_size) <= bytes { low = middle } else { high = middle - 1 }
        }
        low as u32
    }

    /// Units of the smallest data extent with so many slots of this size.
    pub(crate) fn run_for(&self, slots: u32, slot_size: u64) -> u32 {
        if !self.grows {
            return 1;
        }
        let slots = u64::from(slots);
        (self.extent_bytes(slots, slot_size) / PAGE_BYTES) as u32
    }

    /// Units of the next data extent of a region with so many slots of this size.
    pub(crate) fn next_run(&self, slots: u64, slot_size: u64) -> u32 {
        let most = GROWN_BYTES_MAX / (slot_size + LINK_BYTES);
        let is_large = slots.saturating_mul(slot_size) >= LARGE_BYTES;
        let part = if is_large { 2 * GROWTH_PART } else { GROWTH_PART };
        let wanted = (slots / part).min(most).max(1) as u32;
        self.run_for(wanted, slot_size)
    }

    /// Groups of numbers for so many slots.
    pub(crate) fn groups_for(&self, slots: u32) -> u32 {
        slots.div_ceil(1 << self.slots_log2)
    }

    /// Slot numbers in so many groups.
    pub(crate) fn slots_of_groups(&self, groups: u32) -> u32 {
        groups.saturating_mul(1 << self.slots_log2)
    }

    /// Units that fit under the ceiling and, if extents are uniform, into the space of slot numbers.
    pub(crate) fn units_max(&self) -> u32 {
        let by_size = ((self.max_size - self.base) / self.unit).min(u64::from(u32::MAX));
        let by_slots = (u64::from(u32::MAX) >> self.slots_log2) - 1;
        if self.grows { by_size as u32 } else { by_size.min(by_slots) as u32 }
    }

    /// Whole units in a file of `len` bytes.
    pub(crate) fn units_in(&self, len: u64) -> u32 {
        (len.saturating_sub(self.base) / self.unit).min(u64::from(self.units_max())) as u32
    }

    /// File offset of a unit.
    #[inline]
    pub(crate) fn unit_offset(&self, unit: u32) -> u64 {
        self.base + u64::from(unit) * self.unit
    }

    /// File offset of the slot of this size that is `within` in the extent that begins with `unit`.
    #[inline]
    pub(crate) fn slot_within(&self, unit: u32, within: u32, slot_size: u64) -> u64 {
        self.unit_offset(unit) + EXTENT_HEADER_BYTES + u64::from(within) * slot_size
    }

    /// In a store of uniform extents: the extent of a slot, and the slot's place in it.
    #[inline]
    pub(crate) fn uniform_place(&self, slot: u32) -> (u32, u32) {
        (slot >> self.slots_log2, slot & ((1 << self.slots_log2) - 1))
    }

    /// The first slot number of a group.
    pub(crate) fn first_of_group(&self, group: u32) -> u32 {
        group << self.slots_log2
    }

    /// File offset of a region's head.
    #[inline]
    pub(crate) fn head_offset(&self, region: u32) -> u64 {
        REGION_TABLE + u64::from(region) * HEAD_BYTES
    }

    /// File offset of a region's words for a class of slots. If extents are uniform, the words are in the head.
    #[inline]
    pub(crate) fn class_offset(&self, region: u32, class: u32) -> u64 {
        let nth = u64::from(region) * u64::from(self.classes) + u64::from(class);
        self.class_table + nth * CLASS_BYTES
    }

    /// File offset of a region's first index table.
    pub(crate) fn first_index_offset(&self, region: u32) -> u64 {
        let classes = if self.grows { self.regions * self.classes } else { 0 };
        self.class_table
            + round_up(u64::from(classes) * CLASS_BYTES, PAGE_BYTES)
            + u64::from(region) * FIRST_INDEX_BYTES
    }

    /// The hash of an id in this store.
    #[inline]
    pub(crate) fn hash(&self, id: u64) -> u64 {
        hash::hash(id, self.hash_key)
    }

    /// The region of a hash.
    #[inline]
    pub(crate) fn region_of(&self, hash: u64) -> u32 {
        hash::region(hash, self.regions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_byte_record_touches_two_cache_lines_in_every_slot() {
        for slots_log2 in [Some(8), None] {
            let g = Geometry::new(64, slots_log2, 1, 1 << 40, 0).unwrap();
            let size = g.class_size(g.class_for(64));
            assert_eq!(size, 96);
            for slot in 0..256 {
                let at = g.slot_within(3, slot, size);
                assert!((at + 95) / 64 - at / 64 <= 1, "slot {slot}");
            }
        }
    }

    #[test]
    fn parts_of_uniform_extents_do_not_overlap() {
        let g = Geometry::new(100, Some(3), 5, 1 << 30, 7).unwrap();
        assert_eq!(g.first_index_offset(4) + FIRST_INDEX_BYTES, g.base);
        let links_offset = g.links_offset(8, g.slot_size);
        assert!(g.slot_within(0, 7, g.slot_size) + g.slot_size <= g.unit_offset(0) + links_offset);
        assert!(links_offset + 8 * LINK_BYTES <= g.unit);
        assert_eq!(g.uniform_place(8), (1, 0));
    }

    #[test]
    fn the_class_of_a_record_has_the_first_size_that_is_long_enough() {
        for record_size in [1, 33, 64, 256, 1 << 20, 6_200_000, RECORD_SIZE_MAX] {
            let g = Geometry::new(record_size, None, 5, 1 << 40, 7).unwrap();
            let mut before = 0;
            for class in 0..g.classes {
                let size = g.class_size(class);
                assert!(size > before && size.is_multiple_of(32), "{record_size}: {size} after {before}");
                let most =
                    if (512..1 << 16).contains(&before) { before + before / 8 } else { before + before / 4 };
                assert!(before < 256 || size <= most, "{record_size}: {size} after {before}");
                let (first, last) = (before.saturating_sub(31), size - 32);
                for len in [first, last].map(|len| len.min(record_size) as usize) {
                    assert_eq!(g.class_for(len), class, "{record_size}: {len}");
                }
                before = size;
            }
            assert_eq!(g.class_size(g.class_for(record_size as usize)), g.slot_size);
            assert!(g.classes <= 1 << 7);
        }
    }

    #[test]
    fn a_grown_extent_has_as_many_slots_as_fit() {
        let g = Geometry::new(6_200_000, None, 5, 1 << 40, 7).unwrap();
        for size in (0..g.classes).map(|class| g.class_size(class)) {
            for run in g.run_for(1, size)..g.run_for(1, size) + 500 {
                let slots = g.slots_in(run, size);
                assert!(slots >= 1 && g.run_for(slots, size) <= run, "{size}, {run}");
                assert!(run < g.run_for(slots + 1, size), "{size}, {run}");
                let slots = u64::from(slots);
                let (links, filled) = (g.links_offset(slots, size), g.filled_bytes(slots, size));
                let twin = filled - EXTENT_HEADER_BYTES;
                assert!(EXTENT_HEADER_BYTES + slots * size <= twin.min(links), "{size}, {run}");
                let end = links + slots * LINK_BYTES;
                assert!(
                    end <= twin || links >= filled && end <= u64::from(run) * PAGE_BYTES,
                    "{size}, {run}"
                );
            }
        }
    }

    #[test]
    fn a_region_grows_by_an_eighth() {
        let g = Geometry::new(64, None, 5, 1 << 40, 7).unwrap();
        let (mut slots, mut extents) = (0, 0);
        while slots < 1 << 20 {
            let more = u64::from(g.slots_in(g.next_run(slots, 96), 96));
            assert!(more <= (slots / 8).max(1) + 64, "{more} for {slots}");
            (slots, extents) = (slots + more, extents + 1);
        }
        assert!(extents < 190, "{extents} extents");
        assert_eq!(g.next_run(0, 96), 1);
    }
}
