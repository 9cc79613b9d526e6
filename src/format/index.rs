//! The index table of a region: a hash table whose buckets are cache lines.
//!
//! A line is sixteen 32-bit cells: fifteen entries and a checksum of them. An entry is
//! `tag << slot_bits | (slot + 1)`; 0 is empty, all-ones slot bits with tag 0 is a deleted marker.
//! A record's home line is given by its hash; when the line is full it lies in a later one. So a
//! search ends at the first line that has an empty entry, and nearly always in the first.
//!
//! The checksum makes a *miss* believable: a hit proves itself by the slot's own checksum, a miss is
//! only as good as the entries. It is `seed + sum(entry[i] * K[i])` modulo 2^32 with odd `K[i]` (a
//! multilinear hash: Lemire, Kaser, "Strongly universal string hashing is fast", 2014), so it can be
//! updated for one entry, and every single flipped bit changes it. The seed names region, line
//! and shape, so a line of another table does not pass.

use super::geometry::Geometry;
use super::hash::hash;
use super::word::from_words;
use crate::sys::atomic::{AtomicU64, Ordering};

/// Bytes of a line.
pub(crate) const LINE_BYTES: u64 = 64;
/// 8-byte words of a line.
pub(crate) const LINE_WORDS: usize = 8;
/// Entries of a line.
pub(crate) const ENTRIES: usize = 15;
/// Lines of a region's first table.
pub(crate) const FIRST_LINES_LOG2: u32 = (super::geometry::FIRST_INDEX_BYTES / LINE_BYTES).ilog2();
/// Most lines that a table can have (log2): 4 GiB.
pub(crate) const LINES_LOG2_MAX: u32 = 26;

/// Where an index table is and how it is read: one word, so that it is read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// File offset of the table's first line, in units of 64 bytes.
    pub(crate) line_offset: u64,
    /// log2 of the number of lines.
    pub(crate) lines_log2: u32,
    /// Bits of an entry that hold the slot.
    pub(crate) slot_bits: u32,
    /// Changes whenever the table does.
    pub(crate) version: u32,
    /// The table is being rebuilt in place: don't read it.
    pub(crate) rebuilding: bool,
    /// Members of an atomic batch lie in the region, and the index does not lead to all of them yet.
    pub(crate) batch: bool,
}

/// Any number that is no store's hash key.
const SEED_KEY: u64 = 0x9e37_79b9_7f4a_7c15;
const OFFSET_BITS: u32 = 38;
const VERSION_BITS: u32 = 14;

/// The entries of a first table have room for the slots of this many groups or, if extents are uniform, extents.
const FIRST_GROUPS: u64 = 16;
/// If extents grow, they have room for this many groups of each region.
const FIRST_GROUPS_PER_REGION: u64 = 8;

impl Shape {
    /// The shape of the table that a region begins with, in this version of it.
    pub(crate) fn first(geo: &Geometry, region: u32, version: u32) -> Self {
        let of_all = if geo.grows { u64::from(geo.regions) * FIRST_GROUPS_PER_REGION } else { 0 };
        let groups = FIRST_GROUPS.max(of_all);
        Self {
            line_offset: geo.first_index_offset(region) / LINE_BYTES,
            lines_log2: FIRST_LINES_LOG2,
            slot_bits: Self::slot_bits_for(groups << geo.slots_log2),
            version,
            rebuilding: false,
            batch: false,
        }
    }

    /// The word that stores the shape: offset 38, lines 5, slot bits 5, version 14, batch 1, rebuilding 1.
    #[inline]
    pub(crate) fn encode(self) -> u64 {
        self.line_offset
            | (u64::from(self.lines_log2) << OFFSET_BITS)
            | (u64::from(self.slot_bits - 1) << (OFFSET_BITS + 5))
            | (u64::from(self.version & ((1 << VERSION_BITS) - 1)) << (OFFSET_BITS + 10))
            | (u64::from(self.batch) << 62)
            | (u64::from(self.rebuilding) << 63)
    }

    /// The shape that a word stores. Any word is some shape; whether it can be true is the
    /// reader's to check.
    #[inline]
    pub(crate) fn decode(word: u64) -> Self {
        Self {
            line_offset: word & ((1 << OFFSET_BITS) - 1),
            lines_log2: ((word >> OFFSET_BITS) & 31) as u32,
            slot_bits: ((word >> (OFFSET_BITS + 5)) & 31) as u32 + 1,
            version: ((word >> (OFFSET_BITS + 10)) & ((1 << VERSION_BITS) - 1)) as u32,
            rebuilding: word >> 63 == 1,
            batch: word >> 62 & 1 == 1,
        }
    }

