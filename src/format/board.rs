//! Boards: parts of the file by which writers tell watchers and feeds what they changed. Each lies in an extent for index tables, and a
//! word of the control page leads to it. A store has a board once a program has asked for it. Nothing depends on its content but the
//! time by which a change is told.

use super::checked;
use super::geometry::Geometry;
use super::index::LINE_BYTES;

/// The kinds of boards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Board {
    /// The bells that watchers of single records sleep on: see `protocol::bell`.
    Bells,
    /// The trails of all regions, which feeds follow: see `protocol::trail`.
    Trails,
}

/// All kinds.
pub(crate) const BOARDS: [Board; 2] = [Board::Bells, Board::Trails];

/// log2 of the bells of a store.
const BELLS_LOG2: u32 = 14;
/// log2 of the least and the most entries of a trail.
const TRAIL_LOG2: std::ops::RangeInclusive<u32> = 6..=12;
/// Bytes of a trail before its entries, and bytes of an entry.
const TRAIL_HEAD_BYTES: u64 = 64;
const TRAIL_ENTRY_BYTES: u64 = 24;
/// All trails of a store take at most so many bytes, unless they are as short as can be.
const TRAILS_BYTES_MAX: u64 = 8 << 20;
/// Bits of a place for its size.
const SIZE_BITS: u32 = 5;
/// A board takes at most this part of a file that may not grow beyond a size.
const PART_OF_CEILING: u64 = 16;

/// The place of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoardPlace {
    /// Its offset in lines of 64 bytes.
    line: u64,
    /// log2 of the bells, or of the entries of each trail.
    size_log2: u32,
}

impl BoardPlace {
    /// A board of so many parts at an offset, given in lines.
    pub(crate) fn new(line: u64, size_log2: u32) -> Self {
        Self { line, size_log2 }
    }

    /// The place that a word stores, if it stores one.
    #[inline]
    pub(crate) fn decode(word: u64) -> Option<Self> {
        let number = checked::decode(word)?;
        Some(Self { line: number >> SIZE_BITS, size_log2: number as u32 & ((1 << SIZE_BITS) - 1) })
    }

    /// The word that stores the place.
    pub(crate) fn encode(self) -> u64 {
        checked::encode(self.line << SIZE_BITS | u64::from(self.size_log2))
    }

    /// The offset of the board.
    #[inline]
    pub(crate) fn offset(self) -> u64 {
        self.line * LINE_BYTES
    }

    /// log2 of the parts.
    #[inline]
    pub(crate) fn size_log2(self) -> u32 {
        self.size_log2
    }
}

/// Bytes of the trail of one region.
#[inline]
pub(crate) fn trail_bytes(size_log2: u32) -> u64 {
    TRAIL_HEAD_BYTES + (TRAIL_ENTRY_BYTES << size_log2)
}

impl Board {
    /// log2 of the parts of a new board, or `None` if a store of this geometry has no room to spare for one.
    pub(crate) fn size_log2(self, geo: &Geometry) -> Option<u32> {
        let ceiling = geo.max_size / PART_OF_CEILING;
        let fits = |size_log2: &u32| self.bytes(geo, *size_log2) <= ceiling;
        match self {
            Self::Bells => Some(BELLS_LOG2).filter(fits),
            Self::Trails => {
                let least = *TRAIL_LOG2.start();
                let is_short = |log2: &u32| *log2 == least || self.bytes(geo, *log2) <= TRAILS_BYTES_MAX;
                TRAIL_LOG2.rev().find(|log2| is_short(log2) && fits(log2))
            }
        }
    }

    /// Whether a board of this kind may have this size.
    pub(crate) fn has_size(self, size_log2: u32) -> bool {
        match self {
            Self::Bells => size_log2 == BELLS_LOG2,
            Self::Trails => TRAIL_LOG2.contains(&size_log2),
        }
    }

    /// Bytes of a board.
    pub(crate) fn bytes(self, geo: &Geometry, size_log2: u32) -> u64 {
        match self {
            Self::Bells => 8 << size_log2,
            Self::Trails => u64::from(geo.regions) * trail_bytes(size_log2),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_and_a_board_is_no_large_part_of_a_store() {
        for place in [BoardPlace::new(0, 12), BoardPlace::new((1 << 38) - 1, 31)] {
            assert_eq!(BoardPlace::decode(place.encode()), Some(place));
        }
        let geo = |regions, max_size| Geometry::new(64, None, regions, max_size, 0).unwrap();
        for (regions, max_size, size_log2) in [
            (16, 1 << 40, Some(12)),
            (1000, 1 << 40, Some(8)),
            (16_384, 1 << 40, Some(6)),
            (16, 1 << 20, Some(7)),
            (16, 1 << 18, None),
        ] {
            let found = Board::Trails.size_log2(&geo(regions, max_size));
            assert_eq!(found, size_log2, "{regions} regions, {max_size} bytes");
        }
        assert_eq!(Board::Bells.size_log2(&geo(16, 1 << 18)), None);
        assert!(BOARDS.iter().all(|board| board.has_size(board.size_log2(&geo(1, 1 << 30)).unwrap())));
    }
}
