//! Where everything lies in a store's file, worked out anew from the chapter on the format: the tests
//! that use it would see the format change by accident.

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// The control page.
pub(crate) const CONTROL: usize = PAGE;
/// The first seat.
pub(crate) const SEATS: usize = 2 * PAGE;
/// Bytes of a seat.
pub(crate) const SEAT_BYTES: usize = 64;
/// The second superblock.
pub(crate) const SUPERBLOCK_B: usize = SEATS + 1024 * SEAT_BYTES;
/// Bytes of a superblock; the last four are its checksum.
pub(crate) const SUPERBLOCK_BYTES: usize = 128;
/// The first region head.
pub(crate) const REGION_TABLE: usize = SUPERBLOCK_B + PAGE;
/// Bytes of a region head.
pub(crate) const HEAD_BYTES: usize = 256;
/// Bytes of an extent header; the last four are its checksum.
pub(crate) const EXTENT_HEADER_BYTES: usize = 64;
/// Bytes of a slot's header.
pub(crate) const SLOT_HEADER_BYTES: usize = 32;
/// Bytes of a slot's links.
pub(crate) const LINK_BYTES: usize = 16;
/// Bytes of a line of an index table.
pub(crate) const LINE_BYTES: usize = 64;
/// Entries of a line.
pub(crate) const ENTRIES: usize = 15;

/// The numbers that say where things lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) record_size: usize,
    pub(crate) regions: usize,
    /// Slots in an extent.
    pub(crate) slots: usize,
}

impl Layout {
    pub(crate) fn slot_size(&self) -> usize {
        (SLOT_HEADER_BYTES + self.record_size).next_multiple_of(32)
    }

    /// Where the links of an extent begin, from its own beginning.
    pub(crate) fn links_offset(&self) -> usize {
        (EXTENT_HEADER_BYTES + self.slots * self.slot_size()).next_multiple_of(PAGE)
    }

    pub(crate) fn extent_size(&self) -> usize {
        self.links_offset() + (self.slots * LINK_BYTES).next_multiple_of(PAGE)
    }

    /// The first index table of a region.
    pub(crate) fn first_index(&self, region: usize) -> usize {
        REGION_TABLE + (self.regions * HEAD_BYTES).next_multiple_of(PAGE) + region * PAGE
    }

    pub(crate) fn base(&self) -> usize {
        self.first_index(self.regions)
    }

    pub(crate) fn extent(&self, extent: usize) -> usize {
        self.base() + extent * self.extent_size()
    }

    pub(crate) fn slot(&self, slot: usize) -> usize {
        self.extent(slot / self.slots) + EXTENT_HEADER_BYTES + slot % self.slots * self.slot_size()
    }

    pub(crate) fn head(&self, region: usize) -> usize {
        REGION_TABLE + region * HEAD_BYTES
    }
}

/// The 8-byte word at an offset.
pub(crate) fn word(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"))
}

/// The hash of an id: the SplitMix64 finaliser of `id ^ key`.
pub(crate) fn hash(id: u64, key: u64) -> u64 {
    let mut h = id ^ key;
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// The region of a hash.
pub(crate) fn region(hash: u64, regions: usize) -> usize {
    (((hash >> 32) * regions as u64) >> 32) as usize
}

/// The line of a region's first index table where a hash is at home.
pub(crate) fn first_home(hash: u64) -> usize {
    hash as usize % (PAGE / LINE_BYTES)
}