    /// Whether the table alone does not give the answer to readers.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.rebuilding | self.batch
    }

    /// File offset of the table.
    pub(crate) fn offset(&self) -> u64 {
        self.line_offset * LINE_BYTES
    }

    /// Bytes of the table.
    pub(crate) fn bytes(&self) -> u64 {
        LINE_BYTES << self.lines_log2
    }

    /// Number of lines.
    #[inline]
    pub(crate) fn lines(&self) -> u64 {
        1 << self.lines_log2
    }

    /// Number of entries of all lines.
    #[inline]
    pub(crate) fn entries(&self) -> u64 {
        ENTRIES as u64 * self.lines()
    }

    /// The way of a search for a hash: the numbers of all lines, from its home line on.
    #[inline]
    pub(crate) fn walk(&self, hash: u64) -> impl Iterator<Item = u64> + use<> {
        let (home, last) = (self.home(hash), self.lines() - 1);
        (0..=last).map(move |n| (home + n) & last)
    }

    /// The home line of a hash.
    #[inline]
    pub(crate) fn home(&self, hash: u64) -> u64 {
        hash & ((1 << self.lines_log2) - 1)
    }

    /// File offset of a line (modulo the number of lines).
    #[inline]
    pub(crate) fn line_at(&self, line: u64) -> u64 {
        (self.line_offset + (line & ((1 << self.lines_log2) - 1))) * LINE_BYTES
    }

    /// The bits of an entry that hold the slot.
    #[inline]
    pub(crate) fn slot_mask(&self) -> u32 {
        ((1u64 << self.slot_bits) - 1) as u32
    }

    /// The tag of a hash, in its place.
    #[inline]
    pub(crate) fn tag(&self, hash: u64) -> u32 {
        ((hash >> LINES_LOG2_MAX) << self.slot_bits) as u32
    }

    /// The entry of a record.
    #[inline]
    pub(crate) fn entry(&self, hash: u64, slot: u32) -> u32 {
        self.tag(hash) | (slot + 1)
    }

    /// The slot of an entry that is neither empty nor deleted.
    #[inline]
    pub(crate) fn slot(&self, entry: u32) -> Option<u32> {
        let s = entry & self.slot_mask();
        if s == 0 || entry == self.deleted() { None } else { Some(s - 1) }
    }

    /// The marker of a deleted entry in a full line.
    #[inline]
    pub(crate) fn deleted(&self) -> u32 {
        self.slot_mask()
    }

    /// Slot bits that let every slot below `slots` be stored, with room to grow.
    pub(crate) fn slot_bits_for(slots: u64) -> u32 {
        (64 - (slots * 2 + 2).leading_zeros()).clamp(8, 32)
    }

    /// Whether the entry of `slot` can be stored.
    #[inline]
    pub(crate) fn holds(&self, slot: u32) -> bool {
        u64::from(slot) + 2 < (1u64 << self.slot_bits)
    }

    /// The checksum seed of a line.
    #[inline]
    pub(crate) fn seed(&self, region: u32, line: u64) -> u32 {
        let same = Self { rebuilding: false, batch: false, ..*self };
        // Hashed first, or a bit flipped in the offset would undo one in the line's number.
        hash(same.encode(), hash((u64::from(region) << 32) | line, SEED_KEY)) as u32
    }
}

/// Odd multipliers of the entries (from the digits of the golden ratio by SplitMix64).
const K: [u32; ENTRIES] = {
    let mut k = [0; ENTRIES];
    let mut i = 0;
    while i < ENTRIES {
        k[i] = hash(i as u64, 0x9e37_79b9_7f4a_7c15) as u32 | 1;
        i += 1;
    }
    k
};

/// Where a region's index table is, and its shape.
#[derive(Clone, Copy)]
pub(crate) struct ShapeWord<'a>(&'a AtomicU64);

impl ShapeWord<'_> {
    #[inline]
    pub(crate) fn load(self, order: Ordering) -> Shape {
        Shape::decode(self.0.load(order))
    }

    #[inline]
    pub(crate) fn store(self, shape: Shape, order: Ordering) {
        self.0.store(shape.encode(), order);
    }

    /// All bits of the word: equal ones are the same shape.
    #[inline]
    pub(crate) fn bits(self, order: Ordering) -> u64 {
        self.0.load(order)
    }
}

