//! Boards: parts of the file by which writers tell watchers and feeds what they changed. Each lies in an extent for index tables, and a
//! word of the control page leads to it. A store has a board once a program has asked for it. Nothing depends on its content but the
//! time by which a change is told.

use super::geometry::Geometry;
use super::index::LINE_BYTES;
use super::{checked, round_up};

/// The kinds of boards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Board {
    /// The bells that watchers of single records sleep on: see `protocol::bell`.
    Bells,
}

/// All kinds.
pub(crate) const BOARDS: [Board; 1] = [Board::Bells];

/// log2 of the bells of a store.
const BELLS_LOG2: u32 = 12;
/// Bits of a place for its size.
const SIZE_BITS: u32 = 5;
/// A board takes at most this part of a file that may not grow beyond a size.
const PART_OF_CEILING: u64 = 16;

/// The place of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoardPlace {
    /// Its offset in lines of 64 bytes.
    line: u64,
    /// log2 of the bells.
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

impl Board {
    /// log2 of the parts of a new board, or `None` if a store of this geometry has no room to spare for one.
    pub(crate) fn size_log2(self, geo: &Geometry) -> Option<u32> {
        let size_log2 = match self {
            Self::Bells => BELLS_LOG2,
        };
        (self.bytes(geo, size_log2) <= geo.max_size / PART_OF_CEILING).then_some(size_log2)
    }

    /// Whether a board of this kind may have this size.
    pub(crate) fn has_size(self, size_log2: u32) -> bool {
        match self {
            Self::Bells => size_log2 == BELLS_LOG2,
        }
    }

    /// Bytes of a board.
    pub(crate) fn bytes(self, _geo: &Geometry, size_log2: u32) -> u64 {
        round_up(
            match self {
                Self::Bells => 8 << size_log2,
            },
            LINE_BYTES,
        )
    }
}
