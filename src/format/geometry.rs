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
/// Bytes of links per slot.
pub(crate) const LINK_BYTES: u64 = 16;
/// Bytes of the first index table of a region.
pub(crate) const FIRST_INDEX_BYTES: u64 = PAGE_BYTES;

/// Offset of the second superblock.
pub(crate) const SUPERBLOCK_B: u64 = seat::SEATS_OFFSET + seat::SEATS as u64 * seat::SEAT_BYTES;
/// Offset of the region table.
pub(crate) const REGION_TABLE: u64 = SUPERBLOCK_B + PAGE_BYTES;

/// Sizes and counts of one store, fixed at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Capacity of a record, in bytes.
    pub(crate) record_size: u32,
    /// log2 of the slots in an extent.
    pub(crate) slots_log2: u32,
    /// Number of regions.
    pub(crate) regions: u32,
    /// Ceiling of the file's size, in bytes.
    pub(crate) max_size: u64,
    /// Key of the id hash.
    pub(crate) hash_key: u64,
    // Derived.
    pub(crate) slot_size: u64,
    pub(crate) extent_size: u64,
    pub(crate) links_offset: u64,
    pub(crate) base: u64,
}

impl Geometry {
    /// The geometry of these numbers, or the reason why they are refused.
    pub(crate) fn new(
        record_size: u64,
        slots_log2: u32,
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
        if slots_log2 > 24 {
            return Err(format!("2^{slots_log2} slots per extent: at most 2^24"));
        }
        if max_size > FILE_SIZE_MAX {
            return Err(format!("maximum size {max_size}: at most {FILE_SIZE_MAX} bytes (16 TiB)"));
        }
        let slot_size = round_up(slot::HEADER_BYTES + record_size, slot::SLOT_ALIGN);
        let slots = 1u64 << slots_log2;
        let links_offset = round_up(EXTENT_HEADER_BYTES + slots * slot_size, PAGE_BYTES);
        let extent_size = links_offset + round_up(slots * LINK_BYTES, PAGE_BYTES);
        let base = REGION_TABLE
            + round_up(u64::from(regions) * HEAD_BYTES, PAGE_BYTES)
            + u64::from(regions) * FIRST_INDEX_BYTES;
        if base + extent_size > max_size {
            return Err(format!(
                "maximum size {max_size}: less than the {} bytes that one extent needs",
                base + extent_size
            ));
        }
        Ok(Self {
            record_size: record_size as u32,
            slots_log2,
            regions,
            max_size,
            hash_key,
            slot_size,
            extent_size,
            links_offset,
            base,
        })
    }

    /// A number of slots per extent that makes an extent about 1 MiB, but 4 slots at least for
    /// large records and one for the largest.
    pub(crate) fn default_slots_log2(record_size: u64) -> u32 {
        let slot = round_up(slot::HEADER_BYTES + record_size.max(1), slot::SLOT_ALIGN);
        let wanted = ((1u64 << 20) / (slot + LINK_BYTES)).max(if slot <= 16 << 20 { 4 } else { 1 });
        wanted.ilog2()
    }

    /// Slots in one extent.
    #[inline]
    pub(crate) fn slots_per_extent(&self) -> u32 {
        1 << self.slots_log2
    }

    /// Extents that fit under the ceiling and into the space of slot numbers.
    pub(crate) fn extents_max(&self) -> u32 {
        let by_size = (self.max_size - self.base) / self.extent_size;
        let by_slots = (u64::from(u32::MAX) >> self.slots_log2) - 1;
        by_size.min(by_slots) as u32
    }

    /// Whole extents in a file of `len` bytes.
    pub(crate) fn extents_in(&self, len: u64) -> u32 {
        (len.saturating_sub(self.base) / self.extent_size).min(u64::from(self.extents_max())) as u32
    }

    /// File offset of an extent.
    #[inline]
    pub(crate) fn extent_offset(&self, extent: u32) -> u64 {
        self.base + u64::from(extent) * self.extent_size
    }

    /// File offset of a slot.
    #[inline]
    pub(crate) fn slot_offset(&self, slot: u32) -> u64 {
        let within = slot & (self.slots_per_extent() - 1);
        self.extent_offset(slot >> self.slots_log2) + EXTENT_HEADER_BYTES + u64::from(within) * self.slot_size
    }

    /// File offset of a slot's links.
    #[inline]
    pub(crate) fn link_offset(&self, slot: u32) -> u64 {
        let within = slot & (self.slots_per_extent() - 1);
        self.extent_offset(slot >> self.slots_log2) + self.links_offset + u64::from(within) * LINK_BYTES
    }

    /// The extent of a slot.
    #[inline]
    pub(crate) fn extent_of(&self, slot: u32) -> u32 {
        slot >> self.slots_log2
    }

    /// The first slot of an extent.
    pub(crate) fn first_slot(&self, extent: u32) -> u32 {
        extent << self.slots_log2
    }

    /// File offset of a region's head.
    #[inline]
    pub(crate) fn head_offset(&self, region: u32) -> u64 {
        REGION_TABLE + u64::from(region) * HEAD_BYTES
    }

    /// File offset of a region's first index table.
    pub(crate) fn first_index_offset(&self, region: u32) -> u64 {
        REGION_TABLE
            + round_up(u64::from(self.regions) * HEAD_BYTES, PAGE_BYTES)
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
        let g = Geometry::new(64, 8, 1, 1 << 40, 0).unwrap();
        assert_eq!(g.slot_size, 96);
        for slot in 0..512 {
            let at = g.slot_offset(slot);
            assert!((at + 95) / 64 - at / 64 <= 1, "slot {slot}");
        }
    }

    #[test]
    fn parts_do_not_overlap() {
        let g = Geometry::new(100, 3, 5, 1 << 30, 7).unwrap();
        assert!(g.first_index_offset(4) + FIRST_INDEX_BYTES == g.base);
        assert!(g.slot_offset(7) + g.slot_size <= g.extent_offset(0) + g.links_offset);
        assert!(g.link_offset(7) + LINK_BYTES <= g.extent_offset(1));
        assert_eq!(g.slot_offset(8), g.extent_offset(1) + EXTENT_HEADER_BYTES);
    }
}