from_words!(ShapeWord);

/// A line, copied.
#[derive(Clone, Copy)]
pub(crate) struct Line(pub(crate) [u32; ENTRIES + 1]);

impl Line {
    /// A line from its words.
    #[inline]
    pub(crate) fn from_words(words: [u64; LINE_WORDS]) -> Self {
        Self(bytemuck::cast(words))
    }

    /// The line's words.
    #[inline]
    pub(crate) fn words(&self) -> [u64; LINE_WORDS] {
        bytemuck::cast(self.0)
    }

    /// An empty line.
    pub(crate) fn empty(seed: u32) -> Self {
        let mut line = [0; ENTRIES + 1];
        line[ENTRIES] = seed;
        Self(line)
    }

    /// Whether the checksum holds.
    #[inline]
    pub(crate) fn holds(&self, seed: u32) -> bool {
        let sum = (0..ENTRIES).fold(seed, |sum, i| sum.wrapping_add(Self::share(i, self.0[i])));
        sum == self.0[ENTRIES]
    }

    /// The slots that the entries name.
    pub(crate) fn slots(self, shape: &Shape) -> impl Iterator<Item = u32> {
        self.0.into_iter().take(ENTRIES).filter_map(|entry| shape.slot(entry))
    }

    /// Whether an entry is empty, so that a search ends here.
    #[inline]
    pub(crate) fn has_empty(&self) -> bool {
        self.0[..ENTRIES].contains(&0)
    }

    /// The term of entry `i` in the checksum.
    #[inline]
    pub(crate) fn share(i: usize, entry: u32) -> u32 {
        entry.wrapping_mul(K[i])
    }

    /// The checksum after entry `i` has become `entry`.
    #[inline]
    pub(crate) fn sum_with(&self, i: usize, entry: u32) -> u32 {
        self.0[ENTRIES].wrapping_add(Self::share(i, entry.wrapping_sub(self.0[i])))
    }

    /// Makes entry `i` `entry`.
    #[inline]
    pub(crate) fn set(&mut self, i: usize, entry: u32) {
        self.0[ENTRIES] = self.sum_with(i, entry);
        self.0[i] = entry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { line_offset: 1234, lines_log2: 6, slot_bits: 20, version: 7, rebuilding: false, batch: false }
    }

    #[test]
    fn a_shape_survives_its_word() {
        for (rebuilding, batch) in [(false, false), (true, false), (false, true), (true, true)] {
            for slot_bits in [8, 20, 32] {
                let s = Shape { rebuilding, batch, slot_bits, line_offset: (1 << 38) - 1, ..shape() };
                assert_eq!(Shape::decode(s.encode()), s);
                assert_eq!(s.is_marked(), rebuilding || batch);
                assert_eq!(s.seed(3, 9), Shape { rebuilding: false, batch: false, ..s }.seed(3, 9));
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_line_is_seen() {
        let seed = shape().seed(3, 9);
        let mut line = Line::empty(seed);
        for i in 0..10 {
            line.set(i, shape().entry(0x1234_5678_9abc_def0u64.rotate_left(i as u32 * 5), i as u32));
        }
        assert!(line.holds(seed));
        for bit in 0..512 {
            let mut bad = line;
            bad.0[bit / 32] ^= 1 << (bit % 32);
            assert!(!bad.holds(seed), "bit {bit}");
        }
        assert!(!line.holds(shape().seed(4, 9)));
    }

    #[test]
    fn a_walk_passes_every_line_once_from_home_on() {
        let hash = 61;
        let walk: Vec<u64> = shape().walk(hash).collect();
        assert_eq!(walk.len() as u64, shape().lines());
        assert_eq!(walk[..5], [61, 62, 63, 0, 1]);
        assert_eq!(walk.iter().collect::<std::collections::HashSet<_>>().len(), walk.len());
        assert_eq!(shape().entries(), 64 * 15);
    }

    #[test]
    fn an_entry_gives_back_its_slot() {
        let s = shape();
        for slot in [0, 1, (1 << 20) - 3] {
            assert!(s.holds(slot));
            assert_eq!(s.slot(s.entry(u64::MAX, slot)), Some(slot));
            assert_ne!(s.entry(0, slot), s.deleted());
        }
        assert!(!s.holds((1 << 20) - 2));
        assert_eq!(s.slot(0), None);
        assert_eq!(s.slot(s.deleted()), None);
    }
}
